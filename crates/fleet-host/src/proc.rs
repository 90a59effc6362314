//! What the loaded driver states in proc and sysfs: GPUs, their partitions, numbers of devices, parameters.

use std::collections::BTreeMap;

use crate::driver::{DRIVER_VERSION_FILE, driver_version};
use crate::gpu::{BusId, Gpu, Inventory, MigDevice};
use crate::tree::Tree;

const GPUS: &str = "/proc/driver/nvidia/gpus";
const CAPABILITIES: &str = "/proc/driver/nvidia/capabilities";
const MIG_MINORS: &str = "/proc/driver/nvidia-caps/mig-minors";

/// Fields of one GPU's `information` file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Information {
    /// `Model`.
    pub model: String,
    /// `GPU UUID`; absent until the driver has initialised the GPU, when question marks stand there.
    pub uuid: Option<String>,
    /// `Bus Location`.
    pub bus_id: Option<BusId>,
    /// `Device Minor`.
    pub minor: Option<u32>,
    /// `GPU Excluded`: kept from use by a parameter of the driver.
    pub excluded: bool,
}

/// Reads the text of a GPU's `information` file. Lines that are not understood are passed over.
#[must_use]
pub fn information(text: &str) -> Information {
    let mut found = Information::default();
    for line in text.lines() {
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match field.trim() {
            "Model" => value.clone_into(&mut found.model),
            "GPU UUID" => found.uuid = is_uuid(value).then(|| value.to_owned()),
            "Bus Location" => found.bus_id = BusId::parse(value),
            "Device Minor" => found.minor = value.parse().ok(),
            "GPU Excluded" => found.excluded = value.eq_ignore_ascii_case("yes"),
            _ => {}
        }
    }
    found
}

/// Whether the text can be a device's name in a CDI spec.
fn is_uuid(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.len() < 128 && text.bytes().all(plain) && !text.ends_with('-')
}

/// Device nodes of MIG capabilities: what each number opens (`/proc/driver/nvidia-caps/mig-minors`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigMinors(BTreeMap<String, u32>);

impl MigMinors {
    /// Reads lines such as `gpu0/gi1/ci0/access 12`, `config 1`; other lines are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| {
            let (name, minor) = line.trim().split_once(' ')?;
            let minor = minor.trim().parse().ok()?;
            is_capability(name).then(|| (name.to_owned(), minor))
        });
        Self(pairs.collect())
    }

    /// Of a machine; `None` where the driver knows no MIG.
    #[must_use]
    pub fn of(system: &Tree) -> Option<Self> {
        system.text(MIG_MINORS).ok().map(|text| Self::parse(&text))
    }

    /// Minor number of a GPU instance's node.
    #[must_use]
    pub fn gpu_instance(&self, gpu: u32, instance: u32) -> Option<u32> {
        self.0
            .get(&format!("gpu{gpu}/gi{instance}/access"))
            .copied()
    }

    /// Minor number of a compute instance's node.
    #[must_use]
    pub fn compute_instance(&self, gpu: u32, instance: u32, compute: u32) -> Option<u32> {
        let name = format!("gpu{gpu}/gi{instance}/ci{compute}/access");
        self.0.get(&name).copied()
    }

    /// Whether any capability has this number.
    #[must_use]
    pub fn has(&self, minor: u32) -> bool {
        self.0.values().any(|known| *known == minor)
    }

    /// Whether a node of this number opens something: an instance that exists, or a right over MIG. `None` where the
    /// driver does not state what exists.
    #[must_use]
    pub fn opens(&self, system: &Tree, minor: u32) -> Option<bool> {
        if !system.exists(CAPABILITIES) {
            return None;
        }
        let of_number = self.0.iter().filter(|(_, known)| **known == minor);
        let mut names = of_number.map(|(name, _)| name);
        Some(names.any(|name| match name.split_once('/') {
            Some((gpu, instance)) => system.exists(&format!("{CAPABILITIES}/{gpu}/mig/{instance}")),
            None => true,
        }))
    }

    /// Minor number of `config` or `monitor`.
    #[must_use]
    pub fn control(&self, name: &str) -> Option<u32> {
        self.0.get(name).copied()
    }

    /// All numbers for a GPU.
    #[must_use]
    pub fn of_gpu(&self, gpu: u32) -> Vec<u32> {
        let prefix = format!("gpu{gpu}/");
        let of = self.0.iter().filter(|(name, _)| name.starts_with(&prefix));
        of.map(|(_, minor)| *minor).collect()
    }
}

fn is_capability(name: &str) -> bool {
    let numbered = |part: &str, prefix: &str| {
        part.strip_prefix(prefix)
            .is_some_and(|number| number.parse::<u32>().is_ok())
    };
    match name.split('/').collect::<Vec<_>>().as_slice() {
        ["config" | "monitor"] => true,
        [gpu, gi, "access"] => numbered(gpu, "gpu") && numbered(gi, "gi"),
        [gpu, gi, ci, "access"] => numbered(gpu, "gpu") && numbered(gi, "gi") && numbered(ci, "ci"),
        _ => false,
    }
}

