//! The template that `spec` writes: the one runc writes, so that scripts built on it work.

use serde_json::{Value, json};

/// A spec that runs `sh` on a terminal; for an unprivileged user with `rootless`.
#[must_use]
pub fn spec(rootless: bool) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "fleet-nvidia",
        "mounts": mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if rootless {
        make_rootless(&mut spec);
    }
    // As runc: on v1 the template shows the machine's cgroups.
    if let Some(all) = spec["linux"]["namespaces"]
        .as_array_mut()
        .filter(|_| !crate::surroundings::unified())
    {
        all.retain(|namespace| namespace["type"] != "cgroup");
    }
    spec
}

fn mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
    ])
}

/// No group 5 for terminals, no network of its own, the host's sysfs, and one id of its own mapped.
fn make_rootless(spec: &mut Value) {
    let (uid, gid) = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    spec["mounts"][2]["options"] = json!([
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620"
    ]);
    spec["mounts"][5] = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
    spec["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}, {"type": "user"}]);
    spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    spec["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    if let Some(linux) = spec["linux"].as_object_mut() {
        linux.remove("resources");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_templates_pass_our_own_checks() {
        for rootless in [false, true] {
            let spec = super::spec(rootless);
            crate::spec::check(&spec).unwrap();
            assert_eq!(spec["process"]["terminal"], true);
        }
    }
    /// Scripts edit the template by position and key, so these are runc's.
    #[test]
    fn keys_and_order_are_runcs() {
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let spec = super::spec(false);
        assert_eq!(
            keys(&spec),
            [
                "ociVersion",
                "process",
                "root",
                "hostname",
                "mounts",
                "linux"
            ]
        );
        assert_eq!(
            keys(&spec["process"]),
            [
                "terminal",
                "user",
                "args",
                "env",
                "cwd",
                "capabilities",
                "rlimits",
                "noNewPrivileges"
            ]
        );
        let mounts = |rootless| -> Vec<String> {
            let spec = super::spec(rootless);
            let all = spec["mounts"].as_array().unwrap().iter();
            all.map(|m| m["destination"].as_str().unwrap().to_owned())
                .collect()
        };
        let want = [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/shm",
            "/dev/mqueue",
            "/sys",
            "/sys/fs/cgroup",
        ];
        assert_eq!(mounts(false), want);
        assert_eq!(mounts(true), want);
    }

    #[test]
    fn rootless_needs_nothing_of_root() {
        let spec = super::spec(true);
        let text = spec.to_string();
        assert!(
            !text.contains("gid=") && !text.contains("\"network\""),
            "{text}"
        );
        assert!(spec["linux"].get("resources").is_none());
        assert_eq!(
            spec["linux"]["uidMappings"][0]["hostID"],
            nix::unistd::geteuid().as_raw()
        );
        assert_eq!(spec["mounts"][5]["type"], "none");
    }
}
