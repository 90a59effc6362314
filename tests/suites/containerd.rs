//! containerd itself with its shim and `ctr`, on a simulated node. `FLEET_CONTAINERD` names a directory with other
//! builds of its programs than the installed ones.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleet_tests::engine::{
    Daemon, ISOLATED, archive, gpus, image, installed, isolation_script, on_terminal,
};
use fleet_tests::{Output, cgroup_dirs, cgroup_path, path, run, skip, unique, until};

/// A containerd of its own, with its images, that goes away with its containers.
struct Containerd {
    dir: PathBuf,
    daemon: Daemon,
}

fn program(name: &str) -> PathBuf {
    env::var("FLEET_CONTAINERD").map_or_else(|_| name.into(), |dir| Path::new(&dir).join(name))
}

/// The shim is found by PATH.
fn search_path() -> String {
    let path = env::var("PATH").expect("PATH");
    env::var("FLEET_CONTAINERD").map_or_else(|_| path.clone(), |dir| format!("{dir}:{path}"))
}

impl Containerd {
    /// With these of the local images; `None`, and a note, where containerd is not installed.
    fn new(test: &str, images: &[&str]) -> Option<Self> {
        if env::var("FLEET_CONTAINERD").is_err() && !installed("containerd") {
            skip(test, "containerd is not installed");
            return None;
        }
        let dir = PathBuf::from("/run").join(unique("containerd"));
        fs::create_dir_all(&dir).expect("mkdir");
        let base = dir.display();
        let text = format!(
            "version = 2\nroot = \"{base}/root\"\nstate = \"{base}/state\"
            disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.aufs\"]
            [grpc]\naddress = \"{base}/socket\"\n"
        );
        fs::write(dir.join("config.toml"), text).expect("write the configuration");
        let daemon = Self::daemon(&dir);
        let this = Self { dir, daemon };
        for name in images {
            let archive = archive(name).display().to_string();
            drop(
                this.ctr(&["images", "import", "--no-unpack", &archive])
                    .ok(),
            );
        }
        Some(this)
    }

