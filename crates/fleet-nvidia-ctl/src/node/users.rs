//! The containers that need the installed runtime: of the node, and the one that this program runs in.

use std::fs;
use std::path::Path;

use fleet_host::Env;

use crate::files::Files;
use crate::gpus::record::{self, Record};

/// The pod that a container belongs to, in the words of CRI-O and containerd: its first container's id.
const POD: [&str; 2] = [
    "io.kubernetes.cri-o.SandboxID",
    "io.kubernetes.cri.sandbox-id",
];

/// Who would be left without their runtime.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Users {
    /// Whether the container of this program, or its pod, is among them.
    pub(super) own: bool,
    /// Ids of all others.
    pub(super) others: Vec<String>,
}

impl Users {
    pub(super) fn of(files: &Files) -> Self {
        let (records, _) = record::all(files, &[], &Env::default());
        let own = records.iter().find(|record| is_own(files, record));
        let pod = own.and_then(pod);
        let (ours, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| {
            own.is_some_and(|own| own.id == record.id) || pod == Some(record.id.as_str())
        });
        Self {
            own: !ours.is_empty(),
            others: others.into_iter().map(|record| record.id.clone()).collect(),
        }
    }
}

/// Whether this program sees the files that the container's first process sees. The node's own proc, by which that can
/// be asked, is there where the node's root is.
fn is_own(files: &Files, record: &Record) -> bool {
    if record.pid == 0 || files.is_this_machine() {
        return false;
    }
    let theirs = files.root().join(format!("proc/{}/ns/mnt", record.pid));
    let ours = fs::read_link(Path::new("/proc/self/ns/mnt"));
    matches!((ours, fs::read_link(theirs)), (Ok(ours), Ok(theirs)) if ours == theirs)
}

fn pod(record: &Record) -> Option<&str> {
    let annotations = record.spec.get("annotations")?;
    POD.iter().find_map(|key| annotations.get(key)?.as_str())
}
