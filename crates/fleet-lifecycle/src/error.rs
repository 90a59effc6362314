//! The one error type of the crate: what failed, why, and what to do.

use std::io;

/// A failed operation on a container. `Display` is the whole sentence, cause included, on one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No container of that id; containerd and Podman look for the words `does not exist`.
    #[error("container `{0}` does not exist")]
    Unknown(String),
    /// The id is taken.
    #[error("container with id `{0}` already exists")]
    Exists(String),
    /// CRI-O and containerd's shim read `container not running` as "already gone".
    #[error("container not running: `{0}`: no such process")]
    NotRunning(String),
    /// The container is in another state than the operation needs.
    #[error("cannot {verb} container `{id}`: it is {status}{hint}")]
    WrongStatus {
        /// What was asked.
        verb: &'static str,
        /// Container id.
        id: String,
        /// Its state now.
        status: String,
        /// `; hint: …` or empty.
        hint: &'static str,
    },
    /// The bundle, the spec or an option cannot be accepted.
    #[error("{0}")]
    Invalid(String),
    /// A system operation failed.
    #[error("{op}: {}", errno_text(.source))]
    Io {
        /// Operation with its path or number.
        op: String,
        /// The cause.
        source: io::Error,
    },
    /// The container could not be set up; the text is the innermost cause.
    #[error("{0}")]
    Setup(String),
    /// A cgroup operation failed.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
    /// The seccomp profile cannot be used.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::SeccompError),
    /// A hook of the spec failed.
    #[error(transparent)]
    Hook(#[from] crate::hooks::HookError),
}

/// Shorthand of the crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The C library's words for an error, without Rust's `(os error N)` tail: engines match on these words.
#[must_use]
pub fn errno_text(err: &io::Error) -> String {
    match err.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => err.to_string(),
    }
}

/// Adds the operation to a bare system error.
pub trait Context<T> {
    /// Names the operation that failed.
    ///
    /// # Errors
    /// [`Error::Io`] with the text of `op`.
    fn op<S: Into<String>>(self, op: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, io::Error> {
    fn op<S: Into<String>>(self, op: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::Io {
            op: op().into(),
            source,
        })
    }
}

impl<T> Context<T> for std::result::Result<T, nix::errno::Errno> {
    fn op<S: Into<String>>(self, op: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|errno| Error::Io {
            op: op().into(),
            source: io::Error::from(errno),
        })
    }
}
