//! The container's cgroup: chosen, made, limited, frozen, killed and removed by us, on v1, hybrid (treated as v1)
//! and v2.
//!
//! libcontainer 0.7: takes an empty path for the root and kills what it finds there (S5), joins a cgroup that others
//! use (S6), enforces no device rules on v2 (S3), cannot remove nested cgroups. Here a path is absolute and checked,
//! a cgroup with processes in it is refused, and nothing is ever killed or removed that we did not make.

mod choose;
mod devices;
mod ebpf;
mod hierarchy;
mod limits;
mod processes;
mod stats;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use hierarchy::{Hierarchy, Version};

pub use choose::Request;

/// Who manages cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// We do, through the file system.
    Cgroupfs,
    /// systemd does.
    Systemd,
    /// Nobody: the container stays in its caller's cgroup.
    Disabled,
}

/// A cgroup operation that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// A path or value that cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// Somebody else's processes are in it.
    #[error(
        "cgroup `{0}` is not empty: other processes use it; hint: give the container a `linux.cgroupsPath` of its own"
    )]
    Busy(String),
    /// A file of the cgroup could not be read or written.
    #[error("{op} `{}`: {}", .path.display(), crate::error::errno_text(.source))]
    Io {
        /// What was tried.
        op: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The device program was refused.
    #[error("load the device program for cgroup `{path}`: {}", crate::error::errno_text(.source))]
    Devices {
        /// Cgroup.
        path: String,
        /// The cause.
        source: io::Error,
    },
}

pub(crate) type Result<T> = std::result::Result<T, CgroupError>;

fn io_error(op: &str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let (op, path) = (op.to_owned(), path.to_path_buf());
    move |source| CgroupError::Io { op, path, source }
}

/// Where a container's processes are accounted; stored in its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cgroup {
    /// Who manages it.
    pub driver: Driver,
    version: Version,
    /// Below every hierarchy's mount point, absolute.
    path: String,
    /// We made it, so we may kill in it and remove it.
    #[serde(default)]
    made: bool,
}

impl Cgroup {
    /// Decides where the cgroup is; touches nothing.
    ///
    /// # Errors
    /// A path that would reach processes other than the container's.
    pub fn choose(request: &Request<'_>) -> Result<Self> {
        choose::choose(request)
    }

