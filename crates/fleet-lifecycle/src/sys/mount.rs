//! The mount API of Linux 5.2 and later (`man 2 open_tree`, `move_mount`, `mount_setattr`, `openat2`).
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `MOUNT_ATTR_*` of `<linux/mount.h>`.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Ignore set-user-id bits.
    pub const NOSUID: u64 = 0x2;
    /// No device files.
    pub const NODEV: u64 = 0x4;
    /// No execution.
    pub const NOEXEC: u64 = 0x8;
    /// Field of the access time mode; 0 in it is `relatime`.
    pub const ATIME: u64 = 0x70;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// An access time for every access.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids are mapped by a user namespace.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Do not follow symbolic links.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn owned(ret: libc::c_long) -> io::Result<OwnedFd> {
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(ret).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel just returned this descriptor to us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn unit(ret: libc::c_long) -> io::Result<()> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A detached copy of the mount at `path` (with `recursive`, of all mounts below it).
///
/// # Errors
/// As `man 2 open_tree`.
pub fn clone_tree(path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: `path` is a valid C string for the call; the kernel keeps no pointer.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// A detached copy of the object behind `file`, as a mount of its own.
///
/// # Errors
/// As `man 2 open_tree`.
pub fn clone_object(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: the descriptor is borrowed for the call and the path is an empty C string.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, file.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Attaches a detached mount on the object that `target` names.
///
/// # Errors
/// As `man 2 move_mount`.
pub fn attach_tree(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const F_EMPTY_PATH: libc::c_uint = 0x4;
    const T_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: both descriptors are borrowed for the call and both paths are empty C strings.
    unit(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    })
}

/// What [`set_attributes`] changes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Attributes<'a> {
    /// [`attr`] bits to set.
    pub set: u64,
    /// [`attr`] bits to clear.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    /// Also all mounts below.
    pub recursive: bool,
    /// The namespace of [`attr::IDMAP`].
    pub user_namespace: Option<BorrowedFd<'a>>,
}

/// Changes flags or propagation of the mount whose root `mount` is.
///
/// # Errors
/// As `man 2 mount_setattr`.
pub fn set_attributes(mount: BorrowedFd<'_>, what: Attributes<'_>) -> io::Result<()> {
    let value = MountAttr {
        attr_set: what.set,
        attr_clr: what.clear,
        propagation: what.propagation,
        userns_fd: what
            .user_namespace
            .map_or(0, |fd| u64::try_from(fd.as_raw_fd()).unwrap_or(0)),
    };
    let flags = libc::AT_EMPTY_PATH
        | if what.recursive {
            libc::AT_RECURSIVE
        } else {
            0
        };
    // SAFETY: `value` lives for the call and its size is passed with it.
    unit(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&value),
            std::mem::size_of::<MountAttr>(),
        )
    })
}

/// Flags of the mount that `file` is on (`f_flag` of `man 3 fstatvfs`), those that nix does not name included.
///
/// # Errors
/// As the call.
pub fn mount_flags(file: BorrowedFd<'_>) -> io::Result<libc::c_ulong> {
    // SAFETY: all fields of the structure are numbers, for which zero is valid.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is borrowed for the call and `found` is writable for it.
    unit(libc::c_long::from(unsafe {
        libc::fstatvfs(file.as_raw_fd(), &raw mut found)
    }))?;
    Ok(found.f_flag)
}

/// Opens `path` as seen from `root`: symbolic links and `..` stay below it, magic links are refused.
///
/// # Errors
/// As `man 2 openat2`; `ENOSYS` before Linux 5.6 (the runtime needs 5.12 anyway).
pub fn open_in_root(root: BorrowedFd<'_>, path: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    open_resolved(root, path, flags, libc::RESOLVE_NO_MAGICLINKS)
}

/// As [`open_in_root`], and any symbolic link on the way is `ELOOP`.
///
/// # Errors
/// As `man 2 openat2`.
pub fn open_without_links(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: libc::c_int,
) -> io::Result<OwnedFd> {
    open_resolved(root, path, flags, libc::RESOLVE_NO_SYMLINKS)
}

fn open_resolved(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: libc::c_int,
    resolve: u64,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct OpenHow {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    #[allow(clippy::cast_sign_loss)]
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: libc::RESOLVE_IN_ROOT | resolve,
    };
    // SAFETY: `how` and `path` live for the call; the size tells the kernel which version of the struct it is.
    owned(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            std::ptr::from_ref(&how),
            std::mem::size_of::<OpenHow>(),
        )
    })
}
