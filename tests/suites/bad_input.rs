//! Bad input: a clear error, the right exit code, and nothing left behind.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::type_complexity
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fleet_tests::{Bundle, assert_nothing_left};
use serde_json::{Value, json};

/// Name, what is done to a good bundle, and a word that the error must have.
type Case = (&'static str, fn(Bundle) -> Bundle, &'static str);

fn set(pointer: &'static str, value: Value) -> impl FnOnce(Bundle) -> Bundle {
    move |bundle| bundle.set(pointer, value)
}

/// Creates, and checks all that a failed create promises.
#[track_caller]
fn refused(name: &str, bundle: &Bundle, word: &str) {
    println!("{name}");
    let log = bundle.dir.join("log");
    drop(fs::remove_file(&log));
    let args = ["--log", log.to_str().expect("text"), "--log-format", "json"];
    let dir = bundle.dir.display().to_string();
    let out = bundle
        .runtime
        .run(&[&args[..], &["create", "--bundle", &dir, &bundle.id]].concat());
    assert_eq!(out.code, 1, "{name}: {out:#?}");
    assert!(
        out.stderr.contains(word),
        "{name}: `{word}` is not in {out:#?}"
    );
    assert_eq!(out.stderr.trim_end().lines().count(), 1, "{name}: {out:#?}");
    // What Rust shows to developers.
    assert!(!out.stderr.contains("Some("), "{name}: {out:#?}");
    let record: Value = serde_json::from_str(&fs::read_to_string(&log).expect("log"))
        .unwrap_or_else(|err| panic!("{name}: {err}"));
    assert!(
        record["msg"].as_str().expect("msg").contains(word) && record["level"] == "error",
        "{name}: {record}"
    );
    assert_nothing_left(bundle);
}

const SPEC: [Case; 31] = [
    (
        "no version",
        |b| set("/ociVersion", json!(null))(b),
        "ociVersion",
    ),
    (
        "version of the future",
        |b| set("/ociVersion", json!("2.0.0"))(b),
        "2.0.0",
    ),
    (
        "no process",
        |b| set("/process", json!(null))(b),
        "no `process`",
    ),
    (
        "process is a list",
        |b| set("/process", json!([]))(b),
        "process",
    ),
    (
        "no program",
        |b| set("/process/args", json!([]))(b),
        "process.args",
    ),
    (
        "args is text",
        |b| set("/process/args", json!("sh"))(b),
        "process.args",
    ),
    (
        "program missing",
        |b| set("/process/args", json!(["/no/such"]))(b),
        "executable file `/no/such` not found: no such file or directory",
    ),
    (
        "program not in PATH",
        |b| set("/process/args", json!(["nope"]))(b),
        "not found in $PATH",
    ),
    (
        "program is a directory",
        |b| set("/process/args", json!(["/bin"]))(b),
        "is a directory",
    ),
    (
        "program not executable",
        |b| set("/process/args", json!(["/etc/passwd"]))(b),
        "permission denied; hint: the file has no execute permission",
    ),
    (
        "program on a noexec mount",
        |b| {
            set("/process/args", json!(["/noexec/busybox"]))(b.mount(
                "/noexec",
                "bind",
                "/bin",
                &["rbind", "noexec"],
            ))
        },
        "permission denied; hint: its file system is mounted noexec",
    ),
    (
        "relative cwd",
        |b| set("/process/cwd", json!("tmp"))(b),
        "absolute",
    ),
    (
        "uid too large",
        |b| set("/process/user/uid", json!(99_999_999_999_i64))(b),
        "uid",
    ),
    (
        "negative gid",
        |b| set("/process/user/gid", json!(-1))(b),
        "gid",
    ),
    ("root is text", |b| set("/root", json!("rootfs"))(b), "root"),
    (
        "root missing",
        |b| set("/root/path", json!("nowhere"))(b),
        "nowhere",
    ),
    (
        "root is a file",
        |b| set("/root/path", json!("config.json"))(b),
        "not a directory",
    ),
    (
        "root is the host's",
        |b| set("/root/path", json!("/"))(b),
        "host",
    ),
    ("unknown namespace", |b| b.namespace("moon", None), "moon"),
    (
        "no mount namespace",
        |b| set("/linux/namespaces", json!([{"type": "pid"}]))(b),
        "mount namespace",
    ),
    (
        "user namespace without maps",
        |b| b.namespace("user", None),
        "uidMappings",
    ),
    (
        "namespace path missing",
        |b| b.namespace("network", Some("/run/netns/none")),
        "No such file",
    ),
    (
        "mount without destination",
        |b| set("/mounts", json!([{"type": "tmpfs"}]))(b),
        "destination",
    ),
    (
        "mount source missing",
        |b| b.mount("/v", "bind", "/no/such/volume", &["bind"]),
        "/no/such/volume",
    ),
    (
        "mount of an unknown type",
        |b| b.mount("/v", "moonfs", "x", &[]),
        "failed to mount `/v` (moonfs): No such device",
    ),
    (
        "mount option is no text",
        |b| {
            set(
                "/mounts",
                json!([{"destination": "/v", "type": "tmpfs", "options": [1]}]),
            )(b)
        },
        "options",
    ),
    (
        "idmapped mount",
        |b| b.mount("/v", "bind", "/tmp", &["bind", "idmap"]),
        "idmapped",
    ),
    (
        "device without number",
        |b| set("/linux/devices", json!([{"path": "/dev/x", "type": "c"}]))(b),
        "/dev/x",
    ),
    (
        "device of an unknown type",
        |b| {
            set(
                "/linux/devices",
                json!([{"path": "/dev/x", "type": "q", "major": 1, "minor": 1}]),
            )(b)
        },
        "\"q\"",
    ),
    (
        "device rule with bad access",
        |b| {
            set(
                "/linux/resources/devices",
                json!([{"allow": true, "access": "x"}]),
            )(b)
        },
        "devices",
    ),
    (
        "seccomp action unknown",
        |b| set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_MOON"}))(b),
        "SCMP_ACT_MOON",
    ),
];

