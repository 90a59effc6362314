//! User, groups and the ownership of stdio.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::{Gid, Uid, fchown, setgroups, setresgid, setresuid};

use super::Program;
use crate::error::{Context, Result};
use crate::sys::process;

/// Gives the standard streams to the user, so that a program may open `/dev/stdout` again.
///
/// Best effort, as with the peers: a stream of the host that cannot be given away still works by descriptor.
pub(super) fn own_stdio(uid: u32) {
    for stream in [
        &std::io::stdin().as_raw_fd(),
        &std::io::stdout().as_raw_fd(),
        &std::io::stderr().as_raw_fd(),
    ] {
        let Ok(stat) = fstat(*stream) else { continue };
        // /dev/null is shared by all of the machine.
        let null = stat.st_mode & libc::S_IFMT == libc::S_IFCHR
            && stat.st_rdev == nix::sys::stat::makedev(1, 3);
        if stat.st_uid != uid && !null {
            let _ = fchown(*stream, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// Becomes the user. Permitted capabilities survive until they are dropped explicitly.
///
/// # Errors
/// The identity that could not be taken, with a hint for unmapped ids.
pub(super) fn switch(program: &Program) -> Result<()> {
    if let Some(groups) = &program.groups {
        set_groups(groups)?;
    }
    process::keep_capabilities(true).op(|| "keep capabilities")?;
    let gid = Gid::from_raw(program.gid);
    setresgid(gid, gid, gid).op(|| format!("set group id {}", program.gid))?;
    let uid = Uid::from_raw(program.uid);
    setresuid(uid, uid, uid).op(|| format!("set user id {}", program.uid))
}

/// libcontainer 0.7: keeps the caller's groups when the list is empty (S4).
fn set_groups(groups: &[u32]) -> Result<()> {
    let all: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    match setgroups(&all) {
        Ok(()) => Ok(()),
        // A rootless namespace denies the call altogether; nothing was asked for, nothing is lost.
        Err(Errno::EPERM) if groups.is_empty() => Ok(()),
        // Podman rootless asks for groups that its namespace denies; the peers go on without them, too.
        Err(Errno::EPERM) if denied() => Ok(()),
        Err(errno) => Err(errno).op(|| format!("set supplementary groups {groups:?}")),
    }
}

fn denied() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|word| word.trim() == "deny")
}
