//! The specs of some directories, and which device each name means.
//!
//! Directories are in ascending priority. Only their own files named `.json` or `.yaml` count, in name order. A device
//! of a later directory wins in silence; the same device twice in one directory is removed, since nobody can say which
//! one is meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::model::{ContainerEdits, Spec};
use crate::name::QualifiedName;
use crate::parse::{SpecError, format_of, read_spec, unreadable};

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

/// Something that a user should mend; other files are not affected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A file that is no valid spec.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A directory that cannot be listed.
    #[error("CDI directory {} {why}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        why: String,
    },
    /// A device that two files of one directory define.
    #[error("CDI device {name} is defined by both {} and {}: it cannot be used; hint: remove one of the two files", .first.display(), .second.display())]
    Conflict {
        /// The device.
        name: QualifiedName,
        /// First file, by name.
        first: PathBuf,
        /// Second file.
        second: PathBuf,
    },
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
#[derive(Debug, Default)]
pub struct Registry {
    dirs: Vec<PathBuf>,
    specs: Vec<LoadedSpec>,
    /// Device to index of spec and of device in it.
    devices: BTreeMap<QualifiedName, (usize, usize)>,
    errors: Vec<RegistryError>,
}

impl Registry {
    /// Reads all specs; a directory that does not exist is empty.
    #[must_use]
    pub fn scan(dirs: &[PathBuf]) -> Self {
        let mut registry = Self {
            dirs: dirs.to_vec(),
            ..Self::default()
        };
        for (priority, dir) in dirs.iter().enumerate() {
            registry.read_directory(dir, priority);
        }
        registry.index();
        registry
    }

    fn read_directory(&mut self, dir: &Path, priority: usize) {
        let listed = match std::fs::read_dir(dir) {
            Ok(entries) => entries.collect::<std::io::Result<Vec<_>>>(),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return,
            Err(err) => Err(err),
        };
        let entries = match listed {
            Ok(entries) => entries,
            Err(err) => {
                self.errors.push(RegistryError::Directory {
                    path: dir.to_path_buf(),
                    why: unreadable(&err),
                });
                return;
            }
        };
        let mut paths: Vec<PathBuf> = entries
            .iter()
            .map(std::fs::DirEntry::path)
            .filter(|path| format_of(path).is_some())
            .collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| !path.is_dir()) {
            match read_spec(&path) {
                Ok(spec) => self.specs.push(LoadedSpec {
                    path,
                    priority,
                    spec,
                }),
                Err(err) => self.errors.push(err.into()),
            }
        }
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
                        let (first, second) = (other.path.clone(), loaded.path.clone());
                        self.errors.push(RegistryError::Conflict {
                            name: name.clone(),
                            first,
                            second,
                        });
                        conflicting.insert(name.clone());
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
        let missing: Vec<&QualifiedName> = names
            .iter()
            .filter(|name| !self.devices.contains_key(name))
            .collect();
        if !missing.is_empty() {
            return Err(self.unresolvable(&missing));
        }
        let (mut out, mut files, mut seen) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for name in names.iter().filter(|name| seen.insert(*name)) {
            let Some((at, number)) = self.devices.get(name) else {
                continue;
            };
            let loaded = &self.specs[*at];
            if files.insert(*at) && !loaded.spec.container_edits.is_empty() {
                out.push(SourcedEdits {
                    spec_path: loaded.path.clone(),
                    device: None,
                    edits: loaded.spec.container_edits.clone(),
                });
            }
            let edits = loaded.spec.devices[*number].container_edits.clone();
            out.push(SourcedEdits {
                spec_path: loaded.path.clone(),
                device: Some(name.clone()),
                edits,
            });
        }
        Ok(out)
    }

    fn unresolvable(&self, missing: &[&QualifiedName]) -> Unresolvable {
        let mut text = String::from("unresolvable CDI devices ");
        let shown: Vec<String> = missing
            .iter()
            .take(SHOWN)
            .map(|name| name.to_string())
            .collect();
        text.push_str(&shown.join(", "));
        if missing.len() > SHOWN {
            let _ = write!(text, " and {} more", missing.len() - SHOWN);
        }
        let mut causes: Vec<String> = Vec::new();
        for name in missing.iter().take(SHOWN) {
            let cause = self.cause(name);
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
        let _ = write!(text, ": {}", causes.join("; "));
        Unresolvable {
            message: text,
            names: missing.iter().map(|name| (*name).clone()).collect(),
        }
    }

    fn cause(&self, name: &QualifiedName) -> String {
        let conflict = self.errors.iter().find(
            |err| matches!(err, RegistryError::Conflict { name: other, .. } if other == name),
        );
        if let Some(conflict) = conflict {
            return conflict.to_string();
        }
        let known: Vec<&str> = self
            .devices
            .keys()
            .filter(|other| other.kind() == name.kind())
            .map(QualifiedName::name)
            .collect();
        let mut text = if known.is_empty() {
            let dirs: Vec<String> = self
                .dirs
                .iter()
                .map(|dir| dir.display().to_string())
                .collect();
            format!("no CDI spec of kind {} in {}", name.kind(), dirs.join(", "))
        } else {
            let list = known
                .iter()
                .take(SHOWN)
                .copied()
                .collect::<Vec<_>>()
                .join(", ");
            let more = if known.len() > SHOWN {
                format!(" and {} more", known.len() - SHOWN)
            } else {
                String::new()
            };
            format!("known devices of {} are {list}{more}", name.kind())
        };
        // A broken file may be the one that has it.
        if let Some(broken) = self
            .errors
            .iter()
            .find(|err| !matches!(err, RegistryError::Conflict { .. }))
        {
            let _ = write!(text, "; {broken}");
        } else if known.is_empty() {
            let _ = write!(
                text,
                "; hint: make one with its vendor's generator, such as `nvidia-ctk cdi generate`"
            );
        }
        text
    }
}

