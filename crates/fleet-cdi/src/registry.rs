//! The specs of some directories, and which device each name means.
//!
//! Directories are in ascending priority. Only their own files named `.json` or `.yaml` count, in name order. A device
//! of a later directory wins in silence; the same device twice in one directory is removed, since nobody can say which
//! one is meant.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::model::{ContainerEdits, Spec};
use crate::name::QualifiedName;
use crate::scan::{RegistryError, Scan};
use crate::skim::Wanted;
use crate::unresolvable::Unresolvable;

/// A valid spec file.
#[derive(Clone, Debug)]
pub struct LoadedSpec {
    /// Where it was read.
    pub path: PathBuf,
    /// Index of its directory; later wins.
    pub priority: usize,
    /// Its content.
    pub spec: Spec,
}

/// Edits and where they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct SourcedEdits {
    /// The spec file.
    pub spec_path: PathBuf,
    /// The device; `None` for the file's global edits.
    pub device: Option<QualifiedName>,
    /// The edits.
    pub edits: ContainerEdits,
}

/// What was found in the directories.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    dirs: Vec<PathBuf>,
    specs: Vec<LoadedSpec>,
    /// Device to index of spec and of device in it.
    devices: BTreeMap<QualifiedName, (usize, usize)>,
    errors: Vec<RegistryError>,
    /// What it was read for; files without any of it were left out.
    wanted: Option<Wanted>,
    /// With the files that were left out, once they were wanted after all.
    whole: OnceLock<Box<Self>>,
}

impl Registry {
    /// Reads all specs; a directory that does not exist is empty.
    #[must_use]
    pub fn scan(dirs: &[PathBuf]) -> Self {
        Self::read(dirs, None)
    }

    /// As [`Registry::scan`], for a request: files that surely have none of its devices are not parsed.
    ///
    /// What resolves, and to what, is the same, and so is every message of a request that does not. But everything else
    /// knows nothing of the files left out, but for the devices and kinds wanted; [`Registry::whole`] does.
    #[must_use]
    pub fn scan_for(dirs: &[PathBuf], wanted: &Wanted) -> Self {
        Self::read(dirs, Some(wanted))
    }

    /// With the files that [`Registry::scan_for`] left out; they are read once.
    #[must_use]
    pub fn whole(&self) -> &Self {
        match self.wanted {
            Some(_) => self.whole.get_or_init(|| Box::new(Self::scan(&self.dirs))),
            None => self,
        }
    }

    fn read(dirs: &[PathBuf], wanted: Option<&Wanted>) -> Self {
        let mut scan = Scan::default();
        for (priority, dir) in dirs.iter().enumerate() {
            scan.directory(dir, priority, wanted);
        }
        let mut registry = Self {
            dirs: dirs.to_vec(),
            specs: scan.specs,
            errors: scan.errors,
            wanted: wanted.cloned(),
            ..Self::default()
        };
        registry.index();
        registry
    }

    /// The same specs, but those of the kind of `loaded` give way to it.
    #[must_use]
    pub fn replacing(&self, loaded: LoadedSpec) -> Self {
        let others = self.specs.iter();
        let others = others.filter(|other| other.spec.kind != loaded.spec.kind);
        let mut registry = Self {
            dirs: self.dirs.clone(),
            specs: others.cloned().chain([loaded.clone()]).collect(),
            ..Self::default()
        };
        registry.index();
        registry
    }

    /// The Go library's rule, its quirk included: once two files of one directory conflict over a name, no directory's
    /// definition of it is used.
    fn index(&mut self) {
        let mut conflicting: BTreeSet<QualifiedName> = BTreeSet::new();
        for (at, loaded) in self.specs.iter().enumerate() {
            for (number, device) in loaded.spec.devices.iter().enumerate() {
                let Some(name) = QualifiedName::of(&loaded.spec.kind, &device.name) else {
                    continue;
                };
                if let Some((other, _)) = self.devices.get(&name) {
                    let other = &self.specs[*other];
                    if other.priority == loaded.priority {
                        self.errors.push(RegistryError::Conflict {
                            name: name.clone(),
                            first: other.path.clone(),
                            second: loaded.path.clone(),
                        });
                        conflicting.insert(name);
                        continue;
                    }
                }
                self.devices.insert(name, (at, number));
            }
        }
        self.devices.retain(|name, _| !conflicting.contains(name));
    }

    /// What a user should mend.
    #[must_use]
    pub fn errors(&self) -> &[RegistryError] {
        &self.errors
    }

    /// Every device that can be requested, sorted.
    #[must_use]
    pub fn devices(&self) -> Vec<QualifiedName> {
        self.devices.keys().cloned().collect()
    }

    /// Every device that can be requested with the file that defines it, sorted by name.
    pub fn entries(&self) -> impl Iterator<Item = (&QualifiedName, &LoadedSpec)> {
        self.devices
            .iter()
            .map(|(name, (at, _))| (name, &self.specs[*at]))
    }

    /// The file that defines a device.
    #[must_use]
    pub fn spec_of(&self, name: &QualifiedName) -> Option<&LoadedSpec> {
        self.devices.get(name).map(|(at, _)| &self.specs[*at])
    }

    /// Every valid spec, in order of priority.
    #[must_use]
    pub fn specs(&self) -> &[LoadedSpec] {
        &self.specs
    }

    /// The directories, ascending priority.
    #[must_use]
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// The edits of the named devices in the order of the request; a file's global edits come before its first device.
    /// A name given twice counts once.
    ///
    /// # Errors
    /// [`Unresolvable`] names every device that cannot be had, and why.
    pub fn resolve(&self, names: &[QualifiedName]) -> Result<Vec<SourcedEdits>, Unresolvable> {
        let mut missing: Vec<&QualifiedName> = Vec::new();
        let mut seen = BTreeSet::new();
        for name in names {
            if !self.devices.contains_key(name) && seen.insert(name) {
                missing.push(name);
            }
        }
        match &self.wanted {
            // Another file that was left out may define it, too.
            Some(wanted)
                if !missing.is_empty() || !names.iter().all(|name| wanted.covers(name)) =>
            {
                self.whole().resolve(names)
            }
            _ if missing.is_empty() => Ok(self.edits_of(names)),
            _ => Err(Unresolvable::new(self, &missing)),
        }
    }

    fn edits_of(&self, names: &[QualifiedName]) -> Vec<SourcedEdits> {
        let (mut out, mut files, mut seen) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for name in names.iter().filter(|name| seen.insert(*name)) {
            let Some((at, number)) = self.devices.get(name) else {
                continue;
            };
            let loaded = &self.specs[*at];
            let global = &loaded.spec.container_edits;
            if files.insert(*at) && !global.is_empty() {
                out.push(sourced(loaded, None, global));
            }
            let own = &loaded.spec.devices[*number].container_edits;
            out.push(sourced(loaded, Some(name), own));
        }
        out
    }
}

fn sourced(
    loaded: &LoadedSpec,
    device: Option<&QualifiedName>,
    edits: &ContainerEdits,
) -> SourcedEdits {
    SourcedEdits {
        spec_path: loaded.path.clone(),
        device: device.cloned(),
        edits: edits.clone(),
    }
}

#[cfg(test)]
mod tests;
