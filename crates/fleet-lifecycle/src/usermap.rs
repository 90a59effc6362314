//! A user namespace with several id mappings, made and mapped by ourselves.
//!
//! libcontainer 0.7: runs `newuidmap` for more than one mapping even as root, and ignores its result (row 14). With
//! the right to write the maps, a short-lived process holds a new namespace while we map it; the library then
//! joins it by path.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Uid, pipe2, setresgid, setresuid};
use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::spec;
use crate::sys::process;

/// Makes a namespace with the mappings of `linux`; the descriptor keeps it alive.
///
/// # Errors
/// The step that failed.
pub(crate) fn create(full: &Value) -> Result<OwnedFd> {
    let map = |key: &str| {
        lines(
            spec::list(full, &format!("/linux/{key}")),
            &format!("linux.{key}"),
        )
    };
    with_maps(&map("uidMappings")?, &map("gidMappings")?)
}

/// A user namespace without a root user or group, and the ids to be there.
///
/// libcontainer 0.7: becomes user 0 and group 0 of every user namespace that its spec names (L10). This one it is not
/// told of: whoever drives it enters beforehand.
#[derive(Debug)]
pub(crate) struct Entrance {
    namespace: OwnedFd,
    uid: u32,
    gid: u32,
}

impl Entrance {
    /// For a namespace and its maps, in the form of `/proc/PID/uid_map`; `None` where 0 is in both.
    pub(crate) fn needed(namespace: impl Into<OwnedFd>, uids: &str, gids: &str) -> Option<Self> {
        let (uid, gid) = (lowest(uids)?, lowest(gids)?);
        (uid != 0 || gid != 0).then(|| Self {
            namespace: namespace.into(),
            uid,
            gid,
        })
    }

    /// The ids that the library is to be.
    pub(crate) fn user(&self) -> Value {
        serde_json::json!({"uid": self.uid, "gid": self.gid})
    }

    /// Goes there for good.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&self.namespace, CloneFlags::CLONE_NEWUSER).op(|| "join the user namespace")?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setresgid(gid, gid, gid).op(|| format!("become group {gid} of the user namespace"))?;
        setresuid(uid, uid, uid).op(|| format!("become user {uid} of the user namespace"))?;
        // The change of user has taken that wish back (`man 2 PR_SET_PDEATHSIG`).
        process::die_with_parent(true).op(|| "ask to die with the runtime")
    }
}

/// The lowest id inside that a map in the form of `/proc/PID/uid_map` has.
pub(crate) fn lowest(map: &str) -> Option<u32> {
    let first = |line: &str| line.split_whitespace().next()?.parse().ok();
    map.lines().filter_map(first).min()
}

/// Makes a namespace with the mappings of `linux` that has no user or no group 0; `None` where both are there.
///
/// # Errors
/// The step that failed.
pub(crate) fn create_without_root(full: &Value) -> Result<Option<Entrance>> {
    let map = |key: &str| {
        lines(
            spec::list(full, &format!("/linux/{key}")),
            &format!("linux.{key}"),
        )
    };
    let (uids, gids) = (map("uidMappings")?, map("gidMappings")?);
    if lowest(&uids) == Some(0) && lowest(&gids) == Some(0) {
        return Ok(None);
    }
    Ok(Entrance::needed(with_maps(&uids, &gids)?, &uids, &gids))
}

/// Makes a namespace with maps in the form of `/proc/PID/uid_map`.
///
/// # Errors
/// The step that failed.
pub(crate) fn with_maps(uids: &str, gids: &str) -> Result<OwnedFd> {
    let (wait, go) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).op(|| "pipe")?;
    let (ready, tell) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).op(|| "pipe")?;
    let child = match process::fork().op(|| "fork")? {
        ForkResult::Child => {
            drop((go, ready));
            hold(wait, tell);
        }
        ForkResult::Parent { child } => child,
    };
    drop((wait, tell));
    let mapped = map(uids, gids, child.as_raw(), ready);
    drop(go);
    let _ = waitpid(child, None);
    mapped
}

/// The child: new namespace, one byte, then wait until the parent is done.
fn hold(wait: OwnedFd, tell: OwnedFd) -> ! {
    if process::set_dumpable(true).is_ok() && unshare(CloneFlags::CLONE_NEWUSER).is_ok() {
        let _ = File::from(tell).write_all(b"1");
        let _ = File::from(wait).read(&mut [0]);
    }
    process::leave(0)
}

fn map(uids: &str, gids: &str, pid: i32, ready: OwnedFd) -> Result<OwnedFd> {
    let mut byte = [0];
    File::from(ready).read_exact(&mut byte).map_err(|_| {
        Error::Setup(
            "a new user namespace cannot be made; hint: see `sysctl user.max_user_namespaces`"
                .to_owned(),
        )
    })?;
    for (file, lines) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, lines).op(|| format!("write {file} of the container"))?;
    }
    Ok(File::open(format!("/proc/{pid}/ns/user"))
        .op(|| "open the new user namespace")?
        .into())
}

/// The mappings of a spec as lines of `/proc/PID/uid_map`; `place` names them in errors.
///
/// # Errors
/// An entry without one of its numbers.
pub(crate) fn lines(mappings: &[Value], place: &str) -> Result<String> {
    let field = |mapping: &Value, name: &str| {
        mapping
            .get(name)
            .and_then(Value::as_u64)
            .ok_or_else(|| Error::Invalid(format!("`{place}` has an entry without `{name}`")))
    };
    let mut text = String::new();
    for mapping in mappings {
        let (inside, outside, size) = (
            field(mapping, "containerID")?,
            field(mapping, "hostID")?,
            field(mapping, "size")?,
        );
        text.push_str(&format!("{inside} {outside} {size}\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn map_lines() {
        let good = [
            json!({"containerID": 0, "hostID": 100_000, "size": 5}),
            json!({"containerID": 5, "hostID": 9, "size": 1}),
        ];
        assert_eq!(
            lines(&good, "linux.uidMappings").unwrap(),
            "0 100000 5\n5 9 1\n"
        );
        assert!(
            lines(&[json!({"containerID": 0})], "linux.gidMappings")
                .unwrap_err()
                .to_string()
                .contains("linux.gidMappings")
        );
    }
}
