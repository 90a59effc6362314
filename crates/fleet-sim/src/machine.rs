//! The description of a machine; the file that the simulated NVML reads.

use serde::{Deserialize, Serialize};

use crate::build::SimError;

/// A node with its GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Driver version, such as `550.54.15`.
    pub driver_version: String,
    /// CUDA version, such as `12.4`.
    pub cuda_version: String,
    /// GPUs.
    pub gpus: Vec<Gpu>,
    /// Control nodes.
    pub control: Vec<Node>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Minor number of its node: `/dev/nvidia<minor>`.
    pub minor: u32,
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
}

/// A character device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name below `/dev`.
    pub name: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Control nodes in the order of a generated spec; numbers of a driver of the 550 series (`/proc/devices`: nvidia is
/// 195, nvidia-uvm is dynamic).
const CONTROL: [(&str, u32, u32); 4] = [
    ("nvidia-modeset", 195, 254),
    ("nvidia-uvm", 511, 0),
    ("nvidia-uvm-tools", 511, 1),
    ("nvidiactl", 195, 255),
];

/// PCI addresses of an eight-GPU board.
const BUSES: [&str; 8] = ["17", "2a", "3d", "5d", "9a", "ab", "ba", "db"];

impl Machine {
    /// A built-in machine: `h100x1` to `h100x8`.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let count: u32 = name
            .strip_prefix("h100x")?
            .parse()
            .ok()
            .filter(|n| (1..=8).contains(n))?;
        let gpus = BUSES
            .iter()
            .zip(0..count)
            .map(|(bus, minor)| h100(minor, bus))
            .collect();
        let control = CONTROL
            .iter()
            .map(|(name, major, minor)| Node {
                name: (*name).to_owned(),
                major: *major,
                minor: *minor,
            })
            .collect();
        Some(Self {
            driver_version: "550.54.15".to_owned(),
            cuda_version: "12.4".to_owned(),
            gpus,
            control,
        })
    }

    /// A preset by name, or a description file by path.
    ///
    /// # Errors
    /// A file that cannot be read or is no description.
    pub fn load(name: &str) -> Result<Self, SimError> {
        if let Some(machine) = Self::preset(name) {
            return Ok(machine);
        }
        let failed = |why: String| SimError::Machine {
            name: name.to_owned(),
            why,
        };
        let bytes = std::fs::read(name)
            .map_err(|err| failed(format!("{err}; hint: a file, or h100x1 to h100x8")))?;
        let machine: Self =
            serde_json::from_slice(&bytes).map_err(|err| failed(err.to_string()))?;
        let plain = |text: &str| {
            !text.is_empty()
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        };
        let names = machine
            .gpus
            .iter()
            .map(|gpu| &gpu.node.name)
            .chain(machine.control.iter().map(|node| &node.name));
        if !plain(&machine.driver_version) || !names.into_iter().all(|name| plain(name)) {
            return Err(failed(
                "driver version and node names may hold letters, digits, `.` and `-` only"
                    .to_owned(),
            ));
        }
        Ok(machine)
    }
}

fn h100(minor: u32, bus: &str) -> Gpu {
    Gpu {
        minor,
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        uuid: format!("GPU-5fbe0d8a-7d2c-4c1f-9a6e-0000000000{minor:02x}"),
        bus_id: format!("0000:{bus}:00.0"),
        memory_mib: 81_559,
        serial: format!("16525230{minor:05}"),
        used_mib: 1,
        temperature: 31 + minor,
        power_milliwatts: 69_000 + 1000 * minor,
        power_limit_milliwatts: 700_000,
        compute_major: 9,
        compute_minor: 0,
        node: Node {
            name: format!("nvidia{minor}"),
            major: 195,
            minor,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets() {
        assert_eq!(Machine::preset("h100x8").unwrap().gpus.len(), 8);
        for bad in ["h100x0", "h100x9", "h100", "a100x2", "h100x-1"] {
            assert!(Machine::preset(bad).is_none(), "{bad}");
        }
        assert!(Machine::load("/no/such/machine").is_err());
    }
}
