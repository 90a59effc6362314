//! CRI-O's calls, one by one, over a real conmon (`fleet_tests::crio`).
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fleet_tests::crio::{Container, Crio, Ended, Pod, log_streams, receive_terminal};
use fleet_tests::engine::{ISOLATED, gpus, isolation_script};
use fleet_tests::{ours, path, run, until};
use serde_json::{Value, json};

const SERVICE: &str = "echo started; trap 'exit 7' TERM; while :; do sleep 0.1; done";

fn said(code: i64, stdout: &str) -> Ended {
    Ended {
        code,
        stdout: stdout.to_owned(),
        stderr: String::new(),
    }
}

#[test]
fn start_up_validation() {
    let Some(crio) = Crio::new("start_up_validation") else {
        return;
    };
    let handler = crio.handler();
    assert!(handler.version.contains("version"), "{handler:?}");
    for key in ["ociVersionMin", "ociVersionMax"] {
        assert!(
            handler.features[key]
                .as_str()
                .is_some_and(|v| !v.is_empty()),
            "{key}"
        );
    }
    let features = &handler.features;
    assert_eq!(
        features["linux"]["mountExtensions"]["idmap"]["enabled"],
        true
    );
    assert!(
        features["mountOptions"]
            .as_array()
            .expect("options")
            .contains(&json!("rro"))
    );
    // By its success CRI-O knows that there are checkpoints.
    let probe = crio.call(&["checkpoint", "--help"]).ok();
    assert!(
        !ours() || probe.starts_with("Save the processes of a container, with CRIU\n"),
        "{probe}"
    );
}

#[test]
fn life_of_a_pod() {
    let Some(crio) = Crio::new("life_of_a_pod") else {
        return;
    };
    let mut pod = Pod::new(&crio);
    pod.start();
    assert_eq!(pod.pause.state().expect("state")["status"], "running");
    let first = pod.container("busybox", SERVICE, false);
    let second = pod.container("busybox", SERVICE, true);
    first.create().expect("made");
    assert_eq!(first.state().expect("state")["status"], "created");
    first.start();
    second.run();
    // One network and host name for all, one process namespace where that was asked for.
    let of =
        |pid: i32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("readlink");
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(of(first.pid(), kind), of(second.pid(), kind), "{kind}");
        assert_eq!(of(first.pid(), kind), of(pod.pause.pid(), kind), "{kind}");
    }
    assert_eq!(of(second.pid(), "pid"), of(pod.pause.pid(), "pid"));
    assert_ne!(of(first.pid(), "pid"), of(pod.pause.pid(), "pid"));
    assert_eq!(first.exec_sync(&["hostname"], None), said(0, "pod\n"));
    let neighbours = second.exec_sync(&["ps"], None).stdout;
    assert!(neighbours.contains("sleep 1000000"), "{neighbours}");
    until("the log", || log_streams(&first.log()).0 == "started\n");

    crio.call(&["pause", &first.id]).silent();
    assert_eq!(first.state().expect("state")["status"], "paused");
    crio.call(&["resume", &first.id]).silent();

    for container in [&first, &second] {
        container.stop(Duration::from_secs(10));
        assert_eq!(container.exit_code(), 7);
        assert_eq!(container.state().expect("state")["status"], "stopped");
        container.delete();
        container.delete();
        container.assert_gone();
        assert!(container.state().is_none(), "CRI-O would take it for there");
    }
    pod.pause.stop(Duration::ZERO);
    assert_eq!(pod.pause.exit_code(), 137);
    pod.pause.delete();
    pod.pause.assert_gone();
}

