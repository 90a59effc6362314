//! CRIU for the tests: the one that the setup has unpacked, in the place where the runtime looks first.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::{path, run, skip};

/// Where it is put, in the isolated run's own mounts.
const PLACE: &str = "/usr/local/sbin";

/// Whether CRIU works here; without it the test is skipped.
#[must_use]
pub fn criu(test: &str) -> bool {
    static FAILED: OnceLock<Option<String>> = OnceLock::new();
    let failed = FAILED.get_or_init(|| {
        let unpacked = path("FLEET_STATE").join("criu/bin");
        if unpacked.join("criu").exists() {
            let mut mount = Command::new("mount");
            drop(run(mount.arg("--bind").arg(unpacked).arg(PLACE)).ok());
        }
        if run(Command::new("which").arg("criu")).code != 0 {
            return Some("criu is not installed".to_owned());
        }
        let check = run(Command::new("criu").arg("check"));
        let said = check.stderr.lines().last().unwrap_or_default().to_owned();
        (check.code != 0).then(|| format!("`criu check` fails: {said}"))
    });
    if let Some(reason) = failed {
        skip(test, reason);
    }
    failed.is_none()
}

/// The command in a world without CRIU, or with a program of this text in its place.
#[must_use]
pub fn with_another(command: &Command, text: Option<&str>) -> Command {
    let dir = Path::new("/run").join(crate::unique("criu"));
    fs::create_dir_all(&dir).expect("mkdir");
    fs::write(dir.join("nothing"), "").expect("write");
    let mut script = format!(
        "set -e; cd {}; mount -t tmpfs none {PLACE}; ",
        dir.display()
    );
    script.push_str("for dir in /usr/local/bin /usr/sbin /usr/bin; do [ ! -e $dir/criu ] || mount --bind nothing $dir/criu; done; ");
    if let Some(text) = text {
        fs::write(dir.join("criu"), format!("#!/bin/sh\n{text}\n")).expect("write");
        script.push_str(&format!("cp criu {PLACE}/; chmod 755 {PLACE}/criu; "));
    }
    script.push_str("exec \"$@\"");
    let mut other = Command::new("unshare");
    other.args(["--mount", "sh", "-c", &script, "sh"]);
    other.arg(command.get_program()).args(command.get_args());
    other
}
