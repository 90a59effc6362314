//! On the kernel at hand, as root: own leaves, own children. Without root, or where the machine has no such cgroup
//! version, a test says so and does nothing.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::file::put;
use super::*;

/// Set in a test that was started again where `/sys/fs/cgroup` is cgroup2.
const UNIFIED_VIEW: &str = "FLEET_TEST_UNIFIED_VIEW";

fn skip(why: &str) {
    println!(
        "SKIP: {}: {why}",
        std::thread::current().name().unwrap_or("cgroup")
    );
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs a v1 test.
fn on_v1(test: impl FnOnce()) {
    match (is_root(), hierarchy::version()) {
        (true, Version::V1) => test(),
        (false, _) => skip("needs root"),
        _ => skip("this machine has cgroup v2 alone"),
    }
}

/// Runs a v2 test: here, or once more in a mount namespace of its own that shows cgroup2 alone.
fn on_v2(test: impl FnOnce()) {
    if !is_root() {
        return skip("needs root");
    }
    if hierarchy::version() == Version::V2 {
        return test();
    }
    assert!(
        std::env::var_os(UNIFIED_VIEW).is_none(),
        "the view was not made"
    );
    let name = std::thread::current().name().unwrap().to_owned();
    let script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 77; exec \"$0\" --exact \"$1\" --nocapture --test-threads=1";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(&name)
        .env(UNIFIED_VIEW, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter(|line| line.contains("SKIP: "))
        .for_each(|line| println!("{line}"));
    match output.status.code() {
        Some(0) => assert!(text.contains("1 passed"), "{name} was not run: {text}"),
        Some(77) => skip("cgroup2 cannot be mounted"),
        _ => panic!(
            "where cgroup2 is alone: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// A leaf with children of ours in it, all gone at the end.
struct Scene {
    cgroup: Cgroup,
    children: Vec<Child>,
}

impl Scene {
    fn path(name: &str) -> String {
        // Pids repeat in every pid namespace; cgroups are the machine's.
        static NOW: OnceLock<u128> = OnceLock::new();
        let now = NOW.get_or_init(|| {
            let since = std::time::UNIX_EPOCH.elapsed();
            since.unwrap_or_default().as_nanos()
        });
        format!("/fleet-unit-{}-{now}-{name}", std::process::id())
    }

    fn new(name: &str) -> Self {
        let path = Self::path(name);
        let mut cgroup = choose(&path);
        cgroup.create(false).unwrap();
        assert!(cgroup.writable());
        Self {
            cgroup,
            children: Vec::new(),
        }
    }

    /// A shell that waits for a line before it goes on, moved into the leaf.
    fn spawn(&mut self, script: &str) -> &mut Child {
        let child = held(script);
        self.cgroup
            .add_process(i32::try_from(child.id()).unwrap())
            .unwrap();
        self.children.push(child);
        self.children.last_mut().unwrap()
    }

    fn leaf(&self, controller: &str) -> PathBuf {
        let leaves = self.cgroup.leaves().unwrap();
        leaves
            .iter()
            .find(|(h, _)| h.has(controller))
            .unwrap()
            .1
            .clone()
    }

    fn file(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.leaf(controller).join(file))
            .unwrap()
            .trim()
            .to_owned()
    }

    fn nothing_left(&self) -> bool {
        self.cgroup
            .leaves()
            .unwrap()
            .iter()
            .all(|(_, leaf)| !leaf.exists())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.cgroup.thaw());
        drop(self.cgroup.kill_all(libc::SIGKILL));
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
        drop(self.cgroup.remove());
    }
}

fn choose(path: &str) -> Cgroup {
    Cgroup::choose(&Request {
        driver: Driver::Cgroupfs,
        cgroups_path: Some(path),
        id: "unit",
        rootless: false,
        session: &Session::default(),
    })
    .unwrap()
}

fn held(script: &str) -> Child {
    Command::new("sh")
        .args(["-c", &format!("read -r _; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn release(child: &mut Child) {
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
}

/// What the shell prints until it ends.
fn output(child: &mut Child) -> String {
    release(child);
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    child.wait().unwrap();
    text.trim().to_owned()
}

fn ends(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < end, "still alive");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn until(what: &str, test: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !test() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Makes and opens `/dev/kmsg` (1:11), which is no default device.
struct Node(PathBuf);

impl Node {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(Scene::path(name).trim_start_matches('/'));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn script(&self, null: &str) -> String {
        let dir = self.0.display();
        format!(
            "rm -f {dir}/n; mknod {dir}/n c 1 11 && printf 'made '; (exec 3<{dir}/n) 2>/dev/null && printf 'read ' || printf 'refused '; \
             (exec 3<>{null}) 2>/dev/null && echo null || echo refused"
        )
    }

    /// Without rules.
    fn works(&self) -> bool {
        output(&mut held(&self.script("/dev/null"))) == "made read null"
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn kmsg(allow: bool, access: &str) -> Value {
    json!({"allow": allow, "type": "c", "major": 1, "minor": 11, "access": access})
}

fn device_rules(name: &str) {
    let node = Node::new(name);
    if !node.works() {
        return skip("/dev/kmsg cannot be opened here");
    }
    let mut scene = Scene::new(name);
    let script = node.script("/dev/null");
    let mut check = |rules: &[Value], want: &str| {
        scene.cgroup.apply_devices(rules, false).unwrap();
        assert_eq!(output(scene.spawn(&script)), want, "{rules:?}");
    };
    let everything = json!({"allow": true, "access": "rwm"});
    check(&[], "made refused null");
    check(
        &[json!({"allow": false, "access": "rwm"})],
        "made refused null",
    );
    check(&[kmsg(true, "rw")], "made read null");
    check(&[kmsg(true, "w")], "made refused null");
    check(&[kmsg(true, "rw"), kmsg(false, "r")], "made refused null");
    check(std::slice::from_ref(&everything), "made read null");
    check(
        &[everything.clone(), kmsg(false, "rw")],
        "made refused null",
    );
    check(&[everything], "made read null");
    check(&[kmsg(false, "rwm")], "made refused null");
    // Limits change, rules stay, even those that an engine does not know of.
    check(&[kmsg(true, "r")], "made read null");
    scene.cgroup.update(&json!({})).unwrap();
    scene
        .cgroup
        .update(&json!({"devices": [{"allow": false, "access": "rwm"}]}))
        .unwrap();
    assert_eq!(output(scene.spawn(&script)), "made read null");
    // More rules than any node has devices: the kernel's limits on programs and lists are far.
    let many: Vec<Value> =
        (0..1000).map(|minor| json!({"allow": true, "type": "c", "major": 195, "minor": minor, "access": "rw"})).collect();
    scene.cgroup.apply_devices(&many, false).unwrap();
    assert_eq!(output(scene.spawn(&script)), "made refused null");
    scene.cgroup.remove().unwrap();
    assert!(scene.nothing_left());
}

fn freezing(name: &str) {
    let mut scene = Scene::new(name);
    release(scene.spawn("trap 'exit 3' USR1; while :; do sleep 0.01; done"));
    until("the loop", || scene.cgroup.processes().unwrap().len() > 1);
    assert!(!scene.cgroup.is_frozen().unwrap());
    for _ in 0..20 {
        scene.cgroup.freeze().unwrap();
        assert!(scene.cgroup.is_frozen().unwrap());
        scene.cgroup.thaw().unwrap();
        assert!(!scene.cgroup.is_frozen().unwrap());
    }
    scene.cgroup.freeze().unwrap();
    // A signal that is handled waits, SIGKILL does not.
    scene.cgroup.kill_all(libc::SIGUSR1).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(scene.children[0].try_wait().unwrap().is_none());
    assert!(scene.cgroup.is_frozen().unwrap(), "still paused");
    scene.cgroup.kill_all(libc::SIGKILL).unwrap();
    let _ = ends(&mut scene.children[0]);
    scene.cgroup.remove().unwrap();
    assert!(scene.nothing_left());
}

fn killing(name: &str) {
    let mut bystander = held("sleep 600");
    let mut scene = Scene::new(name);
    release(scene.spawn("trap '' TERM; sleep 600 & sleep 600 & wait; sleep 600"));
    until("three processes", || {
        scene.cgroup.processes().unwrap().len() == 3
    });
    // Forks as fast as it can.
    release(scene.spawn("while :; do sleep 0.02 & done"));
    std::thread::sleep(Duration::from_millis(50));
    scene.cgroup.kill_all(libc::SIGKILL).unwrap();
    for child in &mut scene.children {
        let status = ends(child);
        assert!(!status.success(), "{status}");
    }
    scene.cgroup.remove().unwrap();
    assert!(scene.nothing_left());
    assert!(
        bystander.try_wait().unwrap().is_none(),
        "a bystander lives on"
    );
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    // Gone is fine.
    scene.cgroup.kill_all(libc::SIGKILL).unwrap();
    scene.cgroup.remove().unwrap();
    assert!(scene.cgroup.processes().unwrap().is_empty());
}

fn other_signals(name: &str) {
    let mut scene = Scene::new(name);
    release(scene.spawn("trap 'exit 3' USR1; while :; do sleep 0.01; done"));
    // The trap is set once the loop's first child is there.
    until("the loop", || scene.cgroup.processes().unwrap().len() > 1);
    scene.cgroup.kill_all(libc::SIGUSR1).unwrap();
    assert_eq!(ends(&mut scene.children[0]).code(), Some(3));
}

fn nested_and_busy(name: &str) {
    let mut scene = Scene::new(name);
    let leaves = scene.cgroup.leaves().unwrap();
    for (hierarchy, leaf) in leaves.iter() {
        let mut made = Vec::new();
        hierarchy
            .make(&format!("{}/below/deep", scene.cgroup.path()), &mut made)
            .unwrap();
        assert_eq!(made.len(), 2, "{}", leaf.display());
    }
    // Used again while it is empty, refused once it is not.
    choose(scene.cgroup.path()).create(false).unwrap();
    let pid = {
        let child = held("sleep 600");
        let pid = child.id();
        scene.children.push(child);
        pid
    };
    for (_, leaf) in leaves.iter() {
        put(&leaf.join("below/deep/cgroup.procs"), &pid.to_string()).unwrap();
    }
    assert_eq!(
        scene.cgroup.processes().unwrap(),
        [i32::try_from(pid).unwrap()]
    );
    let mut second = choose(scene.cgroup.path());
    let err = second.create(false).unwrap_err();
    assert!(
        matches!(err, CgroupError::Busy(_)) && err.to_string().contains("is not empty"),
        "{err}"
    );
    assert!(!second.writable());
    assert!(
        scene.children[0].try_wait().unwrap().is_none(),
        "and its process lives"
    );
    scene.cgroup.kill_all(libc::SIGKILL).unwrap();
    let _ = ends(&mut scene.children[0]);
    scene.cgroup.remove().unwrap();
    assert!(scene.nothing_left());
}

#[test]
fn v1_devices() {
    on_v1(|| device_rules("v1-devices"));
}

#[test]
fn v1_freezing() {
    on_v1(|| freezing("v1-freezing"));
}

#[test]
fn v1_killing() {
    on_v1(|| killing("v1-killing"));
}

#[test]
fn v1_other_signals() {
    on_v1(|| other_signals("v1-signals"));
}

#[test]
fn v1_nested_and_busy() {
    on_v1(|| nested_and_busy("v1-nested"));
}

#[test]
fn v2_devices() {
    on_v2(|| device_rules("v2-devices"));
}

#[test]
fn v2_freezing() {
    on_v2(|| freezing("v2-freezing"));
}

#[test]
fn v2_killing() {
    on_v2(|| killing("v2-killing"));
}

#[test]
fn v2_other_signals() {
    on_v2(|| other_signals("v2-signals"));
}

#[test]
fn v2_nested_and_busy() {
    on_v2(|| nested_and_busy("v2-nested"));
}

#[test]
fn v1_every_hierarchy_has_the_process() {
    on_v1(|| {
        let mut scene = Scene::new("v1-everywhere");
        let pid = scene.spawn("exit").id();
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        for (hierarchy, _) in scene.cgroup.leaves().unwrap().iter() {
            assert_eq!(
                hierarchy.place(&table).as_deref(),
                Some(scene.cgroup.path()),
                "{:?}",
                hierarchy.controllers
            );
        }
        assert!(
            table.contains(&format!("name=systemd:{}", scene.cgroup.path()))
                || !table.contains("name=systemd"),
            "{table}"
        );
        assert_eq!(
            scene.cgroup.exec_target(i32::try_from(pid).unwrap()),
            scene.cgroup.path()
        );
    });
}

#[test]
fn v1_limits() {
    on_v1(|| {
        let scene = Scene::new("v1-limits");
        let mut checks: Vec<(&str, Value, &str, &str)> = Vec::new();
        let limits = |limit: i64, swap: i64| json!({"memory": {"limit": limit, "swap": swap}});
        let mega = 1_048_576;
        checks.extend([
            // Up, down and up again: each order is needed once.
            (
                "memory",
                limits(64 * mega, 64 * mega),
                "memory.limit_in_bytes",
                "67108864",
            ),
            (
                "memory",
                limits(128 * mega, 128 * mega),
                "memory.limit_in_bytes",
                "134217728",
            ),
            (
                "memory",
                limits(32 * mega, 64 * mega),
                "memory.limit_in_bytes",
                "33554432",
            ),
            (
                "memory",
                json!({"memory": {"limit": -1}}),
                "memory.limit_in_bytes",
                "9223372036854771712",
            ),
            (
                "memory",
                json!({"memory": {"reservation": mega}}),
                "memory.soft_limit_in_bytes",
                "1048576",
            ),
            ("cpu", json!({"cpu": {"shares": 512}}), "cpu.shares", "512"),
            (
                "cpu",
                json!({"cpu": {"quota": 50000, "period": 100_000}}),
                "cpu.cfs_quota_us",
                "50000",
            ),
            (
                "cpu",
                json!({"cpu": {"quota": 2000, "period": 4000}}),
                "cpu.cfs_period_us",
                "4000",
            ),
            (
                "cpu",
                json!({"cpu": {"quota": -1}}),
                "cpu.cfs_quota_us",
                "-1",
            ),
            ("pids", json!({"pids": {"limit": 77}}), "pids.max", "77"),
            ("pids", json!({"pids": {"limit": -1}}), "pids.max", "max"),
            (
                "cpuset",
                json!({"cpu": {"cpus": "0", "mems": "0"}}),
                "cpuset.cpus",
                "0",
            ),
        ]);
        for (controller, resources, file, want) in checks {
            scene
                .cgroup
                .apply(&resources)
                .unwrap_or_else(|err| panic!("{resources}: {err}"));
            assert_eq!(scene.file(controller, file), want, "{resources}");
        }
        for (bad, word) in [
            (json!({"cpu": {"cpus": "4000"}}), "cpuset.cpus"),
            (json!({"cpu": {"quota": 1}}), "cfs_quota_us"),
            (json!({"memory": {"swappiness": 1000}}), "swappiness"),
            (json!({"unified": {"memory.high": "1"}}), "unified"),
        ] {
            let text = scene
                .cgroup
                .apply(&bad)
                .expect_err(&bad.to_string())
                .to_string();
            assert!(text.contains(word), "{bad}: {text}");
        }
        let stats = scene.cgroup.stats().unwrap();
        assert_eq!(stats["pids"], json!({"current": 0, "limit": 0}));
        assert_eq!(stats["cpuset"]["cpus"], json!([0]));
        assert_eq!(scene.cgroup.oom_kills().unwrap(), 0);
    });
}

#[test]
fn v1_memory_in_use_is_told() {
    on_v1(|| {
        let mut scene = Scene::new("v1-in-use");
        // Pages that cannot be reclaimed: there is no swap to move them to below a limit of both.
        let child =
            scene.spawn("x=$(head -c 30000000 /dev/zero | tr '\\0' x); echo held; read -r _");
        release(child);
        let mut word = [0_u8; 4];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut word)
            .unwrap();
        match scene
            .cgroup
            .apply(&json!({"memory": {"limit": 1_048_576, "swap": 1_048_576}}))
        {
            Err(err) => assert!(err.to_string().contains("memory.limit_in_bytes"), "{err}"),
            Ok(()) => panic!("30 MB do not fit into 1 MB"),
        }
    });
}

#[test]
fn v2_exec_target_follows_the_first_process() {
    on_v2(|| {
        let mut scene = Scene::new("v2-exec");
        let pid = scene.spawn("exit").id();
        let init = i32::try_from(pid).unwrap();
        assert_eq!(scene.cgroup.exec_target(init), scene.cgroup.path());
        let leaf = scene.leaf("");
        fs::create_dir(leaf.join("inner")).unwrap();
        put(&leaf.join("inner/cgroup.procs"), &pid.to_string()).unwrap();
        assert_eq!(
            scene.cgroup.exec_target(init),
            scene.cgroup.path(),
            "processes may still be added here"
        );
        let controllers = scene.file("", "cgroup.controllers");
        let Some(first) = controllers.split_whitespace().next() else {
            return skip("no controller is on v2 here");
        };
        put(&leaf.join("cgroup.subtree_control"), &format!("+{first}")).unwrap();
        assert_eq!(
            scene.cgroup.exec_target(init),
            format!("{}/inner", scene.cgroup.path())
        );
        assert_eq!(scene.cgroup.exec_target(i32::MAX), scene.cgroup.path());
    });
}

#[test]
fn v2_a_missing_controller_is_named() {
    on_v2(|| {
        let scene = Scene::new("v2-missing");
        let available = scene.file("", "cgroup.controllers");
        let result = scene
            .cgroup
            .apply(&json!({"memory": {"limit": 100_000_000}}));
        match available.split_whitespace().any(|c| c == "memory") {
            true => assert_eq!(scene.file("", "memory.max"), "99999744"),
            false => assert!(
                result
                    .unwrap_err()
                    .to_string()
                    .contains("memory controller is not available")
            ),
        }
    });
}

#[test]
fn a_cgroup_below_a_threaded_one_is_refused() {
    on_v2(|| {
        let scene = Scene::new("v2-threaded");
        let leaf = scene.leaf("");
        fs::create_dir(leaf.join("threads")).unwrap();
        put(&leaf.join("threads/cgroup.type"), "threaded").unwrap();
        let mut below = choose(&format!("{}/threads/x", scene.cgroup.path()));
        let text = below.create(false).unwrap_err().to_string();
        assert!(text.contains("domain invalid"), "{text}");
        assert!(!leaf.join("threads/x").exists());
    });
}

#[test]
fn a_failed_creation_leaves_nothing() {
    on_v1(|| {
        let scene = Scene::new("v1-failed");
        // The limit of nested cgroups is hit in one hierarchy only by a name that is a file there.
        let mut below = choose(&format!("{}/devices.list/x", scene.cgroup.path()));
        assert!(below.create(false).is_err());
        for (_, leaf) in scene.cgroup.leaves().unwrap().iter() {
            assert!(!leaf.join("devices.list").is_dir(), "{}", leaf.display());
        }
    });
}

#[test]
fn we_never_end_ourselves() {
    if !is_root() {
        return skip("needs root");
    }
    // What a damaged record would say: whole hierarchies, and ways out of ours.
    for path in ["", "/", "//", "/..", "/x/../..", "x"] {
        let mut cgroup = Cgroup::new(
            Driver::Cgroupfs,
            hierarchy::version(),
            path.to_owned(),
            None,
        );
        cgroup.made = true;
        assert!(cgroup.kill_all(0).is_err(), "{path:?}");
        assert!(cgroup.remove().is_err(), "{path:?}");
        assert!(cgroup.freeze().is_err(), "{path:?}");
    }
    // The cgroup that we are in, where that has a name; signal 0 only asks.
    let hierarchies = hierarchy::all(hierarchy::version()).unwrap();
    let table = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = hierarchies
        .iter()
        .filter_map(|h| h.place(&table))
        .find(|own| own != "/");
    let Some(own) = own else {
        return skip("our own cgroup is the root");
    };
    let mut cgroup = Cgroup::new(Driver::Cgroupfs, hierarchy::version(), own, None);
    cgroup.made = true;
    let text = cgroup.kill_all(0).unwrap_err().to_string();
    assert!(text.contains("we are in it"), "{text}");
}

#[test]
fn records_of_other_versions_are_read() {
    let old =
        json!({"driver": "cgroupfs", "version": "v1", "path": "/a", "made": true, "later": [1]});
    let cgroup: Cgroup = serde_json::from_value(old).unwrap();
    assert!(cgroup.writable() && cgroup.path() == "/a" && cgroup.scope().is_none());
    let again: Cgroup = serde_json::from_value(serde_json::to_value(&cgroup).unwrap()).unwrap();
    assert_eq!(again, cgroup);
}

#[test]
fn without_a_cgroup() {
    let cgroup = Cgroup::new(Driver::Disabled, Version::V2, String::new(), None);
    assert!(!cgroup.is_frozen().unwrap());
    assert!(cgroup.freeze().is_err() && cgroup.stats().is_err());
    assert!(cgroup.processes().unwrap().is_empty());
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
    cgroup.kill_all(libc::SIGKILL).unwrap();
    cgroup.remove().unwrap();
    cgroup
        .apply(&json!({"devices": [{"allow": true}]}))
        .unwrap();
    cgroup
        .apply_devices(&[json!({"allow": false})], false)
        .unwrap();
    let text = cgroup
        .update(&json!({"memory": {"limit": 5}}))
        .unwrap_err()
        .to_string();
    assert!(text.contains("linux.resources.memory"), "{text}");
}