#[test]
fn exec_of_probes() {
    let Some(crio) = Crio::new("exec_of_probes") else {
        return;
    };
    let mut pod = Pod::new(&crio);
    pod.start();
    let container = pod.container("busybox", SERVICE, false);
    container.run();
    let both = container.exec_sync(
        &["sh", "-c", "echo out; echo err >&2; printf unended; exit 3"],
        None,
    );
    let wanted = Ended {
        code: 3,
        stdout: "out\nunended".to_owned(),
        stderr: "err\n".to_owned(),
    };
    assert_eq!(both, wanted);
    assert_eq!(
        container.exec_sync(&["sh", "-c", "kill -9 $$"], None).code,
        137
    );
    let missing = container.exec_sync(&["/no/such"], None);
    assert!(missing.code != 0, "{missing:?}");
    if ours() {
        assert!(
            missing
                .stderr
                .contains("executable file `/no/such` not found"),
            "{missing:?}"
        );
    }
    // A probe that takes too long is killed, and only the probe.
    let late = container.exec_sync(&["sleep", "77"], Some(1));
    assert!(
        late.code != 0 && late.stderr.contains("timed out"),
        "{late:?}"
    );
    until("the probe to be killed", || {
        !container
            .exec_sync(&["ps"], None)
            .stdout
            .contains("sleep 77")
    });
    assert_eq!(container.state().expect("state")["status"], "running");
    // Much output arrives whole.
    let much = container.exec_sync(&["seq", "1", "100000"], None);
    assert_eq!((much.code, much.stdout.lines().count()), (0, 100_000));
}

#[test]
fn streaming_exec() {
    let Some(crio) = Crio::new("streaming_exec") else {
        return;
    };
    let mut pod = Pod::new(&crio);
    pod.start();
    let container = pod.container("busybox", SERVICE, false);
    container.run();
    assert_eq!(
        container.exec_stream(&["cat"], b"in and out\n"),
        said(0, "in and out\n")
    );
    let split = container.exec_stream(&["sh", "-c", "echo out; echo err >&2; exit 5"], b"");
    assert_eq!(
        (split.code, split.stdout.as_str(), split.stderr.as_str()),
        (5, "out\n", "err\n")
    );
    let large = vec![b'x'; 3_000_000];
    let back = container.exec_stream(&["cat"], &large);
    assert_eq!((back.code, back.stdout.len()), (0, large.len()));
    assert_eq!(
        container
            .exec_stream(&["sh", "-c", "kill -15 $$"], b"")
            .code,
        143
    );
    let terminal = container.exec_terminal(&["sh", "-c", "tty; stty size; exit 4"], 31, 97);
    assert_eq!(terminal.code, 4, "{terminal:#?}");
    assert!(
        terminal.stdout.contains("/dev/pts/0\n31 97\n"),
        "{terminal:#?}"
    );
    let missing = container.exec_stream(&["/no/such"], b"");
    assert!(
        missing.code != 0 && missing.stdout.is_empty(),
        "{missing:?}"
    );
}

#[test]
fn terminal_attach_resize_and_log() {
    let Some(crio) = Crio::new("terminal_attach_resize_and_log") else {
        return;
    };
    let mut pod = Pod::new(&crio);
    pod.start();
    let script = "while :; do echo size $(stty size); sleep 0.1; done";
    let mut container = pod.container("busybox", script, false);
    container.spec["process"]["terminal"] = json!(true);
    container.spec["annotations"]["io.kubernetes.cri-o.TTY"] = json!("true");
    container.run();
    container.control("1 44 101");
    assert!(container.attach_until("size 44 101").contains("size"));
    let moved = container.log().with_extension("1");
    fs::rename(container.log(), &moved).expect("rotate the log");
    container.control("2 0 0");
    until("the new log", || {
        log_streams(&container.log()).0.contains("size 44 101")
    });
    assert!(log_streams(&moved).0.contains("size "));
}

