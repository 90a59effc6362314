//! Rules for the content of a spec, in the Go library's order: version, vendor, class, global edits, each device.

use std::collections::HashSet;

use crate::model::{ContainerEdits, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec};
use crate::name::{check_device, check_part};
use crate::shown::shown;
use crate::version::{KNOWN, Version};

/// A rule that a spec breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSpec {
    /// No released version.
    #[error("invalid version \"{}\"; known are {}", shown(.0), known_versions())]
    Version(String),
    /// Content that the declared version does not have.
    #[error("the spec version must be at least v{0}")]
    VersionTooLow(Version),
    /// Not `vendor/class`.
    #[error("invalid kind \"{}\": {why}", shown(.kind))]
    Kind {
        /// As declared.
        kind: String,
        /// The cause.
        why: String,
    },
    /// There must be one.
    #[error("the spec has no devices")]
    NoDevices,
    /// Not a device name.
    #[error("devices[{index}]: {why}")]
    DeviceName {
        /// Position in the list.
        index: usize,
        /// The cause.
        why: String,
    },
    /// A name is unique in its file.
    #[error("device \"{}\" is defined twice", shown(.0))]
    DuplicateDevice(String),
    /// A device must change something.
    #[error("device \"{}\" has empty containerEdits", shown(.0))]
    EmptyDevice(String),
    /// An edit that cannot be made.
    #[error("{path}: {why}")]
    Edit {
        /// The field.
        path: String,
        /// The cause.
        why: String,
    },
}

fn known_versions() -> String {
    let usable: Vec<_> = KNOWN
        .iter()
        .filter(|version| **version >= Version::V0_3)
        .map(ToString::to_string)
        .collect();
    usable.join(", ")
}

/// Hook stages (`runtime-spec config.md#posix-platform-hooks`).
const STAGES: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];
/// A class of service is a directory of the resctrl file system; bytes.
const MAX_CLOS: usize = 4096;

impl Spec {
    /// Checks everything that parsing does not.
    ///
    /// # Errors
    /// The first rule that is broken, with the field.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        let declared = Version::parse(&self.cdi_version)
            .ok_or_else(|| InvalidSpec::Version(self.cdi_version.clone()))?;
        let needed = Version::needed(self);
        if declared < needed {
            return Err(InvalidSpec::VersionTooLow(needed));
        }
        self.check_kind()?;
        edits(
            &self.container_edits,
            || "containerEdits".to_owned(),
            declared,
        )?;
        if self.devices.is_empty() {
            return Err(InvalidSpec::NoDevices);
        }
        let mut names = HashSet::with_capacity(self.devices.len());
        for (index, device) in self.devices.iter().enumerate() {
            check_device(&device.name).map_err(|why| InvalidSpec::DeviceName { index, why })?;
            if device.container_edits.is_empty() {
                return Err(InvalidSpec::EmptyDevice(device.name.clone()));
            }
            let path = || format!("device \"{}\"", shown(&device.name));
            edits(&device.container_edits, path, declared)?;
            if !names.insert(device.name.as_str()) {
                return Err(InvalidSpec::DuplicateDevice(device.name.clone()));
            }
        }
        Ok(())
    }

    fn check_kind(&self) -> Result<(), InvalidSpec> {
        let parts = self.kind.split_once('/');
        let checked = parts
            .ok_or_else(|| "it is not vendor/class".to_owned())
            .and_then(|(vendor, class)| {
                check_part("vendor", vendor).and_then(|()| check_part("class", class))
            });
        checked.map_err(|why| InvalidSpec::Kind {
            kind: self.kind.clone(),
            why,
        })
    }

    /// The lowest version that can express this spec: what to declare, so that the oldest engines read it.
    #[must_use]
    pub fn minimum_version(&self) -> Version {
        Version::needed(self)
    }
}

type Checked = Result<(), String>;
/// The field and the cause.
type CheckedField = Result<(), (String, String)>;

