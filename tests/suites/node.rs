//! The admin tool on a node: engines read what `configure` wrote.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use fleet_tests::views::on_cgroup_v2;
use fleet_tests::{Bundle, Output, assert_nothing_left, path, run, skip, until};
use serde_json::{Value, json};

#[path = "node/doctor.rs"]
mod doctor;
#[path = "node/holders.rs"]
mod holders;

/// The tool, with the binary under test named as the runtime where `configure` is asked for.
fn ctl(args: &[&str]) -> Output {
    let mut command = Command::new(path("FLEET_CTL"));
    command.args(args);
    if args[0] == "configure" && !args.contains(&"--remove") {
        command
            .arg("--runtime-path")
            .arg(path("RUNTIME_UNDER_TEST"));
    }
    run(&mut command)
}

/// Settings for the limits of a test machine, in the system's own files: `tests/isolate` gives us an empty
/// /etc/containers.
fn plain_podman() {
    // Other suites that ran before leave files of theirs.
    if fs::exists("/run/node-suite").expect("stat") {
        return;
    }
    fs::create_dir_all("/run/node-suite").expect("mkdir");
    fs::write(
        "/etc/containers/storage.conf",
        "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/node-suite/run\"\ngraphroot = \"/run/node-suite/graph\"\n",
    )
    .expect("write storage.conf");
    fs::write(
        "/etc/containers/containers.conf",
        "# a site's own\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime_supports_json = [\"crun\", \"site\"]\n[containers]\nlog_driver = \"k8s-file\"\nnetns = \"host\"\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=1024:4096\"]\n",
    )
    .expect("write containers.conf");
    let image = path("FLEET_STATE").join("images/busybox.tar");
    drop(podman(&["import", "-q", &image.display().to_string(), "node-busybox"]).ok());
}

fn podman(args: &[&str]) -> Output {
    run(Command::new("podman").args(args))
}

#[test]
fn podman_runs_by_name_once_it_is_configured() {
    plain_podman();
    let hello = |name: &str| {
        podman(&[
            "--runtime",
            name,
            "run",
            "--rm",
            "node-busybox",
            "echo",
            "hi",
        ])
    };
    for (args, name) in [
        (vec![], "fleet-nvidia"),
        (vec!["--name", "nvidia"], "nvidia"),
    ] {
        let before = hello(name);
        assert!(
            before
                .stderr
                .contains(&format!("default OCI runtime \"{name}\" not found")),
            "{before:#?}"
        );
        drop(ctl(&[&["configure", "podman"], args.as_slice()].concat()).ok());
        assert_eq!(hello(name).ok(), "hi\n");
        let version = podman(&[
            "--runtime",
            name,
            "info",
            "--format",
            "{{.Host.OCIRuntime.Version}}",
        ]);
        assert!(version.ok().contains("fleet-nvidia version"));
        // The list is in force: with it Podman shows our own one line.
        let wrong = podman(&["--runtime", name, "run", "--rm", "node-busybox", "/no/such"]);
        assert_eq!(wrong.code, 127, "{wrong:#?}");
        let again = ctl(&[&["configure", "podman"], args.as_slice()].concat()).ok();
        assert!(again.starts_with("nothing to do"), "{again}");
    }
    for args in [vec!["--name", "nvidia"], vec![]] {
        drop(ctl(&[&["configure", "podman", "--remove"], args.as_slice()].concat()).ok());
    }
    assert_ne!(hello("fleet-nvidia").code, 0);
    assert!(!fs::exists("/etc/containers/containers.conf.d").expect("stat"));
}

/// The setting counts for the next container, and the explanations in the file stay.
#[test]
fn a_setting_is_changed_and_taken_back() {
    let file = "/run/node-settings.toml";
    let config = |args: &[&str]| ctl(&[&["--config", file, "config"], args].concat());
    drop(config(&["set", "profile=docker"]).fails("`profile` cannot be \"docker\""));
    drop(config(&["set", "proffile=crio"]).fails("`proffile` is no setting; hint: "));
    assert!(!fs::exists(file).expect("stat"), "nothing was written");
    let changes = ["set", "profile=crio", "hooks.native=false"];
    let shown = config(&[changes[0], "--dry-run", changes[1], changes[2]]).ok();
    assert_eq!(config(&changes).ok().trim(), file);
    assert_eq!(fs::read_to_string(file).expect("read"), shown);
    let counts = config(&["show"]).ok();
    assert!(counts.contains("profile = \"crio\""), "{counts}");
    assert!(counts.contains("native = false"), "{counts}");
    drop(config(&["unset", "profile", "hooks.native"]).ok());
    let shipped = config(&["default"]).ok();
    let left = fs::read_to_string(file).expect("read");
    assert_eq!(left, shipped.replace("#= [hooks]", "[hooks]"));
    fs::write(file, "profile = \n").expect("write");
    drop(config(&["set", "profile=crio"]).fails("node-settings.toml:1"));
    fs::remove_file(file).expect("remove");
}

