//! The audit trail: who got which device, one event per line of JSON, and in systemd's journal.
//!
//! Off unless the configuration asks for it. What later events need is kept in the container's record, so that no
//! configuration is read for them.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use fleet_inject::{AuditPolicy, Change, Plan, Refusal, Source, io_cause};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::supply::{Supplied, SupplyState};

/// Version of an event's form. It grows when a field changes its meaning or goes, not when one is added.
pub const AUDIT_SCHEMA_VERSION: u32 = 1;
/// `systemd.io/JOURNAL_NATIVE_PROTOCOL`.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Annotations by which engines say whose container it is.
const LABELS: [&str; 6] = [
    "io.container.manager",
    "io.kubernetes.pod.",
    "io.kubernetes.container.name",
    "io.kubernetes.cri-o.ImageName",
    "io.kubernetes.cri.sandbox-",
    "io.kubernetes.cri.image-name",
];
/// Most labels of a container; pods choose their annotations.
const MOST_LABELS: usize = 16;
/// Most characters of a label's value; it comes from whoever made the pod.
const LONGEST: usize = 256;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The container was made, with these devices.
    Create,
    /// Its program was started.
    Start,
    /// It was removed.
    Delete,
    /// A request was refused, by the policy or because it cannot be fulfilled.
    Denied,
}

/// A device in a container, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Granted {
    /// Path in the container.
    pub path: String,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// CDI device that brings it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// CDI spec that states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_file: Option<PathBuf>,
    /// Who asked, in the form of a plan's origin.
    pub source: Value,
    /// Whether its node was missing on the host and has been made for this container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made: bool,
}

/// Whom an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Container id.
    pub container: String,
    /// Bundle directory.
    pub bundle: PathBuf,
    /// User id of who made it.
    pub uid: u32,
    /// Pod, image and engine, as far as the engine says.
    pub labels: BTreeMap<String, String>,
    /// Its devices.
    pub devices: Vec<Granted>,
}

/// Where the events of one container go, kept in its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trail {
    /// A file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The journal.
    #[serde(default)]
    pub journald: bool,
    /// Whom they are about.
    pub subject: Subject,
}

/// An event that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("audit: {place} {cause}")]
pub struct AuditError {
    /// File or socket.
    pub place: String,
    /// Why, in words that no engine takes for a missing command.
    pub cause: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    schema_version: u32,
    time: &'a str,
    event: EventKind,
    #[serde(flatten)]
    subject: &'a Subject,
    #[serde(skip_serializing_if = "<[Refusal]>::is_empty")]
    refused: &'a [Refusal],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl Trail {
    /// `None` where the policy wants no trail.
    #[must_use]
    pub fn new(policy: &AuditPolicy, subject: Subject) -> Option<Self> {
        policy.is_on().then(|| Self {
            file: policy.file.clone(),
            journald: policy.journald,
            subject,
        })
    }

    /// Writes one event; `time` is RFC 3339.
    ///
    /// # Errors
    /// File or journal cannot be written.
    pub fn tell(&self, event: EventKind, time: &str) -> Result<(), AuditError> {
        self.write(event, time, &[], &[], None)
    }

    /// Writes that the container was made, and what it got less than was asked for.
    ///
    /// # Errors
    /// File or journal cannot be written.
    pub fn created(&self, time: &str, warnings: &[String]) -> Result<(), AuditError> {
        self.write(EventKind::Create, time, &[], warnings, None)
    }

    /// Writes that requests were refused, or why the container was.
    ///
    /// # Errors
    /// File or journal cannot be written.
    pub fn deny(
        &self,
        time: &str,
        refused: &[Refusal],
        error: Option<&str>,
    ) -> Result<(), AuditError> {
        self.write(EventKind::Denied, time, refused, &[], error)
    }

    fn write(
        &self,
        event: EventKind,
        time: &str,
        refused: &[Refusal],
        warnings: &[String],
        error: Option<&str>,
    ) -> Result<(), AuditError> {
        let document = Event {
            schema_version: AUDIT_SCHEMA_VERSION,
            time,
            event,
            subject: &self.subject,
            refused,
            warnings,
            error,
        };
        let failed = |place: &Path, err: &io::Error| AuditError {
            place: place.display().to_string(),
            cause: io_cause(err),
        };
        let line = serde_json::to_string(&document).map_err(|err| AuditError {
            place: "event".to_owned(),
            cause: err.to_string(),
        })?;
        if let Some(file) = &self.file {
            append(file, &line).map_err(|err| failed(file, &err))?;
        }
        if self.journald {
            let entry = self.journal_entry(event, &line);
            send(Path::new(JOURNAL), &entry).map_err(|err| failed(Path::new(JOURNAL), &err))?;
        }
        Ok(())
    }

    /// JSON has no line ends of its own, so the plain form of a field will do.
    fn journal_entry(&self, event: EventKind, line: &str) -> String {
        let word = json!(event);
        let word = word.as_str().unwrap_or_default();
        let id: String = self
            .subject
            .container
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        format!(
            "MESSAGE={line}\nPRIORITY=5\nSYSLOG_IDENTIFIER=fleet-nvidia\nFLEET_EVENT={word}\nFLEET_CONTAINER={id}\n"
        )
    }
}

/// One write per event: events of several containers do not mix (`man 2 open`, `O_APPEND`).
fn append(path: &Path, line: &str) -> io::Result<()> {
    let open = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(path)
    };
    let mut file = match (open(), path.parent()) {
        (Err(err), Some(dir)) if err.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o750).create(dir)?;
            open()?
        }
        (file, _) => file?,
    };
    file.write_all(format!("{line}\n").as_bytes())
}

