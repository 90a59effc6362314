//! Paired timings of the container lifecycle against crun and runc of the same machine, on the same bundle.
//!
//! `make bench` runs it inside `tests/isolate`. Wall times drift on shared machines, so the runtimes take turns and
//! medians and ratios are printed; nothing here passes or fails.
#![allow(clippy::expect_used, clippy::print_stdout)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use serde_json::{Value, json};

/// One competitor.
struct Runtime {
    name: &'static str,
    path: PathBuf,
    root: PathBuf,
}

/// One row of the table: a bundle, and which runtimes can take it.
struct Case {
    name: &'static str,
    bundle: PathBuf,
    /// The bundle whose time stands for the peers, which do not inject devices themselves.
    peers_use: Option<PathBuf>,
}

fn main() {
    let rounds: usize = env::var("BENCH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(30);
    let work = env::temp_dir().join(format!("fleet-bench-{}", std::process::id()));
    fs::create_dir_all(&work).expect("make the work directory");
    let runtimes = runtimes(&work);
    let rootfs = rootfs(&work);
    let plain = bundle(&work, "plain", &rootfs, None, None);
    let profile = fs::read_to_string("/usr/share/containers/seccomp.json")
        .ok()
        .and_then(|t| serde_json::from_str(&t).ok());
    let mut cases = vec![Case {
        name: "plain",
        bundle: plain.clone(),
        peers_use: None,
    }];
    if let Some(profile) = profile {
        let bundle = bundle(&work, "seccomp", &rootfs, Some(seccomp(&profile)), None);
        cases.push(Case {
            name: "seccomp (default profile)",
            bundle,
            peers_use: None,
        });
    } else {
        println!("SKIP seccomp: /usr/share/containers/seccomp.json is missing");
    }
    for (name, variable) in [
        ("2 GPUs, all hooks", "FLEET_BENCH_CDI_2"),
        ("8 GPUs, all hooks", "FLEET_BENCH_CDI_8"),
    ] {
        match env::var(variable) {
            Ok(kind) => {
                let bundle = bundle(&work, name, &rootfs, None, Some(&kind));
                cases.push(Case {
                    name,
                    bundle,
                    peers_use: Some(plain.clone()),
                });
            }
            Err(_) => println!("SKIP {name}: {variable} does not name a CDI device"),
        }
    }
    println!(
        "{rounds} rounds, runtimes in turn, {} ms between calls; milliseconds, median (minimum); ratio = fleet-nvidia / peer, by medians\n",
        pause().as_millis()
    );
    println!(
        "| what | {} | ratios |",
        runtimes
            .iter()
            .map(|r| r.name)
            .collect::<Vec<_>>()
            .join(" | ")
    );
    println!("|---|{}---|", "---|".repeat(runtimes.len()));
    for case in &cases {
        let label = format!("create + start + delete, {}", case.name);
        report(&label, &runtimes, rounds, |runtime| {
            let bundle = if runtime.name == "fleet-nvidia" {
                &case.bundle
            } else {
                case.peers_use.as_ref().unwrap_or(&case.bundle)
            };
            lifecycle(runtime, bundle)
        });
    }
    running(&work, &rootfs, &runtimes, rounds);
    drop(fs::remove_dir_all(&work));
}

/// `state` and `exec` on a running container.
fn running(work: &Path, rootfs: &Path, runtimes: &[Runtime], rounds: usize) {
    let sleeper = bundle(work, "sleeper", rootfs, None, None);
    edit(&sleeper, |spec| {
        spec["process"]["args"] = json!(["/bin/busybox", "sleep", "1000"])
    });
    for runtime in runtimes {
        set_cgroup(&sleeper, runtime.name);
        must(
            runtime,
            &["run", "-d", "--bundle", text(&sleeper), "bench-running"],
        );
    }
    report("state", runtimes, rounds, |runtime| {
        must(runtime, &["state", "bench-running"])
    });
    report("exec true", runtimes, rounds, |runtime| {
        must(runtime, &["exec", "bench-running", "/bin/busybox", "true"])
    });
    for runtime in runtimes {
        must(runtime, &["delete", "--force", "bench-running"]);
    }
}

fn report(
    label: &str,
    runtimes: &[Runtime],
    rounds: usize,
    mut run: impl FnMut(&Runtime) -> Duration,
) {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); runtimes.len()];
    for round in 0..=rounds {
        for (runtime, times) in runtimes.iter().zip(&mut times) {
            let took = run(runtime).as_secs_f64() * 1000.0;
            // The first round warms caches.
            if round > 0 {
                times.push(took);
            }
        }
    }
    let stats: Vec<(f64, f64)> = times
        .iter_mut()
        .map(|all| (median(all), all.first().copied().unwrap_or(0.0)))
        .collect();
    let mut row = format!("| {label} |");
    for (median, least) in &stats {
        let _ = write!(row, " {median:.1} ({least:.1}) |");
    }
    let ratios = stats
        .iter()
        .zip(runtimes)
        .skip(1)
        .map(|((median, _), peer)| format!("{:.2} × {}", stats[0].0 / median, peer.name));
    println!("{row} {} |", ratios.collect::<Vec<_>>().join(", "));
}

