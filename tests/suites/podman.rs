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

/// What `cdi generate` writes for the node takes the place of the spec that its simulation came with.
#[test]
fn gpus_by_a_generated_spec() {
    if !node("gpus_by_a_generated_spec") {
        return;
    }
    let spec = "/etc/cdi/nvidia.yaml";
    let before = fs::read(spec).expect("read the spec");
    let args = [
        "cdi",
        "generate",
        "--driver-root",
        "/run/sim-node",
        "--output",
        spec,
    ];
    drop(run(Command::new(path("FLEET_CTL")).args(args)).ok());
    let list = |device: &str| {
        let options = [
            "run",
            "--rm",
            "--device",
            device,
            "fleet-glibc",
            "nvidia-smi",
            "-L",
        ];
        podman(&options).ok()
    };
    let all = list("nvidia.com/gpu=all");
    let one = list("nvidia.com/gpu=1");
    fs::write(spec, before).expect("restore the spec");
    assert_eq!(all.lines().count(), 2, "{all}");
    let second = all
        .lines()
        .nth(1)
        .and_then(|line| line.split("GPU-").nth(1));
    assert_eq!(one.lines().count(), 1, "{one}");
    assert!(one.contains(second.expect("a UUID")), "{one} of {all}");
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

/// A pod that goes away with this, and its containers with it.
struct Pod<'a>(&'a str);

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        drop(podman(&["pod", "rm", "-f", "-t", "0", self.0]));
    }
}

/// Two containers run at once, each with one GPU: the other's answers EPERM, also after `mknod`.
#[test]
fn two_containers_two_gpus() {
    if !node("two_containers_two_gpus") {
        return;
    }
    let machine = fs::read_to_string("/run/sim-node/usr/share/nvidia/fleet-sim-machine.json");
    let machine: serde_json::Value =
        serde_json::from_str(&machine.expect("machine")).expect("JSON");
    let number = |gpu: usize| {
        let node = &machine["gpus"][gpu]["node"];
        format!("{} {}", node["major"], node["minor"])
    };
    for request in ["--device=nvidia.com/gpu=", "--env=NVIDIA_VISIBLE_DEVICES="] {
        let services: Vec<Service> = (0..2)
            .map(|gpu| {
                Service::new(
                    &[&format!("{request}{gpu}"), "--cap-add=MKNOD"],
                    "fleet-glibc",
                )
            })
            .collect();
        let seen: Vec<String> = services
            .iter()
            .map(|service| service.exec("nvidia-smi -L").ok())
            .collect();
        assert!(
            seen.iter().all(|text| text.lines().count() == 1),
            "{seen:?}"
        );
        assert_ne!(seen[0], seen[1]);
        for (own, other) in [(0, 1), (1, 0)] {
            let script = format!(
                "ls /dev/nvidia[0-9]; true < /dev/nvidia{own} && echo opens; mknod /dev/other c {} && (true < /dev/other) 2>&1 | grep -o 'not permitted'",
                number(other)
            );
            assert_eq!(
                services[own].exec(&script).ok(),
                format!("/dev/nvidia{own}\nopens\nnot permitted\n"),
                "{request}"
            );
        }
    }
}

/// A pod of two services: one with a GPU, one without.
#[test]
fn a_pod_with_a_gpu() {
    if !node("a_pod_with_a_gpu") {
        return;
    }
    let pod = unique("pod");
    let create = [
        "pod",
        "create",
        "--name",
        &pod,
        "--network",
        "host",
        "--infra-image",
        "fleet-busybox",
        "--infra-command",
        "sleep 1000",
    ];
    drop(podman(&create).ok());
    let _pod = Pod(&pod);
    let with = Service::new(
        &["--pod", &pod, "--device", "nvidia.com/gpu=0"],
        "fleet-glibc",
    );
    let without = Service::new(&["--pod", &pod], "fleet-glibc");
    assert_eq!(with.exec("nvidia-smi -L").ok().lines().count(), 1);
    assert_eq!(without.exec("ls /dev | grep -c nvidia").stdout, "0\n");
    let namespaces = |service: &Service| {
        service
            .exec("readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts")
            .ok()
    };
    assert_eq!(
        namespaces(&with),
        namespaces(&without),
        "a pod shares these"
    );
}

/// What an image says about GPUs counts under Podman, as it does with NVIDIA's runtime.
#[test]
fn an_image_that_asks_for_gpus() {
    if !node("an_image_that_asks_for_gpus") {
        return;
    }
    let image = unique("image");
    let archive = path("FLEET_STATE").join("images/glibc.tar");
    let archive = archive.to_str().expect("text");
    drop(
        podman(&[
            "import",
            "-q",
            "--change",
            "ENV NVIDIA_VISIBLE_DEVICES=all",
            archive,
            &image,
        ])
        .ok(),
    );
    let count = |options: &[&str]| {
        let args = [
            &["run", "--rm"],
            options,
            &[
                image.as_str(),
                "sh",
                "-c",
                "ls /dev | grep -c 'nvidia[0-9]'",
            ],
        ];
        podman(&args.concat()).stdout
    };
    assert_eq!(count(&[]), "2\n");
    assert_eq!(count(&["-e", "NVIDIA_VISIBLE_DEVICES=0"]), "1\n");
    assert_eq!(count(&["-e", "NVIDIA_VISIBLE_DEVICES=void"]), "0\n");
    assert_eq!(count(&["--device", "nvidia.com/gpu=1"]), "1\n");
}

