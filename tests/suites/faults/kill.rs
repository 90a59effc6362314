//! The runtime is killed with SIGKILL before each system call that changes something, and so is each of the
//! short-lived processes that it makes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use fleet_tests::tracer::{self, Fault, Spot};
use fleet_tests::{Bundle, Output, not_for_peers, run, skip, until};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::census::Census;
use crate::steps;

/// What the container's program does: it says that it ran, and stays for longer than all steps take.
const SCRIPT: &str = "echo x >> /ran; exec sleep 10000";

fn bundle() -> Bundle {
    Bundle::new(SCRIPT).set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}),
    )
}

fn create_args(bundle: &Bundle) -> Vec<String> {
    let dir = bundle.dir.display();
    [
        "create",
        "--pid-file",
        &format!("{dir}/pid"),
        "--bundle",
        &dir.to_string(),
        &bundle.id,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn traced(bundle: &Bundle, args: &[String], fault: Option<Spot>) -> tracer::Trace {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    tracer::run(
        &bundle.runtime.command(&args),
        fault.map(|spot| (spot, Fault::Kill)),
    )
}

/// `state` and `list` answer, or say in one line what is wrong with this container.
#[track_caller]
fn answers(bundle: &Bundle, context: &str) -> Option<Value> {
    let state = bundle.runtime.run(&["state", &bundle.id]);
    let list = bundle.runtime.run(&["list", "--format", "json"]);
    assert_eq!(list.code, 0, "{context}: {list:#?}");
    let listed: Vec<Value> = serde_json::from_str(&list.stdout).expect("list is JSON");
    if state.code == 0 {
        assert_eq!(listed.len(), 1, "{context}: {listed:?}");
        return Some(serde_json::from_str(&state.stdout).expect("state is JSON"));
    }
    one_line(&state, context);
    assert!(state.stderr.contains(&bundle.id), "{context}: {state:#?}");
    if bundle.runtime.root.join(&bundle.id).exists() {
        assert!(state.stderr.contains("hint: "), "{context}: {state:#?}");
    }
    None
}

#[track_caller]
fn one_line(output: &Output, context: &str) {
    assert_eq!(
        output.stderr.trim_end().lines().count(),
        1,
        "{context}: {output:#?}"
    );
    assert!(
        output.stderr.starts_with("fleet-nvidia: "),
        "{context}: {output:#?}"
    );
}

/// `delete --force` takes all away, and the id can be used again.
#[track_caller]
fn recovers(bundle: &Bundle, before: &Census, context: &str) {
    let deleted = bundle.runtime.run(&["delete", "--force", &bundle.id]);
    assert!(
        deleted.code == 0 && deleted.stderr.is_empty(),
        "{context}: {deleted:#?}"
    );
    drop(fs::remove_file(bundle.dir.join("pid")));
    before.assert_nothing_new(context);
    let again = bundle.make("create", &[]);
    assert_eq!(again.code, 0, "{context}: {again:#?}");
    let deleted = bundle.runtime.run(&["delete", "--force", &bundle.id]);
    assert_eq!(deleted.code, 0, "{context}: {deleted:#?}");
}

/// A bundle that was used once, so that caches and directories that stay are there, and what there is then.
fn settled() -> (Bundle, Census) {
    let bundle = bundle();
    bundle.make("run", &["-d"]).silent();
    until("the program", || ran(&bundle) == 1);
    bundle.remove();
    let census = Census::take();
    (bundle, census)
}

fn ran(bundle: &Bundle) -> usize {
    let text = fs::read_to_string(bundle.dir.join("rootfs/ran")).unwrap_or_default();
    text.lines().count()
}

/// Runs `each` for the chosen steps of a command; most of them must have been met.
fn every_step(
    bundle: &Bundle,
    args: &[String],
    before: impl Fn(),
    after: impl Fn(&tracer::Trace, &str),
) {
    before();
    let whole = traced(bundle, args, None);
    assert_eq!(whole.output.code, 0, "{:#?}", whole.output);
    after(&whole, "not killed");
    let spots = steps::sample(steps::changing(&whole.calls), 40);
    assert!(spots.len() >= 5, "{} steps", spots.len());
    let (mut met, mut failed) = (0, Vec::new());
    for spot in &spots {
        let step = || {
            before();
            let trace = traced(bundle, args, Some(*spot));
            let call = trace.hit.map(|call| call.number);
            after(
                &trace,
                &format!("{} killed at {spot:?}, call {call:?}", args.join(" ")),
            );
            trace.hit.is_some()
        };
        // All that fail are told, not the first alone.
        match catch_unwind(AssertUnwindSafe(step)) {
            Ok(hit) => met += usize::from(hit),
            Err(_) => failed.push(spot),
        }
        assert!(
            failed.len() < 5,
            "{} at {failed:?} and maybe more",
            args.join(" ")
        );
    }
    assert!(failed.is_empty(), "{} at {failed:?}", args.join(" "));
    println!("{}: {met} of {} steps", args.join(" "), spots.len());
    assert!(
        met * 3 >= spots.len(),
        "only {met} of {} steps were met",
        spots.len()
    );
}

#[test]
fn create_killed_anywhere() {
    if not_for_peers("create_killed_anywhere") {
        return;
    }
    creation_killed(&[]);
}

/// Nothing but its own doing takes a process away that has no cgroup and was not written down.
#[test]
fn create_without_cgroup_killed_anywhere() {
    if not_for_peers("create_without_cgroup_killed_anywhere") {
        return;
    }
    creation_killed(&["--cgroup-manager".to_owned(), "disabled".to_owned()]);
}

fn creation_killed(global: &[String]) {
    let (bundle, census) = settled();
    every_step(
        &bundle,
        &[global, &create_args(&bundle)].concat(),
        || {},
        |trace, context| {
            match trace.hit.map(|call| call.spot.process) {
                Some(0) => assert_eq!(trace.output.code, 137, "{context}: {:#?}", trace.output),
                // One of its processes was killed: that is an error like any other, and undone.
                Some(_) if trace.output.code != 0 => {
                    one_line(&trace.output, context);
                    drop(fs::remove_file(bundle.dir.join("pid")));
                    census.assert_nothing_new(context);
                }
                _ => {}
            }
            if let Some(state) = answers(&bundle, context) {
                let status = state["status"].as_str().unwrap_or_default();
                assert!(
                    ["creating", "created", "stopped"].contains(&status),
                    "{context}: {state}"
                );
            }
            recovers(&bundle, &census, context);
        },
    );
}

#[test]
fn start_killed_anywhere() {
    if not_for_peers("start_killed_anywhere") {
        return;
    }
    let (bundle, census) = settled();
    let args = ["start".to_owned(), bundle.id.clone()];
    every_step(
        &bundle,
        &args,
        || {
            drop(fs::remove_file(bundle.dir.join("rootfs/ran")));
            bundle.make("create", &[]).silent();
        },
        |_, context| {
            let state = answers(&bundle, context).expect("it is there");
            // Either it can still be started, or it was.
            if state["status"] == "created" {
                let again = bundle.runtime.run(&args.each_ref().map(String::as_str));
                assert!(
                    again.code == 0 || again.stderr.contains("it is running"),
                    "{context}: {again:#?}"
                );
            } else {
                assert_eq!(state["status"], "running", "{context}");
            }
            until(&format!("{context}: the program"), || ran(&bundle) == 1);
            bundle.becomes("running");
            recovers(&bundle, &census, context);
        },
    );
}

#[test]
fn exec_killed_anywhere() {
    if not_for_peers("exec_killed_anywhere") {
        return;
    }
    let (bundle, census) = settled();
    let file = bundle.dir.join("process.json");
    let process = json!({"args": ["true"], "cwd": "/", "env": ["PATH=/bin"]});
    fs::write(&file, process.to_string()).expect("write");
    bundle.make("run", &["-d"]).silent();
    let args = ["exec", "--process", &file.display().to_string(), &bundle.id].map(str::to_owned);
    until("the program in the shell's place", || {
        let listed = bundle.runtime.run(&["ps", &bundle.id]).ok();
        listed.contains(" sleep 100") && !listed.contains("echo")
    });
    let with_container = Census::take();
    every_step(
        &bundle,
        &args,
        || {},
        |_, context| {
            let state = answers(&bundle, context).expect("it is there");
            assert_eq!(state["status"], "running", "{context}");
            assert_eq!(
                bundle.exec(&[], &["sh", "-c", "exit 7"]).code,
                7,
                "{context}"
            );
            assert_eq!(bundle.exec(&[], &["true"]).code, 0, "{context}");
            with_container.assert_nothing_new(context);
        },
    );
    drop(fs::remove_file(&file));
    recovers(&bundle, &census, "after all");
}

/// A cgroup of a plain user's own, in which this process is while it lives.
struct Delegated {
    path: String,
    dir: PathBuf,
    before: PathBuf,
}

impl Delegated {
    /// Enters; the cgroup2 hierarchy is the only one that this thread sees from here on.
    fn enter() -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let unified = root.join("unified");
        if unified.join("cgroup.procs").exists() {
            unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
            let bind = MsFlags::MS_BIND;
            mount(Some(&unified), root, None::<&str>, bind, None::<&str>).expect("bind");
        } else if !root.join("cgroup.controllers").exists() {
            return None;
        }
        let path = fleet_tests::cgroup_path("plain");
        let dir = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(dir.join("self")).expect("mkdir");
        let chown = run(Command::new("chown").args(["-R", "65534:65534"]).arg(&dir));
        assert_eq!(chown.code, 0, "{chown:#?}");
        let table = fs::read_to_string("/proc/self/cgroup").expect("read");
        let own = table.lines().find_map(|line| line.strip_prefix("0::"));
        let before = root.join(own.expect("a cgroup").trim_start_matches('/'));
        fs::write(dir.join("self/cgroup.procs"), "0").expect("enter");
        Some(Self { path, dir, before })
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        drop(fs::write(self.before.join("cgroup.procs"), "0"));
        drop(fs::remove_dir(self.dir.join("self")));
        drop(fs::remove_dir(&self.dir));
    }
}

/// His way into the container takes one process more, which may be killed when the new one is there already.
#[test]
fn exec_of_a_plain_user_killed_anywhere() {
    const NAME: &str = "exec_of_a_plain_user_killed_anywhere";
    if not_for_peers(NAME) {
        return;
    }
    let Some(cgroup) = Delegated::enter() else {
        return skip(NAME, "the machine has no cgroup2 file system");
    };
    let group = format!("{}/c", cgroup.path);
    let bundle = Bundle::of_plain_user(SCRIPT).set("/linux/cgroupsPath", json!(group));
    bundle.start();
    until("the program in the shell's place", || {
        let listed = bundle.runtime.run(&["ps", &bundle.id]).ok();
        ran(&bundle) == 1 && listed.contains(" sleep 100") && !listed.contains("echo")
    });
    let done = bundle.dir.join("rootfs/done");
    let file = bundle.dir.join("process.json").display().to_string();
    let script = "cat /proc/self/oom_score_adj /proc/self/cgroup > /done";
    let process =
        json!({"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 700});
    fs::write(&file, process.to_string()).expect("write");
    // It stays, since a program that outlives a killed runtime may write it late.
    fs::write(&done, "").expect("write");
    fs::set_permissions(&done, fs::Permissions::from_mode(0o666)).expect("chmod");
    let with_container = Census::take();
    every_step(
        &bundle,
        &["exec", "--process", &file, &bundle.id].map(str::to_owned),
        || fs::write(&done, "").expect("empty"),
        |trace, context| {
            match trace.hit.map(|call| call.spot.process) {
                Some(0) => assert_eq!(trace.output.code, 137, "{context}: {:#?}", trace.output),
                Some(_) if trace.output.code != 0 => {
                    // One that is killed when nothing but the execution of its program is left is a program that was.
                    if trace.output.code != 137 {
                        one_line(&trace.output, context);
                    }
                    // Whoever is told of a failure may count on it: nothing runs, now or later.
                    with_container.assert_no_process_now(context);
                    let told = fs::read_to_string(&done).expect("read");
                    assert_eq!(told, "", "{context}: the program ran");
                }
                _ => {
                    assert_eq!(trace.output.code, 0, "{context}: {:#?}", trace.output);
                    let told = fs::read_to_string(&done).unwrap_or_default();
                    let own = format!("0::{group}");
                    assert_eq!(told.lines().next(), Some("700"), "{context}: {told}");
                    assert!(told.lines().any(|line| line == own), "{context}: {told}");
                }
            }
            with_container.assert_nothing_new(context);
            let exit = bundle.exec(&[], &["sh", "-c", "exit 7"]);
            assert_eq!(exit.code, 7, "{context}: {exit:#?}");
            with_container.assert_nothing_new(context);
        },
    );
    bundle.remove();
}

#[test]
fn delete_killed_anywhere() {
    if not_for_peers("delete_killed_anywhere") {
        return;
    }
    let (bundle, census) = settled();
    let args = ["delete", "--force", &bundle.id].map(str::to_owned);
    every_step(
        &bundle,
        &args,
        || bundle.make("run", &["-d"]).silent(),
        |_, context| {
            answers(&bundle, context);
            recovers(&bundle, &census, context);
        },
    );
}

#[test]
fn pause_killed_anywhere() {
    if not_for_peers("pause_killed_anywhere") {
        return;
    }
    let (bundle, census) = settled();
    let args = ["pause", &bundle.id].map(str::to_owned);
    bundle.make("run", &["-d"]).silent();
    let whole = traced(&bundle, &args, None);
    assert_eq!(whole.output.code, 0, "{:#?}", whole.output);
    recovers(&bundle, &census, "not killed");
    for spot in steps::sample(steps::changing(&whole.calls), 10) {
        bundle.make("run", &["-d"]).silent();
        let _killed = traced(&bundle, &args, Some(spot));
        let context = format!("pause killed at {spot:?}");
        let state = answers(&bundle, &context).expect("it is there");
        assert!(
            ["running", "paused"].contains(&state["status"].as_str().unwrap_or_default()),
            "{context}: {state}"
        );
        recovers(&bundle, &census, &context);
    }
}
