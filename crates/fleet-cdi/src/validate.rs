//! Rules for the content of a spec, in the Go library's order: version, vendor, class, global edits, each device.

use crate::model::{ContainerEdits, DeviceNode, Hook, IntelRdt, Spec};
use crate::name::{check_device, check_part, shown};
use crate::version::Version;

const STAGES: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];
/// Longest file name of the resctrl file system.
const MAX_CLOS: usize = 4096;

impl Spec {
    /// Checks everything that parsing does not.
    ///
    /// # Errors
    /// The first rule that is broken, with the field.
    pub fn validate(&self) -> Result<(), String> {
        let declared = Version::parse(&self.cdi_version)
            .ok_or_else(|| format!("invalid version \"{}\"", shown(&self.cdi_version)))?;
        let needed = Version::needed(self);
        if declared < needed {
            return Err(format!("the spec version must be at least v{needed}"));
        }
        let (vendor, class) = self
            .kind
            .split_once('/')
            .ok_or_else(|| format!("kind \"{}\" is not vendor/class", shown(&self.kind)))?;
        check_part("vendor", vendor)?;
        check_part("class", class)?;
        edits(&self.container_edits, "containerEdits", declared)?;
        if self.devices.is_empty() {
            return Err("the spec has no devices".to_owned());
        }
        let mut names = std::collections::HashSet::new();
        for device in &self.devices {
            check_device(&device.name)?;
            if !names.insert(device.name.as_str()) {
                return Err(format!("device \"{}\" is defined twice", device.name));
            }
            let path = format!("device \"{}\"", device.name);
            if device.container_edits.is_empty() {
                return Err(format!("{path} has empty containerEdits"));
            }
            edits(&device.container_edits, &path, declared)?;
        }
        Ok(())
    }

    /// The lowest version that can express this spec.
    #[must_use]
    pub fn minimum_version(&self) -> Version {
        Version::needed(self)
    }
}

fn edits(edits: &ContainerEdits, path: &str, declared: Version) -> Result<(), String> {
    env(&edits.env, path)?;
    edits
        .device_nodes
        .iter()
        .try_for_each(|node| device_node(node, path))?;
    for mount in &edits.mounts {
        if mount.host_path.is_empty() || mount.container_path.is_empty() {
            return Err(format!("{path}: a mount has an empty path"));
        }
    }
    edits.hooks.iter().try_for_each(|given| hook(given, path))?;
    if let Some(given) = &edits.intel_rdt {
        rdt(given, path, declared)?;
    }
    let mut seen = std::collections::HashSet::new();
    for device in &edits.net_devices {
        if device.host_interface_name.is_empty() || device.name.is_empty() {
            return Err(format!("{path}: a network device has an empty name"));
        }
        if !seen.insert(("host", &device.host_interface_name))
            || !seen.insert(("container", &device.name))
        {
            return Err(format!(
                "{path}: network device \"{}\" is given twice",
                shown(&device.host_interface_name)
            ));
        }
    }
    Ok(())
}

fn env(all: &[String], path: &str) -> Result<(), String> {
    match all
        .iter()
        .find(|entry| entry.find('=').is_none_or(|at| at == 0) || entry.contains('\0'))
    {
        Some(bad) => Err(format!(
            "{path}: invalid environment variable \"{}\"",
            shown(bad)
        )),
        None => Ok(()),
    }
}

fn device_node(node: &DeviceNode, path: &str) -> Result<(), String> {
    if node.path.is_empty() {
        return Err(format!("{path}: a device node has an empty path"));
    }
    let kind = node.device_type.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "b" | "c" | "u" | "p") {
        return Err(format!(
            "{path}: device \"{}\": invalid type \"{}\"",
            shown(&node.path),
            shown(kind)
        ));
    }
    let permissions = node.permissions.as_deref().unwrap_or_default();
    if permissions.contains(|c| !matches!(c, 'r' | 'w' | 'm')) {
        return Err(format!(
            "{path}: device \"{}\": invalid permissions \"{}\"",
            shown(&node.path),
            shown(permissions)
        ));
    }
    Ok(())
}

fn hook(hook: &Hook, path: &str) -> Result<(), String> {
    if !STAGES.contains(&hook.hook_name.as_str()) {
        return Err(format!(
            "{path}: invalid hook name \"{}\"",
            shown(&hook.hook_name)
        ));
    }
    if hook.path.is_empty() {
        return Err(format!(
            "{path}: a {} hook has an empty path",
            hook.hook_name
        ));
    }
    env(&hook.env, path)
}

fn rdt(rdt: &IntelRdt, path: &str, declared: Version) -> Result<(), String> {
    if declared >= Version::V1_1 && (rdt.enable_cmt.is_some() || rdt.enable_mbm.is_some()) {
        return Err(format!(
            "{path}: intelRdt.enableCMT and enableMBM do not exist since v1.1.0"
        ));
    }
    let Some(clos) = rdt.clos_id.as_deref() else {
        return Ok(());
    };
    let file = clos.len() < MAX_CLOS && !clos.contains(['/', '\n']) && clos != "." && clos != "..";
    if clos != "/" && !file {
        return Err(format!(
            "{path}: invalid intelRdt.closID \"{}\"",
            shown(clos)
        ));
    }
    Ok(())
}
