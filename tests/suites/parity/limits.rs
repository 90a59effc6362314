//! Cgroup limits and device rules.

use super::*;

/// Every device but the standard ones is out of reach, made with `mknod` or not, for `exec` too, and after an update.
#[test]
fn devices_are_denied() {
    if !controllers("devices_are_denied", &["pids", "memory"]) {
        return;
    }
    let script = "mknod /kmsg c 1 11 2>/dev/null; (true < /kmsg) 2>&1 | grep -o 'not permitted'; true < /dev/zero && echo zero";
    let bundle = Bundle::new("sleep 100").set(
        "/linux/resources/devices",
        json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "m"}, {"allow": true, "type": "b", "access": "m"}]),
    );
    bundle.start();
    let probe = || bundle.exec(&[], &["sh", "-c", script]).ok();
    assert_eq!(probe(), "not permitted\nzero\n");
    let file = bundle.dir.join("resources.json");
    for resources in [
        json!({"pids": {"limit": 50}}),
        json!({"memory": {"limit": 268_435_456}}),
    ] {
        fs::write(&file, resources.to_string()).expect("write");
        let file = file.to_str().expect("text");
        drop(
            bundle
                .runtime
                .run(&["update", "--resources", file, &bundle.id])
                .ok(),
        );
        assert_eq!(
            probe(),
            "not permitted\nzero\n",
            "after an update of {resources}"
        );
    }
}

/// A rule allows one device by number, and the access it says. The driver may be missing: that is another error.
#[test]
fn a_device_is_allowed_by_number() {
    let open = |how: &str, node: &str| {
        format!(
            "(true {how} {node}) 2>&1 | grep -q 'not permitted' && echo denied || echo allowed;"
        )
    };
    let script = format!("mknod /a c 10 229; {} {}", open("<", "/a"), open(">", "/a"));
    let bundle = Bundle::new(&script).set("/linux/resources/devices", json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rm"}]));
    assert_eq!(bundle.run().ok(), "allowed\ndenied\n");
}

fn limit(bundle: &Bundle, names: &[&str]) -> Option<String> {
    let dirs = cgroup_dirs(&bundle.cgroup());
    let files = dirs
        .iter()
        .flat_map(|dir| names.iter().map(|name| dir.join(name)));
    files
        .filter_map(|file| fs::read_to_string(file).ok())
        .map(|text| text.trim().to_owned())
        .next()
}

#[test]
fn update_options() {
    if !controllers("update_options", &["memory", "cpu", "pids"]) {
        return;
    }
    let bundle = Bundle::new("sleep 100").set(
        "/linux/resources",
        json!({"memory": {"limit": 134_217_728}, "cpu": {"shares": 512, "quota": 50000, "period": 100_000}, "pids": {"limit": 100}}),
    );
    bundle.start();
    for (option, value, v1, want) in [
        ("--memory", "67108864", "memory.limit_in_bytes", "67108864"),
        (
            "--memory-reservation",
            "33554432",
            "memory.soft_limit_in_bytes",
            "33554432",
        ),
        ("--cpu-quota", "40000", "cpu.cfs_quota_us", "40000"),
        ("--cpu-period", "200000", "cpu.cfs_period_us", "200000"),
        ("--cpu-share", "256", "cpu.shares", "256"),
        ("--cpuset-cpus", "0", "cpuset.cpus", "0"),
        ("--pids-limit", "20", "pids.max", "20"),
    ] {
        let Some(before) = limit(&bundle, &[v1]) else {
            skip("update_options", &format!("the machine has no {v1}"));
            continue;
        };
        bundle
            .runtime
            .run(&["update", option, value, &bundle.id])
            .silent();
        assert_eq!(
            limit(&bundle, &[v1]).as_deref(),
            Some(want),
            "{option}, before: {before}"
        );
    }
    let mut command = bundle
        .runtime
        .command(&["update", "--resources", "-", &bundle.id]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("spawn");
    let mut stdin = child.stdin.take().expect("stdin");
    std::io::Write::write_all(&mut stdin, br#"{"pids": {"limit": 30}}"#).expect("write");
    drop(stdin);
    assert!(child.wait().expect("wait").success());
    assert_eq!(limit(&bundle, &["pids.max"]).as_deref(), Some("30"));
}

#[test]
fn limits_work() {
    if !controllers("limits_work", &["pids", "memory"]) {
        return;
    }
    let bundle = Bundle::new(
        "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done 2>&1 | grep -c -m 1 'fork'",
    )
    .set("/linux/resources/pids", json!({"limit": 10}));
    assert_eq!(bundle.run().stdout, "1\n");
    let bundle = Bundle::new("tail /dev/zero; echo $?").set(
        "/linux/resources/memory",
        json!({"limit": 33_554_432, "swap": 33_554_432}),
    );
    assert!(
        bundle.run().stdout.contains("137"),
        "the memory limit holds"
    );
}

#[test]
fn cgroup_namespace_hides_the_path() {
    let bundle = Bundle::new("cat /proc/self/cgroup").namespace("cgroup", None);
    let text = bundle.run().ok();
    assert!(!text.contains(&bundle.id), "{text}");
}

#[test]
fn events_go_on_at_an_interval() {
    if differs("events_go_on_at_an_interval", &["crun"]) {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let mut child = bundle
        .runtime
        .command(&["events", "--interval=100ms", &bundle.id])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let stdout = std::io::BufReader::new(child.stdout.take().expect("stdout"));
    let lines: Vec<String> = std::io::BufRead::lines(stdout)
        .take(2)
        .map_while(Result::ok)
        .collect();
    bundle.runtime.run(&["kill", &bundle.id, "KILL"]).silent();
    // It ends with the container.
    until("events to end", || {
        child.try_wait().expect("wait").is_some() || !ours()
    });
    drop(child.kill());
    drop(child.wait());
    assert_eq!(lines.len(), 2);
    for line in lines {
        let event: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&event["type"], &event["id"]),
            (&json!("stats"), &json!(bundle.id))
        );
    }
}
