//! Two system calls that the crates in use do not wrap.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Makes a mount that is not attached read-only (`man 2 mount_setattr`, Linux 5.12).
pub(crate) fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(mount, MOUNT_ATTR_RDONLY, 0)
}

/// Makes a mount that is not attached writable; what is mounted below it stays as it is.
pub(crate) fn make_writable(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(mount, 0, MOUNT_ATTR_RDONLY)
}

const MOUNT_ATTR_RDONLY: u64 = 1;

fn set_attributes(mount: BorrowedFd<'_>, set: u64, clear: u64) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attr = MountAttr {
        set,
        clear,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the struct and the empty C string live for the call, and the struct's size is passed with it.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&attr),
            std::mem::size_of::<MountAttr>(),
        )
    };
    done(ret)
}

/// Changes the permission bits of the file behind an `O_PATH` descriptor (`man 2 fchmodat2`, Linux 6.6).
pub(crate) fn chmod(file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    // The number is the same on every architecture; not every C library's headers have the name yet.
    const SYS_FCHMODAT2: libc::c_long = 452;
    // SAFETY: a borrowed descriptor, an empty C string and integers.
    let ret = unsafe {
        libc::syscall(
            SYS_FCHMODAT2,
            file.as_raw_fd(),
            c"".as_ptr(),
            mode,
            libc::AT_EMPTY_PATH,
        )
    };
    done(ret)
}

fn done(ret: libc::c_long) -> io::Result<()> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
