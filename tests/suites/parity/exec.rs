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
