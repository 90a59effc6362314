//! Mounts: their sources must be there, or the container would fail later with less to say.

use fleet_cdi::Mount;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Context, PlanError};
use crate::host::HostProbe;

/// One entry of `mounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MountEdit {
    /// Path on the host.
    pub host_path: String,
    /// Path in the container.
    pub container_path: String,
    /// File system type, absent for most bind mounts.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub mount_type: Option<String>,
    /// Mount options.
    pub options: Vec<String>,
}

impl MountEdit {
    /// The entry of the OCI spec (`runtime-spec config.md#mounts`).
    #[must_use]
    pub fn json(&self) -> Value {
        let mut mount = Map::new();
        mount.insert(
            "destination".to_owned(),
            self.container_path.as_str().into(),
        );
        if let Some(kind) = &self.mount_type {
            mount.insert("type".to_owned(), kind.as_str().into());
        }
        mount.insert("source".to_owned(), self.host_path.as_str().into());
        if !self.options.is_empty() {
            mount.insert("options".to_owned(), self.options.clone().into());
        }
        Value::Object(mount)
    }

    fn is_bind(&self) -> bool {
        let is_bind = |option: &String| matches!(option.as_str(), "bind" | "rbind");
        matches!(self.mount_type.as_deref(), None | Some("bind" | "none"))
            || self.options.iter().any(is_bind)
    }
}

fn stated(mount: &Mount) -> MountEdit {
    MountEdit {
        host_path: mount.host_path.clone(),
        container_path: mount.container_path.clone(),
        mount_type: mount.mount_type.clone().filter(|kind| !kind.is_empty()),
        options: mount.options.clone(),
    }
}

/// Whether the mount has a source that the host lacks.
pub(super) fn is_missing(mount: &Mount, probe: &dyn HostProbe) -> bool {
    let edit = stated(mount);
    edit.is_bind() && !probe.exists(&edit.host_path)
}

pub(super) fn check(mount: &Mount, context: &Context<'_>) -> Result<MountEdit, PlanError> {
    let edit = stated(mount);
    if edit.is_bind() && !context.probe.exists(&edit.host_path) {
        return Err(PlanError::Mount {
            path: edit.host_path,
            of: context.of.clone(),
            hint: context.hint(),
        });
    }
    Ok(edit)
}
