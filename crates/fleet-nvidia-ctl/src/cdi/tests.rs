use std::fs;
use std::path::Path;

use fleet_cdi::read_spec;
use serde_json::{Value, json};

use crate::tests::{host, typed};
use crate::{CtlError, Verdict};

const GPU: &str = "cdiVersion: 0.7.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  env: [NVIDIA_VISIBLE_DEVICES=void]\n  mounts:\n  - {hostPath: /lib/libcuda.so.550.1, containerPath: /lib/libcuda.so.550.1, options: [ro, bind]}\n  hooks:\n  - {hookName: createContainer, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, update-ldcache, --folder, /lib]}\ndevices:\n- name: \"0\"\n  containerEdits: {deviceNodes: [{path: /dev/null, major: 1, minor: 3}], additionalGids: [44]}\n";

fn gpu_host() -> tempfile::TempDir {
    let dir = host();
    fs::write(dir.path().join("etc/cdi/gpu.yaml"), GPU).unwrap();
    dir
}

fn put(dir: &Path, path: &str, text: &str) -> String {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn run(root: &Path, args: &[&str]) -> (Result<Verdict, CtlError>, String) {
    fs::write(root.join("etc/fleet-nvidia/config.toml"), "").unwrap();
    let (verdict, out, _) = typed(root, args);
    (verdict, out)
}

#[test]
fn validate_names_old_readers_and_what_the_host_lacks() {
    let dir = gpu_host();
    let file = dir.path().join("etc/cdi/gpu.yaml");
    let file = file.to_str().unwrap();
    let (verdict, out) = run(dir.path(), &["cdi", "validate", file]);
    assert_eq!(verdict.unwrap(), Verdict::Faulty);
    let want = format!(
        "{file}: valid, 1 devices, CDI 0.7.0\n  \
         readers of CDI 0.5.0, 0.6.0 refuse it: additionalGids of device \"0\" needs 0.7.0\n  \
         mount /lib/libcuda.so.550.1 is missing (of all devices)\n  \
         device /dev/null is missing (of 0)\n"
    );
    assert_eq!(out, want);
    let (verdict, out) = run(
        dir.path(),
        &["cdi", "validate", "--no-host", "--json", file],
    );
    assert_eq!(verdict.unwrap(), Verdict::Fine);
    let report: Value = serde_json::from_str(&out).unwrap();
    let file = &report["files"][0];
    assert_eq!(
        (&file["valid"], &file["neededVersion"]),
        (&json!(true), &json!("0.7.0"))
    );
    let reads: Vec<_> = file["readers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["reads"].as_bool().unwrap())
        .collect();
    assert_eq!(reads, [false, false, true, true, true]);
    assert_eq!(file["faults"], json!([]));
}

#[test]
fn resolve_prints_what_devices_bring_or_what_is_missing() {
    let dir = gpu_host();
    let (verdict, _) = run(dir.path(), &["cdi", "resolve", "nvidia.com/gpu=0"]);
    let err = verdict.unwrap_err().to_string();
    assert!(
        err.contains("mount source /lib/libcuda.so.550.1 of the common edits of "),
        "{err}"
    );
    let (verdict, _) = run(dir.path(), &["cdi", "resolve", "nvidia.com/gpu=9"]);
    let err = verdict.unwrap_err().to_string();
    assert!(
        err.starts_with("unresolvable CDI devices nvidia.com/gpu=9: known devices"),
        "{err}"
    );
    let (verdict, _) = run(dir.path(), &["cdi", "resolve", "0"]);
    assert!(
        verdict
            .unwrap_err()
            .to_string()
            .starts_with("invalid CDI device name")
    );
    let (verdict, out) = run(dir.path(), &["cdi", "resolve", "vendor.example/dev=x"]);
    assert_eq!(verdict.unwrap(), Verdict::Fine);
    assert!(
        out.starts_with("env  A=1  ") && out.ends_with("  command line\n"),
        "{out}"
    );
    let (_, out) = run(
        dir.path(),
        &["cdi", "resolve", "--json", "vendor.example/dev=x"],
    );
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["edits"][0]["origin"]["source"]["from"], "command");
}

#[test]
fn inject_prints_a_spec_for_any_runtime() {
    let dir = gpu_host();
    put(dir.path(), "lib/libcuda.so.550.1", "");
    put(dir.path(), "usr/bin/nvidia-cdi-hook", "");
    let spec = GPU.replace(
        "{path: /dev/null, major: 1, minor: 3}",
        "{path: /dev/x, type: c, major: 1, minor: 3}",
    );
    put(dir.path(), "etc/cdi/gpu.yaml", &spec);
    let bundle = put(
        dir.path(),
        "bundle/config.json",
        "{\"x-kept\": 1, \"process\": {\"env\": [\"NVIDIA_VISIBLE_DEVICES=all\"]}}",
    );
    let (verdict, out) = run(
        dir.path(),
        &[
            "cdi",
            "inject",
            &bundle,
            "nvidia.com/gpu=0",
            "nvidia.com/gpu=0",
        ],
    );
    assert_eq!(verdict.unwrap(), Verdict::Fine);
    let spec: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(spec["x-kept"], 1);
    assert_eq!(
        spec["process"]["env"],
        json!(["NVIDIA_VISIBLE_DEVICES=void"])
    );
    assert_eq!(spec["linux"]["devices"][0]["path"], "/dev/x");
    assert_eq!(
        spec["hooks"]["createContainer"][0]["path"],
        "/usr/bin/nvidia-cdi-hook"
    );
    let again = put(dir.path(), "again.json", &out);
    let (_, twice) = run(dir.path(), &["cdi", "inject", &again, "nvidia.com/gpu=0"]);
    assert_eq!(twice, out);
    let (_, out) = run(
        dir.path(),
        &["cdi", "inject", "--json", &bundle, "nvidia.com/gpu=0"],
    );
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["spec"], spec);
    assert!(document["edits"].as_array().unwrap().len() > 3);
}

