//! Fields of the runtime specification, one test each, that no other suite looks at. crun 1.8 and runc 1.1, which are at
//! hand, are older than many of them: those tests are this runtime's alone.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::Path;
use std::process::Command;

use fleet_tests::{
    Bundle, assert_nothing_left, cgroup_dirs, differs, not_for_peers, ours, run, skip, unique,
    until,
};
use serde_json::{Value, json};

fn mapped(bundle: Bundle) -> Bundle {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle
        .namespace("user", None)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
}

/// Words of a text, however they are set apart.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn time_namespace() {
    if not_for_peers("time_namespace") {
        return;
    }
    let offsets = json!({"monotonic": {"secs": 7881, "nanosecs": 2_718_281}, "boottime": {"secs": 1337, "nanosecs": 0}});
    let want = ["monotonic", "7881", "2718281", "boottime", "1337", "0"];
    for in_user_namespace in [false, true] {
        let bundle = Bundle::new("cat /proc/self/timens_offsets > /dev/shm/seen; sleep 100")
            .namespace("time", None)
            .set("/linux/timeOffsets", offsets.clone());
        let bundle = if in_user_namespace {
            mapped(bundle)
        } else {
            bundle
        };
        bundle.start();
        let uptime = "cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime";
        let text = bundle.exec(&[], &["sh", "-c", uptime]).ok();
        let seen = words(&text);
        assert_eq!(seen[..6], want, "exec: {text}");
        // The clock itself, and not just the setting.
        let host = fs::read_to_string("/proc/uptime").expect("uptime");
        let host: f64 = words(&host)[0].parse().expect("a number");
        let inside: f64 = seen[6].parse().expect("a number");
        assert!((inside - host - 1337.0).abs() < 60.0, "{inside} {host}");
        // It may be slower than the processes that came after it.
        let first = || bundle.exec(&[], &["cat", "/dev/shm/seen"]).stdout;
        until("the first process", || words(&first()).len() == want.len());
        assert_eq!(words(&first()), want, "the first process");
    }
}

#[test]
fn fields_that_need_a_namespace_of_their_own() {
    if not_for_peers("fields_that_need_a_namespace_of_their_own") {
        return;
    }
    for (pointer, value, kind) in [
        ("/hostname", json!("h"), "uts"),
        ("/domainname", json!("d"), "uts"),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1, "nanosecs": 0}}),
            "time",
        ),
        ("/linux/netDevices", json!({"lo": {}}), "network"),
    ] {
        let mut bundle = Bundle::new("true")
            .set("/hostname", json!(""))
            .set(pointer, value);
        let all = bundle.spec["linux"]["namespaces"]
            .as_array_mut()
            .expect("namespaces");
        all.retain(|ns| ns["type"] != kind);
        let word = format!(
            "`{}` needs a `{kind}` namespace",
            pointer[1..].replace('/', ".")
        );
        drop(bundle.run().fails(&word));
        assert_nothing_left(&bundle);
    }
}

/// Priority, nice value and policy of a process (`man 5 proc_pid_stat`, fields 19, 40 and 41).
/// The shell forks for it.
const SCHEDULED: &str = "cut -d' ' -f19,40,41 /proc/self/stat; true";

