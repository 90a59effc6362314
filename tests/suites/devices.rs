//! GPUs of a simulated node: isolation, injection and native hooks, without an engine.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleet_tests::views::on_cgroup_v2;
use fleet_tests::{Bundle, path, run, skip};
use serde_json::{Value, json};

/// Builds a node below /run and puts its CDI spec in place; false where no device nodes can be borrowed.
fn node(test: &str, machine: &str) -> Option<PathBuf> {
    let root = PathBuf::from("/run/sim-node");
    drop(fs::remove_dir_all(&root));
    drop(fs::remove_dir_all("/run/cdi"));
    let out = run(Command::new(path("FLEET_PROGRAMS").join("fleet-simulate"))
        .args([
            "create",
            "--machine",
            machine,
            "--cdi",
            "/etc/cdi/nvidia.yaml",
            "--root",
        ])
        .arg(&root));
    if out.code != 0 {
        skip(test, out.stderr.trim());
        return None;
    }
    Some(root)
}

fn unpack(bundle: &Bundle, image: &str) {
    let image = path("FLEET_STATE").join("images").join(image);
    drop(
        run(Command::new("tar")
            .arg("-C")
            .arg(bundle.dir.join("rootfs"))
            .arg("-xf")
            .arg(image))
        .ok(),
    );
}

fn glibc(script: &str, env: &str) -> Bundle {
    let bundle = Bundle::new(script).set("/process/env", json!(["PATH=/bin:/sbin:/usr/bin", env]));
    unpack(&bundle, "glibc.tar");
    bundle
}

fn numbers(root: &Path) -> Vec<(u64, u64)> {
    let machine: Value = serde_json::from_slice(
        &fs::read(root.join("usr/share/nvidia/fleet-sim-machine.json")).expect("machine"),
    )
    .expect("JSON");
    let gpus = machine["gpus"].as_array().expect("gpus");
    gpus.iter()
        .map(|gpu| {
            (
                gpu["node"]["major"].as_u64().expect("major"),
                gpu["node"]["minor"].as_u64().expect("minor"),
            )
        })
        .collect()
}

/// Each of two containers opens its own GPU and gets EPERM for the other's, also after `mknod`.
fn each_its_own(test: &str) {
    let Some(root) = node(test, "h100x2") else {
        return;
    };
    let numbers = numbers(&root);
    let script = |other: usize| {
        let (major, minor) = numbers[other];
        format!(
            "true </dev/nvidia* && echo own; ls /dev/nvidia[0-9]; mknod /dev/other c {major} {minor} && echo made; (cat </dev/other) 2>&1 | grep -o 'not permitted'; sleep 100"
        )
    };
    for (own, other) in [(0, 1), (1, 0)] {
        let bundle = glibc(
            &script(other)
                .replace("/dev/nvidia* ", &format!("/dev/nvidia{own} "))
                .replace("sleep 100", "true"),
            &format!("NVIDIA_VISIBLE_DEVICES={own}"),
        );
        assert_eq!(
            bundle.run().ok(),
            format!("own\n/dev/nvidia{own}\nmade\nnot permitted\n")
        );
    }
}

#[test]
fn isolation() {
    each_its_own("isolation");
}

/// The same with cgroup v2, whose rules are a BPF program.
#[test]
fn isolation_on_cgroup_v2() {
    on_cgroup_v2("isolation_on_cgroup_v2", each_its_own);
}

#[test]
fn nvidia_smi_by_environment() {
    let Some(_root) = node("nvidia_smi_by_environment", "h100x8") else {
        return;
    };
    for (value, count) in [
        ("all", 8),
        ("0", 1),
        ("3,5", 2),
        ("GPU-5fbe0d8a-7d2c-4c1f-9a6e-000000000002", 1),
        ("nvidia.com/gpu=7", 1),
    ] {
        let bundle = glibc("nvidia-smi -L", &format!("NVIDIA_VISIBLE_DEVICES={value}"));
        let text = bundle.run().ok();
        assert_eq!(text.lines().count(), count, "{value}: {text}");
    }
    for value in ["void", ""] {
        let bundle = glibc(
            "ls /dev | grep -c nvidia",
            &format!("NVIDIA_VISIBLE_DEVICES={value}"),
        );
        assert_eq!(bundle.run().stdout, "0\n", "{value:?}");
    }
    let none = glibc(
        "ls /dev | grep nvidia[0-9]; test -e /dev/nvidiactl && ls /usr/bin/nvidia-smi",
        "NVIDIA_VISIBLE_DEVICES=none",
    );
    assert_eq!(none.run().ok(), "/usr/bin/nvidia-smi\n");
    drop(
        glibc("true", "NVIDIA_VISIBLE_DEVICES=9")
            .make("create", &[])
            .fails("nvidia.com/gpu=9"),
    );
}

#[test]
fn second_start_of_the_same_root() {
    let Some(_root) = node("second_start_of_the_same_root", "h100x2") else {
        return;
    };
    let bundle = glibc(
        "nvidia-smi -L | wc -l; ldconfig -p | grep -c libcuda",
        "NVIDIA_VISIBLE_DEVICES=all",
    );
    let first = bundle.run().ok();
    assert!(first.starts_with("2\n"), "{first}");
    let cache = fs::read(bundle.dir.join("rootfs/etc/ld.so.cache")).expect("cache");
    assert_eq!(bundle.run().ok(), first);
    assert_eq!(
        fs::read(bundle.dir.join("rootfs/etc/ld.so.cache")).expect("cache"),
        cache
    );
}

