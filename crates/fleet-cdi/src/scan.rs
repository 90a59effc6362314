//! Reading the spec directories: which files count, and what is wrong with those that cannot be used.

use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use crate::file::{SpecError, format_of, parse_file, read_into, unreadable};
use crate::name::QualifiedName;
use crate::registry::LoadedSpec;
use crate::shown::shown_path;
use crate::skim::Wanted;

/// Something that a user should mend; other files are not affected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A file that is no valid spec.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A directory that cannot be listed.
    #[error("CDI directory {} {why}", shown_path(.path))]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        why: String,
    },
    /// A device that two files of one directory define.
    #[error("CDI device {name} is defined by both {} and {}: it cannot be used; hint: remove one of the two files", shown_path(.first), shown_path(.second))]
    Conflict {
        /// The device.
        name: QualifiedName,
        /// First file, by name.
        first: PathBuf,
        /// Second file.
        second: PathBuf,
    },
}

/// What the directories hold.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) specs: Vec<LoadedSpec>,
    pub(crate) errors: Vec<RegistryError>,
    bytes: Vec<u8>,
}

impl Scan {
    /// Reads one directory's own files in name order; one that does not exist is empty.
    pub(crate) fn directory(&mut self, dir: &Path, priority: usize, wanted: Option<&Wanted>) {
        let listed = match std::fs::read_dir(dir) {
            Ok(entries) => entries.collect::<std::io::Result<Vec<_>>>(),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return,
            Err(err) => Err(err),
        };
        let mut entries = match listed {
            Ok(entries) => entries,
            Err(err) => {
                let (path, why) = (dir.to_path_buf(), unreadable(&err));
                self.errors.push(RegistryError::Directory { path, why });
                return;
            }
        };
        entries.retain(|entry| format_of(&entry.file_name()).is_some());
        entries.sort_by_cached_key(DirEntry::file_name);
        for entry in entries {
            match self.file(&entry, priority, wanted) {
                Ok(Some(loaded)) => self.specs.push(loaded),
                Ok(None) => {}
                Err(err) => self.errors.push(err.into()),
            }
        }
    }

    fn file(
        &mut self,
        entry: &DirEntry,
        priority: usize,
        wanted: Option<&Wanted>,
    ) -> Result<Option<LoadedSpec>, SpecError> {
        let path = entry.path();
        let kind = entry
            .file_type()
            .map_err(|err| SpecError::new(&path, unreadable(&err)))?;
        let Some(format) = format_of(&entry.file_name()).filter(|_| !kind.is_dir()) else {
            return Ok(None);
        };
        read_into(&path, &mut self.bytes, kind.is_file())?;
        if wanted.is_some_and(|wanted| !wanted.may_be_in(&self.bytes)) {
            return Ok(None);
        }
        let spec = parse_file(&path, &self.bytes, format)?;
        Ok(Some(LoadedSpec {
            path,
            priority,
            spec,
        }))
    }
}
