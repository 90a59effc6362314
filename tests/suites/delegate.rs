//! Containers that crun or runc runs, because the configuration says so: they stay with that runtime for life. The
//! lifecycle suite runs over this as well, with `FLEET_DELEGATE` (see the Makefile).
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fleet_tests::{Bundle, Output, assert_nothing_left, notifier, path, run, skip, unique, until};
use serde_json::{Value, json};

const PEERS: [&str; 2] = ["crun", "runc"];

/// crun refuses hybrid cgroups: on such a machine the suite runs with `tests/isolate --cgroup v1`.
fn peers(test: &str) -> Vec<&'static str> {
    let hybrid = Path::new("/sys/fs/cgroup/unified").is_dir()
        && fs::read_to_string("/proc/self/mountinfo")
            .expect("mountinfo")
            .contains(" /sys/fs/cgroup/unified ");
    if hybrid {
        skip(
            test,
            "crun needs cgroups of one version; it runs in the v1 view of them",
        );
        return vec!["runc"];
    }
    PEERS.to_vec()
}

/// A configuration file that hands containers to `runtimes`.
fn config(runtimes: &Value) -> PathBuf {
    let file = PathBuf::from("/run")
        .join(unique("delegate"))
        .with_extension("toml");
    fs::write(&file, format!("runtimes = {runtimes}\n")).expect("write");
    file
}

/// A bundle whose runtime delegates to `peer`.
fn bundle(peer: &str, script: &str) -> Bundle {
    let mut bundle = Bundle::new(script);
    bundle.runtime.config = Some(config(&json!([peer])));
    bundle
}

fn record(bundle: &Bundle) -> Value {
    let file = bundle.runtime.root.join(&bundle.id).join("state.json");
    serde_json::from_str(&fs::read_to_string(file).expect("a record")).expect("JSON")
}

/// Asks the other runtime itself, past this one.
fn peer(bundle: &Bundle, peer: &str, args: &[&str]) -> Output {
    let root = bundle.runtime.root.join(format!(".{peer}"));
    run(Command::new(peer).arg("--root").arg(root).args(args))
}

