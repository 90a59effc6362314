//! The state root: where containers are remembered between two calls.
//!
//! It depends on the user id, on being in a user namespace and on `XDG_RUNTIME_DIR` only: engines drop every
//! other variable on later calls.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cgroup::Session;
use crate::error::{Context, Error, Result};
use crate::id;
use crate::record::recorded;

/// Name of the directory under `/run` or `XDG_RUNTIME_DIR`; Podman's tests expect the runtime's own name.
const NAME: &str = "fleet-nvidia";

/// Who runs us, as far as the state root and the cgroup rules care.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Effective user id, as seen in our own user namespace.
    pub euid: u32,
    /// Whether our user namespace is not the initial one.
    pub in_user_namespace: bool,
    /// Where the user's own systemd is to be found.
    pub session: Session,
}

impl Identity {
    /// Reads `/proc/self/uid_map`; an unreadable file counts as the initial namespace.
    #[must_use]
    pub fn current() -> Self {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Self {
            euid: nix::unistd::geteuid().as_raw(),
            in_user_namespace: !(map.is_empty() || is_identity(&map)),
            session: Session::current(),
        }
    }

    /// Neither root of the host nor able to write what only that root may.
    #[must_use]
    pub fn rootless(&self) -> bool {
        self.euid != 0 || self.in_user_namespace
    }
}

/// `0 0 4294967295` on one line is the map of the initial user namespace (`man 7 user_namespaces`).
fn is_identity(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The directory that holds one directory per container.
#[derive(Debug, Clone)]
pub struct StateRoot {
    path: PathBuf,
}

impl StateRoot {
    /// The root given by `--root`, else the default of this user.
    #[must_use]
    pub fn new(given: Option<&Path>, who: &Identity, xdg_runtime_dir: Option<&str>) -> Self {
        let path = given.map_or_else(|| default_path(who, xdg_runtime_dir), Path::to_path_buf);
        Self { path }
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a container's files are; the id is checked here, at the border.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unsafe id.
    pub fn container(&self, id: &str) -> Result<PathBuf> {
        id::check(id)?;
        Ok(self.path.join(id))
    }

    /// Where compiled seccomp filters are kept.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.path.join(".cache")
    }

    /// Makes the root, 0700 and sticky so that user tmpfiles ageing skips it.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn ensure(&self) -> Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .op(|| format!("create state root `{}`", self.path.display()))?;
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o1700))
            .op(|| format!("chmod state root `{}`", self.path.display()))
    }

    /// Takes the id by making its directory.
    ///
    /// # Errors
    /// [`Error::Exists`] when the id is taken.
    pub fn reserve(&self, id: &str) -> Result<PathBuf> {
        let dir = self.container(id)?;
        self.ensure()?;
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => Ok(dir),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                Err(if recorded(&dir) || !dir.is_dir() {
                    Error::Exists(id.to_owned())
                } else {
                    Error::Occupied(id.to_owned())
                })
            }
            Err(source) => Err(Error::Io {
                op: format!("create `{}`", dir.display()),
                source,
            }),
        }
    }

    /// Ids of all containers, sorted; an absent root has none.
    ///
    /// # Errors
    /// [`Error::Io`] when the root cannot be listed.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(Error::Io {
                    op: format!("list `{}`", self.path.display()),
                    source,
                });
            }
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| id::check(name).is_ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

fn default_path(who: &Identity, xdg_runtime_dir: Option<&str>) -> PathBuf {
    if !who.rootless() {
        return Path::new("/run").join(NAME);
    }
    match xdg_runtime_dir {
        // Podman passes an empty value as root; joined, it would mean a directory under the caller's cwd.
        Some(dir) if dir.starts_with('/') => Path::new(dir).join(NAME),
        _ if who.euid == 0 => Path::new("/run").join(NAME),
        _ => Path::new("/run/user").join(who.euid.to_string()).join(NAME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults() {
        let who = |euid, in_user_namespace| Identity {
            euid,
            in_user_namespace,
            session: Session::default(),
        };
        let cases = [
            (who(0, false), Some("/run/user/0"), "/run/fleet-nvidia"),
            (who(0, false), Some(""), "/run/fleet-nvidia"),
            (
                who(0, true),
                Some("/run/user/1000"),
                "/run/user/1000/fleet-nvidia",
            ),
            (
                who(1000, false),
                Some("/run/user/1000"),
                "/run/user/1000/fleet-nvidia",
            ),
            (
                who(1000, false),
                Some("relative"),
                "/run/user/1000/fleet-nvidia",
            ),
            (who(1000, false), None, "/run/user/1000/fleet-nvidia"),
        ];
        for (identity, xdg, want) in cases {
            assert_eq!(
                default_path(&identity, xdg),
                Path::new(want),
                "{identity:?} {xdg:?}"
            );
        }
    }

    #[test]
    fn identity_map() {
        assert!(is_identity("         0          0 4294967295\n"));
        assert!(!is_identity("0 1000 1\n"));
        assert!(!is_identity("0 0 4294967295\n1 1 1\n"));
    }

    #[test]
    fn ids_of_a_missing_root_are_empty() {
        let root = StateRoot {
            path: "/nonexistent-fleet-root".into(),
        };
        assert!(root.ids().unwrap().is_empty());
    }
}
