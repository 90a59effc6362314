//! Podman itself, rootful and rootless, on a simulated node.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use fleet_tests::{Output, path, run, skip, unique};

#[path = "podman/ai_pod.rs"]
mod ai_pod;
#[path = "podman/checkpoint.rs"]
mod checkpoint;
#[path = "podman/gpus.rs"]
mod gpus;
#[path = "podman/rootless.rs"]
mod rootless;
#[path = "podman/services.rs"]
mod services;

/// Storage, configuration, images and a node, once for all tests.
fn state() -> &'static PathBuf {
    static STATE: OnceLock<PathBuf> = OnceLock::new();
    STATE.get_or_init(|| {
        let state = PathBuf::from("/run/podman-suite");
        fs::create_dir_all(&state).expect("mkdir");
        let top = path("FLEET_STATE").parent().expect("the project").to_path_buf();
        let script = format!(
            "set -eu; TOP={top} STATE={state} RUNTIME={runtime}; . $TOP/tests/setup/podman.sh
            for image in busybox glibc glibc-bare musl; do podman import -q $TOP/.state/images/$image.tar fleet-$image >/dev/null; done",
            top = top.display(),
            state = state.display(),
            runtime = path("RUNTIME_UNDER_TEST").display(),
        );
        drop(run(Command::new("bash").args(["-c", &script])).ok());
        state
    })
}

fn node(test: &str) -> bool {
    static NODE: OnceLock<Option<String>> = OnceLock::new();
    let failed = NODE.get_or_init(|| {
        drop(fs::remove_dir_all("/run/cdi"));
        let out = run(
            Command::new(path("FLEET_PROGRAMS").join("fleet-simulate")).args([
                "create",
                "--machine",
                "h100x2",
                "--root",
                "/run/sim-node",
                "--cdi",
                "/etc/cdi/nvidia.yaml",
            ]),
        );
        (out.code != 0).then(|| out.stderr.trim().to_owned())
    });
    if let Some(reason) = failed {
        skip(test, reason);
    }
    failed.is_none()
}

