//! The host as a plan needs to see it.

use std::fmt;
use std::io;

/// Looks at the host's files. Its one real implementation is in `fleet-host`.
pub trait HostProbe {
    /// The device node at `path`, its last component not followed if it is a link.
    ///
    /// # Errors
    /// The file cannot be read, or it is not a device node (a link, a directory, …).
    fn lstat_device(&self, path: &str) -> io::Result<DeviceStat>;

    /// Whether a file of any type is reached through `path`, links followed.
    fn exists(&self, path: &str) -> bool;

    /// Version of NVIDIA's kernel driver, such as `580.65.06`, if one is loaded.
    fn driver_version(&self) -> Option<String> {
        None
    }

    /// Those of these nodes below `/dev/nvidia-caps` that open nothing, since the partition is gone.
    fn without_partition<'p>(&self, paths: &[&'p str]) -> Vec<&'p str> {
        let _ = paths;
        Vec::new()
    }
}

/// Type of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

impl DeviceKind {
    /// The letter of `runtime-spec config-linux.md#devices`.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::Char => "c",
            Self::Block => "b",
            Self::Fifo => "p",
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letter())
    }
}

/// A device node of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceStat {
    /// Its type.
    pub kind: DeviceKind,
    /// Major number, 0 for a pipe.
    pub major: u32,
    /// Minor number, 0 for a pipe.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
}

/// The cause of a failed look at the host, in words that no engine takes for a missing command: they search our
/// messages for "not found", "no such file" and "permission denied" to choose the exit code of `run`.
#[must_use]
pub fn io_cause(err: &io::Error) -> String {
    match (err.kind(), err.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => "is missing".to_owned(),
        (io::ErrorKind::PermissionDenied, _) => "cannot be read (EACCES)".to_owned(),
        // Of descriptors or memory: the words by which our errors get their advice.
        (_, Some(12 | 23 | 24)) => format!("cannot be read: {err}"),
        (_, Some(number)) => format!("cannot be read (errno {number})"),
        (_, None) => err.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cause_reads_like_a_missing_command() {
        let cases = [
            (io::Error::from_raw_os_error(2), "is missing"),
            (io::Error::from_raw_os_error(13), "cannot be read (EACCES)"),
            (
                io::Error::from_raw_os_error(20),
                "cannot be read (errno 20)",
            ),
            (
                io::Error::from_raw_os_error(24),
                "cannot be read: Too many open files (os error 24)",
            ),
            (io::Error::other("is a symbolic link"), "is a symbolic link"),
        ];
        for (err, want) in cases {
            assert_eq!(io_cause(&err), want);
        }
    }
}
