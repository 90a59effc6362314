//! CRI-O played call by call, over a real conmon: the arguments, descriptors and environment of its `runtime_oci.go`
//! (CRI-O 1.30 to 1.37), API 0 of conmon, its files and its polling. A real CRI-O is in no Debian package.

mod container;
mod monitor;
mod pod;
mod spec;

pub use container::{Container, Ended};
pub use monitor::{Monitor, log_streams, receive_terminal};
pub use pod::Pod;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::engine::installed;
use crate::{Output, path, run, skip, unique};

/// One CRI-O with one handler: `runtime_path` is the runtime under test, `runtime_root` is private to it.
#[derive(Debug)]
pub struct Crio {
    /// `runtime_root`.
    pub root: PathBuf,
    /// `container_exits_dir`, `container_attach_socket_dir`, bundles and logs.
    pub dir: PathBuf,
}

/// What CRI-O learns of a handler when it starts.
#[derive(Debug)]
pub struct Handler {
    /// First line of `--version`.
    pub version: String,
    /// `features`.
    pub features: Value,
}

impl Crio {
    /// `None`, and a note, where conmon is not installed.
    #[must_use]
    pub fn new(test: &str) -> Option<Self> {
        if !installed("conmon") {
            skip(test, "conmon is not installed");
            return None;
        }
        let name = unique("crio");
        let this = Self {
            root: PathBuf::from("/run").join(format!("{name}-state")),
            dir: PathBuf::from("/run").join(name),
        };
        for sub in ["exits", "attach", "logs", "bundles"] {
            fs::create_dir_all(this.dir.join(sub)).expect("mkdir");
        }
        Some(this)
    }

    /// `--version` and `features`, stdout and stderr taken together, as CRI-O does at start-up.
    #[must_use]
    pub fn handler(&self) -> Handler {
        let together = |verb: &str| {
            let out = run(clean(&mut Command::new(path("RUNTIME_UNDER_TEST"))).arg(verb));
            assert_eq!(out.code, 0, "{out:#?}");
            format!("{}{}", out.stdout, out.stderr)
        };
        Handler {
            version: together("--version")
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
            features: serde_json::from_str(&together("features")).expect("one object of JSON"),
        }
    }

    /// A call without conmon: `R VERB …`.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(path("RUNTIME_UNDER_TEST"));
        clean(&mut command).arg("--root").arg(&self.root).args(args);
        command
    }

    /// Runs such a call.
    #[must_use]
    pub fn call(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }
}

/// Only `XDG_RUNTIME_DIR` and `PATH` reach the runtime and conmon.
fn clean(command: &mut Command) -> &mut Command {
    command.env_clear();
    for name in ["PATH", "XDG_RUNTIME_DIR"] {
        if let Ok(value) = env::var(name) {
            command.env(name, value);
        }
    }
    command
}

impl Drop for Crio {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
        drop(fs::remove_dir_all(&self.root));
    }
}