#[test]
fn scheduler() {
    if not_for_peers("scheduler") {
        return;
    }
    let nice = json!(["CAP_SYS_NICE"]);
    let capabilities = json!({"bounding": nice, "effective": nice, "permitted": nice});
    let bundle = |scheduler: Value| {
        Bundle::new(SCHEDULED)
            .set("/process/capabilities", capabilities.clone())
            .set("/process/scheduler", scheduler)
    };
    for (scheduler, want) in [
        (json!({"policy": "SCHED_BATCH", "nice": 7}), "7 0 3\n"),
        (json!({"policy": "SCHED_OTHER", "nice": -5}), "-5 0 0\n"),
        (json!({"policy": "SCHED_IDLE"}), "0 0 5\n"),
        (
            json!({"policy": "SCHED_OTHER", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            "0 0 0\n",
        ),
    ] {
        assert_eq!(bundle(scheduler.clone()).run().ok(), want, "{scheduler}");
    }
    for (scheduler, word) in [
        (
            json!({"policy": "SCHED_FUNNY"}),
            "unknown policy \"SCHED_FUNNY\"",
        ),
        (
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_FUNNY"]}),
            "unknown flag \"SCHED_FLAG_FUNNY\"",
        ),
        (
            json!({"policy": "SCHED_FIFO", "priority": 1000}),
            "set scheduling policy SCHED_FIFO of `process.scheduler`: ",
        ),
        (
            json!({"policy": "SCHED_DEADLINE", "runtime": 2, "deadline": 1}),
            "set scheduling policy SCHED_DEADLINE",
        ),
    ] {
        let bundle = bundle(scheduler);
        drop(bundle.run().fails(word));
        assert_nothing_left(&bundle);
    }
    let running = Bundle::new("sleep 100").set("/process/capabilities", capabilities.clone());
    running.start();
    let file = running.dir.join("process.json");
    let process = json!({"args": ["sh", "-c", SCHEDULED], "cwd": "/", "env": ["PATH=/bin:/usr/bin"],
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3}});
    fs::write(&file, process.to_string()).expect("write");
    let out = running.exec(&["--process", file.to_str().expect("text")], &[]);
    assert_eq!(out.ok(), "3 0 3\n");
}

#[test]
fn io_priority() {
    if not_for_peers("io_priority") {
        return;
    }
    for (class, priority, want) in [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6\n"),
        ("IOPRIO_CLASS_IDLE", 0, "idle\n"),
    ] {
        let bundle = Bundle::new("ionice -p $$").set(
            "/process/ioPriority",
            json!({"class": class, "priority": priority}),
        );
        assert_eq!(bundle.run().ok(), want);
    }
    let bundle = Bundle::new("true").set("/process/ioPriority", json!({"class": "IOPRIO_FUNNY"}));
    drop(bundle.run().fails("IOPRIO_FUNNY"));
    assert_nothing_left(&bundle);
}

#[test]
fn cpu_affinity_of_exec() {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").expect("online CPUs");
    if online.trim() == "0" {
        skip("cpu_affinity_of_exec", "the machine has one CPU");
        return;
    }
    if not_for_peers("cpu_affinity_of_exec") {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let allowed = |affinity: Value| {
        let file = bundle.dir.join("process.json");
        let script = "sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status";
        let process = json!({"args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": affinity});
        fs::write(&file, process.to_string()).expect("write");
        bundle.exec(&["--process", file.to_str().expect("text")], &[])
    };
    assert_eq!(allowed(json!({"initial": "1", "final": "0"})).ok(), "0\n");
    assert_eq!(allowed(json!({"final": "1"})).ok(), "1\n");
    assert_eq!(allowed(json!(null)).ok(), online);
    assert_ne!(allowed(json!({"final": "x"})).code, 0);
}

#[test]
fn memory_policy() {
    if not_for_peers("memory_policy") {
        return;
    }
    if !Path::new("/proc/self/numa_maps").exists() {
        skip("memory_policy", "the kernel has no NUMA policies");
        return;
    }
    let script = "head -1 /proc/self/numa_maps | cut -d' ' -f2";
    for (policy, want) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0\n"),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
            "interleave=static:0\n",
        ),
    ] {
        let bundle = Bundle::new(script).set("/linux/memoryPolicy", policy);
        assert_eq!(bundle.run().ok(), want);
    }
    for policy in [
        json!({"mode": "MPOL_FUNNY", "nodes": "0"}),
        json!({"mode": "MPOL_BIND", "nodes": "999"}),
    ] {
        let bundle = Bundle::new("true").set("/linux/memoryPolicy", policy);
        assert_ne!(bundle.run().code, 0);
        assert_nothing_left(&bundle);
    }
}

