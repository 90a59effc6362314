//! A user namespace with several id mappings, made and mapped by ourselves.
//!
//! libcontainer 0.7: runs `newuidmap` for more than one mapping even as root, and ignores its result (row 14). With
//! the right to write the maps, a short-lived process holds a new namespace while we map it; the library then
//! joins it by path.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, pipe2};
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
