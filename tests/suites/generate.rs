//! `fleet-nvidia-ctl cdi generate` on simulated nodes: NVML is loaded for real, and what it writes is used for real.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fleet_cdi::{Spec, read_spec};
use fleet_discover::Live;
use fleet_host::{Env, Host, MissingNodes, Store};
use fleet_tests::{Bundle, Output, path, run, skip, unique};

#[path = "generate/toolkit.rs"]
mod toolkit;

/// A simulated node in a directory of its own; nothing, loudly, where it cannot be made.
struct Node(PathBuf);

impl Node {
    fn new(test: &str, machine: &str) -> Option<Self> {
        let root = PathBuf::from("/run").join(unique("node"));
        let simulate = path("FLEET_PROGRAMS").join("fleet-simulate");
        let mut command = Command::new(simulate);
        let out = run(command
            .args(["create", "--machine", machine, "--root"])
            .arg(&root));
        if out.code != 0 {
            skip(test, out.stderr.trim());
            return None;
        }
        Some(Self(root))
    }

    /// The admin tool with the simulated library's variables.
    fn ctl(&self, args: &[&str]) -> Output {
        let machine = self.0.join("usr/share/nvidia/fleet-sim-machine.json");
        let mut command = Command::new(path("FLEET_CTL"));
        command
            .env("FLEET_SIM_DEV", self.0.join("dev"))
            .env("FLEET_SIM_MACHINE", machine)
            .args(args);
        run(&mut command)
    }

    /// As if the node's tree were the machine's.
    fn generate(&self, args: &[&str]) -> Output {
        let root = self.0.display().to_string();
        self.ctl(&[&["--root-dir", &root, "cdi", "generate"], args].concat())
    }