    fn daemon(dir: &Path) -> Daemon {
        let mut command = Command::new(program("containerd"));
        command
            .env("PATH", search_path())
            .arg("--config")
            .arg(dir.join("config.toml"));
        let daemon = Daemon::start(&mut command, &dir.join("log"));
        until("containerd to answer", || {
            let mut ctr = Command::new(program("ctr"));
            run(ctr.arg("--address").arg(dir.join("socket")).arg("version")).code == 0
        });
        daemon
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("ctr"));
        command
            .arg("--address")
            .arg(self.dir.join("socket"))
            .args(args);
        command
    }

    fn ctr(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }

    /// The arguments of `ctr run` for a container with our binary.
    fn run_args(id: &str, options: &[&str], name: &str, program: &[&str]) -> Vec<String> {
        let binary = path("RUNTIME_UNDER_TEST").display().to_string();
        let (cgroup, image) = (cgroup_path(id), image(name));
        let fixed = [
            "run",
            "--snapshotter",
            "native",
            "--runc-binary",
            &binary,
            "--cgroup",
            &cgroup,
        ];
        let all = [&fixed, options, &[&image, id], program].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    /// `ctr run --rm`.
    fn run(&self, options: &[&str], image: &str, program: &[&str]) -> Output {
        said(|| {
            let id = unique("c");
            let args = Self::run_args(&id, &[&["--rm"], options].concat(), image, program);
            let out = run(self.command(&[]).args(args));
            self.is_gone(&id);
            out
        })
    }

    fn sh(&self, options: &[&str], script: &str) -> Output {
        self.run(options, "busybox", &["sh", "-c", script])
    }

    /// `ctr run --detach`.
    fn start(&self, options: &[&str], image: &str, script: &str) -> Task<'_> {
        let id = unique("c");
        let options = [&["--detach"], options].concat();
        let args = Self::run_args(&id, &options, image, &["sh", "-c", script]);
        drop(run(self.command(&[]).args(args)).ok());
        Task { engine: self, id }
    }

    /// Nothing of a container is left; containerd cleans up in the background.
    #[track_caller]
    fn is_gone(&self, id: &str) {
        let state = Path::new("/run/containerd/runc/default").join(id);
        until("the runtime's state to go", || !state.exists());
        until("the cgroups to go", || {
            cgroup_dirs(&cgroup_path(id)).is_empty()
        });
        let bundles = self.dir.join("state/io.containerd.runtime.v2.task/default");
        until("the bundle to go", || !bundles.join(id).exists());
    }

    /// Version as major and minor.
    fn version(&self) -> (u32, u32) {
        let text = self.ctr(&["version"]).ok();
        let line = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Version:"))
            .next_back();
        let version = line
            .expect("a version")
            .trim()
            .trim_start_matches('v')
            .to_owned();
        let mut numbers = version
            .split(|c: char| !c.is_ascii_digit())
            .map(|n| n.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

/// Runs a program that prints something. ctr loses the output of a short one now and then, with runc as well (1 in 80 with
/// either on a busy machine): it is asked again.
fn said(mut attempt: impl FnMut() -> Output) -> Output {
    let mut out = attempt();
    for _ in 0..3 {
        if !out.stdout.is_empty() || !out.stderr.is_empty() {
            break;
        }
        out = attempt();
    }
    out
}

/// A container with its task; both go away with this.
struct Task<'e> {
    engine: &'e Containerd,
    id: String,
}

impl Task<'_> {
    fn status(&self) -> String {
        let list = self.engine.ctr(&["task", "ls"]).ok();
        let line = list
            .lines()
            .find(|line| line.split_whitespace().next() == Some(&self.id));
        line.and_then(|line| line.split_whitespace().last())
            .unwrap_or("GONE")
            .to_owned()
    }

    fn pid(&self) -> String {
        let list = self.engine.ctr(&["task", "ls"]).ok();
        let line = list
            .lines()
            .find(|line| line.split_whitespace().next() == Some(&self.id));
        line.and_then(|line| line.split_whitespace().nth(1))
            .expect("a pid")
            .to_owned()
    }

    fn exec_args<'a>(
        &'a self,
        name: &'a str,
        options: &[&'a str],
        program: &[&'a str],
    ) -> Vec<&'a str> {
        [
            &["task", "exec", "--exec-id", name],
            options,
            &[self.id.as_str()],
            program,
        ]
        .concat()
    }

    fn exec(&self, options: &[&str], program: &[&str]) -> Output {
        said(|| {
            self.engine
                .ctr(&self.exec_args(&unique("e"), options, program))
        })
    }

    fn exec_detached(&self) {
        let name = unique("e");
        let args = self.exec_args(&name, &["--detach"], &["sleep", "1000"]);
        drop(self.engine.ctr(&args).ok());
    }

    fn ctr(&self, verb: &[&str]) -> Output {
        self.engine
            .ctr(&[&["task"], verb, &[self.id.as_str()]].concat())
    }

    /// `ctr task delete` of a stopped task: it ends with a warning that names the exit code.
    fn delete(&self) -> String {
        let out = self.ctr(&["delete"]);
        assert_eq!(out.code, 0, "{out:#?}");
        self.engine.is_gone(&self.id);
        out.stderr
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        drop(self.ctr(&["delete", "--force"]));
        drop(self.engine.ctr(&["container", "delete", &self.id]));
    }
}

const SERVICE: &str = "trap 'exit 7' TERM; while :; do sleep 0.1; done";