#[test]
fn update_and_statistics() {
    let Some(crio) = Crio::new("update_and_statistics") else {
        return;
    };
    let mut pod = Pod::new(&crio);
    pod.start();
    let container = pod.container("busybox", SERVICE, false);
    container.run();
    let Some(usage) = container.cgroup_file("memory.usage_in_bytes") else {
        return fleet_tests::skip(
            "update_and_statistics",
            "no memory controller on cgroup v1 here",
        );
    };
    assert!(usage.trim().parse::<u64>().is_ok_and(|bytes| bytes > 0));
    assert_eq!(
        container.cgroup_file("memory.limit_in_bytes").as_deref(),
        Some("67108864\n")
    );
    // An in-place resize of Kubernetes, and it leaves the device rules alone.
    let rules = container.cgroup_file("devices.list");
    container.update(&json!({"memory": {"limit": 100_663_296, "swap": 100_663_296}, "cpu": {"quota": 70000, "period": 100_000, "shares": 512}}));
    for (file, value) in [
        ("memory.limit_in_bytes", "100663296\n"),
        ("cpu.cfs_quota_us", "70000\n"),
        ("cpu.shares", "512\n"),
    ] {
        assert_eq!(
            container.cgroup_file(file).as_deref(),
            Some(value),
            "{file}"
        );
    }
    assert_eq!(container.cgroup_file("devices.list"), rules);
    assert_eq!(container.exec_sync(&["true"], None).code, 0);
}

#[test]
fn stop_with_and_without_grace() {
    let Some(crio) = Crio::new("stop_with_and_without_grace") else {
        return;
    };
    let mut pod = Pod::new(&crio);
    pod.start();
    let deaf = pod.container(
        "busybox",
        "trap '' TERM; while :; do sleep 0.1; done",
        false,
    );
    deaf.run();
    std::thread::sleep(Duration::from_millis(300));
    deaf.stop(Duration::from_millis(300));
    assert_eq!(deaf.exit_code(), 137);
    let again = crio.call(&["kill", &deaf.id, "KILL"]);
    let gone = [
        "container not running",
        "no such process",
        "invalid process",
    ];
    assert!(
        again.code != 0 && gone.iter().any(|word| again.stderr.contains(word)),
        "{again:#?}"
    );
    // In the host's process namespace the others live on until `kill -a`.
    let mut host = pod.container("busybox", "sleep 4321 & exec sleep 1000", false);
    let all = host.spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("namespaces");
    all.retain(|ns| ns["type"] != "pid");
    host.run();
    until("the second process", || pids(&crio, &host).len() == 2);
    host.stop(Duration::ZERO);
    let _ = crio.call(&["kill", "-a", &host.id, "9"]);
    until("the others to end", || pids(&crio, &host).is_empty());
    host.delete();
    host.assert_gone();
}

fn pids(crio: &Crio, container: &Container<'_>) -> Vec<Value> {
    let out = crio.call(&["ps", "--format", "json", &container.id]);
    serde_json::from_str(&out.stdout).unwrap_or_default()
}

#[test]
fn out_of_memory() {
    let Some(crio) = Crio::new("out_of_memory") else {
        return;
    };
    let mut pod = Pod::new(&crio);
    pod.start();
    let mut container = pod.container("busybox", "a=x; while :; do a=$a$a; done", false);
    container.spec["linux"]["resources"]["memory"] =
        json!({"limit": 16_777_216, "swap": 16_777_216});
    container.run();
    assert_eq!(container.exit_code(), 137);
    until("conmon's note", || container.ran_out_of_memory());
}

#[test]
fn a_container_that_cannot_be_made() {
    let Some(crio) = Crio::new("a_container_that_cannot_be_made") else {
        return;
    };
    let mut pod = Pod::new(&crio);
    pod.start();
    for (key, value, words) in [
        (
            "args",
            json!(["/no/such"]),
            "executable file `/no/such` not found: no such file or directory",
        ),
        ("cwd", json!("/etc/passwd"), "/etc/passwd"),
    ] {
        let mut container = pod.container("busybox", "true", false);
        container.spec["process"][key] = value;
        let message = container.create().expect_err("it cannot be made");
        if ours() {
            assert!(
                message.starts_with("fleet-nvidia: ") && message.contains(words),
                "{message}"
            );
            assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        }
        container.delete();
        container.assert_gone();
    }
}

