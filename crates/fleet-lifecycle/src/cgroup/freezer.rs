//! Stopping all processes of a cgroup, and letting them go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::file::{put, wait_for_line};
use super::hierarchy::{Hierarchy, Version};
use super::{CgroupError, Result, io_error};

/// After so many tries a v1 cgroup is let go for a moment: one in which processes keep appearing may not freeze
/// otherwise (`opencontainers/cgroups fs/freezer.go`).
const TRIES_BEFORE_THAW: u32 = 50;

/// The freezer files of a cgroup.
#[derive(Debug)]
pub(super) struct Freezer {
    version: Version,
    leaf: PathBuf,
}

impl Freezer {
    /// `None` on a machine without one.
    pub(super) fn find(version: Version, leaves: &[(Hierarchy, PathBuf)]) -> Option<Self> {
        let (_, leaf) = leaves.iter().find(|(h, _)| h.has("freezer"))?;
        Some(Self {
            version,
            leaf: leaf.clone(),
        })
    }

    /// The freezer where every distribution mounts it, when the cgroup is there: `state` is asked often, and the
    /// mount table of a busy machine is long. Only a freezer hierarchy has this file.
    pub(super) fn guess(path: &str) -> Option<Self> {
        let leaf = Path::new("/sys/fs/cgroup/freezer").join(path.trim_start_matches('/'));
        leaf.join("freezer.self_freezing").exists().then_some(Self {
            version: Version::V1,
            leaf,
        })
    }

    /// Whether [`Freezer::freeze`], or another's like request to this very cgroup, is in force. Not what the kernel
    /// reports: a cgroup above may be frozen, which no `resume` of ours would change, and on v2 the report flickers
    /// when a thawed cgroup is frozen again at once.
    pub(super) fn is_frozen(&self) -> Result<bool> {
        let asked = match self.version {
            Version::V1 => "freezer.self_freezing",
            Version::V2 => "cgroup.freeze",
        };
        Ok(self.read(asked)?.trim() == "1")
    }

    /// Stops every process and waits until they are stopped; gives up, and lets them go on, after `patience`. A
    /// process that hangs in a driver cannot be stopped.
    pub(super) fn freeze(&self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        let frozen = match self.version {
            Version::V1 => self.freeze_v1(end),
            Version::V2 => self.freeze_v2(end),
        };
        match frozen {
            Ok(true) => Ok(()),
            other => {
                drop(self.thaw());
                other.and_then(|_| {
                    Err(CgroupError::Invalid(format!(
                        "cgroup `{}` did not freeze within {} s: a process in it cannot be stopped",
                        self.leaf.display(),
                        patience.as_secs()
                    )))
                })
            }
        }
    }

    fn freeze_v1(&self, end: Instant) -> Result<bool> {
        let mut pause = Duration::from_micros(10);
        for turn in 1_u32.. {
            self.write("freezer.state", "FROZEN")?;
            if self.read("freezer.state")?.trim() == "FROZEN" {
                return Ok(true);
            }
            if Instant::now() > end {
                break;
            }
            if turn % TRIES_BEFORE_THAW == 0 {
                self.write("freezer.state", "THAWED")?;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
        Ok(false)
    }

    fn freeze_v2(&self, end: Instant) -> Result<bool> {
        self.write("cgroup.freeze", "1")?;
        let events = self.leaf.join("cgroup.events");
        wait_for_line(&events, "frozen 1", end).map_err(io_error("read", &events))
    }

    /// Lets every process go on.
    pub(super) fn thaw(&self) -> Result<()> {
        match self.version {
            Version::V1 => self.write("freezer.state", "THAWED"),
            Version::V2 => self.write("cgroup.freeze", "0"),
        }
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let file = self.leaf.join(file);
        put(&file, value).map_err(io_error(&format!("write \"{value}\" to"), &file))
    }

    fn read(&self, file: &str) -> Result<String> {
        let file = self.leaf.join(file);
        fs::read_to_string(&file).map_err(io_error("read", &file))
    }
}