const MORE: [Case; 8] = [
    (
        "seccomp notify",
        |b| {
            set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            )(b)
        },
        "SCMP_ACT_NOTIFY",
    ),
    (
        "intel rdt",
        |b| set("/linux/intelRdt", json!({"closID": "x"}))(b),
        "intelRdt",
    ),
    (
        "rlimit unknown",
        |b| {
            set(
                "/process/rlimits",
                json!([{"type": "RLIMIT_MOON", "soft": 1, "hard": 1}]),
            )(b)
        },
        "RLIMIT_MOON",
    ),
    (
        "rlimit upside down",
        |b| {
            set(
                "/process/rlimits",
                json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]),
            )(b)
        },
        "RLIMIT_CORE",
    ),
    (
        "oom score out of range",
        |b| set("/process/oomScoreAdj", json!(5000))(b),
        "oomScoreAdj",
    ),
    (
        "sysctl unknown",
        |b| set("/linux/sysctl", json!({"net.no.such": "1"}))(b),
        "net.no.such",
    ),
    (
        "capabilities are text",
        |b| set("/process/capabilities", json!({"bounding": "CAP_KILL"}))(b),
        "capabilities",
    ),
    (
        "hook missing",
        |b| {
            set(
                "/hooks",
                json!({"createRuntime": [{"path": "/no/such/hook"}]}),
            )(b)
        },
        "/no/such/hook",
    ),
];

#[test]
fn specs() {
    for (name, change, word) in SPEC.iter().chain(&MORE) {
        let bundle = change(Bundle::new("true"));
        bundle.write();
        refused(name, &bundle, word);
    }
}

#[test]
fn broken_files() {
    let bundle = Bundle::new("true");
    for (name, text, word) in [
        ("empty", "", "config.json"),
        ("cut off", "{\"ociVersion\": \"1.0", "config.json"),
        ("a list", "[]", "object"),
        ("not text", "\u{1}\u{2}", "config.json"),
    ] {
        fs::write(bundle.dir.join("config.json"), text).expect("write");
        refused(name, &bundle, word);
    }
    fs::remove_file(bundle.dir.join("config.json")).expect("remove");
    refused("no config.json", &bundle, "config.json");
}

#[test]
fn ids_and_bundles() {
    let bundle = Bundle::new("sleep 100");
    bundle.write();
    let dir = bundle.dir.display().to_string();
    for id in ["a/b", "../x", "", ".hidden", "with space"] {
        drop(
            bundle
                .runtime
                .run(&["create", "--bundle", &dir, id])
                .fails("invalid container id"),
        );
    }
    drop(
        bundle
            .runtime
            .run(&["create", "--bundle", "/no/such/bundle", "id"])
            .fails("/no/such/bundle"),
    );
    drop(
        bundle
            .make("create", &["--console-socket", "/no/such/socket"])
            .fails("socket"),
    );
    drop(
        bundle
            .make("create", &["--pid-file", "/no/such/dir/pid"])
            .fails("/no/such/dir/pid"),
    );
    assert_nothing_left(&bundle);
    bundle.start();
    drop(bundle.make("create", &[]).fails("already exists"));
    assert_eq!(
        bundle.runtime.state(&bundle.id)["status"],
        "running",
        "the first one lives"
    );
    drop(bundle.runtime.run(&["delete", &bundle.id]).fails("running"));
    drop(bundle.runtime.run(&["start", &bundle.id]).fails("running"));
    drop(
        bundle
            .runtime
            .run(&["kill", &bundle.id, "MOON"])
            .fails("MOON"),
    );
}

#[test]
fn a_damaged_record_can_be_removed() {
    let bundle = Bundle::new("true");
    fs::create_dir_all(bundle.runtime.root.join(&bundle.id)).expect("mkdir");
    fs::write(bundle.runtime.root.join(&bundle.id).join("state.json"), "{").expect("write");
    drop(bundle.runtime.run(&["state", &bundle.id]).fails("damaged"));
    assert_eq!(bundle.runtime.run(&["list", "-q"]).code, 0);
    bundle.remove();
    assert_nothing_left(&bundle);
}

