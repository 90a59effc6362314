//! Making files of a tree.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::build::SimError;

/// One entry of a tree; paths are relative to its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File {
        /// Where.
        path: String,
        /// What is in it.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where.
        path: String,
        /// What it says.
        target: String,
    },
    /// A copy of a file of this machine, with its permission bits.
    Copy {
        /// Where.
        path: String,
        /// What of.
        source: PathBuf,
    },
}

impl Entry {
    /// A file of the kernel: nobody writes it.
    pub(crate) fn kernel(path: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self::File {
            path: path.into(),
            content: text.into(),
            mode: 0o444,
        }
    }

    /// An installed file.
    pub(crate) fn installed(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self::File {
            path: path.into(),
            content: content.into(),
            mode: 0o644,
        }
    }

    /// An installed program.
    pub(crate) fn program(path: impl Into<String>) -> Self {
        Self::File {
            path: path.into(),
            content: b"#!/bin/sh\necho \"$0: simulated node\"\n".to_vec(),
            mode: 0o755,
        }
    }

    /// A symbolic link.
    pub(crate) fn link(path: impl Into<String>, target: impl Into<String>) -> Self {
        Self::Link {
            path: path.into(),
            target: target.into(),
        }
    }

    /// A copy of a file of this machine.
    pub(crate) fn copied(path: impl Into<String>, source: &Path) -> Self {
        Self::Copy {
            path: path.into(),
            source: source.to_path_buf(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::File { path, .. } | Self::Link { path, .. } | Self::Copy { path, .. } => path,
        }
    }

    /// Makes it below `root`, replacing an older one.
    pub(crate) fn make(&self, root: &Path) -> Result<(), SimError> {
        match self {
            Self::File {
                path,
                content,
                mode,
            } => write(&root.join(path), content, *mode),
            Self::Link { path, target } => {
                let path = prepared(root.join(path))?;
                symlink(target, &path).map_err(io_error(&path))
            }
            Self::Copy { path, source } => {
                let path = prepared(root.join(path))?;
                fs::copy(source, &path).map(drop).map_err(io_error(&path))
            }
        }
    }
}

/// An error about a path.
pub(crate) fn io_error(path: &Path) -> impl Fn(io::Error) -> SimError + use<> {
    let path = path.to_path_buf();
    move |source| SimError::Io {
        path: path.clone(),
        source,
    }
}

/// Makes a directory and those above it.
pub(crate) fn make_dir(path: &Path) -> Result<(), SimError> {
    fs::create_dir_all(path).map_err(io_error(path))
}

/// A path whose directory is there and which is free.
fn prepared(path: PathBuf) -> Result<PathBuf, SimError> {
    path.parent().map_or(Ok(()), make_dir)?;
    drop(fs::remove_file(&path));
    Ok(path)
}

/// Writes a file, replacing an older one.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), SimError> {
    let path = prepared(path.to_path_buf())?;
    fs::write(&path, content).map_err(io_error(&path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(io_error(&path))
}

/// Copies a program of ours, with something after its end.
pub(crate) fn copy(from: &Path, to: &Path, after: &[u8]) -> Result<(), SimError> {
    let mut content = match fs::read(from) {
        Ok(content) => content,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            return Err(SimError::Missing(from.to_path_buf()));
        }
        Err(err) => return Err(io_error(from)(err)),
    };
    content.extend_from_slice(after);
    write(to, &content, 0o755)
}

/// Leaves a socket that nobody listens to.
pub(crate) fn socket(path: &Path) -> Result<(), SimError> {
    let path = prepared(path.to_path_buf())?;
    UnixListener::bind(&path).map(drop).map_err(io_error(&path))
}