    fn spec(&self, args: &[&str]) -> Spec {
        let file = self.0.join("spec.yaml");
        let output = file.display().to_string();
        drop(self.generate(&[&["--output", &output], args].concat()).ok());
        read_spec(&file).expect("the spec is valid")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn committed(name: &str) -> Spec {
    let top = path("FLEET_STATE")
        .parent()
        .expect("the project")
        .to_path_buf();
    read_spec(&top.join(format!("cdi/nodes/{name}.yaml"))).expect("read the committed spec")
}

/// What the simulated node has and no real one: its description. Its writer does not sort, and takes the numbers of a
/// real driver, which this kernel lends none of.
fn comparable(mut spec: Spec) -> Spec {
    let devices = spec
        .devices
        .iter_mut()
        .map(|device| &mut device.container_edits);
    for edits in devices.chain([&mut spec.container_edits]) {
        edits
            .mounts
            .retain(|mount| !mount.container_path.ends_with("/fleet-sim-machine.json"));
        edits
            .mounts
            .sort_by(|a, b| a.container_path.cmp(&b.container_path));
        for node in &mut edits.device_nodes {
            (node.major, node.minor) = (None, None);
        }
        for hook in &mut edits.hooks {
            // One hook's links, in any order; the simulated writer has forgotten one.
            if hook
                .args
                .get(1)
                .is_some_and(|name| name == "create-symlinks")
            {
                let links: BTreeSet<String> = hook.args.drain(2..).collect();
                let links = links
                    .into_iter()
                    .filter(|link| !link.contains("libvdpau_nvidia"));
                hook.args.extend(links);
            }
        }
    }
    spec
}

#[test]
fn the_spec_of_a_node_is_the_committed_one() {
    for machine in ["h100x2", "h100x8"] {
        let Some(node) = Node::new("the_spec_of_a_node_is_the_committed_one", machine) else {
            return;
        };
        let spec = node.spec(&["--nvidia-cdi-hook-path", "/usr/bin/nvidia-cdi-hook"]);
        let (got, want) = (comparable(spec), comparable(committed(machine)));
        assert_eq!(got, want, "{machine}");
    }
}

#[test]
fn proc_tells_the_same_as_nvml() {
    let Some(node) = Node::new("proc_tells_the_same_as_nvml", "h100x8") else {
        return;
    };
    let (nvml, proc) = (
        node.spec(&["--source", "nvml"]),
        node.spec(&["--source", "proc"]),
    );
    assert_eq!(nvml, proc);
    let both = node.generate(&["--source", "both"]);
    assert!(!both.stderr.contains("differ"), "{both:#?}");
    let information = node
        .0
        .join("proc/driver/nvidia/gpus/0000:2a:00.0/information");
    let text = fs::read_to_string(&information).expect("read proc");
    let changed = text.replace("Device Minor: \t 1", "Device Minor: \t 7");
    assert_ne!(text, changed);
    drop(fs::remove_file(&information));
    fs::write(&information, changed).expect("write proc");
    let both = node.generate(&["--source", "both"]);
    let want = "minor number of GPU 0000:2a:00.0: NVML says 1, proc 7";
    assert!(both.stderr.contains(want), "{both:#?}");
}

#[test]
fn without_nvml_proc_is_read_and_said() {
    let Some(node) = Node::new("without_nvml_proc_is_read_and_said", "h100x2") else {
        return;
    };
    let want = node.spec(&[]);
    // The driver does not answer the library.
    fs::remove_file(node.0.join("dev/nvidiactl")).expect("remove the node");
    let out = node.generate(&["--source", "nvml"]).fails("load NVML");
    assert_eq!(out.stdout, "");
    let out = node.generate(&[]);
    assert!(
        out.code == 0 && out.stderr.contains("/proc/driver/nvidia is read instead"),
        "{out:#?}"
    );
    assert!(out.stderr.contains("nvidiactl is missing"), "{out:#?}");
    assert_eq!(node.spec(&[]).devices, want.devices);
}

#[test]
fn one_lost_gpu_does_not_cost_the_others() {
    let Some(node) = Node::new("one_lost_gpu_does_not_cost_the_others", "h100x8") else {
        return;
    };
    fs::remove_file(node.0.join("dev/nvidia3")).expect("remove the node");
    let file = node.0.join("spec.json");
    let out = node.generate(&["--source", "proc", "--output", &file.display().to_string()]);
    assert!(
        out.code == 0 && out.stderr.contains("GPU 3 is left out"),
        "{out:#?}"
    );
    let spec = read_spec(&file).expect("a valid spec");
    let names: Vec<_> = spec
        .devices
        .iter()
        .map(|device| device.name.as_str())
        .collect();
    assert!(
        names.contains(&"2") && names.contains(&"4") && !names.contains(&"3"),
        "{names:?}"
    );
    let all = &spec
        .devices
        .last()
        .expect("a device")
        .container_edits
        .device_nodes;
    assert_eq!(all.len(), 7);
    drop(
        node.generate(&["--source", "proc", "--device-id", "3"])
            .fails("find device `3`"),
    );
}

#[test]
fn a_good_spec_is_never_replaced_by_none() {
    let Some(node) = Node::new("a_good_spec_is_never_replaced_by_none", "h100x2") else {
        return;
    };
    let file = node.0.join("spec.yaml");
    let output = file.display().to_string();
    drop(node.generate(&["--output", &output]).ok());
    let before = fs::read(&file).expect("read the spec");
    fs::remove_dir_all(node.0.join("proc/driver/nvidia/gpus")).expect("unload the driver");
    let args = ["--source", "proc", "--output", &output];
    drop(node.generate(&args).fails("the driver knows no GPU"));
    fs::remove_dir_all(node.0.join("usr/lib")).expect("remove the libraries");
    drop(node.generate(&args).fails("hint: "));
    assert_eq!(fs::read(&file).expect("read the spec"), before);
    let left: Vec<_> = fs::read_dir(&node.0)
        .expect("list")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn partitions_are_devices() {
    let Some(node) = Node::new("partitions_are_devices", "mig-mixed") else {
        return;
    };
    let spec = node.spec(&["--source", "nvml", "--annotations", "never"]);
    let named = |start: &str| -> Vec<&str> {
        let names = spec.devices.iter().map(|device| device.name.as_str());
        names.filter(|name| name.starts_with(start)).collect()
    };
    let (by_index, by_uuid) = (named("0:"), named("MIG-"));
    assert!(
        by_index.len() > 1 && by_uuid.len() >= by_index.len(),
        "{spec:#?}"
    );
    for device in spec
        .devices
        .iter()
        .filter(|device| device.name.contains(':'))
    {
        let nodes = device.container_edits.device_nodes.iter();
        let caps = nodes.filter(|node| node.path.starts_with("/dev/nvidia-caps/nvidia-cap"));
        assert_eq!(caps.count(), 2, "{device:#?}");
    }
    // Proc tells the same, save the names that NVML alone knows, and that the last GPU is partitioned into nothing.
    let by_index = |spec: Spec| -> Vec<_> {
        let devices = spec.devices.into_iter();
        devices
            .filter(|device| device.name.contains(':') || device.name == "1")
            .collect()
    };
    let proc = node.spec(&["--source", "proc", "--annotations", "never"]);
    assert_eq!(by_index(spec), by_index(proc));
    let out = node.generate(&["--source", "proc"]);
    assert!(out.stderr.contains("no names by UUID"), "{out:#?}");
}

/// What is said and which devices there are on nodes of every kind, by NVML where it is there.
#[test]
fn faults_and_platforms() {
    let gpus: [(&str, &str, &[&str]); 6] = [
        (
            "lost-gpu",
            "GPU 1 is left out: NVML says: ",
            &["0", "2", "all"],
        ),
        ("dgx-station", "", &["0", "1", "2", "4", "all"]),
        ("grace-hopper", "", &["0", "all"]),
        ("workstation", "", &["0", "1", "all"]),
        ("wsl", "", &["all"]),
        ("orin", "l4t.csv is left out", &["0", "all"]),
    ];
    for (machine, said, want) in gpus {
        let Some(node) = Node::new("faults_and_platforms", machine) else {
            return;
        };
        let file = node.0.join("spec.json");
        let output = file.display().to_string();
        let args = ["--device-name-strategy", "index", "--output", &output];
        let out = node.generate(&args);
        assert!(
            out.code == 0 && out.stderr.contains(said),
            "{machine}: {out:#?}"
        );
        let spec = read_spec(&file).expect("a valid spec");
        let names = spec.devices.iter().map(|device| device.name.as_str());
        assert_eq!(names.collect::<Vec<_>>(), want, "{machine}");
    }
    let Some(node) = Node::new("faults_and_platforms", "mismatch") else {
        return;
    };
    let out = node.generate(&[]);
    assert!(out.code != 0 && out.stdout.is_empty(), "{out:#?}");
    for word in [
        "mismatch",
        "driver version 550.90.07, which is loaded",
        "hint: reboot",
    ] {
        assert!(out.stderr.contains(word), "{word}: {out:#?}");
    }
    let Some(node) = Node::new("faults_and_platforms", "bad-nodes") else {
        return;
    };
    let out = node.generate(&["--source", "proc", "--device-name-strategy", "index"]);
    for word in [
        "GPU 1 is left out: its node /dev/nvidia1 is missing",
        "states no `Device Minor`",
    ] {
        assert!(
            out.code == 0 && out.stderr.contains(word),
            "{word}: {out:#?}"
        );
    }
    for mode in ["nvswitch", "imex", "management"] {
        let machine = if mode == "imex" { "imex" } else { "dgx-h100" };
        let Some(node) = Node::new("faults_and_platforms", machine) else {
            return;
        };
        let spec = node.spec(&["--mode", mode]);
        assert!(
            spec.devices.iter().any(|device| device.name == "all"),
            "{mode}"
        );
    }
}

/// What images demand of a GPU is compared with this at create, where NVML is not asked.
#[test]
fn the_spec_tells_what_its_gpus_are() {
    let Some(node) = Node::new("the_spec_tells_what_its_gpus_are", "workstation") else {
        return;
    };
    let spec = node.spec(&["--source", "nvml", "--device-name-strategy", "index"]);
    let told = |name: &str| {
        let mut devices = spec.devices.iter();
        let device = devices
            .find(|device| device.name == name)
            .expect("the device");
        let fact = |key: &str| device.annotations.get(key).cloned();
        (fact("fleet-nvidia/arch"), fact("fleet-nvidia/brand"))
    };
    let rtx4090 = (Some("8.9".to_owned()), Some("geforce".to_owned()));
    assert_eq!(told("0"), rtx4090, "{spec:#?}");
    assert_eq!(
        told("all"),
        (None, None),
        "several GPUs are none in particular"
    );
    let proc = node.spec(&["--source", "proc"]);
    assert!(
        proc.devices
            .iter()
            .all(|device| device.annotations.is_empty()),
        "{proc:#?}"
    );
}

/// Without a spec, or with one of another driver, the plan is made from proc and files, as the runtime makes it.
#[test]
fn a_plan_needs_no_spec_file() {
    let Some(node) = Node::new("a_plan_needs_no_spec_file", "h100x2") else {
        return;
    };
    let root = node.0.display().to_string();
    let bundle = node.0.join("config.json");
    let spec = serde_json::json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=1"]}});
    fs::write(&bundle, spec.to_string()).expect("write the bundle");
    let file = bundle.display().to_string();
    let explain = || node.ctl(&["--root-dir", &root, "explain", &file]);
    let made = explain().ok();
    assert!(
        made.contains("/dev/nvidia1 ") && made.contains("libcuda.so.550.54.15"),
        "{made}"
    );
    assert!(!made.contains("/dev/nvidia0 "), "{made}");
    fs::create_dir_all(node.0.join("etc/cdi")).expect("make the CDI directory");
    let output = node.0.join("etc/cdi/nvidia.yaml");
    drop(
        node.generate(&["--output", &output.display().to_string()])
            .ok(),
    );
    let written = explain().ok();
    assert!(written.contains("/etc/cdi/nvidia.yaml"), "{written}");
    // An update of the driver.
    let text = fs::read_to_string(&output).expect("read the spec");
    fs::write(&output, text.replace("550.54.15", "535.1")).expect("write the spec");
    let healed = explain().ok();
    assert!(
        healed.contains("libcuda.so.550.54.15") && !healed.contains("535.1/"),
        "{healed}"
    );
    // The driver comes in a container, as NVIDIA's operator has it.
    fs::remove_file(&output).expect("remove the spec");
    fs::create_dir_all(node.0.join("run/nvidia/driver")).expect("make the driver root");
    let moved = node.0.join("run/nvidia/driver/usr");
    fs::rename(node.0.join("usr"), moved).expect("move the driver");
    let there = explain().ok();
    let library = "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15";
    assert!(
        there.contains(library) && there.contains("/dev/nvidia1 "),
        "{there}"
    );
}

/// A container made from a generated spec sees its GPUs: the driver tree is the simulated one, in its place.
#[test]
fn a_container_gets_its_gpus_from_a_generated_spec() {
    let test = "a_container_gets_its_gpus_from_a_generated_spec";
    let Some(node) = Node::new(test, "h100x2") else {
        return;
    };
    drop(fs::remove_dir_all("/etc/cdi"));
    fs::create_dir_all("/etc/cdi").expect("make the CDI directory");
    let root = node.0.display().to_string();
    let args = [
        "--root-dir",
        "/",
        "cdi",
        "generate",
        "--driver-root",
        &root,
        "--output",
        "/etc/cdi/nvidia.yaml",
    ];
    drop(node.ctl(&args).ok());
    drop(node.ctl(&["cdi", "validate"]).ok());
    let script = "ls /dev/nvidia*; ls /usr/lib/x86_64-linux-gnu/libcuda.so.1 /usr/bin/nvidia-smi";
    let mut bundle = Bundle::new(script).mount(
        "/usr/share/nvidia/fleet-sim-machine.json",
        "bind",
        &format!("{root}/usr/share/nvidia/fleet-sim-machine.json"),
        &["bind", "ro"],
    );
    bundle.spec["annotations"] = serde_json::json!({"cdi.k8s.io/test": "nvidia.com/gpu=1"});
    let out = bundle.run().ok();
    let lines: BTreeSet<&str> = out.lines().collect();
    for line in [
        "/dev/nvidia1",
        "/dev/nvidiactl",
        "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
        "/usr/bin/nvidia-smi",
    ] {
        assert!(lines.contains(line), "{line}: {out}");
    }
    assert!(!lines.contains("/dev/nvidia0"), "{out}");
    fs::remove_file("/etc/cdi/nvidia.yaml").expect("remove the spec");
}

/// No CDI spec, a loaded driver whose files come in a container, and an image that asks by its environment.
#[test]
fn a_container_without_any_spec() {
    let test = "a_container_without_any_spec";
    let driver = "/run/nvidia/driver";
    drop(fs::remove_dir_all("/etc/cdi"));
    let simulate = path("FLEET_PROGRAMS").join("fleet-simulate");
    let mut command = Command::new(simulate);
    let made = run(command.args(["create", "--machine", "h100x2", "--root", driver]));
    let script = "set -e; mount -t tmpfs none /proc/driver; mkdir /proc/driver/nvidia; \
        mount --bind /run/nvidia/driver/proc/driver/nvidia /proc/driver/nvidia";
    let mounted = run(Command::new("sh").args(["-c", script]));
    for out in [&made, &mounted] {
        if out.code != 0 {
            return skip(test, out.stderr.trim());
        }
    }
    let script = "ls /dev/nvidia*; ls /usr/lib/x86_64-linux-gnu/libcuda.so.1";
    let mut bundle = Bundle::new(script);
    let env = bundle.spec["process"]["env"].as_array_mut().expect("env");
    env.push("NVIDIA_VISIBLE_DEVICES=1".into());
    let mut out = bundle.run();
    // What was just made is not kept, since it may still change within one tick of the clock.
    let kept = Path::new("/run/fleet-nvidia-cache/nvidia.com-gpu.json");
    for _ in 0..5 {
        if out.code == 0 && !kept.is_file() {
            std::thread::sleep(Duration::from_millis(1100));
            out = bundle.run();
        }
    }
    let was_kept = kept.is_file();
    let again = bundle.run();
    drop(run(Command::new("sh").args([
        "-c",
        "umount /proc/driver/nvidia; umount /proc/driver",
    ])));
    fs::remove_dir_all("/run/nvidia").expect("remove the node");
    let out = out.ok();
    assert!(was_kept, "the runtime keeps what it made");
    assert_eq!(again.ok(), out);
    let lines: BTreeSet<&str> = out.lines().collect();
    assert!(
        lines.contains("/dev/nvidia1") && lines.contains("/dev/nvidiactl"),
        "{out}"
    );
    assert!(!lines.contains("/dev/nvidia0"), "{out}");
    assert!(
        lines.contains("/usr/lib/x86_64-linux-gnu/libcuda.so.1"),
        "{out}"
    );
}

/// What was made in memory is taken again as long as the machine is the same, and only if it can be nobody else's.
#[test]
fn what_was_made_is_kept_while_the_machine_is_the_same() {
    let test = "what_was_made_is_kept_while_the_machine_is_the_same";
    let Some(node) = Node::new(test, "mig-mixed") else {
        return;
    };
    let above = PathBuf::from("/run").join(unique("store"));
    fs::create_dir(&above).expect("make a directory");
    let owner = fs::metadata(&above).expect("look at it").uid();
    let fresh = Live::new(&node.0);
    let live = fresh.clone().keeping(Some(Store::below(&above, owner)));
    let kept = above.join("fleet-nvidia-cache/nvidia.com-gpu.json");
    let made = |live: &Live| {
        let made = live.rebuild("nvidia.com/gpu", true).expect("GPUs");
        made.expect("a driver").spec
    };
    let keep = || {
        drop(fs::remove_file(&kept));
        std::thread::sleep(Duration::from_millis(1100));
        drop(made(&live));
        // A mark by which one sees whether it is taken.
        let text = fs::read_to_string(&kept).expect("it is kept");
        let marked = text.replace("NVIDIA_VISIBLE_DEVICES=void", "NVIDIA_VISIBLE_DEVICES=kept");
        assert_ne!(text, marked);
        fs::write(&kept, marked).expect("mark it");
    };
    let is_taken = || {
        let spec = made(&live);
        let is_taken = spec
            .container_edits
            .env
            .iter()
            .any(|entry| entry.ends_with("=kept"));
        if !is_taken {
            assert_eq!(spec, made(&fresh));
        }
        is_taken
    };
    drop(made(&live));
    assert!(!kept.exists(), "the node has just been made");
    keep();
    assert!(is_taken() && is_taken());
    let original = fs::read(&kept).expect("read it");
    std::os::unix::fs::chown(&kept, Some(12345), None).expect("give it away");
    assert!(!is_taken());
    for broken in [&b""[..], b"{", &original[..original.len() / 2]] {
        keep();
        fs::write(&kept, broken).expect("break it");
        assert!(!is_taken());
    }
    let proc = |path: &str, from: &str, to: &str| {
        let path = node.0.join("proc/driver/nvidia").join(path);
        let text = fs::read_to_string(&path).expect("read proc");
        assert!(text.contains(from), "{text}");
        drop(fs::remove_file(&path));
        fs::write(&path, text.replace(from, to)).expect("write proc");
    };
    let gpu = fs::read_dir(node.0.join("proc/driver/nvidia/gpus")).expect("list proc");
    let gpu = gpu
        .flatten()
        .map(|entry| entry.file_name())
        .min()
        .expect("a GPU");
    let gpu = format!("gpus/{}/information", gpu.display());
    let changes: [(&str, &dyn Fn()); 5] = [
        ("a GPU gets its UUID", &|| proc(&gpu, "GPU-", "GPU-f")),
        ("a partition goes", &|| {
            let capabilities = node.0.join("proc/driver/nvidia/capabilities/gpu0/mig");
            let parts = fs::read_dir(capabilities).expect("list proc").flatten();
            let part = parts.map(|entry| entry.path()).max().expect("a partition");
            fs::remove_dir_all(part).expect("remove it");
        }),
        ("a node gets other numbers", &|| {
            let path = node.0.join("dev/nvidia-modeset");
            fs::remove_file(&path).expect("remove the node");
            let mut mknod = Command::new("mknod");
            drop(run(mknod.arg(&path).args(["c", "1", "3"])).ok());
        }),
        ("a library comes", &|| {
            let dir = node.0.join("usr/lib/x86_64-linux-gnu");
            let from = dir.join("libnvidia-ml.so.550.54.15");
            fs::copy(from, dir.join("libnvidia-new.so.550.54.15")).expect("copy a library");
        }),
        ("the machine is started anew", &|| {
            let path = node.0.join("proc/sys/kernel/random/boot_id");
            fs::create_dir_all(path.parent().expect("a directory")).expect("make proc");
            fs::write(path, "6f1c2a34-0000-4000-8000-123456789abc\n").expect("write proc");
        }),
    ];
    for (what, change) in changes {
        keep();
        assert!(is_taken(), "before {what}");
        change();
        assert!(!is_taken(), "{what}");
    }
    fs::remove_dir_all(&above).expect("remove the directory");
}

/// The driver is loaded and udev has made no nodes: a container gets those that it needs.
#[test]
fn nodes_that_are_missing_are_made_for_a_container() {
    let test = "nodes_that_are_missing_are_made_for_a_container";
    let Some(node) = Node::new(test, "mig-mixed") else {
        return;
    };
    let dev = node.0.join("dev");
    let clear = || {
        for name in [
            "nvidiactl",
            "nvidia-uvm",
            "nvidia-uvm-tools",
            "nvidia0",
            "nvidia1",
        ] {
            drop(fs::remove_file(dev.join(name)));
        }
        drop(fs::remove_dir_all(dev.join("nvidia-caps")));
    };
    let asked = || serde_json::json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=0:0"]}});
    let config = |text: &str| {
        let path = node.0.join("etc/fleet-nvidia/config.toml");
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, format!("{text}\n[audit]\njournald = true\n")).expect("configure");
    };
    let inject = |missing: MissingNodes| {
        let host = Live::new(&node.0).with_missing_nodes(missing);
        fleet_host::inject_with(&mut asked(), &Env::default(), &host)
    };
    config("");
    let made = "device node /dev/nvidia0 (195:0) was missing and has been made";
    // With a spec and without one.
    let output = node.0.join("etc/cdi/nvidia.yaml");
    for with_spec in [true, false] {
        if with_spec {
            let output = output.display().to_string();
            let generated = node.generate(&["--source", "proc", "--output", &output]);
            // The numbers of the real driver, as the nodes will have them.
            let text = fs::read_to_string(&output).unwrap_or_else(|_| panic!("{generated:#?}"));
            let lines = text
                .lines()
                .filter(|line| !line.contains("major:") && !line.contains("minor:"));
            fs::write(&output, lines.collect::<Vec<_>>().join("\n")).expect("write the spec");
        } else {
            fs::remove_file(&output).expect("remove the spec");
        }
        clear();
        let bundle = node.0.join("config.json");
        fs::write(&bundle, asked().to_string()).expect("write the bundle");
        let root = node.0.display().to_string();
        let told = node
            .ctl(&[
                "--root-dir",
                &root,
                "explain",
                &bundle.display().to_string(),
            ])
            .ok();
        assert!(
            told.contains("/dev/nvidia0 (195:0) is missing and would be made"),
            "{told}"
        );
        assert!(!dev.join("nvidia0").exists(), "who asks changes nothing");

        let outcome = inject(MissingNodes::Made).expect("the nodes are made");
        assert!(
            outcome.warnings.iter().any(|said| said == made),
            "{outcome:#?}"
        );
        let record = String::from_utf8(outcome.record.expect("a record")).expect("text");
        assert!(record.contains(made), "{record}");
        let flags: Vec<(&str, bool)> = outcome
            .granted
            .iter()
            .map(|granted| (granted.path.as_str(), granted.made))
            .collect();
        assert!(flags.contains(&("/dev/nvidia0", true)), "{flags:?}");
        assert!(flags.contains(&("/dev/nvidia-modeset", false)), "{flags:?}");
        let mode = |name: &str| {
            let meta = fs::metadata(dev.join(name)).expect("the node");
            (meta.mode() & 0o7777, meta.rdev() >> 8)
        };
        assert_eq!(
            (mode("nvidiactl"), mode("nvidia0")),
            ((0o666, 195), (0o666, 195))
        );
        let caps = fs::read_dir(dev.join("nvidia-caps"))
            .expect("a directory")
            .flatten();
        let caps: Vec<_> = caps.map(|entry| entry.path()).collect();
        assert!(caps.len() >= 2, "{caps:?}");
        assert_eq!(
            fs::metadata(&caps[0]).expect("a node").mode() & 0o7777,
            0o444
        );
        // Only what the container needs, unless there is no spec.
        assert_eq!(dev.join("nvidia1").exists(), !with_spec);
        let again = inject(MissingNodes::Made).expect("they are there");
        assert!(
            !again
                .warnings
                .iter()
                .any(|said| said.contains("has been made")),
            "{again:#?}"
        );

        clear();
        let reason = "that takes root outside of user namespaces";
        let err = inject(MissingNodes::Stay(reason))
            .expect_err("no nodes")
            .to_string();
        let command =
            "hint: fleet-nvidia-ctl system create-device-nodes --control-devices --gpu-devices";
        match with_spec {
            true => assert!(err.contains(reason) && err.contains(command), "{err}"),
            false => assert!(err.contains("its node /dev/nvidia0 is missing"), "{err}"),
        }
        config("create-device-nodes = false");
        assert!(inject(MissingNodes::Made).is_err() && !dev.join("nvidia0").exists());
        config("");
    }
}

#[test]
fn nodes_and_links_are_made() {
    let Some(node) = Node::new("nodes_and_links_are_made", "h100x2") else {
        return;
    };
    let root = node.0.display().to_string();
    let devices = "Character devices:\n195 nvidia\n511 nvidia-uvm\n\nBlock devices:\n";
    fs::write(node.0.join("proc/devices"), devices).expect("write proc");
    for entry in fs::read_dir(node.0.join("dev")).expect("list").flatten() {
        fs::remove_file(entry.path()).expect("remove a node");
    }
    let system = |args: &[&str]| node.ctl(&[&["--root-dir", &root, "system"], args].concat());
    let all = ["create-device-nodes", "--control-devices", "--gpu-devices"];
    let out = system(&[&all[..], &["--dry-run"]].concat()).ok();
    assert!(
        out.contains("/dev/nvidiactl 195:255 would be made"),
        "{out}"
    );
    assert!(!node.0.join("dev/nvidiactl").exists());
    let out = system(&all).ok();
    for word in [
        "/dev/nvidiactl 195:255 made",
        "/dev/nvidia-uvm-tools 511:1 made",
        "/dev/nvidia1 195:1 made",
    ] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(node.0.join("dev/nvidia-uvm"))
            .expect("the node")
            .permissions(),
    );
    assert_eq!(mode & 0o7777, 0o666);
    assert!(
        system(&all)
            .ok()
            .contains("/dev/nvidiactl 195:255 is there")
    );
    let out = system(&["create-dev-char-symlinks"]).ok();
    assert!(out.contains("/195:255 -> /dev/nvidiactl made"), "{out}");
    let link = fs::read_link(node.0.join("dev/char/511:0")).expect("the link");
    assert_eq!(link, Path::new("/dev/nvidia-uvm"));
    assert!(!system(&["create-dev-char-symlinks"]).ok().contains(" made"));
}

#[test]
fn refresh_follows_the_machine_and_keeps_a_good_spec() {
    let Some(node) = Node::new(
        "refresh_follows_the_machine_and_keeps_a_good_spec",
        "h100x2",
    ) else {
        return;
    };
    let root = node.0.display().to_string();
    let refresh = |args: &[&str]| {
        let command = ["--root-dir", &root, "cdi", "refresh", "--source", "proc"];
        node.ctl(&[&command[..], args].concat())
    };
    let file = node.0.join("var/run/cdi/fleet-nvidia.yaml");
    assert!(refresh(&[]).ok().contains("written"));
    let good = fs::read(&file).expect("read the spec");
    assert!(refresh(&[]).ok().contains("up to date"));

    // A driver that has found one GPU of two, then none.
    let gpus = node.0.join("proc/driver/nvidia/gpus");
    let lost = fs::read_dir(&gpus)
        .expect("list proc")
        .flatten()
        .map(|entry| entry.path())
        .max()
        .expect("two GPUs");
    fs::rename(&lost, node.0.join("lost")).expect("lose a GPU");
    let refused = refresh(&[]);
    assert!(
        refused.code == 1
            && refused
                .stderr
                .contains("it is kept until the driver is ready"),
        "{refused:#?}"
    );
    fs::rename(&gpus, node.0.join("gpus")).expect("lose all GPUs");
    assert_eq!(refresh(&["--force"]).code, 1);
    assert_eq!(fs::read(&file).expect("read the spec"), good);
    fs::rename(node.0.join("gpus"), &gpus).expect("find a GPU");
    assert!(refresh(&["--force"]).ok().contains("replaced"));
    fs::rename(node.0.join("lost"), &lost).expect("find the other");
    assert!(refresh(&["--wait", "5"]).ok().contains("replaced"));
    assert_eq!(fs::read(&file).expect("read the spec"), good);

    fs::copy(&file, file.with_file_name("nvidia.yaml")).expect("another toolkit's file");
    let refused = refresh(&[]);
    assert!(
        refused.code == 1 && refused.stderr.contains("/nvidia.yaml has nvidia.com/gpu="),
        "{refused:#?}"
    );
}

/// Directory of the CUDA library in a list of files, and its version.
fn cuda(files: &[String]) -> (String, String) {
    let found = files.iter().find_map(|path| {
        path.split_once("/libcuda.so.")
            .filter(|(_, end)| end.contains('.'))
    });
    let (dir, version) = found.expect("a CUDA library");
    (dir.to_owned(), version.to_owned())
}

/// The description of a machine with this driver.
fn machine_of(version: &str) -> String {
    let description = PathBuf::from("/run")
        .join(unique("machine"))
        .with_extension("toml");
    let text = format!("driver = \"{version}\"\n[[gpu]]\nmodel = \"h100\"\n");
    fs::write(&description, text).expect("write a description");
    description.display().to_string()
}

/// The user space of the real driver, from Debian's packages; nothing, loudly, where they cannot be had.
fn real_driver(test: &str) -> Option<(PathBuf, Vec<String>)> {
    let dir = path("FLEET_STATE").join("driver");
    let top = path("FLEET_STATE");
    let script = top
        .parent()
        .expect("the project")
        .join("tests/setup/driver.sh");
    let out = run(Command::new(script).arg(&dir));
    if out.code != 0 {
        let why = out
            .stderr
            .trim()
            .lines()
            .last()
            .unwrap_or("no reason given")
            .to_owned();
        skip(
            test,
            &format!("Debian's driver packages cannot be had: {why}"),
        );
        return None;
    }
    let root = dir.join("root");
    // As the packages' own scripts leave it: one directory tree, and programs of the chosen driver by links.
    for (link, target) in [
        ("lib", "usr/lib"),
        (
            "etc/alternatives/nvidia--nvidia-smi",
            "/usr/lib/nvidia/current/nvidia-smi",
        ),
        ("usr/bin/nvidia-smi", "/etc/alternatives/nvidia--nvidia-smi"),
        (
            "etc/alternatives/nvidia--nvidia_drv.so",
            "/usr/lib/nvidia/current/nvidia_drv.so",
        ),
        (
            "usr/lib/xorg/modules/drivers/nvidia_drv.so",
            "/etc/alternatives/nvidia--nvidia_drv.so",
        ),
    ] {
        let link = root.join(link);
        fs::create_dir_all(link.parent().expect("a parent")).expect("mkdir");
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(target, &link).expect("make a link");
        }
    }
    let files = fs::read_to_string(dir.join("files")).expect("read the list");
    Some((root, files.lines().map(str::to_owned).collect()))
}

