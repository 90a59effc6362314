//! The files of one engine in the order in which it reads them, with our own among them.

use std::path::{Path, PathBuf};

use crate::files::Files;
use crate::toml_file::{TomlError, TomlFile};

/// Files in reading order; a later one wins.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// Read before ours.
    pub(crate) before: Vec<TomlFile>,
    /// Ours, if it exists.
    pub(crate) own: Option<TomlFile>,
    /// Where ours lies or would lie.
    pub(crate) own_path: PathBuf,
    /// Read after ours.
    pub(crate) after: Vec<TomlFile>,
}

impl Chain {
    /// Reads `paths`, which hold `own`.
    pub(crate) fn read(files: &Files, paths: &[PathBuf], own: &Path) -> Result<Self, TomlError> {
        let place = paths
            .iter()
            .position(|path| path == own)
            .unwrap_or(paths.len());
        let read = |paths: &[PathBuf]| -> Result<Vec<TomlFile>, TomlError> {
            let found: Result<Vec<_>, _> = paths
                .iter()
                .map(|path| TomlFile::read(files, path))
                .collect();
            Ok(found?.into_iter().flatten().collect())
        };
        Ok(Self {
            before: read(&paths[..place])?,
            own: TomlFile::read(files, own)?,
            own_path: own.to_path_buf(),
            after: read(paths.get(place + 1..).unwrap_or_default())?,
        })
    }

    /// All files, ours included, in order.
    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = &TomlFile> {
        self.before.iter().chain(&self.own).chain(&self.after)
    }

    /// The others, in order.
    pub(crate) fn others(&self) -> impl DoubleEndedIterator<Item = &TomlFile> {
        self.before.iter().chain(&self.after)
    }
}

/// Adds our own file to a directory's listing.
pub(crate) fn with_own(mut paths: Vec<PathBuf>, own: &Path) -> Vec<PathBuf> {
    if !paths.iter().any(|path| path == own) {
        paths.push(own.to_path_buf());
        paths.sort();
    }
    paths
}