#[test]
fn a_read_only_etc_is_one_plain_line() {
    let script = "mount -t tmpfs -o ro tmpfs /etc/containers && exec \"$0\" configure podman";
    let out = run(Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(path("FLEET_CTL")));
    let words = "write /etc/containers/containers.conf.d/50-fleet-nvidia.conf: read-only file system; hint: ";
    assert!(
        out.code == 1
            && out
                .stderr
                .lines()
                .last()
                .is_some_and(|line| line.contains(words)),
        "{out:#?}"
    );
}

/// Main files as sites have them.
const CONTAINERD: [(&str, &str); 4] = [
    ("none", ""),
    (
        "version 1",
        "[plugins.cri]\nsandbox_image = \"own/pause:1\"\n",
    ),
    (
        "version 2",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"own/pause:1\"\n",
    ),
    (
        "imports",
        "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"own/pause:1\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n",
    ),
];

#[test]
fn containerd_accepts_the_written_files() {
    let test = "containerd_accepts_the_written_files";
    if run(Command::new("which").arg("containerd")).code != 0 {
        return skip(test, "containerd is not installed");
    }
    let binary = path("RUNTIME_UNDER_TEST").display().to_string();
    for (name, main) in CONTAINERD {
        let script = "set -eu; mkdir -p /etc/containerd; mount -t tmpfs tmpfs /etc/containerd
            if [ -n \"$MAIN\" ]; then printf '%s' \"$MAIN\" > /etc/containerd/config.toml; fi
            \"$CTL\" configure containerd --runtime-path \"$BINARY\" >/dev/null
            containerd -c /etc/containerd/config.toml config dump
            \"$CTL\" configure containerd --remove >/dev/null
            if [ -n \"$MAIN\" ]; then printf '%s' \"$MAIN\" | cmp - /etc/containerd/config.toml; fi
            if [ -n \"$(find /etc/containerd -type f ! -name config.toml)\" ]; then find /etc/containerd >&2; exit 9; fi";
        let dump = run(Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .env("MAIN", main)
            .env("CTL", path("FLEET_CTL"))
            .env("BINARY", &binary))
        .ok();
        assert!(
            dump.contains(&format!("BinaryName = \"{binary}\"")),
            "{name}: {dump}"
        );
        assert!(
            dump.contains(".containerd.runtimes.runc]"),
            "{name}: without its default handler the CRI plug-in is not loaded: {dump}"
        );
        assert_eq!(
            dump.contains("sandbox_image = \"own/pause:1\""),
            !main.is_empty(),
            "{name}: {dump}"
        );
        assert_eq!(
            dump.matches("SystemdCgroup = true").count(),
            if name == "imports" { 2 } else { 0 },
            "{name}: {dump}"
        );
    }
}

#[test]
fn docker_accepts_the_written_file() {
    let test = "docker_accepts_the_written_file";
    let help = run(Command::new("sh").args(["-c", "dockerd --help"]));
    if !help.stdout.contains("--validate") {
        return skip(
            test,
            "dockerd 23 or later is not installed: an older one cannot check a file",
        );
    }
    let root = "/run/node-suite/docker";
    drop(ctl(&["configure", "docker", "--root", root]).ok());
    let file = format!("{root}/etc/docker/daemon.json");
    drop(run(Command::new("dockerd").args(["--validate", "--config-file", &file])).ok());
}

/// A simulated node with two GPUs.
fn gpus(test: &str) -> bool {
    static NODE: OnceLock<Option<String>> = OnceLock::new();
    let failed = NODE.get_or_init(|| {
        let mut simulate = Command::new(path("FLEET_PROGRAMS").join("fleet-simulate"));
        simulate.args(["create", "--machine", "h100x2", "--root", "/run/sim-node"]);
        let out = run(simulate.args(["--cdi", "/etc/cdi/nvidia.yaml"]));
        (out.code != 0).then(|| out.stderr.trim().to_owned())
    });
    if let Some(reason) = failed {
        skip(test, reason);
    }
    failed.is_none()
}