#[test]
fn output_input_and_exit_codes() {
    let Some(engine) = Containerd::new("output_input_and_exit_codes", &["busybox"]) else {
        return;
    };
    assert_eq!(engine.sh(&[], "echo hi; echo lo >&2").ok(), "hi\n");
    assert_eq!(engine.sh(&[], "exit 42").code, 42);
    let id = unique("c");
    let args = Containerd::run_args(&id, &["--rm"], "busybox", &["cat"]);
    // ctr may lose what is on a stdin that is at its end before the task runs.
    let mut piped = Command::new("sh");
    piped
        .args(["-c", "(echo line; sleep 0.5) | \"$@\"", "sh"])
        .arg(program("ctr"));
    piped
        .arg("--address")
        .arg(engine.dir.join("socket"))
        .args(args);
    assert_eq!(run(&mut piped).ok(), "line\n");
    for (program, words) in [
        (
            "/no/such",
            "OCI runtime create failed: executable file `/no/such` not found: no such file or directory",
        ),
        (
            "/etc",
            "OCI runtime create failed: open executable: `/etc` is a directory: permission denied",
        ),
    ] {
        let out = engine.run(&[], "busybox", &[program]);
        assert!(out.code == 1 && out.stderr.contains(words), "{out:#?}");
    }
}

#[test]
fn terminals() {
    let Some(engine) = Containerd::new("terminals", &["busybox"]) else {
        return;
    };
    let ctr = |args: &[String]| {
        let words: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
        on_terminal(&format!(
            "stty rows 33 cols 91; '{}' --address '{}' {}",
            program("ctr").display(),
            engine.dir.join("socket").display(),
            words.join(" ")
        ))
    };
    let script = "sleep 0.5; tty; stty size; sleep 0.2; exit 4";
    let id = unique("c");
    let out = ctr(&Containerd::run_args(
        &id,
        &["--rm", "--tty"],
        "busybox",
        &["sh", "-c", script],
    ));
    assert_eq!(out.code, 4, "{out:#?}");
    assert!(out.stdout.contains("/dev/pts/0\n33 91\n"), "{out:#?}");
    let task = engine.start(&[], "busybox", "sleep 1000");
    let args = task.exec_args(
        "terminal",
        &["--tty"],
        &["sh", "-c", "sleep 0.5; tty; sleep 0.2; exit 5"],
    );
    let out = ctr(&args.into_iter().map(str::to_owned).collect::<Vec<_>>());
    assert!(
        out.code == 5 && out.stdout.contains("/dev/pts/0"),
        "{out:#?}"
    );
}

#[test]
fn life_of_a_task() {
    let Some(engine) = Containerd::new("life_of_a_task", &["busybox"]) else {
        return;
    };
    let task = engine.start(&[], "busybox", SERVICE);
    assert_eq!(task.status(), "RUNNING");
    let out = task.exec(&["--cwd", "/tmp"], &["sh", "-c", "pwd; exit 9"]);
    assert_eq!((out.code, out.stdout.as_str()), (9, "/tmp\n"), "{out:#?}");
    assert_eq!(task.exec(&["--user", "1000"], &["id", "-u"]).ok(), "1000\n");
    let missing = task.exec(&[], &["/no/such"]);
    let words = "OCI runtime exec failed: executable file `/no/such` not found";
    assert!(
        missing.code == 1 && missing.stderr.contains(words),
        "{missing:#?}"
    );
    task.exec_detached();
    until("the second program to be listed", || {
        task.ctr(&["ps"]).ok().lines().count() >= 3
    });
    assert!(task.ctr(&["ps"]).ok().contains(&task.pid()));
    let metrics = task.ctr(&["metrics"]).ok();
    let pids = metrics
        .lines()
        .find(|line| line.starts_with("pids.current"));
    let pids = pids.and_then(|line| line.split_whitespace().last()?.parse::<u32>().ok());
    assert!(pids.is_some_and(|pids| pids >= 2), "{metrics}");
    assert!(metrics.contains("memory.usage"), "{metrics}");
    drop(task.ctr(&["pause"]).ok());
    assert_eq!(task.status(), "PAUSED");
    drop(task.ctr(&["resume"]).ok());
    assert_eq!(task.status(), "RUNNING");
    drop(
        engine
            .ctr(&["task", "kill", "--signal", "TERM", &task.id])
            .ok(),
    );
    until("the task to stop", || task.status() == "STOPPED");
    let told = task.delete();
    assert!(told.contains("exit with non-zero exit code 7"), "{told}");
}

