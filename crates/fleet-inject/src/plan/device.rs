//! Device nodes: what the CDI spec leaves out is read from the host, and what it states is compared with it.

use fleet_cdi::DeviceNode;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Context, PlanError};
use crate::host::{DeviceStat, HostProbe, io_cause};

/// A device node in the container, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceEdit {
    /// Path in the container.
    pub path: String,
    /// Path on the host.
    pub host_path: String,
    /// `c`, `b`, `u` or `p` (`runtime-spec config-linux.md#devices`).
    #[serde(rename = "type")]
    pub kind: String,
    /// Major number, 0 for a pipe.
    pub major: i64,
    /// Minor number, 0 for a pipe.
    pub minor: i64,
    /// Permission bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Owner in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// What the device cgroup allows, letters of `rwm`; absent where there is no rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
}

impl DeviceEdit {
    /// What the CDI spec says.
    fn stated(node: &DeviceNode, owner: &Owner) -> Self {
        let host_path = node.host_path.as_deref().filter(|path| !path.is_empty());
        Self {
            path: node.path.clone(),
            host_path: host_path.unwrap_or(&node.path).to_owned(),
            kind: node.device_type.clone().unwrap_or_default(),
            major: node.major.unwrap_or(0),
            minor: node.minor.unwrap_or(0),
            file_mode: node.file_mode,
            uid: node.uid.or(owner.uid),
            gid: node.gid.or(owner.gid),
            access: None,
        }
    }

    /// Reads what is not stated from the host.
    fn complete(&mut self, probe: &dyn HostProbe) -> Result<(), String> {
        let is_complete = !self.kind.is_empty() && (self.major != 0 || self.kind == "p");
        let stat = match probe.lstat_device(&self.host_path) {
            Ok(stat) => stat,
            // As the Go library: what is stated in full needs no node on the host.
            Err(_) if is_complete => return Ok(()),
            Err(err) => return Err(io_cause(&err)),
        };
        compare(&self.kind, self.major, self.minor, &stat)?;
        if self.kind.is_empty() {
            self.kind = stat.kind.letter().to_owned();
        }
        if self.major == 0 && self.kind != "p" {
            (self.major, self.minor) = (stat.major.into(), stat.minor.into());
        }
        self.file_mode.get_or_insert(stat.mode & 0o777);
        Ok(())
    }

    /// The entry of `linux.devices`.
    #[must_use]
    pub fn node_json(&self) -> Value {
        let mut node = Map::new();
        node.insert("path".to_owned(), self.path.as_str().into());
        node.insert("type".to_owned(), self.kind.as_str().into());
        if self.kind != "p" {
            node.insert("major".to_owned(), self.major.into());
            node.insert("minor".to_owned(), self.minor.into());
        }
        for (key, value) in [
            ("fileMode", self.file_mode),
            ("uid", self.uid),
            ("gid", self.gid),
        ] {
            if let Some(value) = value {
                node.insert(key.to_owned(), value.into());
            }
        }
        Value::Object(node)
    }

    /// The entry of `linux.resources.devices`, if there is one.
    #[must_use]
    pub fn rule_json(&self) -> Option<Value> {
        let access = self.access.as_deref()?;
        Some(serde_json::json!({
            "allow": true, "type": self.kind, "major": self.major, "minor": self.minor, "access": access,
        }))
    }
}

/// The user whom nodes without a stated owner belong to.
#[derive(Debug, Default)]
pub(super) struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Owner {
    /// `process.user`, where it is not root.
    pub(super) fn of_process(spec: &Value) -> Self {
        let id = |pointer| {
            spec.pointer(pointer)
                .and_then(Value::as_u64)
                .and_then(|id| u32::try_from(id).ok())
        };
        let non_root = |id: Option<u32>| id.filter(|id| *id > 0);
        Self {
            uid: non_root(id("/process/user/uid")),
            gid: non_root(id("/process/user/gid")),
        }
    }
}

