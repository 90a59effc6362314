//! Each check on a node where it fails, and on one where it does not.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fleet_host::Env;
use fleet_host::nodes::DeviceNode;
use fleet_inject::{DeviceKind, DeviceStat, HostProbe};

use super::all;
use crate::doctor::check::{Finding, Node, Outcome, Seen, Severity};
use crate::doctor::programs::{Answer, Programs};
use crate::doctor::repair::Repair;
use crate::doctor::report::{Checked, Report};
use crate::files::Files;

/// A node made of files, numbers of device nodes, and what programs say.
struct Fake {
    dir: tempfile::TempDir,
    devices: BTreeMap<String, (u32, u32, u32)>,
    said: Vec<(&'static str, Answer)>,
    env: Env,
    free: u64,
}

impl Fake {
    /// A path that ends in `*` is a program.
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let program = path.ends_with('*');
            let path = dir.path().join(path.trim_matches(['/', '*']));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let mode = if program { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        Self {
            dir,
            devices: BTreeMap::new(),
            said: Vec::new(),
            env: Env::default(),
            free: u64::MAX,
        }
    }

    fn device(mut self, path: &str, major: u32, minor: u32, mode: u32) -> Self {
        self.devices.insert(path.to_owned(), (major, minor, mode));
        self
    }

    /// What a program whose command line starts so says.
    fn says(mut self, argv: &'static str, ok: bool, text: &str) -> Self {
        let (stdout, stderr) = if ok { (text, "") } else { ("", text) };
        let answer = Answer {
            ok,
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        };
        self.said.push((argv, answer));
        self
    }

    fn files(&self) -> Files {
        Files::new(Some(self.dir.path()))
    }

    fn run(&self, name: &str) -> Outcome {
        let files = self.files();
        let node = Node {
            files: &files,
            env: &self.env,
            devices: self,
            programs: self,
            space: &|_| Some(self.free),
        };
        let check = all().find(|check| check.name == name).unwrap();
        (check.run)(&node)
    }

    #[track_caller]
    fn findings(&self, name: &str) -> Vec<Finding> {
        self.run(name).unwrap().unwrap_err()
    }

    /// A finding of this weight that says these words, with a hint.
    #[track_caller]
    fn finds(&self, name: &str, severity: Severity, words: &str) -> Finding {
        let findings = self.findings(name);
        let found = findings.iter().find(|finding| finding.text.contains(words));
        let found = found.unwrap_or_else(|| panic!("`{words}` is not in {findings:#?}"));
        assert_eq!(found.severity, severity, "{found:#?}");
        assert!(!found.hint.is_empty(), "{found:#?}");
        found.clone()
    }

    #[track_caller]
    fn fine(&self, name: &str, words: &str) {
        match self.run(name).unwrap() {
            Ok(Seen::Fine(text)) => assert!(text.contains(words), "{text}"),
            other => panic!("{other:#?}"),
        }
    }

    #[track_caller]
    fn absent(&self, name: &str, words: &str) {
        match self.run(name).unwrap() {
            Ok(Seen::Absent(text)) => assert!(text.contains(words), "{text}"),
            other => panic!("{other:#?}"),
        }
    }
}

impl HostProbe for Fake {
    fn lstat_device(&self, path: &str) -> io::Result<DeviceStat> {
        let (major, minor, mode) = *self.devices.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(DeviceStat {
            kind: DeviceKind::Char,
            major,
            minor,
            mode,
        })
    }

    fn exists(&self, path: &str) -> bool {
        self.devices.contains_key(path) || self.files().exists(Path::new(path))
    }

