//! Podman itself, rootful and rootless, on a simulated node.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use fleet_tests::{Output, path, run, skip, unique};

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
fn gpus_by_device_and_by_environment() {
    if !node("gpus_by_device_and_by_environment") {
        return;
    }
    let smi = |options: &[&str]| {
        podman(
            &[
                &["run", "--rm"],
                options,
                &["fleet-glibc", "nvidia-smi", "-L"],
            ]
            .concat(),
        )
        .ok()
    };
    assert_eq!(smi(&["--device", "nvidia.com/gpu=all"]).lines().count(), 2);
    for gpu in ["0", "1"] {
        let by_device = smi(&["--device", &format!("nvidia.com/gpu={gpu}")]);
        assert_eq!(by_device.lines().count(), 1);
        assert_eq!(
            smi(&["-e", &format!("NVIDIA_VISIBLE_DEVICES={gpu}")]),
            by_device
        );
    }
    assert_eq!(
        smi(&["-e", "NVIDIA_VISIBLE_DEVICES=all"]).lines().count(),
        2
    );
    assert_eq!(
        smi(&["--read-only", "--device", "nvidia.com/gpu=0"])
            .lines()
            .count(),
        1
    );
    assert_eq!(
        smi(&["--user", "1000", "--device", "nvidia.com/gpu=0"])
            .lines()
            .count(),
        1
    );
    let bare = podman(&[
        "run",
        "--rm",
        "--device",
        "nvidia.com/gpu=0",
        "fleet-glibc-bare",
        "nvidia-smi",
        "-L",
    ])
    .ok();
    assert_eq!(bare.lines().count(), 1);
    let musl = podman(&[
        "run",
        "--rm",
        "--device",
        "nvidia.com/gpu=0",
        "fleet-musl",
        "open",
        "libcuda.so.1",
    ])
    .ok();
    assert_eq!(musl, "libcuda.so.1: ok\n");
    let wrong = podman(&[
        "run",
        "--rm",
        "-e",
        "NVIDIA_VISIBLE_DEVICES=9",
        "fleet-glibc",
        "true",
    ]);
    assert_eq!(wrong.code, 126, "{wrong:#?}");
    assert!(
        wrong
            .stderr
            .contains("unresolvable CDI devices nvidia.com/gpu=9")
            && wrong.stderr.contains("known devices"),
        "{wrong:#?}"
    );
}

