//! Every node of the driver as one device, for administrators' containers.

use super::{device_of, driver, nothing};
use crate::Found;
use crate::common::add_driver;
use crate::error::DiscoverError;
use crate::hooks::Hooks;
use crate::machine::Machine;
use crate::options::{Mode, Options};

const NODES: [&str; 3] = [
    "/dev/nvidia*",
    "/dev/nvidia-caps/nvidia-cap*",
    "/dev/nvidia-caps-imex-channels/channel*",
];

/// These have modes of their own.
const NOT: [&str; 3] = ["nvidia-fs", "nvidia-nvswitch", "nvidia-nvlink"];

pub(super) fn find(machine: &Machine, options: &Options) -> Result<Found, DiscoverError> {
    // Such a container may make nodes.
    let hooks = Hooks::new(&options.hooks, &["disable-device-node-modification"]);
    let no_node = || {
        let why = format!(
            "there is no node of the driver below {}",
            machine.dev.host("/dev")
        );
        nothing(Mode::Management, why, Some("is the module loaded?"))
    };
    let mut device = device_of(machine, &NODES, options).ok_or_else(no_node)?;
    let edits = &mut device.container_edits;
    edits.device_nodes.retain(|node| {
        let name = node.path.rsplit('/').next().unwrap_or_default();
        !NOT.iter().any(|start| name.starts_with(start))
    });
    if edits.device_nodes.is_empty() {
        return Err(no_node());
    }
    let paths = edits.device_nodes.iter().map(|node| node.path.as_str());
    let chmod = hooks.chmod(paths);
    edits.hooks.extend(chmod);
    let files = driver(machine, None, options)?;
    let mut found = Found::default();
    add_driver(&mut found.common, &files, &hooks, options.features);
    found.devices.push(device);
    found.warnings = files.warnings;
    found.version = Some(files.version);
    Ok(found)
}