#[test]
fn kill_of_all_and_of_one() {
    let Some(engine) = Containerd::new("kill_of_all_and_of_one", &["busybox"]) else {
        return;
    };
    let task = engine.start(&[], "busybox", SERVICE);
    task.exec_detached();
    drop(
        engine
            .ctr(&["task", "kill", "--all", "--signal", "KILL", &task.id])
            .ok(),
    );
    until("the task to stop", || task.status() == "STOPPED");
    assert!(task.delete().contains("137"));
    let task = engine.start(&[], "busybox", SERVICE);
    let exec = unique("e");
    drop(
        engine
            .ctr(&[
                "task",
                "exec",
                "--detach",
                "--exec-id",
                &exec,
                &task.id,
                "sleep",
                "777",
            ])
            .ok(),
    );
    let kill = [
        "task",
        "kill",
        "--exec-id",
        &exec,
        "--signal",
        "KILL",
        &task.id,
    ];
    drop(engine.ctr(&kill).ok());
    until("the second program to end", || {
        !task.exec(&[], &["ps"]).ok().contains("sleep 777")
    });
    assert_eq!(task.status(), "RUNNING");
}

#[test]
fn an_oom_kill_is_an_event() {
    let Some(engine) = Containerd::new("an_oom_kill_is_an_event", &["busybox"]) else {
        return;
    };
    let seen = engine.dir.join("events");
    let _events = Daemon::start(&mut engine.command(&["events"]), &seen);
    // Short programs before it: the listener is there by then.
    let eater = "sleep 1; a=x; while :; do a=$a$a; done";
    let task = engine.start(&["--memory-limit", "16000000"], "busybox", eater);
    until("the task to be killed", || task.status() == "STOPPED");
    let told = task.delete();
    assert!(told.contains("exit code 137"), "{told}");
    let text = fs::read_to_string(&seen).expect("read the events");
    let oom = format!("/tasks/oom {{\"container_id\":\"{}\"}}", task.id);
    assert!(text.contains(&oom), "{text}");
}

#[test]
fn options_of_the_spec() {
    let Some(engine) = Containerd::new("options_of_the_spec", &["busybox"]) else {
        return;
    };
    assert_eq!(
        engine
            .sh(&["--read-only"], "touch /x 2>/dev/null || echo ro")
            .ok(),
        "ro\n"
    );
    assert_eq!(
        engine
            .sh(&["--seccomp"], "grep Seccomp: /proc/self/status")
            .ok(),
        "Seccomp:\t2\n"
    );
    assert_eq!(
        engine
            .sh(
                &["--privileged"],
                "grep -q CapEff:.0000000000000000 /proc/self/status || echo capable"
            )
            .ok(),
        "capable\n"
    );
    assert_eq!(
        engine
            .sh(
                &["--cap-drop", "CAP_CHOWN", "--allow-new-privs"],
                "chown 1 /tmp 2>/dev/null || echo no; grep NoNewPrivs /proc/self/status"
            )
            .ok(),
        "no\nNoNewPrivs:\t0\n"
    );
    assert_eq!(
        engine
            .sh(&["--env", "A=b", "--cwd", "/etc"], "echo $A; pwd")
            .ok(),
        "b\n/etc\n"
    );
    let host = fs::read_link("/proc/self/ns/net").expect("readlink");
    assert_eq!(
        engine
            .sh(&["--net-host"], "readlink /proc/self/ns/net")
            .ok()
            .trim(),
        host.display().to_string()
    );
    let dir = PathBuf::from("/run").join(unique("volume"));
    fs::create_dir_all(&dir).expect("mkdir");
    fs::write(dir.join("file"), "content\n").expect("write");
    let mount = format!("type=bind,src={},dst=/v,options=rbind:ro", dir.display());
    assert_eq!(
        engine
            .sh(
                &["--mount", &mount],
                "cat /v/file; touch /v/x 2>/dev/null || echo ro"
            )
            .ok(),
        "content\nro\n"
    );
    let out = engine.sh(
        &["--device", "/dev/fuse"],
        "test -c /dev/fuse && echo there",
    );
    assert_eq!(out.ok(), "there\n");
    let task = engine.start(
        &["--cpus", "0.5", "--memory-limit", "64000000"],
        "busybox",
        SERVICE,
    );
    let limits: Vec<String> = cgroup_dirs(&cgroup_path(&task.id))
        .iter()
        .flat_map(|dir| ["cpu.cfs_quota_us", "memory.limit_in_bytes"].map(|file| dir.join(file)))
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect();
    assert!(
        limits.contains(&"50000\n".to_owned()) && limits.contains(&"64000000\n".to_owned()),
        "{limits:?}"
    );
}