    fn driver_version(&self) -> Option<String> {
        self.files().host().driver_version()
    }
}

impl Programs for Fake {
    fn ask(&self, argv: &[&str], _: u64) -> io::Result<Answer> {
        let line = argv.join(" ");
        let said = self.said.iter().find(|(start, _)| line.starts_with(start));
        said.map(|(_, answer)| answer.clone())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

use Severity::{Error, Note, Warning};

const DRIVER: (&str, &str) = (
    "/proc/driver/nvidia/version",
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n",
);
const RUNTIME: (&str, &str) = ("/usr/bin/fleet-nvidia*", "");

#[test]
fn every_check_has_a_name_of_its_own() {
    let names: Vec<_> = all().map(|check| check.name).collect();
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), names.len(), "{names:?}");
}

#[test]
fn an_empty_root_breaks_no_check() {
    let node = Fake::new(&[]);
    for check in all() {
        assert!(node.run(check.name).is_ok(), "{}", check.name);
    }
}

#[test]
fn kernel() {
    let release = "/proc/sys/kernel/osrelease";
    let seccomp = ("/proc/sys/kernel/seccomp/actions_avail", "kill");
    let old = Fake::new(&[(release, "5.4.0-42-generic\n")]);
    old.finds("kernel", Error, "Linux 5.4.0-42-generic is older than 5.12");
    old.finds("kernel", Error, "without seccomp");
    Fake::new(&[(release, "6.1.0-18-amd64\n"), seccomp]).fine("kernel", "6.1.0");
}

#[test]
fn cgroup() {
    let v2 = "/sys/fs/cgroup/cgroup.controllers";
    Fake::new(&[(v2, "cpuset cpu io\n")]).finds(
        "cgroup",
        Warning,
        "lacks the controllers memory, pids",
    );
    Fake::new(&[(v2, "cpu memory pids\n")]).fine("cgroup", "v2");
    Fake::new(&[("/sys/fs/cgroup/cpu/x", "")]).finds("cgroup", Error, "neither cgroup v2 nor");
    Fake::new(&[
        ("/sys/fs/cgroup/devices/x", ""),
        ("/sys/fs/cgroup/unified/x", ""),
    ])
    .fine("cgroup", "hybrid");
}

#[test]
fn user_namespaces() {
    let node = Fake::new(&[
        ("/proc/sys/user/max_user_namespaces", "0\n"),
        ("/usr/bin/newuidmap*", ""),
        ("/etc/subuid", "ann:100000:1000\n"),
    ]);
    node.finds("user-namespaces", Warning, "user.max_user_namespaces is 0");
    node.finds("user-namespaces", Warning, "newgidmap is missing");
    node.finds(
        "user-namespaces",
        Note,
        "/etc/subuid gives any user 1000 subordinate ids",
    );
    let mut node = Fake::new(&[
        ("/usr/bin/newuidmap*", ""),
        ("/usr/bin/newgidmap*", ""),
        ("/etc/subuid", "ann:100000:65536\n"),
        ("/etc/subgid", "ann:100000:65536\n"),
        (
            "/etc/passwd",
            "root:x:0:0::/root:/bin/sh\nben:x:1001:1001::/home/ben:/bin/sh\n",
        ),
    ]);
    node.fine("user-namespaces", "allowed");
    node.env.euid = 1001;
    node.finds(
        "user-namespaces",
        Note,
        "/etc/subgid has no subordinate ids for ben",
    );
}

#[test]
fn containers_that_got_less_than_they_asked_for() {
    Fake::new(&[]).absent("containers", "no container");
    let stat = format!("101 (a) S{} 77 0\n", " 0".repeat(18));
    let state = r#"{"version": 1, "id": "c1", "pid": 101, "startTime": 77, "created": "", "cgroup": {"path": "/x"}}"#;
    let node = |plan: &str| {
        Fake::new(&[
            ("/proc/101/stat", &stat),
            ("/run/fleet-nvidia/c1/state.json", state),
            ("/run/fleet-nvidia/c1/plan.json", plan),
        ])
    };
    node(r#"{"edits": []}"#).fine("containers", "1 with all they asked for");
    let refused = r#"{"refused": [{"source": {"from": "environment", "name": "NVIDIA_VISIBLE_DEVICES"}, "asked": "all", "setting": "s", "remedy": "r"}]}"#;
    let found = node(refused).finds(
        "containers",
        Note,
        "container c1: all, asked for by variable NVIDIA_VISIBLE_DEVICES, is refused by `s`; hint: r in the configuration",
    );
    assert_eq!(found.hint, "fleet-nvidia-ctl explain c1");
    node(r#"{"warnings": ["x has no effect"]}"#).finds(
        "containers",
        Warning,
        "container c1: x has no effect",
    );
    Fake::new(&[("/run/fleet-nvidia/c1/state.json", "{")]).finds(
        "containers",
        Warning,
        "state.json is damaged",
    );
    // One that has ended is nobody's trouble any more.
    let gone = Fake::new(&[
        ("/run/fleet-nvidia/c1/state.json", state),
        ("/run/fleet-nvidia/c1/plan.json", refused),
    ]);
    gone.absent("containers", "no container");
}

#[test]
fn selinux_and_apparmor() {
    let enforce = ("/sys/fs/selinux/enforce", "1");
    let boolean = "/sys/fs/selinux/booleans/container_use_devices";
    let denied = "type=AVC msg=audit(1:2): avc:  denied  { read write } for pid=1 comm=\"x\" name=\"nvidiactl\" dev=\"devtmpfs\"\n";
    let node = Fake::new(&[
        enforce,
        (boolean, "0 0"),
        ("/var/log/audit/audit.log", denied),
    ]);
    node.finds("selinux", Warning, "container_use_devices is off");
    node.finds(
        "selinux",
        Warning,
        "1 denials about nvidia, the last: avc: denied { read write }",
    );
    Fake::new(&[enforce, (boolean, "1 1")])
        .fine("selinux", "enforcing, container_use_devices is on");
    // The narrow one is enough, and is the one to switch on.
    let narrow = "/sys/fs/selinux/booleans/container_use_xserver_devices";
    Fake::new(&[enforce, (boolean, "0 0"), (narrow, "1 1")])
        .fine("selinux", "container_use_xserver_devices is on");
    let found = Fake::new(&[enforce, (boolean, "0 0"), (narrow, "0 0")]).finds(
        "selinux",
        Warning,
        "container_use_xserver_devices or container_use_devices is off",
    );
    assert_eq!(found.hint, "setsebool -P container_use_xserver_devices on");
    let node = |kind: &str| {
        let label = format!("system_u:object_r:{kind}:s0\n");
        Fake::new(&[enforce, (narrow, "1 1"), ("/usr/bin/fleet-nvidia*", "")]).says(
            "stat --format=%C",
            true,
            &label,
        )
    };
    node("container_runtime_exec_t").fine("selinux", "enforcing");
    let found = node("bin_t").finds(
        "selinux",
        Note,
        "/usr/bin/fleet-nvidia is of type bin_t, not container_runtime_exec_t",
    );
    // What the hint names is what the packages hold.
    let packaged = include_str!("../../../../../packaging/files.list");
    assert!(
        found
            .hint
            .starts_with("semodule -i /usr/share/fleet-nvidia/selinux/fleet-nvidia.cil"),
        "{found:?}"
    );
    for file in [
        "/usr/share/fleet-nvidia/selinux/",
        "/usr/share/fleet-nvidia/apparmor/fleet-nvidia",
    ] {
        assert!(packaged.lines().any(|line| line.ends_with(file)), "{file}");
    }
    Fake::new(&[("/sys/fs/selinux/enforce", "0")]).fine("selinux", "permissive");
    let on = ("/sys/module/apparmor/parameters/enabled", "Y\n");
    let restricted = (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1\n",
    );
    Fake::new(&[on, restricted]).finds("apparmor", Warning, "no profile lets this runtime");
    Fake::new(&[on, restricted, ("/etc/apparmor.d/fleet-nvidia", "")]).fine("apparmor", "on");
    let denied = "kernel: audit: apparmor=\"DENIED\" operation=\"signal\" profile=\"containers-default\" peer=\"fleet-nvidia\"\n";
    let node = Fake::new(&[on, ("/var/log/kern.log", denied)]);
    node.finds(
        "apparmor",
        Warning,
        "kern.log has 1 denials about nvidia, the last: apparmor=\"DENIED\" operation=\"signal\"",
    );
    Fake::new(&[]).absent("apparmor", "off");
}

#[test]
fn driver() {
    let gpu = [
        ("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n"),
        ("/sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n"),
    ];
    Fake::new(&gpu).finds(
        "driver",
        Error,
        "1 NVIDIA GPUs, but their kernel driver is not loaded",
    );
    Fake::new(&[DRIVER]).finds("driver", Error, "libcuda and libnvidia-ml are in none");
    let lib = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so";
    let one = format!("{lib}.1");
    let old = format!("{lib}.575.57.08");
    let new = format!("{lib}.580.65.06");
    Fake::new(&[DRIVER, (&one, ""), (&old, "")]).finds(
        "driver",
        Error,
        "is 580.65.06, its libraries are 575.57.08",
    );
    Fake::new(&[DRIVER, (&one, ""), (&new, "")]).fine("driver", "580.65.06");
    let garbled = ("/proc/driver/nvidia/gpus/0000:01:00.0/information", "x\n");
    Fake::new(&[DRIVER, (&new, ""), garbled]).finds(
        "driver",
        Warning,
        "GPU 0000:01:00.0 is left out",
    );
    Fake::new(&[]).absent("driver", "no NVIDIA GPU");
}

#[test]
fn modules() {
    Fake::new(&[("/proc/modules", "nouveau 1 0 - Live 0x0\n")]).finds("modules", Error, "nouveau");
    Fake::new(&[("/proc/modules", "nvidia 1 0 - Live 0x0\n")]).finds(
        "modules",
        Warning,
        "nvidia_uvm is not loaded",
    );
    Fake::new(&[(
        "/proc/modules",
        "nvidia_uvm 1 0 - Live 0x0\nnvidia 1 1 - Live 0x0\n",
    )])
    .fine("modules", "loaded");
}

const DEVICES: [(&str, &str); 2] = [
    (
        "/proc/devices",
        "Character devices:\n  1 mem\n195 nvidia-frontend\n508 nvidia-uvm\n\nBlock devices:\n",
    ),
    (
        "/proc/driver/nvidia/gpus/0000:01:00.0/information",
        "Model: \t X\nDevice Minor: \t 0\n",
    ),
];

#[test]
fn device_nodes() {
    let node = Fake::new(&DEVICES)
        .device("/dev/nvidiactl", 195, 255, 0o666)
        .device("/dev/nvidia0", 195, 7, 0o666)
        .device("/dev/nvidia-uvm", 508, 0, 0o660);
    node.finds(
        "device-nodes",
        Error,
        "/dev/nvidia0 is 195:7, the driver's device is 195:0",
    );
    node.finds("device-nodes", Warning, "/dev/nvidia-uvm has mode 0660");
    let missing = node.finds(
        "device-nodes",
        Error,
        "/dev/nvidia-uvm-tools (508:1) is missing",
    );
    let tools = DeviceNode {
        path: "/dev/nvidia-uvm-tools".to_owned(),
        major: 508,
        minor: 1,
    };
    assert_eq!(missing.repair, Some(Repair::Node(tools)));
    node.device("/dev/nvidia0", 195, 0, 0o666)
        .device("/dev/nvidia-uvm", 508, 0, 0o666)
        .device("/dev/nvidia-uvm-tools", 508, 1, 0o666)
        .fine("device-nodes", "4 nodes");
    Fake::new(&[]).absent("device-nodes", "no devices");
}

#[test]
fn dev_char_is_linked() {
    let node = Fake::new(&DEVICES).device("/dev/nvidia0", 195, 0, 0o666);
    let found = node.finds(
        "dev-char",
        Warning,
        "/dev/char/195:0 does not lead to /dev/nvidia0",
    );
    let done = found.repair.unwrap().carry_out(&node.files()).unwrap();
    assert_eq!(done, "linked /dev/char/195:0 to /dev/nvidia0");
    let link = node.dir.path().join("dev/char/195:0");
    assert_eq!(fs::read_link(link).unwrap(), Path::new("/dev/nvidia0"));
    node.fine("dev-char", "links");
}

const SPEC: &str = "cdiVersion: 0.7.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    deviceNodes: [{path: /dev/nvidia0}]\ncontainerEdits:\n  mounts:\n  - {hostPath: /usr/lib64/libcuda.so.575.57.08, containerPath: /usr/lib64/libcuda.so.575.57.08}\n  additionalGids: [44]\n";

#[test]
fn cdi() {
    Fake::new(&[DRIVER]).finds("cdi", Error, "no CDI spec names a device");
    Fake::new(&[]).absent("cdi", "no CDI spec");
    let node = Fake::new(&[
        ("/etc/cdi/a.yaml", SPEC),
        ("/etc/cdi/b.yaml", SPEC),
        ("/etc/cdi/c.json", "{"),
    ]);
    node.finds("cdi", Error, "is defined by both");
    node.finds("cdi", Error, "c.json");
    let node = Fake::new(&[("/etc/cdi/a.yaml", SPEC)]);
    node.fine("cdi", "1 devices in 1 file");
    let path = node.dir.path().join("etc/cdi/a.yaml");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    node.finds(
        "cdi",
        Warning,
        "a.yaml has mode 0600: rootless engines cannot read it",
    );
}

#[test]
fn cdi_specs_are_fresh() {
    let lib = ("/usr/lib64/libcuda.so.575.57.08", "");
    let node = Fake::new(&[("/etc/cdi/a.yaml", SPEC)]);
    let found = node.finds(
        "cdi-fresh",
        Error,
        "libcuda.so.575.57.08 is missing, and 1 more",
    );
    assert_eq!(found.repair, None, "somebody else's file");
    let node = Fake::new(&[DRIVER, lib, ("/var/run/cdi/fleet-nvidia.yaml", SPEC)]).device(
        "/dev/nvidia0",
        195,
        0,
        0o666,
    );
    let found = node.finds(
        "cdi-fresh",
        Error,
        "is of driver 575.57.08, but the loaded one is 580.65.06",
    );
    assert_eq!(found.repair, Some(Repair::Spec));
    Fake::new(&[("/etc/cdi/a.yaml", SPEC), lib])
        .device("/dev/nvidia0", 195, 0, 0o666)
        .fine("cdi-fresh", "every file");
}

#[test]
fn cdi_specs_are_read_by_the_engines() {
    let node = || Fake::new(&[("/etc/cdi/a.yaml", SPEC)]);
    node()
        .says("podman --version", true, "podman version 4.3.1\n")
        .finds("cdi-readers", Warning, "podman 4.3 reads CDI up to 0.5");
    node()
        .says("podman --version", true, "podman version 5.4.2\n")
        .fine("cdi-readers", "podman 5.4");
    node().absent("cdi-readers", "no engine");
}

#[test]
fn runtime_and_configuration() {
    Fake::new(&[]).finds("runtime", Error, "/usr/bin/fleet-nvidia is not installed");
    let node = || Fake::new(&[RUNTIME]);
    node().fine("runtime", "/usr/bin/fleet-nvidia");
    node()
        .says(
            "/usr/bin/fleet-nvidia --version",
            true,
            "fleet-nvidia version 99.0.0\ncommit: x\n",
        )
        .finds("runtime", Warning, "says \"fleet-nvidia version 99.0.0\"");
    node()
        .says(
            "/usr/bin/fleet-nvidia --version",
            false,
            "Illegal instruction",
        )
        .finds("runtime", Error, "--version fails: Illegal instruction");
    let file = "/etc/fleet-nvidia/config.toml";
    Fake::new(&[(file, "profile = 1\n")]).finds("configuration", Error, "config.toml:1: `profile`");
    Fake::new(&[(file, "future = 1\n")]).finds("configuration", Warning, "`future` is not known");
    Fake::new(&[(file, "")]).fine("configuration", file);
    let other = (file, "runtimes = [\"crun\", \"runc\"]\n");
    Fake::new(&[other]).finds(
        "other-runtime",
        Error,
        "none of the runtimes crun, runc is installed",
    );
    Fake::new(&[other, ("/usr/sbin/runc*", "")])
        .fine("other-runtime", "/usr/sbin/runc runs the containers");
}

const PODMAN: (&str, &str) = ("/usr/bin/podman*", "");
const DROP_IN: &str = "/etc/containers/containers.conf.d/50-fleet-nvidia.conf";

#[test]
fn podman() {
    let found = Fake::new(&[PODMAN, RUNTIME]);
    let finding = found.finds("podman", Warning, "does not know the runtime by name");
    finding.repair.unwrap().carry_out(&found.files()).unwrap();
    found.fine("podman", "knows it as fleet-nvidia");

    let mut rootless = Fake::new(&[PODMAN, RUNTIME]);
    rootless.env.euid = 1001;
    rootless.env.home = Some("/home/ben".to_owned());
    let finding = rootless.finds("podman", Warning, "does not know the runtime by name");
    assert!(finding.hint.contains("configure podman --user"));
    let done = finding
        .repair
        .unwrap()
        .carry_out(&rootless.files())
        .unwrap();
    assert!(
        done.starts_with("wrote /home/ben/.config/containers/"),
        "{done}"
    );
    rootless.fine("podman", "knows it as fleet-nvidia");

    let bad = "/etc/containers/containers.conf";
    Fake::new(&[PODMAN, (bad, "[engine\n")]).finds(
        "podman",
        Error,
        "containers.conf:1: is not TOML",
    );
    let entry = "[engine.runtimes]\nfleet-nvidia = [\"/usr/bin/fleet-nvidia\"]\n";
    let node = Fake::new(&[PODMAN, (DROP_IN, entry)]);
    node.finds(
        "podman",
        Error,
        "50-fleet-nvidia.conf:2 leads to /usr/bin/fleet-nvidia, which is not",
    );
    node.finds(
        "podman",
        Warning,
        "runtime_supports_json of the built-in list does not have fleet-nvidia",
    );
    let list = "[engine]\nruntime_supports_json = [\"fleet-nvidia\", {append = true}]\n";
    Fake::new(&[PODMAN, RUNTIME, (bad, list)])
        .says("podman --version", true, "podman version 4.3.1\n")
        .finds("podman", Error, "uses `append = true`");
    let configured = || Fake::new(&[PODMAN, RUNTIME, (DROP_IN, entry), (bad, list)]);
    configured()
        .says(
            "podman --runtime",
            false,
            "Error: default OCI runtime \"fleet-nvidia\" not found",
        )
        .finds("podman", Error, "info fails: Error: default OCI runtime");
    configured()
        .says("podman --runtime", true, "/usr/bin/crun\n")
        .finds("podman", Error, "runs /usr/bin/crun");
    configured()
        .says("podman --runtime", true, "/usr/bin/fleet-nvidia\n")
        .fine("podman", "fleet-nvidia");
}

#[test]
fn crio() {
    let crio = ("/usr/bin/crio*", "");
    let ours = "[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/fleet-nvidia\"\n";
    let theirs =
        "[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/nvidia-container-runtime\"\n";
    let file = "/etc/crio/crio.conf.d/50-fleet-nvidia.conf";
    Fake::new(&[crio]).finds("crio", Warning, "no handler of CRI-O");
    Fake::new(&[crio, (file, "[crio\n")]).finds(
        "crio",
        Error,
        "50-fleet-nvidia.conf:1: is not TOML",
    );
    Fake::new(&[crio, (file, ours)]).finds(
        "crio",
        Error,
        "pods say \"no runtime for nvidia is configured\"",
    );
    let later = "/etc/crio/crio.conf.d/99-nvidia.toml";
    Fake::new(&[crio, RUNTIME, (file, ours), (later, theirs)]).finds(
        "crio",
        Error,
        "99-nvidia.toml:1 takes handler nvidia away",
    );
    let backup = "/etc/crio/crio.conf.d/50-fleet-nvidia.conf.dpkg-dist";
    Fake::new(&[crio, RUNTIME, (file, ours), (backup, ours)]).finds(
        "crio",
        Warning,
        "looks like a backup",
    );
    let monitor = "[crio.runtime.runtimes.crun]\nmonitor_path = \"/usr/libexec/conmon\"\n";
    Fake::new(&[crio, RUNTIME, (file, ours), (later, monitor)]).finds(
        "crio",
        Error,
        "99-nvidia.toml:2 names the monitor",
    );
    let default = "[crio.runtime]\ndefault_runtime = \"nvidia\"\n";
    Fake::new(&[crio, RUNTIME, (file, ours), (later, default)]).finds("crio", Note, "the default");
    let node = || Fake::new(&[crio, RUNTIME, (file, ours)]);
    node()
        .says("crio status", true, "[crio.runtime.runtimes.crun]\n")
        .finds("crio", Error, "has not loaded handler nvidia");
    node().says("crio status", false, "no such socket").finds(
        "crio",
        Note,
        "does not answer: no such socket",
    );
    node()
        .says("crio status", true, "[crio.runtime.runtimes.nvidia]\n")
        .fine("crio", "nvidia");
}

#[test]
fn containerd() {
    let containerd = ("/usr/bin/containerd*", "");
    let main = "/etc/containerd/config.toml";
    Fake::new(&[containerd]).finds("containerd", Note, "no handler of containerd");
    Fake::new(&[containerd, (main, "version = \"x\"")]).finds(
        "containerd",
        Error,
        "containerd does not start",
    );
    let node = Fake::new(&[containerd, RUNTIME, (main, "version = 2\n")]);
    let files = node.files();
    let site = crate::configure::Site::of(&files, crate::configure::Engine::Containerd);
    let plan = crate::configure::Engine::Containerd.plan(&site).unwrap();
    plan.carry_out(&files).unwrap();
    node.fine("containerd", "nvidia");
    let node = node.says("containerd config dump", true, "BinaryName = \"runc\"");
    node.finds("containerd", Error, "does not name /usr/bin/fleet-nvidia");
    let text = files.read(Path::new(main)).unwrap().unwrap();
    let changed = format!("{text}[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x\"\n");
    files.replace(Path::new(main), &changed).unwrap();
    node.finds("containerd", Warning, "repeats an older CRI section");
    fs::remove_file(node.dir.path().join("usr/bin/fleet-nvidia")).unwrap();
    node.finds("containerd", Error, "which is not an executable file");
}

#[test]
fn docker() {
    let dockerd = ("/usr/bin/dockerd*", "");
    let file = "/etc/docker/daemon.json";
    let ours = "{\"runtimes\": {\"nvidia\": {\"path\": \"/usr/bin/fleet-nvidia\"}}}";
    Fake::new(&[dockerd]).finds("docker", Note, "does not know the runtime");
    Fake::new(&[dockerd, (file, "{")]).finds("docker", Error, "daemon.json:1: is not JSON");
    Fake::new(&[dockerd, (file, ours)]).finds("docker", Error, "which is not an executable file");
    let node = || Fake::new(&[dockerd, RUNTIME, (file, ours)]);
    node().says("docker info", true, "{\"runc\": {}}").finds(
        "docker",
        Error,
        "has not loaded runtime nvidia",
    );
    node()
        .says("docker info", true, "{\"nvidia\": {}}")
        .fine("docker", "nvidia");
}

#[test]
fn runtime_class() {
    let ours = "[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/fleet-nvidia\"\n";
    let node = || {
        Fake::new(&[
            ("/usr/bin/kubectl*", ""),
            RUNTIME,
            ("/etc/crio/crio.conf", ours),
        ])
    };
    node()
        .says("kubectl", false, "connection refused")
        .absent("runtime-class", "no cluster: connection refused");
    node().says("kubectl", true, "{\"items\": []}").finds(
        "runtime-class",
        Warning,
        "no RuntimeClass leads to a handler nvidia",
    );
    let class = |owner: &str| {
        format!(
            "{{\"items\": [{{\"handler\": \"nvidia\", \"metadata\": {{\"name\": \"gpu\", \"ownerReferences\": [{{\"kind\": \"{owner}\"}}]}}}}]}}"
        )
    };
    node()
        .says("kubectl", true, &class("x"))
        .fine("runtime-class", "class gpu");
    node().says("kubectl", true, &class("ClusterPolicy")).finds(
        "runtime-class",
        Note,
        "belongs to the GPU operator",
    );
}

#[test]
fn what_the_toolkit_leaves() {
    let hook = "{\"version\": \"1.0.0\", \"hook\": {\"path\": \"/usr/bin/nvidia-container-runtime-hook\"}}";
    let path = "/usr/share/containers/oci/hooks.d/oci-nvidia-hook.json";
    Fake::new(&[(path, hook)]).finds(
        "hooks",
        Warning,
        "oci-nvidia-hook.json makes Podman and CRI-O inject",
    );
    Fake::new(&[]).fine("hooks", "no old hook");
    let ours = include_str!("../../../../../hooks/hooks.d/50-fleet-nvidia.json");
    let path = "/usr/share/containers/oci/hooks.d/50-fleet-nvidia.json";
    Fake::new(&[(path, ours)]).fine("hooks", "no old hook");
    Fake::new(&[(path, ours), ("/usr/bin/crio*", "")]).finds("hooks", Error, "the stage precreate");
    let theirs = (
        "/etc/systemd/system/multi-user.target.wants/nvidia-cdi-refresh.path",
        "",
    );
    let ours = (
        "/etc/systemd/system/multi-user.target.wants/fleet-nvidia-cdi-refresh.path",
        "",
    );
    Fake::new(&[theirs, ours]).finds("cdi-refresh", Error, "are both enabled");
    Fake::new(&[theirs]).fine("cdi-refresh", "nvidia-cdi-refresh.path");
    Fake::new(&[("/usr/bin/nvidia-ctk*", "")]).finds("toolkit", Note, "/usr/bin/nvidia-ctk");
}

#[test]
fn storage_and_state() {
    let disk = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n";
    Fake::new(&[("/proc/self/mountinfo", disk)]).finds("state", Warning, "/run is on ext4");
    let memory = format!("{disk}2 1 0:20 / /run rw - tmpfs tmpfs rw\n");
    Fake::new(&[("/proc/self/mountinfo", &memory)]).fine("state", "memory");
    let conf = "/etc/containers/storage.conf";
    Fake::new(&[PODMAN, (conf, "[storage]\ndriver = \"vfs\"\n")]).finds(
        "storage",
        Warning,
        "storage.conf:2 sets the driver vfs",
    );
    Fake::new(&[PODMAN, (conf, "[storage\n")]).finds(
        "storage",
        Error,
        "storage.conf:1: is not TOML",
    );
    let mut node = Fake::new(&[PODMAN]);
    node.fine("storage", "overlay in /var/lib/containers/storage");
    node.free = 10 << 20;
    node.finds("storage", Warning, "has 10 MiB left");
}

#[test]
fn a_file_that_cannot_be_read_breaks_its_check_and_no_other() {
    // A directory stands where a file should be, for root as for anybody.
    let node = Fake::new(&[("/proc/modules/x", "")]);
    assert!(
        node.run("modules")
            .unwrap_err()
            .to_string()
            .starts_with("read /proc/modules: ")
    );
    assert!(node.run("kernel").is_ok());
}

/// The JSON form is an interface: it changes with its version.
#[test]
fn the_report_has_a_stable_form() {
    let node = Fake::new(&[
        PODMAN,
        ("/proc/sys/kernel/osrelease", "6.1.0\n"),
        ("/proc/sys/kernel/seccomp/actions_avail", ""),
        ("/proc/modules/x", ""),
        DEVICES[0],
        DEVICES[1],
    ])
    .device("/dev/nvidiactl", 195, 255, 0o666);
    let names = ["kernel", "modules", "selinux", "podman", "dev-char"];
    let files = node.files();
    let fix = |finding: &Finding| {
        finding
            .repair
            .as_ref()
            .map(|repair| repair.carry_out(&files))
    };
    let checks = names.map(|name| {
        let repair: &dyn Fn(&Finding) -> Option<Result<String, String>> = match name {
            "dev-char" => &fix,
            _ => &|_| None,
        };
        Checked::new(name, node.run(name), repair)
    });
    let report = Report::new(checks.into());
    assert_eq!(report.worst(), Some(Error));
    let json = format!("{:#}\n", serde_json::to_value(&report).unwrap());
    let mut text = Vec::new();
    report.print(&mut text).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    for (name, have) in [
        ("doctor.json", json),
        ("doctor.txt", String::from_utf8(text).unwrap()),
    ] {
        let path = golden.join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&golden).unwrap();
            fs::write(&path, &have).unwrap();
        }
        assert_eq!(
            have,
            fs::read_to_string(path).unwrap(),
            "UPDATE=1 writes it anew"
        );
    }
}