/// A device of the network namespace that the runtime is called in goes into the container, renamed, with its addresses.
#[test]
fn network_devices() {
    if not_for_peers("network_devices") {
        return;
    }
    let bundle = Bundle::new("cat /sys/class/net/inside/address; ip -4 -o addr show dev inside")
        .set(
            "/linux/netDevices",
            json!({"fleettest0": {"name": "inside"}}),
        );
    bundle.write();
    let command = bundle.runtime.command(&["run", &bundle.id]);
    let words: Vec<_> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let script = format!(
        "ip link add fleettest0 type veth peer name fleettest1 || exit 77
        ip link set fleettest0 address 02:00:00:00:00:77 && ip addr add 192.0.2.7/24 dev fleettest0 || exit 1
        {} || exit 1; ip link show fleettest0 2>/dev/null && exit 9; exit 0",
        words.join(" ")
    );
    let out = run(Command::new("unshare")
        .args(["--net", "sh", "-c", &script])
        .current_dir(&bundle.dir));
    if out.code == 77 {
        skip(
            "network_devices",
            "no virtual network devices on this kernel",
        );
        return;
    }
    let text = out.ok();
    assert!(
        text.contains("02:00:00:00:00:77") && text.contains("192.0.2.7/24"),
        "{text}"
    );
}

#[test]
fn session_keyring() {
    if !Path::new("/proc/keys").exists() {
        skip("session_keyring", "the kernel has no keyrings");
        return;
    }
    let bundle = Bundle::new("cat /proc/keys");
    let own = |text: &str, id: &str| text.lines().any(|line| line.contains(id));
    assert!(own(&bundle.run().ok(), &bundle.id));
    let bundle = Bundle::new("cat /proc/keys");
    assert!(!own(
        &bundle.make("run", &["--no-new-keyring"]).ok(),
        &bundle.id
    ));
}

/// A directory with a mount below it.
struct Tree(String);

impl Tree {
    fn new() -> Self {
        let top = format!("/run/{}", unique("tree"));
        fs::create_dir_all(format!("{top}/below")).expect("mkdir");
        let below = format!("{top}/below");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "mode=777", "tmpfs", &below]);
        drop(run(&mut mount).ok());
        Self(top)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        drop(run(
            Command::new("umount").args(["-l", &format!("{}/below", self.0)])
        ));
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Options of the mounts at a path and below it, as the container sees them.
const MOUNTED: &str = "grep -E ' /v(/below)? ' /proc/self/mountinfo | cut -d' ' -f5,6";

#[test]
fn recursive_mount_attributes() {
    if differs("recursive_mount_attributes", &["crun"]) {
        return;
    }
    let tree = Tree::new();
    for (option, word) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
    ] {
        let bundle = Bundle::new(MOUNTED).mount("/v", "bind", &tree.0, &["rbind", option]);
        let text = bundle.run().ok();
        assert_eq!(text.lines().count(), 2, "{text}");
        for line in text.lines() {
            let options = words(line)[1];
            assert!(options.split(',').any(|o| o == word), "{option}: {line}");
        }
    }
    // Without the letter only the mount itself is changed.
    let bundle = Bundle::new(MOUNTED).mount("/v", "bind", &tree.0, &["rbind", "ro"]);
    let text = bundle.run().ok();
    let below = text
        .lines()
        .find(|line| line.starts_with("/v/below "))
        .expect("a mount");
    assert!(words(below)[1].starts_with("rw"), "{text}");
}

#[test]
fn recursive_attributes_are_cleared_again() {
    if differs("recursive_attributes_are_cleared_again", &["crun", "runc"]) {
        return;
    }
    let tree = Tree::new();
    let below = format!("{}/below", tree.0);
    let mut remount = Command::new("mount");
    drop(run(remount.args(["-o", "remount,bind,ro,nosuid,nodev,noexec", &below])).ok());
    let options = ["rbind", "rrw", "rsuid", "rdev", "rexec"];
    let bundle = Bundle::new(MOUNTED).mount("/v", "bind", &tree.0, &options);
    let text = bundle.run().ok();
    let line = text
        .lines()
        .find(|line| line.starts_with("/v/below "))
        .expect("a mount");
    for word in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(
            !words(line)[1].split(',').any(|o| o == word),
            "{word}: {line}"
        );
    }
}

