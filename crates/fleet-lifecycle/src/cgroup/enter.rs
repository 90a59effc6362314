//! How a process of ours gets into the container's cgroup, so that what it makes is born there.
//!
//! Writing a pid to `cgroup.procs` waits for every CPU to pass a quiet point (the kernel's global threadgroup lock),
//! which takes milliseconds; the library does just that. Two ways do not: on v2 a process is made inside the cgroup
//! (`CLONE_INTO_CGROUP`, `man 2 clone3`), on v1 a process with one thread moves itself by way of `tasks`.
//!
//! A process may be moved only by who may write to the cgroup above both places (kernel `cgroup-v2.rst`, "Delegation
//! Containment"). A user's login lies outside of what the user's systemd was given, so from there nothing can be moved
//! into a scope of it, but by systemd.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{AccessFlags, ForkResult, Pid, access, pipe2};

use super::file::put;
use super::hierarchy::{self, Version};
use super::systemd::{self, Manager};
use super::{Cgroup, io_error};
use crate::error::{Context, Result};
use crate::sys::process;

/// The ways into a cgroup.
#[derive(Debug)]
pub(crate) struct Doors {
    version: Version,
    leaves: Vec<PathBuf>,
    /// Only systemd can move a process there: whom to ask, the unit, and whether the cgroup is one below it.
    by_manager: Option<(Manager, String, bool)>,
}

/// What is left for a forked child to do.
#[derive(Debug)]
pub(crate) enum Way {
    /// It was made inside.
    Inside,
    /// It moves itself.
    ByItself,
    /// It waits for a word on this pipe: systemd moves it.
    Moved(File),
}

impl Cgroup {
    /// The ways into the cgroup at `path`, the container's own or one below it; `None` without one.
    ///
    /// # Errors
    /// A mount table that cannot be read.
    pub(crate) fn doors(&self, path: &str) -> super::Result<Option<Doors>> {
        let Some(leaves) = self.owned()? else {
            return Ok(None);
        };
        let by_manager = match (&self.manager, self.scope()) {
            (Some(manager), Some(unit)) if manager.user && !self.reachable() => {
                Some((manager.clone(), unit.to_owned(), path != self.path()))
            }
            _ => None,
        };
        Ok(Some(Doors {
            version: self.version,
            leaves: leaves.iter().map(|(h, _)| h.leaf(path)).collect(),
            by_manager,
        }))
    }

    /// Whether we may move processes of ours into the cgroup.
    fn reachable(&self) -> bool {
        let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let all = hierarchy::of_leaf(Version::V2).unwrap_or_default();
        let Some(hierarchy) = all.first() else {
            return true;
        };
        let own = hierarchy.place(&table).unwrap_or_else(|| "/".to_owned());
        let procs = |path: &str| hierarchy.leaf(path).join("cgroup.procs");
        let above = common(Path::new(&own), Path::new(self.path()));
        [procs(&above.to_string_lossy()), procs(self.path())]
            .iter()
            .all(|file| access(file, AccessFlags::W_OK).is_ok())
    }
}

/// The nearest cgroup above both.
fn common(one: &Path, other: &Path) -> PathBuf {
    one.components()
        .zip(other.components())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a)
        .collect()
}

impl Doors {
    /// The cgroup's directory in each hierarchy.
    pub(crate) fn leaves(&self) -> &[PathBuf] {
        &self.leaves
    }

    /// Whether nobody but systemd can move a process into the cgroup.
    pub(crate) fn need_the_manager(&self) -> bool {
        self.by_manager.is_some()
    }

    /// Forks; the child must call [`Doors::enter`] with what is returned beside.
    ///
    /// # Errors
    /// As `man 2 fork`; what systemd has against the move.
    pub(crate) fn fork(&self) -> Result<(ForkResult, Way)> {
        if let Some((manager, unit, _)) = &self.by_manager {
            return fork_moved(|child| Ok(systemd::attach(manager, unit, child.as_raw())?));
        }
        let unified = self.leaves.first().filter(|_| self.version == Version::V2);
        if let Some(dir) = unified.and_then(|dir| File::open(dir).ok()) {
            // An old kernel, a filter that knows no clone3, a cgroup that takes no process: the slow way tells.
            if let Ok(result) = process::fork_into(dir.as_fd()) {
                return Ok((result, Way::Inside));
            }
        }
        let result = process::fork().op(|| "fork")?;
        Ok((result, Way::ByItself))
    }

    /// The child's part.
    ///
    /// # Errors
    /// The file that refused it.
    pub(crate) fn enter(&self, way: Way) -> Result<()> {
        let below = match way {
            Way::Inside => return Ok(()),
            Way::ByItself => true,
            Way::Moved(word) => {
                wait_for_word(word);
                self.by_manager.as_ref().is_some_and(|(_, _, below)| *below)
            }
        };
        for leaf in self.leaves.iter().filter(|_| below) {
            if self.version == Version::V1 && move_thread(leaf).is_ok() {
                continue;
            }
            let file = leaf.join("cgroup.procs");
            put(&file, "0").map_err(io_error("move a process with", &file))?;
        }
        Ok(())
    }
}

/// `0` is the writer; only then does the kernel not wait.
fn move_thread(leaf: &Path) -> io::Result<()> {
    let mut tasks = OpenOptions::new().write(true).open(leaf.join("tasks"))?;
    tasks.write_all(b"0")
}

/// Forks a child that goes on once `attach` has moved it, and ends without a word if that failed.
fn fork_moved(attach: impl FnOnce(Pid) -> Result<()>) -> Result<(ForkResult, Way)> {
    let (wait, go) = pipe2(OFlag::O_CLOEXEC).op(|| "make a pipe")?;
    match process::fork().op(|| "fork")? {
        ForkResult::Child => {
            drop(go);
            Ok((ForkResult::Child, Way::Moved(wait.into())))
        }
        ForkResult::Parent { child } => {
            drop(wait);
            let told = attach(child).and_then(|()| {
                File::from(go)
                    .write_all(b"go")
                    .op(|| "talk to the own child")
            });
            if let Err(err) = told {
                let _ = nix::sys::wait::waitpid(child, None);
                return Err(err);
            }
            Ok((ForkResult::Parent { child }, Way::Inside))
        }
    }
}

/// A pipe that ends without a word: the child was not moved.
fn wait_for_word(mut pipe: File) {
    let mut word = [0; 2];
    if !matches!(pipe.read(&mut word), Ok(length) if length > 0) {
        process::leave(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn nearest_above_both() {
        for (one, other, want) in [
            ("/a/b", "/a/c", "/a"),
            ("/a", "/b", "/"),
            ("/a/b", "/a/b/c", "/a/b"),
            ("/", "/x", "/"),
        ] {
            assert_eq!(common(Path::new(one), Path::new(other)), Path::new(want));
        }
    }

    #[test]
    fn a_child_that_cannot_be_moved_ends() {
        let refused = fork_moved(|_| Err(Error::Setup("not moved".to_owned())));
        match refused {
            Ok((ForkResult::Child, way)) => {
                if let Way::Moved(word) = way {
                    wait_for_word(word);
                }
                process::leave(0)
            }
            other => assert_eq!(other.unwrap_err().to_string(), "not moved"),
        }
    }
}
