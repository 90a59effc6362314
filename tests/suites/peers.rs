//! What the suites of crun and runc found here, each held by a test of our own: see docs/conformance.md.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::process::Command;

use fleet_tests::{
    Bundle, assert_nothing_left, cgroup_dirs, differs, not_for_peers, ours, run, unique,
};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::json;

fn field(text: &str, key: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        .trim()
        .to_owned()
}

#[test]
fn delete_and_kill_by_pattern() {
    if differs("delete_and_kill_by_pattern", &["runc"]) {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.write();
    let dir = bundle.dir.display().to_string();
    let name = unique("pattern");
    for part in ["one", "two"] {
        let id = format!("{name}-{part}");
        let mut spec = bundle.spec.clone();
        spec["linux"]["cgroupsPath"] = json!(fleet_tests::cgroup_path(&id));
        fs::write(bundle.dir.join(format!("{part}.json")), spec.to_string()).expect("write");
        let config = format!("{part}.json");
        let made = bundle
            .runtime
            .run(&["run", "-d", "--config", &config, "--bundle", &dir, &id]);
        made.silent();
    }
    let pattern = format!("^{name}-.*");
    bundle
        .runtime
        .run(&["kill", "--regex", &pattern, "KILL"])
        .silent();
    for part in ["one", "two"] {
        bundle
            .runtime
            .wait_for(&format!("{name}-{part}"), "stopped");
    }
    bundle
        .runtime
        .run(&["delete", "--force", "--regex", &pattern])
        .silent();
    assert_eq!(bundle.runtime.run(&["list", "-q"]).ok(), "");
    if ours() {
        drop(
            bundle
                .runtime
                .run(&["delete", "--regex", "("])
                .fails("regular expression"),
        );
    }
}

#[test]
fn exec_env_takes_the_place_of_the_containers() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let text = bundle
        .exec(&["--env", "TERM=dumb", "-e", "NEW=1"], &["env"])
        .ok();
    let mut lines: Vec<&str> = text.lines().filter(|l| !l.starts_with("HOME=")).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["NEW=1", "PATH=/bin:/sbin:/usr/bin", "TERM=dumb"]);
}

#[test]
fn exec_cap_is_not_inheritable() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let text = bundle
        .exec(&["--cap", "CAP_SYS_TIME"], &["cat", "/proc/self/status"])
        .ok();
    assert_eq!(field(&text, "CapInh:"), "0000000000000000");
    assert_eq!(field(&text, "CapAmb:"), "0000000000000000");
    let bits = u64::from_str_radix(&field(&text, "CapEff:"), 16).expect("hex");
    assert_ne!(bits & (1 << 25), 0, "{bits:x}");
}

#[test]
fn the_hostname_sysctl_is_refused() {
    let bundle = Bundle::new("true").set("/linux/sysctl", json!({"kernel.hostname": "x"}));
    drop(bundle.run().fails("kernel.hostname"));
    assert_nothing_left(&bundle);
}

#[test]
fn hooks_without_environment_get_the_engines() {
    let bundle = Bundle::new("true");
    let out = bundle.dir.join("seen");
    let script = format!("echo \"$ENGINE,$LD_BIND_NOW\" >> {}", out.display());
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    let bundle = bundle.set(
        "/hooks",
        json!({"prestart": hook, "createRuntime": hook, "poststart": hook, "poststop": hook}),
    );
    bundle.write();
    let dir = bundle.dir.display().to_string();
    let mut command = bundle
        .runtime
        .command(&["run", "--bundle", &dir, &bundle.id]);
    command.env("ENGINE", "yes").env("LD_BIND_NOW", "1");
    drop(run(&mut command).ok());
    let text = fs::read_to_string(&out).expect("the hooks wrote");
    let want = if ours() { "yes,\n" } else { "yes,1\n" };
    assert_eq!(text, want.repeat(4));
}

/// As runc: such a hook may name files of the container by relative paths.
#[test]
fn create_container_hooks_run_in_the_root_directory() {
    if differs(
        "create_container_hooks_run_in_the_root_directory",
        &["crun"],
    ) {
        return;
    }
    let bundle = Bundle::new("cat /made").set(
        "/hooks",
        json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo here > ./made"]}]}),
    );
    assert_eq!(bundle.run().ok(), "here\n");
}