/// Podman under a pseudo terminal made by script(1): what a user types at.
fn at_a_terminal(args: &str) -> Output {
    let state = state();
    let line = format!("podman --runtime fleet-nvidia {args}");
    let mut out = run(Command::new("script")
        .env("CONTAINERS_CONF", state.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", state.join("storage.conf"))
        .args(["-qec", &line, "/dev/null"]));
    out.stdout = out.stdout.replace('\r', "").replace("^@", "");
    out
}

#[test]
fn terminals() {
    let text = at_a_terminal("run --rm -it fleet-busybox sh -c 'tty; stty size; exit 3'");
    assert_eq!(text.code, 3, "{text:#?}");
    assert!(text.stdout.contains("/dev/pts/0"), "{text:#?}");
    let service = Service::new(&[], "fleet-busybox");
    let text = at_a_terminal(&format!("exec -it {} sh -c 'tty; id -u'", service.0));
    assert!(
        text.code == 0 && text.stdout.contains("/dev/pts/0\n0\n"),
        "{text:#?}"
    );
    let user = podman(&[
        "run",
        "--rm",
        "-t",
        "--user",
        "1000",
        "fleet-busybox",
        "sh",
        "-c",
        "stat -c %u $(tty); echo again > /dev/stdout",
    ])
    .ok();
    assert_eq!(user.replace('\r', ""), "1000\nagain\n");
}

#[test]
fn created_then_started_then_attached() {
    let name = unique("created");
    drop(
        podman(&[
            "create",
            "--name",
            &name,
            "-i",
            "fleet-busybox",
            "sh",
            "-c",
            "echo from the start; exit 4",
        ])
        .ok(),
    );
    let out = podman(&["start", "-a", &name]);
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (4, "from the start\n"),
        "{out:#?}"
    );
    drop(podman(&["rm", &name]).ok());
}

#[test]
fn files_checks_and_signals_of_a_service() {
    let service = Service::new(
        &[
            "--health-cmd",
            "test -e /healthy",
            "--health-interval",
            "disable",
            "--stop-signal",
            "USR1",
        ],
        "fleet-busybox",
    );
    assert_ne!(podman(&["healthcheck", "run", &service.0]).code, 0);
    drop(service.exec("touch /healthy").ok());
    drop(podman(&["healthcheck", "run", &service.0]).ok());
    drop(podman(&["cp", "/etc/hostname", &format!("{}:/copied", service.0)]).ok());
    drop(service.exec("test -s /copied").ok());
    let image = unique("committed");
    drop(podman(&["commit", "-q", &service.0, &image]).ok());
    drop(podman(&["run", "--rm", &image, "test", "-e", "/copied"]).ok());
}

/// Podman asks the runtime first, and says itself that it cannot; the container goes on.
#[test]
fn checkpoint_and_restore_are_unsupported() {
    if run(Command::new("criu").arg("--version")).code != 0 {
        return skip(
            "checkpoint_and_restore_are_unsupported",
            "criu is not installed, and without it Podman does not ask the runtime",
        );
    }
    let service = Service::new(&[], "fleet-busybox");
    let pid = || podman(&["inspect", "-f", "{{.State.Pid}}", &service.0]).ok();
    let before = pid();
    let archive = format!("/run/{}.tar", service.0);
    for options in [&[][..], &["--export", &archive], &["--leave-running"]] {
        let out = podman(&[&["container", "checkpoint"], options, &[&service.0]].concat());
        assert!(
            out.code == 125
                && out
                    .stderr
                    .contains("runtime does not support checkpoint/restore"),
            "{out:#?}"
        );
    }
    assert_eq!(
        podman(&["inspect", "-f", "{{.State.Status}}", &service.0]).ok(),
        "running\n"
    );
    assert_eq!(pid(), before);
    drop(service.exec("true").ok());
    drop(podman(&["stop", "-t", "0", &service.0]).ok());
    let restored = podman(&["container", "restore", &service.0]);
    assert!(
        restored.code == 125 && !restored.stderr.trim().is_empty(),
        "{restored:#?}"
    );
}

