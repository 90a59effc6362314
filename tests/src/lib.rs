//! Helpers of the integration suites: bundles, the runtime under test, and loud skips.
//!
//! The suites run inside `tests/isolate` (own pid and mount namespaces, own cgroup), and over crun or runc as well:
//! `RUNTIME_UNDER_TEST` names the binary.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::missing_panics_doc
)]

pub mod crio;
pub mod criu;
pub mod driver;
pub mod engine;
pub mod toolkit;
pub mod tracer;
pub mod views;

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A path that the Makefile hands over.
#[must_use]
pub fn path(variable: &str) -> PathBuf {
    let value =
        env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run `make test`"));
    assert!(
        env::var("FLEET_ISOLATED").is_ok(),
        "the suites run inside tests/isolate only: run `make test`"
    );
    PathBuf::from(value)
}

/// Records that a test could not run here, and why. The list is printed with its count at the end of `make test`.
pub fn skip(test: &str, reason: &str) {
    println!("SKIP {test}: {reason}");
    if let Ok(file) = env::var("FLEET_SKIPPED") {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .expect("open the skip list");
        writeln!(file, "SKIP {test}: {reason}").expect("write the skip list");
    }
}

/// Whether the runtime under test is this project's, and not a peer that the suites are compared with.
#[must_use]
pub fn ours() -> bool {
    static OURS: OnceLock<bool> = OnceLock::new();
    *OURS.get_or_init(|| {
        if delegate().is_some() {
            return false;
        }
        let version = Command::new(path("RUNTIME_UNDER_TEST"))
            .arg("--version")
            .output();
        version
            .expect("run the runtime")
            .stdout
            .starts_with(b"fleet-nvidia ")
    })
}

/// The runtime that this project's gives the containers to, when a suite is run over that.
fn delegate() -> Option<String> {
    env::var("FLEET_DELEGATE")
        .ok()
        .filter(|name| !name.is_empty())
}

/// A configuration file that says so.
fn delegating() -> Option<PathBuf> {
    let name = delegate()?;
    let file = PathBuf::from(format!("/run/fleet-delegate-{name}.toml"));
    fs::write(&file, format!("runtimes = [\"{name}\"]\n")).expect("write a configuration");
    Some(file)
}

/// True, with a note in the list of skips, when a peer is under test that is known to behave differently.
#[must_use]
pub fn differs(test: &str, peers: &[&str]) -> bool {
    let binary = path("RUNTIME_UNDER_TEST");
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    let name = delegate().unwrap_or_else(|| name.into_owned());
    let known = !ours() && peers.contains(&name.as_str());
    if known {
        skip(test, &format!("{name} differs here"));
    }
    known
}

/// [`differs`] for every peer.
#[must_use]
pub fn not_for_peers(test: &str) -> bool {
    differs(test, &["crun", "runc"])
}

