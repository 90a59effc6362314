//! The GPUs of a machine, whoever told of them.

use std::fmt;

/// A GPU's address on the PCI bus as sysfs spells it, such as `0000:17:00.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BusId(String);

impl BusId {
    /// Reads any spelling: NVML's has a domain of eight digits and capital letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (domain, rest) = text.split_once(':')?;
        let domain = u32::from_str_radix(domain, 16).ok()?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let hex = |part: &str, width: usize| {
            part.len() <= width
                && !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        (hex(bus, 2) && hex(device, 2) && hex(function, 1))
            .then(|| Self(format!("{domain:04x}:{bus:0>2}:{device:0>2}.{function}")))
    }

    /// As in sysfs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of a GPU that is partitioned (MIG).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigDevice {
    /// Index among the parts of its GPU.
    pub index: u32,
    /// `MIG-…`; proc does not tell it.
    pub uuid: Option<String>,
    /// GPU instance.
    pub gpu_instance: u32,
    /// Compute instance.
    pub compute_instance: u32,
    /// Whether its profile can render.
    pub graphics: bool,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Index in the order of the driver's management library.
    pub index: u32,
    /// Number of its node, `/dev/nvidia<minor>`.
    pub minor: u32,
    /// `GPU-…`, once the driver has initialised it.
    pub uuid: Option<String>,
    /// Where it is; an integrated GPU may be on no bus.
    pub bus_id: Option<BusId>,
    /// Product name.
    pub name: String,
    /// Its parts, when it is partitioned.
    pub mig: Option<Vec<MigDevice>>,
    /// Whether it shares the processor's page tables; proc does not tell it.
    pub coherent: Option<bool>,
    /// Compute capability such as `9.0`; proc does not tell it.
    pub arch: Option<String>,
    /// Brand in the words of `NVIDIA_REQUIRE_CUDA`, such as `tesla`; proc does not tell it.
    pub brand: Option<String>,
}

impl Gpu {
    /// Whether it drives a display only and is no device for containers (DGX Station).
    #[must_use]
    pub fn is_display_only(&self) -> bool {
        matches!(self.name.as_str(), "DGX Display" | "NVIDIA DGX Display")
    }

    /// Whether it is part of the processor (Tegra).
    #[must_use]
    pub fn is_integrated(&self) -> bool {
        self.name.contains("(nvgpu)") || self.name == "NVIDIA Thor"
    }
}

/// What a source told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Of the loaded kernel driver.
    pub driver_version: Option<String>,
    /// Newest CUDA version that the driver supports, such as `12.4`; proc does not tell it.
    pub cuda_version: Option<String>,
    /// In order of their indexes.
    pub gpus: Vec<Gpu>,
    /// GPUs that do not answer and facts that could not be read, one sentence each.
    pub warnings: Vec<String>,
}

impl Inventory {
    /// The state of partitioning in one line, for telling a later change: per GPU its minor number and the instances,
    /// `none` without. Every source gives the same.
    #[must_use]
    pub fn mig_state(&self) -> String {
        let state = |gpu: &Gpu| {
            let parts = gpu.mig.iter().flatten();
            let mut parts: Vec<_> = parts
                .map(|mig| (mig.gpu_instance, mig.compute_instance))
                .collect();
            parts.sort_unstable();
            let parts: Vec<_> = parts.iter().map(|(gi, ci)| format!("{gi}.{ci}")).collect();
            match parts.is_empty() {
                true => format!("{}=none", gpu.minor),
                false => format!("{}={}", gpu.minor, parts.join("+")),
            }
        };
        let gpus: Vec<_> = self.gpus.iter().map(state).collect();
        gpus.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_addresses_of_every_spelling() {
        for (text, want) in [
            ("00000000:17:00.0", Some("0000:17:00.0")),
            ("0000:3B:00.0", Some("0000:3b:00.0")),
            ("00010000:01:00.0", Some("10000:01:00.0")),
            ("0008:06:00.1", Some("0008:06:00.1")),
            ("17:00.0", None),
            ("0000:17:00", None),
            ("0000:117:00.0", None),
            ("0000:..:00.0", None),
            ("../..:17:00.0", None),
            ("", None),
        ] {
            assert_eq!(
                BusId::parse(text).as_ref().map(BusId::as_str),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn kinds_of_gpus() {
        let named = |name: &str| Gpu {
            index: 0,
            minor: 0,
            uuid: None,
            bus_id: None,
            name: name.to_owned(),
            mig: None,
            coherent: None,
            arch: None,
            brand: None,
        };
        assert!(named("NVIDIA DGX Display").is_display_only());
        assert!(!named("NVIDIA H100").is_display_only());
        assert!(named("Orin (nvgpu)").is_integrated() && named("NVIDIA Thor").is_integrated());
        assert!(!named("NVIDIA GH200 480GB").is_integrated());
    }
}
