//! The verbs and the contract with engines: silence, exit codes, wording, files.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use fleet_tests::views::controllers;
use fleet_tests::{Bundle, Runtime, assert_nothing_left, differs, ours, path, run, skip, until};
use serde_json::{Value, json};

#[test]
fn create_start_delete() {
    let bundle = Bundle::new("echo hi > /done; exit 0");
    let pid_file = bundle.dir.join("pid");
    bundle
        .make("create", &["--pid-file", pid_file.to_str().expect("text")])
        .silent();
    let pid = fs::read_to_string(&pid_file).expect("pid file");
    assert!(
        pid.parse::<i32>().is_ok(),
        "no newline, just a number: {pid:?}"
    );
    let state = bundle.runtime.state(&bundle.id);
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"].to_string(), pid);
    for key in [
        "ociVersion",
        "id",
        "bundle",
        "rootfs",
        "created",
        "annotations",
        "owner",
    ] {
        assert!(
            !state[key].is_null() || key == "annotations" && !ours(),
            "{key}: {state}"
        );
    }
    bundle.runtime.run(&["start", &bundle.id]).silent();
    bundle.becomes("stopped");
    assert_eq!(
        fs::read_to_string(bundle.dir.join("rootfs/done")).expect("the program ran"),
        "hi\n"
    );
    bundle.runtime.run(&["delete", &bundle.id]).silent();
    assert_nothing_left(&bundle);
}

/// Many wait at once where an engine starts pods: each gives back what it has done with.
#[test]
fn a_process_that_waits_holds_little() {
    let bundle = Bundle::new("true");
    bundle.make("create", &[]).silent();
    let pid = bundle.runtime.state(&bundle.id)["pid"].to_string();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u32>().ok());
    assert!(kib.expect("a number") < 3072 || !ours(), "{status}");
    bundle.runtime.run(&["start", &bundle.id]).silent();
    bundle.becomes("stopped");
    bundle.runtime.run(&["delete", &bundle.id]).silent();
    assert_nothing_left(&bundle);
}

#[test]
fn exit_codes_of_run() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$", 137),
        ("kill -TERM $$; sleep 1", 143),
    ] {
        // The first process of a pid namespace ignores its own signals, so a child does it.
        let bundle = Bundle::new(&format!("sh -c '{script}'; exit $?"));
        assert_eq!(bundle.run().code, code, "{script}");
        assert_nothing_left(&bundle);
    }
}

#[test]
fn run_keeps_on_request() {
    if differs("run_keeps_on_request", &["crun"]) {
        return;
    }
    let bundle = Bundle::new("exit 3");
    assert_eq!(bundle.make("run", &["--keep"]).code, 3);
    assert_eq!(bundle.runtime.state(&bundle.id)["status"], "stopped");
}

