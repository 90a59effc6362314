//! Processes that are born in the container's cgroup.
//!
//! A process may be moved only by who may write to the cgroup above both places (kernel `cgroup-v2.rst`, "Delegation
//! Containment"). A user's login lies outside of what the user's systemd was given, so from there nothing can be moved
//! into a scope of it, but by systemd. Then a child of ours is moved by it, and makes the process there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{AccessFlags, ForkResult, Pid, access, pipe2};

use super::hierarchy::{self, Version};
use super::{Cgroup, systemd};
use crate::error::{Context, Error, Result};
use crate::sys::process;

impl Cgroup {
    /// Runs `make`, which makes a process and gives its pid, where that process can be in this cgroup.
    ///
    /// # Errors
    /// Those of `make`, as [`Error::Setup`] where it ran in a child; what systemd has against the move.
    pub fn inside(&self, make: impl FnOnce() -> Result<i32>) -> Result<i32> {
        match (&self.manager, self.scope()) {
            (Some(manager), Some(unit)) if manager.user && self.made && !self.reachable() => {
                in_child(make, |child| {
                    Ok(systemd::attach(manager, unit, child.as_raw())?)
                })
            }
            _ => make(),
        }
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

/// What the child reports: the pid, or why there is none.
fn in_child(
    make: impl FnOnce() -> Result<i32>,
    attach: impl FnOnce(Pid) -> Result<()>,
) -> Result<i32> {
    let (wait, go) = pipe2(OFlag::O_CLOEXEC).op(|| "make a pipe")?;
    let (result, report) = pipe2(OFlag::O_CLOEXEC).op(|| "make a pipe")?;
    // The new process outlives the child, and becomes ours then.
    process::set_subreaper(true).op(|| "become a subreaper")?;
    match process::fork().op(|| "fork")? {
        ForkResult::Child => {
            drop((go, result));
            work(make, wait, report)
        }
        ForkResult::Parent { child } => {
            drop((wait, report));
            let attached = attach(child);
            // Without a word the child ends.
            let told = attached.and_then(|()| {
                File::from(go)
                    .write_all(b"go")
                    .op(|| "talk to the own child")
            });
            let mut text = String::new();
            let read = File::from(result).read_to_string(&mut text);
            let _ = waitpid(child, None);
            process::set_subreaper(false).op(|| "stop being a subreaper")?;
            told?;
            read.op(|| "read from the own child")?;
            match text.parse() {
                Ok(pid) => Ok(pid),
                Err(_) if text.is_empty() => Err(Error::Setup(
                    "the process that makes the container died".to_owned(),
                )),
                Err(_) => Err(Error::Setup(text)),
            }
        }
    }
}

fn work(make: impl FnOnce() -> Result<i32>, wait: OwnedFd, report: OwnedFd) -> ! {
    let mut word = Vec::new();
    let told = File::from(wait).read_to_end(&mut word);
    if told.is_err() || word.is_empty() {
        process::leave(1);
    }
    let text = match make() {
        Ok(pid) => pid.to_string(),
        Err(err) => err.to_string(),
    };
    drop(File::from(report).write_all(text.as_bytes()));
    process::leave(0)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_child_reports() {
        let parent = std::process::id();
        let pid = in_child(
            || Ok(i32::try_from(std::process::id()).unwrap_or(0)),
            |_| Ok(()),
        );
        assert_ne!(u32::try_from(pid.unwrap()).unwrap(), parent);
        let failed = in_child(|| Err(Error::Setup("in there".to_owned())), |_| Ok(()));
        assert_eq!(failed.unwrap_err().to_string(), "in there");
        let refused = in_child(|| Ok(1), |_| Err(Error::Setup("not moved".to_owned())));
        assert_eq!(refused.unwrap_err().to_string(), "not moved");
    }
}
