//! Device nodes for a container with a user namespace, made by the caller.
//!
//! Inside such a namespace `mknod` is refused. With the caller's rights the nodes are made on a scratch tmpfs, with the
//! owner and mode that the spec wants, and are bound one by one (libcontainer 0.7: binds the host's node as it is, L14).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{Gid, Uid, chown};

use crate::sys::mount::clone_tree;

/// Where the scratch file system is, in a mount namespace that nobody else sees.
const SCRATCH: &str = "/dev";

/// One node as the host sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostNode {
    pub(super) kind: SFlag,
    pub(super) number: (u64, u64),
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
}

/// Makes the nodes; each comes back as a detached mount.
///
/// # Errors
/// As the system calls: `EPERM` where the caller may not make nodes or mounts.
pub(super) fn make(nodes: &[HostNode]) -> io::Result<Vec<OwnedFd>> {
    let here = File::open("/proc/self/ns/mnt")?;
    let directory = File::open(".")?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let made = scratch(nodes);
    setns(here.as_fd(), CloneFlags::CLONE_NEWNS)?;
    nix::unistd::fchdir(directory.as_raw_fd())?;
    made
}

fn scratch(nodes: &[HostNode]) -> io::Result<Vec<OwnedFd>> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(
        Some("tmpfs"),
        SCRATCH,
        Some("tmpfs"),
        flags,
        Some("mode=755"),
    )?;
    let old = umask(Mode::empty());
    let made = nodes
        .iter()
        .enumerate()
        .map(|(at, node)| one(at, node))
        .collect();
    umask(old);
    made
}

fn one(at: usize, node: &HostNode) -> io::Result<OwnedFd> {
    let path = PathBuf::from(SCRATCH).join(at.to_string());
    let mode = Mode::from_bits_truncate(node.mode);
    mknod(
        &path,
        node.kind,
        mode,
        makedev(node.number.0, node.number.1),
    )?;
    let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
    chown(&path, Some(uid), Some(gid))?;
    let path = std::ffi::CString::new(path.into_os_string().into_encoded_bytes())?;
    clone_tree(&path, false)
}
