//! What crun and runc do and the library alone does not, beyond `contract.rs`: the same tests pass over these peers
//! (`make peers`), unless one says otherwise.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use fleet_tests::views::controllers;
use fleet_tests::{
    Bundle, assert_nothing_left, cgroup_dirs, differs, not_for_peers, ours, run, skip, unique,
    until,
};
use serde_json::{Value, json};

#[path = "parity/exec.rs"]
mod exec;
#[path = "parity/limits.rs"]
mod limits;
#[path = "parity/mounts.rs"]
mod mounts;
#[path = "parity/terminal.rs"]
mod terminal;

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
    if !ours() {
        return;
    }
    // An engine's log has room for the error alone, so a warning comes to who asks for warnings.
    assert_eq!(out.stderr, "");
    bundle.start();
    let verbose = ["--log-level", "warning", "delete", "--force", &bundle.id];
    let out = bundle.runtime.run(&verbose);
    assert_eq!(out.code, 0, "{out:#?}");
    let told = "fleet-nvidia: warning: error running hook poststop `/bin/false`";
    assert!(out.stderr.starts_with(told), "{out:#?}");
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

/// One that names no environment has the program's, as under crun and runc 1.3.
#[test]
fn start_container_hooks_have_the_programs_environment() {
    if differs(
        "start_container_hooks_have_the_programs_environment",
        &["runc"],
    ) {
        return;
    }
    let script = "echo $KIND $HOME > /hook";
    let hook = |env: Value| json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": env}]});
    for (env, wanted) in [
        (Value::Null, "program /root\n"),
        (json!(["KIND=hook"]), "hook\n"),
    ] {
        let mut hook = hook(env);
        if hook["startContainer"][0]["env"].is_null() {
            let hook = hook["startContainer"][0].as_object_mut();
            hook.expect("a hook").remove("env");
        }
        let bundle = Bundle::new("cat /hook").set("/hooks", hook).set(
            "/process/env",
            json!(["PATH=/bin", "KIND=program", "HOME=/root"]),
        );
        assert_eq!(bundle.run().ok(), wanted);
    }
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
    bundle.becomes("stopped");
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
    bundle.becomes("running");
    bundle.remove();
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
    bundle.becomes("stopped");
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
    bundle.remove();
    assert_nothing_left(&bundle);
}

#[test]
fn signal_zero_asks_whether_it_lives() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    bundle.runtime.run(&["kill", &bundle.id, "0"]).silent();
    bundle.runtime.run(&["kill", &bundle.id, "9"]).silent();
    bundle.becomes("stopped");
    assert_ne!(bundle.runtime.run(&["kill", &bundle.id, "0"]).code, 0);
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

/// A runtime inside a container may have less than a privileged container asks for: the engine is told by `create`.
#[test]
fn a_capability_that_the_caller_lacks_fails_create() {
    let bundle = Bundle::new("true");
    let all = ["CAP_KILL", "CAP_SYS_TIME"];
    let sets = json!({"bounding": all, "permitted": all, "effective": all});
    let bundle = bundle.set("/process/capabilities", sets);
    bundle.write();
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-sys_time", "--inh-caps=-sys_time"])
        .arg(&bundle.runtime.binary)
        .arg("--root")
        .arg(&bundle.runtime.root)
        .args(["create", "--bundle"])
        .arg(&bundle.dir)
        .arg(&bundle.id);
    let out = run(&mut command);
    assert_ne!(out.code, 0, "{out:#?}");
    if ours() {
        let told = "`process.capabilities.permitted` has CAP_SYS_TIME, which this runtime was started without; hint: ";
        assert!(out.stderr.contains(told), "{out:#?}");
    }
    assert_nothing_left(&bundle);
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