/// Whether the host has the node as stated. The error holds the host's path and what is wrong.
pub(super) fn verify(node: &DeviceNode, probe: &dyn HostProbe) -> Result<(), (String, String)> {
    let mut device = DeviceEdit::stated(node, &Owner::default());
    let completed = device.complete(probe);
    completed.map_err(|problem| (device.host_path, problem))
}

/// Completes a node as the Go library's `InjectDevices` does. Beyond it, numbers that differ from the host's are
/// refused: they belong to the driver of another boot.
pub(super) fn fill(
    node: &DeviceNode,
    owner: &Owner,
    context: &Context<'_>,
) -> Result<DeviceEdit, PlanError> {
    let mut device = DeviceEdit::stated(node, owner);
    device
        .complete(context.probe)
        .map_err(|cause| PlanError::Device {
            path: device.host_path.clone(),
            of: context.of.clone(),
            cause,
            hint: context.hint(),
        })?;
    device.access = access(
        &device.kind,
        node.permissions.as_deref().unwrap_or_default(),
    );
    Ok(device)
}

fn compare(kind: &str, major: i64, minor: i64, stat: &DeviceStat) -> Result<(), String> {
    let on_host = stat.kind.letter();
    if !kind.is_empty() && kind != on_host && !(kind == "u" && on_host == "c" && major != 0) {
        return Err(format!(
            "is of type \"{on_host}\" but the CDI spec says \"{kind}\""
        ));
    }
    let same = (major, minor) == (i64::from(stat.major), i64::from(stat.minor));
    match major == 0 || on_host == "p" || same {
        true => Ok(()),
        false => {
            let DeviceStat {
                major: host_major,
                minor: host_minor,
                ..
            } = stat;
            Err(format!(
                "has the numbers {host_major}:{host_minor} but the CDI spec says {major}:{minor}"
            ))
        }
    }
}

fn access(kind: &str, permissions: &str) -> Option<String> {
    match (kind, permissions) {
        ("c" | "b", "none") => None,
        ("c" | "b", "") => Some("rwm".to_owned()),
        ("c" | "b", letters) => Some(letters.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::DeviceKind;

    #[test]
    fn stated_parts_must_be_the_hosts() {
        let stat = |kind, major, minor| DeviceStat {
            kind,
            major,
            minor,
            mode: 0o666,
        };
        let char_device = stat(DeviceKind::Char, 195, 3);
        let cases = [
            ("", 0, 0, char_device, None),
            ("", 195, 3, char_device, None),
            ("c", 0, 7, char_device, None),
            ("u", 195, 3, char_device, None),
            ("p", 0, 0, stat(DeviceKind::Fifo, 0, 0), None),
            (
                "",
                195,
                4,
                char_device,
                Some("has the numbers 195:3 but the CDI spec says 195:4"),
            ),
            (
                "",
                511,
                3,
                char_device,
                Some("has the numbers 195:3 but the CDI spec says 511:3"),
            ),
            (
                "b",
                195,
                3,
                char_device,
                Some("is of type \"c\" but the CDI spec says \"b\""),
            ),
            (
                "u",
                0,
                0,
                char_device,
                Some("is of type \"c\" but the CDI spec says \"u\""),
            ),
        ];
        for (kind, major, minor, stat, want) in cases {
            let found = compare(kind, major, minor, &stat);
            assert_eq!(
                found.err().as_deref(),
                want,
                "{kind} {major}:{minor} {stat:?}"
            );
        }
    }

    #[test]
    fn rules_are_for_nodes_that_a_cgroup_knows() {
        let cases = [
            ("c", "", Some("rwm")),
            ("b", "rw", Some("rw")),
            ("c", "none", None),
            ("u", "rwm", None),
            ("p", "", None),
        ];
        for (kind, permissions, want) in cases {
            assert_eq!(
                access(kind, permissions).as_deref(),
                want,
                "{kind} {permissions}"
            );
        }
    }
}
