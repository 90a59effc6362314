//! Buildah itself, with its `oci` isolation: `run`, and `build` with RUN steps.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use fleet_tests::engine::{gpus, installed, on_terminal};
use fleet_tests::{Output, path, run, skip, unique};

/// Storage and a container to run in of each image, once for all tests.
fn ready(test: &str) -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    if !*READY.get_or_init(|| installed("buildah")) {
        skip(test, "buildah is not installed");
        return false;
    }
    static IMAGES: OnceLock<()> = OnceLock::new();
    IMAGES.get_or_init(|| {
        fs::create_dir_all("/run/buildah-suite").expect("mkdir");
        // Settings for a machine without systemd and without the right to raise limits.
        fs::write("/etc/containers/containers.conf", "[engine]\ncgroup_manager = \"cgroupfs\"\n[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=1024:4096\"]\n").expect("write containers.conf");
        drop(buildah(&["from", "--name", "empty", "scratch"]).ok());
        let tar = path("FLEET_STATE").join("images/busybox.tar");
        drop(buildah(&["add", "-q", "empty", tar.to_str().expect("text"), "/"]).ok());
        drop(buildah(&["config", "--env", "PATH=/bin:/usr/bin", "--cmd", "/bin/sh", "empty"]).ok());
        drop(buildah(&["commit", "-q", "--rm", "empty", "fleet-busybox"]).ok());
        drop(buildah(&["from", "--name", "box", "fleet-busybox"]).ok());
    });
    true
}

fn storage() -> [&'static str; 6] {
    [
        "--root",
        "/run/buildah-suite/storage",
        "--runroot",
        "/run/buildah-suite/run",
        "--storage-driver",
        "vfs",
    ]
}

fn buildah(args: &[&str]) -> Output {
    run(Command::new("buildah").args(storage()).args(args))
}

/// `buildah run`.
fn inside(options: &[&str], program: &[&str]) -> Output {
    in_container("box", options, program)
}

fn in_container(name: &str, options: &[&str], program: &[&str]) -> Output {
    let binary = path("RUNTIME_UNDER_TEST").display().to_string();
    let fixed = ["run", "--isolation", "oci", "--runtime", &binary];
    buildah(&[&fixed, options, &[name, "--"], program].concat())
}

fn build(options: &[&str], text: &str) -> (String, Output) {
    let dir = PathBuf::from("/run/buildah-suite").join(unique("context"));
    fs::create_dir_all(&dir).expect("mkdir");
    fs::write(dir.join("Containerfile"), text).expect("write");
    let (binary, tag) = (
        path("RUNTIME_UNDER_TEST").display().to_string(),
        unique("built"),
    );
    let fixed = [
        "build",
        "--isolation",
        "oci",
        "--network",
        "host",
        "--runtime",
        &binary,
        "-t",
        &tag,
    ];
    let out = buildah(&[&fixed, options, &[dir.to_str().expect("text")]].concat());
    (tag, out)
}

/// Buildah polls `state`, and ends with `delete` and a `kill` without a signal.
#[test]
fn run_in_a_container() {
    if !ready("run_in_a_container") {
        return;
    }
    assert_eq!(
        inside(&[], &["sh", "-c", "echo hi; cat /proc/1/comm"]).ok(),
        "hi\ncat\n"
    );
    assert_eq!(inside(&[], &["sh", "-c", "exit 5"]).code, 5);
    assert_eq!(
        inside(
            &["--user", "1000", "--workingdir", "/tmp", "--env", "A=b"],
            &["sh", "-c", "id -u; pwd; echo $A"]
        )
        .ok(),
        "1000\n/tmp\nb\n"
    );
    assert_eq!(
        inside(
            &["--volume", "/etc:/v:ro"],
            &[
                "sh",
                "-c",
                "test -e /v/passwd; touch /v/x 2>/dev/null || echo ro"
            ]
        )
        .ok(),
        "ro\n"
    );
    assert_eq!(
        inside(
            &["--cap-drop", "all"],
            &["grep", "CapEff", "/proc/self/status"]
        )
        .ok(),
        "CapEff:\t0000000000000000\n"
    );
    let missing = inside(&[], &["/no/such"]);
    let words = "fleet-nvidia: executable file `/no/such` not found: no such file or directory";
    assert!(
        missing.code == 1 && missing.stderr.contains(words),
        "{missing:#?}"
    );
    let binary = path("RUNTIME_UNDER_TEST").display().to_string();
    let terminal = on_terminal(&format!(
        "buildah {} run --isolation oci --runtime {binary} --terminal box sh -c 'tty; exit 3'",
        storage().join(" ")
    ));
    assert!(
        terminal.code == 3 && terminal.stdout.contains("/dev/pts/0"),
        "{terminal:#?}"
    );
    let left = fs::read_dir("/run/fleet-nvidia").map_or(0, |all| {
        all.flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .count()
    });
    assert_eq!(left, 0, "state of a container is left");
}

#[test]
fn build_with_run_steps() {
    if !ready("build_with_run_steps") {
        return;
    }
    let (tag, out) = build(
        &[],
        "FROM fleet-busybox\nRUN echo built > /built\nRUN --mount=type=tmpfs,target=/t touch /t/x && id -u >> /built\nUSER 1000\nRUN id -u > /tmp/who\n",
    );
    drop(out.ok());
    drop(buildah(&["from", "--name", &tag, &tag]).ok());
    assert_eq!(
        in_container(&tag, &[], &["cat", "/built", "/tmp/who"]).ok(),
        "built\n0\n1000\n"
    );
    let (_, failed) = build(&[], "FROM fleet-busybox\nRUN exit 6\n");
    assert!(
        failed.code != 0 && failed.stderr.contains("exit status 6"),
        "{failed:#?}"
    );
}

/// Where a variable reaches the container's process: `buildah run --env`, and ENV in a Containerfile.
#[test]
fn gpus_by_environment() {
    let test = "gpus_by_environment";
    if !gpus(test) || !ready(test) {
        return;
    }
    let nodes = ["sh", "-c", "cd /dev; echo nvidia*"];
    let with =
        |gpu: &str| inside(&["--env", &format!("NVIDIA_VISIBLE_DEVICES={gpu}")], &nodes).ok();
    let (zero, all) = (with("0"), with("all"));
    assert!(
        zero.contains("nvidia0") && !zero.contains("nvidia1"),
        "{zero}"
    );
    assert!(all.contains("nvidia0") && all.contains("nvidia1"), "{all}");
    assert_eq!(inside(&[], &nodes).ok(), "nvidia*\n");
    let wrong = inside(&["--env", "NVIDIA_VISIBLE_DEVICES=9"], &["true"]);
    let words = "fleet-nvidia: unresolvable CDI devices nvidia.com/gpu=9";
    assert!(
        wrong.code == 1 && wrong.stderr.contains(words),
        "{wrong:#?}"
    );
    let (tag, out) = build(
        &[],
        "FROM fleet-busybox\nENV NVIDIA_VISIBLE_DEVICES=1\nRUN cd /dev; echo nvidia* > /seen\n",
    );
    drop(out.ok());
    drop(buildah(&["from", "--name", &tag, &tag]).ok());
    let seen = in_container(
        &tag,
        &["--env", "NVIDIA_VISIBLE_DEVICES=void"],
        &["cat", "/seen"],
    )
    .ok();
    assert!(
        seen.contains("nvidia1") && !seen.contains("nvidia0"),
        "{seen}"
    );
}
