//! Channels by which GPUs of several nodes share memory.

use fleet_cdi::{ContainerEdits, Device, DeviceNode};

use super::nothing;
use crate::Found;
use crate::error::DiscoverError;
use crate::machine::Machine;
use crate::options::{Mode, Options};

const CHANNEL: &str = "/dev/nvidia-caps-imex-channels/channel";
/// Largest number of a channel: it is a minor number (`MINORBITS` of the kernel).
const LAST: u32 = (1 << 20) - 1;

pub(super) fn find(machine: &Machine, options: &Options) -> Result<Found, DiscoverError> {
    let all = options.ids.iter().any(|id| id == "all");
    let numbers = if all {
        every(machine)
    } else {
        options
            .ids
            .iter()
            .map(|id| wanted(machine, id))
            .collect::<Result<_, _>>()?
    };
    if numbers.is_empty() {
        let why = format!("there is no {}<number>", machine.dev.host(CHANNEL));
        return Err(nothing(Mode::Imex, why, None));
    }
    Ok(Found {
        devices: numbers
            .into_iter()
            .map(|number| device(machine, number))
            .collect(),
        ..Found::default()
    })
}

fn every(machine: &Machine) -> Vec<u32> {
    let paths = machine.dev.glob(&format!("{CHANNEL}*"));
    let nodes = paths
        .iter()
        .filter(|path| matches!(machine.dev.node(path), Ok(Some(_))));
    let numbers = nodes.filter_map(|path| path.strip_prefix(CHANNEL)?.parse().ok());
    numbers.filter(|number| *number <= LAST).collect()
}

fn wanted(machine: &Machine, id: &str) -> Result<u32, DiscoverError> {
    let unknown = |why: String| DiscoverError::UnknownDevice {
        id: id.to_owned(),
        why,
    };
    let number = id.strip_prefix("channel").unwrap_or(id).parse().ok();
    let number: u32 = number
        .filter(|number| *number <= LAST)
        .ok_or_else(|| unknown(format!("a channel is a number from 0 to {LAST}")))?;
    let path = format!("{CHANNEL}{number}");
    match machine.dev.node(&path) {
        Ok(Some(_)) => Ok(number),
        Ok(None) => Err(unknown(format!(
            "{} is no character device",
            machine.dev.host(&path)
        ))),
        Err(err) => Err(unknown(format!(
            "{} {}",
            machine.dev.host(&path),
            fleet_inject::io_cause(&err)
        ))),
    }
}

/// Numbers are left to the reader: channels are made and removed while the machine runs.
fn device(machine: &Machine, number: u32) -> Device {
    let path = format!("{CHANNEL}{number}");
    Device {
        name: number.to_string(),
        container_edits: ContainerEdits {
            device_nodes: vec![DeviceNode {
                host_path: Some(machine.dev.host(&path)),
                path,
                ..DeviceNode::default()
            }],
            ..ContainerEdits::default()
        },
        ..Device::default()
    }
}
