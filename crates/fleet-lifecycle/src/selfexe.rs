//! Running from a read-only view of our own binary (CVE-2019-5736).
//!
//! While we work inside a container, its processes can reach our file through `/proc/PID/exe`. A detached
//! read-only mount of it cannot be opened for writing; where mounts are not allowed, a sealed copy in memory is used.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::error::{Context, Error, Result, errno_text};
use crate::sys::mount::{Attributes, attr, clone_tree, set_attributes};
use crate::sys::process::execute;

const OWN: &std::ffi::CStr = c"/proc/self/exe";

/// Executes this program again from a protected view, with the same arguments; returns when it runs from one already.
///
/// # Errors
/// When neither way works.
pub fn protect(args: Vec<OsString>, env: Vec<CString>) -> Result<()> {
    let own = File::open("/proc/self/exe").op(|| "open our own binary")?;
    if protected(&own) {
        return Ok(());
    }
    let view = read_only_mount()
        .or_else(|_| sealed_copy(&own))
        .op(|| "protect our own binary")?;
    let args: Vec<CString> = args
        .into_iter()
        .filter_map(|arg| CString::new(arg.into_vec()).ok())
        .collect();
    let err = execute(view.as_fd(), &args, &env);
    Err(Error::Setup(format!(
        "execute our own binary: {}",
        errno_text(&err)
    )))
}

fn protected(own: &File) -> bool {
    let sealed = fcntl(std::os::fd::AsRawFd::as_raw_fd(own), FcntlArg::F_GET_SEALS)
        .is_ok_and(|bits| SealFlag::from_bits_truncate(bits).contains(SealFlag::F_SEAL_WRITE));
    sealed || fstatvfs(own).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY))
}

fn read_only_mount() -> io::Result<OwnedFd> {
    let tree = clone_tree(OWN, false)?;
    set_attributes(
        tree.as_fd(),
        Attributes {
            set: attr::RDONLY,
            ..Attributes::default()
        },
    )?;
    Ok(tree)
}

fn sealed_copy(own: &File) -> io::Result<OwnedFd> {
    let memory = memfd_create(
        c"fleet-nvidia",
        MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING,
    )?;
    let mut copy = File::from(memory);
    let mut source = own.try_clone()?;
    io::copy(&mut source, &mut copy)?;
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(
        std::os::fd::AsRawFd::as_raw_fd(&copy),
        FcntlArg::F_ADD_SEALS(seals),
    )?;
    Ok(copy.into())
}
