//! What crun and runc do and the library alone does not, beyond `contract.rs`: the same tests pass over these peers
//! (`make peers`), unless one says otherwise.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use fleet_tests::{
    Bundle, assert_nothing_left, cgroup_dirs, differs, not_for_peers, ours, run, skip, unique,
    until,
};
use serde_json::{Value, json};

fn field(text: &str, key: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(key));
    let words = line.unwrap_or_default().split_whitespace().skip(1);
    words.collect::<Vec<_>>().join(" ")
}

/// A process of ours that holds a user namespace, as an engine's infra container does.
struct Holder(Child);

impl Holder {
    fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--user", "sleep", "100"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare");
        let holder = Self(child);
        let own = fs::read_link("/proc/self/ns/user").expect("own namespace");
        until("the user namespace", || {
            fs::read_link(holder.path()).is_ok_and(|theirs| theirs != own)
        });
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", holder.0.id()), "0 100000 65536\n")
                .expect("write a map");
        }
        holder
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/user", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Pods share a user namespace by path.
#[test]
fn exec_enters_a_joined_user_namespace() {
    if differs("exec_enters_a_joined_user_namespace", &["runc"]) {
        return;
    }
    let holder = Holder::new();
    let bundle = Bundle::new("sleep 100").namespace("user", Some(&holder.path()));
    bundle.start();
    for (what, map) in [
        (
            "exec",
            bundle.exec(&[], &["cat", "/proc/self/uid_map"]).ok(),
        ),
        ("init", bundle.exec(&[], &["cat", "/proc/1/uid_map"]).ok()),
    ] {
        let words: Vec<&str> = map.split_whitespace().collect();
        assert_eq!(words, ["0", "100000", "65536"], "{what}");
    }
}

