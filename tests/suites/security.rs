//! Attacks on the runtime by whoever controls an image, a running container, annotations or CDI files.
//!
//! `docs/security.md` lists which attack is held by which test, here and in the other suites.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

#[path = "security/escape.rs"]
mod escape;
#[path = "security/input.rs"]
mod input;
#[path = "security/races.rs"]
mod races;

use std::fs;
use std::path::{Path, PathBuf};

/// A directory of the host that an attack tries to change or to read.
struct Trap {
    dir: PathBuf,
    before: String,
}

impl Trap {
    fn new(dir: PathBuf) -> Self {
        for sub in ["", "sub", "sub/sub", "pts", "shm"] {
            fs::create_dir_all(dir.join(sub)).expect("make a trap");
        }
        fs::write(dir.join("secret"), "of the host").expect("write");
        // What a careless removal would take.
        fs::write(dir.join("ptmx"), "").expect("write");
        let before = listing(&dir);
        Self { dir, before }
    }

    #[track_caller]
    fn assert_untouched(&self, context: &str) {
        assert_eq!(listing(&self.dir), self.before, "{context}");
    }
}

fn listing(dir: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let mut lines = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("list").flatten() {
            let meta = entry.metadata().expect("stat");
            let content = if meta.is_file() {
                fs::read_to_string(entry.path()).unwrap_or_default()
            } else {
                String::new()
            };
            lines.push(format!(
                "{} {:o} {}:{} {content}\n",
                entry.path().display(),
                meta.mode(),
                meta.uid(),
                meta.gid()
            ));
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    lines.sort();
    lines.concat()
}

/// Writes one CDI file of kind `test.com/dev`, with one device `0`.
fn cdi(edits: &serde_json::Value) {
    for dir in ["/etc/cdi", "/run/cdi"] {
        fs::create_dir_all(dir).expect("mkdir");
        for entry in fs::read_dir(dir).expect("list").flatten() {
            drop(fs::remove_file(entry.path()));
        }
    }
    let spec = serde_json::json!({
        "cdiVersion": "0.6.0", "kind": "test.com/dev",
        "devices": [{"name": "0", "containerEdits": edits}],
    });
    fs::write("/etc/cdi/test.json", spec.to_string()).expect("write");
}