fn send(socket: &Path, entry: &str) -> io::Result<()> {
    let socket_of_ours = UnixDatagram::unbound()?;
    // A journal that is stuck must not hold up containers.
    socket_of_ours.set_nonblocking(true)?;
    socket_of_ours.send_to(entry.as_bytes(), socket).map(drop)
}

/// Labels of a container, from its annotations.
#[must_use]
pub fn labels(spec: &Value) -> BTreeMap<String, String> {
    let annotations = spec.get("annotations").and_then(Value::as_object);
    let known = |key: &str| LABELS.iter().any(|label| key.starts_with(label));
    let found = annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| known(key));
    found
        .take(MOST_LABELS)
        .filter_map(|(key, value)| {
            let value = value.as_str()?.chars().take(LONGEST).collect();
            Some((key.clone(), value))
        })
        .collect()
}

/// The devices of an edited spec, each with the origin that the plan states; the rest was the engine's.
#[must_use]
pub fn granted(plan: &Plan, spec: &Value, supplied: &[Supplied]) -> Vec<Granted> {
    let devices = spec.pointer("/linux/devices").and_then(Value::as_array);
    devices
        .into_iter()
        .flatten()
        .filter_map(|device| one(plan, device, supplied))
        .collect()
}

fn one(plan: &Plan, device: &Value, supplied: &[Supplied]) -> Option<Granted> {
    let path = device.get("path")?.as_str()?;
    let number = |key| device.get(key).and_then(Value::as_i64).unwrap_or(0);
    let origin = plan.edits.iter().find_map(|edit| match &edit.change {
        Change::Device(planned) if planned.path == path => Some(&edit.origin),
        _ => None,
    });
    let made = supplied.iter().filter(|one| one.state == SupplyState::Made);
    let mut made = made.map(|one| &one.node);
    let source = origin.map_or(&Source::Engine, |origin| &origin.source);
    Some(Granted {
        path: path.to_owned(),
        major: number("major"),
        minor: number("minor"),
        device: origin.and_then(|origin| origin.device.clone()),
        spec_file: origin.and_then(|origin| origin.spec_file.clone()),
        source: json!(source),
        made: made.any(|node| node.path == path),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TIME: &str = "2026-01-02T03:04:05Z";

    fn subject() -> Subject {
        let spec = json!({
            "annotations": {"io.kubernetes.pod.name": "p", "io.kubernetes.pod.namespace": "n", "other": "x"},
            "linux": {"devices": [{"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0}]},
        });
        Subject {
            container: "c1".to_owned(),
            bundle: PathBuf::from("/b"),
            uid: 0,
            labels: labels(&spec),
            devices: granted(&Plan::default(), &spec, &[]),
        }
    }

    fn policy(file: &Path) -> AuditPolicy {
        AuditPolicy {
            file: Some(file.to_path_buf()),
            journald: false,
        }
    }

    #[test]
    fn no_policy_no_trail() {
        assert_eq!(Trail::new(&AuditPolicy::default(), subject()), None);
    }

    /// The form is an interface: it changes with its version.
    #[test]
    fn events_are_lines_of_a_stable_form() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log/audit.jsonl");
        let trail = Trail::new(&policy(&file), subject()).unwrap();
        trail.tell(EventKind::Create, TIME).unwrap();
        // As it comes out of a record.
        let trail: Trail = serde_json::from_value(json!(trail)).unwrap();
        trail.tell(EventKind::Start, TIME).unwrap();
        trail.tell(EventKind::Delete, TIME).unwrap();
        let refusal = Refusal {
            source: Source::Environment("NVIDIA_VISIBLE_DEVICES".to_owned()),
            asked: "all".to_owned(),
            setting: "sources.environment-unprivileged",
            remedy: "set it".to_owned(),
        };
        trail.deny(TIME, &[refusal], Some("why\nnot")).unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/audit.jsonl");
        let have = fs::read_to_string(&file).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(golden.parent().unwrap()).unwrap();
            fs::write(&golden, &have).unwrap();
        }
        assert_eq!(
            have,
            fs::read_to_string(golden).unwrap(),
            "UPDATE=1 writes it anew"
        );
        assert_eq!(have.lines().count(), 4);
    }

    #[test]
    fn a_link_is_not_followed_and_a_failure_is_plain() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("audit"));
        fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let tell = |path: &Path| {
            let trail = Trail::new(&policy(path), subject()).unwrap();
            trail.tell(EventKind::Create, TIME).unwrap_err().to_string()
        };
        assert!(tell(&link).starts_with(&format!("audit: {}", link.display())));
        assert_eq!(fs::read_to_string(&target).unwrap(), "");
        let deep = tell(&dir.path().join("no/such/dir"));
        for word in ["not found", "no such file", "permission denied"] {
            assert!(!deep.to_lowercase().contains(word), "{deep}");
        }
    }

    #[test]
    fn the_journal_gets_one_datagram() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let trail = Trail::new(&policy(Path::new("/x")), subject()).unwrap();
        send(&path, &trail.journal_entry(EventKind::Start, "{}")).unwrap();
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..length]);
        assert_eq!(
            text,
            "MESSAGE={}\nPRIORITY=5\nSYSLOG_IDENTIFIER=fleet-nvidia\nFLEET_EVENT=start\nFLEET_CONTAINER=c1\n"
        );
    }
}
