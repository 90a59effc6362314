//! The containers that are made: one root file system, several specs.

use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::{Value, json};

use crate::runtimes::Runtime;

/// A bundle that belongs to one runtime at a time: its cgroup bears the runtime's name, and NVIDIA's runtime writes into
/// its spec.
pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
    spec: Value,
}

impl Bundle {
    pub(crate) fn new(dir: PathBuf, spec: Value) -> Self {
        fs::create_dir_all(&dir).expect("make the bundle");
        Self { dir, spec }
    }

    /// The spec as it was, with a cgroup for this runtime and container.
    pub(crate) fn lend(&self, runtime: &Runtime, id: &str) {
        let parent = env::var("FLEET_TEST_CGROUP").unwrap_or_default();
        let mut spec = self.spec.clone();
        let parent = parent.trim_end_matches('/');
        let path = format!("{parent}/{id}-{}-{}", runtime.name, std::process::id());
        spec["linux"]["cgroupsPath"] = json!(path);
        fs::write(self.dir.join("config.json"), spec.to_string()).expect("write the spec");
    }
}

/// A bare container.
pub(crate) fn plain(rootfs: &Path, args: &[&str]) -> Value {
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
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": rootfs, "readonly": false},
        "hostname": "bench",
        "process": {
            "args": args, "cwd": "/", "user": {"uid": 0, "gid": 0},
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
    })
}

/// The engines' profile in the form of a spec: conditions on capabilities and kernels are the engine's to resolve.
pub(crate) fn seccomp() -> Option<Value> {
    let text = fs::read_to_string("/usr/share/containers/seccomp.json").ok()?;
    let profile: Value = serde_json::from_str(&text).ok()?;
    // Without the calls of this architecture no program starts.
    let applies = |group: &&Value| {
        let when = group["includes"].as_object();
        when.is_none_or(|when| {
            let here = |arches: &Value| {
                arches
                    .as_array()
                    .is_some_and(|all| all.contains(&json!("amd64")))
            };
            when.iter()
                .all(|(key, value)| key == "arches" && here(value))
        })
    };
    let groups = profile["syscalls"].as_array()?.iter().filter(applies);
    let rules = groups.map(|group| {
        let mut rule = json!({"names": group["names"], "action": group["action"]});
        for key in ["args", "errnoRet"] {
            let value = &group[key];
            if value.as_array().is_some_and(|args| !args.is_empty()) || value.is_u64() {
                rule[key] = value.clone();
            }
        }
        rule
    });
    let rules: Vec<Value> = rules.collect();
    Some(
        json!({"defaultAction": profile["defaultAction"], "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": rules}),
    )
}

/// busybox, with what a glibc image has for the loader, so that the hooks have their work.
pub(crate) fn rootfs(work: &Path) -> PathBuf {
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