/// CRI-O is started again: conmon and the containers have gone on, and `state` is decoded over what CRI-O stored.
#[test]
fn restart_of_crio() {
    let Some(crio) = Crio::new("restart_of_crio") else {
        return;
    };
    let mut pod = Pod::new(&crio);
    pod.start();
    let stays = pod.container("busybox", SERVICE, false);
    let ends = pod.container("busybox", "exit 9", false);
    stays.run();
    ends.run();
    assert_eq!(ends.exit_code(), 9);
    for (container, status) in [
        (&pod.pause, "running"),
        (&stays, "running"),
        (&ends, "stopped"),
    ] {
        let state = container.state().expect("state");
        assert_eq!(state["status"], status);
        assert_eq!(state["id"], container.id.as_str());
        assert_eq!(state["bundle"], container.bundle.display().to_string());
        let created = state["created"].as_str().expect("a time");
        assert_eq!(
            run(Command::new("date").args(["--date", created])).code,
            0,
            "{created}"
        );
        // Keys that CRI-O would take for its own.
        for key in state.as_object().expect("an object").keys() {
            let known = [
                "started",
                "finished",
                "exitcode",
                "oomkilled",
                "seccompkilled",
                "error",
                "initpid",
                "initstarttime",
            ];
            assert!(!known.contains(&key.to_lowercase().as_str()), "{key}");
        }
    }
    assert_eq!(
        stays.exec_sync(&["echo", "still here"], None),
        said(0, "still here\n")
    );
    let unknown = crio.call(&["state", "gone"]);
    assert!(
        unknown.code != 0 && (!ours() || unknown.stderr.contains("does not exist")),
        "{unknown:#?}"
    );
}

/// `hostUsers: false`.
#[test]
fn a_pod_with_a_user_namespace() {
    let Some(crio) = Crio::new("a_pod_with_a_user_namespace") else {
        return;
    };
    let mut pod = Pod::with_user_namespace(&crio);
    pod.start();
    let container = pod.container("busybox", SERVICE, true);
    container.run();
    let map = container
        .exec_sync(&["cat", "/proc/self/uid_map"], None)
        .stdout;
    assert_eq!(
        map.split_whitespace().collect::<Vec<_>>(),
        ["0", "200000", "65536"]
    );
    let own = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/user")).expect("readlink");
    assert_eq!(own(container.pid()), own(pod.pause.pid()));
    assert_eq!(container.exec_stream(&["id", "-u"], b""), said(0, "0\n"));
    container.stop(Duration::from_secs(10));
    assert_eq!(container.exit_code(), 7);
    container.delete();
    container.assert_gone();
}

/// `/etc/fleet-nvidia/config.toml` of the isolated run, while this lives.
struct Profile;

impl Profile {
    fn crio() -> Self {
        fs::create_dir_all("/etc/fleet-nvidia").expect("mkdir");
        fs::write("/etc/fleet-nvidia/config.toml", "profile = \"crio\"\n").expect("write");
        Self
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        drop(fs::remove_file("/etc/fleet-nvidia/config.toml"));
    }
}

/// What CRI-O does itself for `CDIDevices` of the CRI: the spec has the devices, mounts, variables and hooks before the
/// runtime sees it.
fn inject(container: &mut Container<'_>, device: &str) {
    let cdi = fleet_cdi::read_spec(Path::new("/etc/cdi/nvidia.yaml")).expect("a CDI spec");
    let named = cdi
        .devices
        .iter()
        .find(|d| format!("{}={}", cdi.kind, d.name) == device);
    let named = named.expect("the device");
    let spec = &mut container.spec;
    for edits in [&cdi.container_edits, &named.container_edits] {
        for node in &edits.device_nodes {
            let host = fs::metadata(node.host_path.as_ref().unwrap_or(&node.path)).expect("stat");
            let number = std::os::unix::fs::MetadataExt::rdev(&host);
            let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
            push(
                &mut spec["linux"]["devices"],
                json!({"path": node.path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0}),
            );
            push(
                &mut spec["linux"]["resources"]["devices"],
                json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}),
            );
        }
        for mount in &edits.mounts {
            push(
                &mut spec["mounts"],
                json!({"source": mount.host_path, "destination": mount.container_path, "type": "bind", "options": mount.options}),
            );
        }
        for hook in &edits.hooks {
            assert_eq!(hook.hook_name, "createContainer");
            push(
                &mut spec["hooks"]["createContainer"],
                json!({"path": hook.path, "args": hook.args}),
            );
        }
        for variable in &edits.env {
            push(&mut spec["process"]["env"], json!(variable));
        }
    }
}