#[test]
fn propagation_of_a_mount_by_its_word() {
    if differs("propagation_of_a_mount_by_its_word", &["crun"]) {
        return;
    }
    for (option, field) in [
        ("rshared", "shared:"),
        ("rslave", "master:"),
        ("rprivate", ""),
        ("unbindable", "unbindable"),
    ] {
        let tree = Tree::new();
        let mut share = Command::new("mount");
        drop(run(share.args(["--make-shared", &format!("{}/below", tree.0)])).ok());
        let source = format!("{}/below", tree.0);
        let script = "grep ' /v ' /proc/self/mountinfo";
        let bundle = Bundle::new(script)
            .mount("/v", "bind", &source, &["rbind", option])
            .set("/linux/rootfsPropagation", json!("rslave"));
        let line = bundle.run().ok();
        let fields: Vec<&str> = words(&line)
            .into_iter()
            .skip(6)
            .take_while(|word| *word != "-")
            .collect();
        match field {
            "" => assert!(fields.is_empty(), "{option}: {line}"),
            field => assert!(
                fields.iter().any(|f| f.starts_with(field)),
                "{option}: {line}"
            ),
        }
    }
}

#[test]
fn domain_name() {
    if differs("domain_name", &["runc"]) {
        return;
    }
    let bundle =
        Bundle::new("cat /proc/sys/kernel/domainname").set("/domainname", json!("example.org"));
    assert_eq!(bundle.run().ok(), "example.org\n");
}

#[test]
fn personality() {
    if differs("personality", &["runc"]) {
        return;
    }
    let script = "uname -m";
    let with = |value: Value| Bundle::new(script).set("/linux/personality", value);
    assert_eq!(with(json!({"domain": "LINUX32"})).run().ok(), "i686\n");
    let bundle = with(json!({"domain": "LINUX32"}))
        .set("/process/args", json!(["/bin/sh", "-c", "sleep 100"]));
    bundle.start();
    assert_eq!(bundle.exec(&[], &["uname", "-m"]).ok(), "i686\n");
    if ours() {
        let bundle = with(json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}));
        drop(bundle.run().fails("linux.personality.flags"));
        assert_nothing_left(&bundle);
    }
}

/// Files of cgroup v2 by name. Where the cgroups are of version 1 they cannot be honoured, and that is an error.
#[test]
fn unified_resources() {
    if not_for_peers("unified_resources") {
        return;
    }
    let with = |files: Value| Bundle::new("sleep 100").set("/linux/resources/unified", files);
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        let bundle = with(json!({"memory.high": "100000000"}));
        drop(bundle.run().fails("unified"));
        assert_nothing_left(&bundle);
        return;
    }
    let bundle = with(json!({"cgroup.max.depth": "7"}));
    bundle.start();
    let dirs = cgroup_dirs(&bundle.cgroup());
    let read = |file: &str| fs::read_to_string(dirs[0].join(file)).expect("read");
    assert_eq!(read("cgroup.max.depth"), "7\n");
    drop(bundle);
    for files in [
        json!({"no.such.file": "1"}),
        json!({"../cgroup.procs": "1"}),
    ] {
        let bundle = with(files);
        assert_ne!(bundle.run().code, 0);
        assert_nothing_left(&bundle);
    }
}

#[test]
fn rdt_without_the_hardware_is_refused() {
    if Path::new("/sys/fs/resctrl/schemata").exists() {
        skip("rdt_without_the_hardware_is_refused", "the machine has RDT");
        return;
    }
    let bundle = Bundle::new("true").set("/linux/intelRdt", json!({"memBwSchema": "MB:0=20"}));
    if !ours() {
        return;
    }
    drop(
        bundle
            .run()
            .fails("`linux.intelRdt` needs the resctrl file system"),
    );
    assert_nothing_left(&bundle);
}
