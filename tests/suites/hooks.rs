//! The hooks for other runtimes: crun and runc under Podman get what our own runtime gives.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use fleet_tests::{Output, path, run, skip, unique};
use serde_json::{Value, json};

const STATE: &str = "/run/podman-suite";
const CDI: &str = "/etc/cdi/nvidia.yaml";
/// Base name of a program whose hooks are ours, in a directory that is not the host's own.
const HOOK: &str = "/run/hooks-suite/nvidia-cdi-hook";
const OTHERS: [&str; 2] = ["crun", "runc"];

/// Storage and configuration, shared with the Podman suite, and a node whose spec names [`HOOK`].
fn ready(test: &str) -> bool {
    static READY: OnceLock<Option<String>> = OnceLock::new();
    let failed = READY.get_or_init(|| {
        let top = path("FLEET_STATE").parent().expect("the project").to_path_buf();
        let script = format!(
            "set -eu; mkdir -p {STATE} /run/hooks-suite; TOP={top} STATE={STATE} RUNTIME={runtime}; . $TOP/tests/setup/podman.sh
            ln -sfn $RUNTIME {HOOK}; ln -sfn $RUNTIME /run/hooks-suite/nvidia-ctk
            for image in busybox glibc glibc-bare musl; do
                podman image exists fleet-$image || podman import -q $TOP/.state/images/$image.tar fleet-$image >/dev/null
            done
            rm -rf /run/cdi
            {programs}/fleet-simulate create --machine h100x2 --root /run/sim-node --cdi {CDI} || exit 77",
            top = top.display(),
            runtime = path("RUNTIME_UNDER_TEST").display(),
            programs = path("FLEET_PROGRAMS").display(),
        );
        let out = run(Command::new("bash").args(["-c", &script]));
        assert!(matches!(out.code, 0 | 77), "{out:#?}");
        (out.code != 0).then(|| out.stderr.trim().to_owned())
    });
    match failed {
        Some(reason) => skip(test, reason),
        None => spec(|text| text.replace("/usr/bin/nvidia-cdi-hook", HOOK)),
    }
    failed.is_none()
}

/// Rewrites the node's spec, from the form in which it was made.
fn spec(change: impl Fn(&str) -> String) {
    static MADE: OnceLock<String> = OnceLock::new();
    let made = MADE.get_or_init(|| fs::read_to_string(CDI).expect("read the CDI spec"));
    fs::write(CDI, change(made)).expect("write the CDI spec");
}

