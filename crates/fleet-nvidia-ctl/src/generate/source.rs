//! Who tells of the GPUs.

use std::path::PathBuf;

use clap::ValueEnum;
use fleet_discover::{Machine, Mode, Options, differences, needs_inventory, resolve};
use fleet_host::files::management_library;
use fleet_host::gpu::Inventory;
use fleet_host::proc;

use super::GenerateError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Source {
    /// NVML, and proc where it cannot be used
    Auto,
    /// NVML alone
    Nvml,
    /// /proc/driver/nvidia and sysfs alone
    Proc,
    /// NVML, and a report of where proc differs
    Both,
}

/// What was told, and what a user should know of the telling.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) inventory: Option<Inventory>,
    pub(super) remarks: Vec<String>,
}

pub(super) fn inventory(
    machine: &Machine,
    options: &Options,
    source: Source,
) -> Result<Told, GenerateError> {
    let mode = resolve(machine, options);
    if !needs_inventory(mode) {
        return Ok(Told::default());
    }
    let nvml = || nvml(machine, options);
    let mut told = Told::default();
    match source {
        Source::Proc => told.inventory = Some(by_proc(machine)),
        Source::Nvml => told.inventory = Some(nvml().map_err(GenerateError::Argument)?),
        Source::Both => {
            let asked = nvml().map_err(GenerateError::Argument)?;
            let read = proc::inventory(&machine.system);
            for difference in differences(&asked, &read) {
                told.remarks
                    .push(format!("the sources differ: {difference}"));
            }
            told.inventory = Some(asked);
        }
        Source::Auto => match nvml() {
            Ok(asked) => told.inventory = Some(asked),
            // Tegra's lists do without.
            Err(_) if mode == Mode::Csv => {}
            Err(why) => {
                told.remarks
                    .push(format!("{why}; /proc/driver/nvidia is read instead"));
                told.inventory = Some(by_proc(machine));
            }
        },
    }
    Ok(told)
}

/// The library of the driver root; the loader's own where that is the machine's root.
fn nvml(machine: &Machine, options: &Options) -> Result<Inventory, String> {
    let library: Option<PathBuf> = management_library(&machine.places(options));
    if library.is_none() && !machine.driver.is_root() {
        return Err(format!(
            "there is no libnvidia-ml.so.1 below {}",
            machine.driver.host("/")
        ));
    }
    fleet_nvml::inventory(library.as_deref()).map_err(|err| err.to_string())
}

fn by_proc(machine: &Machine) -> Inventory {
    let mut told = proc::inventory(&machine.system);
    let unnamed =
        |gpu: &fleet_host::gpu::Gpu| gpu.mig.iter().flatten().any(|part| part.uuid.is_none());
    if told.gpus.iter().any(unnamed) {
        told.warnings
            .push("partitions have no names by UUID: only NVML tells them".to_owned());
    }
    told
}