#[test]
fn preserved_range_may_have_holes() {
    if differs("preserved_range_may_have_holes", &["runc"]) {
        return;
    }
    let bundle = Bundle::new("ls /proc/self/fd | tr '\\n' ' '");
    bundle.write();
    let script = format!(
        "for fd in 3 4 6 7 8 9 10 11 12; do eval exec $fd'>&-'; done; exec 5</dev/null; exec {} --root {} run --preserve-fds 10 --bundle {} {}",
        bundle.runtime.binary.display(),
        bundle.runtime.root.display(),
        bundle.dir.display(),
        bundle.id
    );
    // 3 is the directory that ls itself reads.
    assert_eq!(
        run(Command::new("bash").args(["-c", &script])).ok(),
        "0 1 2 3 5 "
    );
}

#[test]
fn sockets_for_nobody_else_are_passed_on() {
    if differs("sockets_for_nobody_else_are_passed_on", &["runc"]) {
        return;
    }
    let bundle = Bundle::new("echo $LISTEN_FDS $LISTEN_PID");
    bundle.write();
    let dir = bundle.dir.display().to_string();
    let start = |pid: Option<&str>| {
        let mut command = bundle
            .runtime
            .command(&["run", "--bundle", &dir, &bundle.id]);
        command.env("LISTEN_FDS", "1");
        pid.map(|pid| command.env("LISTEN_PID", pid));
        run(&mut command).ok()
    };
    assert_eq!(start(None), "1 1\n");
    if ours() {
        assert_eq!(start(Some("1")), "\n");
    }
}

/// Podman's `-v /dev:/dev` comes after the engine's own /dev.
#[test]
fn dev_is_mounted_over() {
    let mut bundle = Bundle::new("test -e /dev/mark && cat /dev/mark");
    let source = bundle.dir.join("dev");
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("mark"), "mine\n").expect("write");
    bundle.spec["mounts"].as_array_mut().expect("mounts").push(
        json!({"destination": "/dev", "type": "bind", "source": source, "options": ["rbind", "rw"]}),
    );
    if differs("dev_is_mounted_over", &["crun", "runc"]) {
        return;
    }
    assert_eq!(bundle.run().ok(), "mine\n");
}

#[test]
fn exec_in_a_paused_container() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    bundle.runtime.run(&["pause", &bundle.id]).silent();
    if !differs("exec_in_a_paused_container", &["crun"]) {
        drop(
            bundle
                .exec(&[], &["true"])
                .fails("cannot exec in a paused container"),
        );
    }
    bundle.runtime.run(&["resume", &bundle.id]).silent();
}

#[test]
fn exec_in_a_cgroup_below() {
    if differs("exec_in_a_cgroup_below", &["crun"]) {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let dirs = cgroup_dirs(&bundle.cgroup());
    for dir in &dirs {
        fs::create_dir(dir.join("below")).expect("mkdir");
        // A new cpuset of v1 takes nobody before it has these.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(text) = fs::read(dir.join(file)) {
                fs::write(dir.join("below").join(file), text).expect("write");
            }
        }
    }
    let place = |options: &[&str]| bundle.exec(options, &["cat", "/proc/self/cgroup"]);
    let text = place(&["--cgroup", "below"]).ok();
    let inside = text.lines().filter(|line| line.ends_with("/below")).count();
    assert!(inside >= dirs.len().min(5), "{text}");
    let v1 = !fs::exists("/sys/fs/cgroup/cgroup.controllers").expect("stat");
    if v1 {
        let text = place(&["--cgroup", "memory:below", "--cgroup", "pids:/"]).ok();
        for line in text.lines().filter(|line| !line.starts_with("0::")) {
            assert_eq!(
                line.ends_with("/below"),
                line.contains(":memory:"),
                "{line}"
            );
        }
        drop(place(&["--cgroup", "moon:/"]).fails("unknown controller"));
    }
    drop(place(&["--cgroup", "../other"]).fails("not a sub cgroup path"));
    drop(place(&["--cgroup", "missing"]).fails("no such file"));
    assert_eq!(bundle.exec(&[], &["echo", "fine"]).ok(), "fine\n");
}

#[test]
fn read_only_dev_with_a_terminal() {
    let mut bundle = Bundle::new("tty; grep ' /dev ' /proc/mounts | grep -o '[ ,]ro,'")
        .set("/process/terminal", json!(true));
    let mounts = bundle.spec["mounts"].as_array_mut().expect("mounts");
    let dev = mounts
        .iter_mut()
        .find(|m| m["destination"] == "/dev")
        .expect("/dev");
    dev["options"] = json!(["nosuid", "ro", "mode=755"]);
    bundle.write();
    let line = format!(
        "{} --root {} run --bundle {} {}",
        bundle.runtime.binary.display(),
        bundle.runtime.root.display(),
        bundle.dir.display(),
        bundle.id
    );
    let out = run(Command::new("script").args(["-qec", &line, "/dev/null"]));
    assert!(
        out.code == 0 && out.stdout.contains("/dev/pts/0") && out.stdout.contains(" ro,"),
        "{out:#?}"
    );
}

