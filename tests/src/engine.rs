//! What the suites of engines have in common: daemons, images, a node with GPUs, terminals.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::{Output, path, run, skip, unique};

/// A process that ends with the test.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Starts it with its output in a file.
    #[must_use]
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).expect("make a log file");
        let again = log.try_clone().expect("duplicate a descriptor");
        let command = command.stdin(Stdio::null()).stdout(log).stderr(again);
        Self(command.spawn().expect("start a daemon"))
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a program is in the PATH.
#[must_use]
pub fn installed(program: &str) -> bool {
    run(Command::new("which").arg(program)).code == 0
}

/// The project's own directory.
#[must_use]
pub fn top() -> PathBuf {
    path("FLEET_STATE").parent().expect("the project").into()
}

/// A local image as an OCI archive; it is named `localhost/fleet-NAME:1`.
#[must_use]
pub fn archive(name: &str) -> PathBuf {
    let file = PathBuf::from(format!("/run/fleet-{name}.oci"));
    if !file.exists() {
        let tar = path("FLEET_STATE").join(format!("images/{name}.tar"));
        let mut command = Command::new(top().join("tests/setup/oci-archive.sh"));
        command.arg(tar).arg(image(name)).arg(&file);
        drop(run(&mut command).ok());
    }
    file
}

/// The name of a local image in an engine's store.
#[must_use]
pub fn image(name: &str) -> String {
    format!("localhost/fleet-{name}:1")
}

/// A local image's root file system.
#[track_caller]
pub fn unpack(name: &str, to: &Path) {
    fs::create_dir_all(to).expect("mkdir");
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("chmod");
    let tar = path("FLEET_STATE").join(format!("images/{name}.tar"));
    drop(run(Command::new("tar").arg("-C").arg(to).arg("-xf").arg(tar)).ok());
}

const NODE: &str = "/run/sim-node";

/// A simulated node with two GPUs and its CDI spec; without one the test is skipped.
#[must_use]
pub fn gpus(test: &str) -> bool {
    static FAILED: OnceLock<Option<String>> = OnceLock::new();
    let failed = FAILED.get_or_init(|| {
        let mut simulate = Command::new(path("FLEET_PROGRAMS").join("fleet-simulate"));
        simulate.args(["create", "--machine", "h100x2", "--root", NODE]);
        let out = run(simulate.args(["--cdi", "/etc/cdi/nvidia.yaml"]));
        (out.code != 0).then(|| out.stderr.trim().to_owned())
    });
    if let Some(reason) = failed {
        skip(test, reason);
    }
    failed.is_none()
}

/// A script that tells whether GPU `own` opens, and what opening GPU `other` by a node of its own answers: see [`ISOLATED`].
#[must_use]
pub fn isolation_script(own: usize, other: usize) -> String {
    let file = format!("{NODE}/usr/share/nvidia/fleet-sim-machine.json");
    let machine = fs::read_to_string(file).expect("read the machine");
    let machine: Value = serde_json::from_str(&machine).expect("JSON");
    let node = &machine["gpus"][other]["node"];
    format!(
        "ls /dev/nvidia{other} 2>/dev/null; true < /dev/nvidia{own} && echo opens; mknod /dev/other c {} {} && (true < /dev/other) 2>&1 | grep -o 'not permitted'",
        node["major"], node["minor"]
    )
}

/// What [`isolation_script`] prints in a container that has the one GPU and not the other.
pub const ISOLATED: &str = "opens\nnot permitted\n";

/// Runs a command line on a terminal, by script(1), with an input that does not end.
#[must_use]
pub fn on_terminal(line: &str) -> Output {
    let input = format!("/run/{}", unique("input"));
    let script = "mkfifo \"$1\" && exec script -qec \"$0\" /dev/null <> \"$1\"";
    let mut out = run(Command::new("sh").args(["-c", script, line, &input]));
    out.stdout = out.stdout.replace('\r', "");
    out
}
