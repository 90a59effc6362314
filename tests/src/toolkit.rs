//! NVIDIA's own `nvidia-ctk` beside our tool, on one simulated node that both take for the machine.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Output, run};

/// The program, if this machine has one: `FLEET_NVIDIA_CTK`, else by `PATH`.
#[must_use]
pub fn nvidia_ctk() -> Option<PathBuf> {
    if let Some(named) = env::var_os("FLEET_NVIDIA_CTK") {
        return Some(named.into());
    }
    let dirs = env::var_os("PATH")?;
    let mut found = env::split_paths(&dirs).map(|dir| dir.join("nvidia-ctk"));
    found.find(|path| path.is_file())
}

/// A node with both programs in it. They run with it as their root, on a loader and a C library of their own, so that
/// the node's libraries are all that a search finds.
#[derive(Debug)]
pub struct Room(PathBuf);

/// Where the programs and their libraries are.
const OWN: &str = "opt/programs";

impl Room {
    /// Furnishes a node. Its proc becomes a real one with the driver's files in it.
    ///
    /// # Errors
    /// A step, with what was said.
    pub fn new(node: &Path, theirs: &Path, ours: &Path) -> Result<Self, String> {
        let room = Self(node.to_path_buf());
        let own = node.join(OWN);
        let told = |err: std::io::Error| err.to_string();
        fs::create_dir_all(&own).map_err(told)?;
        let nvml = node.join("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");
        let mut needed = BTreeSet::new();
        for (program, name) in [(theirs, "theirs"), (ours, "ours")] {
            fs::copy(program, own.join(name)).map_err(told)?;
            needed.extend(libraries(program));
        }
        needed.extend(libraries(&nvml));
        for library in needed {
            let name = library.file_name().unwrap_or_default();
            fs::copy(&library, own.join(name)).map_err(told)?;
        }
        fs::rename(node.join("proc"), node.join(".proc")).map_err(told)?;
        fs::create_dir(node.join("proc")).map_err(told)?;
        let script = "set -e; mount -t proc proc proc; mount -t tmpfs none proc/driver
            for dir in .proc/driver/*; do
                [ -d $dir ] || continue
                mkdir proc/driver/${dir##*/}; mount --bind $dir proc/driver/${dir##*/}
            done
            [ ! -f .proc/devices ] || mount --bind .proc/devices proc/devices";
        let mut shell = Command::new("sh");
        let mounted = run(shell.args(["-c", script]).current_dir(node));
        match mounted.code {
            0 => Ok(room),
            _ => Err(mounted.stderr),
        }
    }

    /// Shows another tree at `/run/nvidia/driver`, its files `over` replaced by those of the node.
    ///
    /// # Errors
    /// What `mount` says.
    pub fn driver(&self, tree: &Path, over: &[(&str, &str)]) -> Result<(), String> {
        let script = "set -e; mkdir -p run/nvidia/driver; mount --rbind \"$1\" run/nvidia/driver
            mount -o remount,ro,bind run/nvidia/driver; shift
            while [ $# -gt 1 ]; do mount --bind \"$1\" \"run/nvidia/driver/$2\"; shift 2; done";
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script, "sh"])
            .arg(tree)
            .current_dir(&self.0);
        shell.args(over.iter().flat_map(|(from, to)| [from, to]));
        let mounted = run(&mut shell);
        match mounted.code {
            0 => Ok(()),
            _ => Err(mounted.stderr),
        }
    }

    fn program(&self, name: &str, args: &[&str]) -> Output {
        let loader = format!("/{OWN}/ld-linux-x86-64.so.2");
        let library_path = format!("/{OWN}");
        let program = format!("/{OWN}/{name}");
        let mut command = Command::new("chroot");
        command.arg(&self.0).arg(loader);
        command.args(["--library-path", &library_path, &program]);
        command.args(args).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        // For a library that lies in another root than its node.
        command.env("FLEET_SIM_DEV", "/dev");
        command.env(
            "FLEET_SIM_MACHINE",
            "/usr/share/nvidia/fleet-sim-machine.json",
        );
        run(&mut command)
    }

    /// Runs `nvidia-ctk`.
    #[must_use]
    pub fn theirs(&self, args: &[&str]) -> Output {
        self.program("theirs", args)
    }

    /// Runs our tool.
    #[must_use]
    pub fn ours(&self, args: &[&str]) -> Output {
        self.program("ours", args)
    }

    /// Medians of runs that take turns: theirs, ours.
    #[must_use]
    pub fn race(&self, args: &[&str], rounds: usize) -> (Duration, Duration) {
        let timed = |name| {
            let start = Instant::now();
            let out = self.program(name, args);
            assert_eq!(out.code, 0, "{name}: {}", out.stderr);
            start.elapsed()
        };
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..rounds.max(1) {
            theirs.push(timed("theirs"));
            ours.push(timed("ours"));
        }
        let median = |mut times: Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        (median(theirs), median(ours))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for dir in ["proc", "run/nvidia/driver"] {
            let mut umount = Command::new("umount");
            drop(run(umount.args(["-R", "-l"]).arg(self.0.join(dir))));
        }
    }
}

/// What the loader would load for a file, itself included.
fn libraries(file: &Path) -> Vec<PathBuf> {
    let out = run(Command::new("ldd").arg(file));
    let words = out.stdout.split_whitespace();
    words
        .filter(|word| word.starts_with("/lib") || word.starts_with("/usr/lib"))
        .map(PathBuf::from)
        .collect()
}