#[test]
fn exec_codes_and_environment() {
    if differs("exec_codes_and_environment", &["crun"]) {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    assert_eq!(bundle.exec(&[], &["sh", "-c", "exit 5"]).code, 5);
    assert_eq!(bundle.exec(&[], &["sh", "-c", "kill -9 $$"]).code, 137);
    assert_eq!(
        bundle
            .exec(
                &["-e", "A=b", "--cwd", "/tmp"],
                &["sh", "-c", "echo $A $PWD"]
            )
            .ok(),
        "b /tmp\n"
    );
    assert_eq!(
        bundle.exec(&["--user", "1000:1000"], &["id", "-u"]).ok(),
        "1000\n"
    );
    let missing = bundle
        .exec(&[], &["/no/such"])
        .fails("no such file or directory");
    assert_eq!(missing.code, 255);
    drop(bundle.exec(&[], &["/etc"]).fails("is a directory"));
}

#[test]
fn exec_process_file_and_pid_file() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let file = bundle.dir.join("process.json");
    let pid_file = bundle.dir.join("exec.pid");
    let text = |path: &std::path::Path| path.display().to_string();
    fs::write(&file, json!({"args": ["sh", "-c", "echo done > /from-exec"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "unknown": 1}).to_string()).expect("write");
    bundle
        .exec(
            &[
                "--process",
                &text(&file),
                "--detach",
                "--pid-file",
                &text(&pid_file),
            ],
            &[],
        )
        .silent();
    assert!(
        fs::read_to_string(&pid_file)
            .expect("pid file")
            .parse::<i32>()
            .is_ok()
    );
    until("the process to write", || {
        bundle.dir.join("rootfs/from-exec").exists()
    });
    fs::remove_file(&pid_file).expect("remove");
    fs::write(&file, json!({"args": ["/nope"], "cwd": "/"}).to_string()).expect("write");
    drop(
        bundle
            .exec(
                &[
                    "--process",
                    &text(&file),
                    "--detach",
                    "--pid-file",
                    &text(&pid_file),
                ],
                &[],
            )
            .fails("no such file"),
    );
    assert!(
        !pid_file.exists(),
        "conmon tells a failed runtime from a failed command by the missing pid file"
    );
}

#[test]
fn signals() {
    if differs("signals", &["runc"]) {
        return;
    }
    let bundle = Bundle::new(
        "for s in 5 7 10 37 15; do trap \"echo $s >> /got\" $s; done; echo ready > /ready; while :; do sleep 0.05; done",
    );
    bundle.start();
    until("the traps", || bundle.dir.join("rootfs/ready").exists());
    let got = || fs::read_to_string(bundle.dir.join("rootfs/got")).unwrap_or_default();
    for (given, number) in [
        ("5", "5"),
        ("7", "7"),
        ("SIGUSR1", "10"),
        ("37", "37"),
        ("RTMIN+3", "37"),
        ("TERM", "15"),
    ] {
        let before = got().len();
        bundle.runtime.run(&["kill", &bundle.id, given]).silent();
        until(&format!("signal {given}"), || got().len() > before);
        assert!(got().trim_end().ends_with(number), "{given}: {}", got());
    }
    let before = got().len();
    bundle.runtime.run(&["kill", &bundle.id]).silent();
    until("TERM as the default", || got().len() > before);
    bundle
        .runtime
        .run(&["kill", "--all", &bundle.id, "9"])
        .silent();
    bundle.becomes("stopped");
    drop(
        bundle
            .runtime
            .run(&["kill", &bundle.id, "15"])
            .fails("not running"),
    );
}

#[test]
fn pause_resume_and_kill_while_paused() {
    if differs("pause_resume_and_kill_while_paused", &["crun"]) {
        return;
    }
    let bundle = Bundle::new("while :; do echo x >> /ticks; sleep 0.02; done");
    bundle.start();
    let ticks = || fs::metadata(bundle.dir.join("rootfs/ticks")).map_or(0, |meta| meta.len());
    until("the first tick", || ticks() > 0);
    bundle.runtime.run(&["pause", &bundle.id]).silent();
    assert_eq!(bundle.runtime.state(&bundle.id)["status"], "paused");
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(ticks(), before, "a paused container does nothing");
    drop(bundle.exec(&[], &["true"]).fails("paused"));
    bundle.runtime.run(&["kill", &bundle.id, "USR2"]).silent();
    assert_eq!(
        bundle.runtime.state(&bundle.id)["status"],
        "paused",
        "a signal does not change that"
    );
    drop(bundle.runtime.run(&["pause", &bundle.id]).fails("paused"));
    bundle.runtime.run(&["resume", &bundle.id]).silent();
    drop(bundle.runtime.run(&["resume", &bundle.id]));
    bundle.remove();
    assert_nothing_left(&bundle);
}

#[test]
fn a_paused_container_can_be_deleted() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    bundle.runtime.run(&["pause", &bundle.id]).silent();
    bundle.remove();
    assert_nothing_left(&bundle);
}

#[test]
fn ps_list_events_update() {
    let test = "ps_list_events_update";
    if differs(test, &["crun"]) || !controllers(test, &["pids", "memory"]) {
        return;
    }
    let bundle = Bundle::new("sleep 100 & sleep 100; true");
    bundle.start();
    let pids = || {
        serde_json::from_str::<Vec<i32>>(
            &bundle
                .runtime
                .run(&["ps", "--format", "json", &bundle.id])
                .ok(),
        )
        .expect("a list")
    };
    until("both sleeps", || pids().len() == 3);
    assert!(
        bundle
            .runtime
            .run(&["ps", &bundle.id])
            .ok()
            .contains("sleep 100")
    );
    let list: Value =
        serde_json::from_str(&bundle.runtime.run(&["list", "--format=json"]).ok()).expect("JSON");
    assert_eq!(list[0]["id"], bundle.id.as_str());
    assert_eq!(
        bundle.runtime.run(&["list", "-q"]).ok(),
        format!("{}\n", bundle.id)
    );
    assert!(bundle.runtime.run(&["list"]).ok().starts_with("ID "));
    let event: Value =
        serde_json::from_str(&bundle.runtime.run(&["events", "--stats", &bundle.id]).ok())
            .expect("JSON");
    assert_eq!(event["type"], "stats");
    assert_eq!(event["data"]["pids"]["current"], 3);
    bundle
        .runtime
        .run(&["update", "--pids-limit", "50", &bundle.id])
        .silent();
    let event: Value =
        serde_json::from_str(&bundle.runtime.run(&["events", "--stats", &bundle.id]).ok())
            .expect("JSON");
    assert_eq!(event["data"]["pids"]["limit"], 50);
    drop(
        bundle
            .runtime
            .run(&["update", "--memory", "lots", &bundle.id])
            .fails("bytes"),
    );
}