/// The filter covers all that runs in the container after `start`.
#[test]
fn start_container_hooks_run_under_seccomp() {
    let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]});
    let bundle = Bundle::new("true").set("/linux/seccomp", seccomp).set(
        "/hooks",
        json!({"startContainer": [{"path": "/bin/mkdir", "args": ["mkdir", "/made"]}]}),
    );
    if differs("start_container_hooks_run_under_seccomp", &["crun"]) {
        return;
    }
    let out = bundle.run();
    assert_ne!(out.code, 0, "{out:#?}");
    assert!(out.stderr.contains("bad system call"), "{out:#?}");
    assert!(!bundle.dir.join("rootfs/made").exists());
}

#[test]
fn unknown_letters_of_a_device_rule_are_passed_over() {
    if not_for_peers("unknown_letters_of_a_device_rule_are_passed_over") {
        return;
    }
    let rules = json!([{"allow": false, "access": "rwm"}, {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwa"}]);
    let bundle = Bundle::new("echo fine").set("/linux/resources/devices", rules);
    assert_eq!(bundle.run().ok(), "fine\n");
    let bundle = Bundle::new("true").set(
        "/linux/resources/devices",
        json!([{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "xyz"}]),
    );
    drop(bundle.run().fails("access"));
}

fn user_namespace(bundle: Bundle) -> Bundle {
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle
        .namespace("user", None)
        .set("/linux/uidMappings", maps.clone())
        .set("/linux/gidMappings", maps)
}

/// A volume of the host's root shows as owned by whom the map says: in all three notations.
#[test]
fn idmapped_mounts() {
    if not_for_peers("idmapped_mounts") {
        return;
    }
    let holder = Bundle::new("");
    let source = holder.dir.join("volume");
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("file"), "").expect("write");
    let script = "stat -c %u:%g /v/file; touch /v/made && stat -c %u:%g /v/made";
    let own = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    let mount = |options: serde_json::Value| json!({"destination": "/v", "type": "bind", "source": source, "options": options});
    let mut plain = mount(json!(["rbind"]));
    plain["uidMappings"] = own.clone();
    plain["gidMappings"] = own;
    let cases = [
        plain,
        mount(json!(["rbind", "idmap"])),
        mount(json!(["rbind", "ridmap"])),
        mount(json!(["rbind", "idmap=uids=0-100000-10;gids=0-100000-10"])),
        mount(json!(["rbind", "idmap=uids=@0-0-10;gids=@0-0-10"])),
    ];
    for case in cases {
        let mut bundle = user_namespace(Bundle::new(script));
        fs::create_dir(bundle.dir.join("rootfs/v")).expect("mkdir");
        bundle.spec["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(case.clone());
        assert_eq!(bundle.run().ok(), "0:0\n0:0\n", "{case}");
        let made =
            std::os::unix::fs::MetadataExt::uid(&fs::metadata(source.join("made")).expect("stat"));
        assert_eq!(made, 0, "{case}");
        fs::remove_file(source.join("made")).expect("rm");
    }
    let mut bundle = Bundle::new("true");
    bundle.spec["mounts"]
        .as_array_mut()
        .expect("mounts")
        .push(mount(json!(["rbind", "idmap"])));
    drop(bundle.run().fails("user namespace"));
    let mut bundle = user_namespace(Bundle::new("true"));
    bundle.spec["mounts"]
        .as_array_mut()
        .expect("mounts")
        .push(mount(json!(["rbind", "idmap=uids=x"])));
    drop(bundle.run().fails("is not a map"));
}

/// Options of a bind that is made outside the library, and a mount below it.
#[test]
fn options_of_an_idmapped_mount() {
    if not_for_peers("options_of_an_idmapped_mount") {
        return;
    }
    let holder = Bundle::new("");
    let source = holder.dir.join("volume");
    fs::create_dir_all(source.join("below")).expect("mkdir");
    let mut bundle = user_namespace(Bundle::new(
        "grep ' /v' /proc/self/mountinfo | cut -d ' ' -f 5,6",
    ));
    let mounts = bundle.spec["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({"destination": "/v", "type": "bind", "source": source, "options": ["rbind", "idmap", "rro", "nosuid", "nodev", "noexec", "noatime"]}));
    mounts.push(json!({"destination": "/v/below", "type": "tmpfs", "source": "tmpfs", "options": ["mode=700"]}));
    fs::create_dir(bundle.dir.join("rootfs/v")).expect("mkdir");
    let text = bundle.run().ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let words: Vec<&str> = lines[0].split([' ', ',']).collect();
    for word in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
        assert!(words.contains(&word), "{word}: {text}");
    }
    assert!(lines[1].starts_with("/v/below rw"), "{text}");
}

/// The host has no such node, and its owner is one of the container.
#[test]
fn devices_of_a_user_namespace_have_their_owner() {
    if differs("devices_of_a_user_namespace_have_their_owner", &["runc"]) {
        return;
    }
    let bundle = user_namespace(Bundle::new("stat -c '%F %t:%T %u:%g %a' /dev/foo; cat < /dev/foo | head -c 0 && echo opened"))
        .set("/linux/devices", json!([{"path": "/dev/foo", "type": "c", "major": 1, "minor": 5, "uid": 10, "gid": 11, "fileMode": 0o640}]));
    assert_eq!(
        bundle.run().ok(),
        "character special file 1:5 10:11 640\nopened\n"
    );
}

/// The library takes the host's `/proc` out once; here another one lies below it.
#[test]
fn no_pivot_shows_no_bare_proc() {
    let bundle = Bundle::new("unshare -mrpf mount -t proc none /proc 2>/dev/null && echo bare");
    let mut bundle = bundle;
    for set in ["bounding", "permitted", "effective"] {
        let caps = bundle.spec["process"]["capabilities"][set]
            .as_array_mut()
            .expect("caps");
        caps.push(json!("CAP_SETFCAP"));
    }
    let out = bundle.make("run", &["--no-pivot"]);
    assert_eq!(out.stdout, "", "{out:#?}");
    assert_nothing_left(&bundle);
}

#[test]
fn the_cgroup_is_named_after_the_container() {
    let mut bundle = Bundle::new("sleep 100");
    bundle.spec["linux"]
        .as_object_mut()
        .expect("linux")
        .remove("cgroupsPath");
    bundle.start();
    assert!(!cgroup_dirs(&bundle.id).is_empty());
    bundle.remove();
    assert!(cgroup_dirs(&bundle.id).is_empty());
}

/// What an agent of `SCMP_ACT_NOTIFY` is sent: one message with one descriptor.
fn receive(listener: &UnixListener) -> (serde_json::Value, RawFd) {
    let (text, fd) = receive_text(listener);
    (serde_json::from_slice(&text).expect("JSON"), fd)
}

fn receive_text(listener: &UnixListener) -> (Vec<u8>, RawFd) {
    let (connection, _) = listener.accept().expect("accept");
    let mut text = [0; 4096];
    let mut room = nix::cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(&mut text)];
    let message = recvmsg::<()>(
        connection.as_raw_fd(),
        &mut parts,
        Some(&mut room),
        MsgFlags::empty(),
    )
    .expect("recvmsg");
    let rights = message.cmsgs().expect("control messages").next();
    let Some(ControlMessageOwned::ScmRights(fds)) = rights else {
        panic!("no descriptor: {rights:?}");
    };
    let length = message.bytes;
    (text[..length].to_vec(), fds[0])
}

fn agent(bundle: &Bundle) -> (UnixListener, serde_json::Value) {
    let path = bundle.dir.join("agent");
    let listener = UnixListener::bind(&path).expect("bind");
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "note",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    });
    (listener, profile)
}

