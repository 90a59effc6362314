//! What is left by accidents, and the stranger who got a container's pid.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleet_tests::{Bundle, not_for_peers, run, skip, until};
use serde_json::{Value, json};

use crate::assert_clear;
use crate::census::Census;

fn state_file(bundle: &Bundle) -> std::path::PathBuf {
    bundle.runtime.root.join(&bundle.id).join("state.json")
}

/// A process that is nobody's business.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        let stranger = Command::new("sleep").arg("1000").spawn().expect("spawn");
        // Start times are told in ticks of 10 ms: no container may be as old.
        std::thread::sleep(Duration::from_millis(30));
        Self(stranger)
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().expect("wait").is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The record names a process that was started at another time than the container's.
#[test]
fn a_stranger_with_the_pid_is_left_alone() {
    if not_for_peers("a_stranger_with_the_pid_is_left_alone") {
        return;
    }
    for (made, options) in [("create", &[][..]), ("run", &["-d"])] {
        for cgroup in [None, Some("disabled")] {
            let bundle = Bundle::new("sleep 100");
            bundle.write();
            let mut stranger = Stranger::new();
            let dir = bundle.dir.display().to_string();
            let global: Vec<&str> = cgroup.map_or(vec![], |kind| vec!["--cgroup-manager", kind]);
            let runtime = |args: &[&str]| bundle.runtime.run(&[&global[..], args].concat());
            runtime(&[&[made, "--bundle", &dir], options, &[&bundle.id]].concat()).silent();
            let mut record: Value =
                serde_json::from_slice(&fs::read(state_file(&bundle)).expect("read"))
                    .expect("JSON");
            let first = record["pid"].as_i64().expect("a pid");
            record["pid"] = json!(stranger.0.id());
            fs::write(state_file(&bundle), record.to_string()).expect("write");
            let id = bundle.id.as_str();
            assert_eq!(
                bundle.runtime.state(id)["status"],
                "stopped",
                "{made} {cgroup:?}"
            );
            assert_eq!(bundle.runtime.state(id)["pid"], 0);
            for args in [
                &["kill", id, "KILL"][..],
                &["exec", id, "true"],
                &["start", id],
                &["kill", id, "0"],
            ] {
                assert_ne!(runtime(args).code, 0, "{args:?}");
                assert!(stranger.lives(), "{args:?}");
            }
            drop(runtime(&["pause", id]));
            drop(runtime(&["kill", "--all", id, "TERM"]));
            drop(runtime(&["delete", "--force", id]));
            assert!(stranger.lives(), "{made} {cgroup:?}");
            // Without a cgroup there is nothing else that tells of it.
            if cgroup.is_some() {
                drop(run(Command::new("kill").args(["-9", &first.to_string()])));
            }
            drop(stranger);
            until("the container to go", || {
                !fs::exists(format!("/proc/{first}")).expect("look")
            });
            fleet_tests::assert_nothing_left(&bundle);
        }
    }
}