/// Every library of the packages that the rules name is mounted, with its links; nothing is passed over.
#[test]
fn no_file_of_the_real_driver_is_missed() {
    let test = "no_file_of_the_real_driver_is_missed";
    let Some((root, files)) = real_driver(test) else {
        return;
    };
    let (_, version) = cuda(&files);
    let Some(node) = Node::new(test, &machine_of(&version)) else {
        return;
    };
    let (driver, sim) = (root.display().to_string(), node.0.display().to_string());
    let file = node.0.join("real.yaml");
    let output = file.display().to_string();
    let args = [
        "cdi",
        "generate",
        "--driver-root",
        &driver,
        "--dev-root",
        &sim,
        "--system-root",
        &sim,
        "--source",
        "proc",
        "--output",
        &output,
    ];
    let out = node.ctl(&args);
    assert!(
        out.code == 0 && !out.stderr.contains("left out"),
        "{out:#?}"
    );
    let spec = read_spec(&file).expect("a valid spec");
    let edits = &spec.container_edits;
    let mounted: BTreeSet<&str> = edits
        .mounts
        .iter()
        .map(|mount| mount.container_path.as_str())
        .collect();
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let is_link = |path: &&String| {
        fs::symlink_metadata(root.join(path.trim_start_matches('/')))
            .is_ok_and(|meta| meta.is_symlink())
    };
    let in_libraries = |path: &&String| path.starts_with("/usr/lib/x86_64-linux-gnu/");
    let libraries = files
        .iter()
        .filter(in_libraries)
        .filter(|path| !is_link(path) && path.contains(".so"));
    let mut count = 0;
    for library in libraries {
        assert!(mounted.contains(library.as_str()), "{library} is missed");
        count += 1;
    }
    assert!(count > 25, "only {count} libraries in the packages");
    for program in [
        "nvidia-smi",
        "nvidia-persistenced",
        "nvidia-cuda-mps-control",
        "nvidia-cuda-mps-server",
    ] {
        assert!(
            mounted.iter().any(|path| name(path) == program),
            "{program} is missed"
        );
    }
    for path in files.iter().filter(|path| {
        path.contains("/gsp_")
            || path.ends_with(".icd")
            || path.ends_with("_icd.json")
            || path.contains("egl_")
    }) {
        assert!(
            mounted.iter().any(|mounted| name(mounted) == name(path)),
            "{path} is missed"
        );
    }
    assert!(
        mounted.contains("/usr/lib/xorg/modules/drivers/nvidia_drv.so"),
        "{mounted:?}"
    );
    let links: BTreeSet<&str> = edits
        .hooks
        .iter()
        .flat_map(|hook| &hook.args)
        .filter_map(|arg| Some(arg.split_once("::")?.1))
        .collect();
    for link in files.iter().filter(in_libraries).filter(is_link) {
        // Those of the EGL platform are made by the loader's own update, and GBM's lies elsewhere in a container.
        let elsewhere = link.contains("libnvidia-egl-") || link.ends_with("nvidia-drm_gbm.so");
        assert!(
            elsewhere || links.contains(link.as_str()),
            "{link} is missed"
        );
    }
    for mount in &edits.mounts {
        let meta = fs::metadata(&mount.host_path);
        assert!(
            meta.is_ok_and(|meta| !meta.is_dir()),
            "{} leads to no file",
            mount.host_path
        );
    }
}
