//! The working directory: made when missing, entered, and checked to lie inside the container.

use std::fs;
use std::io;

use crate::error::{Context, Error, Result};

/// Makes a missing working directory, as the peers do (libcontainer 0.7: L16).
pub(super) fn make(cwd: &str) -> Result<()> {
    match fs::create_dir_all(cwd) {
        Ok(()) => Ok(()),
        // On a read-only file system `enter` gives the better error.
        Err(err)
            if matches!(
                err.kind(),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::AlreadyExists
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
