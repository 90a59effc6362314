//! The namespaces of a container that runs, by a descriptor of its first process.
//!
//! With such a descriptor `setns` enters several at once (`man 2 setns`). All of them are checked with the rights of
//! the caller as they are before: so it makes no difference which belong to the container's user namespace and which
//! to the host's, and there is no moment at which only a part was entered.

use std::os::linux::fs::MetadataExt;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, setresgid, setresuid};
use serde_json::Value;

use crate::error::{Context, Result};
use crate::pidfd::PidFd;
use crate::spec::{self, Namespace};
use crate::usermap;

/// Type in the spec, file below `/proc/PID/ns`, flag.
const KINDS: [(&str, &str, CloneFlags); 8] = [
    ("user", "user", CloneFlags::CLONE_NEWUSER),
    ("pid", "pid", CloneFlags::CLONE_NEWPID),
    ("network", "net", CloneFlags::CLONE_NEWNET),
    ("ipc", "ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", "uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", "cgroup", CloneFlags::CLONE_NEWCGROUP),
    (
        "time",
        "time",
        CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
    ),
    ("mount", "mnt", CloneFlags::CLONE_NEWNS),
];

/// What is left to be entered.
#[derive(Debug)]
pub(crate) struct Namespaces {
    process: PidFd,
    left: CloneFlags,
    /// Who has all rights in the user namespace: user 0 and group 0, or where there are none the lowest ones.
    root: Option<(Uid, Gid)>,
}

impl Namespaces {
    /// Of the container whose first process is `pid`: those that its spec names and that are not our own.
    ///
    /// # Errors
    /// A process that is gone or cannot be looked into.
    pub(crate) fn of(pid: i32, full: &Value) -> Result<Self> {
        let process = PidFd::open(pid).op(|| format!("open process {pid}"))?;
        let mut left = CloneFlags::empty();
        for (kind, file, flag) in KINDS {
            let ours = match spec::namespace(full, kind) {
                Namespace::Inherited => true,
                Namespace::New => false,
                Namespace::Joined(_) => is_ours(pid, file)?,
            };
            left.set(flag, !ours);
        }
        let root = left
            .contains(CloneFlags::CLONE_NEWUSER)
            .then(|| root_of(pid))
            .transpose()?;
        Ok(Self {
            process,
            left,
            root,
        })
    }

    /// Whether the container has process numbers of its own.
    pub(crate) fn number_processes(&self) -> bool {
        self.left.contains(CloneFlags::CLONE_NEWPID)
    }

    /// Children of the caller get process numbers of the container from here on. False where only who is in its user
    /// namespace may do that.
    ///
    /// # Errors
    /// As `man 2 setns`.
    pub(crate) fn enter_for_children(&mut self) -> Result<bool> {
        match self.set(CloneFlags::CLONE_NEWPID & self.left) {
            Err(Errno::EPERM) if self.root.is_some() => Ok(false),
            other => other.op(|| FAILED).map(|()| true),
        }
    }

    /// The same from inside of its user namespace, which the caller enters.
    ///
    /// # Errors
    /// As `man 2 setns`.
    pub(crate) fn enter_user_for_children(&mut self) -> Result<()> {
        self.set(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID)
            .op(|| FAILED)
    }

    /// Enters all that are left, with all rights in them; root and working directory are the container's then.
    ///
    /// # Errors
    /// As `man 2 setns`; ids that cannot be taken on.
    pub(crate) fn enter(&mut self) -> Result<()> {
        self.set(self.left).op(|| FAILED)?;
        let Some((uid, gid)) = self.root else {
            return Ok(());
        };
        setresgid(gid, gid, gid).op(|| format!("become group {gid} of the user namespace"))?;
        setresuid(uid, uid, uid).op(|| format!("become user {uid} of the user namespace"))
    }

    fn set(&mut self, kinds: CloneFlags) -> nix::Result<()> {
        if kinds.is_empty() {
            return Ok(());
        }
        setns(&self.process, kinds)?;
        self.left.remove(kinds);
        Ok(())
    }
}

const FAILED: &str = "join the namespaces of the container";

/// Joining the user namespace one is in already is an error (`man 2 setns`), and others may not be ours to join.
fn is_ours(pid: i32, file: &str) -> Result<bool> {
    let of = |whose: &str| {
        let path = format!("/proc/{whose}/ns/{file}");
        std::fs::metadata(&path)
            .map(|meta| (meta.st_dev(), meta.st_ino()))
            .op(|| format!("stat namespace `{path}`"))
    };
    Ok(of(&pid.to_string())? == of("self")?)
}

fn root_of(pid: i32) -> Result<(Uid, Gid)> {
    let lowest = |file: &str| -> Result<u32> {
        let path = format!("/proc/{pid}/{file}");
        let map = std::fs::read_to_string(&path).op(|| format!("read `{path}`"))?;
        Ok(usermap::lowest(&map).unwrap_or(0))
    };
    let (uid, gid) = (lowest("uid_map")?, lowest("gid_map")?);
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}
