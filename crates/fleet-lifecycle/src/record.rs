//! What is remembered of a container: `<root>/<id>/state.json`, and its spec as `<root>/<id>/config.json`.
//!
//! Both files are written to a temporary name and renamed, so a reader never sees half of one. Unknown fields
//! are ignored, so that an older runtime reads a newer one's file (rollback on a node with running containers).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::pidfd;
use crate::root::StateRoot;

/// File name of the record.
const STATE_FILE: &str = "state.json";
/// File name of the spec the container was made from, edits included.
const SPEC_FILE: &str = "config.json";
/// File name of the plan by which devices were injected, in the caller's form.
pub const PLAN_FILE: &str = "plan.json";
/// The socket on which the container's first process waits for `start`; gone once it was started.
pub const NOTIFY_SOCKET: &str = "notify.sock";

/// A container's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Format of this file; readers accept any, since fields are only ever added.
    pub version: u32,
    /// `ociVersion` of the spec.
    pub oci_version: String,
    /// Container id.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system, as the runtime saw it.
    pub rootfs: PathBuf,
    /// Pid of the first process in the runtime's pid namespace; 0 while it is being made.
    pub pid: i32,
    /// Start time of that process in clock ticks since boot (field 22 of `man 5 proc_pid_stat`): tells it from
    /// a stranger with the same pid.
    pub start_time: u64,
    /// RFC 3339, UTC.
    pub created: String,
    /// Name or number of the user who created it.
    #[serde(default)]
    pub owner: String,
    /// Annotations of the spec.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Where its processes are accounted.
    pub cgroup: Cgroup,
    /// Kept for the caller, who writes down what becomes of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Value>,
}

/// `runtime-spec runtime.md#state`, plus `paused`, which every engine expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Being made, or its maker died.
    Creating,
    /// Made; its process waits for `start`.
    Created,
    /// The user's program runs.
    Running,
    /// Frozen.
    Paused,
    /// The process is gone.
    Stopped,
}

impl Status {
    /// The word in `state` and `list`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A record and where it lies.
#[derive(Debug, Clone)]
pub struct Container {
    /// `<root>/<id>`.
    pub dir: PathBuf,
    /// The record.
    pub record: Record,
}

impl Container {
    /// Reads a container's record.
    ///
    /// # Errors
    /// [`Error::Unknown`] when there is none; [`Error::Setup`] when it cannot be read as one.
    pub fn load(root: &StateRoot, id: &str) -> Result<Self> {
        let dir = root.container(id)?;
        let path = dir.join(STATE_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Unknown(id.to_owned()));
            }
            Err(source) => {
                return Err(Error::Io {
                    op: format!("read `{}`", path.display()),
                    source,
                });
            }
        };
        let record = serde_json::from_slice(&bytes).map_err(|err| {
            Error::Setup(format!(
                "state file `{}` is damaged: {err}; hint: `delete --force {id}` removes what is left",
                path.display()
            ))
        })?;
        Ok(Self { dir, record })
    }

    /// Writes the record, replacing an older one in one step.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn save(&self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.record)
            .map_err(|err| Error::Setup(format!("encode state: {err}")))?;
        replace_file(&self.dir.join(STATE_FILE), &bytes, 0o600)
    }

    /// Stores the spec the container is made from.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn save_spec(&self, spec: &Value) -> Result<()> {
        let bytes =
            serde_json::to_vec(spec).map_err(|err| Error::Setup(format!("encode spec: {err}")))?;
        replace_file(&self.dir.join(SPEC_FILE), &bytes, 0o600)
    }

    /// Stores the plan that the spec was edited by.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn save_plan(&self, plan: &[u8]) -> Result<()> {
        replace_file(&self.dir.join(PLAN_FILE), plan, 0o600)
    }

    /// The stored spec.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Setup`] with the path.
    pub fn spec(&self) -> Result<Value> {
        let path = self.dir.join(SPEC_FILE);
        let bytes = fs::read(&path).op(|| format!("read `{}`", path.display()))?;
        serde_json::from_slice(&bytes)
            .map_err(|err| Error::Setup(format!("parse `{}`: {err}", path.display())))
    }

    /// Whether the recorded process lives: same pid, same start time, not a zombie.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.record.pid > 0 && pidfd::is_same(self.record.pid, self.record.start_time)
    }

    /// The container's state now; cheap, since engines ask often.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.record.pid <= 0 {
            return Status::Creating;
        }
        if !self.alive() {
            return Status::Stopped;
        }
        if self.dir.join(NOTIFY_SOCKET).exists() {
            return Status::Created;
        }
        if self.record.cgroup.is_frozen().unwrap_or(false) {
            return Status::Paused;
        }
        Status::Running
    }

    /// `runtime-spec runtime.md#state` as JSON, with runc's extra fields.
    #[must_use]
    pub fn state(&self) -> Value {
        self.state_as(self.status())
    }

    /// The state document with a status given by the caller, for hooks.
    #[must_use]
    pub fn state_as(&self, status: Status) -> Value {
        let pid = if status == Status::Stopped {
            0
        } else {
            self.record.pid
        };
        serde_json::json!({
            "ociVersion": self.record.oci_version,
            "id": self.record.id,
            "pid": pid,
            "status": status.as_str(),
            "bundle": self.record.bundle,
            "rootfs": self.record.rootfs,
            "created": self.record.created,
            "annotations": self.record.annotations,
            "owner": self.record.owner,
        })
    }
}

/// Writes a file under a temporary name in the same directory and renames it.
///
/// # Errors
/// [`Error::Io`] with the path; nothing is left behind.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(bytes)?;
        fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .op(|| format!("write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_leaves_no_temporary_file() {
        let dir = std::env::temp_dir().join(format!("fleet-record-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        replace_file(&dir.join("x"), b"one", 0o600).unwrap();
        replace_file(&dir.join("x"), b"two", 0o600).unwrap();
        assert_eq!(fs::read(dir.join("x")).unwrap(), b"two");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        assert!(replace_file(&dir.join("missing/x"), b"", 0o600).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
