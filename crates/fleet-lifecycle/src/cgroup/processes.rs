//! Processes of a cgroup tree: listing, signals, and removal once they are gone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::file::wait_for_line;
use super::hierarchy::Hierarchy;
use super::{CgroupError, Result, io_error};
use crate::sys::tail::{pidfd_open, pidfd_send_signal};

/// Rounds of listing and signalling while processes keep forking.
const ROUNDS: usize = 100;

/// Directories of a tree, children before parents.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        {
            all.extend(tree(&entry.path()));
        }
    }
    all.push(dir.to_path_buf());
    all
}

/// Pids in a tree; a cgroup that is gone has none. 0 stands for a process that our pid namespace does not show.
pub(super) fn of_tree(dir: &Path) -> Result<Vec<i32>> {
    let mut pids = BTreeSet::new();
    for dir in tree(dir) {
        let file = dir.join("cgroup.procs");
        match fs::read_to_string(&file) {
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            // The last: a threaded cgroup, whose processes are listed above it.
            Err(err)
                if matches!(
                    err.raw_os_error(),
                    Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)
                ) => {}
            Err(source) => return Err(io_error("read", &file)(source)),
        }
    }
    Ok(pids.into_iter().collect())
}

/// Pids in all hierarchies; each is listed once.
pub(super) fn of_all(leaves: &[(Hierarchy, PathBuf)]) -> Result<Vec<i32>> {
    let mut pids = BTreeSet::new();
    for (_, leaf) in leaves {
        pids.extend(of_tree(leaf)?);
    }
    Ok(pids.into_iter().collect())
}

/// Signals every process of the cgroup. When they are frozen one pass is all; else the list is read again until
/// nobody new is in it.
pub(super) fn signal_all(
    leaves: &[(Hierarchy, PathBuf)],
    path: &str,
    signal: i32,
    frozen: bool,
) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut refused = None;
    for _ in 0..ROUNDS {
        let fresh: Vec<i32> = of_all(leaves)?
            .into_iter()
            .filter(|pid| seen.insert(*pid))
            .collect();
        for pid in &fresh {
            match send(leaves, path, *pid, signal) {
                Err(err) if err.raw_os_error() != Some(libc::ESRCH) => {
                    let op = format!("send signal {signal} to process {pid} of cgroup");
                    refused.get_or_insert_with(|| io_error(&op, Path::new(path))(err));
                }
                _ => {}
            }
        }
        if frozen || fresh.is_empty() {
            break;
        }
    }
    refused.map_or(Ok(()), Err)
}

/// The descriptor holds on to one process, so that it is still the same after it was seen in the cgroup: a number
/// that was taken over by a stranger is never signalled.
fn send(leaves: &[(Hierarchy, PathBuf)], path: &str, pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 1 {
        return Ok(());
    }
    let process = pidfd_open(pid)?;
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let inside = leaves
        .iter()
        .filter_map(|(h, _)| h.place(&table))
        .any(|place| Path::new(&place).starts_with(path));
    if inside {
        pidfd_send_signal(process.as_fd(), signal)
    } else {
        Ok(())
    }
}

/// Removes a tree, waiting for processes that are on their way out.
pub(super) fn remove_tree(dir: &Path, end: Instant) -> Result<()> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut pause = Duration::from_micros(200);
    loop {
        match try_remove(dir) {
            Ok(()) => return Ok(()),
            Err(err) if err.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end => {}
            Err(err) if err.raw_os_error() == Some(libc::EBUSY) => {
                return Err(CgroupError::Invalid(format!(
                    "remove cgroup `{0}`: Device or resource busy; hint: a process that cannot be ended is in it, see `{0}/cgroup.procs`",
                    dir.display()
                )));
            }
            Err(source) => return Err(io_error("remove cgroup", dir)(source)),
        }
        if of_tree(dir)?.contains(&own) {
            return Err(CgroupError::Invalid(format!(
                "remove cgroup `{}`: we are in it",
                dir.display()
            )));
        }
        // v2 tells when the last one is gone; on v1 only trying again does.
        if !matches!(
            wait_for_line(&dir.join("cgroup.events"), "populated 0", end),
            Ok(false)
        ) {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

fn try_remove(dir: &Path) -> io::Result<()> {
    for dir in tree(dir) {
        match fs::remove_dir(&dir) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
    }
    Ok(())
}
