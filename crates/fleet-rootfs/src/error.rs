//! What can fail, in one line that names the path and the cause.

use std::io;

/// A change that could not be made. Causes are told by their errno name: their words would be read by engines as the
/// container's own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A file operation failed.
    #[error("{operation} `{path}` in the container: {cause}")]
    Io {
        /// What was tried, such as `make link`.
        operation: &'static str,
        /// Path in the container.
        path: String,
        /// Errno name, and a hint where there is one.
        cause: String,
    },
    /// A link that cannot be: no target, or no name of its own.
    #[error("make link `{link}` to `{target}` in the container: {why}")]
    Link {
        /// Where the link was to be.
        link: String,
        /// Its text.
        target: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl ApplyError {
    pub(crate) fn io(operation: &'static str, path: &str, err: &io::Error) -> Self {
        Self::Io {
            operation,
            path: path.to_owned(),
            cause: reason(err),
        }
    }
}

/// The errno name, and what it means for a container where that helps.
pub(crate) fn reason(err: &io::Error) -> String {
    let Some(code) = err.raw_os_error() else {
        return err.to_string().to_lowercase();
    };
    let name = format!("{:?}", nix::errno::Errno::from_raw(code));
    match code {
        libc::EROFS => format!(
            "the file system is read-only ({name}); hint: mount a tmpfs over the directory, or use a root file system \
             that can be written while the container is created"
        ),
        libc::EACCES | libc::EPERM => {
            format!(
                "it is not allowed ({name}); hint: the owner is not mapped in the user namespace, or a label forbids it"
            )
        }
        libc::ENOSPC | libc::EDQUOT => format!("no space is left ({name})"),
        libc::EBUSY => format!("a mount is in its place ({name})"),
        libc::EISDIR => format!("a directory is in its place ({name})"),
        libc::ENOTDIR => format!("something on the way is not a directory ({name})"),
        libc::ENOENT => format!("a link on the way leads nowhere ({name})"),
        libc::ELOOP => format!("links lead in a circle ({name})"),
        libc::EFBIG | libc::E2BIG => format!("it is too large ({name})"),
        libc::EINVAL => format!("it is not a regular file or not a valid path ({name})"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_read_as_the_containers_own() {
        for code in 1..134 {
            let err = ApplyError::io(
                "write",
                "/etc/ld.so.cache",
                &io::Error::from_raw_os_error(code),
            );
            let line = err.to_string().to_lowercase();
            for word in ["not found", "no such file", "permission denied"] {
                assert!(!line.contains(word), "{line}");
            }
            assert!(
                line.contains("/etc/ld.so.cache") && !line.ends_with('.') && !line.contains('\n'),
                "{line}"
            );
        }
    }
}