fn push(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().expect("a list").push(item);
}

/// `mountPropagation: Bidirectional`, for which CRI-O sets the root's propagation, too.
#[test]
fn what_a_privileged_container_mounts_shows_on_the_node() {
    let Some(crio) = Crio::new("what_a_privileged_container_mounts_shows_on_the_node") else {
        return;
    };
    let mut pod = Pod::new(&crio);
    pod.start();
    let volume = crio.dir.join("volume");
    fs::create_dir(&volume).expect("mkdir");
    let text = volume.display().to_string();
    let mount = |args: &[&str]| run(Command::new("mount").args(args)).silent();
    mount(&["--bind", &text, &text]);
    mount(&["--make-rshared", &text]);
    let mut container = pod.container("busybox", SERVICE, false);
    push(
        &mut container.spec["mounts"],
        json!({"destination": "/v", "type": "bind", "source": text, "options": ["rbind", "rshared", "rw", "bind"]}),
    );
    container.spec["linux"]["rootfsPropagation"] = json!("rshared");
    for set in ["bounding", "effective", "permitted"] {
        let caps = &mut container.spec["process"]["capabilities"][set];
        push(caps, json!("CAP_SYS_ADMIN"));
    }
    container.run();
    let inside = "mkdir /v/inner && mount -t tmpfs none /v/inner && touch /v/inner/file";
    let made = container.exec_sync(&["sh", "-c", inside], None);
    assert_eq!(made, said(0, ""));
    assert!(volume.join("inner/file").exists());
    container.delete();
    run(Command::new("umount").args(["--recursive", "--lazy", &text])).silent();
}

#[test]
fn gpus_of_a_pod() {
    let test = "gpus_of_a_pod";
    if !gpus(test) || fleet_tests::not_for_peers(test) {
        return;
    }
    let Some(crio) = Crio::new(test) else {
        return;
    };
    let _profile = Profile::crio();
    let mut pod = Pod::new(&crio);
    // The pause container gets nothing, whatever the pod's annotations say: CRI-O copies them to all its containers.
    pod.pause.spec["annotations"]["cdi.k8s.io/x"] = json!("nvidia.com/gpu=all");
    pod.start();
    assert!(!devices(&pod.pause).contains("nvidia"));
    let list = |container: &Container<'_>| container.exec_sync(&["nvidia-smi", "-L"], None);

    let mut by_cri = pod.container("glibc", SERVICE, false);
    inject(&mut by_cri, "nvidia.com/gpu=1");
    by_cri.run();
    let one = list(&by_cri);
    assert!(one.code == 0 && one.stdout.lines().count() == 1, "{one:?}");
    by_cri.delete();

    let mut by_annotation = pod.container("glibc", SERVICE, false);
    by_annotation.spec["annotations"]["cdi.k8s.io/plugin_x"] = json!("nvidia.com/gpu=1");
    by_annotation.run();
    assert_eq!(list(&by_annotation), one);
    by_annotation.delete();

    // A newer CRI-O resolves the annotation itself and leaves it there: nothing comes twice.
    let mut by_both = pod.container("glibc", SERVICE, false);
    by_both.spec["annotations"]["cdi.k8s.io/plugin_x"] = json!("nvidia.com/gpu=1");
    inject(&mut by_both, "nvidia.com/gpu=1");
    by_both.run();
    assert_eq!(list(&by_both), one);
    let mounts = by_both
        .exec_sync(&["cat", "/proc/self/mounts"], None)
        .stdout;
    let twice = mounts
        .lines()
        .filter(|line| line.contains("libcuda.so"))
        .count();
    let before = by_both.spec["mounts"].as_array().expect("mounts");
    let named = before
        .iter()
        .filter(|m| {
            m["destination"]
                .as_str()
                .is_some_and(|d| d.contains("libcuda.so"))
        })
        .count();
    assert_eq!(twice, named, "{mounts}");
    by_both.delete();

    // The environment alone is no grant in this profile: anybody's image can ask.
    let mut by_environment = pod.container("glibc", SERVICE, false);
    let env = by_environment.spec["process"]["env"]
        .as_array_mut()
        .expect("env");
    env.push(json!("NVIDIA_VISIBLE_DEVICES=all"));
    by_environment.run();
    assert!(!devices(&by_environment).contains("nvidia"));
    by_environment.delete();

    // Exactly the one that was asked for.
    let mut alone = pod.container("glibc", SERVICE, false);
    alone.spec["annotations"]["cdi.k8s.io/x"] = json!("nvidia.com/gpu=0");
    for set in ["bounding", "effective", "permitted"] {
        let caps = alone.spec["process"]["capabilities"][set]
            .as_array_mut()
            .expect("a set");
        caps.push(json!("CAP_MKNOD"));
    }
    alone.run();
    assert_eq!(
        alone
            .exec_sync(&["sh", "-c", &isolation_script(0, 1)], None)
            .stdout,
        ISOLATED
    );

    let mut unknown = pod.container("glibc", SERVICE, false);
    unknown.spec["annotations"]["cdi.k8s.io/x"] = json!("nvidia.com/gpu=9");
    let message = unknown.create().expect_err("there is no such GPU");
    let words = "fleet-nvidia: unresolvable CDI devices nvidia.com/gpu=9";
    assert!(
        message.starts_with(words) && message.contains("known devices"),
        "{message}"
    );
    unknown.delete();
    unknown.assert_gone();
}