fn nothing_is_left(bundle: &Bundle) {
    assert_nothing_left(bundle);
    let left: Vec<_> = fs::read_dir(&bundle.dir)
        .expect("list")
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(".fleet-nvidia")
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_whole_life_is_the_other_runtimes() {
    for name in peers("the_whole_life_is_the_other_runtimes") {
        let bundle = bundle(name, "trap 'exit 3' TERM; while :; do sleep 0.05; done")
            .set("/annotations", json!({"kept": "yes"}));
        let pid_file = bundle.dir.join("pid");
        bundle
            .make("create", &["--pid-file", pid_file.to_str().expect("text")])
            .silent();
        let state = bundle.runtime.state(&bundle.id);
        assert_eq!(state["status"], "created", "{name}");
        assert_eq!(
            state["bundle"],
            bundle.dir.to_str().expect("text"),
            "{name}"
        );
        assert_eq!(state["annotations"]["kept"], "yes", "{name}");
        assert_eq!(
            fs::read_to_string(&pid_file).expect("a pid file"),
            state["pid"].to_string()
        );
        let program = record(&bundle)["delegate"]["program"].clone();
        assert!(
            program
                .as_str()
                .is_some_and(|path| path.starts_with('/') && path.ends_with(name)),
            "{program}"
        );
        assert!(
            peer(&bundle, name, &["list", "-q"])
                .ok()
                .contains(&bundle.id)
        );
        // The setting no longer counts: the container's record does.
        let call = |args: &[&str]| {
            let mut command = Command::new(&bundle.runtime.binary);
            run(command.arg("--root").arg(&bundle.runtime.root).args(args))
        };
        call(&["start", &bundle.id]).silent();
        assert_eq!(bundle.runtime.state(&bundle.id)["status"], "running");
        let list = call(&["list", "--format", "json"]).ok();
        let list: Value = serde_json::from_str(&list).expect("JSON");
        assert_eq!(list[0]["status"], "running");
        assert!(call(&["list"]).ok().contains("running"));
        assert_eq!(
            call(&["exec", &bundle.id, "sh", "-c", "echo in; exit 4"]).code,
            4
        );
        let pids: Vec<i64> =
            serde_json::from_str(&call(&["ps", "--format", "json", &bundle.id]).ok())
                .expect("JSON");
        assert!(pids.contains(&state["pid"].as_i64().expect("a pid")));
        call(&["pause", &bundle.id]).silent();
        assert_eq!(bundle.runtime.state(&bundle.id)["status"], "paused");
        call(&["resume", &bundle.id]).silent();
        call(&["update", "--pids-limit", "99", &bundle.id]).silent();
        let limit = fleet_tests::cgroup_dirs(&bundle.cgroup())
            .into_iter()
            .find_map(|dir| fs::read_to_string(dir.join("pids.max")).ok());
        assert_eq!(limit.as_deref(), Some("99\n"), "{name}");
        let events = call(&["events", "--stats", &bundle.id]);
        match name {
            "crun" => drop(events.fails("was made by crun, which has no `events`")),
            _ => assert!(events.ok().contains("\"stats\"")),
        }
        assert_ne!(call(&["delete", &bundle.id]).code, 0, "it runs");
        call(&["kill", &bundle.id, "TERM"]).silent();
        bundle.becomes("stopped");
        assert_eq!(bundle.runtime.state(&bundle.id)["pid"], 0);
        drop(call(&["kill", &bundle.id, "9"]).fails("no such process"));
        call(&["delete", &bundle.id]).silent();
        assert!(
            !peer(&bundle, name, &["list", "-q"])
                .ok()
                .contains(&bundle.id)
        );
        nothing_is_left(&bundle);
        drop(call(&["state", &bundle.id]).fails("does not exist"));
    }
}

#[test]
fn a_native_container_stays_with_this_runtime() {
    let mut bundle = Bundle::new("sleep 100");
    bundle.start();
    bundle.runtime.config = Some(config(&json!(PEERS)));
    assert!(record(&bundle).get("delegate").is_none());
    assert_eq!(bundle.runtime.state(&bundle.id)["status"], "running");
    assert_eq!(bundle.exec(&[], &["echo", "in"]).ok(), "in\n");
    bundle.remove();
    assert_nothing_left(&bundle);
}

#[test]
fn run_in_the_foreground() {
    for name in peers("run_in_the_foreground") {
        let bundle = bundle(name, "echo out; echo err >&2; exit 7");
        let out = bundle.run();
        assert_eq!(
            (out.code, out.stdout.as_str(), out.stderr.as_str()),
            (7, "out\n", "err\n")
        );
        nothing_is_left(&bundle);

        let bundle = self::bundle(
            name,
            "trap 'exit 9' TERM; touch /up; while :; do sleep 0.05; done",
        );
        bundle.write();
        let mut child = bundle
            .runtime
            .command(&[
                "run",
                "--bundle",
                bundle.dir.to_str().expect("text"),
                &bundle.id,
            ])
            .stdin(Stdio::null())
            .spawn()
            .expect("run");
        until("the program to run", || {
            bundle.dir.join("rootfs/up").exists()
        });
        let pid = i32::try_from(child.id()).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM)
            .expect("kill");
        assert_eq!(child.wait().expect("wait").code(), Some(9), "{name}");
        nothing_is_left(&bundle);
    }
}

#[test]
fn run_and_exec_with_a_terminal() {
    for name in peers("run_and_exec_with_a_terminal") {
        let under_terminal = |bundle: &Bundle, args: &[&str]| {
            let command = bundle.runtime.command(args);
            let words: Vec<_> = [command.get_program()]
                .into_iter()
                .chain(command.get_args())
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            run(Command::new("script").args(["-qec", &words.join(" "), "/dev/null"]))
        };
        let bundle = self::bundle(name, "test -t 0 && test -t 1 && echo a-terminal; exit 6")
            .set("/process/terminal", json!(true));
        bundle.write();
        let dir = bundle.dir.to_str().expect("text");
        let out = under_terminal(&bundle, &["run", "--bundle", dir, &bundle.id]);
        assert!(
            out.code == 6 && out.stdout.contains("a-terminal"),
            "{out:#?}"
        );
        nothing_is_left(&bundle);

        let bundle = self::bundle(name, "sleep 100");
        bundle.start();
        let out = under_terminal(&bundle, &["exec", "--tty", &bundle.id, "tty"]);
        assert!(out.stdout.contains("/dev/pts/"), "{out:#?}");
    }
}

