//! What is there besides the test: processes, cgroups of every controller, mounts, descriptors, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Everything that a container could leave behind, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Census(BTreeSet<String>);

impl Census {
    /// Counts now.
    pub(crate) fn take() -> Self {
        let mut all = BTreeSet::new();
        all.extend(processes());
        let cgroup = std::env::var("FLEET_TEST_CGROUP").expect("run inside tests/isolate");
        for dir in fleet_tests::cgroup_dirs(&cgroup) {
            below(&dir, "cgroup", &mut all);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read mountinfo");
        all.extend(mounts.lines().map(|line| format!("mount {line}")));
        for entry in fs::read_dir("/proc/self/fd")
            .expect("list descriptors")
            .flatten()
        {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            // The directory that is being read.
            if !target.ends_with("fd") {
                all.insert(format!(
                    "descriptor {:?} {}",
                    entry.file_name(),
                    target.display()
                ));
            }
        }
        for dir in ["/run", "/dev/shm"] {
            below(Path::new(dir), "file", &mut all);
        }
        Self(all)
    }

    /// Asserts that nothing came since; what is on its way out has a moment to go.
    #[track_caller]
    pub(crate) fn assert_nothing_new(&self, context: &str) {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let now = Self::take();
            let new: Vec<&String> = now.0.difference(&self.0).collect();
            if new.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "{context}: left behind: {new:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asserts the same of processes, without a moment for them to go.
    #[track_caller]
    pub(crate) fn assert_no_process_now(&self, context: &str) {
        let new: Vec<String> = processes()
            .into_iter()
            .filter(|line| !self.0.contains(line))
            .collect();
        assert!(new.is_empty(), "{context}: still there: {new:#?}");
    }
}

fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("list /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let state = stat
            .rsplit_once(") ")
            .map_or("", |(_, rest)| &rest[..1])
            .to_owned();
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let zombie = if state == "Z" { " zombie" } else { "" };
        Some(format!("process {pid} {}{zombie}", comm.trim_end()))
    })
    .collect()
}

fn below(dir: &Path, kind: &str, all: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if directory || kind == "file" {
            all.insert(format!("{kind} {}", entry.path().display()));
        }
        if directory {
            below(&entry.path(), kind, all);
        }
    }
}
