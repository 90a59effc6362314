//! `disable-device-node-modification`: the driver's parameters read `ModifyDeviceFiles: 0` in the container, so that
//! `nvidia-smi` and others do not try to make nodes that the device rules deny.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fchmod, open, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsmount, fsopen, move_mount, open_tree, unmount,
};
use rustix::process::fchdir;

use crate::root::Root;
use crate::{Applied, ApplyError, sys};

const DIRECTORY: &str = "/proc/driver/nvidia";
const PATH: &str = "/proc/driver/nvidia/params";
/// The file has a few lines.
const LIMIT: u64 = 64 * 1024;

/// Puts a changed copy over the parameters; without a driver there is nothing to do.
pub(crate) fn disable(root: &Root<'_>, done: &mut Applied) -> Result<(), ApplyError> {
    let Ok(target) = root.open(PATH, OFlags::PATH) else {
        return Ok(());
    };
    let Ok(bytes) = root.read(PATH, LIMIT) else {
        done.notes
            .push(format!("`{PATH}` cannot be read: it is left as it is"));
        return Ok(());
    };
    let Some(changed) = changed(&String::from_utf8_lossy(&bytes)) else {
        return Ok(());
    };
    let covered = root.open(DIRECTORY, OFlags::PATH | OFlags::DIRECTORY);
    let covered = covered.and_then(|directory| cover(&changed, target.as_fd(), directory.as_fd()));
    covered.map_err(|err| ApplyError::io("cover", PATH, &err))
}

/// The parameters of this host's driver as a container reads them: with the setting off.
///
/// # Errors
/// When the driver has none, or they cannot be read.
pub fn covered_parameters() -> io::Result<String> {
    let text = std::fs::read_to_string(PATH)?;
    Ok(changed(&text).unwrap_or(text))
}

/// The text with the setting off, or nothing when it is off already.
fn changed(text: &str) -> Option<String> {
    const ON: &str = "ModifyDeviceFiles: 1";
    let lines = text.lines().map(|line| match line {
        ON => "ModifyDeviceFiles: 0\n".to_owned(),
        other => format!("{other}\n"),
    });
    text.lines().any(|line| line == ON).then(|| lines.collect())
}

/// Binds a file of its own, read-only file system over `target`. `beside` is a directory of the container's mounts.
fn cover(text: &str, target: BorrowedFd<'_>, beside: BorrowedFd<'_>) -> io::Result<()> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let memory = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(openat(
        &memory,
        "params",
        create,
        Mode::from_raw_mode(0o600),
    )?);
    file.write_all(text.as_bytes())?;
    fchmod(&file, Mode::from_raw_mode(0o444))?;
    let copy = match copy_mount(file.as_fd()) {
        // Before Linux 6.15 a mount must be attached to be copied.
        Err(err) if err.raw_os_error() == Some(libc::EINVAL) => {
            copy_attached(&memory, file.as_fd(), beside)?
        }
        other => other?,
    };
    attach(copy.as_fd(), target)
}

fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

fn copy_mount(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(file, "", flags)?;
    sys::make_read_only(copy.as_fd())?;
    Ok(copy)
}

/// Attaches the file system for as long as the copy takes. It is detached as the working directory: that needs no
/// path.
fn copy_attached(
    memory: &OwnedFd,
    file: BorrowedFd<'_>,
    beside: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let here = open(
        ".",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    attach(memory.as_fd(), beside)?;
    let copy = copy_mount(file);
    fchdir(memory)?;
    let detached = unmount(".", UnmountFlags::DETACH);
    fchdir(&here)?;
    detached?;
    copy
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::root::tests::{Tree, own_mounts};

    #[test]
    fn one_line_changes() {
        assert_eq!(
            changed("A: 1\nModifyDeviceFiles: 1\nB: 2\n").unwrap(),
            "A: 1\nModifyDeviceFiles: 0\nB: 2\n"
        );
        assert_eq!(changed("ModifyDeviceFiles: 0\n"), None);
        assert_eq!(changed("XModifyDeviceFiles: 1\n"), None);
        assert_eq!(changed("ModifyDeviceFiles: 10\n"), None);
        assert_eq!(changed(""), None);
    }

    #[test]
    fn without_a_driver_nothing_happens() {
        let tree = Tree::new("params-none");
        let mut done = Applied::default();
        disable(&tree.root(), &mut done).unwrap();
        assert_eq!(done, Applied::default());
        assert_eq!(fs::read_dir(&tree.path).unwrap().count(), 0);
    }

    #[test]
    fn a_read_only_copy_covers_the_file() {
        own_mounts("a_read_only_copy_covers_the_file", || {
            let tree = Tree::new("params");
            tree.write(PATH, "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\n");
            let mounts = || {
                fs::read_to_string("/proc/thread-self/mountinfo")
                    .unwrap()
                    .lines()
                    .count()
            };
            let before = mounts();
            for _ in 0..2 {
                disable(&tree.root(), &mut Applied::default()).unwrap();
                assert_eq!(
                    tree.read(PATH),
                    "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 0\n"
                );
                assert_eq!(mounts(), before + 1, "one mount, however often");
            }
            let file = tree.path.join(PATH.trim_start_matches('/'));
            let err = fs::OpenOptions::new().write(true).open(file).unwrap_err();
            assert_eq!(err.raw_os_error(), Some(libc::EROFS));
            unmount(
                tree.path.join(PATH.trim_start_matches('/')),
                UnmountFlags::DETACH,
            )
            .unwrap();
        });
    }

    #[test]
    fn the_older_kernels_way_does_the_same() {
        own_mounts("the_older_kernels_way_does_the_same", || {
            let tree = Tree::new("params-old");
            tree.write(PATH, "the driver's");
            let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
            fsconfig_create(context.as_fd()).unwrap();
            let memory = fsmount(
                context.as_fd(),
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::empty(),
            )
            .unwrap();
            let create = OFlags::WRONLY | OFlags::CREATE;
            let mut file =
                File::from(openat(&memory, "params", create, Mode::from_raw_mode(0o444)).unwrap());
            file.write_all(b"ours").unwrap();
            let root = tree.root();
            let (target, beside) = (
                root.open(PATH, OFlags::PATH).unwrap(),
                root.open(DIRECTORY, OFlags::PATH).unwrap(),
            );
            let working_directory = std::env::current_dir().unwrap();
            let copy = copy_attached(&memory, file.as_fd(), beside.as_fd()).unwrap();
            attach(copy.as_fd(), target.as_fd()).unwrap();
            assert_eq!(tree.read(PATH), "ours");
            assert_eq!(std::env::current_dir().unwrap(), working_directory);
            let directory = tree.path.join(DIRECTORY.trim_start_matches('/'));
            let names = fs::read_dir(directory).unwrap().count();
            assert_eq!(names, 1, "the file system itself is gone");
            unmount(
                tree.path.join(PATH.trim_start_matches('/')),
                UnmountFlags::DETACH,
            )
            .unwrap();
        });
    }
}
