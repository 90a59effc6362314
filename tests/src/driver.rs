//! The user space of NVIDIA's driver, as Debian's packages have it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{path, run, skip};

/// The directory with the unpacked packages below `root` and their list in `files`; nothing, loudly, where they cannot be
/// had.
#[must_use]
pub fn unpacked(test: &str) -> Option<PathBuf> {
    let dir = path("FLEET_STATE").join("driver");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("setup/driver.sh");
    let out = run(Command::new(script).arg(&dir));
    if out.code == 0 {
        return Some(dir);
    }
    let why = out.stderr.trim().lines().last();
    let why = why.unwrap_or("no reason given");
    skip(
        test,
        &format!("Debian's driver packages cannot be had: {why}"),
    );
    None
}