/// Without an agent to answer, the kernel says `ENOSYS` for the calls that it would be asked about.
#[test]
fn seccomp_notify() {
    for no_new_privileges in [true, false] {
        let bundle = Bundle::new("mkdir /x 2>&1 | grep -o 'Function not.*' >> /said; sleep 100")
            .set("/process/noNewPrivileges", json!(no_new_privileges));
        let (listener, profile) = agent(&bundle);
        let bundle = bundle.set("/linux/seccomp", profile);
        bundle.start();
        let (message, fd) = receive(&listener);
        nix::unistd::close(fd).expect("close");
        let pid = &bundle.runtime.state(&bundle.id)["pid"];
        assert_eq!(&message["pid"], pid, "{message}");
        assert_eq!(message["fds"], json!(["seccompFd"]));
        assert_eq!(message["metadata"], "note");
        assert_eq!(message["state"]["id"], json!(bundle.id));
        fleet_tests::until("the answer", || {
            bundle
                .dir
                .join("rootfs/said")
                .metadata()
                .is_ok_and(|m| m.len() > 0)
        });
        // One more process has a listener of its own.
        let id = bundle.id.clone();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| receive(&listener));
            let text = bundle.exec(&["-d"], &["sh", "-c", "mkdir /y 2>> /said"]);
            assert_eq!(text.code, 0, "{text:#?}");
            let (message, fd) = other.join().expect("join");
            nix::unistd::close(fd).expect("close");
            assert_ne!(&message["pid"], pid, "{message}");
            assert_eq!(message["state"]["id"], json!(id));
        });
    }
}