#[test]
fn the_images_own_ldconfig_reads_our_cache() {
    let Some(_root) = node("the_images_own_ldconfig_reads_our_cache", "h100x2") else {
        return;
    };
    let bundle = glibc(
        "/sbin/ldconfig -p | grep -E 'libcuda.so.1|libnvidia-ml.so.1|libc.so.6' | sed 's/.*=> //'",
        "NVIDIA_VISIBLE_DEVICES=0",
    );
    let text = bundle.run().ok();
    for library in [
        "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
        "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
        "libc.so.6",
    ] {
        assert!(text.contains(library), "{text}");
    }
}

#[test]
fn read_only_root_and_images_without_cache() {
    let Some(_root) = node("read_only_root_and_images_without_cache", "h100x2") else {
        return;
    };
    let bundle = Bundle::new("nvidia-smi -L; touch /x 2>/dev/null || echo ro")
        .set(
            "/process/env",
            json!(["PATH=/bin:/usr/bin", "NVIDIA_VISIBLE_DEVICES=1"]),
        )
        .set("/root/readonly", json!(true));
    unpack(&bundle, "glibc-bare.tar");
    let text = bundle.run().ok();
    assert!(
        text.contains("NVIDIA H100") && text.ends_with("ro\n"),
        "{text}"
    );
}

#[test]
fn musl_finds_the_libraries() {
    let Some(_root) = node("musl_finds_the_libraries", "h100x2") else {
        return;
    };
    let bundle = Bundle::new("open libcuda.so.1 libnvidia-ptxjitcompiler.so.1").set(
        "/process/env",
        json!(["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=0"]),
    );
    unpack(&bundle, "musl.tar");
    assert_eq!(
        bundle.run().ok(),
        "libcuda.so.1: ok\nlibnvidia-ptxjitcompiler.so.1: ok\n"
    );
}

#[test]
fn hostile_image_environment_and_links() {
    let Some(_root) = node("hostile_image_environment_and_links", "h100x2") else {
        return;
    };
    let bundle = glibc("echo started", "NVIDIA_VISIBLE_DEVICES=0");
    let bundle = bundle.set(
        "/process/env",
        json!([
            "PATH=/bin",
            "NVIDIA_VISIBLE_DEVICES=0",
            "LD_PRELOAD=/evil.so",
            "LD_LIBRARY_PATH=/evil",
            "LD_AUDIT=/evil.so"
        ]),
    );
    let outside = bundle.dir.join("outside");
    fs::create_dir(&outside).expect("mkdir");
    // Places that the edits write to lead out of the root.
    for dir in ["rootfs/etc", "rootfs/usr/lib/x86_64-linux-gnu"] {
        let dir = bundle.dir.join(dir);
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(dir.parent().expect("parent")).expect("mkdir");
        std::os::unix::fs::symlink(&outside, &dir).expect("link");
    }
    drop(bundle.run());
    let left: Vec<_> = fs::read_dir(&outside)
        .expect("list")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(left.is_empty(), "written outside the root: {left:?}");
}

#[test]
fn an_engines_edits_are_taken_over_once() {
    let Some(_root) = node("an_engines_edits_are_taken_over_once", "h100x2") else {
        return;
    };
    // What Podman does with `--device nvidia.com/gpu=0` before it calls the runtime.
    let machine = numbers(Path::new("/run/sim-node"));
    let (major, minor) = machine[0];
    let library = "/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15";
    let hook = json!({"path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", "/usr/lib/x86_64-linux-gnu"], "env": ["NVIDIA_CTK_DEBUG=false"]});
    let bundle = glibc("/sbin/ldconfig -p | grep -c 'libcuda.so.1 '; true </dev/nvidia0 && echo open; env | grep VISIBLE", "NVIDIA_VISIBLE_DEVICES=void")
        .mount(library, "bind", &format!("/run/sim-node{library}"), &["ro", "rbind", "rprivate"])
        .set("/linux/devices", json!([{"path": "/dev/nvidia0", "type": "c", "major": major, "minor": minor, "fileMode": 0o666}]))
        .set("/linux/resources/devices", json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}]))
        .set("/hooks", json!({"createContainer": [hook]}));
    assert_eq!(bundle.run().ok(), "1\nopen\nNVIDIA_VISIBLE_DEVICES=void\n");
}

#[test]
fn explain_tells_what_create_does() {
    let Some(_root) = node("explain_tells_what_create_does", "h100x2") else {
        return;
    };
    let bundle = glibc("true", "NVIDIA_VISIBLE_DEVICES=0");
    bundle.write();
    let ctl = path("FLEET_CTL");
    let text = run(Command::new(&ctl).arg("explain").arg(&bundle.dir)).ok();
    for word in [
        "/dev/nvidia0",
        "/etc/cdi/nvidia.yaml",
        "libcuda.so.550.54.15",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("/dev/nvidia1"));
    let json: Value = serde_json::from_str(
        &run(Command::new(&ctl)
            .args(["explain", "--json"])
            .arg(&bundle.dir))
        .ok(),
    )
    .expect("JSON");
    assert!(json["schemaVersion"].is_number(), "{json}");
    assert!(
        run(Command::new(&ctl).args(["cdi", "list"]))
            .ok()
            .contains("nvidia.com/gpu=all")
    );
}