#[test]
fn gpus_by_environment_annotation_and_device() {
    let test = "gpus_by_environment_annotation_and_device";
    if !gpus(test) {
        return;
    }
    let Some(engine) = Containerd::new(test, &["busybox", "glibc"]) else {
        return;
    };
    let list = |options: &[&str]| engine.run(options, "glibc", &["nvidia-smi", "-L"]).ok();
    assert_eq!(
        list(&["--env", "NVIDIA_VISIBLE_DEVICES=all"])
            .lines()
            .count(),
        2
    );
    let zero = list(&["--env", "NVIDIA_VISIBLE_DEVICES=0"]);
    let one = list(&["--env", "NVIDIA_VISIBLE_DEVICES=1"]);
    assert!(
        zero.lines().count() == 1 && one.lines().count() == 1 && zero != one,
        "{zero}{one}"
    );
    assert_eq!(
        list(&["--annotation", "cdi.k8s.io/x=nvidia.com/gpu=1"]),
        one
    );
    // ctr 2.0 and later know CDI names; they inject the device themselves.
    let by_name = ["--device", "nvidia.com/gpu=1"];
    if engine.version() >= (2, 0) {
        assert_eq!(list(&by_name), one);
        assert_eq!(
            list(&["--env", "NVIDIA_VISIBLE_DEVICES=1", by_name[0], by_name[1]]),
            one
        );
    } else {
        let out = engine.run(&by_name, "glibc", &["true"]);
        assert!(
            out.code == 1 && out.stderr.contains("nvidia.com/gpu=1"),
            "{out:#?}"
        );
    }
    let script = isolation_script(0, 1);
    let env = ["--env", "NVIDIA_VISIBLE_DEVICES=0"];
    assert_eq!(
        engine
            .run(
                &[&env, &["--cap-add", "CAP_MKNOD"][..]].concat(),
                "glibc",
                &["sh", "-c", &script]
            )
            .ok(),
        ISOLATED
    );
    let wrong = engine.run(&["--env", "NVIDIA_VISIBLE_DEVICES=9"], "glibc", &["true"]);
    let words = "OCI runtime create failed: unresolvable CDI devices nvidia.com/gpu=9";
    assert!(
        wrong.code == 1 && wrong.stderr.contains(words) && wrong.stderr.contains("known devices"),
        "{wrong:#?}"
    );
    let task = engine.start(
        &["--env", "NVIDIA_VISIBLE_DEVICES=1"],
        "glibc",
        "sleep 1000",
    );
    assert_eq!(task.exec(&[], &["nvidia-smi", "-L"]).ok(), one);
}

/// containerd notices, and cleans up with our `delete --force`.
#[test]
fn a_killed_shim_leaves_nothing() {
    let Some(engine) = Containerd::new("a_killed_shim_leaves_nothing", &["busybox"]) else {
        return;
    };
    let task = engine.start(&[], "busybox", "sleep 1000");
    let pid = task.pid();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read the process");
    let shim = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(1))
        .expect("a parent")
        .to_owned();
    let name = fs::read_to_string(format!("/proc/{shim}/comm")).expect("read the parent");
    assert!(name.starts_with("containerd-shim"), "{name}");
    drop(run(Command::new("kill").args(["-9", &shim])).ok());
    until("containerd to forget the task", || task.status() == "GONE");
    until("the process to end", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
    engine.is_gone(&task.id);
}

