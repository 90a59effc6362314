//! The `features` document (`runtime-spec features.md`): fixed at build time, nothing of the host is looked at.

use serde_json::{Value, json};

use crate::spec::NAMESPACES;

const CAPABILITIES: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

const MOUNT_OPTIONS: [&str; 61] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// The document.
#[must_use]
pub fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": MOUNT_OPTIONS.as_slice(),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": CAPABILITIES.as_slice(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
                "operators": ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
                "knownFlags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                "supportedFlags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "annotations": {
            "io.github.seccomp.libseccomp.version": libseccomp_version(),
            "io.github.fleet-nvidia.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": ["cdi.k8s.io/", "org.systemd.property.", "run.oci."],
    })
}

fn libseccomp_version() -> String {
    libseccomp::ScmpVersion::current()
        .map(|v| format!("{}.{}.{}", v.major, v.minor, v.micro))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_read() {
        let doc = features();
        assert!(doc["ociVersionMin"].is_string() && doc["ociVersionMax"].is_string());
        assert!(
            doc["mountOptions"]
                .as_array()
                .unwrap()
                .contains(&json!("rro"))
        );
        assert_eq!(doc["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert!(
            doc["linux"]["namespaces"]
                .as_array()
                .unwrap()
                .contains(&json!("user"))
        );
    }
    #[test]
    fn what_it_names_is_taken() {
        let doc = features();
        let words = |pointer: &str| -> Vec<String> {
            let list = doc.pointer(pointer).unwrap().as_array().unwrap();
            list.iter()
                .map(|w| w.as_str().unwrap().to_owned())
                .collect()
        };
        for pointer in [
            "/mountOptions",
            "/linux/capabilities",
            "/linux/seccomp/archs",
            "/linux/seccomp/actions",
        ] {
            let list = words(pointer);
            assert!(
                list.is_sorted() && list.windows(2).all(|w| w[0] != w[1]),
                "{pointer}"
            );
        }
        let all = json!({"bounding": words("/linux/capabilities")});
        let sets = crate::capabilities::Sets::from_spec(Some(&all)).unwrap();
        assert!(sets.unknown.is_empty(), "{:?}", sets.unknown);
        for action in words("/linux/seccomp/actions") {
            let mut profile = json!({"defaultAction": action, "flags": doc["linux"]["seccomp"]["supportedFlags"]});
            if action == "SCMP_ACT_NOTIFY" {
                profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": action}]});
            }
            crate::seccomp::load(&profile, None).unwrap();
        }
        for operator in words("/linux/seccomp/operators") {
            let args = json!([{"index": 0, "value": 1, "op": operator}]);
            let rule = json!({"names": ["getpgid"], "action": "SCMP_ACT_LOG", "args": args});
            crate::seccomp::load(
                &json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}),
                None,
            )
            .unwrap();
        }
    }

    #[test]
    fn nothing_it_does_not_do() {
        let doc = features();
        let checkpoint = &doc["annotations"]["org.opencontainers.runc.checkpoint.enabled"];
        assert_eq!(checkpoint, "true");
        assert_eq!(doc["linux"]["cgroup"]["systemd"], true);
    }
}
