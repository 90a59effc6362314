//! What a spec was made from, so that a later reader can tell that it is stale.

use fleet_cdi::{Spec, Version};
use fleet_host::gpu::Inventory;
use fleet_host::proc::boot_id;
use fleet_inject::{GPU_ARCH, GPU_BRAND};

use crate::machine::Machine;
use crate::options::{Options, Stamping};
use crate::selection::gpu_named;

/// Annotation: version of the driver's files.
pub const DRIVER_VERSION: &str = "fleet-nvidia/driver-version";
/// Annotation: the boot in which the spec was made.
pub const BOOT_ID: &str = "fleet-nvidia/boot-id";
/// Annotation: partitions, as [`Inventory::mig_state`] writes them.
pub const MIG_STATE: &str = "fleet-nvidia/mig-state";
/// Annotation: what made the spec.
pub const GENERATOR: &str = "fleet-nvidia/generator";

/// Adds the annotations. Readers before CDI 0.6.0 refuse a spec with annotations, so they are not what raises its
/// version unless asked for.
pub(crate) fn stamp(
    spec: &mut Spec,
    machine: &Machine,
    inventory: Option<&Inventory>,
    version: Option<&str>,
    options: &Options,
) {
    let wanted = match options.stamping {
        Stamping::Always => true,
        Stamping::Never => false,
        Stamping::Free => {
            Version::needed(spec) >= Version::V0_6
                && options
                    .newest
                    .is_none_or(|newest| newest >= Version::needed(spec))
        }
    };
    if !wanted {
        return;
    }
    for device in &mut spec.devices {
        let gpu = inventory.and_then(|told| gpu_named(told, &device.name));
        let facts = gpu.map(|gpu| [(GPU_ARCH, &gpu.arch), (GPU_BRAND, &gpu.brand)]);
        for (key, value) in facts.into_iter().flatten() {
            let value = value.as_ref().map(|value| (key.to_owned(), value.clone()));
            device.annotations.extend(value);
        }
    }
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            spec.annotations.insert(key.to_owned(), value);
        }
    };
    put(DRIVER_VERSION, version.map(str::to_owned));
    put(BOOT_ID, boot_id(&machine.system));
    put(MIG_STATE, inventory.map(Inventory::mig_state));
    put(GENERATOR, Some(options.generator.clone()));
}