/// A behaviour that is known to be missing: listed with the skips while the test fails, an error once it passes.
#[track_caller]
pub fn gap(test: &str, what: &str, body: impl FnOnce() + std::panic::UnwindSafe) {
    if !ours() {
        body();
    } else if std::panic::catch_unwind(body).is_err() {
        skip(test, &format!("known gap: {what}"));
    } else {
        panic!("{test} passes: take its mark away");
    }
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A name of its own for every bundle and container.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!(
        "{prefix}-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    )
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// The command line.
    pub line: String,
    /// Exit code; 128 plus the signal when one ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Asserts success and gives stdout.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }

    /// Asserts success in silence: engines read our stdout and stderr as the container's.
    #[track_caller]
    pub fn silent(self) {
        assert!(
            self.code == 0 && self.stdout.is_empty() && self.stderr.is_empty(),
            "{self:#?}"
        );
    }

    /// Asserts a failure that says `word`, in one line; of a peer only that it fails, since its wording is its own.
    #[must_use]
    #[track_caller]
    pub fn fails(self, word: &str) -> Self {
        assert_ne!(self.code, 0, "{self:#?}");
        if !ours() {
            return self;
        }
        assert!(self.stderr.contains(word), "`{word}` is not in {self:#?}");
        assert_eq!(
            self.stderr.trim_end().lines().count(),
            1,
            "more than one line: {self:#?}"
        );
        self
    }
}

/// Longest time that a command may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a command writes: files, since a container keeps them open.
#[derive(Debug)]
struct OutputFiles(PathBuf);

impl OutputFiles {
    fn new() -> Self {
        // Of this run's own: pids, and so names, are the same in every run of tests/isolate.
        Self(Path::new("/run").join(unique("fleet-output")))
    }

    fn file(&self, suffix: &str) -> fs::File {
        fs::File::create(self.0.with_extension(suffix)).expect("make an output file")
    }

    fn stdout(&self) -> fs::File {
        self.file("out")
    }

    fn stderr(&self) -> fs::File {
        self.file("err")
    }

    /// Reads and removes them.
    fn read(&self) -> (String, String) {
        let read = |suffix: &str| {
            let path = self.0.with_extension(suffix);
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
            drop(fs::remove_file(path));
            text
        };
        (read("out"), read("err"))
    }
}

/// Runs a command; stdout and stderr go through files, since a container keeps them open.
#[must_use]
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let files = OutputFiles::new();
    let child = command
        .stdin(Stdio::null())
        .stdout(files.stdout())
        .stderr(files.stderr())
        .spawn();
    let status = child.and_then(|mut child| {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
                return Err(std::io::Error::other(format!(
                    "not done after {PATIENCE:?}"
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let (stdout, stderr) = files.read();
    let status = status.unwrap_or_else(|err| panic!("{command:?}: {err}\n{stdout}\n{stderr}"));
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    Output {
        line: format!("{command:?}"),
        code: status.code().or(signal).unwrap_or(-1),
        stdout,
        stderr,
    }
}

/// The runtime under test with a state root of its own.
#[derive(Debug)]
pub struct Runtime {
    /// The binary.
    pub binary: PathBuf,
    /// `--root`.
    pub root: PathBuf,
    /// `--config`, where the runtime's own is not to count.
    pub config: Option<PathBuf>,
    /// Who calls it, by number, in place of root.
    pub user: Option<u32>,
}

impl Runtime {
    /// With a fresh root.
    #[must_use]
    pub fn new() -> Self {
        Self {
            binary: path("RUNTIME_UNDER_TEST"),
            root: PathBuf::from("/run").join(unique("root")),
            config: delegating(),
            user: None,
        }
    }

    /// A command with the root set.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.user {
            None => Command::new(&self.binary),
            Some(user) => {
                let user = user.to_string();
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
                    .arg(&self.binary);
                command
            }
        };
        command.arg("--root").arg(&self.root);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.args(args);
        command
    }

    /// Runs a command line.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }

    /// The `state` document.
    #[must_use]
    #[track_caller]
    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.run(&["state", id]).ok()).expect("state is JSON")
    }

    /// Waits until the container has a status.
    #[track_caller]
    pub fn wait_for(&self, id: &str, status: &str) {
        until(&format!("{id} to be {status}"), || {
            self.state(id)["status"] == status
        });
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits for a condition, ten seconds at most.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A bundle and a container made from it; everything goes away with it.
#[derive(Debug)]
pub struct Bundle {
    /// Bundle directory.
    pub dir: PathBuf,
    /// Container id.
    pub id: String,
    /// The spec; written by [`Bundle::write`].
    pub spec: Value,
    /// The runtime.
    pub runtime: Runtime,
}

impl Bundle {
    /// A busybox root file system and a spec that runs `sh -c SCRIPT`.
    #[must_use]
    pub fn new(script: &str) -> Self {
        let id = unique("ct");
        let dir = PathBuf::from("/run").join(format!("bundle-{id}"));
        fs::create_dir_all(dir.join("rootfs")).expect("make a bundle");
        fs::set_permissions(dir.join("rootfs"), fs::Permissions::from_mode(0o755))
            .expect("chmod the root file system");
        let image = path("FLEET_STATE").join("images/busybox.tar");
        assert!(
            run(Command::new("tar")
                .arg("-C")
                .arg(dir.join("rootfs"))
                .arg("-xf")
                .arg(image))
            .code
                == 0,
            "unpack the image"
        );
        let spec = spec(script, &id);
        Self {
            dir,
            id,
            spec,
            runtime: Runtime::new(),
        }
    }

    /// The same of a user without rights on the host: in a user namespace, where he is root.
    #[must_use]
    pub fn of_plain_user(script: &str) -> Self {
        let mut bundle = Self::new(script).namespace("user", None);
        let mapping = json!([{"containerID": 0, "hostID": NOBODY, "size": 1}]);
        let linux = &mut bundle.spec["linux"];
        linux["uidMappings"] = mapping.clone();
        linux["gidMappings"] = mapping;
        linux
            .as_object_mut()
            .expect("an object")
            .remove("resources");
        let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666"];
        bundle = bundle.mount("/dev/pts", "devpts", "devpts", &options);
        fs::create_dir_all(&bundle.runtime.root).expect("make the root");
        for dir in [&bundle.dir, &bundle.runtime.root] {
            let owner = format!("{NOBODY}:{NOBODY}");
            let chown = run(Command::new("chown").args(["-R", &owner]).arg(dir));
            assert_eq!(chown.code, 0, "{chown:#?}");
        }
        bundle.runtime.user = Some(NOBODY);
        bundle
    }

    /// Puts a value into the spec.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
        let parent = if parent.is_empty() {
            &mut self.spec
        } else {
            self.spec.pointer_mut(parent).expect("the parent is there")
        };
        parent[key] = value;
        self
    }

    /// Adds a mount.
    #[must_use]
    pub fn mount(mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        let mounts = self.spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != destination);
        mounts.push(
            json!({"destination": destination, "type": kind, "source": source, "options": options}),
        );
        self
    }

    /// Adds a namespace, or replaces it.
    #[must_use]
    pub fn namespace(mut self, kind: &str, path: Option<&str>) -> Self {
        let all = self.spec["linux"]["namespaces"]
            .as_array_mut()
            .expect("namespaces");
        all.retain(|ns| ns["type"] != kind);
        all.push(path.map_or_else(
            || json!({"type": kind}),
            |path| json!({"type": kind, "path": path}),
        ));
        self
    }

    /// Writes `config.json`.
    pub fn write(&self) {
        fs::write(self.dir.join("config.json"), self.spec.to_string()).expect("write the spec");
    }

    /// Writes the spec and runs one of the making verbs.
    #[must_use]
    pub fn make(&self, verb: &str, options: &[&str]) -> Output {
        self.write();
        let bundle = self.dir.display().to_string();
        let args = [
            &[verb, "--bundle", &bundle][..],
            options,
            &[self.id.as_str()],
        ]
        .concat();
        self.runtime.run(&args)
    }

    /// `run` in the foreground.
    #[must_use]
    pub fn run(&self) -> Output {
        self.make("run", &[])
    }

    /// `run -d`, which must be silent.
    #[track_caller]
    pub fn start(&self) {
        self.make("run", &["-d"]).silent();
    }

    /// `exec`.
    #[must_use]
    pub fn exec(&self, options: &[&str], program: &[&str]) -> Output {
        self.runtime
            .run(&[&["exec"], options, &[self.id.as_str()], program].concat())
    }

    /// Removes the container, which may be running.
    #[track_caller]
    pub fn remove(&self) {
        self.runtime.run(&["delete", "--force", &self.id]).silent();
    }

    /// Waits until `state` says so.
    #[track_caller]
    pub fn becomes(&self, status: &str) {
        self.runtime.wait_for(&self.id, status);
    }

    /// The container's cgroup path.
    #[must_use]
    pub fn cgroup(&self) -> String {
        self.spec["linux"]["cgroupsPath"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        drop(self.runtime.run(&["delete", "--force", &self.id]));
        drop(fs::remove_dir_all(&self.dir));
        drop(fs::remove_dir_all(&self.runtime.root));
    }
}

/// The user `nobody`.
const NOBODY: u32 = 65534;

const NOTIFIER: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
int main(int argc, char **argv) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int s = socket(AF_UNIX, SOCK_DGRAM, 0);
    strncpy(to.sun_path, getenv("NOTIFY_SOCKET"), sizeof(to.sun_path) - 1);
    for (int i = 1; i < argc; i++)
        if (sendto(s, argv[i], strlen(argv[i]), 0, (struct sockaddr *)&to, sizeof(to)) < 0) return 1;
    return 0;
}
"#;

/// A static program that sends its arguments, a message each, to the socket that its environment names.
#[must_use]
pub fn notifier() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let dir = PathBuf::from("/run").join(unique("notify-program"));
        fs::create_dir_all(&dir).expect("mkdir");
        fs::write(dir.join("say.c"), NOTIFIER).expect("write");
        let say = dir.join("say");
        let mut gcc = Command::new("gcc");
        gcc.args(["-static", "-O1", "-o"]).arg(&say);
        drop(run(gcc.arg(dir.join("say.c"))).ok());
        say
    })
}

