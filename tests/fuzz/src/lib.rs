//! Places that targets need.

use std::path::PathBuf;

/// The CDI specs of the repository, from which requests are resolved.
#[must_use]
pub fn cdi_dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../cdi/vendors"))
}

/// A directory of this process, in memory.
#[must_use]
pub fn scratch(name: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(format!("fleet-fuzz-{name}-{}", std::process::id()))
}