#[test]
fn diff_is_silent_about_what_means_the_same() {
    let dir = gpu_host();
    let first = dir.path().join("etc/cdi/gpu.yaml");
    let first = first.to_str().unwrap();
    let json_form = serde_json::to_string(&read_spec(Path::new(first)).unwrap()).unwrap();
    let same = put(dir.path(), "same.json", &json_form);
    let (verdict, out) = run(dir.path(), &["cdi", "diff", first, &same]);
    assert_eq!((verdict.unwrap(), out.as_str()), (Verdict::Fine, ""));
    let other = GPU
        .replace("550.1", "560.2")
        .replace("additionalGids: [44]", "env: [A=1]");
    let other = put(dir.path(), "other.yaml", &other);
    let (verdict, out) = run(dir.path(), &["cdi", "diff", first, &other]);
    assert_eq!(verdict.unwrap(), Verdict::Faulty);
    let want = "- common edits: mount /lib/libcuda.so.550.1 {\"hostPath\":\"/lib/libcuda.so.550.1\",\"options\":[\"bind\",\"ro\"]}\n\
                + common edits: mount /lib/libcuda.so.560.2 {\"hostPath\":\"/lib/libcuda.so.560.2\",\"options\":[\"bind\",\"ro\"]}\n\
                - device \"0\": additionalGid 44 44\n\
                + device \"0\": env A 1\n";
    assert_eq!(out, want);
    let (_, out) = run(dir.path(), &["cdi", "diff", "--json", first, &other]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["differences"].as_array().unwrap().len(), 4);
    let (verdict, _) = run(dir.path(), &["cdi", "diff", first, "/gone.yaml"]);
    assert!(
        verdict
            .unwrap_err()
            .to_string()
            .contains("/gone.yaml is missing")
    );
}

