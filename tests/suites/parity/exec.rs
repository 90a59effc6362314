//! `exec` gets what the container has.

use super::*;

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
    bundle.becomes("running");
}

#[test]
fn processes_run_on_the_containers_cpus() {
    let all = fs::read_to_string("/sys/devices/system/cpu/online").expect("online CPUs");
    if all.trim() == "0" {
        skip(
            "processes_run_on_the_containers_cpus",
            "the machine has one CPU",
        );
        return;
    }
    if not_for_peers("processes_run_on_the_containers_cpus") {
        return;
    }
    let bundle = Bundle::new("cat /proc/self/status > /status; sleep 100");
    bundle.write();
    let tied = |args: &[&str]| {
        let mut command = Command::new("taskset");
        command
            .args(["--cpu-list", "0"])
            .arg(&bundle.runtime.binary);
        command.arg("--root").arg(&bundle.runtime.root).args(args);
        run(&mut command).ok()
    };
    let dir = bundle.dir.display().to_string();
    drop(tied(&["run", "-d", "--bundle", &dir, &bundle.id]));
    let status = bundle.dir.join("rootfs/status");
    until("the program", || {
        fs::read_to_string(&status).is_ok_and(|text| text.contains("nonvoluntary"))
    });
    let first = fs::read_to_string(&status).expect("read");
    let text = tied(&["exec", &bundle.id, "cat", "/proc/self/status"]);
    for text in [first, text] {
        assert_eq!(field(&text, "Cpus_allowed_list:"), all.trim());
    }
}

/// The owner alone may execute it, and the user has the capability that overrides that.
#[test]
fn a_program_is_executed_with_the_capabilities_that_it_will_have() {
    let program = |caps: Value| {
        let bundle = Bundle::new("true")
            .set("/process/args", json!(["/bin/own"]))
            .set("/process/user", json!({"uid": 1000, "gid": 1000}))
            .set(
                "/process/capabilities",
                json!({"bounding": caps, "effective": caps, "permitted": caps}),
            );
        let script = "#!/bin/sh\necho ran\n";
        let file = bundle.dir.join("rootfs/bin/own");
        fs::write(&file, script).expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o744)).expect("chmod");
        bundle.run()
    };
    assert_eq!(program(json!(["CAP_DAC_OVERRIDE"])).ok(), "ran\n");
    assert_ne!(program(json!(["CAP_CHOWN"])).code, 0);
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
