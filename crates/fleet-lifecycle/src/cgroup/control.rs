//! The cgroup of a container that runs: its processes, pausing, killing, numbers, and its end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::error::{Result, io_error};
use super::file::put;
use super::freezer::Freezer;
use super::hierarchy::{self, Version};
use super::{Cgroup, CgroupError, Leaves, processes, stats};

/// How long `pause` may take.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);
/// How long processes are given to stop before they are signalled: one that hangs in a driver never does.
const KILL_PATIENCE: Duration = Duration::from_secs(1);
/// How long processes that were killed may take to leave.
const REMOVE_PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Moves a process into the cgroup, in every hierarchy.
    ///
    /// # Errors
    /// The hierarchy that refused it.
    pub fn add_process(&self, pid: i32) -> Result<()> {
        let Some(leaves) = self.owned()? else {
            return Ok(());
        };
        leaves.iter().try_for_each(|(_, leaf)| {
            let file = leaf.join("cgroup.procs");
            put(&file, &pid.to_string()).map_err(io_error(&format!("write \"{pid}\" to"), &file))
        })
    }

    /// Where one more process of the container goes. On v2, a workload that passed controllers on to cgroups of its
    /// own leaves the container's own unusable (`EBUSY`, kernel `cgroup-v2.rst` "No Internal Process Constraint"):
    /// then it is the one that the container's first process is in.
    #[must_use]
    pub fn exec_target(&self, init: i32) -> String {
        self.first_process_place(init)
            .unwrap_or_else(|| self.path.clone())
    }

    fn first_process_place(&self, init: i32) -> Option<String> {
        if self.version == Version::V1 {
            return None;
        }
        let leaves = self.owned().ok()??;
        let (_, leaf) = leaves.first()?;
        let passed_on = fs::read_to_string(leaf.join("cgroup.subtree_control")).ok()?;
        if passed_on.trim().is_empty() {
            return None;
        }
        let table = fs::read_to_string(format!("/proc/{init}/cgroup")).ok()?;
        let hierarchies = hierarchy::all(self.version).ok()?;
        hierarchies
            .first()?
            .place(&table)
            .filter(|place| Path::new(place).starts_with(&self.path))
    }

    /// Pids of all processes, nested cgroups included, as our pid namespace numbers them.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let pids = self
            .owned()?
            .map_or(Ok(Vec::new()), |leaves| processes::of_all(&leaves))?;
        Ok(pids.into_iter().filter(|pid| *pid > 0).collect())
    }

    /// As [`Cgroup::owned`], for what ends processes: never with ourselves among them.
    fn owned_by_others(&self, verb: &str) -> Result<Option<(Leaves, Vec<i32>)>> {
        let Some(leaves) = self.owned()? else {
            return Ok(None);
        };
        let pids = processes::of_all(&leaves)?;
        if pids
            .iter()
            .any(|pid| u32::try_from(*pid) == Ok(std::process::id()))
        {
            return Err(CgroupError::Invalid(format!(
                "{verb} cgroup `{}`: we are in it",
                self.path
            )));
        }
        Ok(Some((leaves, pids)))
    }

    /// Sends a signal to every process in the cgroup. Paused ones handle it once resumed, but SIGKILL ends them; on v2
    /// so does any signal that they do not handle.
    ///
    /// # Errors
    /// A cgroup that cannot be read, or that we are in; a process that may not be signalled. A gone cgroup is no error.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        let Some((leaves, pids)) = self.owned_by_others("signal the processes of")? else {
            return Ok(());
        };
        if pids.is_empty() {
            return Ok(());
        }
        let fatal = signal == libc::SIGKILL;
        if let (true, Version::V2, Some((_, leaf))) = (fatal, self.version, leaves.first()) {
            // Since 5.14; it takes frozen and nested processes, too, and none escapes by forking.
            if put(&leaf.join("cgroup.kill"), "1").is_ok() {
                return Ok(());
            }
        }
        let freezer = Freezer::find(self.version, &leaves);
        let paused = freezer
            .as_ref()
            .is_some_and(|f| f.is_frozen().unwrap_or(false));
        let stopped = paused
            || freezer
                .as_ref()
                .is_some_and(|f| f.freeze(KILL_PATIENCE).is_ok());
        let sent = processes::signal_all(&leaves, &self.path, signal, stopped);
        if let Some(freezer) = freezer.filter(|_| stopped && (fatal || !paused)) {
            // What stays frozen does not die.
            freezer.thaw().or_else(|_| freezer.thaw())?;
        }
        sent
    }

    fn freezer(&self) -> Result<Freezer> {
        let leaves = self.owned()?;
        leaves
            .and_then(|leaves| Freezer::find(self.version, &leaves))
            .ok_or_else(|| {
                CgroupError::Invalid(if self.made {
                    "the machine has no freezer cgroup controller".to_owned()
                } else {
                    "the container has no cgroup of its own: it cannot be paused".to_owned()
                })
            })
    }

    /// Stops every process, and waits until they are stopped.
    ///
    /// # Errors
    /// No freezer, or a process that would not stop within ten seconds; then all go on.
    pub fn freeze(&self) -> Result<()> {
        self.freezer()?.freeze(FREEZE_PATIENCE)
    }

    /// Lets every process go on.
    ///
    /// # Errors
    /// No freezer.
    pub fn thaw(&self) -> Result<()> {
        self.freezer()?.thaw()
    }

    /// Whether [`Cgroup::freeze`], or another's like request, is in force.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        if !self.made {
            return Ok(false);
        }
        if let (Version::V1, Some(freezer)) = (self.version, Freezer::guess(&self.path)) {
            return freezer.is_frozen();
        }
        match self
            .owned()?
            .and_then(|leaves| Freezer::find(self.version, &leaves))
        {
            Some(freezer) => freezer.is_frozen(),
            None => Ok(false),
        }
    }

    /// The directory whose files stop the container's processes; `None` on a machine without a freezer.
    ///
    /// # Errors
    /// A mount table that cannot be read.
    pub(crate) fn freezer_directory(&self) -> Result<Option<PathBuf>> {
        let leaves = self.owned()?.unwrap_or_default();
        let found = leaves.iter().find(|(h, _)| h.has("freezer"));
        Ok(found.map(|(_, leaf)| leaf.clone()))
    }

    /// Removes the cgroup with all below it, once its processes are gone. A gone one is no error.
    ///
    /// # Errors
    /// A cgroup that stays busy for ten seconds, or that we are in. The other hierarchies are cleaned even so.
    pub fn remove(&self) -> Result<()> {
        if self.announced && !self.made {
            self.remove_empty();
        }
        let Some(leaves) = self.owned()? else {
            return Ok(());
        };
        self.end_unit(&leaves);
        let end = Instant::now() + REMOVE_PATIENCE;
        let results: Vec<Result<()>> = leaves
            .iter()
            .map(|(_, leaf)| processes::remove_tree(leaf, end))
            .collect();
        results.into_iter().collect()
    }

    /// Whoever was to make it was killed meanwhile: nobody of ours is in it yet, and others stay.
    fn remove_empty(&self) {
        let Ok(leaves) = self.checked_leaves() else {
            return;
        };
        for (_, leaf) in leaves.iter() {
            drop(fs::remove_dir(leaf));
        }
    }

    /// Statistics in runc's `events --stats` form.
    ///
    /// # Errors
    /// A container without a cgroup of its own.
    pub fn stats(&self) -> Result<Value> {
        match self.owned()? {
            Some(leaves) => Ok(stats::collect(self.version, &leaves)),
            None => Err(CgroupError::Invalid(
                "the container has no cgroup of its own: there are no statistics".to_owned(),
            )),
        }
    }

    /// How often the kernel killed a process of the container for want of memory.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn oom_kills(&self) -> Result<u64> {
        let leaves = self.owned()?;
        let Some((_, leaf)) = leaves
            .as_ref()
            .and_then(|all| all.iter().find(|(h, _)| h.has("memory")))
        else {
            return Ok(0);
        };
        let file = leaf.join(if self.version == Version::V1 {
            "memory.oom_control"
        } else {
            "memory.events"
        });
        match fs::read_to_string(&file) {
            Ok(text) => {
                let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
                Ok(count.and_then(|n| n.trim().parse().ok()).unwrap_or(0))
            }
            // v2 without the memory controller.
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(io_error("read", &file)(source)),
        }
    }
}