#[test]
fn errors_are_one_line_and_one_record() {
    for name in peers("errors_are_one_line_and_one_record") {
        let log = format!("/run/{}", unique("log"));
        let logged = |bundle: &Bundle, args: &[&str]| {
            drop(fs::remove_file(&log));
            let options = ["--log", &log, "--log-format", "json"];
            let out = bundle.runtime.run(&[&options[..], args].concat());
            assert_ne!(out.code, 0, "{out:#?}");
            assert_eq!(out.stderr.trim_end().lines().count(), 1, "{out:#?}");
            let text = fs::read_to_string(&log).expect("a log");
            let record: Value = serde_json::from_str(&text).expect("one object");
            assert_eq!(record["level"], "error");
            record["msg"].as_str().expect("text").to_owned()
        };
        let bundle = self::bundle(name, "true").set("/process/args", json!(["/no/such/program"]));
        bundle.write();
        let dir = bundle.dir.to_str().expect("text");
        let said = logged(&bundle, &["create", "--bundle", dir, &bundle.id]);
        assert!(
            said.starts_with(&format!("{name}: ")) && said.contains("/no/such/program"),
            "{said}"
        );
        assert!(
            said.to_lowercase().contains("no such file or directory"),
            "{said}"
        );
        nothing_is_left(&bundle);

        let bundle = self::bundle(name, "sleep 100");
        bundle.start();
        let said = logged(&bundle, &["start", &bundle.id]);
        assert!(said.starts_with(&format!("{name}: ")), "{said}");
        let said = logged(&bundle, &["exec", &bundle.id, "/no/such/program"]);
        assert!(said.contains("/no/such/program"), "{said}");
    }
}

#[test]
fn only_fixed_directories_and_absolute_paths_count() {
    for name in peers("only_fixed_directories_and_absolute_paths_count") {
        let trap = PathBuf::from("/run").join(unique("trap"));
        fs::create_dir_all(&trap).expect("mkdir");
        fs::write(trap.join(name), "#!/bin/sh\ntouch /run/trapped\nexit 1\n").expect("write");
        fs::set_permissions(trap.join(name), fs::Permissions::from_mode(0o755)).expect("chmod");
        let bundle = self::bundle(name, "true");
        bundle.write();
        let mut command = bundle.runtime.command(&["run", &bundle.id]);
        command
            .env("PATH", &trap)
            .current_dir(&trap)
            .args(["--bundle"]);
        let mut command = bundle.runtime.command(&[
            "run",
            "--bundle",
            bundle.dir.to_str().expect("text"),
            &bundle.id,
        ]);
        drop(run(command.env("PATH", &trap).current_dir(&trap)).ok());
        assert!(!Path::new("/run/trapped").exists());
    }
    for (runtimes, word) in [
        (
            json!(["no-such-runtime"]),
            "none of the runtimes no-such-runtime is installed",
        ),
        (
            json!(["../bin/crun"]),
            "neither a program's name nor an absolute path",
        ),
        (json!([path("RUNTIME_UNDER_TEST")]), "this program itself"),
    ] {
        let mut bundle = Bundle::new("true");
        bundle.runtime.config = Some(config(&runtimes));
        drop(bundle.run().fails(word));
        assert_nothing_left(&bundle);
    }
}

/// A runtime that is upgraded away under its containers.
#[test]
fn a_runtime_that_has_gone_is_named_and_can_be_cleaned_up() {
    for name in peers("a_runtime_that_has_gone_is_named_and_can_be_cleaned_up") {
        let copy = PathBuf::from("/run").join(unique("own")).join(name);
        fs::create_dir_all(copy.parent().expect("a directory")).expect("mkdir");
        let found = run(Command::new("sh").args(["-c", &format!("command -v {name}")])).ok();
        fs::copy(found.trim(), &copy).expect("copy");
        let mut bundle = Bundle::new("sleep 100");
        bundle.runtime.config = Some(config(&json!([copy])));
        bundle.start();
        let pid = bundle.runtime.state(&bundle.id)["pid"].to_string();
        fs::remove_file(&copy).expect("remove");
        for args in [&["state"][..], &["kill"], &["pause"], &["ps"], &["exec"]] {
            let out = bundle
                .runtime
                .run(&[args, &[&bundle.id, "TERM"][..args.len().min(1)]].concat());
            let out = if args == ["exec"] {
                bundle.exec(&[], &["true"])
            } else {
                out
            };
            let out = out.fails(&format!(
                "the runtime `{}`, which made this container",
                copy.display()
            ));
            assert!(
                !out.stderr.to_lowercase().contains("no such file"),
                "{out:?}"
            );
        }
        assert!(bundle.runtime.run(&["list"]).ok().contains("running"));
        bundle.remove();
        until("the process to end", || {
            !Path::new("/proc").join(&pid).exists()
        });
        assert!(!bundle.runtime.root.join(&bundle.id).exists());
        // Its cgroup was the other runtime's to take away.
        for dir in fleet_tests::cgroup_dirs(&bundle.cgroup()) {
            drop(fs::remove_dir(dir));
        }
    }
}