#[test]
fn exec_inherits_the_containers_identity() {
    if differs("exec_inherits_the_containers_identity", &["crun"]) {
        return;
    }
    let caps = json!(["CAP_KILL", "CAP_NET_ADMIN"]);
    let bundle = Bundle::new("sleep 100")
        .set(
            "/process/capabilities",
            json!({"bounding": caps, "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}),
        )
        .set(
            "/process/user",
            json!({"uid": 0, "gid": 0, "additionalGids": [7, 44]}),
        )
        .set("/process/cwd", json!("/tmp"))
        .set("/process/env", json!(["PATH=/bin", "GIVEN=yes"]))
        .set("/process/oomScoreAdj", json!(100));
    bundle.start();
    let text = bundle
        .exec(
            &[],
            &[
                "sh",
                "-c",
                "cat /proc/self/status; pwd; echo $GIVEN; cat /proc/self/oom_score_adj",
            ],
        )
        .ok();
    for (key, want) in [
        ("CapEff:", "0000000000000020"),
        ("CapPrm:", "0000000000000020"),
        ("CapBnd:", "0000000000001020"),
        ("NoNewPrivs:", "1"),
    ] {
        assert_eq!(field(&text, key), want, "{key}");
    }
    assert!(text.ends_with("/tmp\nyes\n100\n"), "{text}");
}

#[test]
fn exec_options_change_it() {
    if differs("exec_options_change_it", &["crun"]) {
        return;
    }
    let bundle = Bundle::new("sleep 100").set("/process/noNewPrivileges", json!(false));
    bundle.start();
    let status = |options: &[&str]| bundle.exec(options, &["cat", "/proc/self/status"]).ok();
    assert_eq!(field(&status(&[]), "NoNewPrivs:"), "0");
    assert_eq!(field(&status(&["--no-new-privs"]), "NoNewPrivs:"), "1");
    let text = status(&["--cap", "CAP_SYS_TIME", "--additional-gids", "9"]);
    let bits = u64::from_str_radix(&field(&text, "CapEff:"), 16).expect("hex");
    assert_ne!(bits & (1 << 25), 0, "CAP_SYS_TIME: {bits:x}");
    assert_eq!(field(&text, "Groups:"), "9");
}

/// What Podman may leave out of an exec session's file.
#[test]
fn exec_takes_a_short_process_file() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let file = bundle.dir.join("process.json");
    fs::write(
        &file,
        json!({"args": ["/bin/sh", "-c", "pwd"], "cwd": "/"}).to_string(),
    )
    .expect("write");
    let text = bundle.exec(&["--process", file.to_str().expect("text")], &[]);
    assert_eq!(text.ok(), "/\n");
}

#[test]
fn exec_into_a_created_container() {
    let bundle = Bundle::new("sleep 100");
    bundle.make("create", &[]).silent();
    assert_eq!(bundle.exec(&[], &["echo", "early"]).ok(), "early\n");
    bundle.runtime.run(&["start", &bundle.id]).silent();
    bundle.runtime.wait_for(&bundle.id, "running");
}

#[test]
fn exec_runs_on_the_containers_cpus() {
    let all = fs::read_to_string("/sys/devices/system/cpu/online").expect("online CPUs");
    if all.trim() == "0" {
        skip(
            "exec_runs_on_the_containers_cpus",
            "the machine has one CPU",
        );
        return;
    }
    if not_for_peers("exec_runs_on_the_containers_cpus") {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let mut command = Command::new("taskset");
    command
        .args(["--cpu-list", "0"])
        .arg(&bundle.runtime.binary);
    command.arg("--root").arg(&bundle.runtime.root);
    command.args(["exec", &bundle.id, "cat", "/proc/self/status"]);
    let text = run(&mut command).ok();
    assert_eq!(field(&text, "Cpus_allowed_list:"), all.trim());
}

#[test]
fn umask_holds_for_exec() {
    if differs("umask_holds_for_exec", &["crun", "runc"]) {
        return;
    }
    let bundle = Bundle::new("sleep 100").set("/process/user/umask", json!(0o27));
    bundle.start();
    assert_eq!(bundle.exec(&[], &["sh", "-c", "umask"]).ok(), "0027\n");
}

/// Runs under a pseudo terminal made by script(1).
fn under_terminal(bundle: &Bundle, args: &[&str]) -> String {
    let words = [
        bundle.runtime.binary.to_str().expect("text"),
        "--root",
        bundle.runtime.root.to_str().expect("text"),
    ];
    let line = [&words[..], args].concat().join(" ");
    let out = run(Command::new("script").args(["-qec", &line, "/dev/null"]));
    assert_eq!(out.code, 0, "{out:#?}");
    // What script(1) itself types at the end of its own input.
    out.stdout.replace('\r', "").replace("^@", "")
}

#[test]
fn foreground_terminal() {
    let script = "test -t 0 && test -t 1 && test -t 2 && tty; exit 0";
    let bundle = Bundle::new(script).set("/process/terminal", json!(true));
    bundle.write();
    let dir = bundle.dir.display().to_string();
    let text = under_terminal(&bundle, &["run", "--bundle", &dir, &bundle.id]);
    assert_eq!(text, "/dev/pts/0\n");
}

#[test]
fn foreground_terminal_of_exec() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let text = under_terminal(&bundle, &["exec", "-t", &bundle.id, "tty"]);
    assert_eq!(text, "/dev/pts/0\n");
    // What is written just before the end must not be lost.
    let text = under_terminal(&bundle, &["exec", "-t", &bundle.id, "seq", "5000"]);
    assert_eq!(text.lines().count(), 5000);
}

#[test]
fn foreground_passes_signals_on() {
    let bundle =
        Bundle::new("trap 'exit 42' TERM; echo ready > /ready; while :; do sleep 0.05; done");
    bundle.write();
    let dir = bundle.dir.display().to_string();
    let mut child = bundle
        .runtime
        .command(&["run", "--bundle", &dir, &bundle.id])
        .stdin(Stdio::null())
        .spawn()
        .expect("spawn");
    until("the trap", || bundle.dir.join("rootfs/ready").exists());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(42));
    assert_nothing_left(&bundle);
}

/// A container that ends at once must not be waited for after its end.
#[test]
fn short_runs_end() {
    let bundle = Bundle::new("").set("/process/args", json!(["/bin/true"]));
    for _ in 0..30 {
        assert_eq!(bundle.run().code, 0);
    }
    assert_nothing_left(&bundle);
}