#[test]
fn a_container_outlives_containerd() {
    let Some(mut engine) = Containerd::new("a_container_outlives_containerd", &["busybox"]) else {
        return;
    };
    let task = engine.start(&[], "busybox", SERVICE);
    let (id, pid) = (task.id.clone(), task.pid());
    std::mem::forget(task);
    engine.daemon.kill();
    assert!(Path::new("/proc").join(&pid).exists());
    engine.daemon = Containerd::daemon(&engine.dir);
    let task = Task {
        engine: &engine,
        id,
    };
    assert_eq!((task.status().as_str(), task.pid()), ("RUNNING", pid));
    assert_eq!(task.exec(&[], &["echo", "still here"]).ok(), "still here\n");
    drop(engine.ctr(&["task", "kill", &task.id]).ok());
    until("the task to stop", || task.status() == "STOPPED");
    assert!(task.delete().contains("exit code 7"));
}

/// containerd pauses the task, and has it run on unless it is to end.
#[test]
fn checkpoint() {
    let test = "checkpoint";
    let Some(engine) = Containerd::new(test, &["busybox"]) else {
        return;
    };
    if !fleet_tests::criu::criu(test) {
        return;
    }
    let task = engine.start(&[], "busybox", SERVICE);
    let images = engine.dir.join("checkpoint");
    let path = images.display().to_string();
    drop(
        engine
            .ctr(&["task", "checkpoint", "--image-path", &path, &task.id])
            .ok(),
    );
    assert!(images.join("inventory.img").exists());
    assert_eq!(task.status(), "RUNNING");
    assert_eq!(task.exec(&[], &["echo", "goes on"]).ok(), "goes on\n");
}

/// `configure containerd` on a node without handlers of its own: the plug-in that serves Kubernetes is there afterwards,
/// with both handlers.
#[test]
fn the_cri_plugin_is_loaded_with_our_handler() {
    let test = "the_cri_plugin_is_loaded_with_our_handler";
    let Some(mut engine) = Containerd::new(test, &[]) else {
        return;
    };
    engine.daemon.kill();
    let base = engine.dir.display().to_string();
    let main = format!(
        "version = 2\nroot = \"{base}/root\"\nstate = \"{base}/state\"\n[grpc]\naddress = \"{base}/socket\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n"
    );
    let site = engine.dir.join("site");
    fs::create_dir_all(site.join("etc/containerd")).expect("mkdir");
    fs::write(site.join("etc/containerd/config.toml"), main).expect("write");
    let mut configure = Command::new(path("FLEET_CTL"));
    configure
        .args(["configure", "containerd", "--root"])
        .arg(&site);
    configure
        .arg("--runtime-path")
        .arg(path("RUNTIME_UNDER_TEST"));
    drop(run(&mut configure).ok());
    // The import has the path that it will have on the node.
    let file = site.join("etc/containerd/config.toml");
    let text = fs::read_to_string(&file).expect("read");
    fs::write(
        &file,
        text.replace(
            "\"/etc/containerd/",
            &format!("\"{}/etc/containerd/", site.display()),
        ),
    )
    .expect("write");
    fs::copy(&file, engine.dir.join("config.toml")).expect("copy");
    engine.daemon = Containerd::daemon(&engine.dir);
    let plugins = engine.ctr(&["plugins", "ls"]).ok();
    let cri = plugins.lines().find(|line| line.contains(" cri "));
    let log = fs::read_to_string(engine.dir.join("log")).unwrap_or_default();
    assert!(
        cri.is_some_and(|line| line.trim_end().ends_with(" ok")),
        "{plugins}{log}"
    );
}