#[test]
fn limits_are_set_and_updated() {
    if !controllers("limits_are_set_and_updated", &["memory"]) {
        return;
    }
    let bundle =
        Bundle::new("sleep 100").set("/linux/resources/memory", json!({"limit": 67_108_864}));
    bundle.start();
    let limit = || {
        let dirs = fleet_tests::cgroup_dirs(&bundle.cgroup());
        let files = dirs
            .iter()
            .flat_map(|dir| ["memory.limit_in_bytes", "memory.max"].map(|file| dir.join(file)));
        files
            .filter_map(|file| fs::read_to_string(file).ok())
            .map(|text| text.trim().to_owned())
            .next()
    };
    assert_eq!(limit().as_deref(), Some("67108864"));
    let file = bundle.dir.join("resources.json");
    fs::write(&file, json!({"memory": {"limit": 33_554_432}}).to_string()).expect("write");
    bundle
        .runtime
        .run(&[
            "update",
            "--resources",
            file.to_str().expect("text"),
            &bundle.id,
        ])
        .silent();
    assert_eq!(limit().as_deref(), Some("33554432"));
}

#[test]
fn unknown_ids() {
    if differs("unknown_ids", &["crun", "runc"]) {
        return;
    }
    let runtime = Runtime::new();
    drop(runtime.run(&["state", "nobody"]).fails("does not exist"));
    drop(runtime.run(&["delete", "nobody"]).fails("does not exist"));
    drop(
        runtime
            .run(&["kill", "nobody", "9"])
            .fails("does not exist"),
    );
    drop(runtime.run(&["start", "nobody"]).fails("does not exist"));
    runtime.run(&["delete", "--force", "nobody"]).silent();
    assert_eq!(runtime.run(&["list", "--format", "json"]).ok().trim(), "[]");
}

#[test]
fn json_log_is_one_object() {
    if differs("json_log_is_one_object", &["crun", "runc"]) {
        return;
    }
    let bundle = Bundle::new("true").set("/process/args", json!(["/bin/nope"]));
    bundle.write();
    let log = bundle.dir.join("log");
    let log = log.to_str().expect("text");
    let dir = bundle.dir.display().to_string();
    for order in [
        ["--log", log, "--log-format=json"],
        ["--log-format", "json", "--log"],
    ] {
        drop(fs::remove_file(log));
        let mut args = order.to_vec();
        if order[2] == "--log" {
            args.push(log);
        }
        args.extend(["create", "--bundle", dir.as_str(), bundle.id.as_str()]);
        let out = bundle.runtime.run(&args).fails("/bin/nope");
        assert_eq!(out.code, 1);
        let record: Value =
            serde_json::from_str(&fs::read_to_string(log).expect("log")).expect("one object");
        assert_eq!(record["level"], "error");
        assert!(
            record["msg"]
                .as_str()
                .expect("msg")
                .contains("no such file or directory"),
            "{record}"
        );
        assert!(record["time"].is_string());
    }
    assert_nothing_left(&bundle);
}

#[test]
fn doubled_and_unknown_options() {
    if differs("doubled_and_unknown_options", &["runc"]) {
        return;
    }
    let runtime = Runtime::new();
    let root = runtime.root.display().to_string();
    let mut command = Command::new(&runtime.binary);
    command.args([
        &format!("--root={root}"),
        "--systemd-cgroup",
        "--root",
        &root,
        "--systemd-cgroup",
        "list",
        "-q",
    ]);
    run(&mut command).silent();
    drop(
        runtime
            .run(&["--no-such-option", "list"])
            .fails("--no-such-option"),
    );
    // Podman's probe for the restore of pods: https://github.com/containers/podman, pkg/checkpoint/crutils.
    let probe = runtime.run(&["restore", "--lsm-mount-context"]);
    assert_ne!(probe.code, 0, "{probe:#?}");
    assert!(
        !ours() || !probe.stderr.contains("an argument"),
        "{probe:#?}"
    );
}

