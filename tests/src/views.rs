//! Tests that run once more in another view of the machine.

use std::path::Path;
use std::process::Command;

use crate::{run, skip};

const WITHIN: &str = "FLEET_V2_VIEW";

/// Runs the body of a test, which is named with its module, in a mount namespace where cgroup v2 is the only one.
#[track_caller]
pub fn on_cgroup_v2(test: &str, body: impl FnOnce(&str)) {
    if std::env::var_os(WITHIN).is_some() {
        return body(test);
    }
    let bind = match (
        Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists(),
        Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
    ) {
        (true, _) => "mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup && ",
        (false, true) => "",
        (false, false) => return skip(test, "the machine has no cgroup2 file system"),
    };
    let exe = std::env::current_exe().expect("own path");
    let script = format!("{bind}exec \"$0\" --exact \"$1\" --nocapture");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    let out = run(unshare.arg(exe).arg(test).env(WITHIN, "1"));
    assert_eq!(out.code, 0, "{out:#?}");
    assert!(out.stdout.contains("1 passed"), "{out:#?}");
}

/// Whether a controller is at hand, in a hierarchy of its own or in that of cgroup v2; where it is not, the test is skipped.
#[must_use]
pub fn controllers(test: &str, wanted: &[&str]) -> bool {
    let all = Path::new("/sys/fs/cgroup");
    let unified = std::fs::read_to_string(all.join("cgroup.controllers")).unwrap_or_default();
    let is_there = |name: &&str| {
        let own = all.join(name).join("cgroup.procs").exists();
        own || unified.split_whitespace().any(|word| word == *name)
    };
    match wanted.iter().find(|name| !is_there(name)) {
        Some(name) => {
            skip(
                test,
                &format!("the cgroups in view have no {name} controller"),
            );
            false
        }
        None => true,
    }
}
