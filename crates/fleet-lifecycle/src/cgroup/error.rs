//! What can go wrong with a cgroup.

use std::io;
use std::path::{Path, PathBuf};

/// A cgroup operation that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// A path or value that cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// Somebody else's processes are in it.
    #[error(
        "container's cgroup is not empty: other processes use `{0}`; hint: give the container a `linux.cgroupsPath` of its own"
    )]
    Busy(String),
    /// A file of the cgroup could not be read or written.
    #[error("{op} `{}`: {}", .path.display(), cause(.source))]
    Io {
        /// What was tried.
        op: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The device program was refused.
    #[error("load the device program for cgroup `{path}`: {}", cause(.source))]
    Devices {
        /// Cgroup.
        path: String,
        /// The cause.
        source: io::Error,
    },
}

/// Shorthand of the module.
pub(crate) type Result<T> = std::result::Result<T, CgroupError>;

/// Adds what was tried, and the file.
pub(super) fn io_error(op: &str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let (op, path) = (op.to_owned(), path.to_path_buf());
    move |source| CgroupError::Io { op, path, source }
}

/// Engines take the C library's words for these as "the program is missing" and "may not be run" (exit codes 127 and
/// 126).
pub(super) fn cause(err: &io::Error) -> String {
    match err.raw_os_error() {
        Some(libc::ENOENT) => "it is missing (ENOENT)".to_owned(),
        Some(libc::EACCES) => "we may not (EACCES)".to_owned(),
        Some(libc::EPERM) => "we may not (EPERM)".to_owned(),
        _ => crate::error::errno_text(err),
    }
}

/// We have no right to it.
pub(super) fn denied(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::EROFS)
    )
}
