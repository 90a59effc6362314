//! Docker itself: Debian's dockerd with a containerd of its own, without network and systemd. `FLEET_DOCKER` names a
//! directory with other builds of its programs than those that the Makefile has unpacked.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fleet_tests::engine::{Daemon, ISOLATED, gpus, isolation_script, on_terminal};
use fleet_tests::{Output, cgroup_path, path, run, skip, unique, until};

const DIR: &str = "/run/docker-suite";

fn programs() -> PathBuf {
    let unpacked = || path("FLEET_STATE").join("docker/usr/sbin");
    env::var("FLEET_DOCKER").map_or_else(|_| unpacked(), PathBuf::from)
}

/// dockerd and its client are in two directories of the package.
fn search_path() -> String {
    let (daemon, path) = (programs(), env::var("PATH").expect("PATH"));
    let client = daemon.parent().expect("a directory").join("bin");
    format!("{}:{}:{path}", daemon.display(), client.display())
}

/// Ends with the process namespace of the run.
struct Engine {
    _containerd: Daemon,
    _dockerd: Daemon,
}

/// Both daemons with the images, once for all tests; a note where they are missing or do not start.
fn engine(test: &str) -> bool {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    let engine = ENGINE.get_or_init(start);
    if let Err(reason) = engine {
        skip(test, reason);
    }
    engine.is_ok()
}

fn start() -> Result<Engine, String> {
    if !programs().join("dockerd").exists() {
        return Err("no dockerd: apt could not give it".to_owned());
    }
    fs::create_dir_all(DIR).expect("mkdir");
    let binary = path("RUNTIME_UNDER_TEST").display().to_string();
    let write = |name: &str, text: String| {
        let file = format!("{DIR}/{name}");
        fs::write(&file, text).expect("write a configuration");
        file
    };
    // `configure docker` writes the same entry; the path of the installed binary is not ours to choose.
    let config = write(
        "daemon.json",
        format!(
            "{{\"runtimes\": {{\"fleet-nvidia\": {{\"path\": \"{binary}\"}}}}, \"default-runtime\": \"fleet-nvidia\"}}\n"
        ),
    );
    let containerd = write(
        "containerd.toml",
        format!(
            "version = 2\nroot = \"{DIR}/containerd\"\nstate = \"{DIR}/containerd-state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{DIR}/containerd.sock\"\n"
        ),
    );
    let mut command = Command::new("containerd");
    let log = |name: &str| Path::new(DIR).join(name);
    let containerd = Daemon::start(
        command.args(["--config", &containerd]),
        &log("containerd.log"),
    );
    until("containerd to listen", || {
        fs::exists(format!("{DIR}/containerd.sock")).expect("stat")
    });
    let mut command = Command::new(programs().join("dockerd"));
    command.env("PATH", search_path()).args([
        "--config-file",
        &config,
        "--containerd",
        &format!("{DIR}/containerd.sock"),
        "--host",
        &format!("unix://{DIR}/socket"),
        "--storage-driver",
        "vfs",
        "--bridge",
        "none",
        "--iptables=false",
        "--ip-forward=false",
        "--exec-root",
        &format!("{DIR}/exec"),
        "--data-root",
        &format!("{DIR}/data"),
        "--pidfile",
        &format!("{DIR}/pid"),
        "--cgroup-parent",
        &cgroup_path("docker"),
        "--exec-opt",
        "native.cgroupdriver=cgroupfs",
        "--default-ulimit",
        "nofile=1024:4096",
    ]);
    let dockerd = Daemon::start(&mut command, &log("dockerd.log"));
    let answers = (0..300).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        docker(&["version"]).code == 0
    });
    if !answers {
        let text = fs::read_to_string(log("dockerd.log")).unwrap_or_default();
        return Err(format!(
            "dockerd does not run here: {}",
            text.lines().last().unwrap_or_default()
        ));
    }
    for image in ["busybox", "glibc"] {
        let tar = path("FLEET_STATE")
            .join(format!("images/{image}.tar"))
            .display()
            .to_string();
        drop(
            docker(&[
                "import",
                "--change",
                "CMD [\"/bin/sh\"]",
                &tar,
                &format!("fleet-{image}"),
            ])
            .ok(),
        );
    }
    Ok(Engine {
        _containerd: containerd,
        _dockerd: dockerd,
    })
}