/// crun refuses hybrid cgroups: it sees the version 1 part alone.
fn podman(runtime: &str, args: &[&str]) -> Output {
    const VIEW: &str = "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; exec podman \"$@\"";
    run(Command::new("unshare")
        .env("CONTAINERS_CONF", format!("{STATE}/containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", format!("{STATE}/storage.conf"))
        .args([
            "--mount",
            "--propagation",
            "private",
            "bash",
            "-c",
            VIEW,
            "podman",
        ])
        .args(["--runtime", runtime])
        .args(args))
}

/// Every file and link of the container that hooks write, by content.
const CONTENT: &str = "find /etc /usr /lib /lib64 | sort | while read -r f; do case $f in /etc/hosts|/etc/hostname|/etc/resolv.conf|/etc/mtab) continue;; esac
    if [ -L $f ]; then echo \"$f -> $(readlink $f)\"; elif [ -f $f ]; then md5sum $f; else echo $f; fi; done; nvidia-smi -L";

#[test]
fn a_generated_spec_gives_the_same_container_under_every_runtime() {
    if !ready("a_generated_spec_gives_the_same_container_under_every_runtime") {
        return;
    }
    for image in ["fleet-glibc", "fleet-glibc-bare"] {
        let content = |runtime: &str| {
            let options = [
                "run",
                "--rm",
                "--device",
                "nvidia.com/gpu=all",
                image,
                "sh",
                "-c",
                CONTENT,
            ];
            podman(runtime, &options).ok()
        };
        let ours = content("fleet-nvidia");
        for word in [
            "/etc/ld.so.cache",
            "libcuda.so.1 -> ",
            "10-container.conf",
            "GPU 1: NVIDIA H100",
        ] {
            assert!(ours.contains(word), "{word}: {ours}");
        }
        for runtime in OTHERS {
            assert_eq!(content(runtime), ours, "{image} under {runtime}");
        }
    }
    for runtime in OTHERS {
        let musl = [
            "run",
            "--rm",
            "--device",
            "nvidia.com/gpu=0",
            "fleet-musl",
            "open",
            "libcuda.so.1",
        ];
        assert_eq!(podman(runtime, &musl).ok(), "libcuda.so.1: ok\n");
    }
}

/// `runtimes` of the configuration: our runtime edits the spec, another one runs the container.
#[test]
fn a_container_that_is_handed_on_gets_the_same() {
    if !ready("a_container_that_is_handed_on_gets_the_same") {
        return;
    }
    let handed = |to: &str, args: &[&str]| {
        let file = format!("/run/hooks-suite/{to}.toml");
        fs::write(&file, format!("runtimes = [\"{to}\"]\n")).expect("write");
        let flag = format!("config={file}");
        podman("fleet-nvidia", &[&["--runtime-flag", &flag], args].concat())
    };
    let gpu = ["run", "--rm", "--device", "nvidia.com/gpu=all"];
    let variable = ["run", "--rm", "-e", "NVIDIA_VISIBLE_DEVICES=1"];
    for asked in [&gpu, &variable] {
        let all = [&asked[..], &["fleet-glibc", "sh", "-c", CONTENT]].concat();
        let ours = podman("fleet-nvidia", &all).ok();
        assert!(ours.contains("libcuda.so.1 -> "), "{ours}");
        for to in OTHERS {
            assert_eq!(handed(to, &all).ok(), ours, "{asked:?} by {to}");
        }
    }
    for to in OTHERS {
        let name = format!("handed-{to}");
        let long = [
            "run",
            "--detach",
            "--name",
            &name,
            "--device",
            "nvidia.com/gpu=0",
            "fleet-glibc",
            "sleep",
            "100",
        ];
        let id = handed(to, &long).ok();
        // From here on without the setting.
        let later = |args: &[&str]| podman("fleet-nvidia", args);
        let smi = later(&["exec", &name, "nvidia-smi", "-L"]).ok();
        assert_eq!(smi.lines().count(), 1, "{smi}");
        assert_eq!(later(&["exec", &name, "sh", "-c", "exit 7"]).code, 7);
        let missing = later(&["exec", &name, "/no/such/program"]);
        assert_eq!(missing.code, 127, "{missing:?}");
        let mut explain = Command::new(path("FLEET_CTL"));
        let explained = run(explain.args(["explain", id.trim()])).ok();
        assert!(
            explained
                .lines()
                .next()
                .is_some_and(|line| line.starts_with("run by /") && line.ends_with(to)),
            "{explained}"
        );
        drop(later(&["pause", &name]).ok());
        drop(later(&["unpause", &name]).ok());
        drop(later(&["stop", "--time", "0", &name]).ok());
        drop(later(&["rm", &name]).ok());
        assert!(!Path::new("/run/fleet-nvidia").join(id.trim()).exists());
        // An error has the other runtime's words in Podman's own shape.
        let failed = handed(to, &["run", "--rm", "fleet-glibc", "/no/such/program"]);
        assert_eq!(failed.code, 127, "{failed:?}");
        assert!(failed.stderr.contains(&format!("{to}: ")), "{failed:?}");
    }
    let mapped = [
        &[
            "run",
            "--rm",
            "--uidmap",
            "0:100000:65000",
            "--device",
            "nvidia.com/gpu=all",
        ][..],
        &["fleet-glibc", "nvidia-smi", "-L"],
    ]
    .concat();
    assert_eq!(handed("crun", &mapped).ok().lines().count(), 2);
}

/// Content for comparison with hooks that write the loader's configuration under names of their own: what ldconfig
/// prints of the cache stands for it.
const LOOKED_UP: &str = "find /etc /usr /lib /lib64 2>/dev/null | sort | while read -r f; do case $f in /etc/hosts|/etc/hostname|/etc/resolv.conf|/etc/mtab|/etc/ld*) continue;; esac
    if [ -L $f ]; then echo \"$f -> $(readlink $f)\"; elif [ -f $f ]; then md5sum $f; else echo $f; fi; done
    if [ -x /sbin/ldconfig ]; then ldconfig -p | grep -v 'Cache generated'; nvidia-smi -L; fi";

/// The program that NVIDIA ships, where the machine has it: `FLEET_TOOLKIT_HOOK` names it, or it is at its usual place.
#[test]
fn what_nvidias_own_program_does() {
    let named = std::env::var("FLEET_TOOLKIT_HOOK")
        .unwrap_or_else(|_| "/usr/bin/nvidia-cdi-hook".to_owned());
    if !Path::new(&named).exists() {
        skip(
            "what_nvidias_own_program_does",
            "no nvidia-cdi-hook on this machine, and FLEET_TOOLKIT_HOOK names none",
        );
        return;
    }
    if !ready("what_nvidias_own_program_does") {
        return;
    }
    for image in ["fleet-glibc", "fleet-glibc-bare", "fleet-musl"] {
        let content = |program: &str| {
            spec(|text| text.replace("/usr/bin/nvidia-cdi-hook", program));
            let options = [
                "run",
                "--rm",
                "--device",
                "nvidia.com/gpu=all",
                image,
                "sh",
                "-c",
                LOOKED_UP,
            ];
            podman("runc", &options).ok()
        };
        assert_eq!(content(HOOK), content(&named), "{image}");
    }
}

#[test]
fn read_only_users_and_volumes() {
    if !ready("read_only_users_and_volumes") {
        return;
    }
    let script = "nvidia-smi -L | wc -l; touch /x 2>/dev/null || echo no";
    for runtime in OTHERS {
        for (options, want) in [
            (&["--read-only"][..], "2\nno\n"),
            (&["--user", "1000"], "2\nno\n"),
            (&["-v", "/run/hooks-suite/etc:/etc"], "2\n"),
        ] {
            fs::create_dir_all("/run/hooks-suite/etc").expect("mkdir");
            let base = ["run", "--rm", "--device", "nvidia.com/gpu=all"];
            let all = [&base[..], options, &["fleet-glibc", "sh", "-c", script]].concat();
            assert_eq!(podman(runtime, &all).ok(), want, "{runtime} {options:?}");
        }
    }
    // runc binds the nodes of a user namespace from their path in the container, which the simulated node has not.
    let mapped = [
        "run",
        "--rm",
        "--uidmap",
        "0:100000:65000",
        "--device",
        "nvidia.com/gpu=all",
        "fleet-glibc",
        "sh",
        "-c",
        script,
    ];
    assert_eq!(podman("crun", &mapped).ok(), "2\n");
}

/// CVE-2025-23266: a hook that inherits the container's environment must not load the image's library.
#[test]
fn a_library_that_the_image_preloads_is_not_loaded() {
    if !ready("a_library_that_the_image_preloads_is_not_loaded") {
        return;
    }
    let dir = PathBuf::from("/run/hooks-suite/evil");
    fs::create_dir_all(&dir).expect("mkdir");
    let source = "#include <fcntl.h>\n#include <unistd.h>\n__attribute__((constructor)) static void f(void) { close(open(\"/run/hooks-suite/evil/ran\", O_CREAT | O_WRONLY, 0644)); }";
    fs::write(dir.join("evil.c"), source).expect("write");
    drop(
        run(Command::new("gcc")
            .current_dir(&dir)
            .args(["-shared", "-fPIC", "-o", "evil.so", "evil.c"]))
        .ok(),
    );
    // The library does what it says.
    drop(run(Command::new("/bin/true").env("LD_PRELOAD", dir.join("evil.so"))).ok());
    assert!(fs::remove_file(dir.join("ran")).is_ok());
    spec(|text| {
        text.replace("/usr/bin/nvidia-cdi-hook", HOOK)
            .replace("    env:\n    - NVIDIA_CTK_DEBUG=false\n", "")
    });
    for runtime in OTHERS {
        let preload = format!("LD_PRELOAD={}", dir.join("evil.so").display());
        let audit = preload.replace("PRELOAD", "AUDIT");
        let out = podman(
            runtime,
            &[
                "run",
                "--rm",
                "--device",
                "nvidia.com/gpu=0",
                "-e",
                &preload,
                "-e",
                &audit,
                "fleet-busybox",
                "true",
            ],
        );
        drop(out.ok());
        assert!(!dir.join("ran").exists(), "{runtime}");
    }
}

/// The definition as it is shipped, with the path of the binary under test, and one of somebody else's.
fn hooks_dir() -> &'static str {
    const DIR: &str = "/run/hooks-suite/hooks.d";
    let top = path("FLEET_STATE")
        .parent()
        .expect("the project")
        .to_path_buf();
    let text = fs::read_to_string(top.join("hooks/hooks.d/50-fleet-nvidia.json"))
        .expect("read the definition");
    fs::create_dir_all(DIR).expect("mkdir");
    let binary = path("RUNTIME_UNDER_TEST").display().to_string();
    fs::write(
        format!("{DIR}/50-fleet-nvidia.json"),
        text.replace("/usr/bin/fleet-nvidia", &binary),
    )
    .expect("write");
    let foreign = "#!/bin/sh\ncat >/dev/null; echo ran >> /run/hooks-suite/foreign\n";
    fs::write("/run/hooks-suite/foreign-hook", foreign).expect("write");
    fs::set_permissions(
        "/run/hooks-suite/foreign-hook",
        fs::Permissions::from_mode(0o755),
    )
    .expect("chmod");
    DIR
}

