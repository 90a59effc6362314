//! A simulated node with every number settled; the file that the simulated NVML reads.

use serde::{Deserialize, Serialize};

use crate::description::Description;
use crate::mig::GpuInstance;
use crate::node::Node;
use crate::presets;

/// A description that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("machine `{name}`: {why}")]
pub struct MachineError {
    /// Name or file.
    pub name: String,
    /// The cause.
    pub why: String,
}

/// Kinds of node, which are discovered in different ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// A PC or server with the NVIDIA driver.
    #[default]
    Native,
    /// Windows Subsystem for Linux: `/dev/dxg` and the driver store.
    Wsl,
    /// A Tegra board with an integrated GPU.
    Tegra,
}

/// A node with its GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Kind of node.
    #[serde(default)]
    pub platform: Platform,
    /// Version of the driver's user-space files, such as `550.54.15`.
    pub driver_version: String,
    /// Version of the kernel module; another one than the files' is the well-known mismatch.
    pub module_version: String,
    /// CUDA version, such as `12.4`.
    pub cuda_version: String,
    /// Boot id.
    pub boot_id: String,
    /// What `nvmlInit` returns instead of success (`nvmlReturn_t`).
    #[serde(default)]
    pub init_error: Option<u32>,
    /// GPUs.
    pub gpus: Vec<Gpu>,
    /// Control nodes.
    pub control: Vec<Node>,
    /// MIG's own control nodes.
    #[serde(default)]
    pub caps: Vec<Node>,
    /// `NVSwitch` chips and the nodes that belong to all of them.
    #[serde(default)]
    pub switches: Vec<Switch>,
    /// IMEX channels.
    #[serde(default)]
    pub imex: Vec<Node>,
    /// Whether persistenced's socket is there.
    #[serde(default)]
    pub persistenced: bool,
    /// Whether the fabric manager's socket is there.
    #[serde(default)]
    pub fabricmanager: bool,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Minor number of its node: `/dev/nvidia<minor>`.
    pub minor: u32,
    /// Key of its model.
    pub model: String,
    /// Product name.
    pub name: String,
    /// `GPU-…`.
    pub uuid: String,
    /// `0000:17:00.0`.
    pub bus_id: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Board serial number.
    #[serde(default)]
    pub serial: String,
    /// Memory in use, in MiB.
    #[serde(default)]
    pub used_mib: u64,
    /// Degrees Celsius.
    #[serde(default)]
    pub temperature: u32,
    /// Power draw.
    #[serde(default)]
    pub power_milliwatts: u32,
    /// Power limit.
    #[serde(default)]
    pub power_limit_milliwatts: u32,
    /// Compute capability, major.
    #[serde(default)]
    pub compute_major: i32,
    /// Compute capability, minor.
    #[serde(default)]
    pub compute_minor: i32,
    /// Its device node.
    pub node: Node,
    /// Nodes of direct rendering.
    #[serde(default)]
    pub drm: Option<Drm>,
    /// GPU instances; absent where MIG is off, empty where it is on without instances.
    #[serde(default)]
    pub mig: Option<Vec<GpuInstance>>,
    /// What is wrong with it.
    #[serde(default)]
    pub fault: Option<GpuFault>,
}

/// Nodes of direct rendering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drm {
    /// `dri/card0`.
    pub card: Node,
    /// `dri/renderD128`.
    pub render: Node,
}

/// What can be wrong with a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GpuFault {
    /// Fallen off the bus: NVML answers "GPU is lost".
    Lost,
    /// Its device node was not made.
    MissingNode,
    /// Its device node has the driver's number, and no driver answers.
    DeadNode,
    /// Nobody may open its device node.
    UnreadableNode,
    /// The kernel's file about it is garbage.
    GarbledProc,
}

/// An `NVSwitch` chip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// PCI address, where it is a chip.
    #[serde(default)]
    pub bus_id: Option<String>,
    /// Its device node.
    pub node: Node,
}

impl Machine {
    /// A built-in machine.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let text = presets::text(name)?;
        Description::parse(&text).ok()?.resolve().ok()
    }

    /// The description of a built-in machine.
    #[must_use]
    pub fn preset_text(name: &str) -> Option<String> {
        presets::text(name)
    }

    /// A preset by name, or a description file by path, with another driver version where one is given.
    ///
    /// # Errors
    /// A file that cannot be read or is no description.
    pub fn load(name: &str, driver: Option<&str>) -> Result<Self, MachineError> {
        let failed = |why: String| MachineError {
            name: name.to_owned(),
            why,
        };
        let text = match presets::text(name) {
            Some(text) => text,
            None => std::fs::read_to_string(name).map_err(|err| failed(format!("{err}; hint: a description file, or a name that `fleet-nvidia-ctl simulate list` prints")))?,
        };
        Description::parse(&text)
            .and_then(|description| match driver {
                Some(version) => description.with_driver(version).resolve(),
                None => description.resolve(),
            })
            .map_err(failed)
    }

    /// CUDA version as NVML's integer: 12.4 is 12040.
    #[must_use]
    pub fn cuda_number(&self) -> i32 {
        let mut parts = self
            .cuda_version
            .split('.')
            .map(|part| part.parse::<i32>().unwrap_or(0));
        parts.next().unwrap_or(0) * 1000 + parts.next().unwrap_or(0) * 10
    }

    /// Every device node: GPUs first, control, then what fewer need.
    pub fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        let mut first = Vec::new();
        let mut later = Vec::new();
        for gpu in &mut self.gpus {
            // Under WSL every GPU is behind one node.
            if self.platform != Platform::Wsl {
                first.push(&mut gpu.node);
            }
            if let Some(drm) = &mut gpu.drm {
                later.extend([&mut drm.card, &mut drm.render]);
            }
            for instance in gpu.mig.iter_mut().flatten() {
                later.push(&mut instance.node);
                later.extend(instance.compute.iter_mut().map(|ci| &mut ci.node));
            }
        }
        first
            .into_iter()
            .chain(&mut self.control)
            .chain(&mut self.caps)
            .chain(later)
            .chain(self.switches.iter_mut().map(|switch| &mut switch.node))
            .chain(&mut self.imex)
    }
}

impl Gpu {
    /// Nodes of this GPU alone, MIG's left out.
    #[must_use]
    pub fn own_nodes(&self) -> Vec<&Node> {
        let drm = self.drm.iter().flat_map(|drm| [&drm.card, &drm.render]);
        std::iter::once(&self.node).chain(drm).collect()
    }

    /// Whether this is the display adapter of a DGX Station, which computes nothing.
    #[must_use]
    pub fn is_dgx_display(&self) -> bool {
        self.name.ends_with("DGX Display")
    }
}
