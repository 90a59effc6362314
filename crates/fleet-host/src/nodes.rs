//! Device nodes that the driver needs and udev may not have made, and the links by which systemd finds them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::gpu::Gpu;
use crate::proc::{self, MigMinors};
use crate::tree::Tree;

/// A node and its numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNode {
    /// Path below the root of `/dev`.
    pub path: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl DeviceNode {
    /// Permission bits that the driver's own tool gives it.
    #[must_use]
    pub fn mode(&self) -> u32 {
        // Capabilities of MIG are only read (`DeviceFileMode` in `/proc/driver/nvidia/capabilities`).
        match self.is_capability() {
            true => 0o444,
            false => 0o666,
        }
    }

    /// Whether it opens a part of MIG.
    #[must_use]
    pub fn is_capability(&self) -> bool {
        self.path.starts_with(CAPABILITIES)
    }
}

/// Nodes that cannot be told or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodesError {
    /// `/proc/devices` cannot be read.
    #[error("read /proc/devices: {0}")]
    Devices(io::Error),
    /// The module is not loaded.
    #[error(
        "find the major number of `{0}` in /proc/devices: it is not there; hint: load the module, --load-kernel-modules does"
    )]
    NoMajor(&'static str),
    /// A node cannot be made.
    #[error("make node {path}: {source}")]
    Make {
        /// The node.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// Something else lies there.
    #[error("make node {path} ({major}:{minor}): {found} is in the way")]
    InTheWay {
        /// The node.
        path: String,
        /// Major number wanted.
        major: u32,
        /// Minor number wanted.
        minor: u32,
        /// What is there.
        found: String,
    },
    /// A link cannot be made.
    #[error("make link {path}: {source}")]
    Link {
        /// The link.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Major numbers of the driver's modules.
#[derive(Clone, Debug)]
pub struct Majors {
    gpu: u32,
    uvm: u32,
    caps: Option<u32>,
}

impl Majors {
    /// From `/proc/devices`. Drivers before 550 call the first `nvidia-frontend`.
    ///
    /// # Errors
    /// A module is not loaded.
    pub fn of(system: &Tree) -> Result<Self, NodesError> {
        let text = system.text("/proc/devices").map_err(NodesError::Devices)?;
        let majors = proc::character_majors(&text);
        let major = |names: &[&str]| names.iter().find_map(|name| majors.get(*name).copied());
        Ok(Self {
            gpu: major(&["nvidia", "nvidia-frontend"]).ok_or(NodesError::NoMajor("nvidia"))?,
            uvm: major(&["nvidia-uvm"]).ok_or(NodesError::NoMajor("nvidia-uvm"))?,
            caps: major(&["nvidia-caps"]),
        })
    }

    /// Nodes of the driver itself.
    #[must_use]
    pub fn control(&self) -> Vec<DeviceNode> {
        let node = |path: &str, major, minor| DeviceNode {
            path: path.to_owned(),
            major,
            minor,
        };
        vec![
            node("/dev/nvidiactl", self.gpu, 255),
            node("/dev/nvidia-modeset", self.gpu, 254),
            node("/dev/nvidia-uvm", self.uvm, 0),
            node("/dev/nvidia-uvm-tools", self.uvm, 1),
        ]
    }

    /// A GPU's node.
    #[must_use]
    pub fn gpu(&self, minor: u32) -> DeviceNode {
        DeviceNode {
            path: format!("/dev/nvidia{minor}"),
            major: self.gpu,
            minor,
        }
    }

    /// Every node that this machine's GPUs may need, whether it is there or not: control, GPUs by the PCI bus, MIG.
    #[must_use]
    pub fn all(&self, system: &Tree) -> Vec<DeviceNode> {
        let minors = (0..).zip(proc::pci_gpus(system)).map(|(minor, _)| minor);
        let minors: Vec<u32> = minors.collect();
        if minors.is_empty() {
            return Vec::new();
        }
        let mut nodes = self.control();
        nodes.extend(minors.iter().map(|minor| self.gpu(*minor)));
        if let (Some(major), Some(mig)) = (self.caps, MigMinors::of(system)) {
            let control = ["config", "monitor"]
                .iter()
                .filter_map(|name| mig.control(name));
            let parts = minors.iter().flat_map(|minor| mig.of_gpu(*minor));
            nodes.extend(control.chain(parts).map(|minor| DeviceNode {
                path: format!("/dev/nvidia-caps/nvidia-cap{minor}"),
                major,
                minor,
            }));
        }
        nodes
    }
}

/// What the loaded driver states about the numbers of its nodes.
#[derive(Debug)]
pub struct Stated {
    majors: BTreeMap<String, u32>,
    gpus: Vec<Gpu>,
    mig: Option<MigMinors>,
}

impl Stated {
    /// Of a machine; `None` where no driver is loaded.
    #[must_use]
    pub fn of(system: &Tree) -> Option<Self> {
        proc::loaded_version(system)?;
        let text = system.text("/proc/devices").ok()?;
        Some(Self {
            majors: proc::character_majors(&text),
            gpus: proc::inventory(system).gpus,
            mig: MigMinors::of(system),
        })
    }

    /// The node of this path, if the driver has such a device.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<DeviceNode> {
        let (modules, minor): (&[&str], u32) = match path.strip_prefix("/dev/nvidia")? {
            "ctl" => (&GPU_MODULES, 255),
            "-modeset" => (&GPU_MODULES, 254),
            "-uvm" => (&["nvidia-uvm"], 0),
            "-uvm-tools" => (&["nvidia-uvm"], 1),
            name => match name.strip_prefix("-caps/nvidia-cap") {
                Some(number) => (&["nvidia-caps"], self.capability(number)?),
                None => (&GPU_MODULES, self.gpu(name)?),
            },
        };
        let major = modules.iter().find_map(|name| self.majors.get(*name))?;
        Some(DeviceNode {
            path: path.to_owned(),
            major: *major,
            minor,
        })
    }

    fn gpu(&self, number: &str) -> Option<u32> {
        let mut minors = self.gpus.iter().map(|gpu| gpu.minor);
        minors.find(|minor| minor.to_string() == number)
    }

    fn capability(&self, number: &str) -> Option<u32> {
        let minor = number.parse().ok()?;
        let is_known = self.mig.as_ref()?.has(minor) && minor.to_string() == number;
        is_known.then_some(minor)
    }

    /// The nodes without which GPUs and partitions cannot be used: control, GPUs, instances.
    #[must_use]
    pub fn needed(&self) -> Vec<DeviceNode> {
        let control = ["ctl", "-modeset", "-uvm", "-uvm-tools"];
        let mut paths = control.map(|name| format!("/dev/nvidia{name}")).to_vec();
        for gpu in &self.gpus {
            paths.push(format!("/dev/nvidia{}", gpu.minor));
            let minors = self.mig.as_ref().into_iter().flat_map(|minors| {
                let parts = gpu.mig.iter().flatten();
                parts.flat_map(|part| {
                    let (gi, ci) = (part.gpu_instance, part.compute_instance);
                    [
                        minors.gpu_instance(gpu.minor, gi),
                        minors.compute_instance(gpu.minor, gi, ci),
                    ]
                })
            });
            let caps = minors.flatten();
            paths.extend(caps.map(|minor| format!("/dev/nvidia-caps/nvidia-cap{minor}")));
        }
        paths.sort();
        paths.dedup();
        paths.iter().filter_map(|path| self.node(path)).collect()
    }
}

/// Drivers before 550 have the second name.
const GPU_MODULES: [&str; 2] = ["nvidia", "nvidia-frontend"];

/// Nodes of GPUs, control and MIG that are there; those of storage, switches and links have rules of their own.
#[must_use]
pub fn existing(dev: &Tree) -> Vec<DeviceNode> {
    let paths = dev.glob("/dev/nvidia*");
    let paths = paths
        .into_iter()
        .chain(dev.glob("/dev/nvidia-caps/nvidia-*"));
    let others = [
        "/dev/nvidia-fs",
        "/dev/nvidia-nvswitch",
        "/dev/nvidia-nvlink",
    ];
    let nodes = paths.filter(|path| !others.iter().any(|other| path.starts_with(other)));
    let nodes = nodes.filter_map(|path| {
        let stat = dev.node(&path).ok()??;
        Some(DeviceNode {
            path,
            major: stat.major,
            minor: stat.minor,
        })
    });
    nodes.collect()
}

/// Whether the node has to be made.
///
/// # Errors
/// Something else lies there.
pub fn is_missing(dev: &Tree, node: &DeviceNode) -> Result<bool, NodesError> {
    let in_the_way = |found: String| NodesError::InTheWay {
        path: dev.host(&node.path),
        major: node.major,
        minor: node.minor,
        found,
    };
    match dev.node(&node.path) {
        Ok(Some(stat)) if (stat.major, stat.minor) == (node.major, node.minor) => Ok(false),
        Ok(Some(stat)) => Err(in_the_way(format!("node {}:{}", stat.major, stat.minor))),
        Ok(None) => Err(in_the_way("something that is no node".to_owned())),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(NodesError::Make {
            path: dev.host(&node.path),
            source,
        }),
    }
}

/// Directory of capabilities.
const CAPABILITIES: &str = "/dev/nvidia-caps";

/// Makes a node that everybody may open, as the driver's own tool does.
///
/// # Errors
/// As `man 2 mknod`.
pub fn make(dev: &Tree, node: &DeviceNode) -> Result<(), NodesError> {
    let made = || -> io::Result<()> {
        let (dir, name) = node
            .path
            .rsplit_once('/')
            .ok_or(io::ErrorKind::InvalidInput)?;
        if dir == CAPABILITIES && !dev.exists(dir) {
            let at = dev.real(&dev.resolve("/dev")?).join("nvidia-caps");
            made_already(fs::create_dir(&at))?;
            fs::set_permissions(at, fs::Permissions::from_mode(0o755))?;
        }
        let path = dev.real(&dev.resolve(dir)?).join(name);
        let number = makedev(node.major.into(), node.minor.into());
        let mode = node.mode();
        mknod(
            &path,
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(mode),
            number,
        )?;
        // Whatever the umask.
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    };
    made().map_err(|source| NodesError::Make {
        path: dev.host(&node.path),
        source,
    })
}

fn made_already(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// A link by which systemd finds a node from its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CharLink {
    /// Where it is.
    pub link: PathBuf,
    /// Its text.
    pub target: String,
    /// Where this process finds the node.
    node: PathBuf,
}

impl CharLink {
    /// For a node, in a directory such as `/dev/char`.
    #[must_use]
    pub fn new(dev: &Tree, node: &DeviceNode, directory: &Path) -> Self {
        Self {
            link: directory.join(format!("{}:{}", node.major, node.minor)),
            target: dev.host(&node.path),
            node: dev.real(&node.path),
        }
    }

    /// Makes the link unless a name is there that leads to the same node; says whether it was made.
    ///
    /// # Errors
    /// As `man 2 symlink`, or another node has the name.
    pub fn make(&self) -> Result<bool, NodesError> {
        let failed = |source| NodesError::Link {
            path: self.link.clone(),
            source,
        };
        if let Some(dir) = self.link.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        match symlink(&self.target, &self.link) {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => match self.is_there() {
                true => Ok(false),
                false => Err(failed(io::Error::other(
                    "another file has the name and leads elsewhere; hint: remove it",
                ))),
            },
            Err(err) => Err(failed(err)),
        }
    }

    /// udev writes `../nvidia0`, which leads to the same.
    #[must_use]
    pub fn is_there(&self) -> bool {
        let Ok(text) = fs::read_link(&self.link) else {
            return false;
        };
        let dir = self
            .link
            .parent()
            .and_then(|dir| dir.to_str())
            .unwrap_or_default();
        let text = text.to_str().unwrap_or_default();
        match text.starts_with('/') {
            true => crate::clean(text) == self.target,
            false => self.node == Path::new(&crate::clean(&format!("{dir}/{text}"))),
        }
    }
}

#[cfg(test)]
mod tests;