fn podman(args: &[&str]) -> Output {
    let state = state();
    run(Command::new("podman")
        .env("CONTAINERS_CONF", state.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", state.join("storage.conf"))
        .args(["--runtime", "fleet-nvidia"])
        .args(args))
}

fn sh(options: &[&str], script: &str) -> Output {
    podman(
        &[
            &["run", "--rm"],
            options,
            &["fleet-busybox", "sh", "-c", script],
        ]
        .concat(),
    )
}

#[test]
fn by_name_and_by_path() {
    assert_eq!(sh(&[], "echo hi").ok(), "hi\n");
    let state = state();
    let binary = path("RUNTIME_UNDER_TEST");
    let mut command = Command::new("podman");
    command
        .env("CONTAINERS_CONF", state.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", state.join("storage.conf"))
        .arg("--runtime")
        .arg(&binary);
    assert_eq!(
        run(command.args(["run", "--rm", "fleet-busybox", "echo", "path"])).ok(),
        "path\n"
    );
    assert!(
        podman(&["info", "--format", "{{.Host.OCIRuntime.Version}}"])
            .ok()
            .contains("fleet-nvidia version")
    );
}

#[test]
fn exit_codes_and_messages() {
    let missing = podman(&["run", "--rm", "fleet-busybox", "/no/such"]);
    assert_eq!(missing.code, 127, "{missing:#?}");
    let directory = podman(&["run", "--rm", "fleet-busybox", "/etc"]);
    assert_eq!(directory.code, 126, "{directory:#?}");
    assert_eq!(sh(&[], "exit 42").code, 42);
    let volume = sh(
        &["--mount", "type=tmpfs,destination=/x,tmpfs-mode=9999999"],
        "true",
    );
    assert_ne!(volume.code, 0, "{volume:#?}");
}

#[test]
fn options_of_daily_use() {
    assert!(sh(&["--init"], "cat /proc/1/cmdline").ok().contains("init"));
    assert_eq!(
        sh(
            &["--read-only", "--tmpfs", "/x:rw"],
            "touch /x/a && ls /x; touch /y 2>/dev/null || echo ro"
        )
        .ok(),
        "a\nro\n"
    );
    assert_eq!(
        sh(
            &["--user", "1000", "--group-add", "44"],
            "id -u; id -G; echo again > /dev/stdout"
        )
        .ok(),
        "1000\n1000 44\nagain\n"
    );
    assert_eq!(
        sh(&["--network", "host", "--hostname", "named"], "hostname").ok(),
        "named\n"
    );
    assert_eq!(
        sh(
            &["--network", "none"],
            "cat /sys/class/net/lo/operstate >/dev/null; ls /sys/class/net"
        )
        .ok(),
        "lo\n"
    );
    assert_eq!(
        sh(&["-v", "/dev:/dev"], "test -c /dev/null && echo there").ok(),
        "there\n"
    );
    assert_eq!(
        sh(
            &["--privileged"],
            "cat /proc/self/status | grep -c Seccomp:.0"
        )
        .ok(),
        "1\n"
    );
    assert_eq!(sh(&["--memory", "64m"], "echo limited").ok(), "limited\n");
    assert_eq!(
        sh(&["--pids-limit", "50", "--cpus", "0.5"], "echo limited").ok(),
        "limited\n"
    );
    assert_eq!(
        sh(&["--cap-drop", "all"], "grep CapEff /proc/self/status").ok(),
        "CapEff:\t0000000000000000\n"
    );
    assert_eq!(
        sh(
            &["--uidmap", "0:100000:5000", "--uidmap", "5000:200000:100"],
            "id -u; wc -l < /proc/self/uid_map"
        )
        .ok(),
        "0\n2\n"
    );
    assert_eq!(
        sh(&["--device", "/dev/fuse"], "test -c /dev/fuse && echo fuse").ok(),
        "fuse\n"
    );
    assert_eq!(
        sh(&["--cgroups", "disabled"], "echo no cgroup").ok(),
        "no cgroup\n"
    );
    assert_eq!(
        sh(
            &["--security-opt", "no-new-privileges", "--umask", "0077"],
            "grep NoNewPrivs /proc/self/status; umask"
        )
        .ok(),
        "NoNewPrivs:\t1\n0077\n"
    );
    assert_eq!(
        sh(&["-t"], "test -t 1 && echo terminal").ok().trim(),
        "terminal"
    );
    assert_eq!(
        sh(
            &["--ulimit", "nofile=100:200", "--ulimit", "nproc=1024:4096"],
            "ulimit -n"
        )
        .ok(),
        "100\n"
    );
    assert_eq!(
        sh(
            &["--sysctl", "kernel.shmmax=65536"],
            "cat /proc/sys/kernel/shmmax"
        )
        .ok(),
        "65536\n"
    );
}

#[test]
fn volumes() {
    let dir = PathBuf::from("/run").join(unique("volume"));
    fs::create_dir_all(&dir).expect("mkdir");
    fs::write(dir.join("file"), "content\n").expect("write");
    let text = dir.display().to_string();
    assert_eq!(
        sh(
            &["-v", &format!("{text}:/v:ro")],
            "cat /v/file; touch /v/x 2>/dev/null || echo ro"
        )
        .ok(),
        "content\nro\n"
    );
    assert_eq!(
        sh(
            &["-v", &format!("{text}:/v:rslave")],
            "echo new > /v/new; cat /v/new"
        )
        .ok(),
        "new\n"
    );
    assert!(dir.join("new").exists());
    assert_eq!(
        sh(&["-v", "named:/n"], "echo x > /n/x; cat /n/x").ok(),
        "x\n"
    );
}

#[test]
fn build() {
    let dir = PathBuf::from("/run").join(unique("build"));
    fs::create_dir_all(&dir).expect("mkdir");
    fs::write(
        dir.join("Containerfile"),
        "FROM fleet-busybox\nRUN echo built > /built && id\n",
    )
    .expect("write");
    let tag = unique("image");
    drop(
        podman(&[
            "build",
            "-q",
            "--network",
            "host",
            "--isolation",
            "oci",
            "-t",
            &tag,
            dir.to_str().expect("text"),
        ])
        .ok(),
    );
    assert_eq!(
        podman(&["run", "--rm", &tag, "cat", "/built"]).ok(),
        "built\n"
    );
}

/// A container that waits, and goes away with this.
struct Service(String);

impl Service {
    fn new(options: &[&str], image: &str) -> Self {
        let name = unique("svc");
        let args = [
            &["run", "-d", "--name", &name],
            options,
            &[image, "sleep", "1000"],
        ];
        drop(podman(&args.concat()).ok());
        Self(name)
    }

    fn exec(&self, script: &str) -> Output {
        podman(&["exec", &self.0, "sh", "-c", script])
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(podman(&["rm", "-f", "-t", "0", &self.0]));
    }
}

/// A pod in the host's network, whose first container waits.
fn create_pod(name: &str) -> Output {
    let mut args = vec!["pod", "create", "--name", name, "--network", "host"];
    args.extend(["--infra-image", "fleet-busybox"]);
    args.extend(["--infra-command", "sleep 1000"]);
    podman(&args)
}

/// A pod that goes away with this, and its containers with it.
struct Pod<'a>(&'a str);

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        drop(podman(&["pod", "rm", "-f", "-t", "0", self.0]));
    }
}