#[test]
fn seccomp_notify_is_refused_where_it_cannot_work() {
    let notify = |extra: serde_json::Value| {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/no-agent", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
        for (key, value) in extra.as_object().expect("object") {
            profile[key] = value.clone();
        }
        Bundle::new("true").set("/linux/seccomp", profile)
    };
    let cases = [
        (json!({}), "failed to connect with seccomp agent"),
        (json!({"listenerPath": ""}), "listenerPath"),
        (json!({"listenerPath": "@abstract"}), "listenerPath"),
        (
            json!({"syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}),
            "cannot be used for the write syscall",
        ),
    ];
    for (extra, word) in cases {
        let bundle = notify(extra);
        drop(bundle.run().fails(word));
        assert_nothing_left(&bundle);
    }
}

/// A call that is newer than the profile looks like one that the kernel lacks.
#[test]
fn newer_system_calls_are_not_implemented() {
    if differs("newer_system_calls_are_not_implemented", &["crun"]) {
        return;
    }
    let bundle = Bundle::new("");
    let source = bundle.dir.join("call.c");
    fs::write(&source, "#include <errno.h>\n#include <stdio.h>\n#include <unistd.h>\n#include <sys/syscall.h>\nint main(void) { syscall(1000, 1); printf(\"%d \", errno); errno = 0; syscall(SYS_acct, 0); printf(\"%d\\n\", errno); return 0; }\n").expect("write");
    let made = Command::new("gcc")
        .arg("-static")
        .arg("-o")
        .arg(bundle.dir.join("rootfs/call"))
        .arg(&source)
        .status();
    assert!(made.expect("run gcc").success());
    // All but acct(2), which is older than the newest that is named here.
    let text =
        fs::read_to_string("/usr/share/containers/seccomp.json").expect("the engines' profile");
    let given: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let rules = given["syscalls"].as_array().expect("rules").iter();
    let plain = rules.filter(|r| {
        r["action"] == "SCMP_ACT_ALLOW" && r["includes"].as_object().is_none_or(|o| o.is_empty())
    });
    let mut rules: Vec<serde_json::Value> = plain.cloned().collect();
    rules.push(json!({"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW"}));
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
    let bundle = bundle
        .set("/linux/seccomp", profile)
        .set("/process/args", json!(["/call"]));
    assert_eq!(bundle.run().ok(), "38 1\n");
}

#[test]
fn pidfd_socket() {
    if not_for_peers("pidfd_socket") {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    let path = bundle.dir.join("pidfd");
    let listener = UnixListener::bind(&path).expect("bind");
    let socket = path.to_str().expect("text");
    let pid_of = |fd: RawFd| {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("fdinfo");
        nix::unistd::close(fd).expect("close");
        field(&text, "Pid:")
    };
    // The connection waits in the listener's queue.
    bundle
        .make("run", &["-d", "--pidfd-socket", socket])
        .silent();
    let (text, fd) = receive_text(&listener);
    assert_eq!(text, b"pidfd");
    assert_eq!(
        pid_of(fd),
        bundle.runtime.state(&bundle.id)["pid"].to_string()
    );
    let file = bundle.dir.join("pid");
    let options = [
        "-d",
        "--pid-file",
        file.to_str().expect("text"),
        "--pidfd-socket",
        socket,
    ];
    bundle.exec(&options, &["sleep", "100"]).silent();
    let (_, fd) = receive_text(&listener);
    assert_eq!(pid_of(fd), fs::read_to_string(&file).expect("read"));
    let other = Bundle::new("true");
    drop(
        other
            .make("create", &["--pidfd-socket", "/run/nobody"])
            .fails("pidfd socket"),
    );
    assert_nothing_left(&other);
}
