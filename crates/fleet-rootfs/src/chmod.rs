//! `chmod`, which newer toolkits no longer emit.

use std::os::fd::AsRawFd;

use nix::fcntl::OFlag;

use crate::ApplyError;
use crate::root::Root;

/// Sets permission bits; one that may not be set, or a path that is missing, is left as upstream leaves it.
pub(crate) fn change(root: &Root<'_>, mode: u32, paths: &[String]) -> Result<(), ApplyError> {
    for path in paths {
        let fd = match root.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
            Ok(fd) => fd,
            Err(err)
                if matches!(
                    err.raw_os_error(),
                    Some(libc::ENOENT | libc::EACCES | libc::EPERM | libc::ENXIO)
                ) =>
            {
                continue;
            }
            Err(err) => return Err(ApplyError::new("chmod", path, &err)),
        };
        match nix::sys::stat::fchmod(
            fd.as_raw_fd(),
            nix::sys::stat::Mode::from_bits_truncate(mode),
        ) {
            Ok(()) | Err(nix::errno::Errno::EPERM) => {}
            Err(errno) => return Err(ApplyError::new("chmod", path, &errno.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use crate::root::tests::Tree;

    #[test]
    fn bits_are_set_and_missing_paths_are_left() {
        let tree = Tree::new("chmod");
        tree.write("dev/x", "");
        super::change(
            &tree.root(),
            0o755,
            &["/dev".into(), "/none".into(), "/dev/x".into()],
        )
        .unwrap();
        assert_eq!(
            std::fs::metadata(tree.path.join("dev/x"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o755
        );
    }
}