#[test]
fn init_reaps_and_passes_signals_on() {
    let name = unique("init");
    drop(
        podman(&[
            "run",
            "-d",
            "--init",
            "--name",
            &name,
            "fleet-busybox",
            "sh",
            "-c",
            "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done",
        ])
        .ok(),
    );
    fleet_tests::until("the trap", || podman(&["logs", &name]).stdout == "ready\n");
    drop(podman(&["stop", "-t", "5", &name]).ok());
    assert_eq!(podman(&["wait", &name]).ok(), "5\n");
    drop(podman(&["rm", &name]).ok());
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

/// The engine shows our sentence, and nothing that looks like a mistake of the user's program.
#[test]
fn messages_about_gpus_arrive_whole() {
    if !node("messages_about_gpus_arrive_whole") {
        return;
    }
    for (value, words) in [
        (
            "7",
            ["unresolvable CDI devices nvidia.com/gpu=7", "known devices"],
        ),
        ("../x", ["../x", "invalid"]),
    ] {
        let out = podman(&[
            "run",
            "--rm",
            "-e",
            &format!("NVIDIA_VISIBLE_DEVICES={value}"),
            "fleet-glibc",
            "true",
        ]);
        assert_eq!(out.code, 126, "{out:#?}");
        for word in words {
            assert!(out.stderr.contains(word), "{word}: {out:#?}");
        }
    }
    let left = podman(&["ps", "-a", "-q"]).ok();
    assert_eq!(left, "", "a container that could not start is left");
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
        let out = run(Command::new("bash").args(["-c", script]));
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

#[test]
fn rootless_service_and_pod() {
    if !user("rootless_service_and_pod") {
        return;
    }
    let script = "$P run -d --name s r-busybox sh -c 'trap \"exit 6\" TERM; echo up; while :; do sleep 0.1; done' >/dev/null
        until $P logs s | grep -q up; do sleep 0.1; done
        $P exec -t s sh -c 'test -t 0 && echo terminal'
        $P exec --user 1000 s id -u
        $P stop -t 5 s >/dev/null; $P wait s; $P rm s >/dev/null
        $P pod create --name p --network host --infra-image r-busybox --infra-command 'sleep 1000' >/dev/null
        $P run --rm --pod p r-busybox echo in the pod
        $P pod rm -f -t 0 p >/dev/null";
    let text = rootless(script).ok().replace('\r', "");
    assert_eq!(text, "terminal\n1000\n6\nin the pod\n");
    let map =
        rootless("$P run --rm --uidmap 0:1:1000 --uidmap 1000:0:1 --user 1000 r-busybox id -u");
    assert_eq!(map.ok(), "1000\n");
    let code = rootless("$P run --rm -e NVIDIA_VISIBLE_DEVICES=9 r-busybox true; echo $?");
    assert_eq!(code.stdout, "126\n", "{code:#?}");
}

/// `podman run` under a service manager, which is a socket here; what it hears until Podman has returned.
fn heard(mode: &str) -> Vec<String> {
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    let address = format!("/run/{}", unique("manager"));
    let manager = UnixDatagram::bind(&address).expect("bind");
    manager
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("set a time limit");
    let name = unique("notify");
    let done = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let mut said = Vec::new();
            let mut bytes = [0; 256];
            loop {
                match manager.recv(&mut bytes) {
                    Ok(length) => {
                        let text = String::from_utf8_lossy(&bytes[..length]);
                        said.extend(text.lines().map(str::to_owned));
                    }
                    Err(_) if done.load(Ordering::Relaxed) => return said,
                    Err(_) => {}
                }
            }
        });
        // The program says no more than a socket needs; perl, python and socat are not in the image.
        let script = "test -n \"$NOTIFY_SOCKET\" && say READY=1; sleep 100";
        let state = state();
        let say = fleet_tests::notifier().display().to_string();
        let out = run(Command::new("podman")
            .env("CONTAINERS_CONF", state.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", state.join("storage.conf"))
            .env("NOTIFY_SOCKET", &address)
            .args([
                "--runtime",
                "fleet-nvidia",
                "run",
                "--detach",
                "--name",
                &name,
            ])
            .args([
                "--sdnotify",
                mode,
                "--volume",
                &format!("{say}:/bin/say:ro"),
            ])
            .args(["fleet-busybox", "sh", "-c", script]));
        // A message of the container may come after Podman has returned.
        std::thread::sleep(Duration::from_millis(500));
        done.store(true, Ordering::Relaxed);
        drop(out.ok());
        listening.join().expect("listen")
    });
    drop(podman(&["rm", "--force", "--time", "0", &name]).ok());
    drop(fs::remove_file(address));
    said
}

#[test]
fn a_service_manager_hears_of_the_container() {
    let of = |mode| {
        let said = heard(mode);
        let count = |word: &str| said.iter().filter(|line| line.starts_with(word)).count();
        (count("READY=1"), count("MAINPID="), said.clone())
    };
    for mode in ["container", "conmon"] {
        let (ready, main, said) = of(mode);
        assert_eq!(ready, 1, "{mode}: {said:?}");
        assert!(main >= 1, "{mode}: {said:?}");
    }
    assert_eq!(heard("ignore"), Vec::<String>::new());
}
