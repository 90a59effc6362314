//! The working directory: made when missing, entered, and checked to lie inside the container.

use std::fs;
use std::os::fd::AsFd;

use fleet_rootfs::root::Root;

use crate::error::{Context, Error, Result};

/// Makes a missing working directory, as the peers do (libcontainer 0.7: L16). Not through a link of `/proc`: the image
/// names it, and the caller may have left a directory of the host open (CVE-2024-21626).
pub(super) fn make(cwd: &str) -> Result<()> {
    let made = fs::File::open("/")
        .and_then(|root| Root::new(root.as_fd()).make_directory(cwd, 0o755).map(drop));
    match made {
        Ok(()) => Ok(()),
        // `enter` gives the better error.
        Err(err)
            if matches!(
                err.raw_os_error(),
                Some(libc::EROFS | libc::EEXIST | libc::ENOTDIR | libc::ELOOP | libc::EACCES)
            ) =>
        {
            Ok(())
        }
        Err(source) => Err(Error::Io {
            op: format!("make working directory `{cwd}`"),
            source,
        }),
    }
}

pub(super) fn enter(cwd: &str) -> Result<()> {
    nix::unistd::chdir(cwd).op(|| format!("chdir to `{cwd}`"))
}

/// A working directory on the host (CVE-2024-21626) shows as unreachable from here.
pub(super) fn verify() -> Result<()> {
    match nix::unistd::getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        Ok(_) | Err(_) => Err(Error::Setup(
            "the working directory is outside the container's root: refused".to_owned(),
        )),
    }
}
