//! `tmpcopyup`: the image's content below a tmpfs is copied into it (Podman's default for `--tmpfs`).
//!
//! Everything is reached by descriptor without following links, so content of the image leads nowhere else.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use crate::sys::process::adopt;
use crate::sys::tail::{attribute_names, attribute_value, set_attribute};

/// Deepest nesting followed, far above what images have.
const MAX_DEPTH: usize = 64;

/// A copy that failed or was refused.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file could not be copied.
    #[error("copy `{name}`: {}", crate::error::errno_text(.source))]
    Io {
        /// File name.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// More than the limit.
    #[error("the image has more than {0} bytes there")]
    TooLarge(u64),
    /// Nested too deeply.
    #[error("the image has more than {MAX_DEPTH} nested directories there")]
    TooDeep,
}

/// Copies the content of `source` into `target`, with modes, owners, times, extended attributes and links; the
/// attributes of `target` itself are left alone. Files with several names become several files. Devices and sockets
/// are left out.
///
/// # Errors
/// [`CopyError`] with the file.
pub fn copy_tree(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    limit: u64,
) -> Result<(), CopyError> {
    let mut left = limit;
    copy_directory(source, target, &mut left, limit, 0)
}

fn copy_directory(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    left: &mut u64,
    limit: u64,
    depth: usize,
) -> Result<(), CopyError> {
    if depth > MAX_DEPTH {
        return Err(CopyError::TooDeep);
    }
    let failed = |errno: nix::Error| CopyError::Io {
        name: ".".to_owned(),
        source: errno.into(),
    };
    let mut dir = Dir::openat(
        Some(source.as_raw_fd()),
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(failed)?;
    for entry in dir.iter() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(source, target, name, left, limit, depth)?;
        }
    }
    Ok(())
}

fn copy_entry(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &CStr,
    left: &mut u64,
    limit: u64,
    depth: usize,
) -> Result<(), CopyError> {
    let shown = || name.to_string_lossy().into_owned();
    let failed = |errno: nix::Error| CopyError::Io {
        name: shown(),
        source: errno.into(),
    };
    let (from, to) = (source.as_raw_fd(), target.as_raw_fd());
    let stat = fstatat(Some(from), name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    let kind = SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT);
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(Some(to), name, Mode::S_IRWXU).map_err(failed)?;
            let inner_from =
                open(from, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(failed)?;
            let inner_to = open(to, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(failed)?;
            copy_directory(inner_from.as_fd(), inner_to.as_fd(), left, limit, depth + 1)?;
        }
        SFlag::S_IFREG => copy_file(from, to, name, left, limit)?,
        SFlag::S_IFLNK => {
            let text = readlinkat(Some(from), name).map_err(failed)?;
            symlinkat(text.as_os_str(), Some(to), name).map_err(failed)?;
        }
        SFlag::S_IFIFO => mknodat(Some(to), name, SFlag::S_IFIFO, mode, 0).map_err(failed)?,
        // Sockets mean nothing without their owner, and the image grants no devices.
        _ => return Ok(()),
    }
    dress(to, name, &stat, kind, mode).map_err(failed)?;
    if matches!(kind, SFlag::S_IFREG | SFlag::S_IFDIR) {
        copy_attributes(from, to, name, kind);
    }
    set_times(to, name, &stat).map_err(failed)
}

