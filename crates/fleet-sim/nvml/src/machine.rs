//! The machine description (`fleet-sim` writes it), as far as NVML tells of it.

use serde::Deserialize;

/// Largest description, in bytes.
const LIMIT: u64 = 1024 * 1024;
/// Where a simulated node's CDI spec puts it in a container.
const IN_CONTAINER: &str = "/usr/share/nvidia/fleet-sim-machine.json";

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Machine {
    pub(crate) driver_version: String,
    pub(crate) cuda_version: String,
    pub(crate) gpus: Vec<Gpu>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Gpu {
    pub(crate) minor: u32,
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) bus_id: String,
    pub(crate) memory_mib: u64,
    #[serde(default)]
    pub(crate) serial: String,
    #[serde(default)]
    pub(crate) used_mib: u64,
    #[serde(default)]
    pub(crate) temperature: u32,
    #[serde(default)]
    pub(crate) power_milliwatts: u32,
    #[serde(default)]
    pub(crate) power_limit_milliwatts: u32,
    #[serde(default)]
    pub(crate) compute_major: i32,
    #[serde(default)]
    pub(crate) compute_minor: i32,
}

impl Machine {
    /// Reads the description; nothing when there is none or it is broken.
    pub(crate) fn load() -> Option<Self> {
        let path = std::env::var("FLEET_SIM_MACHINE").unwrap_or_else(|_| IN_CONTAINER.to_owned());
        let meta = std::fs::metadata(&path).ok()?;
        if !meta.is_file() || meta.len() > LIMIT {
            return None;
        }
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// CUDA version as NVML's integer: 12.4 is 12040.
    pub(crate) fn cuda_number(&self) -> i32 {
        let mut parts = self
            .cuda_version
            .split('.')
            .map(|part| part.parse::<i32>().unwrap_or(0));
        parts.next().unwrap_or(0) * 1000 + parts.next().unwrap_or(0) * 10
    }
}