fn edits(
    edits: &ContainerEdits,
    path: impl Fn() -> String,
    declared: Version,
) -> Result<(), InvalidSpec> {
    each(&edits.env, "env", |entry| env(entry))
        .and_then(|()| each(&edits.device_nodes, "deviceNodes", device_node))
        .and_then(|()| each(&edits.hooks, "hooks", hook))
        .and_then(|()| each(&edits.mounts, "mounts", mount))
        .and_then(|()| match &edits.intel_rdt {
            Some(given) => rdt(given, declared).map_err(|why| ("intelRdt".to_owned(), why)),
            None => Ok(()),
        })
        .and_then(|()| net_devices(&edits.net_devices))
        .map_err(|(field, why)| InvalidSpec::Edit {
            path: format!("{}: {field}", path()),
            why,
        })
}

fn each<T>(all: &[T], field: &str, check: impl Fn(&T) -> Checked) -> CheckedField {
    all.iter()
        .enumerate()
        .try_for_each(|(index, one)| check(one).map_err(|why| (format!("{field}[{index}]"), why)))
}

fn env(entry: &str) -> Checked {
    match entry.find('=') {
        Some(1..) => Ok(()),
        _ => Err(format!("invalid environment variable \"{}\"", shown(entry))),
    }
}

fn device_node(node: &DeviceNode) -> Checked {
    if node.path.is_empty() {
        return Err("a device node has an empty path".to_owned());
    }
    let fail = |what: &str, given: &str| {
        Err(format!(
            "device \"{}\": invalid {what} \"{}\"",
            shown(&node.path),
            shown(given)
        ))
    };
    let kind = node.device_type.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "b" | "c" | "u" | "p") {
        return fail("type", kind);
    }
    let permissions = node.permissions.as_deref().unwrap_or_default();
    if permissions != "none" && permissions.contains(|c| !matches!(c, 'r' | 'w' | 'm')) {
        return fail("permissions", permissions);
    }
    Ok(())
}

fn mount(mount: &Mount) -> Checked {
    if mount.host_path.is_empty() {
        return Err("a mount has an empty path: hostPath".to_owned());
    }
    if mount.container_path.is_empty() {
        return Err("a mount has an empty path: containerPath".to_owned());
    }
    Ok(())
}

fn hook(hook: &Hook) -> Checked {
    if !STAGES.contains(&hook.hook_name.as_str()) {
        return Err(format!("invalid hook name \"{}\"", shown(&hook.hook_name)));
    }
    if hook.path.is_empty() {
        return Err(format!("a {} hook has an empty path", hook.hook_name));
    }
    hook.env.iter().try_for_each(|entry| env(entry))
}

fn net_devices(all: &[NetDevice]) -> CheckedField {
    each(all, "netDevices", |device| {
        if device.host_interface_name.is_empty() || device.name.is_empty() {
            return Err("a network device has an empty name".to_owned());
        }
        Ok(())
    })?;
    let (mut hosts, mut names) = (HashSet::new(), HashSet::new());
    let twice = all.iter().enumerate().find(|(_, device)| {
        !hosts.insert(&device.host_interface_name) || !names.insert(&device.name)
    });
    match twice {
        None => Ok(()),
        Some((index, device)) => Err((
            format!("netDevices[{index}]"),
            format!(
                "network device \"{}\" as \"{}\" is given twice",
                shown(&device.host_interface_name),
                shown(&device.name)
            ),
        )),
    }
}

fn rdt(rdt: &IntelRdt, declared: Version) -> Checked {
    if declared >= Version::V1_1 && (rdt.enable_cmt.is_some() || rdt.enable_mbm.is_some()) {
        return Err("enableCMT and enableMBM do not exist since v1.1.0".to_owned());
    }
    let Some(clos) = rdt.clos_id.as_deref() else {
        return Ok(());
    };
    let file = clos.len() < MAX_CLOS && !clos.contains(['/', '\n']) && clos != "." && clos != "..";
    if clos != "/" && !file {
        return Err(format!("invalid closID \"{}\"", shown(clos)));
    }
    Ok(())
}