#[test]
fn version_features_spec() {
    if differs("version_features_spec", &["crun", "runc"]) {
        return;
    }
    let runtime = Runtime::new();
    let version = run(Command::new(&runtime.binary).arg("--version").env_clear());
    assert!(version.stderr.is_empty());
    assert!(version.ok().starts_with("fleet-nvidia version "));
    let features = run(Command::new(&runtime.binary).arg("features").env_clear());
    assert!(features.stderr.is_empty());
    let features: Value = serde_json::from_str(&features.ok()).expect("JSON");
    assert!(
        features["ociVersionMin"].is_string() && features["linux"]["seccomp"]["enabled"] == true
    );
    let bundle = Bundle::new("true");
    drop(fs::remove_file(bundle.dir.join("config.json")));
    bundle
        .runtime
        .run(&["spec", "--bundle", bundle.dir.to_str().expect("text")])
        .silent();
    drop(
        bundle
            .runtime
            .run(&["spec", "--bundle", bundle.dir.to_str().expect("text")])
            .fails("exists"),
    );
}

#[test]
fn an_empty_environment_is_enough() {
    let bundle = Bundle::new("echo ok > /done");
    bundle.write();
    let dir = bundle.dir.display().to_string();
    for args in [
        vec!["create", "--bundle", &dir, &bundle.id],
        vec!["start", &bundle.id],
    ] {
        run(bundle
            .runtime
            .command(&args)
            .env_clear()
            .env("XDG_RUNTIME_DIR", ""))
        .silent();
    }
    until("the program", || bundle.dir.join("rootfs/done").exists());
}

