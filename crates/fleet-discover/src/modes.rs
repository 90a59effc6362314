//! One module per way to find devices.

mod csv;
mod gated;
mod gpus;
mod imex;
mod management;
mod wsl;

pub(crate) use gpus::WITHOUT_CUDA;

use fleet_cdi::Device;
use fleet_host::files::{DriverFiles, Wanted, driver_files, management_library};
use fleet_host::gpu::Inventory;
use fleet_host::proc::{self, is_tegra};

use crate::common::VOID;
use crate::error::DiscoverError;
use crate::machine::Machine;
use crate::options::{Mode, Options};
use crate::{Found, edits};

/// The mode for this machine, as far as it can be told without a list of its GPUs.
#[must_use]
pub fn resolve(machine: &Machine, options: &Options) -> Mode {
    if options.mode != Mode::Auto {
        return options.mode;
    }
    if wsl::is_wsl(machine) {
        return Mode::Wsl;
    }
    let nvml = management_library(&machine.places(options)).is_some();
    match !nvml && is_tegra(&machine.system) {
        true => Mode::Csv,
        false => Mode::Nvml,
    }
}

/// Whether the mode is about GPUs and wants a list of them. Tegra's lists do without.
#[must_use]
pub fn needs_inventory(mode: Mode) -> bool {
    matches!(mode, Mode::Auto | Mode::Nvml | Mode::Csv)
}

/// The mode, now that the GPUs are known.
pub(crate) fn settle(machine: &Machine, inventory: Option<&Inventory>, options: &Options) -> Mode {
    let mode = resolve(machine, options);
    let integrated = inventory.is_some_and(|told| told.gpus.iter().any(|gpu| gpu.is_integrated()));
    match (options.mode, mode, integrated) {
        (Mode::Auto, Mode::Nvml, true) => Mode::Csv,
        _ => mode,
    }
}

pub(crate) fn find(
    mode: Mode,
    machine: &Machine,
    inventory: Option<&Inventory>,
    options: &Options,
) -> Result<Found, DiscoverError> {
    let mut found = match mode {
        Mode::Auto | Mode::Nvml => match inventory {
            Some(inventory) => gpus::find(machine, inventory, options)?,
            None => return Err(nothing(mode, "the machine's GPUs are not known", None)),
        },
        Mode::Management => management::find(machine, options)?,
        Mode::Gds | Mode::Mofed | Mode::Gdrcopy | Mode::Nvswitch => {
            gated::find(mode, machine, options)?
        }
        Mode::Imex => imex::find(machine, options)?,
        Mode::Wsl => wsl::find(machine, options)?,
        Mode::Csv => csv::find(machine, inventory, options)?,
    };
    let further = found.further.iter_mut().map(|(_, _, _, common)| common);
    for common in further.chain([&mut found.common]) {
        common.env.push(VOID.to_owned());
    }
    Ok(found)
}

/// The driver's files, of the version that is loaded.
fn driver(
    machine: &Machine,
    inventory: Option<&Inventory>,
    options: &Options,
) -> Result<DriverFiles, DiscoverError> {
    let wanted = Wanted {
        explicit: options.features.explicit_libraries,
        compat32: options.features.compat32,
    };
    let loaded = inventory.and_then(|told| told.driver_version.clone());
    let loaded = loaded.or_else(|| proc::loaded_version(&machine.system));
    Ok(driver_files(
        &machine.places(options),
        loaded.as_deref(),
        wanted,
    )?)
}

fn nothing(mode: Mode, why: impl Into<String>, hint: Option<&'static str>) -> DiscoverError {
    DiscoverError::NoDevice {
        mode: mode.name(),
        why: why.into(),
        hint,
    }
}

/// A device with these nodes, or nothing if none is there.
fn device_of(machine: &Machine, patterns: &[&str], options: &Options) -> Option<Device> {
    let mut device = Device {
        name: crate::simplify::ALL.to_owned(),
        ..Device::default()
    };
    let gids = !options.features.no_additional_gids;
    let added = patterns
        .iter()
        .map(|pattern| edits::add_nodes(&mut device.container_edits, &machine.dev, pattern, gids));
    (added.sum::<usize>() > 0).then_some(device)
}