#[test]
fn mount_without_source() {
    let mut bundle = Bundle::new("stat -f -c %T /t");
    bundle.spec["mounts"]
        .as_array_mut()
        .expect("mounts")
        .push(json!({"destination": "/t", "type": "tmpfs"}));
    assert_eq!(bundle.run().ok(), "tmpfs\n");
}

#[test]
fn read_only_dev_and_cgroup_mounts() {
    let bundle = Bundle::new("touch /dev/x 2>/dev/null || echo dev; d=$(ls -d /sys/fs/cgroup/* | head -n 1); mkdir $d/x /sys/fs/cgroup/x 2>/dev/null || echo cgroup; echo > /dev/null && echo null")
        .mount("/dev", "tmpfs", "tmpfs", &["nosuid", "ro", "mode=755"])
        .mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    let mut bundle = bundle;
    // The mounts of /dev must come before what lies in it.
    let mounts = bundle.spec["mounts"].as_array_mut().expect("mounts");
    mounts.sort_by_key(|mount| mount["destination"].as_str().map_or(0, str::len));
    assert_eq!(bundle.run().ok(), "dev\ncgroup\nnull\n");
}

#[test]
fn bind_over_a_dangling_link() {
    let bundle = Bundle::new("cat /link");
    symlink("/made/file", bundle.dir.join("rootfs/link")).expect("link");
    let source = bundle.dir.join("source");
    fs::write(&source, "bound\n").expect("write");
    let bundle = bundle.mount("/link", "bind", source.to_str().expect("text"), &["bind"]);
    assert_eq!(bundle.run().ok(), "bound\n");
}

#[test]
fn bind_options() {
    let holder = Bundle::new("");
    let source = holder.dir.join("v");
    fs::create_dir(&source).expect("mkdir");
    let source = source.to_str().expect("text");
    for (options, want) in [
        (
            &["rbind", "ro", "nosuid", "nodev", "noexec"][..],
            "ro,nosuid,nodev,noexec",
        ),
        (&["bind", "ro"][..], "ro"),
        (&["bind", "rw", "nosuid"][..], "rw,nosuid"),
        (
            &["rbind", "noatime", "nodiratime"][..],
            "rw,noatime,nodiratime",
        ),
    ] {
        let bundle =
            Bundle::new("grep ' /v ' /proc/self/mountinfo").mount("/v", "bind", source, options);
        let line = bundle.run().ok();
        let flags: Vec<&str> = line
            .split(' ')
            .nth(5)
            .expect("options")
            .split(',')
            .collect();
        for word in want.split(',') {
            assert!(flags.contains(&word), "{options:?}: {line}");
        }
    }
}

/// The root user of the namespace may not pass through the source's directories; the caller may.
#[test]
fn private_bind_source_in_a_user_namespace() {
    let bundle = Bundle::new("cat /v/file");
    let private = bundle.dir.join("private");
    fs::create_dir_all(private.join("volume")).expect("mkdir");
    fs::write(private.join("volume/file"), "seen\n").expect("write");
    fs::create_dir(bundle.dir.join("rootfs/v")).expect("mkdir");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("chmod");
    let source = private.join("volume").display().to_string();
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let bundle = bundle
        .namespace("user", None)
        .set("/linux/uidMappings", maps.clone())
        .set("/linux/gidMappings", maps)
        .mount("/v", "bind", &source, &["rbind"]);
    assert_eq!(bundle.run().ok(), "seen\n");
}