#[test]
fn restart_of_a_gpu_container() {
    if !node("restart_of_a_gpu_container") {
        return;
    }
    let name = unique("gpu");
    drop(
        podman(&[
            "run",
            "-d",
            "--name",
            &name,
            "--device",
            "nvidia.com/gpu=1",
            "fleet-glibc",
            "sleep",
            "100",
        ])
        .ok(),
    );
    for _ in 0..2 {
        assert!(
            podman(&["exec", &name, "nvidia-smi", "-L"])
                .ok()
                .starts_with("GPU 0: NVIDIA H100")
        );
        drop(podman(&["restart", "-t", "0", &name]).ok());
    }
    drop(podman(&["rm", "-f", "-t", "0", &name]).ok());
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
fn life_of_a_service() {
    let name = unique("svc");
    drop(
        podman(&[
            "run",
            "-d",
            "--name",
            &name,
            "fleet-busybox",
            "sh",
            "-c",
            "echo started; trap 'exit 7' TERM; while :; do sleep 0.1; done",
        ])
        .ok(),
    );
    assert!(podman(&["exec", &name, "id"]).ok().contains("uid=0"));
    assert_eq!(podman(&["exec", &name, "/no/such"]).code, 127);
    assert_eq!(podman(&["exec", &name, "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(
        podman(&[
            "exec",
            "--user",
            "1000",
            "-w",
            "/tmp",
            "-e",
            "A=b",
            &name,
            "sh",
            "-c",
            "id -u; pwd; echo $A"
        ])
        .ok(),
        "1000\n/tmp\nb\n"
    );
    assert!(
        podman(&[
            "exec",
            "-t",
            &name,
            "sh",
            "-c",
            "test -t 0 && echo terminal"
        ])
        .ok()
        .contains("terminal")
    );
    assert!(podman(&["top", &name]).ok().contains("sleep"));
    assert!(
        podman(&["stats", "--no-stream", &name])
            .ok()
            .contains(&name)
    );
    drop(podman(&["pause", &name]).ok());
    assert!(
        podman(&[
            "ps",
            "-a",
            "--filter",
            &format!("name={name}"),
            "--format",
            "{{.Status}}"
        ])
        .ok()
        .contains("Paused")
    );
    drop(podman(&["unpause", &name]).ok());
    assert_eq!(podman(&["logs", &name]).ok(), "started\n");
    drop(podman(&["stop", &name]).ok());
    assert_eq!(
        podman(&["inspect", &name, "--format", "{{.State.ExitCode}}"]).ok(),
        "7\n"
    );
    drop(podman(&["rm", &name]).ok());
    drop(
        podman(&[
            "run",
            "-d",
            "--name",
            &name,
            "fleet-busybox",
            "sleep",
            "100",
        ])
        .ok(),
    );
    drop(podman(&["kill", "-s", "KILL", &name]).ok());
    assert_eq!(podman(&["wait", &name]).ok(), "137\n");
    drop(podman(&["rm", &name]).ok());
    let left = fs::read_dir("/run/fleet-nvidia").map_or(0, |all| {
        all.flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .count()
    });
    assert_eq!(left, 0, "state of a removed container is left");
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
fn pods() {
    let pod = unique("pod");
    let created = podman(&[
        "pod",
        "create",
        "--name",
        &pod,
        "--network",
        "host",
        "--infra-image",
        "fleet-busybox",
        "--infra-command",
        "sleep 100",
    ]);
    drop(created.ok());
    assert_eq!(
        podman(&[
            "run",
            "--rm",
            "--pod",
            &pod,
            "fleet-busybox",
            "echo",
            "in the pod"
        ])
        .ok(),
        "in the pod\n"
    );
    drop(
        podman(&[
            "run",
            "-d",
            "--pod",
            &pod,
            "--name",
            &format!("{pod}-a"),
            "fleet-busybox",
            "sleep",
            "100",
        ])
        .ok(),
    );
    assert!(podman(&["pod", "ps"]).ok().contains(&pod));
    drop(podman(&["pod", "stop", "-t", "0", &pod]).ok());
    drop(podman(&["pod", "rm", "-f", &pod]).ok());
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

/// An unprivileged user with sub-ids, as `adduser` makes one.
fn user(test: &str) -> bool {
    static USER: OnceLock<Option<String>> = OnceLock::new();
    let failed = USER.get_or_init(|| {
        let script = "set -e
            grep -q ^fleetuser: /etc/passwd || useradd --create-home --home-dir /run/home-fleetuser --shell /bin/bash fleetuser
            grep -q ^fleetuser: /etc/subuid || { echo fleetuser:300000:65536 >> /etc/subuid; echo fleetuser:300000:65536 >> /etc/subgid; }
            id=$(id -u fleetuser); mkdir -p /run/user/$id /run/home-fleetuser; chown fleetuser: /run/user/$id /run/home-fleetuser; chmod 700 /run/user/$id";
        // The account files are the isolated run's own copies.
        let out = run(Command::new("bash").args(["-c", &format!(
            "for f in passwd shadow group gshadow subuid subgid; do cp -p /etc/$f /run/own-$f 2>/dev/null || touch /run/own-$f; done; mkdir -p /run/etc; cp -a /etc/. /run/etc/; mount --bind /run/etc /etc; {script}"
        )]));
        (out.code != 0).then(|| out.stderr.trim().to_owned())
    });
    if let Some(reason) = failed {
        skip(test, reason);
    }
    failed.is_none()
}

fn rootless(script: &str) -> Output {
    let top = path("FLEET_STATE")
        .parent()
        .expect("the project")
        .to_path_buf();
    let images = "/run/rootless-images";
    if !PathBuf::from(images).exists() {
        fs::create_dir_all(images).expect("mkdir");
        for image in ["busybox", "glibc"] {
            fs::copy(
                top.join(format!(".state/images/{image}.tar")),
                format!("{images}/{image}.tar"),
            )
            .expect("copy");
        }
        fs::copy(path("RUNTIME_UNDER_TEST"), "/run/fleet-nvidia-binary").expect("copy");
        drop(
            run(Command::new("cp")
                .args(["-r"])
                .arg(top.join("tests/setup"))
                .arg("/run/rootless-setup"))
            .ok(),
        );
        drop(
            run(Command::new("cp")
                .args(["-r"])
                .arg(top.join("packaging"))
                .arg("/run/rootless-packaging"))
            .ok(),
        );
        drop(run(Command::new("sh").args(["-c", "chmod -R a+rX /run/rootless-setup /run/rootless-packaging /run/rootless-images; mkdir -p /run/rl/tests; ln -sfn /run/rootless-setup /run/rl/tests/setup; ln -sfn /run/rootless-packaging /run/rl/packaging"])).ok());
    }
    let prelude = "export XDG_RUNTIME_DIR=/run/user/$(id -u) HOME=/run/home-fleetuser; cd; TOP=/run/rl STATE=/run/home-fleetuser/state RUNTIME=/run/fleet-nvidia-binary; . $TOP/tests/setup/podman.sh
        sed -i 's|^runroot.*|runroot = \"/run/home-fleetuser/run\"|' $STATE/storage.conf
        for i in busybox glibc; do podman image exists r-$i || podman import -q /run/rootless-images/$i.tar r-$i >/dev/null; done
        P='podman --runtime fleet-nvidia'";
    run(Command::new("setpriv").args([
        "--reuid",
        "fleetuser",
        "--regid",
        "fleetuser",
        "--init-groups",
        "--inh-caps=-all",
        "bash",
        "-c",
        &format!("{prelude}\n{script}"),
    ]))
}

#[test]
fn rootless_basics() {
    if !user("rootless_basics") {
        return;
    }
    let out = rootless("$P run --rm r-busybox sh -c 'id -u; cat /proc/self/uid_map | wc -l'");
    assert_eq!(out.ok(), "0\n2\n");
    assert_eq!(
        rootless("$P run --rm --userns keep-id r-busybox id -un")
            .ok()
            .trim(),
        "fleetuser"
    );
    assert_eq!(
        rootless("$P run --rm --tmpfs /t --read-only r-busybox sh -c 'touch /t/x && echo fine'")
            .ok(),
        "fine\n"
    );
    assert_eq!(
        rootless("$P run --rm r-busybox /no/such >/dev/null 2>&1; echo $?").ok(),
        "127\n"
    );
    assert_eq!(rootless("$P run -d --name d r-busybox sleep 100 >/dev/null; $P exec d echo inside; $P rm -f -t 0 d >/dev/null").ok(), "inside\n");
}

#[test]
fn rootless_gpus() {
    if !user("rootless_gpus") || !node("rootless_gpus") {
        return;
    }
    assert!(
        rootless("$P run --rm -e NVIDIA_VISIBLE_DEVICES=all r-glibc nvidia-smi -L")
            .ok()
            .lines()
            .count()
            == 2
    );
    assert!(
        rootless("$P run --rm -e NVIDIA_VISIBLE_DEVICES=1 r-glibc nvidia-smi -L")
            .ok()
            .starts_with("GPU 0")
    );
}