fn open(dir: i32, name: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let fd = openat(
        Some(dir),
        name,
        flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    Ok(adopt(fd).into())
}

fn copy_file(from: i32, to: i32, name: &CStr, left: &mut u64, limit: u64) -> Result<(), CopyError> {
    let failed = |source: io::Error| CopyError::Io {
        name: name.to_string_lossy().into_owned(),
        source,
    };
    // O_NONBLOCK: a file exchanged for a FIFO must not stop us.
    let mut source = File::from(
        open(from, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map_err(|e| failed(e.into()))?,
    );
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(Some(to), name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(|e| failed(e.into()))?;
    let mut target = adopt(fd);
    let mut bounded = io::Read::take(&mut source, left.saturating_add(1));
    let copied = io::copy(&mut bounded, &mut target).map_err(failed)?;
    *left = left.checked_sub(copied).ok_or(CopyError::TooLarge(limit))?;
    Ok(())
}

fn dress(dir: i32, name: &CStr, stat: &FileStat, kind: SFlag, mode: Mode) -> nix::Result<()> {
    let owner = (
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    );
    match fchownat(
        Some(dir),
        name,
        owner.0,
        owner.1,
        AtFlags::AT_SYMLINK_NOFOLLOW,
    ) {
        // In a user namespace some owners are not mapped.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    if kind == SFlag::S_IFREG || kind == SFlag::S_IFDIR {
        let flags = if kind == SFlag::S_IFDIR {
            OFlag::O_RDONLY | OFlag::O_DIRECTORY
        } else {
            OFlag::O_RDONLY
        };
        let file = open(dir, name, flags)?;
        fchmod(file.as_raw_fd(), mode)?;
    } else if kind == SFlag::S_IFIFO {
        fchmodat(
            Some(dir),
            name,
            mode,
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )?;
    }
    Ok(())
}

/// Extended attributes, after the owner, whose change takes file capabilities away. Best effort: what a file system
/// or a user namespace does not take was not there for its users, either.
fn copy_attributes(from: i32, to: i32, name: &CStr, kind: SFlag) {
    let flags = if kind == SFlag::S_IFDIR {
        OFlag::O_RDONLY | OFlag::O_DIRECTORY
    } else {
        OFlag::O_RDONLY | OFlag::O_NONBLOCK
    };
    let (Ok(source), Ok(target)) = (open(from, name, flags), open(to, name, flags)) else {
        return;
    };
    for attribute in attribute_names(source.as_fd()).unwrap_or_default() {
        if let Ok(value) = attribute_value(source.as_fd(), &attribute) {
            let _ = set_attribute(target.as_fd(), &attribute, &value);
        }
    }
}

fn set_times(dir: i32, name: &CStr, stat: &FileStat) -> nix::Result<()> {
    let (read, write) = (
        TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
        TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
    );
    utimensat(
        Some(dir),
        name,
        &read,
        &write,
        UtimensatFlags::NoFollowSymlink,
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    fn dirs(name: &str) -> (PathBuf, File, File) {
        let base = std::env::temp_dir().join(format!("fleet-copyup-{name}-{}", std::process::id()));
        fs::create_dir_all(base.join("from/sub")).unwrap();
        fs::create_dir_all(base.join("to")).unwrap();
        let (from, to) = (
            File::open(base.join("from")).unwrap(),
            File::open(base.join("to")).unwrap(),
        );
        (base, from, to)
    }

    #[test]
    fn content_modes_links_and_times() {
        let (base, from, to) = dirs("all");
        fs::write(base.join("from/sub/file"), "text").unwrap();
        fs::set_permissions(
            base.join("from/sub/file"),
            fs::Permissions::from_mode(0o4751),
        )
        .unwrap();
        fs::set_permissions(base.join("from/sub"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/etc/passwd", base.join("from/link")).unwrap();
        copy_tree(from.as_fd(), to.as_fd(), 100).unwrap();
        let meta = |path: &str| fs::symlink_metadata(base.join(path)).unwrap();
        assert_eq!(
            fs::read_to_string(base.join("to/sub/file")).unwrap(),
            "text"
        );
        assert_eq!(meta("to/sub/file").mode() & 0o7777, 0o4751);
        assert_eq!(meta("to/sub").mode() & 0o7777, 0o1777);
        assert_eq!(
            fs::read_link(base.join("to/link")).unwrap(),
            PathBuf::from("/etc/passwd")
        );
        assert_eq!(meta("to/sub/file").mtime(), meta("from/sub/file").mtime());
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn too_much_is_refused() {
        let (base, from, to) = dirs("size");
        fs::write(base.join("from/a"), [0; 60]).unwrap();
        fs::write(base.join("from/b"), [0; 60]).unwrap();
        let err = copy_tree(from.as_fd(), to.as_fd(), 100)
            .unwrap_err()
            .to_string();
        assert!(err.contains("more than 100 bytes"), "{err}");
        fs::remove_dir_all(base).unwrap();
    }
    #[test]
    fn what_is_no_file_and_what_has_attributes() {
        let (base, from, to) = dirs("kinds");
        nix::unistd::mkfifo(&base.join("from/fifo"), Mode::from_bits_truncate(0o640)).unwrap();
        fs::set_permissions(base.join("from/fifo"), fs::Permissions::from_mode(0o642)).unwrap();
        drop(std::os::unix::net::UnixListener::bind(base.join("from/socket")).unwrap());
        symlink("nowhere", base.join("from/dangling")).unwrap();
        fs::write(base.join("from/file"), "").unwrap();
        fs::set_permissions(base.join("from/file"), fs::Permissions::from_mode(0o400)).unwrap();
        let marked = File::open(base.join("from/sub")).unwrap();
        let marks = set_attribute(marked.as_fd(), c"user.mark", b"a\0b").is_ok();
        copy_tree(from.as_fd(), to.as_fd(), u64::MAX).unwrap();
        let meta = |path: &str| fs::symlink_metadata(base.join("to").join(path));
        assert_eq!(meta("fifo").unwrap().mode(), libc::S_IFIFO | 0o642);
        assert!(meta("socket").is_err());
        assert_eq!(
            fs::read_link(base.join("to/dangling")).unwrap(),
            PathBuf::from("nowhere")
        );
        assert_eq!(meta("file").unwrap().mode() & 0o7777, 0o400);
        if marks {
            let copy = File::open(base.join("to/sub")).unwrap();
            assert_eq!(
                attribute_value(copy.as_fd(), c"user.mark").unwrap(),
                b"a\0b"
            );
        } else {
            println!("SKIP: no user attributes in the temporary directory");
        }
        let times = |dir: &str| {
            fs::metadata(base.join(dir).join("sub"))
                .unwrap()
                .mtime_nsec()
        };
        assert_eq!(times("to"), times("from"), "a directory keeps its time");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn owners_and_file_capabilities() {
        let (base, from, to) = dirs("owner");
        let path = base.join("from/file");
        fs::write(&path, "").unwrap();
        let file = File::open(&path).unwrap();
        // `struct vfs_cap_data`, version 2: CAP_NET_RAW permitted.
        let capability = [
            0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        if std::os::unix::fs::chown(&path, Some(12), Some(34)).is_err()
            || set_attribute(file.as_fd(), c"security.capability", &capability).is_err()
        {
            println!("SKIP: owners and file capabilities need root");
        } else {
            copy_tree(from.as_fd(), to.as_fd(), 100).unwrap();
            let copy = File::open(base.join("to/file")).unwrap();
            let meta = copy.metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid()), (12, 34));
            let value = attribute_value(copy.as_fd(), c"security.capability").unwrap();
            assert_eq!(value, capability);
        }
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn too_deep_is_refused() {
        let (base, from, to) = dirs("deep");
        let deepest = (0..=MAX_DEPTH).fold(base.join("from"), |path, _| path.join("d"));
        fs::create_dir_all(deepest).unwrap();
        let err = copy_tree(from.as_fd(), to.as_fd(), 100)
            .unwrap_err()
            .to_string();
        assert!(err.contains("nested directories"), "{err}");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_is_in_the_way_is_named_and_not_followed() {
        let (base, from, to) = dirs("way");
        fs::write(base.join("from/name"), "new").unwrap();
        fs::write(base.join("victim"), "old").unwrap();
        symlink(base.join("victim"), base.join("to/name")).unwrap();
        let err = copy_tree(from.as_fd(), to.as_fd(), 100)
            .unwrap_err()
            .to_string();
        assert_eq!(err, "copy `name`: File exists");
        assert_eq!(fs::read_to_string(base.join("victim")).unwrap(), "old");
        fs::remove_dir_all(base).unwrap();
    }
}