/// Sorts, too: the first is the minimum afterwards.
fn median(all: &mut [f64]) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

fn lifecycle(runtime: &Runtime, bundle: &Path) -> Duration {
    set_cgroup(bundle, runtime.name);
    let id = "bench";
    must(runtime, &["create", "--bundle", text(bundle), id])
        + must(runtime, &["start", id])
        + must(runtime, &["delete", "--force", id])
}

/// Milliseconds between calls. The kernel's cgroup lock stays cheap for a while after it was taken, so that a runtime
/// which waits for it looks better called without a pause than a user ever sees it.
fn pause() -> Duration {
    let given = env::var("BENCH_PAUSE_MS").ok();
    Duration::from_millis(given.and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn must(runtime: &Runtime, args: &[&str]) -> Duration {
    std::thread::sleep(pause());
    let begin = Instant::now();
    // Files, not pipes: a container keeps its stdio open.
    let log = runtime.root.with_extension("log");
    let sink = || {
        fs::File::create(&log)
            .map(Stdio::from)
            .unwrap_or_else(|_| Stdio::null())
    };
    let status = Command::new(&runtime.path)
        .arg("--root")
        .arg(&runtime.root)
        .args(args)
        .stdin(Stdio::null())
        .stdout(sink())
        .stderr(sink())
        .status();
    let took = begin.elapsed();
    if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        let said = fs::read_to_string(&log).unwrap_or_default();
        panic!("{} {args:?}: {status:?}: {said}", runtime.name);
    }
    took
}

fn runtimes(work: &Path) -> Vec<Runtime> {
    let ours =
        env::var("RUNTIME_UNDER_TEST").expect("RUNTIME_UNDER_TEST names the fleet-nvidia binary");
    let mut all = vec![Runtime {
        name: "fleet-nvidia",
        path: ours.into(),
        root: work.join("root-fleet"),
    }];
    for (name, paths) in [
        ("crun", ["/usr/bin/crun", "/usr/sbin/crun"]),
        ("runc", ["/usr/sbin/runc", "/usr/bin/runc"]),
    ] {
        match paths.iter().find(|path| Path::new(path).exists()) {
            Some(path) => all.push(Runtime {
                name,
                path: path.into(),
                root: work.join(format!("root-{name}")),
            }),
            None => println!("SKIP {name}: it is not installed"),
        }
    }
    all
}

/// busybox, with what a glibc image has for the loader, so that the hooks have their work.
fn rootfs(work: &Path) -> PathBuf {
    if let Ok(given) = env::var("BENCH_ROOTFS") {
        return given.into();
    }
    let rootfs = work.join("rootfs");
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(dir)).expect("make the root file system");
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("copy busybox");
    rootfs
}

fn bundle(
    work: &Path,
    name: &str,
    rootfs: &Path,
    seccomp: Option<Value>,
    device: Option<&str>,
) -> PathBuf {
    let bundle = work.join(name.replace([' ', ','], "-"));
    fs::create_dir_all(&bundle).expect("make the bundle");
    let mounts = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ]);
    let caps = json!([
        "CAP_CHOWN",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETUID",
        "CAP_SETGID"
    ]);
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "root": {"path": rootfs, "readonly": false},
        "hostname": "bench",
        "process": {
            "args": ["/bin/busybox", "true"], "cwd": "/", "user": {"uid": 0, "gid": 0},
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    });
    if let Some(profile) = seccomp {
        spec["linux"]["seccomp"] = profile;
    }
    if let Some(device) = device {
        spec["annotations"] = json!({"cdi.k8s.io/bench": device});
    }
    write(&bundle, &spec);
    bundle
}

/// The engines' profile in the form of a spec: conditions on capabilities and kernels are the engine's to resolve.
fn seccomp(profile: &Value) -> Value {
    let groups = profile["syscalls"].as_array().cloned().unwrap_or_default();
    let kept: Vec<Value> = groups
        .into_iter()
        .filter(|group| {
            group["includes"]
                .as_object()
                .is_none_or(serde_json::Map::is_empty)
        })
        .map(|group| {
            let mut rule = json!({"names": group["names"], "action": group["action"]});
            for key in ["args", "errnoRet"] {
                if group[key].as_array().is_some_and(|args| !args.is_empty()) || group[key].is_u64()
                {
                    rule[key] = group[key].clone();
                }
            }
            rule
        })
        .collect();
    json!({"defaultAction": profile["defaultAction"], "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": kept})
}

fn edit(bundle: &Path, change: impl FnOnce(&mut Value)) {
    let mut spec: Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).expect("read the spec"))
            .expect("parse the spec");
    change(&mut spec);
    write(bundle, &spec);
}

fn set_cgroup(bundle: &Path, runtime: &str) {
    let parent = env::var("FLEET_TEST_CGROUP").unwrap_or_default();
    let path = format!(
        "{}/bench-{runtime}-{}",
        parent.trim_end_matches('/'),
        std::process::id()
    );
    edit(bundle, |spec| spec["linux"]["cgroupsPath"] = json!(path));
}

fn write(bundle: &Path, spec: &Value) {
    fs::write(bundle.join("config.json"), spec.to_string()).expect("write the spec");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}
