//! A writable view of a root that is mounted read-only.
//!
//! Some runtimes make a `--read-only` container's root so before its hooks run (crun does, runc does not). What is to
//! be written is the file system behind the mount; the container's own mount stays as it is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{StatVfsMountFlags, fstatvfs};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys;

/// The view, with everything that is mounted below; nothing where none is needed or none is allowed. It is attached
/// nowhere and goes with its descriptor.
pub(crate) fn writable(root: BorrowedFd<'_>) -> Option<OwnedFd> {
    let stat = fstatvfs(root).ok()?;
    if !stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return None;
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let view = open_tree(root, "", flags).ok()?;
    sys::make_writable(view.as_fd()).ok()?;
    Some(view)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

    use crate::root::tests::{Tree, own_mounts};
    use crate::{RootfsEdit, apply, apply_below};

    #[test]
    fn a_read_only_root_is_changed_and_stays_read_only() {
        own_mounts("a_read_only_root_is_changed_and_stays_read_only", || {
            let tree = Tree::new("view");
            tree.write("proc/driver/nvidia/params", "ModifyDeviceFiles: 1\n");
            mount_bind(&tree.path, &tree.path).unwrap();
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            mount_remount(&tree.path, flags, c"").unwrap();
            let root = File::open(&tree.path).unwrap();
            let link = RootfsEdit::Symlink {
                target: "t".into(),
                link: "/usr/lib/link".into(),
            };
            let edits = [link, RootfsEdit::DisableDeviceNodeModification];
            let root = std::os::fd::AsFd::as_fd(&root);
            let err = apply(root, &edits).unwrap_err().to_string();
            assert!(err.contains("EROFS"), "{err}");
            apply_below(root, &edits).unwrap();
            assert!(tree.path.join("usr/lib/link").is_symlink());
            assert_eq!(
                tree.read("proc/driver/nvidia/params"),
                "ModifyDeviceFiles: 0\n"
            );
            let err = fs::write(tree.path.join("x"), "").unwrap_err();
            assert_eq!(err.raw_os_error(), Some(libc::EROFS));
            unmount(
                tree.path.join("proc/driver/nvidia/params"),
                UnmountFlags::DETACH,
            )
            .unwrap();
            unmount(&tree.path, UnmountFlags::DETACH).unwrap();
        });
    }

    #[test]
    fn a_writable_root_needs_no_view() {
        let tree = Tree::new("view-none");
        let root = File::open(&tree.path).unwrap();
        assert!(super::writable(std::os::fd::AsFd::as_fd(&root)).is_none());
    }
}
