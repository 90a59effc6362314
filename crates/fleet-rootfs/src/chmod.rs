//! `chmod`, which newer toolkits no longer emit.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, PROC_SUPER_MAGIC, chmodat, fstatfs};

use crate::root::Root;
use crate::{Applied, ApplyError, sys};

/// Sets permission bits. What may not be changed is left (upstream's rule), and what is missing is noted.
pub(crate) fn change(
    root: &Root<'_>,
    mode: u32,
    paths: &[String],
    done: &mut Applied,
) -> Result<(), ApplyError> {
    for path in paths {
        // A device must not be opened: that alone may wake or claim it.
        let file = match root.open(path, OFlags::PATH) {
            Ok(file) => file,
            Err(err) if err.raw_os_error() == Some(libc::ENOENT) => {
                done.notes.push(format!(
                    "`{path}` is missing in the container: its mode is not set"
                ));
                continue;
            }
            Err(err) => return Err(ApplyError::io("set the mode of", path, &err)),
        };
        match set(&file, mode) {
            Err(err) if !matches!(err.raw_os_error(), Some(libc::EPERM)) => {
                return Err(ApplyError::io("set the mode of", path, &err));
            }
            _ => {}
        }
    }
    Ok(())
}

fn set(file: &OwnedFd, mode: u32) -> io::Result<()> {
    match sys::chmod(file.as_fd(), mode) {
        Err(err) if matches!(err.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
            through_proc(file, mode)
        }
        other => other,
    }
}

/// Before Linux 6.6 the kernel's own name of a descriptor is the only way that opens nothing.
fn through_proc(file: &OwnedFd, mode: u32) -> io::Result<()> {
    let directory = File::open("/proc/self/fd")?;
    if fstatfs(&directory)?.f_type != PROC_SUPER_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    let name = file.as_raw_fd().to_string();
    Ok(chmodat(
        &directory,
        name,
        Mode::from_raw_mode(mode),
        AtFlags::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::root::tests::Tree;

    fn mode(path: &std::path::Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn bits_are_set_and_missing_paths_are_noted() {
        let tree = Tree::new("chmod");
        tree.write("dev/x", "");
        nix::unistd::mkfifo(&tree.path.join("dev/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for root in tree.roots() {
            let mut done = Applied::default();
            let paths = ["/dev", "/none", "/dev/x", "/dev/pipe"].map(str::to_owned);
            change(&root, 0o751, &paths, &mut done).unwrap();
            for path in ["dev", "dev/x", "dev/pipe"] {
                assert_eq!(mode(&tree.path.join(path)), 0o751, "{path}");
            }
            assert_eq!(done.notes.len(), 1);
            change(&root, 0o700, &paths, &mut done).unwrap();
        }
    }

    #[test]
    fn the_older_way_does_the_same() {
        let tree = Tree::new("chmod-proc");
        tree.write("x", "");
        let file = tree.root().open("/x", OFlags::PATH).unwrap();
        through_proc(&file, 0o640).unwrap();
        assert_eq!(mode(&tree.path.join("x")), 0o640);
    }

    #[test]
    fn a_link_does_not_lead_out() {
        let tree = Tree::new("chmod-out");
        let outside = tree.outside("secret");
        let before = mode(&outside);
        symlink(&outside, tree.path.join("link")).unwrap();
        symlink("../secret", tree.path.join("up")).unwrap();
        for root in tree.roots() {
            let mut done = Applied::default();
            change(
                &root,
                0o777,
                &["/link".into(), "/up".into(), "/../secret".into()],
                &mut done,
            )
            .unwrap();
            assert_eq!(done.notes.len(), 3, "nothing of that name is inside");
        }
        assert_eq!(mode(&outside), before);
    }
}
