//! Holders on a node made of files.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

const SPEC: &str = "cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: \"0\"
  containerEdits: {deviceNodes: [{path: /dev/nvidia0, major: 195, minor: 0, type: c}]}
- name: GPU-aaaa
  containerEdits: {deviceNodes: [{path: /dev/nvidia0, major: 195, minor: 0, type: c}]}
- name: \"1\"
  containerEdits: {deviceNodes: [{path: /dev/nvidia1, major: 195, minor: 1, type: c}]}
- name: all
  containerEdits: {deviceNodes: [{path: /dev/nvidia0, major: 195, minor: 0, type: c}, {path: /dev/nvidia1, major: 195, minor: 1, type: c}]}
containerEdits: {deviceNodes: [{path: /dev/nvidiactl, major: 195, minor: 255, type: c}]}
";

fn node() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("etc/cdi/nvidia.yaml", SPEC);
    write("etc/fleet-nvidia/config.toml", "");
    write("proc/devices", "Character devices:\n195 nvidia\n");
    write(
        "proc/driver/nvidia/gpus/0000:01:00.0/information",
        "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-aaaa\nBus Location: \t 0000:01:00.0\nDevice Minor: \t 0\n",
    );
    let device = |minor: u32| json!({"path": format!("/dev/nvidia{minor}"), "type": "c", "major": 195, "minor": minor});
    let record = |id: &str, pid: u32, spec: Value, plan: Option<Value>| {
        let state = json!({
            "version": 1, "id": id, "pid": pid, "startTime": 77, "created": format!("2026-01-0{}T00:00:00Z", pid % 10),
            "cgroup": {"path": format!("/x/{id}")}, "later": true,
        });
        write(
            &format!("run/fleet-nvidia/{id}/state.json"),
            &state.to_string(),
        );
        write(
            &format!("run/fleet-nvidia/{id}/config.json"),
            &spec.to_string(),
        );
        if let Some(plan) = plan {
            write(
                &format!("run/fleet-nvidia/{id}/plan.json"),
                &plan.to_string(),
            );
        }
    };
    let origin = json!({"source": {"from": "environment", "name": "NVIDIA_VISIBLE_DEVICES"}, "specFile": "/etc/cdi/nvidia.yaml", "device": "nvidia.com/gpu=0"});
    let plan = json!({"schemaVersion": 1, "edits": [
        {"change": "env", "name": "A", "value": "1", "origin": {"source": {"from": "environment", "name": "NVIDIA_VISIBLE_DEVICES"}, "specFile": "/etc/cdi/nvidia.yaml"}},
        {"change": "device", "path": "/dev/nvidia0", "major": 195, "minor": 0, "origin": origin},
    ], "leftOut": [
        {"what": "device", "which": "/dev/dri/card0", "needs": ["graphics", "display"], "because": "NVIDIA_DRIVER_CAPABILITIES=compute", "origin": origin},
    ], "warnings": ["\u{1b}library x gets no links"]});
    let pod = json!({"io.kubernetes.pod.name": "train\u{1b}", "io.kubernetes.pod.namespace": "ml"});
    record(
        "c-asked",
        101,
        json!({"annotations": pod, "linux": {"devices": [device(0)]}}),
        Some(plan),
    );
    record(
        "c-engine",
        102,
        json!({"linux": {"devices": [device(0), device(1)]}}),
        None,
    );
    record("c-none", 103, json!({"linux": {}}), None);
    let refused = json!({"schemaVersion": 1, "edits": [], "refused": [
        {"source": {"from": "environment", "name": "NVIDIA_VISIBLE_DEVICES"}, "asked": "all", "setting": "profile = crio", "remedy": "set `accept-environment`"},
    ]});
    record("d-refused", 104, json!({"linux": {}}), Some(refused));
    // Live rules: one that grants less than the record, one that grants more.
    write(
        "sys/fs/cgroup/devices/x/c-asked/devices.list",
        "c 1:3 rwm\nc *:* m\n",
    );
    write(
        "sys/fs/cgroup/devices/x/d-refused/devices.list",
        "a *:* rwm\n",
    );
    // Still running, by its start time; the others are gone.
    write(
        "proc/101/stat",
        &format!("101 (a) b) S{} 77 0\n", " 0".repeat(18)),
    );
    write("run/fleet-nvidia/damaged/state.json", "{");
    write(
        "run/containerd/runc/k8s.io/x/state.json",
        "{\"init_process_pid\": 1}",
    );
    root
}

/// Output and remarks.
fn typed(root: &Path, args: &[&str]) -> (String, String) {
    let (verdict, out, mut remarks) = crate::tests::typed(root, args);
    if let Err(err) = verdict {
        remarks.push_str(&err.to_string());
    }
    (out, remarks)
}