#[test]
fn id_map_without_group_zero() {
    if differs("id_map_without_group_zero", &["runc"]) {
        return;
    }
    let map = |first: u64, host: u64| json!([{"containerID": first, "hostID": host, "size": 2000}]);
    for (uids, gids) in [(0, 1), (1, 0), (1, 1)] {
        // crun 1.8 needs a user 0.
        if uids != 0 && !ours() {
            continue;
        }
        let mut bundle = Bundle::new("id -u; id -g; cat /proc/self/gid_map; sleep 100")
            .namespace("user", None)
            .set("/linux/uidMappings", map(uids, 100_000 + uids))
            .set("/linux/gidMappings", map(gids, 100_000 + gids))
            .set("/process/user", json!({"uid": 1000, "gid": 1000}));
        bundle.spec["mounts"]
            .as_array_mut()
            .expect("mounts")
            .retain(|mount| mount["destination"] != "/dev/pts" && mount["destination"] != "/sys");
        bundle.spec["process"]["args"][2] = json!("id -u; id -g");
        assert_eq!(bundle.run().ok(), "1000\n1000\n", "{uids} {gids}");
        if !ours() {
            continue;
        }
        bundle.spec["process"]["args"][2] = json!("sleep 100");
        bundle.start();
        let script =
            "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; grep ^Cap /proc/self/status";
        let text = bundle.exec(&[], &["sh", "-c", script]).ok();
        let seen: Vec<&str> = text.split_whitespace().collect();
        let (user, group) = (uids.to_string(), gids.to_string());
        assert_eq!(
            [seen[0], seen[1], seen[2], seen[5]],
            ["1000", "1000", &user, &group]
        );
        assert!(text.contains("CapEff:\t0000000000000000"), "{text}");
        drop(bundle.runtime.run(&["delete", "--force", &bundle.id]).ok());
        assert_nothing_left(&bundle);
    }
}

#[test]
fn devices_in_a_user_namespace() {
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let bundle = Bundle::new(
        "echo x > /dev/null; head -c 3 /dev/zero | wc -c; test -c /dev/fuse && echo fuse",
    )
    .namespace("user", None)
    .set("/linux/uidMappings", maps.clone())
    .set("/linux/gidMappings", maps)
    .set(
        "/linux/devices",
        json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666}]),
    );
    if !fs::exists("/dev/fuse").unwrap_or(false) {
        skip(
            "devices_in_a_user_namespace",
            "the machine has no /dev/fuse",
        );
        return;
    }
    assert_eq!(bundle.run().ok(), "3\nfuse\n");
}

/// Every device but the standard ones is out of reach, made with `mknod` or not, for `exec` too, and after an update.
#[test]
fn devices_are_denied() {
    let script = "mknod /kmsg c 1 11 2>/dev/null; (true < /kmsg) 2>&1 | grep -o 'not permitted'; true < /dev/zero && echo zero";
    let bundle = Bundle::new("sleep 100").set(
        "/linux/resources/devices",
        json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "m"}, {"allow": true, "type": "b", "access": "m"}]),
    );
    bundle.start();
    let probe = || bundle.exec(&[], &["sh", "-c", script]).ok();
    assert_eq!(probe(), "not permitted\nzero\n");
    let file = bundle.dir.join("resources.json");
    for resources in [
        json!({"pids": {"limit": 50}}),
        json!({"memory": {"limit": 268_435_456}}),
    ] {
        fs::write(&file, resources.to_string()).expect("write");
        let file = file.to_str().expect("text");
        drop(
            bundle
                .runtime
                .run(&["update", "--resources", file, &bundle.id])
                .ok(),
        );
        assert_eq!(
            probe(),
            "not permitted\nzero\n",
            "after an update of {resources}"
        );
    }
}

/// A rule allows one device by number, and the access it says. The driver may be missing: that is another error.
#[test]
fn a_device_is_allowed_by_number() {
    let open = |how: &str, node: &str| {
        format!(
            "(true {how} {node}) 2>&1 | grep -q 'not permitted' && echo denied || echo allowed;"
        )
    };
    let script = format!("mknod /a c 10 229; {} {}", open("<", "/a"), open(">", "/a"));
    let bundle = Bundle::new(&script).set("/linux/resources/devices", json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rm"}]));
    assert_eq!(bundle.run().ok(), "allowed\ndenied\n");
}

#[test]
fn seccomp_may_deny_what_the_start_uses() {
    if not_for_peers("seccomp_may_deny_what_the_start_uses") {
        return;
    }
    let bundle = Bundle::new("echo started").set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getcwd", "chdir", "setgroups", "setresuid", "capset", "prctl"], "action": "SCMP_ACT_ERRNO"}]}),
    );
    assert_eq!(bundle.run().ok(), "started\n");
}

