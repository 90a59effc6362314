//! Device nodes, and the links by which systemd finds them.

use std::io;

use fleet_host::nodes::DeviceNode;
use fleet_host::proc;

use crate::doctor::check::{Broken, Check, Finding, Node, Outcome, absent, outcome};
use crate::doctor::repair::Repair;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "device-nodes",
        run: device_nodes,
    },
    Check {
        name: "dev-char",
        run: dev_char,
    },
];

fn device_nodes(node: &Node<'_>) -> Outcome {
    let wanted = wanted(node)?;
    if wanted.is_empty() {
        return absent("the driver has no devices");
    }
    let findings: Vec<_> = wanted.iter().filter_map(|want| check(node, want)).collect();
    outcome(
        findings,
        format!("{} nodes, open to all users", wanted.len()),
    )
}

fn check(node: &Node<'_>, want: &DeviceNode) -> Option<Finding> {
    let DeviceNode { path, major, minor } = want;
    match node.devices.lstat_device(path) {
        Ok(found) if (found.major, found.minor) != (*major, *minor) => Some(Finding::error(
            format!(
                "{path} is {}:{}, the driver's device is {major}:{minor}",
                found.major, found.minor
            ),
            format!("rm {path}, then doctor --fix"),
        )),
        Ok(found) if found.mode & 0o006 != 0o006 => Some(Finding::warning(
            format!(
                "{path} has mode {:04o}: other users than root cannot open it, nor can their containers",
                found.mode
            ),
            format!("chmod 0666 {path}, or NVreg_DeviceFileMode=0666 for the module nvidia"),
        )),
        Ok(_) => None,
        Err(err) if err.kind() == io::ErrorKind::NotFound => Some(
            Finding::error(
                format!("{path} ({major}:{minor}) is missing"),
                "doctor --fix makes it; nvidia-modprobe -c 0 -u does as well",
            )
            .with(Repair::Node(want.clone())),
        ),
        Err(err) => Some(Finding::error(
            format!("{path} cannot be used: {err}"),
            format!("rm {path}, then doctor --fix"),
        )),
    }
}

/// `/proc/devices` states the numbers, `/proc/driver/nvidia/gpus` the GPUs. One module may be loaded without the other.
fn wanted(node: &Node<'_>) -> Result<Vec<DeviceNode>, Broken> {
    let majors = proc::character_majors(&node.read("/proc/devices")?.unwrap_or_default());
    let major = |names: &[&str]| names.iter().find_map(|name| majors.get(*name).copied());
    let mut wanted = Vec::new();
    let mut push = |path: String, major, minor| wanted.push(DeviceNode { path, major, minor });
    // The name before 545 ends in "-frontend".
    if let Some(major) = major(&["nvidia", "nvidia-frontend"]) {
        let tree = node.files.tree().map_err(|err| Broken(err.to_string()))?;
        push("/dev/nvidiactl".to_owned(), major, 255);
        for gpu in proc::inventory(&tree).gpus {
            push(format!("/dev/nvidia{}", gpu.minor), major, gpu.minor);
        }
    }
    if let Some(major) = major(&["nvidia-uvm"]) {
        push("/dev/nvidia-uvm".to_owned(), major, 0);
        push("/dev/nvidia-uvm-tools".to_owned(), major, 1);
    }
    Ok(wanted)
}

fn dev_char(node: &Node<'_>) -> Outcome {
    let wanted = wanted(node)?;
    if wanted.is_empty() {
        return absent("the driver has no devices");
    }
    let missing = wanted.iter().filter(|want| {
        let DeviceNode { path, major, minor } = want;
        node.devices.lstat_device(path).is_ok() && !node.is(&format!("/dev/char/{major}:{minor}"))
    });
    let findings: Vec<_> = missing
        .map(|want| {
            let DeviceNode { path, major, minor } = want;
            Finding::warning(
                format!("/dev/char/{major}:{minor} does not lead to {path}: systemd cannot allow the device, and containers lose it at `systemctl daemon-reload`"),
                "doctor --fix makes the link; a udev rule keeps it",
            )
            .with(Repair::CharLink(want.clone()))
        })
        .collect();
    outcome(findings, format!("{} links", wanted.len()))
}
