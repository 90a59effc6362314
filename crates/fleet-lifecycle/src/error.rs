//! The one error type of the crate: what failed, why, and what to do.

use std::io;

/// A failed operation on a container. `Display` is the whole sentence, cause included, on one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No container of that id; containerd and Podman look for the words `does not exist`.
    #[error("container `{0}` does not exist")]
    Unknown(String),
    /// There is a directory, but no record in it.
    #[error(
        "container `{0}` does not exist: it is only now being made, or its creation or removal was interrupted; hint: `delete --force {0}` removes what is left"
    )]
    Unfinished(String),
    /// The id is taken.
    #[error("container with id `{0}` already exists")]
    Exists(String),
    /// The id is taken by what an interrupted creation or removal left.
    #[error(
        "container with id `{0}` already exists, without a record: its creation or removal was interrupted; hint: `delete --force {0}` removes what is left"
    )]
    Occupied(String),
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
    /// The container is another runtime's, in the same state root.
    #[error(
        "container `{id}` in `{root}` was made by {maker}, not by this runtime; hint: use {maker}, or give this runtime a state root of its own"
    )]
    Foreign {
        /// Container id.
        id: String,
        /// The state root.
        root: String,
        /// The runtime that made it.
        maker: &'static str,
    },
    /// Someone else has failed, and has said so or will: another runtime on our stderr, the maker of a process.
    #[error("{0}")]
    Told(String),
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

/// What to do where a machine has run out of something, by the words of [`errno_text`]: the text of an error may come
/// from another process, and then nothing else is left of it.
const ADVICE: [(&[&str], &str); 8] = [
    (
        &["No space left on device", "ENOSPC"],
        "`df` and `df -i` tell which file system is full",
    ),
    (
        &[
            "Too many open files in system",
            "File table overflow",
            "ENFILE",
        ],
        "raise the sysctl fs.file-max",
    ),
    (
        &["Too many open files", "EMFILE"],
        "raise the caller's limit of open files (`ulimit -n`)",
    ),
    (
        &["Cannot allocate memory", "Out of memory", "ENOMEM"],
        "the machine, or a memory limit around the caller, is exhausted",
    ),
    (
        &["Resource temporarily unavailable", "Try again", "EAGAIN"],
        "is a limit on the number of processes reached (`ulimit -u`, pids cgroup of the caller)?",
    ),
    (
        &["Read-only file system", "EROFS"],
        "mount it writable, or name another state root with `--root`",
    ),
    (
        &["Disk quota exceeded", "Quota exceeded", "EDQUOT"],
        "free space, or raise the quota",
    ),
    (&["internal error: "], "please report it"),
];

/// The message with a hint, where it has none and the cause is a common one.
#[must_use]
pub fn advised(message: String) -> String {
    let named = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let advice = ADVICE.iter().find(|(words, _)| named(words));
    match advice {
        Some((_, advice)) if !message.contains("hint: ") => format!("{message}; hint: {advice}"),
        _ => message,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_given_once() {
        let full = Error::Io {
            op: "write `x`".to_owned(),
            source: io::Error::from_raw_os_error(libc::ENOSPC),
        };
        let text = advised(full.to_string());
        assert_eq!(
            text,
            "write `x`: No space left on device; hint: `df` and `df -i` tell which file system is full"
        );
        assert_eq!(advised(text.clone()), text);
        assert_eq!(advised("no such thing".to_owned()), "no such thing");
        for errno in [
            libc::ENFILE,
            libc::EMFILE,
            libc::ENOMEM,
            libc::EAGAIN,
            libc::EROFS,
            libc::EDQUOT,
        ] {
            let text = errno_text(&io::Error::from_raw_os_error(errno));
            assert!(
                ADVICE
                    .iter()
                    .any(|(words, _)| words.contains(&text.as_str())),
                "{text}"
            );
        }
    }
}
