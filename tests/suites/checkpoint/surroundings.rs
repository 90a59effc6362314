//! What a restored container finds around it.

use super::*;

const HELD: &str = "mknod /other c 1 11 && (exec 3</other) 2>&1 | grep -o 'not permitted'";

/// Cgroup, limits and device rules are made by the runtime before a process is there.
#[test]
fn cgroup_limits_and_device_rules() {
    if !ready("cgroup_limits_and_device_rules") {
        return;
    }
    let mut saved = Saved::counter();
    let pids = fleet_tests::cgroup_dirs("/")
        .iter()
        .any(|dir| dir.ends_with("pids") && dir.join("cgroup.procs").exists());
    if pids {
        saved.bundle = saved
            .bundle
            .set("/linux/resources/pids", json!({"limit": 9}))
            .set(
                "/linux/resources/memory",
                json!({"limit": 32 * 1024 * 1024}),
            );
    }
    saved.run();
    assert_eq!(saved.exec(HELD), "not permitted\n");
    let before = devices(&saved.bundle);
    saved.round_trip();
    saved.goes_on();
    assert_eq!(saved.exec(&format!("rm /other; {HELD}")), "not permitted\n");
    assert_eq!(devices(&saved.bundle), before);
    let dirs = fleet_tests::cgroup_dirs(&saved.bundle.cgroup());
    let pid = saved.pid().to_string();
    for dir in &dirs {
        let inside = fs::read_to_string(dir.join("cgroup.procs")).expect("read");
        assert!(
            inside.lines().any(|line| line == pid),
            "{}: {inside}",
            dir.display()
        );
    }
    let limit = |name: &str, file: &str| {
        let dir = dirs
            .iter()
            .find(|dir| dir.starts_with(format!("/sys/fs/cgroup/{name}")));
        fs::read_to_string(dir.expect("a controller").join(file)).expect("read")
    };
    if pids {
        assert_eq!(limit("pids", "pids.max"), "9\n");
        assert_eq!(limit("memory", "memory.limit_in_bytes"), "33554432\n");
    }
}

fn with_cgroups(bundle: Bundle) -> Bundle {
    let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &options)
}

/// With a cgroup namespace of its own, and without one.
#[test]
fn what_it_sees_of_cgroups() {
    if !ready("what_it_sees_of_cgroups") {
        return;
    }
    let see = "sort /proc/self/cgroup; ls /sys/fs/cgroup | grep -v fleet-test; grep ' - cgroup' /proc/self/mountinfo | cut -d' ' -f4-6 | sort";
    for own in [true, false] {
        let bundle = with_cgroups(Bundle::new(COUNTER));
        let saved = Saved::new(match own {
            true => bundle.namespace("cgroup", None),
            false => bundle,
        });
        saved.run();
        let before = saved.exec(see);
        assert!(before.contains("/sys/fs/cgroup"), "{before}");
        saved.round_trip();
        saved.goes_on();
        assert_eq!(saved.exec(see), before);
    }
}

/// A mount as the container's own table has it, without what differs from one time to the next.
const TABLE: &str =
    "cut -d' ' -f5- /proc/self/mountinfo | sed 's/ shared:[0-9]*//; s/ master:[0-9]*//' | sort";

#[test]
fn mounts() {
    if !ready("mounts") {
        return;
    }
    let masked = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/acpi",
        "/sys/firmware",
    ];
    let read_only = ["/proc/sys", "/proc/bus", "/proc/irq"];
    let bundle = Bundle::new(&format!("echo kept > /tmp/file; {COUNTER}"));
    let (volume, file) = (bundle.dir.join("volume"), bundle.dir.join("a file"));
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("x"), "volume\n").expect("write");
    fs::write(&file, "file\n").expect("write");
    let link = bundle.dir.join("link");
    std::os::unix::fs::symlink(&file, &link).expect("symlink");
    let source = |path: &std::path::Path| path.display().to_string();
    let saved = Saved::new(
        bundle
            .mount("/data", "bind", &source(&volume), &["rbind", "rprivate"])
            .mount(
                "/locked",
                "bind",
                &source(&volume),
                &["rbind", "ro", "nosuid", "nodev", "noexec"],
            )
            .mount("/by-a-link", "bind", &source(&link), &["bind"])
            .mount("/etc/a file", "bind", &source(&file), &["bind", "rprivate"])
            .mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "size=1m"])
            .mount(
                "/dev/mqueue",
                "mqueue",
                "mqueue",
                &["nosuid", "noexec", "nodev"],
            )
            .set("/linux/maskedPaths", json!(masked))
            .set("/linux/readonlyPaths", json!(read_only)),
    );
    saved.run();
    let before = saved.exec(TABLE);
    saved.checkpoint(&[]).silent();
    // A root file system that was unpacked anew.
    let rootfs = saved.bundle.dir.join("rootfs");
    fs::remove_dir(rootfs.join("data")).expect("rmdir");
    fs::remove_file(rootfs.join("etc/a file")).expect("rm");
    saved.restore(&[]);
    saved.goes_on();
    assert_eq!(saved.exec(TABLE), before);
    let content = saved
        .exec("cat /data/x '/etc/a file' /by-a-link /tmp/file; cat /proc/keys; ls /sys/firmware");
    assert_eq!(content, "volume\nfile\nfile\nkept\n");
    assert_eq!(saved.exec("echo new > /data/y; cat /locked/y"), "new\n");
    let refused = saved.exec("for f in /locked/z /proc/sys/kernel/hostname; do (echo x > $f) 2>&1 | grep -o 'Read-only file system'; done");
    assert_eq!(refused, "Read-only file system\nRead-only file system\n");
    saved.bundle.remove();
    assert_nothing_left(&saved.bundle);
}