fn docker(args: &[&str]) -> Output {
    let mut command = Command::new("docker");
    command
        .env("PATH", search_path())
        .env("DOCKER_HOST", format!("unix://{DIR}/socket"));
    run(command.args(args))
}

fn inside(options: &[&str], image: &str, program: &[&str]) -> Output {
    docker(
        &[
            &[
                "run",
                "--rm",
                "--network",
                "none",
                "--runtime",
                "fleet-nvidia",
            ],
            options,
            &[image],
            program,
        ]
        .concat(),
    )
}

fn sh(options: &[&str], script: &str) -> Output {
    inside(options, "fleet-busybox", &["sh", "-c", script])
}

/// A container that goes away with this.
struct Service(String);

impl Service {
    fn new(options: &[&str], script: &str) -> Self {
        let name = unique("service");
        let fixed = ["run", "-d", "--network", "none", "--name", &name];
        drop(docker(&[&fixed, options, &["fleet-busybox", "sh", "-c", script]].concat()).ok());
        Self(name)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(docker(&["rm", "--force", &self.0]));
    }
}

#[test]
fn runs_and_exit_codes() {
    if !engine("runs_and_exit_codes") {
        return;
    }
    assert!(
        docker(&["info"])
            .ok()
            .contains("Default Runtime: fleet-nvidia")
    );
    assert_eq!(sh(&[], "echo hi").ok(), "hi\n");
    assert_eq!(sh(&[], "exit 42").code, 42);
    for (program, code, words) in [
        (
            "/no/such",
            127,
            "executable file `/no/such` not found: no such file or directory",
        ),
        (
            "/etc",
            126,
            "open executable: `/etc` is a directory: permission denied",
        ),
        (
            "/etc/passwd",
            126,
            "open executable: `/etc/passwd`: permission denied",
        ),
    ] {
        let out = inside(&[], "fleet-busybox", &[program]);
        assert!(out.code == code && out.stderr.contains(words), "{out:#?}");
    }
    let options = [
        "--read-only",
        "--tmpfs",
        "/t",
        "--user",
        "1000",
        "--workdir",
        "/tmp",
        "--env",
        "A=b",
        "--cap-drop",
        "all",
    ];
    let script = "id -u; pwd; echo $A; touch /t/x && echo tmpfs; touch /x 2>/dev/null || echo ro; grep CapEff /proc/self/status";
    assert_eq!(
        sh(&options, script).ok(),
        "1000\n/tmp\nb\ntmpfs\nro\nCapEff:\t0000000000000000\n"
    );
    assert_eq!(
        sh(&[], "grep Seccomp: /proc/self/status").ok(),
        "Seccomp:\t2\n"
    );
    let terminal = on_terminal(&format!(
        "PATH='{}' DOCKER_HOST=unix://{DIR}/socket docker run --rm --network none -it fleet-busybox sh -c 'tty; exit 5'",
        search_path()
    ));
    assert!(
        terminal.code == 5 && terminal.stdout.contains("/dev/pts/0"),
        "{terminal:#?}"
    );
}