#[test]
fn seccomp_actions() {
    let profile = |call: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": [call]});
    let bundle =
        |call: Value, script: &str| Bundle::new(script).set("/linux/seccomp", profile(call));
    let errno = json!({"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28});
    let text = bundle(errno, "mkdir /x 2>&1 | grep -o 'No space'")
        .run()
        .ok();
    assert_eq!(text, "No space\n");
    let kill = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"});
    assert_eq!(
        bundle(kill, "sh -c 'mkdir /x'; echo $?")
            .run()
            .stdout
            .lines()
            .last(),
        Some("159")
    );
    // Only for one value of an argument.
    let arg = json!({"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]});
    let text = bundle(
        arg,
        "trap 'echo two' USR2; kill -USR1 1 2>/dev/null || echo denied; kill -USR2 1",
    )
    .run()
    .ok();
    assert_eq!(text, "denied\ntwo\n");
}

/// runtime-spec config.md#posix-platform-hooks: what fails after the end is reported, and the container goes away.
#[test]
fn a_failing_poststop_hook_does_not_block_delete() {
    let hook = json!({"poststop": [{"path": "/bin/false"}]});
    let bundle = Bundle::new("sleep 100").set("/hooks", hook);
    bundle.start();
    let out = bundle.runtime.run(&["delete", "--force", &bundle.id]);
    assert_eq!(out.code, 0, "{out:#?}");
    assert_nothing_left(&bundle);
}

#[test]
fn a_slow_hook_is_stopped() {
    if differs("a_slow_hook_is_stopped", &["runc"]) {
        return;
    }
    let hook = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "sleep 60"], "timeout": 1}]});
    let bundle = Bundle::new("true").set("/hooks", hook);
    let begin = std::time::Instant::now();
    drop(bundle.make("create", &[]).fails("1 s"));
    assert!(begin.elapsed().as_secs() < 10);
    assert_nothing_left(&bundle);
}

#[test]
fn start_container_hooks_run_inside() {
    let hook = json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo hook > /hook"], "env": ["PATH=/bin"]}]});
    let bundle = Bundle::new("cat /hook").set("/hooks", hook);
    assert_eq!(bundle.run().ok(), "hook\n");
    assert!(
        bundle.dir.join("rootfs/hook").exists(),
        "the hook saw the container's root"
    );
}

/// A create that is killed in the middle leaves a container that `delete --force` removes as a whole.
#[test]
fn delete_after_a_killed_create() {
    let bundle = Bundle::new("sleep 100");
    let pid_file = bundle.dir.join("hook-pid");
    let script = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 100",
        pid_file.display()
    );
    let hook = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    let bundle = bundle.set("/hooks", hook);
    bundle.write();
    let dir = bundle.dir.display().to_string();
    let mut child = bundle
        .runtime
        .command(&["create", "--bundle", &dir, &bundle.id])
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("spawn");
    until("the hook", || pid_file.exists());
    let hook: i32 = fs::read_to_string(&pid_file)
        .expect("read")
        .trim()
        .parse()
        .expect("a pid");
    let own = i32::try_from(child.id()).expect("pid");
    for pid in [-own, hook] {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
    }
    child.wait().expect("wait");
    let out = bundle.runtime.run(&["delete", "--force", &bundle.id]);
    assert_eq!(out.code, 0, "{out:#?}");
    if ours() {
        assert_nothing_left(&bundle);
    }
}

#[test]
fn start_of_a_container_whose_process_is_gone() {
    let bundle = Bundle::new("sleep 100");
    bundle.make("create", &[]).silent();
    bundle.runtime.run(&["kill", &bundle.id, "KILL"]).silent();
    bundle.runtime.wait_for(&bundle.id, "stopped");
    drop(bundle.runtime.run(&["start", &bundle.id]).fails("stopped"));
    bundle.runtime.run(&["delete", &bundle.id]).silent();
    assert_nothing_left(&bundle);
}

