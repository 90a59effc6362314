//! A root file system for a machine without images: the runtime's static binary, and the places it mounts on.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Goes away with its value.
#[derive(Debug)]
pub(super) struct Root(PathBuf);

/// The program's path inside.
pub(super) const PROGRAM: &str = "/fleet-nvidia";

impl Root {
    pub(super) fn new(program: &Path) -> io::Result<Self> {
        let dir = std::env::temp_dir().join(super::unique());
        // Not one that somebody else made before: /tmp is everybody's.
        DirBuilder::new().mode(0o755).create(&dir)?;
        let root = Self(dir);
        for name in ["dev", "etc", "proc", "sys", "run", "tmp", "usr", "var"] {
            DirBuilder::new().mode(0o755).create(root.0.join(name))?;
        }
        fs::copy(program, root.0.join(PROGRAM.trim_start_matches('/')))?;
        Ok(root)
    }

    pub(super) fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Rootless engines may leave files of mapped users, which stay.
        let _ = fs::remove_dir_all(&self.0);
    }
}