/// The forms are interfaces: they change with their version.
#[test]
fn holders_have_stable_forms() {
    let node = node();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let cases: [(&str, &[&str]); 6] = [
        ("gpus.json", &["gpus", "--json"]),
        ("gpus.txt", &["gpus"]),
        ("gpus.prom", &["gpus", "--prometheus"]),
        ("explain-id.txt", &["explain", "c-asked"]),
        ("explain-engine.txt", &["explain", "c-e"]),
        ("explain-refused.txt", &["explain", "d-refused"]),
    ];
    for (name, args) in cases {
        let (out, remarks) = typed(node.path(), args);
        let have = out.replace(
            &node.path().canonicalize().unwrap().display().to_string(),
            "",
        );
        if args[0] == "gpus" {
            assert!(
                remarks.contains("damaged/state.json is damaged"),
                "{remarks}"
            );
        }
        let path = golden.join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &have).unwrap();
        }
        assert_eq!(
            have,
            fs::read_to_string(path).unwrap(),
            "{name}: UPDATE=1 writes it anew"
        );
    }
}

#[test]
fn a_container_is_explained_by_a_unique_start_of_its_id() {
    let node = node();
    let (out, _) = typed(node.path(), &["explain", "--json", "c-asked"]);
    let plan: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(plan["edits"].as_array().unwrap().len(), 2);
    let (out, _) = typed(node.path(), &["explain", "--json", "c-none"]);
    let plan: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&plan["schemaVersion"], &plan["edits"]),
        (&json!(1), &json!([]))
    );
    assert_eq!(
        typed(node.path(), &["explain", "c-none"]).0,
        "nothing was injected\n"
    );
    let (_, err) = typed(node.path(), &["explain", "c-"]);
    assert!(
        err.starts_with("3 containers have an id that starts with c-"),
        "{err}"
    );
    let (_, err) = typed(node.path(), &["explain", "nobody"]);
    assert!(
        err.starts_with(
            "there is neither a file nor a container of the runtime named nobody; hint: "
        ),
        "{err}"
    );
}

#[test]
fn a_node_without_gpus_says_so() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc/fleet-nvidia")).unwrap();
    fs::write(root.path().join("etc/fleet-nvidia/config.toml"), "").unwrap();
    let (out, remarks) = typed(root.path(), &["gpus"]);
    assert_eq!(
        (out.as_str(), remarks.as_str()),
        ("no GPU is known here; hint: fleet-nvidia-ctl doctor\n", "")
    );
}

/// A container that waits for `start`, one whose `start` was killed before or after it let go, and the same of crun or runc.
#[test]
fn a_container_that_waits_for_its_start_is_created() {
    let node = node();
    let runtime = node.path().join("run/fleet-nvidia/c-asked");
    let stat = |flags: u64| {
        let text = format!(
            "101 (a) b) S{} {flags}{} 77 0\n",
            " 0".repeat(5),
            " 0".repeat(12)
        );
        fs::write(node.path().join("proc/101/stat"), text).unwrap();
    };
    let status = || {
        let (out, _) = typed(node.path(), &["gpus", "--json"]);
        let told: Value = serde_json::from_str(&out).unwrap();
        let holders = told["gpus"][0]["containers"].as_array().unwrap().clone();
        let one = holders.iter().find(|one| one["id"] == "c-asked").unwrap();
        one["status"].as_str().unwrap().to_owned()
    };
    let (executed, waiting) = (0x40_0000, 0x40_0040);
    stat(executed);
    assert_eq!(status(), "running");
    fs::write(runtime.join("notify.sock"), "").unwrap();
    assert_eq!(status(), "created");
    fs::rename(runtime.join("notify.sock"), runtime.join("notify.taken")).unwrap();
    assert_eq!(status(), "running");
    stat(waiting);
    assert_eq!(status(), "created");
    fs::remove_file(runtime.join("notify.taken")).unwrap();

    let other = node.path().join("run/fleet-nvidia/.delegate/c-asked");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("exec.fifo"), "").unwrap();
    let mut state: Value =
        serde_json::from_str(&fs::read_to_string(runtime.join("state.json")).unwrap()).unwrap();
    state["delegate"] =
        json!({"program": "/usr/bin/crun", "root": "/run/fleet-nvidia/.delegate", "bundle": "/b"});
    fs::write(runtime.join("state.json"), state.to_string()).unwrap();
    assert_eq!(status(), "created");
    fs::remove_file(other.join("exec.fifo")).unwrap();
    assert_eq!(status(), "running");
}
