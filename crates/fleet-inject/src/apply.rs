//! Carrying out a plan on the raw JSON of a spec. Members that are not edited stay as they are, in their order.
//!
//! Applying a plan to a spec that has the edits already, from an earlier time or from an engine, changes nothing.

mod hooks;
mod mounts;
mod process;
mod resources;

use std::collections::BTreeMap;

use fleet_rootfs::RootfsEdit;
use serde_json::{Value, json};

use crate::plan::{Change, DeviceEdit, Plan};
use crate::spec::{self, Shape};

/// What the spec cannot hold and the runtime needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Edits of the root file system, in order.
    pub rootfs: Vec<RootfsEdit>,
    /// Container path to host path of the device nodes for which they differ.
    pub host_paths: BTreeMap<String, String>,
    /// What a user should know although the container starts, one sentence each.
    pub warnings: Vec<String>,
}

/// A spec that cannot be edited; it may be edited in part and must be discarded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to inject devices: {0}")]
pub struct ApplyError(#[from] Shape);

impl Plan {
    /// Edits `spec` as the Go library's `InjectDevices` does (CDI SPEC 1.1.0), but in a way that can be repeated.
    ///
    /// # Errors
    /// A part of the spec is not of the type that the OCI runtime specification gives it.
    pub fn apply(&self, spec: &mut Value) -> Result<Applied, ApplyError> {
        let mut applied = Applied {
            warnings: self.warnings.clone(),
            ..Applied::default()
        };
        let mut mounted = false;
        for edit in &self.edits {
            mounted |= matches!(edit.change, Change::Mount(_));
            apply(&edit.change, spec, &mut applied)?;
        }
        if mounted {
            mounts::sort(spec::list_mut(spec, "mounts")?);
        }
        Ok(applied)
    }
}

fn apply(change: &Change, spec: &mut Value, applied: &mut Applied) -> Result<(), Shape> {
    match change {
        Change::Env { name, value } => {
            process::set_env(spec::list_mut(spec, "process.env")?, name, value)
        }
        Change::Device(device) => add_device(device, spec, applied)?,
        Change::Mount(mount) => mounts::add(spec::list_mut(spec, "mounts")?, mount),
        Change::Hook { stage, hook } => hooks::add(spec, *stage, hook)?,
        Change::RemoveHook { stage, hook } => hooks::remove(spec, *stage, hook),
        Change::Rootfs(edit) => applied.rootfs.push(edit.clone()),
        Change::NetDevice {
            host_interface_name,
            name,
        } => {
            let devices = spec::object_mut(spec, "linux.netDevices")?;
            devices.insert(host_interface_name.clone(), json!({ "name": name }));
        }
        Change::IntelRdt { rdt } => {
            spec::object_mut(spec, "linux")?.insert("intelRdt".to_owned(), rdt.clone());
        }
        Change::AdditionalGid { gid } => {
            process::add_gid(spec::list_mut(spec, "process.user.additionalGids")?, *gid);
        }
    }
    Ok(())
}

fn add_device(device: &DeviceEdit, spec: &mut Value, applied: &mut Applied) -> Result<(), Shape> {
    let devices = spec::list_mut(spec, "linux.devices")?;
    devices.retain(|other| spec::text(other, "path") != device.path);
    devices.push(device.node_json());
    if let Some(rule) = device.rule_json() {
        resources::allow(spec::list_mut(spec, "linux.resources.devices")?, rule);
    }
    match device.host_path == device.path {
        true => applied.host_paths.remove(&device.path),
        false => applied
            .host_paths
            .insert(device.path.clone(), device.host_path.clone()),
    };
    Ok(())
}

#[cfg(test)]
mod tests;
