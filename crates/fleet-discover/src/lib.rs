//! CDI specs from what a machine has: its GPUs, as some source tells of them, and the files of its driver.
//!
//! Loads no library: who has NVML hands its [`Inventory`] in, who has not takes `fleet_host::proc::inventory`. So the
//! runtime can link this. Names, rules and order are those of `nvidia-ctk cdi generate`; `docs/cdi-generate.md` lists
//! where and why this differs.
#![forbid(unsafe_code)]

mod cache;
mod common;
mod compare;
mod device;
mod edits;
mod error;
mod hooks;
mod live;
mod lower;
mod machine;
mod modes;
mod options;
mod parts;
mod selection;
mod simplify;
pub mod stamp;

use fleet_cdi::{ContainerEdits, Device, Spec};
use fleet_host::gpu::Inventory;

pub use compare::differences;
pub use error::DiscoverError;
pub use live::Live;
pub use machine::Machine;
pub use modes::{needs_inventory, resolve};
pub use options::{
    CsvOptions, Features, HOOK_PROGRAM, HookOptions, Mode, Naming, Options, Stamping,
};

/// A spec and where it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// Goes between a file's name and its ending; empty for the main spec.
    pub infix: &'static str,
    /// The spec: valid, and of the lowest version that holds it.
    pub spec: Spec,
    /// What the wanted version cannot hold, one sentence each.
    pub lost: Vec<String>,
}

/// What [`generate`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The mode that was taken.
    pub mode: Mode,
    /// The main spec first.
    pub specs: Vec<Generated>,
    /// What was left out, one sentence each.
    pub warnings: Vec<String>,
}

/// What a mode finds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    pub(crate) devices: Vec<Device>,
    pub(crate) common: ContainerEdits,
    /// Version of the driver's files, where the mode looks at them.
    pub(crate) version: Option<String>,
    /// Further specs: infix, appendix to the class, content.
    pub(crate) further: Vec<(&'static str, &'static str, Vec<Device>, ContainerEdits)>,
    pub(crate) warnings: Vec<String>,
}

/// Makes the specs for a machine. `inventory` is needed in the modes that [`needs_inventory`] names.
///
/// # Errors
/// [`DiscoverError`]: there is nothing to give, or it cannot be said.
pub fn generate(
    machine: &Machine,
    inventory: Option<&Inventory>,
    options: &Options,
) -> Result<Output, DiscoverError> {
    let mode = modes::settle(machine, inventory, options);
    let mut found = modes::find(mode, machine, inventory, options)?;
    let mut warnings = inventory
        .map(|told| told.warnings.clone())
        .unwrap_or_default();
    warnings.append(&mut found.warnings);
    let further = std::mem::take(&mut found.further);
    let main = ("", "", found.devices, found.common);
    let maker = Finisher {
        mode,
        machine,
        inventory,
        options,
        version: found.version.as_deref(),
    };
    let specs = [main].into_iter().chain(further);
    let specs = specs.map(|(infix, appendix, devices, common)| {
        let (spec, lost) = maker.finish(appendix, devices, common)?;
        Ok(Generated { infix, spec, lost })
    });
    Ok(Output {
        mode,
        specs: specs.collect::<Result<_, DiscoverError>>()?,
        warnings,
    })
}

/// What makes a spec of devices.
struct Finisher<'a> {
    mode: Mode,
    machine: &'a Machine,
    inventory: Option<&'a Inventory>,
    options: &'a Options,
    version: Option<&'a str>,
}

impl Finisher<'_> {
    /// Names the kind, simplifies, adds the device that is all, stamps, and declares the version.
    fn finish(
        &self,
        appendix: &str,
        devices: Vec<Device>,
        common: ContainerEdits,
    ) -> Result<(Spec, Vec<String>), DiscoverError> {
        let options = self.options;
        let class = options.class.as_deref();
        let class = class.unwrap_or_else(|| self.mode.class());
        let vendor = options.vendor.as_deref();
        let vendor = vendor.unwrap_or_else(|| self.mode.vendor());
        let mut spec = Spec {
            kind: format!("{vendor}/{class}{appendix}"),
            devices,
            container_edits: common,
            ..Spec::default()
        };
        simplify::simplify(&mut spec);
        if options.all_device && !options.ids.iter().any(|id| id == "none") {
            simplify::add_all(&mut spec);
        }
        stamp::stamp(
            &mut spec,
            self.machine,
            self.inventory,
            self.version,
            options,
        );
        let lost = lower::set_version(&mut spec, options.newest)?;
        spec.validate()?;
        Ok((spec, lost))
    }
}