#[test]
fn podmans_precreate_stage() {
    if !ready("podmans_precreate_stage") {
        return;
    }
    let dir = hooks_dir();
    // No program of NVIDIA's: the hooks of the spec are rewritten.
    spec(|text| {
        let foreign =
            "  hooks:\n  - hookName: createContainer\n    path: /run/hooks-suite/foreign-hook\n";
        text.replacen("  hooks:\n", foreign, 1)
    });
    let ask = |runtime: &str, request: &[&str], script: &str| {
        let base = ["--hooks-dir", dir, "run", "--rm"];
        podman(
            runtime,
            &[&base[..], request, &["fleet-glibc", "sh", "-c", script]].concat(),
        )
    };
    let ours = ask("fleet-nvidia", &["--device", "nvidia.com/gpu=0"], CONTENT).ok();
    for runtime in OTHERS {
        for request in [
            &["-e", "NVIDIA_VISIBLE_DEVICES=0"][..],
            &["--device", "nvidia.com/gpu=0"],
        ] {
            drop(fs::remove_file("/run/hooks-suite/foreign"));
            assert_eq!(
                ask(runtime, request, CONTENT).ok(),
                ours,
                "{runtime} {request:?}"
            );
            assert_eq!(
                fs::read_to_string("/run/hooks-suite/foreign").expect("the other hook ran"),
                "ran\n"
            );
        }
        let read_only = ask(
            runtime,
            &["--read-only", "-e", "NVIDIA_VISIBLE_DEVICES=1"],
            "nvidia-smi -L | wc -l",
        );
        assert_eq!(read_only.ok(), "1\n");
        assert_eq!(
            ask(runtime, &[], "test -e /dev/nvidia0 || echo none").ok(),
            "none\n"
        );
        let only = "test -c /dev/nvidia0 && ! test -e /dev/nvidia1 && echo one";
        let one = ask(runtime, &["-e", "NVIDIA_VISIBLE_DEVICES=0"], only);
        assert_eq!(one.ok(), "one\n");
        let failed = ask(runtime, &["-e", "NVIDIA_VISIBLE_DEVICES=9"], "true");
        assert!(
            failed.code != 0 && failed.stderr.contains("/run/fleet-nvidia-precreate.log"),
            "{failed:#?}"
        );
        let log = fs::read_to_string("/run/fleet-nvidia-precreate.log").expect("read the log");
        assert!(
            log.trim_end()
                .lines()
                .last()
                .is_some_and(|line| line.contains("unresolvable CDI devices nvidia.com/gpu=9")),
            "{log}"
        );
    }
}

