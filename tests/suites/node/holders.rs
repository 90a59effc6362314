//! Which container has which GPU, who asked, and the audit trail.

use super::*;

fn config(name: &str, text: &str) -> String {
    fs::create_dir_all("/run/node-suite").expect("mkdir");
    let file = format!("/run/node-suite/{name}.toml");
    fs::write(&file, text).expect("write a configuration");
    file
}

/// `run -d` with a configuration of its own.
fn start(bundle: &Bundle, config: &str) -> Output {
    bundle.write();
    let dir = bundle.dir.display().to_string();
    bundle.runtime.run(&[
        "--config", config, "run", "-d", "--bundle", &dir, &bundle.id,
    ])
}

/// The tool, with the record of a container where it looks by itself.
fn at_home(bundle: &Bundle, args: &[&str]) -> Output {
    fs::create_dir_all("/run/fleet-nvidia").expect("mkdir");
    let script = "mount --bind \"$ROOT\" /run/fleet-nvidia && exec \"$0\" \"$@\"";
    run(Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(path("FLEET_CTL"))
        .args(args)
        .env("ROOT", &bundle.runtime.root))
}

/// Engines show no warnings of a runtime that did its work.
#[test]
fn what_a_container_did_not_get_is_found_in_its_record() {
    if !gpus("what_a_container_did_not_get_is_found_in_its_record") {
        return;
    }
    let trail = "/run/node-suite/log/less.jsonl";
    let text = format!("profile = \"crio\"\nfuture = 1\n[audit]\nfile = \"{trail}\"\n");
    let bundle =
        Bundle::new("sleep 1000").set("/process/env", json!(["NVIDIA_VISIBLE_DEVICES=all"]));
    start(&bundle, &config("less", &text)).silent();
    let refused = "all, asked for by variable NVIDIA_VISIBLE_DEVICES, is refused by `";
    let explained = at_home(&bundle, &["explain", &bundle.id]).ok();
    assert!(
        explained.starts_with("nothing was injected\n"),
        "{explained}"
    );
    assert!(
        explained.contains(&format!("\nrefused: {refused}")),
        "{explained}"
    );
    assert!(
        explained.contains("\nwarning: ") && explained.contains("`future` is not known"),
        "{explained}"
    );
    let doctor = at_home(&bundle, &["doctor", "--only", "containers"]);
    assert_eq!(doctor.code, 3, "a warning: {doctor:#?}");
    let name = format!("container {:.12}: ", bundle.id);
    assert!(
        doctor.stdout.contains(&format!("{name}{refused}")),
        "{doctor:#?}"
    );
    assert!(
        doctor.stdout.contains("`future` is not known"),
        "{doctor:#?}"
    );
    let events = fs::read_to_string(trail).expect("read the trail");
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |kind: &str| {
        events
            .iter()
            .find(|event| event["event"] == kind)
            .expect("an event")
    };
    assert_eq!(of("denied")["refused"][0]["asked"], "all");
    let warnings = of("create")["warnings"].as_array().expect("warnings");
    assert!(
        warnings.len() == 1
            && warnings[0]
                .as_str()
                .is_some_and(|text| text.contains("`future`")),
        "{events:#?}"
    );
    assert!(of("start").get("warnings").is_none());
}

#[test]
fn gpus_and_explain_name_the_holder_and_who_asked() {
    if !gpus("gpus_and_explain_name_the_holder_and_who_asked") {
        return;
    }
    let pod = json!({"cdi.k8s.io/x": "nvidia.com/gpu=1", "io.kubernetes.pod.name": "train"});
    let bundle = Bundle::new("exec 3</dev/nvidia1; sleep 1000").set("/annotations", pod);
    start(&bundle, &config("empty", "")).silent();
    let root = bundle.runtime.root.display().to_string();
    let report = || -> Value {
        let out = ctl(&["gpus", "--json", "--state-root", &root]).ok();
        serde_json::from_str(&out).expect("JSON")
    };
    until("the GPU to be opened", || {
        report().to_string().contains("\"command\"")
    });
    let all = report();
    let held = |gpu: usize| {
        all["gpus"][gpu]["containers"]
            .as_array()
            .expect("containers")
            .clone()
    };
    assert_eq!(all["gpus"].as_array().expect("gpus").len(), 2, "{all:#}");
    assert!(held(0).is_empty(), "{all:#}");
    let holder = &held(1)[0];
    assert_eq!(holder["id"], bundle.id.as_str());
    assert_eq!(holder["status"], "running");
    assert_eq!(holder["device"], "nvidia.com/gpu=1");
    assert_eq!(holder["specFile"], "/etc/cdi/nvidia.yaml");
    assert_eq!(
        holder["source"],
        json!({"from": "annotation", "name": "cdi.k8s.io/x"})
    );
    assert_eq!(holder["labels"]["io.kubernetes.pod.name"], "train");
    assert_eq!(holder["cgroupAllows"], true, "{all:#}");
    let open = holder["open"].as_array().expect("open");
    assert!(
        open.iter()
            .any(|process| process["command"] == "sh" || process["command"] == "sleep"),
        "{all:#}"
    );
    let metrics = ctl(&["gpus", "--prometheus", "--state-root", &root]).ok();
    assert!(
        metrics.contains("owner=\"container\"}") && metrics.contains("pod=\"train\"} 1\n"),
        "{metrics}"
    );
    let explained = at_home(&bundle, &["explain", &bundle.id]);
    let explained = explained.ok();
    let node = explained
        .lines()
        .find(|line| line.contains("path=/dev/nvidia1 "));
    assert!(
        node.is_some_and(|line| line.ends_with("annotation cdi.k8s.io/x")),
        "{explained}"
    );
    assert!(
        explained.contains("/etc/cdi/nvidia.yaml nvidia.com/gpu=1"),
        "{explained}"
    );
}

