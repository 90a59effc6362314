//! A directory that CRIU reads or writes, held open: what its name leads to later makes no difference.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::record::replace_file;

/// A directory by descriptor.
#[derive(Debug)]
pub(crate) struct Directory {
    handle: File,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory, and makes it where it is missing: what is saved of a program is for its owner alone.
    ///
    /// # Errors
    /// As `man 2 mkdir` and `open`, with the path.
    pub(crate) fn make(what: &str, path: &Path) -> Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
                Err(err).op(|| format!("make {what} `{}`", path.display()))
            }
            _ => Self::open(what, path),
        }
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// As `man 2 open`, with the path.
    pub(crate) fn open(what: &str, path: &Path) -> Result<Self> {
        let handle = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(path)
            .op(|| format!("open {what} `{}`", path.display()))?;
        Ok(Self {
            handle,
            path: path.to_path_buf(),
        })
    }

    /// Its number, for CRIU, which looks at it by way of this process.
    pub(crate) fn fd(&self) -> RawFd {
        self.handle.as_raw_fd()
    }

    /// As it was named.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn entry(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd()))
    }

    /// Opens a regular file in it; `None` where there is none.
    ///
    /// # Errors
    /// What is no regular file, or cannot be opened.
    pub(crate) fn file(&self, name: &str) -> Result<Option<File>> {
        let failed = || format!("open `{}`", self.path.join(name).display());
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let opened = fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(self.entry(name));
        let file = match opened {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.op(failed)?,
        };
        match file.metadata().op(failed)?.is_file() {
            true => Ok(Some(file)),
            false => Err(Error::Invalid(format!(
                "`{}` is not a regular file",
                self.path.join(name).display()
            ))),
        }
    }

    /// All of a file of at most `limit` bytes; `None` where there is none.
    ///
    /// # Errors
    /// As [`Directory::file`]; a larger one.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.file(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let failed = || format!("read `{}`", self.path.join(name).display());
        let read = file
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .op(failed)?;
        match u64::try_from(read).is_ok_and(|read| read <= limit) {
            true => Ok(Some(bytes)),
            false => Err(Error::Invalid(format!(
                "`{}` has more than {limit} bytes",
                self.path.join(name).display()
            ))),
        }
    }

    /// Writes a file in one step, for its owner alone.
    ///
    /// # Errors
    /// As `man 2 rename`, with the path.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        replace_file(&self.entry(name), bytes, 0o600).map_err(|err| match err {
            Error::Io { source, .. } => Error::Io {
                op: format!("write `{}`", self.path.join(name).display()),
                source,
            },
            other => other,
        })
    }

    /// Takes a file away, if it is there.
    pub(crate) fn remove(&self, name: &str) {
        drop(fs::remove_file(self.entry(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_are_read() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("images");
        let directory = Directory::make("image directory", &path).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions())
                & 0o777,
            0o700
        );
        Directory::make("image directory", &path).expect("it may be there");
        assert!(directory.file("x").unwrap().is_none());
        directory.put("x", b"text").unwrap();
        assert_eq!(
            directory.read("x", 4).unwrap().as_deref(),
            Some(&b"text"[..])
        );
        let err = directory.read("x", 3).unwrap_err().to_string();
        assert!(err.contains("more than 3 bytes"), "{err}");
        std::os::unix::fs::symlink("x", path.join("link")).unwrap();
        nix::unistd::mkfifo(&path.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(path.join("directory")).unwrap();
        for name in ["link", "fifo", "directory"] {
            let err = directory.file(name).unwrap_err().to_string();
            assert!(err.contains(name), "{err}");
        }
        directory.remove("x");
        assert!(directory.file("x").unwrap().is_none());
        let err = Directory::open("image directory", &path.join("none")).unwrap_err();
        assert!(
            err.to_string().starts_with("open image directory `"),
            "{err}"
        );
    }
}