/// Names listed in one error line.
const SHOWN: usize = 16;

/// Devices that cannot be had. The text begins as the Go library's, which engines and people search for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unresolvable {
    message: String,
    /// The devices.
    pub names: Vec<QualifiedName>,
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Dirs(PathBuf);

    impl Dirs {
        fn new(name: &str) -> Self {
            let base =
                std::env::temp_dir().join(format!("fleet-registry-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&base));
            fs::create_dir_all(base.join("etc")).unwrap();
            fs::create_dir_all(base.join("run")).unwrap();
            Self(base)
        }

        fn put(&self, file: &str, kind: &str, devices: &[&str], value: &str) {
            let devices: Vec<String> = devices
                .iter()
                .map(|d| format!("- name: \"{d}\"\n  containerEdits:\n    env: [\"V={value}\"]"))
                .collect();
            let text = format!(
                "cdiVersion: 0.6.0\nkind: {kind}\ncontainerEdits:\n  env: [\"G={value}\"]\ndevices:\n{}\n",
                devices.join("\n")
            );
            fs::write(self.0.join(file), text).unwrap();
        }

        fn scan(&self) -> Registry {
            Registry::scan(&[self.0.join("etc"), self.0.join("run"), self.0.join("none")])
        }
    }

    impl Drop for Dirs {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn names(all: &[&str]) -> Vec<QualifiedName> {
        all.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn envs(registry: &Registry, asked: &[&str]) -> Vec<String> {
        registry
            .resolve(&names(asked))
            .unwrap()
            .into_iter()
            .flat_map(|s| s.edits.env)
            .collect()
    }

    #[test]
    fn request_order_and_globals_once() {
        let dirs = Dirs::new("order");
        dirs.put("etc/a.yaml", "v/c", &["0", "1"], "a");
        dirs.put("etc/b.yaml", "w/c", &["0"], "b");
        assert_eq!(
            envs(&dirs.scan(), &["v/c=1", "w/c=0", "v/c=0", "v/c=1"]),
            ["G=a", "V=a", "G=b", "V=b", "V=a"]
        );
    }

    #[test]
    fn a_later_directory_wins() {
        let dirs = Dirs::new("priority");
        dirs.put("etc/a.yaml", "v/c", &["0", "1"], "etc");
        dirs.put("run/a.yaml", "v/c", &["0"], "run");
        assert_eq!(envs(&dirs.scan(), &["v/c=0"]), ["G=run", "V=run"]);
        assert_eq!(envs(&dirs.scan(), &["v/c=1"]), ["G=etc", "V=etc"]);
        assert!(dirs.scan().errors().is_empty());
    }

    #[test]
    fn a_conflict_removes_the_device_and_names_both_files() {
        let dirs = Dirs::new("conflict");
        dirs.put("etc/a.yaml", "v/c", &["0", "1"], "a");
        dirs.put("etc/b.yaml", "v/c", &["0"], "b");
        dirs.put("run/c.yaml", "v/c", &["0"], "c");
        let registry = dirs.scan();
        assert_eq!(
            registry.devices(),
            names(&["v/c=1"]),
            "as the Go library: the higher directory's is gone, too"
        );
        let err = registry
            .resolve(&names(&["v/c=0"]))
            .unwrap_err()
            .to_string();
        assert!(
            err.starts_with("unresolvable CDI devices v/c=0")
                && err.contains("a.yaml")
                && err.contains("b.yaml"),
            "{err}"
        );
    }

    #[test]
    fn a_bad_file_affects_no_other() {
        let dirs = Dirs::new("bad");
        dirs.put("etc/a.yaml", "v/c", &["0"], "a");
        fs::write(dirs.0.join("etc/b.yaml"), "kind: [").unwrap();
        fs::write(dirs.0.join("etc/c.json"), "{}").unwrap();
        fs::write(dirs.0.join("etc/ignored.yml"), "x").unwrap();
        fs::create_dir(dirs.0.join("etc/d.yaml")).unwrap();
        let registry = dirs.scan();
        assert_eq!(registry.devices().len(), 1);
        assert_eq!(registry.errors().len(), 2, "{:?}", registry.errors());
        let err = registry
            .resolve(&names(&["v/c=9"]))
            .unwrap_err()
            .to_string();
        assert!(
            err.contains("known devices of v/c are 0") && err.contains("b.yaml"),
            "{err}"
        );
        assert!(!err.contains('\n'));
    }

    #[test]
    fn unknown_kinds_name_the_directories() {
        let err = Dirs::new("kind")
            .scan()
            .resolve(&names(&["x/y=z"]))
            .unwrap_err()
            .to_string();
        assert!(
            err.contains("no CDI spec of kind x/y") && err.contains("/etc") && err.contains("hint"),
            "{err}"
        );
        for word in ["not found", "no such file", "permission denied"] {
            assert!(!err.to_lowercase().contains(word), "{err}");
        }
    }

    #[test]
    fn sizes_and_kinds_of_files_are_checked() {
        let dirs = Dirs::new("kinds");
        fs::write(dirs.0.join("etc/big.json"), vec![b' '; 9 * 1024 * 1024]).unwrap();
        nix_fifo(&dirs.0.join("etc/pipe.json"));
        let registry = dirs.scan();
        let text: Vec<String> = registry.errors().iter().map(ToString::to_string).collect();
        assert!(text.iter().any(|t| t.contains("larger than")), "{text:?}");
        assert!(
            text.iter().any(|t| t.contains("not a regular file")),
            "{text:?}"
        );
    }

    fn nix_fifo(path: &Path) {
        assert!(
            std::process::Command::new("mkfifo")
                .arg(path)
                .status()
                .unwrap()
                .success()
        );
    }
}