    /// Path below every hierarchy's mount point.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the container has a cgroup of its own.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.made
    }

    fn leaves(&self) -> Result<Vec<(Hierarchy, PathBuf)>> {
        let all = hierarchy::all(self.version)?;
        Ok(all
            .into_iter()
            .map(|h| (h.clone(), h.leaf(&self.path)))
            .collect())
    }

    fn leaf(&self, controller: &str) -> Result<Option<PathBuf>> {
        Ok(self
            .leaves()?
            .into_iter()
            .find(|(h, _)| h.has(controller))
            .map(|(_, leaf)| leaf))
    }

    /// Makes the cgroup in every hierarchy. Where we may not, a rootless container goes without.
    ///
    /// # Errors
    /// [`CgroupError::Busy`], or what could not be made.
    pub fn create(&mut self, rootless: bool) -> Result<()> {
        if self.driver == Driver::Disabled {
            return Ok(());
        }
        let leaves = self.leaves()?;
        for (_, leaf) in &leaves {
            if leaf.is_dir() && !processes::of_tree(leaf)?.is_empty() {
                return Err(CgroupError::Busy(self.path.clone()));
            }
        }
        self.made = true;
        for (hierarchy, leaf) in &leaves {
            match hierarchy.make(&self.path) {
                Ok(()) => {}
                Err(err) if rootless && denied(&err) => {
                    // What was made in a hierarchy that we may write to goes again.
                    drop(self.remove());
                    self.made = false;
                    return Ok(());
                }
                Err(source) => {
                    drop(self.remove());
                    self.made = false;
                    return Err(io_error("create cgroup", leaf)(source));
                }
            }
        }
        Ok(())
    }

    /// Sets limits; absent ones are left alone.
    ///
    /// # Errors
    /// The file, value and cause.
    pub fn apply(&self, resources: &Value) -> Result<()> {
        limits::apply(self.version, &self.leaves()?, resources)
    }

    /// Sets the device rules (`runtime-spec config-linux.md#allowed-device-list`) on top of the default devices.
    ///
    /// # Errors
    /// A rule that is none, or a refusal by the kernel. Rootless, where only the owner of the machine may load a
    /// device program, rules are left out on v2, as with the peers.
    pub fn apply_devices(&self, rules: &[Value], rootless: bool) -> Result<()> {
        let rules = devices::Rules::from_spec(rules)?;
        match self.version {
            Version::V1 => match self.leaf("devices")? {
                Some(leaf) => devices::write_v1(&leaf, &rules),
                None => Ok(()),
            },
            Version::V2 => {
                let leaf = hierarchy::all(Version::V2)?
                    .first()
                    .map(|h| h.leaf(&self.path))
                    .unwrap_or_default();
                match ebpf::attach(&leaf, &rules) {
                    Err(err) if rootless && denied(&err) => Ok(()),
                    other => other.map_err(|source| CgroupError::Devices {
                        path: self.path.clone(),
                        source,
                    }),
                }
            }
        }
    }

    /// Changes limits of a running container. Without a `devices` list the device rules stay as they are.
    ///
    /// # Errors
    /// As [`Cgroup::apply`]; a container without a cgroup of its own has no limits to change.
    pub fn update(&self, resources: &Value) -> Result<()> {
        if !self.made {
            let asked = resources
                .as_object()
                .is_some_and(|all| all.values().any(|v| !v.is_null()));
            return if asked {
                Err(CgroupError::Invalid(
                    "the container has no cgroup of its own: there is nothing to limit".to_owned(),
                ))
            } else {
                Ok(())
            };
        }
        self.apply(resources)?;
        match resources.get("devices").and_then(Value::as_array) {
            Some(rules) if !rules.is_empty() => self.apply_devices(rules, false),
            _ => Ok(()),
        }
    }

    /// Where one more process of the container goes: on v2 the cgroup that its first process is in, since a workload
    /// that made cgroups of its own leaves the container's own unusable (`EBUSY`).
    #[must_use]
    pub fn exec_target(&self, init: i32) -> String {
        if self.version == Version::V1 {
            return self.path.clone();
        }
        let below = hierarchy::own_path(&format!("/proc/{init}/cgroup"), "");
        below
            .filter(|path| Path::new(path).starts_with(&self.path))
            .unwrap_or_else(|| self.path.clone())
    }

    /// Pids of all processes, nested cgroups included.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        if !self.made {
            return Ok(Vec::new());
        }
        let leaf = match self.version {
            Version::V1 => self.leaf("devices")?.or(self.leaf("pids")?),
            Version::V2 => self.leaves()?.into_iter().map(|(_, leaf)| leaf).next(),
        };
        leaf.map_or(Ok(Vec::new()), |leaf| processes::of_tree(&leaf))
    }

    /// Sends a signal to every process in the cgroup.
    ///
    /// # Errors
    /// A cgroup that cannot be read; a gone one is no error.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        if !self.made {
            return Ok(());
        }
        if signal == libc::SIGKILL && self.version == Version::V2 {
            let leaf = hierarchy::all(Version::V2)?
                .first()
                .map(|h| h.leaf(&self.path))
                .unwrap_or_default();
            if fs::write(leaf.join("cgroup.kill"), "1").is_ok() {
                return Ok(());
            }
        }
        // A frozen process takes its signal only once thawed; freezing first keeps forks from escaping the list.
        let was_frozen = self.is_frozen().unwrap_or(false);
        let froze = was_frozen || self.freeze().is_ok();
        let sent = self.processes().map(|pids| {
            pids.into_iter()
                .for_each(|pid| processes::signal(pid, signal))
        });
        if froze && (!was_frozen || signal == libc::SIGKILL) {
            drop(self.thaw());
        }
        sent
    }

    /// Stops every process, and waits until they are stopped.
    ///
    /// # Errors
    /// No freezer, or a process that would not stop in time.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)
    }

    /// Lets every process go on.
    ///
    /// # Errors
    /// No freezer.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn freezer(&self) -> Result<Option<PathBuf>> {
        Ok(match self.version {
            Version::V1 => self.leaf("freezer")?.map(|leaf| leaf.join("freezer.state")),
            Version::V2 => self
                .leaves()?
                .into_iter()
                .next()
                .map(|(_, leaf)| leaf.join("cgroup.freeze")),
        })
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let Some(file) = self.freezer()? else {
            return Err(CgroupError::Invalid(
                "the machine has no freezer cgroup".to_owned(),
            ));
        };
        let word = match (self.version, frozen) {
            (Version::V1, true) => "FROZEN",
            (Version::V1, false) => "THAWED",
            (Version::V2, true) => "1",
            (Version::V2, false) => "0",
        };
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            // v1 needs the write again while processes fork (kernel cgroup-v1/freezer-subsystem.rst).
            fs::write(&file, word).map_err(io_error("write", &file))?;
            if self.is_frozen()? == frozen {
                return Ok(());
            }
            if Instant::now() > end {
                drop(fs::write(
                    &file,
                    if self.version == Version::V1 {
                        "THAWED"
                    } else {
                        "0"
                    },
                ));
                return Err(CgroupError::Invalid(format!(
                    "cgroup `{}` did not freeze within 10 s",
                    self.path
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether every process is stopped.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        if !self.made {
            return Ok(false);
        }
        let Some(file) = self.freezer()? else {
            return Ok(false);
        };
        let file = if self.version == Version::V2 {
            file.with_file_name("cgroup.events")
        } else {
            file
        };
        let text = fs::read_to_string(&file).map_err(io_error("read", &file))?;
        Ok(text.trim() == "FROZEN" || text.lines().any(|line| line == "frozen 1"))
    }

    /// Removes the cgroup with all below it, once its processes are gone. A gone one is no error.
    ///
    /// # Errors
    /// A cgroup that stays busy.
    pub fn remove(&self) -> Result<()> {
        if !self.made {
            return Ok(());
        }
        self.leaves()?
            .iter()
            .try_for_each(|(_, leaf)| processes::remove_tree(leaf))
    }

    /// Statistics in runc's `events --stats` form.
    ///
    /// # Errors
    /// A container without a cgroup of its own.
    pub fn stats(&self) -> Result<Value> {
        if !self.made {
            return Err(CgroupError::Invalid(
                "the container has no cgroup of its own: there are no statistics".to_owned(),
            ));
        }
        Ok(stats::collect(self.version, &self.leaves()?))
    }

    /// How often the kernel killed a process of the container for want of memory.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn oom_kills(&self) -> Result<u64> {
        let Some(leaf) = self.leaf("memory")? else {
            return Ok(0);
        };
        let file = leaf.join(if self.version == Version::V1 {
            "memory.oom_control"
        } else {
            "memory.events"
        });
        let text = fs::read_to_string(&file).map_err(io_error("read", &file))?;
        Ok(text
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or(0))
    }
}

fn denied(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::EROFS)
    )
}