#[test]
fn transform_writes_a_spec_for_another_root() {
    let dir = gpu_host();
    let input = dir.path().join("etc/cdi/gpu.yaml");
    let input = input.to_str().unwrap();
    let output = dir.path().join("moved.json");
    let output = output.to_str().unwrap();
    let there = [
        "cdi",
        "transform",
        "root",
        "--from",
        "/",
        "--to",
        "/run/driver",
        "--input",
        input,
        "--output",
        output,
    ];
    let (verdict, out) = run(dir.path(), &there);
    assert_eq!((verdict.unwrap(), out.as_str()), (Verdict::Fine, ""));
    let moved = read_spec(Path::new(output)).unwrap();
    let mount = &moved.container_edits.mounts[0];
    assert_eq!(mount.host_path, "/run/driver/lib/libcuda.so.550.1");
    assert_eq!(mount.container_path, "/lib/libcuda.so.550.1");
    let node = &moved.devices[0].container_edits.device_nodes[0];
    assert_eq!(node.host_path.as_deref(), Some("/run/driver/dev/null"));
    let back = [
        "cdi",
        "transform",
        "root",
        "--from",
        "/run/driver",
        "--input",
        output,
    ];
    let (_, out) = run(dir.path(), &back);
    assert!(
        out.starts_with("{\n"),
        "the format of the input stays: {out}"
    );
    let back = put(dir.path(), "back.json", &out);
    let (verdict, out) = run(dir.path(), &["cdi", "diff", input, &back]);
    assert_eq!((verdict.unwrap(), out.as_str()), (Verdict::Fine, ""));
}

/// The last directory wins, and the configured ones do not count.
#[test]
fn list_looks_into_other_directories() {
    let dir = gpu_host();
    let name = |kind: &str| GPU.replace("nvidia.com/gpu", kind);
    put(dir.path(), "a/one.yaml", &name("a.com/one"));
    put(dir.path(), "b/two.yaml", &name("b.com/two"));
    let listed = |args: &[&str]| -> Vec<String> {
        let (verdict, out) = run(dir.path(), &[&["cdi", "list"], args].concat());
        assert_eq!(verdict.unwrap(), Verdict::Fine);
        let names = out.lines().map(|line| line.split("  ").next().unwrap());
        names.map(str::to_owned).collect()
    };
    assert_eq!(
        listed(&["--spec-dir", "/a,/b"]),
        ["a.com/one=0", "b.com/two=0"]
    );
    assert_eq!(listed(&["--spec-dir", "/a", "--spec-dir", "/b"]).len(), 2);
    assert_eq!(listed(&["--spec-dir", "/none"]), [""; 0]);
    let usual = listed(&[]);
    assert!(usual.contains(&"nvidia.com/gpu=0".to_owned()), "{usual:?}");
    assert_eq!(listed(&["--spec-dir", ""]), usual);
}

#[test]
fn transform_declares_what_the_result_needs() {
    let dir = host();
    let old = "cdiVersion: 0.3.0\nkind: a.com/b\ndevices:\n- name: x\n  containerEdits: {deviceNodes: [{path: /dev/x}]}\n";
    let input = put(dir.path(), "old.yaml", old);
    let (verdict, out, remarks) = typed(
        dir.path(),
        &[
            "cdi",
            "transform",
            "root",
            "--to",
            "/run/driver",
            "--relative-to",
            "container",
            "--input",
            &input,
        ],
    );
    verdict.unwrap();
    let (verdict, nameless, _) = typed(
        dir.path(),
        &[
            "cdi",
            "transform",
            "root",
            "--to",
            "/run/driver",
            "--relative-to",
            "container",
            "--input",
            &input,
            "--output",
            "",
        ],
    );
    verdict.unwrap();
    assert_eq!(nameless, out, "an empty name is none");
    assert!(
        out.contains("cdiVersion: \"0.5.0\"") && out.contains("path: /run/driver/dev/x"),
        "{out}"
    );
    assert!(
        remarks.contains("needs CDI 0.5.0 instead of 0.3.0"),
        "{remarks}"
    );
    let broken = put(dir.path(), "broken.yaml", "kind: x\n");
    let (verdict, ..) = typed(
        dir.path(),
        &["cdi", "transform", "root", "--input", &broken],
    );
    assert!(
        verdict
            .unwrap_err()
            .to_string()
            .contains("broken.yaml: is invalid: ")
    );
}