/// Receives the terminal's master as conmon does.
fn receive(listener: &UnixListener) -> fs::File {
    listener.set_nonblocking(true).expect("non-blocking");
    let mut accepted = None;
    until("the runtime to connect", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.expect("a connection");
    stream.set_nonblocking(false).expect("blocking");
    let mut text = [0; 4096];
    let mut slices = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 2]);
    let message = nix::sys::socket::recvmsg::<()>(
        stream.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        nix::sys::socket::MsgFlags::empty(),
    )
    .expect("a message");
    let fds: Vec<i32> = message
        .cmsgs()
        .expect("control messages")
        .flat_map(|cmsg| match cmsg {
            nix::sys::socket::ControlMessageOwned::ScmRights(fds) => fds,
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(fds.len(), 1);
    #[allow(unsafe_code)]
    // SAFETY: the kernel just gave us this descriptor.
    let master = unsafe { fs::File::from_raw_fd(fds[0]) };
    master
}

#[test]
fn console_socket() {
    if differs("console_socket", &["runc"]) {
        return;
    }
    let bundle =
        Bundle::new("tty; stat -c %u:%a /dev/pts/0; stty size; ls -l /dev/console; sleep 0.2")
            .set("/process/terminal", json!(true))
            .set("/process/consoleSize", json!({"height": 40, "width": 100}))
            .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    // Longer than a socket address holds.
    let dir = bundle.dir.join("x".repeat(100));
    fs::create_dir(&dir).expect("mkdir");
    let handle = fs::File::open(&dir).expect("open");
    let listener =
        UnixListener::bind(format!("/proc/self/fd/{}/s", handle.as_raw_fd())).expect("bind");
    let socket = dir.join("s");
    let socket = socket.to_str().expect("text").to_owned();
    let mut master = std::thread::scope(|scope| {
        let master = scope.spawn(|| receive(&listener));
        bundle
            .make("create", &["--console-socket", &socket])
            .silent();
        master.join().expect("the terminal")
    });
    bundle.runtime.run(&["start", &bundle.id]).silent();
    let mut text = Vec::new();
    // The read ends with EIO when the last slave is closed.
    drop(master.read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    for word in ["/dev/pts/0", "1000:620", "40 100", "136"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn terminal_without_socket_is_refused() {
    let bundle = Bundle::new("true").set("/process/terminal", json!(true));
    drop(bundle.make("create", &[]).fails("--console-socket"));
    assert_nothing_left(&bundle);
}

#[test]
fn preserved_descriptors() {
    let bundle = Bundle::new("ls /proc/self/fd | tr '\\n' ' '; cat <&3");
    bundle.write();
    let file = bundle.dir.join("three");
    fs::write(&file, "three\n").expect("write");
    let script = format!(
        "exec 3<{}; exec {} --root {} run --preserve-fds 1 --bundle {} {}",
        file.display(),
        bundle.runtime.binary.display(),
        bundle.runtime.root.display(),
        bundle.dir.display(),
        bundle.id
    );
    let out = run(Command::new("sh").args(["-c", &script])).ok();
    // 4 is the directory that ls itself reads.
    assert_eq!(out, "0 1 2 3 4 three\n");
}

#[test]
fn hooks_run_with_state_and_their_environment() {
    if differs(
        "hooks_run_with_state_and_their_environment",
        &["crun", "runc"],
    ) {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    let out = bundle.dir.join("hooks");
    let hook = |stage: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {stage} $(cat | tr -d ' \\n' | grep -o '\"pid\":[0-9]*') $HOME >> {}", out.display())], "env": ["PATH=/usr/bin:/bin"]}]);
    let stages = [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ];
    let mut hooks = json!({});
    for stage in stages {
        hooks[stage] = hook(stage);
    }
    let bundle = bundle.set("/hooks", hooks);
    bundle.start();
    let pid = bundle.runtime.state(&bundle.id)["pid"].to_string();
    bundle.remove();
    let text = fs::read_to_string(&out).expect("the hooks wrote");
    let lines: Vec<&str> = text.lines().collect();
    let want: Vec<String> = stages
        .iter()
        .map(|stage| {
            format!(
                "{stage} \"pid\":{}",
                if *stage == "poststop" { "0" } else { &pid }
            )
        })
        .collect();
    assert_eq!(lines, want);
}

#[test]
fn a_failing_hook_is_named_with_its_stderr() {
    if differs("a_failing_hook_is_named_with_its_stderr", &["crun", "runc"]) {
        return;
    }
    for stage in ["prestart", "createRuntime", "createContainer"] {
        let bundle = Bundle::new("true");
        let hook =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo why it failed >&2; exit 4"]}]);
        let mut hooks = json!({});
        hooks[stage] = hook;
        let bundle = bundle.set("/hooks", hooks);
        let out = bundle.make("create", &[]).fails("why it failed");
        assert!(
            out.stderr.contains("/bin/sh") && out.stderr.contains("exit status 4"),
            "{out:#?}"
        );
        assert_nothing_left(&bundle);
    }
}

/// A user who has a cgroup of his own, as from his service manager, and no engine that has made a user namespace for him.
#[test]
fn a_plain_user_runs_a_bundle_in_a_cgroup_of_his() {
    const NAME: &str = "a_plain_user_runs_a_bundle_in_a_cgroup_of_his";
    // $1: the runtime, $2: an image, $3: what else is the user's. A user outside its cgroup may not enter another one.
    const SCRIPT: &str = r#"
        set -eu
        if mountpoint -q /sys/fs/cgroup/unified; then mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup; fi
        group=$FLEET_TEST_CGROUP-plain
        rm -rf /run/plain
        mkdir -p "/sys/fs/cgroup$group/self" /run/plain/rootfs
        chown -R 0:0 "/sys/fs/cgroup$group"
        tar -C /run/plain/rootfs -xf "$2"
        chown -R 65534:65534 $3 /run/plain
        echo 0 > "/sys/fs/cgroup$group/self/cgroup.procs"
        export XDG_RUNTIME_DIR=/run/plain
        cd /run/plain
        setpriv --reuid 65534 --regid 65534 --clear-groups sh -euc '"$0" spec --rootless
            sed -i "s/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"echo\", \"hi\"/; s|\"linux\": {|&\"cgroupsPath\": \"$1/c\",|" config.json
            "$0" run plain
            sed -i "s/\"echo\", \"hi\"/\"sleep\", \"100\"/" config.json
            "$0" run -d plain
            "$0" exec plain id -u
            ! "$0" exec plain missing
            "$0" exec -d --pid-file pid plain sleep 100
            grep -qx "0::$1/c" /proc/$(cat pid)/cgroup
            "$0" delete --force plain' "$1" "$group"
    "#;
    if !ours() || std::env::var_os("FLEET_DELEGATE").is_some() {
        return;
    }
    let unified = ["unified/cgroup.procs", "cgroup.controllers"]
        .iter()
        .any(|file| Path::new("/sys/fs/cgroup").join(file).exists());
    if !unified {
        return skip(NAME, "the machine has no cgroup2 file system");
    }
    let ran = |his: &str| {
        run(Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT])
            .arg("sh")
            .arg(path("RUNTIME_UNDER_TEST"))
            .arg(path("FLEET_STATE").join("images/busybox.tar"))
            .arg(his))
    };
    let group = std::env::var("FLEET_TEST_CGROUP").expect("a cgroup");
    let out = ran(&format!("/sys/fs/cgroup{group}-plain"));
    assert_eq!(out.code, 0, "{out:#?}");
    assert_eq!(out.stdout, "hi\n0\n");
    assert!(out.stderr.contains("`missing` not found"), "{out:#?}");
    drop(ran("").fails("hint: a user without an engine needs a cgroup"));
}
