//! Hostile text: annotations, CDI names and paths, and specs of absurd size and shape.

use std::fs;
use std::time::{Duration, Instant};

use fleet_tests::{Bundle, Output, not_for_peers};
use serde_json::{Map, Value, json};

use crate::{Trap, cdi};

/// Ends soon, in one short line if it fails.
#[track_caller]
fn assert_calm(begin: Instant, out: &Output, context: &str) {
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "{context}: {:?}",
        begin.elapsed()
    );
    if out.code != 0 {
        assert!(
            out.stderr.lines().count() == 1 && out.stderr.len() < 8192 && out.code == 1,
            "{context}: {} {} {}",
            out.code,
            out.stderr.lines().count(),
            out.stderr.chars().take(500).collect::<String>()
        );
    }
}

#[test]
fn huge_specs() {
    if not_for_peers("huge_specs") {
        return;
    }
    let bundle = Bundle::new("exit 0");
    let text = bundle.spec.to_string();
    let inside = |extra: &str| format!("{},{extra}}}", &text[..text.len() - 1]);
    let many: Map<String, Value> = (0..100_000)
        .map(|n| (format!("k{n}"), json!("v")))
        .collect();
    let cases = [
        (
            "ten megabytes of spaces",
            inside(&format!("\"x\":{}1", " ".repeat(10 << 20))),
        ),
        (
            "ten megabytes of text",
            inside(&format!("\"x\":\"{}\"", "y".repeat(10 << 20))),
        ),
        (
            "a hundred thousand annotations",
            inside(&format!("\"annotations\":{}", Value::Object(many))),
        ),
        (
            "deep lists",
            inside(&format!(
                "\"x\":{}{}",
                "[".repeat(200_000),
                "]".repeat(200_000)
            )),
        ),
        (
            "deep objects",
            inside(&format!(
                "\"x\":{}1{}",
                "{\"a\":".repeat(200_000),
                "}".repeat(200_000)
            )),
        ),
        ("never closed", "[".repeat(1_000_000)),
        ("a huge number", inside("\"x\":1e999999999")),
        ("nothing", String::new()),
        ("zeros", "\0".repeat(1 << 20)),
        ("another encoding", "\u{feff}{}".to_owned()),
    ];
    let dir = bundle.dir.display().to_string();
    for (name, text) in cases {
        fs::write(bundle.dir.join("config.json"), text).expect("write");
        let begin = Instant::now();
        let out = bundle.runtime.run(&["run", "--bundle", &dir, &bundle.id]);
        println!("{name}: {} after {:?}", out.code, begin.elapsed());
        assert_calm(begin, &out, name);
        drop(bundle.runtime.run(&["delete", "--force", &bundle.id]));
        fleet_tests::assert_nothing_left(&bundle);
    }
}

#[test]
fn hostile_annotations() {
    if not_for_peers("hostile_annotations") {
        return;
    }
    cdi(&json!({"env": ["GOT=device"]}));
    let long = "x".repeat(100_000);
    for (key, value) in [
        ("cdi.k8s.io/test", "test.com/dev=../../../etc/passwd"),
        ("cdi.k8s.io/test", "../../etc/cdi/test.com/dev=0"),
        ("cdi.k8s.io/test", "test.com/dev=0\n--hint: all is well"),
        ("cdi.k8s.io/test", "test.com/dev=\u{1b}[31m"),
        ("cdi.k8s.io/test", long.as_str()),
        ("cdi.k8s.io/../../x", "test.com/dev=0;rm -rf /"),
        ("cdi.k8s.io/test", "test.com/dev=$(id)"),
        ("cdi.k8s.io/test", ",,,,"),
        ("run.oci.hooks.stdout", "/run/written-by-annotation"),
        ("run.oci.handler", "../../../bin/sh"),
        ("run.oci.seccomp_fail_unknown_syscall", "1"),
        ("org.criu.config", "/etc/passwd"),
        (
            "org.systemd.property.ExecStartPre",
            "'/bin/touch /run/written-by-annotation'",
        ),
        ("nvidia.cdi.k8s.io/container.x", "../../x"),
    ] {
        let mut bundle = Bundle::new("echo $GOT");
        bundle.spec["annotations"] = json!({key: value});
        let begin = Instant::now();
        let out = bundle.run();
        let context = format!("{key}: {}", value.chars().take(40).collect::<String>());
        assert_calm(begin, &out, &context);
        if key.starts_with("cdi.k8s.io/") {
            assert_ne!(out.stdout, "device\n", "{context}");
        }
        assert!(
            !out.stderr.trim_end().contains(|c: char| c.is_control()),
            "{out:#?}"
        );
        assert!(
            !fs::exists("/run/written-by-annotation").expect("look"),
            "{context}"
        );
        fleet_tests::assert_nothing_left(&bundle);
    }
}

/// What a CDI file names stays below the root, and what it must not name is refused.
#[test]
fn paths_of_cdi_files() {
    if not_for_peers("paths_of_cdi_files") {
        return;
    }
    let hook = |args: &[&str]| {
        json!({"hooks": [{
            "hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook",
            "args": ([&["nvidia-cdi-hook"], args].concat()),
        }]})
    };
    let bundle = Bundle::new("exit 0");
    let trap = Trap::new(bundle.dir.join("trap"));
    let up = format!("/../../../../../..{}", trap.dir.display());
    let link = |name: &str| format!("target::{name}");
    let cases = [
        json!({"mounts": [{"hostPath": "/etc/hostname", "containerPath": format!("{up}/new")}]}),
        json!({"mounts": [{"hostPath": "/etc/../etc/hostname", "containerPath": "relative/../../x"}]}),
        json!({"mounts": [{"hostPath": "../../etc", "containerPath": "/x"}]}),
        json!({"deviceNodes": [{"path": format!("/dev{up}/node"), "hostPath": "/dev/null"}]}),
        json!({"deviceNodes": [{"path": "/dev/../../x", "hostPath": "/etc/passwd"}]}),
        hook(&["create-symlinks", "--link", &link(&format!("{up}/link"))]),
        hook(&[
            "create-symlinks",
            "--link",
            &link("../../../../../../run/link"),
        ]),
        hook(&["update-ldcache", "--folder", &up]),
        hook(&["update-ldcache", "--folder", "../../../.."]),
        hook(&["chmod", "--mode", "777", "--path", &up]),
        hook(&[
            "chmod",
            "--mode",
            "777",
            "--path",
            "/../../../../etc/shadow",
        ]),
        hook(&["enable-cuda-compat", "--host-driver-version", "../../../x"]),
    ];
    let shadow = fs::metadata("/etc/shadow")
        .ok()
        .map(|meta| std::os::unix::fs::MetadataExt::mode(&meta));
    for edits in cases {
        cdi(&edits);
        let mut bundle = Bundle::new("exit 0");
        bundle.spec["annotations"] = json!({"cdi.k8s.io/test": "test.com/dev=0"});
        let begin = Instant::now();
        let out = bundle.run();
        assert_calm(begin, &out, &edits.to_string());
        trap.assert_untouched(&edits.to_string());
        assert!(!fs::exists("/run/link").expect("look"), "{edits}");
        let now = fs::metadata("/etc/shadow")
            .ok()
            .map(|meta| std::os::unix::fs::MetadataExt::mode(&meta));
        assert_eq!(shadow, now, "{edits}");
        fleet_tests::assert_nothing_left(&bundle);
    }
}