#[test]
fn damaged_records() {
    if not_for_peers("damaged_records") {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    bundle.remove();
    let census = Census::take();
    let half = |text: &[u8]| text[..text.len() / 2].to_vec();
    type Damage<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let damages: [(&str, Damage<'_>); 5] = [
        ("empty", &|_| Vec::new()),
        ("half", &half),
        ("zeros", &|text| vec![0; text.len()]),
        ("another's", &|_| b"{\"version\": 1}".to_vec()),
        ("deep", &|_| "[".repeat(100_000).into_bytes()),
    ];
    for (name, damage) in damages {
        for made in [&["create"][..], &["run", "-d"]] {
            bundle.make(made[0], &made[1..]).silent();
            let good = fs::read(state_file(&bundle)).expect("read");
            fs::write(state_file(&bundle), damage(&good)).expect("write");
            let context = format!("{name} after {}", made[0]);
            for verb in ["state", "start", "delete", "ps", "pause"] {
                let told = bundle.runtime.run(&[verb, &bundle.id]);
                assert_clear(&told, 1, &format!("{context}: {verb}"));
                assert!(told.stderr.contains("damaged"), "{told:#?}");
            }
            let list = bundle.runtime.run(&["list", "--format", "json"]);
            assert_eq!((list.code, list.stdout.as_str()), (0, "[]\n"), "{list:#?}");
            assert!(list.stderr.contains("damaged"), "{list:#?}");
            bundle.remove();
            census.assert_nothing_new(&context);
        }
    }
}

#[test]
fn a_directory_without_a_record() {
    if not_for_peers("a_directory_without_a_record") {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    let dir = bundle.runtime.root.join(&bundle.id);
    fs::create_dir_all(&dir).expect("make");
    fs::write(dir.join("state.json.4711.tmp"), "{").expect("write");
    for args in [
        &["state", &bundle.id][..],
        &["delete", &bundle.id],
        &["start", &bundle.id],
    ] {
        let told = bundle.runtime.run(args);
        assert_clear(&told, 1, args[0]);
        assert!(told.stderr.contains("does not exist"), "{told:#?}");
    }
    let told = bundle.make("create", &[]);
    assert_clear(&told, 1, "create");
    assert!(told.stderr.contains("already exists"), "{told:#?}");
    assert_eq!(bundle.runtime.run(&["list", "--format", "json"]).code, 0);
    bundle.remove();
    bundle.make("create", &[]).silent();
}

/// Files that nobody expects in the state root do no harm.
#[test]
fn strange_entries_of_the_state_root() {
    if not_for_peers("strange_entries_of_the_state_root") {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    let root = &bundle.runtime.root;
    fs::create_dir_all(root.join(".hidden")).expect("make");
    fs::write(root.join("file"), "").expect("write");
    std::os::unix::fs::symlink("/etc", root.join("link")).expect("link");
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRUSR).expect("mkfifo");
    fs::create_dir(root.join("odd")).expect("make");
    nix::unistd::mkfifo(&root.join("odd/state.json"), nix::sys::stat::Mode::S_IRUSR)
        .expect("mkfifo");
    bundle.start();
    let list = bundle.runtime.run(&["list", "--format", "json"]);
    assert_eq!(list.code, 0, "{list:#?}");
    let all: Vec<Value> = serde_json::from_str(&list.stdout).expect("JSON");
    assert_eq!(all.len(), 1, "{all:?}");
    for id in ["file", "link", "fifo", "odd"] {
        assert_ne!(bundle.runtime.run(&["state", id]).code, 0, "{id}");
        assert_ne!(bundle.runtime.run(&["delete", id]).code, 0, "{id}");
    }
    drop(bundle.runtime.run(&["delete", "--force", "link"]));
    assert!(
        fs::exists("/etc/passwd").expect("look"),
        "what a link leads to stays"
    );
}

/// The first process is killed while it waits for `start`.
#[test]
fn the_waiting_process_is_killed() {
    let bundle = Bundle::new("sleep 100");
    bundle.make("create", &[]).silent();
    let pid = bundle.runtime.state(&bundle.id)["pid"].to_string();
    run(Command::new("kill").args(["-9", &pid])).silent();
    bundle.becomes("stopped");
    drop(bundle.runtime.run(&["start", &bundle.id]).fails("stopped"));
    bundle.runtime.run(&["delete", &bundle.id]).silent();
    fleet_tests::assert_nothing_left(&bundle);
}

/// Without conmon a container goes on, and can be taken away.
#[test]
fn conmon_is_killed() {
    if not_for_peers("conmon_is_killed") {
        return;
    }
    if run(Command::new("conmon").arg("--version")).code != 0 {
        skip("conmon_is_killed", "conmon is not installed");
        return;
    }
    let bundle = Bundle::new("while :; do echo line; sleep 0.05; done");
    bundle.write();
    let file = |name: &str| bundle.dir.join(name).display().to_string();
    let mut conmon = Command::new("conmon")
        .args([
            "--cid", &bundle.id, "--cuuid", &bundle.id, "--name", &bundle.id,
        ])
        .arg("--runtime")
        .arg(&bundle.runtime.binary)
        .args(["--runtime-arg", "--root", "--runtime-arg"])
        .arg(&bundle.runtime.root)
        .args(["--bundle", &bundle.dir.display().to_string()])
        .args([
            "--container-pidfile",
            &file("pid"),
            "--conmon-pidfile",
            &file("conmon.pid"),
        ])
        .args([
            "--log-path",
            &file("log"),
            "--exit-dir",
            &bundle.dir.display().to_string(),
        ])
        .args(["--socket-dir-path", &bundle.dir.display().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn");
    drop(conmon.wait());
    until("the container", || fs::exists(file("pid")).expect("look"));
    bundle.runtime.run(&["start", &bundle.id]).silent();
    until("output", || {
        fs::read_to_string(file("log")).is_ok_and(|text| text.contains("line"))
    });
    let pid = fs::read_to_string(file("conmon.pid")).expect("read");
    run(Command::new("kill").args(["-9", pid.trim()])).silent();
    until("conmon to go", || {
        !fs::exists(format!("/proc/{}", pid.trim())).expect("look")
    });
    assert_eq!(bundle.runtime.run(&["state", &bundle.id]).code, 0);
    bundle.remove();
    fleet_tests::assert_nothing_left(&bundle);
}