#[test]
fn one_id_is_given_once() {
    let bundle = Bundle::new("sleep 100");
    bundle.write();
    let dir = bundle.dir.display().to_string();
    let make = || {
        bundle
            .runtime
            .command(&["create", "--bundle", &dir, &bundle.id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("spawn")
    };
    let children: Vec<Child> = (0..6).map(|_| make()).collect();
    let good = children
        .into_iter()
        .filter_map(|mut child| child.wait().ok())
        .filter(std::process::ExitStatus::success)
        .count();
    assert_eq!(good, 1);
    bundle.runtime.run(&["start", &bundle.id]).silent();
    bundle.runtime.wait_for(&bundle.id, "running");
    bundle
        .runtime
        .run(&["delete", "--force", &bundle.id])
        .silent();
    assert_nothing_left(&bundle);
}

#[test]
fn host_pid_namespace() {
    let mut bundle = Bundle::new("sleep 1234 & sleep 1234; true");
    bundle.spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("namespaces")
        .retain(|ns| ns["type"] != "pid");
    bundle.start();
    let pids = || {
        let text = bundle
            .runtime
            .run(&["ps", "--format", "json", &bundle.id])
            .ok();
        serde_json::from_str::<Vec<i32>>(&text)
            .expect("a list")
            .len()
    };
    until("both", || pids() == 3);
    bundle
        .runtime
        .run(&["kill", "--all", &bundle.id, "KILL"])
        .silent();
    bundle.runtime.wait_for(&bundle.id, "stopped");
    until("the others to go", || {
        run(Command::new("pgrep").args(["-fx", "sleep 1234"])).code == 1
    });
    bundle.runtime.run(&["delete", &bundle.id]).silent();
    assert_nothing_left(&bundle);
}

/// With its own pid namespace gone, a forked tree dies with the first process.
#[test]
fn a_tree_of_processes_is_killed() {
    let bundle = Bundle::new("for i in 1 2 3 4 5; do (sh -c 'sleep 100 & sleep 100') & done; wait");
    bundle.start();
    let count = || {
        let text = bundle
            .runtime
            .run(&["ps", "--format", "json", &bundle.id])
            .ok();
        serde_json::from_str::<Vec<i32>>(&text)
            .expect("a list")
            .len()
    };
    until("the tree", || count() >= 11);
    bundle
        .runtime
        .run(&["delete", "--force", &bundle.id])
        .silent();
    assert_nothing_left(&bundle);
}

#[test]
fn signal_zero_asks_whether_it_lives() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    bundle.runtime.run(&["kill", &bundle.id, "0"]).silent();
    bundle.runtime.run(&["kill", &bundle.id, "9"]).silent();
    bundle.runtime.wait_for(&bundle.id, "stopped");
    assert_ne!(bundle.runtime.run(&["kill", &bundle.id, "0"]).code, 0);
}

fn limit(bundle: &Bundle, names: &[&str]) -> Option<String> {
    let dirs = cgroup_dirs(&bundle.cgroup());
    let files = dirs
        .iter()
        .flat_map(|dir| names.iter().map(|name| dir.join(name)));
    files
        .filter_map(|file| fs::read_to_string(file).ok())
        .map(|text| text.trim().to_owned())
        .next()
}

#[test]
fn update_options() {
    let bundle = Bundle::new("sleep 100").set(
        "/linux/resources",
        json!({"memory": {"limit": 134_217_728}, "cpu": {"shares": 512, "quota": 50000, "period": 100_000}, "pids": {"limit": 100}}),
    );
    bundle.start();
    for (option, value, v1, want) in [
        ("--memory", "67108864", "memory.limit_in_bytes", "67108864"),
        (
            "--memory-reservation",
            "33554432",
            "memory.soft_limit_in_bytes",
            "33554432",
        ),
        ("--cpu-quota", "40000", "cpu.cfs_quota_us", "40000"),
        ("--cpu-period", "200000", "cpu.cfs_period_us", "200000"),
        ("--cpu-share", "256", "cpu.shares", "256"),
        ("--cpuset-cpus", "0", "cpuset.cpus", "0"),
        ("--pids-limit", "20", "pids.max", "20"),
    ] {
        let Some(before) = limit(&bundle, &[v1]) else {
            skip("update_options", &format!("the machine has no {v1}"));
            continue;
        };
        bundle
            .runtime
            .run(&["update", option, value, &bundle.id])
            .silent();
        assert_eq!(
            limit(&bundle, &[v1]).as_deref(),
            Some(want),
            "{option}, before: {before}"
        );
    }
    let mut command = bundle
        .runtime
        .command(&["update", "--resources", "-", &bundle.id]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("spawn");
    let mut stdin = child.stdin.take().expect("stdin");
    std::io::Write::write_all(&mut stdin, br#"{"pids": {"limit": 30}}"#).expect("write");
    drop(stdin);
    assert!(child.wait().expect("wait").success());
    assert_eq!(limit(&bundle, &["pids.max"]).as_deref(), Some("30"));
}

#[test]
fn limits_work() {
    let bundle = Bundle::new(
        "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done 2>&1 | grep -c -m 1 'fork'",
    )
    .set("/linux/resources/pids", json!({"limit": 10}));
    assert_eq!(bundle.run().stdout, "1\n");
    let bundle = Bundle::new("tail /dev/zero; echo $?").set(
        "/linux/resources/memory",
        json!({"limit": 33_554_432, "swap": 33_554_432}),
    );
    assert!(
        bundle.run().stdout.contains("137"),
        "the memory limit holds"
    );
}

#[test]
fn keep_original_groups() {
    let groups = |annotations: Value| {
        let bundle = Bundle::new("cat /proc/self/status").set("/annotations", annotations);
        bundle.write();
        let mut command = Command::new("setpriv");
        command
            .args(["--groups", "44,7"])
            .arg(&bundle.runtime.binary);
        command
            .arg("--root")
            .arg(&bundle.runtime.root)
            .arg("run")
            .arg("--bundle")
            .arg(&bundle.dir)
            .arg(&bundle.id);
        field(&run(&mut command).ok(), "Groups:")
    };
    assert_eq!(groups(json!({})), "");
    if ours() {
        assert_eq!(groups(json!({"run.oci.keep_original_groups": "1"})), "7 44");
    }
}

/// Podman with LISTEN_FDS passes the option and the variable; the descriptors must not be counted twice.
#[test]
fn listen_fds_are_counted_once() {
    if not_for_peers("listen_fds_are_counted_once") {
        return;
    }
    let bundle = Bundle::new("").set("/process/args", json!(["/bin/ls", "/proc/self/fd"]));
    bundle.write();
    let script = format!(
        "exec 3</dev/null 4</dev/null 5</dev/null; LISTEN_FDS=1 LISTEN_PID=1 exec {} --root {} run --preserve-fds 1 --bundle {} {}",
        bundle.runtime.binary.display(),
        bundle.runtime.root.display(),
        bundle.dir.display(),
        bundle.id
    );
    // 4 is the directory that ls itself reads.
    let text = run(Command::new("sh").args(["-c", &script])).ok();
    assert_eq!(text, "0\n1\n2\n3\n4\n");
}

/// conmon's later calls have neither HOME nor PATH: the same state root must be found.
#[test]
fn the_default_root_needs_no_environment() {
    if not_for_peers("the_default_root_needs_no_environment") {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.write();
    let dir = bundle.dir.display().to_string();
    let call = |args: &[&str], bare: bool| {
        let mut command = Command::new(&bundle.runtime.binary);
        command.args(args);
        if bare {
            command
                .env_clear()
                .env("XDG_RUNTIME_DIR", "")
                .current_dir("/");
        }
        run(&mut command)
    };
    call(&["create", "--bundle", &dir, &bundle.id], false).silent();
    assert!(fs::exists(format!("/run/fleet-nvidia/{}", bundle.id)).unwrap_or(false));
    assert!(call(&["state", &bundle.id], true).ok().contains("created"));
    call(&["delete", "--force", &bundle.id], true).silent();
    assert!(!fs::exists(format!("/run/fleet-nvidia/{}", bundle.id)).unwrap_or(true));
}

#[test]
fn spec_template_is_runcs() {
    let bundle = Bundle::new("true");
    drop(fs::remove_file(bundle.dir.join("config.json")));
    bundle
        .runtime
        .run(&["spec", "--bundle", bundle.dir.to_str().expect("text")])
        .silent();
    let text = fs::read_to_string(bundle.dir.join("config.json")).expect("the template");
    let spec: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(spec["process"]["args"], json!(["sh"]));
    assert_eq!(spec["root"], json!({"path": "rootfs", "readonly": true}));
    // It runs as it is, but for the terminal, which nobody holds here.
    let mut bundle = bundle;
    let cgroup = bundle.spec["linux"]["cgroupsPath"].clone();
    bundle.spec = spec;
    let bundle = bundle
        .set("/process/terminal", json!(false))
        .set("/process/args", json!(["echo", "template"]))
        .set("/linux/cgroupsPath", cgroup);
    assert_eq!(bundle.run().ok(), "template\n");
}

/// Mount targets, links and masks of an image stay inside its root.
#[test]
fn links_of_the_image_stay_inside() {
    let bundle = Bundle::new("echo ran");
    let outside = bundle.dir.join("outside");
    fs::create_dir(&outside).expect("mkdir");
    for (name, target) in [
        ("absolute", outside.display().to_string()),
        (
            "relative",
            "../../../../../../../../../../../../run".to_owned(),
        ),
    ] {
        symlink(&target, bundle.dir.join("rootfs").join(name)).expect("link");
    }
    let name = unique("through");
    let bundle = bundle
        .mount("/absolute/sub", "tmpfs", "tmpfs", &[])
        .mount(&format!("/relative/{name}"), "tmpfs", "tmpfs", &[])
        .set(
            "/linux/maskedPaths",
            json!(["/absolute/masked", "/proc/kcore", "/proc/kcore"]),
        );
    let out = bundle.run();
    assert!(out.code == 0 || out.stderr.lines().count() == 1, "{out:#?}");
    assert_eq!(
        fs::read_dir(&outside).expect("list").count(),
        0,
        "made outside the root"
    );
    assert!(
        !fs::exists(format!("/run/{name}")).unwrap_or(true),
        "made outside the root"
    );
}

#[test]
fn proc_as_a_link_is_refused() {
    if not_for_peers("proc_as_a_link_is_refused") {
        return;
    }
    for target in ["/tmp", "/proc"] {
        let bundle = Bundle::new("true");
        fs::remove_dir(bundle.dir.join("rootfs/proc")).expect("rmdir");
        symlink(target, bundle.dir.join("rootfs/proc")).expect("link");
        drop(bundle.make("create", &[]).fails("proc must be mounted"));
        assert_nothing_left(&bundle);
    }
}

#[test]
fn sysctls_and_names() {
    let bundle =
        Bundle::new("hostname; cat /proc/sys/net/ipv4/ip_forward; cat /proc/sys/kernel/domainname")
            .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
            .set("/hostname", json!("own"));
    let bundle = if ours() {
        bundle.set("/domainname", json!("example.org"))
    } else {
        bundle
    };
    let text = bundle.run().ok();
    assert!(text.starts_with("own\n1\n"), "{text}");
    if ours() {
        assert!(text.ends_with("example.org\n"), "{text}");
    }
}

#[test]
fn cgroup_namespace_hides_the_path() {
    let bundle = Bundle::new("cat /proc/self/cgroup").namespace("cgroup", None);
    let text = bundle.run().ok();
    assert!(!text.contains(&bundle.id), "{text}");
}

#[test]
fn events_go_on_at_an_interval() {
    if differs("events_go_on_at_an_interval", &["crun"]) {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let mut child = bundle
        .runtime
        .command(&["events", "--interval=100ms", &bundle.id])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let stdout = std::io::BufReader::new(child.stdout.take().expect("stdout"));
    let lines: Vec<String> = std::io::BufRead::lines(stdout)
        .take(2)
        .map_while(Result::ok)
        .collect();
    bundle.runtime.run(&["kill", &bundle.id, "KILL"]).silent();
    // It ends with the container.
    until("events to end", || {
        child.try_wait().expect("wait").is_some() || !ours()
    });
    drop(child.kill());
    drop(child.wait());
    assert_eq!(lines.len(), 2);
    for line in lines {
        let event: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&event["type"], &event["id"]),
            (&json!("stats"), &json!(bundle.id))
        );
    }
}
