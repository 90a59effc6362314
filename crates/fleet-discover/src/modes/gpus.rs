//! GPUs and their partitions.

use fleet_cdi::{ContainerEdits, Device};
use fleet_host::gpu::Inventory;

use super::{driver, nothing};
use crate::Found;
use crate::common::{add_control, add_driver, add_graphics};
use crate::device::{COHERENT, Maker};
use crate::edits::append;
use crate::error::DiscoverError;
use crate::hooks::Hooks;
use crate::machine::Machine;
use crate::options::{Mode, Options};
use crate::parts;
use crate::selection::{Selected, Selection, select};

pub(super) fn find(
    machine: &Machine,
    inventory: &Inventory,
    options: &Options,
) -> Result<Found, DiscoverError> {
    let hooks = Hooks::new(&options.hooks, &[]);
    let maker = Maker::new(machine, options, hooks.clone());
    let mut found = Found::default();
    found.devices = devices(&maker, inventory, &mut found.warnings)?;
    let files = driver(machine, Some(inventory), options)?;
    let gids = !options.features.no_additional_gids;
    let missing = add_control(&mut found.common, machine, gids);
    found.warnings.extend(missing_nodes(machine, &missing));
    let mut content = ContainerEdits::default();
    add_graphics(&mut content, &files, &hooks);
    add_driver(&mut content, &files, &hooks, options.features);
    if options.features.parts {
        found.further = parts::specs(&found.devices, &found.common, &content, &hooks);
    }
    append(&mut found.common, content);
    found
        .common
        .hooks
        .extend(hooks.plain("update-application-profile"));
    found.warnings.extend(files.warnings);
    found.version = Some(files.version);
    if options.features.coherent {
        coherent(&mut found);
    }
    Ok(found)
}

fn devices(
    maker: &Maker<'_>,
    inventory: &Inventory,
    warnings: &mut Vec<String>,
) -> Result<Vec<Device>, DiscoverError> {
    let ids = &maker.options.ids;
    let selected = match select(inventory, ids)? {
        Selection::Nothing => return Ok(vec![none()]),
        Selection::Devices(selected) => selected,
    };
    let every = ids.iter().any(|id| id == "all");
    let mut devices = Vec::new();
    for one in &selected {
        match maker.devices(one) {
            Ok(made) => add_new(&mut devices, made, one, warnings),
            Err(why) if every => warnings.push(format!("{} is left out: {why}", shown(one))),
            Err(why) => {
                let id = one.names(&[crate::Naming::Index]).concat();
                return Err(DiscoverError::UnknownDevice { id, why });
            }
        }
    }
    if devices.is_empty() {
        return Err(nothing(
            Mode::Nvml,
            why_none(inventory, warnings),
            hint(inventory),
        ));
    }
    Ok(devices)
}

/// Adds devices whose names are free. Two GPUs of one UUID are a fault of the driver or of one who wrote proc.
fn add_new(
    devices: &mut Vec<Device>,
    made: Vec<Device>,
    of: &Selected<'_>,
    warnings: &mut Vec<String>,
) {
    for device in made {
        match devices.iter().any(|known| known.name == device.name) {
            true => warnings.push(format!(
                "{} is left out under the name {}, which another device has",
                shown(of),
                device.name
            )),
            false => devices.push(device),
        }
    }
}

fn why_none(inventory: &Inventory, warnings: &[String]) -> String {
    match (inventory.gpus.len(), warnings.last()) {
        (0, _) => "the driver knows no GPU".to_owned(),
        (count, Some(last)) => format!("none of {count} GPUs can be used: {last}"),
        (count, None) => format!(
            "none of {count} GPUs is a device for containers: partitioned GPUs have no partitions"
        ),
    }
}

fn hint(inventory: &Inventory) -> Option<&'static str> {
    match inventory.gpus.is_empty() {
        true => Some(
            "is the module loaded? try `fleet-nvidia-ctl system create-device-nodes --load-kernel-modules --control-devices`",
        ),
        false => None,
    }
}

fn shown(one: &Selected<'_>) -> String {
    match one.part {
        None => format!("GPU {}", one.gpu.index),
        Some(part) => format!("partition {}:{}", one.gpu.index, part.index),
    }
}

/// Driver files without a device; a device of a spec must hold something.
fn none() -> Device {
    Device {
        name: "none".to_owned(),
        container_edits: ContainerEdits {
            env: vec!["NVCT_EMPTY_DEVICE=".to_owned()],
            ..ContainerEdits::default()
        },
        ..Device::default()
    }
}

/// Words of a warning that every container of the spec is worth.
pub(crate) const WITHOUT_CUDA: &str = "so CUDA will not work in containers";

/// CUDA does not start without these; the others are for display and profilers.
fn missing_nodes<'a>(
    machine: &'a Machine,
    missing: &'a [&str],
) -> impl Iterator<Item = String> + 'a {
    let needed = missing
        .iter()
        .filter(|path| matches!(**path, "/dev/nvidiactl" | "/dev/nvidia-uvm"));
    needed.map(|path| {
        format!(
            "{} is missing, {WITHOUT_CUDA}; hint: `fleet-nvidia-ctl system create-device-nodes --control-devices` makes it, then generate again",
            machine.dev.host(path)
        )
    })
}

/// GPUs with and without the processor's page tables, in specs of their own; the main spec says nothing of it.
fn coherent(found: &mut Found) {
    for (value, infix) in [("true", ".coherent"), ("false", ".noncoherent")] {
        let of = |device: &&Device| {
            device
                .annotations
                .get(COHERENT)
                .is_some_and(|told| told == value)
        };
        let mut devices: Vec<Device> = found.devices.iter().filter(of).cloned().collect();
        for device in &mut devices {
            device.annotations.remove(COHERENT);
        }
        if !devices.is_empty() {
            found
                .further
                .push((infix, infix, devices, found.common.clone()));
        }
    }
    for device in &mut found.devices {
        device.annotations.remove(COHERENT);
    }
}