/// A cgroup path below the isolated run's own.
#[must_use]
pub fn cgroup_path(id: &str) -> String {
    format!(
        "{}/{id}",
        env::var("FLEET_TEST_CGROUP").expect("run inside tests/isolate")
    )
}

fn spec(script: &str, id: &str) -> Value {
    let caps = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETGID",
        "CAP_SETUID"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "test",
        "process": {
            "args": ["/bin/sh", "-c", script], "cwd": "/", "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true,
            "env": ["PATH=/bin:/sbin:/usr/bin", "TERM=xterm"],
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "cgroupsPath": cgroup_path(id),
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

/// Directories of the machine's cgroup hierarchies that belong to a path.
#[must_use]
pub fn cgroup_dirs(path: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/sys/fs/cgroup") else {
        return Vec::new();
    };
    let mut roots: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    roots.push("/sys/fs/cgroup".into());
    roots
        .into_iter()
        .map(|root| root.join(path.trim_start_matches('/')))
        .filter(|dir| dir.is_dir())
        .collect()
}

/// Asserts that nothing of a container is left: no state, cgroup, mount or process.
#[track_caller]
pub fn assert_nothing_left(bundle: &Bundle) {
    assert!(
        !bundle.runtime.root.join(&bundle.id).exists(),
        "a state directory is left"
    );
    assert_eq!(
        cgroup_dirs(&bundle.cgroup()),
        Vec::<PathBuf>::new(),
        "a cgroup is left"
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read mountinfo");
    let dir = bundle.dir.display().to_string();
    assert!(!mounts.contains(&dir), "a mount is left: {mounts}");
    for entry in fs::read_dir("/proc").expect("list /proc").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_err() {
            continue;
        }
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let root = fs::read_link(entry.path().join("root")).unwrap_or_default();
        assert!(
            !root.starts_with(Path::new(&dir)),
            "process {name} is left: {line}"
        );
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        assert!(
            !comm.starts_with("fleet:[") && !comm.starts_with("youki:["),
            "process {name} is left: {comm} {}",
            fs::read_to_string(entry.path().join("stat")).unwrap_or_default()
        );
    }
}
