//! The driver: kernel part, user-space part, modules.

use std::collections::BTreeSet;
use std::path::Path;

use crate::doctor::check::{Broken, Check, Finding, Node, Outcome, absent, outcome};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "driver",
        run: driver,
    },
    Check {
        name: "modules",
        run: modules,
    },
];

/// Where distributions and NVIDIA's installer put the driver's libraries.
const LIBRARY_DIRS: [&str; 8] = [
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib",
    "/usr/lib64/nvidia",
    "/opt/nvidia/lib64",
];
/// One of the kernel's partner libraries: NVML, and CUDA's driver API.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.", "libcuda.so."];

fn driver(node: &Node<'_>) -> Outcome {
    let gpus = gpus(node)?;
    let Some(version) = node.devices.driver_version() else {
        return match (gpus, node.is("/dev/dxg")) {
            (_, true) => outcome(Vec::new(), "WSL: Windows drives the GPU"),
            (0, _) => absent("no NVIDIA GPU and no driver"),
            _ => outcome(
                vec![Finding::error(
                    format!("{gpus} NVIDIA GPUs, but their kernel driver is not loaded"),
                    "modprobe nvidia; after an update of the kernel, build or install the module for it",
                )],
                "",
            ),
        };
    };
    let libraries = libraries(node)?;
    let tree = node.files.tree().map_err(|err| Broken(err.to_string()))?;
    let lost = fleet_host::proc::inventory(&tree).warnings.into_iter();
    let mut findings: Vec<_> = lost
        .map(|text| Finding::warning(text, "dmesg has the driver's own words (Xid, RmInit)"))
        .collect();
    if libraries.is_empty() {
        findings.push(Finding::error(
            format!("the kernel driver {version} is loaded, but libcuda and libnvidia-ml are in none of the usual directories"),
            "install the driver's libraries of the same version",
        ));
    } else if !libraries.contains(&version) {
        let found: Vec<_> = libraries.iter().map(String::as_str).collect();
        findings.push(Finding::error(
            format!("the kernel driver is {version}, its libraries are {}: NVML says \"driver/library version mismatch\"", found.join(", ")),
            "reboot, or unload and load the module, after an update of the driver",
        ));
    }
    outcome(findings, format!("{version}, kernel and libraries alike"))
}

/// NVIDIA's display controllers on the PCI bus.
fn gpus(node: &Node<'_>) -> Result<usize, Broken> {
    let mut count = 0;
    for device in node.files.entries(Path::new("/sys/bus/pci/devices"))? {
        let is = |file: &str, start: &str| {
            let text = node.files.read(&device.join(file)).ok().flatten();
            text.is_some_and(|text| text.starts_with(start))
        };
        if is("vendor", "0x10de") && is("class", "0x03") {
            count += 1;
        }
    }
    Ok(count)
}

/// Versions in the names of the driver's libraries.
fn libraries(node: &Node<'_>) -> Result<BTreeSet<String>, Broken> {
    let mut versions = BTreeSet::new();
    for dir in LIBRARY_DIRS {
        for path in node.files.entries(Path::new(dir))? {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let version = LIBRARIES.iter().find_map(|start| name.strip_prefix(start));
            // `libcuda.so.1` is the soname, not a version.
            if let Some(version) = version.filter(|version| version.contains('.')) {
                versions.insert(version.to_owned());
            }
        }
    }
    Ok(versions)
}

fn modules(node: &Node<'_>) -> Outcome {
    let text = node.read("/proc/modules")?.unwrap_or_default();
    let loaded = |name: &str| {
        text.lines()
            .any(|line| line.split(' ').next() == Some(name))
    };
    let mut findings = Vec::new();
    if !loaded("nvidia") {
        if loaded("nouveau") {
            findings.push(Finding::error(
                "nouveau drives the GPU: NVIDIA's module cannot be loaded beside it",
                "blacklist nouveau, make the initramfs anew and reboot",
            ));
            return outcome(findings, "");
        }
        return absent("nvidia is not loaded");
    }
    if !loaded("nvidia_uvm") {
        findings.push(Finding::warning(
            "nvidia_uvm is not loaded: CUDA cannot start in a container",
            "modprobe nvidia-uvm, and list it in /etc/modules-load.d",
        ));
    }
    outcome(findings, "nvidia and nvidia_uvm are loaded")
}
