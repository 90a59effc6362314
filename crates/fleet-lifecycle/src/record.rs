//! What is remembered of a container: `<root>/<id>/state.json`, and its spec as `<root>/<id>/config.json`.
//!
//! While it is being made there is `origin.json` in place of the former. It stays, so that a container whose record
//! was damaged can still be taken away. All files are written to a temporary name and renamed, so a reader never sees half of one. Unknown fields
//! are ignored, so that an older runtime reads a newer one's file (rollback on a node with running containers).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::delegate::Delegate;
use crate::error::{Context, Error, Result};
use crate::pidfd;
use crate::rdt::Class;
use crate::root::StateRoot;
use crate::spec;

/// File name of the record.
pub(crate) const STATE_FILE: &str = "state.json";
/// File name of the record as it was before there was a process.
const ORIGIN_FILE: &str = "origin.json";
/// File name of the spec the container was made from, edits included.
const SPEC_FILE: &str = "config.json";
/// File name of the plan by which devices were injected, in the caller's form.
pub const PLAN_FILE: &str = "plan.json";
/// The socket on which the container's first process waits for `start`; gone once it was started.
pub const NOTIFY_SOCKET: &str = "notify.sock";
/// The same socket while `start` is under way, or after one that was killed.
pub(crate) const TAKEN_SOCKET: &str = "notify.taken";

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
    /// What its standard streams were, in the words of [`crate::criu`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stdio: Vec<String>,
    /// Where its processes have their shares of cache and memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<Class>,
    /// The other runtime that made it and runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate: Option<Delegate>,
}

impl Record {
    /// Of a container that is about to be made.
    pub(crate) fn new(
        id: &str,
        bundle: &Path,
        rootfs: &Path,
        spec: &Value,
        euid: u32,
        cgroup: Cgroup,
        audit: Option<Value>,
    ) -> Self {
        let annotations = spec.get("annotations").and_then(Value::as_object);
        let annotations = annotations
            .into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
        Self {
            version: 1,
            oci_version: spec::text(spec, "/ociVersion")
                .unwrap_or_default()
                .to_owned(),
            id: id.to_owned(),
            bundle: bundle.to_path_buf(),
            rootfs: rootfs.to_path_buf(),
            pid: 0,
            start_time: 0,
            created: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
            owner: match euid {
                0 => "root".to_owned(),
                uid => uid.to_string(),
            },
            annotations: annotations.collect(),
            cgroup,
            audit,
            rdt: None,
            stdio: crate::criu::stdio("self"),
            delegate: None,
        }
    }
}

/// Who has made a directory without a record of ours: an engine may give several runtimes one state root.
fn maker_of(dir: &Path) -> Option<&'static str> {
    let has = |name: &str| dir.join(name).exists();
    match has("status") && has(SPEC_FILE) {
        true => Some("crun"),
        false => None,
    }
}

/// Who has written a `state.json` that is no record of ours, by its own fields.
fn writer_of(path: &Path) -> Option<&'static str> {
    let state: Value = serde_json::from_slice(&bytes_of(path).ok()?).ok()?;
    let has = |key: &str| state.get(key).is_some();
    match (has("init_process_pid"), has("useSystemd")) {
        (true, _) => Some("runc"),
        (_, true) => Some("youki"),
        _ => None,
    }
}

