//! Processes that have a GPU open now.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde::Serialize;

use super::gpu::{DevNum, Gpu};

/// A process with a GPU open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Process {
    /// In the namespace that we run in.
    pub(crate) pid: u32,
    /// `comm` of `man 5 proc_pid_comm`.
    pub(crate) command: String,
    /// Its cgroup.
    pub(crate) cgroup: String,
    #[serde(skip)]
    pub(crate) device: DevNum,
}

/// Looks at the descriptors of all processes; those of other users are seen by root alone.
pub(crate) fn with_open(gpus: &[Gpu]) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let dir = entry.path();
        let mut open = devices(&dir);
        open.sort_unstable();
        open.dedup();
        for device in open {
            if gpus.iter().any(|gpu| gpu.device == device) {
                found.push(Process {
                    pid,
                    command: text(&dir.join("comm")),
                    cgroup: cgroup(&text(&dir.join("cgroup"))),
                    device,
                });
            }
        }
    }
    found.sort_by_key(|process| process.pid);
    found
}

fn devices(dir: &Path) -> Vec<DevNum> {
    let open = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten();
    // The links of /proc lead to the open file itself, also out of another mount namespace.
    let metas = open.filter_map(|entry| fs::metadata(entry.path()).ok());
    let nodes = metas.filter(|meta| meta.file_type().is_char_device());
    nodes
        .filter_map(|meta| {
            Some(DevNum {
                major: i64::try_from(major(meta.rdev())).ok()?,
                minor: i64::try_from(minor(meta.rdev())).ok()?,
            })
        })
        .collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

/// `man 7 cgroups`, /proc/PID/cgroup: the v2 line, or that of the v1 devices controller.
fn cgroup(text: &str) -> String {
    let controllers = |line: &str| line.split(':').nth(1).map(str::to_owned);
    let mut lines = text.lines().filter_map(|line| {
        let names = controllers(line)?;
        let path = line.splitn(3, ':').nth(2)?;
        Some((names, path))
    });
    let mut unified = "";
    let devices = lines.find_map(|(names, path)| {
        if names.is_empty() {
            unified = path;
        }
        names
            .split(',')
            .any(|name| name == "devices")
            .then_some(path)
    });
    devices.unwrap_or(unified).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_that_controls_devices_counts() {
        assert_eq!(cgroup("0::/user.slice/x\n"), "/user.slice/x");
        assert_eq!(cgroup("5:memory:/m\n4:devices:/d:e\n0::/u\n"), "/d:e");
        assert_eq!(cgroup(""), "");
    }

    #[test]
    fn an_open_device_is_found() {
        let null = fs::File::open("/dev/null").unwrap();
        let gpu = Gpu {
            device: DevNum { major: 1, minor: 3 },
            path: "/dev/null".to_owned(),
            uuid: None,
            model: None,
            bus: None,
            names: Vec::new(),
        };
        let found = with_open(&[gpu]);
        drop(null);
        assert!(
            found
                .iter()
                .any(|process| process.pid == std::process::id())
        );
    }
}