fn devices(container: &Container<'_>) -> String {
    let dir = PathBuf::from(format!("/proc/{}/root/dev", container.pid()));
    let names = fs::read_dir(dir).expect("list /dev").flatten();
    names
        .map(|entry| format!("{} ", entry.file_name().to_string_lossy()))
        .collect()
}

/// `runtime_type = "pod"`: every global option twice, no process file, a pid file that is parsed as it is.
#[test]
fn conmon_rs() {
    let Some(crio) = Crio::new("conmon_rs") else {
        return;
    };
    let mut pod = Pod::new(&crio);
    pod.start();
    let container = pod.container("busybox", SERVICE, false);
    fs::write(
        container.bundle.join("config.json"),
        container.spec.to_string(),
    )
    .expect("write");
    let root = format!("--root={}", crio.root.display());
    let bundle = container.bundle.display().to_string();
    let pid_file = container.bundle.join("pidfile").display().to_string();
    let doubled = |args: &[&str]| {
        let mut command = Command::new(path("RUNTIME_UNDER_TEST"));
        run(command.args([&[root.as_str(), &root], args].concat()))
    };
    doubled(&[
        "create",
        "--bundle",
        &bundle,
        "--pid-file",
        &pid_file,
        &container.id,
    ])
    .silent();
    container.start();
    assert!(
        Path::new("/proc")
            .join(container.pid().to_string())
            .exists()
    );
    let exec_pid = container.bundle.join("exec-pid");
    let pid_option = format!("--pid-file={}", exec_pid.display());
    doubled(&["exec", "-d", &pid_option, &container.id, "sleep", "1000"]).silent();
    let text = fs::read_to_string(&exec_pid).expect("read the pid file");
    let pid: u32 = text.parse().expect("a number and nothing else");
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("read the process");
    assert_eq!(line, "sleep\u{0}1000\u{0}");
    // With a terminal: the process is the container's own but for its arguments.
    let socket = container.bundle.join("console");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
    let master = std::thread::spawn(move || receive_terminal(&listener));
    let console = format!("--console-socket={}", socket.display());
    doubled(&[
        "exec",
        "-d",
        &console,
        "--tty",
        &pid_option,
        &container.id,
        "sh",
        "-c",
        "tty; sleep 1000",
    ])
    .silent();
    let mut terminal = master.join().expect("the terminal");
    let mut bytes = [0; 64];
    let length = terminal.read(&mut bytes).expect("read the terminal");
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    assert!(text.starts_with("/dev/pts/"), "{text}");
    container.delete();
    container.assert_gone();
}