/// Major numbers of character devices by driver name (`/proc/devices`).
#[must_use]
pub fn character_majors(text: &str) -> BTreeMap<String, u32> {
    let lines = text
        .lines()
        .skip_while(|line| !line.starts_with("Character"));
    let lines = lines.skip(1).take_while(|line| !line.trim().is_empty());
    let pairs = lines.filter_map(|line| {
        let (major, name) = line.trim().split_once(' ')?;
        Some((name.trim().to_owned(), major.parse().ok()?))
    });
    pairs.collect()
}

/// Version of the driver that is loaded.
#[must_use]
pub fn loaded_version(system: &Tree) -> Option<String> {
    let text = system.text(DRIVER_VERSION_FILE).ok()?;
    driver_version(&text).map(str::to_owned)
}

/// GPUs from proc alone, without any library of the driver. What NVML alone knows (names of MIG devices, CUDA version)
/// stays unknown.
#[must_use]
pub fn inventory(system: &Tree) -> Inventory {
    let mut found = Inventory {
        driver_version: loaded_version(system),
        ..Inventory::default()
    };
    let mut names = system.names(GPUS).unwrap_or_default();
    // The management library counts along the bus.
    names.sort_by_cached_key(|name| BusId::parse(name));
    let mut index = 0;
    for name in names {
        match gpu(system, &name, index) {
            // The library does not count what the driver keeps from use.
            Ok(None) => continue,
            Ok(Some(gpu)) => {
                found.warnings.extend(unnamed(&gpu, &name));
                found.gpus.push(gpu);
            }
            Err(why) => found
                .warnings
                .push(format!("GPU {name} is left out: {why}")),
        }
        // Also of one that is left out: the others keep their indexes.
        index += 1;
    }
    found
}

fn unnamed(gpu: &Gpu, name: &str) -> Option<String> {
    gpu.uuid
        .is_none()
        .then(|| format!("GPU {name} has no UUID yet: the driver has not initialised it"))
}

fn gpu(system: &Tree, name: &str, index: u32) -> Result<Option<Gpu>, String> {
    let path = format!("{GPUS}/{name}/information");
    let text = system.text(&path);
    let text = text.map_err(|err| format!("read {path}: {err}"))?;
    let read = information(&text);
    if read.excluded {
        return Ok(None);
    }
    let minor = read
        .minor
        .ok_or_else(|| format!("{path} states no `Device Minor`"))?;
    let bus_id = read.bus_id.or_else(|| BusId::parse(name));
    Ok(Some(Gpu {
        index,
        minor,
        uuid: read.uuid,
        bus_id,
        name: read.model,
        mig: instances(system, minor),
        coherent: None,
        arch: None,
        brand: None,
    }))
}

/// Partitions of a GPU in the order of their numbers.
fn instances(system: &Tree, minor: u32) -> Option<Vec<MigDevice>> {
    let dir = format!("{CAPABILITIES}/gpu{minor}/mig");
    let mut found = Vec::new();
    for gpu_instance in numbered(system, &dir, "gi") {
        for compute_instance in numbered(system, &format!("{dir}/gi{gpu_instance}"), "ci") {
            found.push(MigDevice {
                index: 0,
                uuid: None,
                gpu_instance,
                compute_instance,
                graphics: false,
            });
        }
    }
    for (index, mig) in (0..).zip(&mut found) {
        mig.index = index;
    }
    (!found.is_empty()).then_some(found)
}

/// Numbers of the directories `<prefix><number>`, ascending.
fn numbered(system: &Tree, dir: &str, prefix: &str) -> Vec<u32> {
    let names = system.names(dir).unwrap_or_default();
    let numbers = names
        .iter()
        .filter_map(|name| name.strip_prefix(prefix)?.parse().ok());
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers
}

/// Names below `/dev/dri` of the DRM devices of a GPU.
#[must_use]
pub fn drm_names(system: &Tree, bus_id: &BusId) -> Vec<String> {
    let dir = format!("/sys/bus/pci/devices/{bus_id}/drm");
    let names = system.names(&dir).unwrap_or_default();
    let device = |name: &String| name.starts_with("card") || name.starts_with("renderD");
    names.into_iter().filter(device).collect()
}

/// NVIDIA's display and 3D controllers on the PCI bus, in the order of their addresses.
#[must_use]
pub fn pci_gpus(system: &Tree) -> Vec<BusId> {
    const DEVICES: &str = "/sys/bus/pci/devices";
    let names = system.names(DEVICES).unwrap_or_default();
    let is_gpu = |name: &String| {
        let field = |field: &str| {
            let text = system.text(&format!("{DEVICES}/{name}/{field}"));
            text.unwrap_or_default().trim().to_ascii_lowercase()
        };
        // Base class 03, display controllers: 0300 VGA, 0302 3D.
        let class = field("class");
        field("vendor") == "0x10de" && (class.starts_with("0x0300") || class.starts_with("0x0302"))
    };
    let names = names.into_iter().filter(is_gpu);
    names.filter_map(|name| BusId::parse(&name)).collect()
}

/// Whether this is a Tegra system.
#[must_use]
pub fn is_tegra(system: &Tree) -> bool {
    let family = system.text("/sys/devices/soc0/family").unwrap_or_default();
    let family = family.trim().to_ascii_lowercase();
    system.exists("/etc/nv_tegra_release") || family.starts_with("tegra")
}

/// The running boot, for telling that a machine was restarted since.
#[must_use]
pub fn boot_id(system: &Tree) -> Option<String> {
    let text = system.text("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| is_uuid(id))
}

#[cfg(test)]
mod tests;
