//! `man 2 openat2` and the mount calls of one edit.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_IN_ROOT: u64 = 0x10;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

fn owned(ret: libc::c_long) -> io::Result<OwnedFd> {
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(ret).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel just returned this descriptor to us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens `path` as seen from `root`: links and `..` stay below it, magic links are refused.
pub(crate) fn open_in_root(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    mode: u32,
) -> io::Result<OwnedFd> {
    let flags = u64::from((flags | libc::O_CLOEXEC).unsigned_abs());
    let how = OpenHow {
        flags,
        mode: u64::from(mode),
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    // A lookup that raced with a rename asks to be repeated (`EAGAIN`).
    for _ in 0..32 {
        // SAFETY: `how` and `path` live for the call; the size tells the kernel which version of the struct it is.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_raw_fd(),
                path.as_ptr(),
                std::ptr::from_ref(&how),
                std::mem::size_of::<OpenHow>(),
            )
        };
        match owned(ret) {
            Err(err) if err.raw_os_error() == Some(libc::EAGAIN) => {}
            other => return other,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// A new tmpfs, attached nowhere.
pub(crate) fn detached_tmpfs() -> io::Result<OwnedFd> {
    // SAFETY: C string literals.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 1) })?;
    const FSCONFIG_CMD_CREATE: libc::c_int = 6;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: the command takes no key or value.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            null,
            null,
            0,
        )
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    const MOUNT_ATTR_NOSUID_NODEV_NOEXEC: libc::c_int = 0x2 | 0x4 | 0x8;
    const FSMOUNT_CLOEXEC: libc::c_int = 1;
    // SAFETY: integers and a borrowed descriptor.
    owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            MOUNT_ATTR_NOSUID_NODEV_NOEXEC,
        )
    })
}

/// A read-only mount of the file behind `file`, put over the file behind `target`.
pub(crate) fn bind_read_only(file: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.unsigned_abs();
    // SAFETY: a borrowed descriptor and an empty C string.
    let tree = owned(unsafe {
        libc::syscall(libc::SYS_open_tree, file.as_raw_fd(), c"".as_ptr(), flags)
    })?;
    let read_only = MountAttr {
        set: 1,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the struct lives for the call and its size is passed with it.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&read_only),
            std::mem::size_of::<MountAttr>(),
        )
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    const EMPTY_PATHS: libc::c_int = 0x4 | 0x40;
    // SAFETY: borrowed descriptors and empty C strings.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            EMPTY_PATHS,
        )
    };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