/// Podman chooses the ids; the device nodes of the GPU must be usable all the same.
#[test]
fn a_user_namespace_of_podmans_choice() {
    if !node("a_user_namespace_of_podmans_choice") {
        return;
    }
    // The isolated run's own copies.
    for file in ["/etc/subuid", "/etc/subgid"] {
        let mut text = fs::read_to_string(file).unwrap_or_default();
        if !text.contains("containers:") {
            text.push_str("containers:2147483647:2147483648\n");
            fs::write(file, text).expect("write sub-ids");
        }
    }
    for request in [
        "--device=nvidia.com/gpu=0",
        "--env=NVIDIA_VISIBLE_DEVICES=0",
    ] {
        let args = [
            "run",
            "--rm",
            "--userns=auto",
            request,
            "fleet-glibc",
            "sh",
            "-c",
        ];
        let script = "grep -q '^ *0 *0 ' /proc/self/uid_map || echo mapped; nvidia-smi -L | wc -l";
        let text = podman(&[&args[..], &[script]].concat()).ok();
        assert_eq!(text, "mapped\n1\n", "{request}");
    }
}

#[test]
fn a_shared_user_namespace() {
    let first = Service::new(&["--uidmap", "0:100000:65536"], "fleet-busybox");
    let options = format!("--userns=container:{}", first.0);
    let map = "cat /proc/self/uid_map";
    let joined = Service::new(&[&options], "fleet-busybox");
    for text in [first.exec(map).ok(), joined.exec(map).ok()] {
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words, ["0", "100000", "65536"]);
    }
}

#[test]
fn preserved_descriptors_and_exit_codes_of_exec() {
    let state = state();
    let script = "exec podman --runtime fleet-nvidia run --rm --preserve-fds 1 fleet-busybox cat /proc/self/fd/3 3<<X\nhanded over\nX";
    let text = run(Command::new("bash")
        .env("CONTAINERS_CONF", state.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", state.join("storage.conf"))
        .args(["-c", script]));
    assert_eq!(text.ok(), "handed over\n");
    let service = Service::new(&[], "fleet-busybox");
    for (program, code, word) in [
        ("/no/such", 127, "such file or dir"),
        ("/etc", 126, "is a directory"),
        ("/etc/passwd", 126, "permission denied"),
    ] {
        let out = podman(&["exec", &service.0, program]);
        assert_eq!(out.code, code, "{program}: {out:#?}");
        assert!(
            out.stderr.to_lowercase().contains(word),
            "{program}: {out:#?}"
        );
    }
    assert_eq!(
        podman(&["exec", &service.0, "sh", "-c", "kill -9 $$"]).code,
        137
    );
}