#[test]
fn life_of_a_service() {
    if !engine("life_of_a_service") {
        return;
    }
    let service = Service::new(
        &[],
        "echo started; trap 'exit 7' TERM; while :; do sleep 0.1; done",
    );
    let name = service.0.as_str();
    let inspect =
        |what: &str| docker(&["inspect", "--format", &format!("{{{{{what}}}}}"), name]).ok();
    until("the log", || docker(&["logs", name]).stdout == "started\n");
    assert_eq!(docker(&["exec", name, "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(
        docker(&[
            "exec",
            "--user",
            "1000",
            "--env",
            "A=b",
            name,
            "sh",
            "-c",
            "id -u; echo $A"
        ])
        .ok(),
        "1000\nb\n"
    );
    let missing = docker(&["exec", name, "/no/such"]);
    let said = format!("{}{}", missing.stdout, missing.stderr);
    assert!(
        matches!(missing.code, 126 | 127) && said.contains("executable file `/no/such` not found"),
        "{missing:#?}"
    );
    assert!(docker(&["top", name]).ok().contains("sleep"));
    assert!(docker(&["stats", "--no-stream", name]).ok().contains(name));
    drop(docker(&["pause", name]).ok());
    assert_eq!(inspect(".State.Status"), "paused\n");
    drop(docker(&["unpause", name]).ok());
    drop(
        docker(&[
            "update",
            "--memory",
            "64m",
            "--memory-swap",
            "64m",
            "--cpus",
            "0.5",
            name,
        ])
        .ok(),
    );
    let id = inspect(".Id");
    let group = format!("{}/{}", cgroup_path("docker"), id.trim());
    let limits: Vec<String> = fleet_tests::cgroup_dirs(&group)
        .iter()
        .flat_map(|dir| ["memory.limit_in_bytes", "cpu.cfs_quota_us"].map(|file| dir.join(file)))
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect();
    assert!(
        limits.contains(&"67108864\n".to_owned()) && limits.contains(&"50000\n".to_owned()),
        "{limits:?}"
    );
    drop(docker(&["stop", name]).ok());
    assert_eq!(inspect(".State.ExitCode"), "7\n");
    drop(docker(&["restart", name]).ok());
    assert_eq!(docker(&["exec", name, "echo", "again"]).ok(), "again\n");
    drop(docker(&["kill", name]).ok());
    assert_eq!(docker(&["wait", name]).ok(), "137\n");
    drop(docker(&["rm", name]).ok());
    let state = format!("{DIR}/exec/runtime-runc/moby/{}", id.trim());
    assert!(
        !fs::exists(state).expect("stat"),
        "state of a removed container is left"
    );
}

#[test]
fn an_oom_kill_is_told() {
    if !engine("an_oom_kill_is_told") {
        return;
    }
    let service = Service::new(
        &["--memory", "16m", "--memory-swap", "16m"],
        "a=x; while :; do a=$a$a; done",
    );
    assert_eq!(docker(&["wait", &service.0]).ok(), "137\n");
    let told = docker(&["inspect", "--format", "{{.State.OOMKilled}}", &service.0]).ok();
    assert_eq!(told, "true\n");
}

#[test]
fn gpus_by_environment() {
    let test = "gpus_by_environment";
    if !gpus(test) || !engine(test) {
        return;
    }
    let list = |options: &[&str]| inside(options, "fleet-glibc", &["nvidia-smi", "-L"]);
    let env = |gpu: &str| format!("NVIDIA_VISIBLE_DEVICES={gpu}");
    assert_eq!(list(&["--env", &env("all")]).ok().lines().count(), 2);
    let zero = list(&["--env", &env("0")]).ok();
    let one = list(&["--env", &env("1")]).ok();
    assert!(
        zero.lines().count() == 1 && one.lines().count() == 1 && zero != one,
        "{zero}{one}"
    );
    let alone = inside(
        &["--env", &env("0"), "--cap-add", "MKNOD"],
        "fleet-glibc",
        &["sh", "-c", &isolation_script(0, 1)],
    );
    assert_eq!(alone.ok(), ISOLATED);
    let wrong = list(&["--env", &env("9")]);
    let words = "unresolvable CDI devices nvidia.com/gpu=9";
    assert!(
        wrong.code == 125 && wrong.stderr.contains(words) && wrong.stderr.contains("known devices"),
        "{wrong:#?}"
    );
    // Docker answers itself, before any runtime is asked: it looks for NVIDIA's own programs.
    let flag = list(&["--gpus", "all"]);
    assert!(
        flag.code == 125 && flag.stderr.contains("could not select device driver"),
        "{flag:#?}"
    );
    let by_name = list(&["--device", "nvidia.com/gpu=1"]);
    assert!(by_name.code == 125 || by_name.stdout == one, "{by_name:#?}");
}

#[test]
fn checkpoint_is_refused() {
    if !engine("checkpoint_is_refused") {
        return;
    }
    let service = Service::new(&[], "sleep 1000");
    // Without the experimental features of the daemon it is refused before the runtime is asked.
    let out = docker(&["checkpoint", "create", &service.0, "x"]);
    assert_ne!(out.code, 0, "{out:#?}");
    assert_eq!(
        docker(&["exec", &service.0, "echo", "goes on"]).ok(),
        "goes on\n"
    );
}