/// Runs a hook as a runtime does, with a state on stdin.
fn by_hand(program: &str, args: &[&str], state: &Value) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the hook");
    // One that needs no state does not read it.
    drop(
        child
            .stdin
            .take()
            .expect("stdin")
            .write_all(state.to_string().as_bytes()),
    );
    let out = child.wait_with_output().expect("wait for the hook");
    Output {
        line: format!("{program} {args:?}"),
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

struct Tree(PathBuf);

impl Tree {
    fn new() -> Self {
        let dir = PathBuf::from("/run").join(unique("hook-bundle"));
        fs::create_dir_all(dir.join("rootfs")).expect("mkdir");
        fs::write(
            dir.join("config.json"),
            json!({"root": {"path": "rootfs"}, "process": {"env": []}}).to_string(),
        )
        .expect("write");
        Self(dir)
    }

    fn state(&self) -> Value {
        json!({"ociVersion": "1.0.2", "id": "x", "status": "created", "pid": 1, "bundle": self.0})
    }

    fn link(&self, name: &str) -> Option<PathBuf> {
        fs::read_link(self.0.join("rootfs").join(name)).ok()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn every_way_to_call_a_hook() {
    let dir = PathBuf::from("/run").join(unique("names"));
    fs::create_dir_all(&dir).expect("mkdir");
    let name = |base: &str| {
        let path = dir.join(base);
        if !path.exists() {
            symlink(path_of_binary(), &path).expect("link");
        }
        path.display().to_string()
    };
    for (program, args) in [
        (
            "fleet-nvidia",
            &["hook", "create-symlinks", "--link", "t::/a"][..],
        ),
        (
            "fleet-nvidia",
            &[
                "hook",
                "apply",
                "--edit",
                r#"{"edit":"symlink","target":"t","link":"/a"}"#,
            ],
        ),
        ("nvidia-cdi-hook", &["create-symlinks", "--link=t::/a"]),
        (
            "nvidia-cdi-hook",
            &["--debug", "create-symlinks", "-link", "t::/a"],
        ),
        (
            "nvidia-ctk",
            &["hook", "create-symlinks", "--link", "t::/a"],
        ),
        (
            "nvidia-ctk",
            &["--quiet", "hook", "create-symlinks", "--link", "t::/a"],
        ),
    ] {
        let tree = Tree::new();
        let out = by_hand(&name(program), args, &tree.state());
        assert_eq!(out.code, 0, "{out:#?}");
        assert_eq!(tree.link("a").as_deref(), Some(Path::new("t")), "{out:#?}");
        assert!(out.stdout.is_empty() && out.stderr.is_empty(), "{out:#?}");
    }
    let (tree, hook) = (Tree::new(), name("nvidia-cdi-hook"));
    for args in [
        &["new-hook", "--flag", "x"][..],
        &["--new-flag", "create-symlinks"],
        &[],
    ] {
        let out = by_hand(&hook, args, &tree.state());
        assert!(
            out.code == 0 && out.stderr.contains("warning: "),
            "{out:#?}"
        );
    }
    for (args, word) in [
        (&["create-symlinks", "--new-flag", "x"][..], "unknown flag"),
        (&["create-symlinks", "--link", "t"], "TARGET::LINK"),
        (&["chmod", "--path", "/x"], "--mode"),
    ] {
        drop(by_hand(&hook, args, &tree.state()).fails(word));
    }
    drop(by_hand(&name("nvidia-ctk"), &["cdi", "list"], &tree.state()).fails("cdi"));
    drop(by_hand(&hook, &["create-symlinks", "--link", "t::/a"], &json!({})).fails("bundle"));
    let host = json!({"bundle": tree.0, "root": "/"});
    drop(
        by_hand(&hook, &["create-symlinks", "--link", "t::/a"], &host).fails("is that of the host"),
    );
    drop(fs::remove_dir_all(dir));
}

fn path_of_binary() -> PathBuf {
    path("RUNTIME_UNDER_TEST")
}

#[test]
fn limits_of_gpu_memory_are_refused_where_they_are_asked_for() {
    let tree = Tree::new();
    let binary = path_of_binary().display().to_string();
    let args = ["hook", "apply-cuda-memory-limits", "--gpu-id", "GPU-1"];
    assert_eq!(by_hand(&binary, &args, &tree.state()).code, 0);
    let env = ["NVIDIA_GPU_MEMORY_REQUEST=1", "NVIDIA_GPU_MEMORY_LIMIT=2"];
    fs::write(
        tree.0.join("config.json"),
        json!({"process": {"env": env}}).to_string(),
    )
    .expect("write");
    drop(by_hand(&binary, &args, &tree.state()).fails("limits of GPU memory are not supported"));
}
