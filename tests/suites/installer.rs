//! `fleet-nvidia-ctl node` on whole roots: killed at each system call, on nodes that cannot be written everywhere, with
//! the node's own systemctl, staying, and under containers.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fleet_tests::{Output, path, run, unique, until};
use serde_json::Value;

const CRIO: &str = "etc/crio/crio.conf.d/50-fleet-nvidia.conf";
const CONTAINERD: &str = "version = 2\n# a site's own\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"own/pause:1\"\n";
const HEALTH: &str = "/run/fleet-nvidia-node/ready";

/// A node with CRI-O, containerd and a systemctl that writes down what it is told, and programs to install.
struct Node {
    dir: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
    }
}

impl Node {
    fn new() -> Self {
        let node = Self {
            dir: PathBuf::from("/run").join(unique("installer")),
        };
        let root = node.root();
        for dir in [
            "bin",
            "usr/bin",
            "etc/crio",
            "etc/containerd",
            "log",
            "proc",
        ] {
            fs::create_dir_all(root.join(dir)).expect("mkdir");
        }
        let busybox = Path::new("/run/installer-busybox");
        if !busybox.exists() {
            fs::copy("/bin/busybox", busybox).expect("copy busybox");
        }
        fs::hard_link(busybox, root.join("bin/sh")).expect("link busybox");
        node.program(
            &root.join("usr/bin/systemctl"),
            "echo \"$@\" >> /log/systemctl",
        );
        fs::write(root.join("usr/bin/crio"), "").expect("write");
        fs::write(root.join("etc/containerd/config.toml"), CONTAINERD).expect("write");
        node.build("1");
        node
    }