const GOOD: &str = "cdiVersion: 0.5.0\nkind: test.com/dev\ndevices:\n- name: \"0\"\n  containerEdits:\n    env: [GOT=good]\n";

/// Writes CDI files and asks for devices by annotation.
fn cdi(files: &[(&str, &str)], devices: &str) -> Bundle {
    drop(fs::remove_dir_all("/run/cdi"));
    for dir in ["/etc/cdi", "/run/cdi"] {
        fs::create_dir_all(dir).expect("mkdir");
        for entry in fs::read_dir(dir).expect("list").flatten() {
            drop(fs::remove_file(entry.path()));
        }
    }
    for (name, text) in files {
        fs::write(Path::new("/etc/cdi").join(name), text).expect("write");
    }
    let bundle = Bundle::new("echo $GOT").set("/annotations", json!({"cdi.k8s.io/test": devices}));
    bundle.write();
    bundle
}

#[test]
fn cdi_requests() {
    let stale = GOOD.replace(
        "env: [GOT=good]",
        "mounts: [{hostPath: /no/such/lib.so.1, containerPath: /lib.so.1}]",
    );
    let node = GOOD.replace(
        "env: [GOT=good]",
        "deviceNodes: [{path: /dev/no-such-node}]",
    );
    let field = GOOD.replace("kind:", "color: red\nkind:");
    let cases: [(&str, &[(&str, &str)], &str, &str); 12] = [
        (
            "unknown device",
            &[("a.yaml", GOOD)],
            "test.com/dev=7",
            "known devices of test.com/dev are 0",
        ),
        (
            "unknown kind",
            &[("a.yaml", GOOD)],
            "other.com/dev=0",
            "no CDI spec of kind other.com/dev",
        ),
        (
            "no specs at all",
            &[],
            "test.com/dev=0",
            "no CDI spec of kind",
        ),
        (
            "conflict",
            &[("a.yaml", GOOD), ("b.yaml", GOOD)],
            "test.com/dev=0",
            "b.yaml",
        ),
        (
            "only file is broken",
            &[("bad.yaml", "kind: [")],
            "test.com/dev=0",
            "bad.yaml",
        ),
        (
            "unknown field",
            &[("field.yaml", &field)],
            "test.com/dev=0",
            "color",
        ),
        (
            "missing host file",
            &[("a.yaml", &stale)],
            "test.com/dev=0",
            "/no/such/lib.so.1",
        ),
        (
            "missing host node",
            &[("a.yaml", &node)],
            "test.com/dev=0",
            "/dev/no-such-node",
        ),
        (
            "path in the name",
            &[("a.yaml", GOOD)],
            "test.com/dev=../0",
            "test.com/dev=../0",
        ),
        ("no kind", &[("a.yaml", GOOD)], "test.com", "test.com"),
        (
            "empty name",
            &[("a.yaml", GOOD)],
            "test.com/dev=0,",
            "invalid",
        ),
        (
            "control characters",
            &[("a.yaml", GOOD)],
            "test.com/dev=0\u{7}",
            "invalid",
        ),
    ];
    for (name, files, devices, word) in cases {
        let bundle = cdi(files, devices);
        refused(name, &bundle, word);
        let text = bundle
            .runtime
            .run(&[
                "create",
                "--bundle",
                bundle.dir.to_str().expect("text"),
                &bundle.id,
            ])
            .stderr
            .to_lowercase();
        for trigger in ["not found", "no such file", "permission denied"] {
            assert!(
                !text.contains(trigger),
                "{name}: Podman would read `{trigger}` as the container's own: {text}"
            );
        }
    }
}

#[test]
fn a_broken_spec_beside_a_good_one_does_no_harm() {
    let bundle = cdi(
        &[
            ("a.yaml", GOOD),
            ("bad.yaml", "kind: ["),
            ("worse.json", "{"),
        ],
        "test.com/dev=0",
    );
    assert_eq!(bundle.run().ok(), "good\n");
}

#[test]
fn ten_megabytes_of_annotations() {
    let bundle = cdi(&[("a.yaml", GOOD)], "test.com/dev=0")
        .set("/annotations/big", json!("x".repeat(10 * 1024 * 1024)));
    assert_eq!(bundle.run().ok(), "good\n");
    let bundle = cdi(&[("a.yaml", GOOD)], &"y".repeat(10 * 1024 * 1024));
    refused("ten megabytes of nonsense", &bundle, "cdi.k8s.io/test");
    let size = bundle.make("create", &[]).stderr.len();
    assert!(size < 8192, "conmon reads 8 KiB: {size}");
}

#[test]
fn a_container_without_request_needs_no_cdi_directory() {
    drop(cdi(&[("bad.yaml", "kind: [")], "x/y=z"));
    fs::set_permissions("/etc/cdi", fs::Permissions::from_mode(0o000)).expect("chmod");
    let bundle = Bundle::new("echo fine");
    assert_eq!(bundle.run().ok(), "fine\n");
    fs::set_permissions("/etc/cdi", fs::Permissions::from_mode(0o755)).expect("chmod");
}