/// CRI-O's default gives every handler one state root.
#[test]
fn a_container_that_another_runtime_made_is_refused_by_name() {
    for name in peers("a_container_that_another_runtime_made_is_refused_by_name") {
        let bundle = Bundle::new("sleep 100");
        bundle.write();
        let theirs = |args: &[&str]| {
            run(Command::new(name)
                .arg("--root")
                .arg(&bundle.runtime.root)
                .args(args))
        };
        let dir = bundle.dir.to_str().expect("text");
        drop(theirs(&["run", "-d", "--bundle", dir, &bundle.id]).ok());
        for args in [
            &["state"][..],
            &["start"],
            &["kill"],
            &["delete"],
            &["delete", "--force"],
            &["pause"],
        ] {
            let out = bundle.runtime.run(&[args, &[&bundle.id]].concat());
            drop(out.fails(&format!("was made by {name}, not by this runtime")));
        }
        let state: Value =
            serde_json::from_str(&theirs(&["state", &bundle.id]).ok()).expect("JSON");
        assert_eq!(state["status"], "running", "{name}");
        drop(theirs(&["delete", "--force", &bundle.id]).ok());
    }
}

#[test]
fn a_service_manager_hears_through_it() {
    for name in peers("a_service_manager_hears_through_it") {
        let address = format!("/run/{}", unique("manager"));
        let manager = std::os::unix::net::UnixDatagram::bind(&address).expect("bind");
        let patience = Some(Duration::from_secs(30));
        manager.set_read_timeout(patience).expect("a timeout");
        let bundle = bundle(name, "say READY=1; sleep 100");
        fs::copy(notifier(), bundle.dir.join("rootfs/bin/say")).expect("copy");
        bundle.write();
        let dir = bundle.dir.to_str().expect("text").to_owned();
        let mut command = bundle
            .runtime
            .command(&["run", "--detach", "--bundle", &dir, &bundle.id]);
        command.env("NOTIFY_SOCKET", &address);
        let started = std::thread::spawn(move || run(&mut command));
        let mut bytes = [0; 64];
        for want in ["READY=1", "MAINPID=", "BARRIER=1"] {
            let length = manager.recv(&mut bytes).expect("a message");
            let said = String::from_utf8_lossy(&bytes[..length]);
            assert!(said.starts_with(want), "{said}");
        }
        started.join().expect("run").silent();
    }
}

#[test]
fn preserved_descriptors_and_relative_paths() {
    for name in peers("preserved_descriptors_and_relative_paths") {
        let bundle =
            bundle(name, "cat <&3; cat /data/file").mount("/data", "bind", "data", &["bind", "ro"]);
        fs::create_dir_all(bundle.dir.join("data")).expect("mkdir");
        fs::write(bundle.dir.join("data/file"), "bound\n").expect("write");
        bundle.write();
        let command = bundle
            .runtime
            .command(&["run", "--preserve-fds", "1", &bundle.id]);
        let words: Vec<_> = [command.get_program()]
            .into_iter()
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        let script = format!("exec {} 3</run/given", words.join(" "));
        fs::write("/run/given", "given\n").expect("write");
        let out = run(Command::new("sh")
            .args(["-c", &script])
            .current_dir(&bundle.dir));
        assert_eq!(out.ok(), "given\nbound\n", "{name}");
    }
}

/// The bundle is on a disk, the state root is not.
#[test]
fn what_a_reboot_left_in_the_bundle_is_no_obstacle() {
    for name in peers("what_a_reboot_left_in_the_bundle_is_no_obstacle") {
        let bundle = bundle(name, "echo again");
        let left = bundle.dir.join(format!(".fleet-nvidia-{}", bundle.id));
        fs::create_dir_all(&left).expect("mkdir");
        fs::write(left.join("config.json"), "{}").expect("write");
        assert_eq!(bundle.run().ok(), "again\n");
        nothing_is_left(&bundle);
    }
}