    fn program(&self, path: &Path, script: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("write");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    /// Small programs, so that many runs take little time.
    fn build(&self, version: &str) {
        for name in ["fleet-nvidia", "fleet-nvidia-ctl"] {
            self.program(
                &self.source().join(name),
                &format!("echo fleet-nvidia version {version}"),
            );
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    fn words(&self, verb: &str, more: &[&str]) -> Vec<String> {
        let (root, source) = (
            self.root().display().to_string(),
            self.source().display().to_string(),
        );
        let mut words = vec!["node", verb, "--root", &root];
        if verb == "install" {
            words.extend(["--source", &source]);
        }
        words.extend(more);
        words.into_iter().map(str::to_owned).collect()
    }

    fn ctl(&self, verb: &str, more: &[&str]) -> Output {
        run(Command::new(path("FLEET_CTL")).args(self.words(verb, more)))
    }

    /// Killed at the `when`th call of this name; whether it came to that.
    fn killed(&self, (call, when): (&str, usize), verb: &str, more: &[&str]) -> bool {
        let out = run(Command::new("strace")
            .args(["-qq", "-o", "/dev/null"])
            .arg("-e")
            .arg(format!("inject={call}:signal=KILL:when={when}"))
            .arg(path("FLEET_CTL"))
            .args(self.words(verb, more)));
        assert!(out.code == 137 || out.code == 0, "{out:#?}");
        out.code == 137
    }

    fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut all = BTreeMap::new();
        walk(&self.root(), &self.root(), &mut all);
        all
    }

    /// What the path that engines store says of itself.
    fn version(&self) -> String {
        let current = self.root().join("opt/fleet-nvidia/current/fleet-nvidia");
        run(&mut Command::new(current))
            .ok()
            .trim()
            .replace("fleet-nvidia version ", "")
    }

    fn told(&self) -> String {
        let log = self.root().join("log/systemctl");
        let text = fs::read_to_string(&log).unwrap_or_default();
        drop(fs::remove_file(log));
        text
    }

    fn exists(&self, file: &str) -> bool {
        self.root().join(file.trim_start_matches('/')).exists()
    }
}

/// System calls by which names appear, change and go, and by which programs are copied.
const CALLS: [&str; 13] = [
    "mkdir",
    "rmdir",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "copy_file_range",
    "sendfile",
];

/// Has `at` kill a run at each of these calls; `false` says that there are no more. Gives their number.
fn everywhere(mut at: impl FnMut((&str, usize)) -> bool) -> usize {
    let mut places = 0;
    for call in CALLS {
        places += (1..).take_while(|when| at((call, *when))).count();
    }
    places
}

/// Directories, links with their targets, files with their texts.
fn walk(root: &Path, dir: &Path, all: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).expect("list") {
        let path = entry.expect("entry").path();
        let what = match () {
            () if path.is_symlink() => {
                format!("-> {}", fs::read_link(&path).expect("link").display())
            }
            () if path.is_dir() => {
                walk(root, &path, all);
                "directory".to_owned()
            }
            () => String::from_utf8(fs::read(&path).expect("read"))
                .unwrap_or_else(|_| "binary".to_owned()),
        };
        all.insert(path.strip_prefix(root).expect("below").to_path_buf(), what);
    }
}

/// Each file of the engines is as it was or as it will be: no half of one, under whatever name, since CRI-O reads all.
#[track_caller]
fn assert_whole(
    now: &BTreeMap<PathBuf, String>,
    before: &BTreeMap<PathBuf, String>,
    after: &BTreeMap<PathBuf, String>,
) {
    for (path, text) in now
        .iter()
        .filter(|(path, text)| path.starts_with("etc") && *text != "directory")
    {
        let known = [before, after]
            .iter()
            .any(|tree| tree.values().any(|known| known == text));
        assert!(known, "{} is neither old nor new: {text}", path.display());
    }
}

fn without_record(mut tree: BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    tree.remove(Path::new("opt/fleet-nvidia/installed.json"));
    tree
}

#[test]
fn a_killed_install_is_finished_by_the_next() {
    let plain = Node::new();
    let before = plain.tree();
    drop(plain.ctl("install", &[]).ok());
    let after = plain.tree();
    let places = everywhere(|when| {
        let node = Node::new();
        let killed = node.killed(when, "install", &["--restart", "systemd"]);
        let told = node.told();
        assert_whole(&node.tree(), &before, &after);
        let again = node.ctl("install", &["--restart", "systemd"]);
        assert_eq!(again.code, 0, "{again:#?}");
        drop(node.ctl("status", &[]).ok());
        // An engine that was not told before is told now.
        let all = told + &node.told();
        for want in [
            "try-restart crio.service\n",
            "try-restart containerd.service\n",
        ] {
            assert!(all.contains(want), "killed at {when:?}: {all}");
        }
        assert_eq!(
            without_record(node.tree()),
            without_record(after.clone()),
            "killed at {when:?}"
        );
        drop(node.ctl("uninstall", &[]).ok());
        assert_eq!(node.tree(), before, "killed at {when:?}");
        killed
    });
    assert!(places > 30, "{places}");
}

#[test]
fn a_killed_install_can_be_taken_away() {
    let plain = Node::new();
    let before = plain.tree();
    let places = everywhere(|when| {
        let node = Node::new();
        let killed = node.killed(when, "install", &[]);
        drop(node.ctl("uninstall", &[]).ok());
        assert_eq!(node.tree(), before, "killed at {when:?}");
        killed
    });
    assert!(places > 0);
}

#[test]
fn a_killed_uninstall_is_finished_by_the_next() {
    let plain = Node::new();
    let before = plain.tree();
    drop(plain.ctl("install", &[]).ok());
    let after = plain.tree();
    let places = everywhere(|when| {
        let node = Node::new();
        drop(node.ctl("install", &[]).ok());
        let killed = node.killed(when, "uninstall", &[]);
        assert_whole(&node.tree(), &before, &after);
        // Before the programs go, nothing names them any more.
        let named = fs::read_to_string(node.root().join(CRIO)).is_ok();
        assert!(!named || node.version() == "1", "killed at {when:?}");
        match when.1 % 2 {
            0 => drop(node.ctl("uninstall", &[]).ok()),
            _ => {
                drop(node.ctl("install", &[]).ok());
                drop(node.ctl("status", &[]).ok());
                drop(node.ctl("uninstall", &[]).ok());
            }
        }
        assert_eq!(node.tree(), before, "killed at {when:?}");
        killed
    });
    assert!(places > 0);
}

#[test]
fn a_killed_upgrade_or_rollback_leaves_a_program_in_force() {
    let places = everywhere(|when| {
        let node = Node::new();
        drop(node.ctl("install", &[]).ok());
        node.build("2");
        let killed = node.killed(when, "install", &[]);
        let version = node.version();
        assert!(
            version == "1" || version == "2",
            "killed at {when:?}: {version}"
        );
        drop(node.ctl("install", &[]).ok());
        assert_eq!(node.version(), "2");
        let status: Value =
            serde_json::from_str(&node.ctl("status", &["--json"]).ok()).expect("JSON");
        assert_eq!(
            (&status["version"], &status["previous"]),
            (&"2".into(), &"1".into()),
            "killed at {when:?}"
        );
        killed
    });
    assert!(places > 0);
    let places = everywhere(|when| {
        let node = Node::new();
        drop(node.ctl("install", &[]).ok());
        node.build("2");
        drop(node.ctl("install", &[]).ok());
        let killed = node.killed(when, "rollback", &[]);
        let version = node.version();
        assert!(
            version == "1" || version == "2",
            "killed at {when:?}: {version}"
        );
        if version == "2" {
            drop(node.ctl("rollback", &[]).ok());
        }
        assert_eq!(node.version(), "1", "killed at {when:?}");
        killed
    });
    assert!(places > 0);
}

#[test]
fn it_goes_where_the_node_can_be_written_and_executed() {
    for (options, words) in [
        ("ro", "read-only file system"),
        ("noexec", "mounted noexec"),
    ] {
        let node = Node::new();
        let (opt, lib) = (node.root().join("opt"), node.root().join("var/lib"));
        fs::create_dir_all(&opt).expect("mkdir");
        fs::create_dir_all(&lib).expect("mkdir");
        let mount = |on: &Path| {
            run(Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(on))
            .ok()
        };
        let umount = |on: &Path| run(Command::new("umount").arg(on)).ok();
        drop(mount(&opt));
        drop(node.ctl("install", &[]).ok());
        assert!(node.exists("/var/lib/fleet-nvidia/current/fleet-nvidia"));
        let text = fs::read_to_string(node.root().join(CRIO)).expect("read");
        assert!(
            text.contains("\"/var/lib/fleet-nvidia/current/fleet-nvidia\""),
            "{text}"
        );
        drop(node.ctl("uninstall", &[]).ok());
        drop(mount(&lib));
        let before = node.tree();
        let out = node.ctl("install", &[]).fails(words);
        assert!(out.stderr.contains("--install-dir"), "{out:#?}");
        assert_eq!(node.tree(), before);
        drop(umount(&lib));
        drop(umount(&opt));
    }
}

/// On image-based systems `/opt` is a link into `/var`.
#[test]
fn links_of_the_node_are_followed_within_it() {
    let node = Node::new();
    fs::create_dir_all(node.root().join("var/opt")).expect("mkdir");
    symlink("/var/opt", node.root().join("opt")).expect("link");
    let before = node.tree();
    drop(node.ctl("install", &[]).ok());
    assert!(node.exists("/var/opt/fleet-nvidia/current/fleet-nvidia"));
    assert!(
        !Path::new("/var/opt/fleet-nvidia").exists(),
        "it left the root"
    );
    drop(node.ctl("uninstall", &[]).ok());
    assert_eq!(node.tree(), before);
}

#[test]
fn an_engine_is_told_only_when_its_configuration_has_changed() {
    let node = Node::new();
    let out = node.ctl("install", &[]).ok();
    assert!(
        out.contains("next: systemctl restart crio")
            && out.contains("next: systemctl restart containerd"),
        "{out}"
    );
    assert_eq!(node.told(), "", "not asked for");
    drop(node.ctl("install", &["--restart", "systemd"]).ok());
    assert_eq!(node.told(), "", "nothing has changed");
    drop(
        node.ctl(
            "install",
            &["--restart", "systemd", "--runtime-name", "other"],
        )
        .ok(),
    );
    let told = node.told();
    assert_eq!(told.matches("crio.service").count(), 1, "{told}");
    drop(node.ctl("uninstall", &["--restart", "systemd"]).ok());
    assert!(node.told().contains("try-restart containerd.service\n"));
    // It fails: said, and made up for by the next run.
    node.program(
        &node.root().join("usr/bin/systemctl"),
        "echo no bus >&2; exit 1",
    );
    let out = node.ctl("install", &["--restart", "systemd"]);
    assert!(
        out.code == 1
            && out
                .stderr
                .contains("systemctl try-restart crio.service in the node's root: no bus; hint: "),
        "{out:#?}"
    );
    let out = node.ctl("status", &[]);
    assert!(
        out.code == 1
            && out
                .stdout
                .contains("crio has not read its configuration yet"),
        "{out:#?}"
    );
    node.program(
        &node.root().join("usr/bin/systemctl"),
        "echo \"$@\" >> /log/systemctl",
    );
    drop(node.ctl("install", &["--restart", "systemd"]).ok());
    assert!(node.told().contains("crio.service"));
    drop(node.ctl("status", &[]).ok());
}

fn daemon(node: &Node, more: &[&str]) -> Child {
    let options = ["--daemon", "--interval", "1", "--health", HEALTH];
    Command::new(path("FLEET_CTL"))
        .args(node.words("install", &[&options, more].concat()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("start the daemon")
}

fn end(daemon: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("SIGTERM");
    assert!(daemon.wait().expect("wait").success());
}

#[test]
fn it_stays_tells_its_health_and_goes_when_told() {
    let node = Node::new();
    let before = node.tree();
    let mut first = daemon(&node, &["--remove-on-exit"]);
    until("the health file", || node.exists(HEALTH));
    let health: Value =
        serde_json::from_slice(&fs::read(node.root().join(&HEALTH[1..])).expect("read"))
            .expect("JSON");
    assert_eq!(
        (&health["healthy"], &health["version"]),
        (&Value::Bool(true), &"1".into())
    );
    fs::rename(node.root().join(CRIO), node.root().join("etc/kept")).expect("rename");
    until("the health file to go", || !node.exists(HEALTH));
    fs::rename(node.root().join("etc/kept"), node.root().join(CRIO)).expect("rename");
    until("the health file to come back", || node.exists(HEALTH));
    end(&mut first);
    assert_eq!(node.tree(), before);

    // Without being asked, it leaves all but the health file.
    let mut second = daemon(&node, &[]);
    until("the health file", || node.exists(HEALTH));
    end(&mut second);
    assert!(!node.exists("/run/fleet-nvidia-node") && node.exists(CRIO));
    drop(node.ctl("uninstall", &[]).ok());

    // The next pod has installed before this one ends; and one that is killed leaves its health file to be removed.
    let mut old = daemon(&node, &["--remove-on-exit"]);
    until("the health file", || node.exists(HEALTH));
    node.build("2");
    let mut new = daemon(&node, &["--remove-on-exit"]);
    until("the new version", || node.version() == "2");
    std::thread::sleep(std::time::Duration::from_millis(300));
    end(&mut old);
    assert_eq!(node.version(), "2");
    until("the health file", || node.exists(HEALTH));
    new.kill().expect("kill");
    new.wait().expect("wait");
    assert!(node.exists(HEALTH));
    drop(node.ctl("uninstall", &[]).ok());
    assert_eq!(node.tree(), before);
}

#[test]
fn a_daemon_leaves_what_containers_need() {
    let node = Node::new();
    let mut daemon = daemon(&node, &["--remove-on-exit"]);
    until("the health file", || node.exists(HEALTH));
    let record = node.root().join("run/fleet-nvidia/pod1");
    fs::create_dir_all(&record).expect("mkdir");
    let state =
        r#"{"version": 1, "id": "pod1", "pid": 1, "created": "", "cgroup": {"path": "/x"}}"#;
    fs::write(record.join("state.json"), state).expect("write");
    end(&mut daemon);
    assert!(node.exists(CRIO) && node.version() == "1" && !node.exists(HEALTH));
}

fn podman(args: &[&str]) -> Output {
    run(Command::new("podman").args(args))
}

#[test]
fn containers_live_through_upgrade_and_rollback() {
    let source = PathBuf::from("/run").join(unique("programs"));
    let dir = PathBuf::from("/run")
        .join(unique("installed"))
        .display()
        .to_string();
    fs::create_dir_all(&source).expect("mkdir");
    fs::copy(path("RUNTIME_UNDER_TEST"), source.join("fleet-nvidia")).expect("copy");
    fs::copy(path("FLEET_CTL"), source.join("fleet-nvidia-ctl")).expect("copy");
    fs::write(
        "/etc/containers/storage.conf",
        "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/installer-podman/run\"\ngraphroot = \"/run/installer-podman/graph\"\n",
    )
    .expect("write storage.conf");
    fs::write(
        "/etc/containers/containers.conf",
        "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n[containers]\nlog_driver = \"k8s-file\"\nnetns = \"host\"\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=1024:4096\"]\n",
    )
    .expect("write containers.conf");
    let image = path("FLEET_STATE").join("images/busybox.tar");
    drop(
        podman(&[
            "import",
            "-q",
            &image.display().to_string(),
            "installer-busybox",
        ])
        .ok(),
    );
    let ctl = |verb: &str, more: &[&str]| {
        let source = source.display().to_string();
        let mut command = Command::new(path("FLEET_CTL"));
        command.args(["node", verb, "--root", "/", "--install-dir", &dir]);
        if verb == "install" {
            command.args([
                "--source",
                &source,
                "--runtime",
                "podman",
                "--runtime-name",
                "on-node",
            ]);
        }
        run(command.args(more))
    };
    drop(ctl("install", &[]).ok());
    let program = format!("{dir}/current/fleet-nvidia");
    let id = podman(&[
        "--runtime",
        "on-node",
        "run",
        "-d",
        "--name",
        "lives",
        "installer-busybox",
        "sleep",
        "600",
    ])
    .ok();
    // An upgrade: the same runtime beside another admin tool.
    fs::copy("/bin/busybox", source.join("fleet-nvidia-ctl")).expect("copy");
    drop(ctl("install", &[]).ok());
    assert_eq!(podman(&["exec", "lives", "echo", "up"]).ok(), "up\n");
    drop(ctl("rollback", &[]).ok());
    assert_eq!(podman(&["exec", "lives", "echo", "down"]).ok(), "down\n");
    let out = ctl("uninstall", &[]).fails("containers still need the runtime");
    assert!(out.stderr.contains(id.trim()), "{out:#?}");
    assert!(Path::new(&program).exists());
    drop(podman(&["rm", "-f", "-t", "0", "lives"]).ok());
    drop(ctl("uninstall", &[]).ok());
    assert!(!Path::new(&dir).exists() && !Path::new("/etc/containers/containers.conf.d").exists());
    let gone = podman(&["--runtime", "on-node", "info"]);
    assert!(gone.stderr.contains("\"on-node\" not found"), "{gone:#?}");
}