#[test]
fn a_read_only_root() {
    if !ready("a_read_only_root") {
        return;
    }
    let script = "i=0; while :; do i=$((i+1)); echo $i > /run/count; sleep 0.02; done";
    let bundle = Bundle::new(script).set("/root/readonly", json!(true));
    let saved = Saved::new(bundle.mount("/run", "tmpfs", "tmpfs", &["nosuid", "nodev"]));
    saved.start();
    std::thread::sleep(Duration::from_millis(200));
    let before = saved.exec(TABLE);
    saved.round_trip();
    assert_eq!(saved.exec(TABLE), before);
    let count = || {
        saved
            .exec("cat /run/count")
            .trim()
            .parse::<u64>()
            .unwrap_or(0)
    };
    let first = count();
    until("the container to count on", || count() > first);
    let refused = saved.exec("(echo x > /x) 2>&1 | grep -o 'Read-only file system'");
    assert_eq!(refused, "Read-only file system\n");
}

#[test]
fn what_holds_the_program_back() {
    if !ready("what_holds_the_program_back") {
        return;
    }
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    });
    let script =
        "i=0; while :; do i=$((i+1)); echo $i > /count; mkdir /made 2>/dev/null; sleep 0.02; done";
    let saved = Saved::new(Bundle::new(script).set("/linux/seccomp", profile));
    saved.run();
    let see =
        "grep -E '^(Cap|NoNew|Seccomp)' /proc/1/status; hostname; tr '\\0' ' ' < /proc/1/environ";
    let before = saved.exec(see);
    assert!(
        before.contains("NoNewPrivs:\t1") && before.contains("Seccomp:\t2"),
        "{before}"
    );
    saved.round_trip();
    saved.goes_on();
    assert_eq!(saved.exec(see), before);
    assert!(!saved.bundle.dir.join("rootfs/made").exists());
    let exec = saved.bundle.exec(&[], &["mkdir", "/made"]);
    assert_ne!(exec.code, 0, "{exec:#?}");
}

/// Engines make the network, and keep it over a restore or have made another one by then.
#[test]
fn a_network_namespace_of_the_engines() {
    if !ready("a_network_namespace_of_the_engines") {
        return;
    }
    let names = ["fleet-one", "fleet-two"];
    for name in names {
        drop(run(Command::new("ip").args(["netns", "add", name])).ok());
    }
    let path = |name: &str| format!("/run/netns/{name}");
    let number = |path: &str| {
        let meta = fs::metadata(path).expect("stat");
        std::os::unix::fs::MetadataExt::ino(&meta)
    };
    let mut saved = Saved::counter();
    saved.bundle = saved.bundle.namespace("network", Some(&path(names[0])));
    saved.run();
    let of_container = |saved: &Saved| number(&format!("/proc/{}/ns/net", saved.pid()));
    assert_eq!(of_container(&saved), number(&path(names[0])));
    saved.round_trip();
    saved.goes_on();
    assert_eq!(of_container(&saved), number(&path(names[0])));
    saved.checkpoint(&[]).silent();
    saved.bundle = saved.bundle.namespace("network", Some(&path(names[1])));
    saved.restore(&[]);
    saved.goes_on();
    assert_eq!(of_container(&saved), number(&path(names[1])));
    saved.checkpoint(&[]).silent();
    // One of its own would have to be made with all that is in it.
    saved.bundle = saved.bundle.namespace("network", None);
    let said = saved.restore_fails();
    assert!(said.contains("network namespace of the engine's"), "{said}");
    assert_nothing_left(&saved.bundle);
    for name in names {
        drop(run(Command::new("ip").args(["netns", "delete", name])).ok());
    }
}

/// Hooks of the runtime's own stages are run as ever; those inside of the container were part of making it.
#[test]
fn hooks() {
    if !ready("hooks") {
        return;
    }
    let saved = Saved::counter();
    let log = saved.bundle.dir.join("hooks");
    let hook = |stage: &str| {
        let script = format!(
            "read -r state; echo {stage} \"$state\" >> {}",
            log.display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    let mut all = json!({});
    for stage in [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ] {
        all[stage] = hook(stage);
    }
    let saved = Saved {
        bundle: saved.bundle.set("/hooks", all),
        ..saved
    };
    saved.run();
    saved.checkpoint(&[]).silent();
    fs::remove_file(&log).expect("rm");
    saved.restore(&[]);
    saved.goes_on();
    let text = fs::read_to_string(&log).expect("read");
    let lines: Vec<(&str, Value)> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(stage, state)| (stage, value(state)))
        .collect();
    let stages: Vec<&str> = lines.iter().map(|(stage, _)| *stage).collect();
    assert_eq!(stages, ["prestart", "createRuntime"]);
    for (stage, state) in &lines {
        assert_eq!(state["id"], saved.bundle.id.as_str(), "{stage}");
        assert!(state["pid"].as_i64() > Some(0), "{stage}: {state}");
    }
    saved.bundle.remove();
}
