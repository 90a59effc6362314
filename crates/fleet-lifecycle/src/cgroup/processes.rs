//! Processes of a cgroup tree, and its removal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::{Result, io_error};
use crate::sys::tail::{pidfd_open, pidfd_send_signal};

/// How long processes that were killed may take to leave.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// Pids in a tree; a cgroup that is gone has none.
pub(super) fn of_tree(dir: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for dir in tree(dir) {
        let file = dir.join("cgroup.procs");
        match fs::read_to_string(&file) {
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            Err(err)
                if matches!(
                    err.raw_os_error(),
                    Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)
                ) => {}
            Err(source) => return Err(io_error("read", &file)(source)),
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Pid 0 stands for a process of another pid namespace: it cannot be named from here.
pub(super) fn signal(pid: i32, signal: i32) {
    if pid <= 1 {
        return;
    }
    match pidfd_open(pid) {
        Ok(process) => drop(pidfd_send_signal(
            std::os::fd::AsFd::as_fd(&process),
            signal,
        )),
        Err(err) if err.raw_os_error() == Some(libc::ENOSYS) => {
            let _ = nix::sys::signal::Signal::try_from(signal)
                .map(|signal| kill(Pid::from_raw(pid), signal));
        }
        Err(_) => {}
    }
}

/// Removes a tree, waiting for processes that are on their way out.
pub(super) fn remove_tree(dir: &Path) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(200);
    loop {
        match try_remove(dir) {
            Ok(()) => return Ok(()),
            Err(err) if err.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Err(source) => return Err(io_error("remove cgroup", dir)(source)),
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