fn foreign(root: &StateRoot, id: &str, maker: &'static str) -> Error {
    Error::Foreign {
        id: id.to_owned(),
        root: root.path().display().to_string(),
        maker,
    }
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
    /// [`Error::Unknown`] when there is none, [`Error::Unfinished`] when only its directory is there, [`Error::Setup`]
    /// when it cannot be read as one.
    pub fn load(root: &StateRoot, id: &str) -> Result<Self> {
        let dir = root.container(id)?;
        for file in [STATE_FILE, ORIGIN_FILE] {
            let path = dir.join(file);
            let read = read(&path, id).map_err(|err| match writer_of(&path) {
                Some(maker) => foreign(root, id, maker),
                None => err,
            });
            if let Some(record) = read? {
                return Ok(Self { dir, record });
            }
        }
        Err(match maker_of(&dir) {
            Some(maker) => foreign(root, id, maker),
            None if dir.is_dir() => Error::Unfinished(id.to_owned()),
            None => Error::Unknown(id.to_owned()),
        })
    }

    /// What is known of a container whose record cannot be read: all but its process.
    #[must_use]
    pub(crate) fn load_origin(root: &StateRoot, id: &str) -> Option<Self> {
        let dir = root.container(id).ok()?;
        let record = read(&dir.join(ORIGIN_FILE), id).ok()??;
        Some(Self { dir, record })
    }

    /// Writes the record, replacing an older one in one step.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn save(&self) -> Result<()> {
        self.save_as(STATE_FILE)
    }

    /// Writes what is known before there is a process.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub(crate) fn save_origin(&self) -> Result<()> {
        self.save_as(ORIGIN_FILE)
    }

    fn save_as(&self, file: &str) -> Result<()> {
        let bytes = serde_json::to_vec(&self.record)
            .map_err(|err| Error::Setup(format!("encode state: {err}")))?;
        replace_file(&self.dir.join(file), &bytes, 0o600)
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
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn alive(&self) -> Result<bool> {
        let pid = self.record.pid;
        if pid <= 0 {
            return Ok(false);
        }
        pidfd::is_same(pid, self.record.start_time).op(|| {
            format!(
                "look whether process {pid} of container `{}` lives",
                self.record.id
            )
        })
    }

    /// Whether the first process waits for `start`. One that was killed half-way tells nothing by its socket, but a
    /// process that never executed a program waits still.
    fn waits(&self) -> bool {
        self.dir.join(NOTIFY_SOCKET).exists()
            || self.dir.join(TAKEN_SOCKET).exists() && !pidfd::has_executed(self.record.pid)
    }

    /// Keeps other callers from the container's directory while the value lives; a killed holder lets go of it.
    ///
    /// # Errors
    /// As `man 2 flock`, with the path.
    pub(crate) fn lock(&self) -> Result<Flock<fs::File>> {
        let dir = fs::File::open(&self.dir).op(|| format!("open `{}`", self.dir.display()))?;
        Flock::lock(dir, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .op(|| format!("lock `{}`", self.dir.display()))
    }

    /// The container's state now; cheap, since engines ask often.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn status(&self) -> Result<Status> {
        Ok(if self.record.pid <= 0 {
            Status::Creating
        } else if !self.alive()? {
            Status::Stopped
        } else if self.waits() {
            Status::Created
        } else if self.record.cgroup.is_frozen().unwrap_or(false) {
            Status::Paused
        } else {
            Status::Running
        })
    }

    /// `runtime-spec runtime.md#state` as JSON, with runc's extra fields.
    ///
    /// # Errors
    /// When the state cannot be told.
    pub fn state(&self) -> Result<Value> {
        Ok(self.state_as(self.status()?))
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

/// Whatever lies there, it is not waited for.
fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read(path: &Path, id: &str) -> Result<Option<Record>> {
    let bytes = match bytes_of(path) {
        Ok(bytes) => bytes,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err).op(|| format!("read `{}`", path.display())),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|err| {
        Error::Setup(format!(
            "state file `{}` is damaged: {err}; hint: `delete --force {id}` removes what is left",
            path.display()
        ))
    })
}

/// Whether a record is in a container's directory.
pub(crate) fn recorded(dir: &Path) -> bool {
    [STATE_FILE, ORIGIN_FILE]
        .iter()
        .any(|file| dir.join(file).exists())
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

/// Writes a file that is not there yet: it has a name only when it is whole, so that a killed writer leaves nothing.
/// Where that cannot be, and for a file that is there, as [`replace_file`].
///
/// # Errors
/// [`Error::Io`] with the path; nothing is left behind.
pub fn place_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let place = || -> io::Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let mut file = fs::OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .mode(mode)
            .open(dir.unwrap_or_else(|| Path::new(".")))?;
        file.write_all(bytes)?;
        let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
        nix::unistd::linkat(
            None,
            Path::new(&nameless),
            None,
            path,
            AtFlags::AT_SYMLINK_FOLLOW,
        )?;
        Ok(())
    };
    place().or_else(|_| replace_file(path, bytes, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placed_file_replaces_another() {
        let dir = std::env::temp_dir().join(format!("fleet-place-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for text in ["one", "two"] {
            place_file(&dir.join("x"), text.as_bytes(), 0o600).unwrap();
            assert_eq!(fs::read_to_string(dir.join("x")).unwrap(), text);
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        }
        let err = place_file(&dir.join("missing/x"), b"", 0o600).unwrap_err();
        assert!(
            err.to_string().contains("missing/x`: No such file"),
            "{err}"
        );
        fs::remove_dir_all(&dir).unwrap();
    }

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