/// A container that asked for one GPU, and one that may open everything.
fn live_rules(test: &str) {
    if !gpus(test) {
        return;
    }
    let config = config("live", "");
    let own =
        Bundle::new("sleep 1000").set("/annotations", json!({"cdi.k8s.io/x": "nvidia.com/gpu=1"}));
    let open = Bundle::new("sleep 1000").set(
        "/linux/resources/devices",
        json!([{"allow": true, "access": "rwm"}]),
    );
    let report = |bundle: &Bundle| -> Value {
        let root = bundle.runtime.root.display().to_string();
        let out = ctl(&["gpus", "--json", "--state-root", &root]).ok();
        serde_json::from_str(&out).expect("JSON")
    };
    let holders = |bundle: &Bundle, gpu: usize| {
        let all = report(bundle);
        let all = all["gpus"][gpu]["containers"].as_array().expect("a list");
        let told = all.iter().map(|holder| {
            (
                holder["source"]["from"].clone(),
                holder["cgroupAllows"].clone(),
            )
        });
        told.collect::<Vec<_>>()
    };
    for bundle in [&own, &open] {
        start(bundle, &config).silent();
    }
    assert_eq!(holders(&own, 0), []);
    assert_eq!(holders(&own, 1), [(json!("annotation"), json!(true))]);
    for gpu in [0, 1] {
        assert_eq!(holders(&open, gpu), [(json!("cgroup"), json!(true))]);
    }
}

#[test]
fn live_rules_of_containers() {
    live_rules("holders::live_rules_of_containers");
}

#[test]
fn live_rules_on_cgroup_v2() {
    on_cgroup_v2("holders::live_rules_on_cgroup_v2", live_rules);
}

#[test]
fn the_audit_trail_tells_of_a_containers_life() {
    if !gpus("the_audit_trail_tells_of_a_containers_life") {
        return;
    }
    fs::create_dir_all("/run/systemd/journal").expect("mkdir");
    let journal =
        UnixDatagram::bind("/run/systemd/journal/socket").expect("bind the journal's socket");
    let file = "/run/node-suite/log/audit.jsonl";
    let on = config(
        "audit",
        &format!("[audit]\nfile = \"{file}\"\njournald = true\n"),
    );
    let asks = |gpu: &str| {
        Bundle::new("sleep 1000").set(
            "/annotations",
            json!({"cdi.k8s.io/x": format!("nvidia.com/gpu={gpu}")}),
        )
    };
    let events = || -> Vec<Value> {
        let text = fs::read_to_string(file).expect("read the trail");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    };
    let bundle = asks("0");
    start(&bundle, &on).silent();
    // Neither start nor delete reads the configuration.
    bundle.remove();
    let life = events();
    let kinds: Vec<_> = life.iter().map(|event| event["event"].clone()).collect();
    assert_eq!(kinds, ["create", "start", "delete"]);
    for event in &life {
        assert_eq!(
            (&event["schemaVersion"], &event["container"]),
            (&json!(1), &json!(bundle.id))
        );
        let devices = event["devices"].as_array().expect("devices");
        let gpu = devices
            .iter()
            .find(|device| device["path"] == "/dev/nvidia0")
            .expect("the GPU");
        assert_eq!(gpu["device"], "nvidia.com/gpu=0");
        assert_eq!(gpu["source"]["name"], "cdi.k8s.io/x");
    }
    let mut bytes = [0; 65536];
    let length = journal.recv(&mut bytes).expect("a datagram");
    let first = String::from_utf8_lossy(&bytes[..length]).into_owned();
    assert!(
        first.starts_with("MESSAGE={\"schemaVersion\":1,")
            && first.contains("\nFLEET_EVENT=create\n"),
        "{first}"
    );

    let unknown = asks("9");
    drop(start(&unknown, &on).fails("unresolvable CDI devices nvidia.com/gpu=9"));
    let denied = events().pop().expect("an event");
    assert_eq!(
        (&denied["event"], &denied["container"]),
        (&json!("denied"), &json!(unknown.id))
    );
    assert!(
        denied["error"]
            .as_str()
            .expect("error")
            .starts_with("unresolvable CDI devices")
    );

    let strict = config(
        "strict",
        &format!("[audit]\nfile = \"{file}\"\n[sources]\ncdi-annotations = false\n"),
    );
    let refused = asks("0");
    drop(start(&refused, &strict));
    let told = events();
    let denied = &told[told.len() - 3];
    assert_eq!(denied["event"], "denied", "{told:#?}");
    assert_eq!(denied["refused"][0]["asked"], "nvidia.com/gpu=0");

    // What cannot be written down does not start.
    let bad = config("bad", "[audit]\nfile = \"/proc/no/audit\"\n");
    let lost = asks("0");
    drop(start(&lost, &bad).fails("audit: /proc/no/audit"));
    assert_nothing_left(&lost);
    // Off by default, and for who asks for nothing.
    let before = events().len();
    start(&asks("0"), &config("empty", "")).silent();
    start(&Bundle::new("sleep 1000"), &on).silent();
    assert_eq!(events().len(), before);
}
