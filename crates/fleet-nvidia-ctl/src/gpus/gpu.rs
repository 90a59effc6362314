//! The GPUs of a node: by the driver's own files, and by the CDI specs.

use std::collections::BTreeMap;
use std::path::Path;

use fleet_cdi::{ContainerEdits, Registry};
use fleet_host::proc;
use fleet_inject::HostProbe;
use serde::Serialize;

use crate::files::{FileError, Files};

/// Numbers of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DevNum {
    pub(crate) major: i64,
    pub(crate) minor: i64,
}

impl Serialize for DevNum {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for DevNum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One GPU, known by its device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Gpu {
    /// Numbers of its node.
    pub(crate) device: DevNum,
    /// Path on the host.
    pub(crate) path: String,
    /// As the driver states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bus: Option<String>,
    /// CDI devices that have this node for themselves.
    pub(crate) names: Vec<String>,
}

/// All GPUs, by number.
pub(crate) fn all(files: &Files, registry: &Registry) -> Result<Vec<Gpu>, FileError> {
    let mut gpus = of_specs(files, registry);
    for gpu in of_driver(files)? {
        let known = gpus.entry(gpu.device).or_insert_with(|| gpu.clone());
        (known.uuid, known.model, known.bus) = (gpu.uuid, gpu.model, gpu.bus);
    }
    for gpu in gpus.values_mut().filter(|gpu| gpu.uuid.is_none()) {
        // NVIDIA's generator names a device by its UUID as well.
        let names = gpu.names.iter().filter_map(|name| name.split_once('='));
        gpu.uuid = names
            .map(|(_, name)| name)
            .find(|name| name.starts_with("GPU-"))
            .map(str::to_owned);
    }
    Ok(gpus.into_values().collect())
}

/// As proc states them.
fn of_driver(files: &Files) -> Result<Vec<Gpu>, FileError> {
    let devices = files.read(Path::new("/proc/devices"))?.unwrap_or_default();
    let majors = proc::character_majors(&devices);
    let major = majors
        .get("nvidia")
        .or_else(|| majors.get("nvidia-frontend"));
    let (Some(major), Ok(tree)) = (major, files.tree()) else {
        return Ok(Vec::new());
    };
    let gpus = proc::inventory(&tree).gpus.into_iter().map(|gpu| Gpu {
        device: DevNum {
            major: (*major).into(),
            minor: gpu.minor.into(),
        },
        path: format!("/dev/nvidia{}", gpu.minor),
        uuid: gpu.uuid,
        model: Some(gpu.name).filter(|name| !name.is_empty()),
        bus: gpu.bus_id.map(|bus| bus.to_string()),
        names: Vec::new(),
    });
    Ok(gpus.collect())
}

/// A node that some CDI device of a GPU kind has for itself: those of `all`, and of the whole spec, are everybody's.
fn of_specs(files: &Files, registry: &Registry) -> BTreeMap<DevNum, Gpu> {
    let mut gpus: BTreeMap<DevNum, Gpu> = BTreeMap::new();
    for (name, loaded) in registry.entries() {
        if !name.kind().ends_with("/gpu") || name.name() == "all" {
            continue;
        }
        let devices = &loaded.spec.devices;
        let device = devices.iter().find(|device| device.name == name.name());
        let Some((path, number)) = device.and_then(|device| node(files, &device.container_edits))
        else {
            continue;
        };
        let gpu = gpus.entry(number).or_insert_with(|| Gpu {
            device: number,
            path,
            uuid: None,
            model: None,
            bus: None,
            names: Vec::new(),
        });
        gpu.names.push(name.to_string());
    }
    gpus
}

/// The first node is the GPU's own; others, such as those of /dev/dri, come after it.
fn node(files: &Files, edits: &ContainerEdits) -> Option<(String, DevNum)> {
    let node = edits.device_nodes.first()?;
    let path = node.host_path.as_ref().unwrap_or(&node.path);
    let number = match (node.major, node.minor) {
        (Some(major), Some(minor)) if major != 0 => DevNum { major, minor },
        _ => {
            let stat = files.host().lstat_device(path).ok()?;
            DevNum {
                major: stat.major.into(),
                minor: stat.minor.into(),
            }
        }
    };
    Some((path.clone(), number))
}
