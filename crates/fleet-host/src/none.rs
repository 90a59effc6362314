//! `NVIDIA_VISIBLE_DEVICES=none`: the driver's files without a GPU.

use fleet_cdi::{QualifiedName, Registry, SourcedEdits, Unresolvable};

/// The device `none` where a spec has it; else what all devices of the kind share, file by file.
///
/// # Errors
/// No spec has a device of this kind.
pub(crate) fn resolve(registry: &Registry, kind: &str) -> Result<Vec<SourcedEdits>, Unresolvable> {
    let of_kind: Vec<QualifiedName> = registry
        .devices()
        .into_iter()
        .filter(|name| name.kind() == kind)
        .collect();
    // A kind of the configuration is checked when that is read, so this holds exactly one name.
    let none: Vec<QualifiedName> = format!("{kind}=none").parse().into_iter().collect();
    if of_kind.is_empty() || none.iter().any(|name| of_kind.contains(name)) {
        return registry.resolve(&none);
    }
    let mut resolved = registry.resolve(&of_kind)?;
    resolved.retain(|sourced| sourced.device.is_none());
    Ok(resolved)
}
