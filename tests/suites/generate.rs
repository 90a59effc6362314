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

#[path = "generate/driver.rs"]
mod driver;
#[path = "generate/runtime.rs"]
mod runtime;
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

/// `MIG-GPU-<uuid>/<GPU instance>/<compute instance>`, as drivers before 470 named partitions: from specs that name them
/// by index or UUID, and without any spec.
#[test]
fn partitions_by_their_old_names() {
    let Some(node) = Node::new("partitions_by_their_old_names", "mig-mixed") else {
        return;
    };
    let gpus = node.0.join("proc/driver/nvidia/gpus");
    let mut texts: Vec<_> = fs::read_dir(gpus)
        .expect("list proc")
        .flatten()
        .map(|entry| fs::read_to_string(entry.path().join("information")).expect("read proc"))
        .collect();
    texts.sort_by_key(|text| !text.contains("Device Minor: \t 0"));
    let uuid = texts[0]
        .lines()
        .find_map(|line| line.strip_prefix("GPU UUID:"))
        .expect("a UUID")
        .trim();
    let minors = fs::read_to_string(node.0.join("proc/driver/nvidia-caps/mig-minors"))
        .expect("read the numbers");
    let instances = node.0.join("proc/driver/nvidia/capabilities/gpu0/mig");
    let mut instances: Vec<u32> = fs::read_dir(instances)
        .expect("list the instances")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("gi")?.parse().ok())
        .collect();
    instances.sort_unstable();
    assert!(instances.len() > 1, "{instances:?}");
    let root = node.0.display().to_string();
    let bundle = node.0.join("config.json");
    let file = bundle.display().to_string();
    let capabilities = |instance: u32, from: &str| -> BTreeSet<String> {
        let id = format!("MIG-{uuid}/{instance}/0");
        let env = format!("NVIDIA_VISIBLE_DEVICES={id}");
        let spec = serde_json::json!({"process": {"env": [env]}});
        fs::write(&bundle, spec.to_string()).expect("write the bundle");
        let out = node.ctl(&["--root-dir", &root, "explain", &file]).ok();
        assert!(out.contains(from), "{from}: {out}");
        let words = out.split_whitespace();
        words
            .filter(|word| word.starts_with("/dev/nvidia-caps/") || *word == "/dev/nvidia0")
            .map(str::to_owned)
            .collect()
    };
    let want = |instance: u32| -> BTreeSet<String> {
        let lines = [
            format!("gpu0/gi{instance}/access "),
            format!("gpu0/gi{instance}/ci0/access "),
        ];
        let numbers = minors
            .lines()
            .filter_map(|line| lines.iter().find_map(|start| line.strip_prefix(start)));
        let nodes = numbers.map(|number| format!("/dev/nvidia-caps/nvidia-cap{number}"));
        nodes.chain(["/dev/nvidia0".to_owned()]).collect()
    };
    let all_are_right = |how: &str, from: &str| {
        for instance in &instances {
            assert_eq!(
                capabilities(*instance, from),
                want(*instance),
                "{how}: {instance}"
            );
        }
    };
    all_are_right("in memory", "/proc/driver/nvidia");
    fs::create_dir_all(node.0.join("etc/cdi")).expect("make the CDI directory");
    let output = node.0.join("etc/cdi/nvidia.yaml").display().to_string();
    for strategy in ["index", "uuid", "type-index"] {
        let args = ["--device-name-strategy", strategy, "--output", &output];
        drop(node.generate(&args).ok());
        all_are_right(strategy, "/etc/cdi/nvidia.yaml");
    }
    let env = format!("NVIDIA_VISIBLE_DEVICES=MIG-{uuid}/99/0");
    let spec = serde_json::json!({"process": {"env": [env]}});
    fs::write(&bundle, spec.to_string()).expect("write the bundle");
    let out = node.ctl(&["--root-dir", &root, "explain", &file]);
    drop(out.fails("has no compute instance 0 in a GPU instance 99; hint: it has "));
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
    let quiet = [&all[..], &["--quiet"]].concat();
    assert_eq!(system(&quiet).ok(), "");
    fs::remove_file(node.0.join("dev/nvidia1")).expect("remove a node");
    assert!(system(&quiet).ok().ends_with("/dev/nvidia1 195:1 made\n"));
    let out = system(&["create-dev-char-symlinks"]).ok();
    assert!(out.contains("/195:255 -> /dev/nvidiactl made"), "{out}");
    let link = fs::read_link(node.0.join("dev/char/511:0")).expect("the link");
    assert_eq!(link, Path::new("/dev/nvidia-uvm"));
    assert!(!system(&["create-dev-char-symlinks"]).ok().contains(" made"));
    let quiet = ["create-dev-char-symlinks", "--quiet"];
    assert_eq!(system(&quiet).ok(), "");
    fs::remove_file(node.0.join("dev/char/511:0")).expect("remove a link");
    let out = system(&quiet).ok();
    assert!(out.ends_with("/511:0 -> /dev/nvidia-uvm made\n"), "{out}");
    assert_eq!(out.lines().count(), 1, "{out}");
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

/// What the service's triggers are for, without the service: MIG, firmware, an update of the driver's files.
#[test]
fn refresh_follows_partitions_firmware_and_files() {
    let test = "refresh_follows_partitions_firmware_and_files";
    let Some(node) = Node::new(test, "mig-mixed") else {
        return;
    };
    let root = node.0.display().to_string();
    let file = node.0.join("var/run/cdi/fleet-nvidia.yaml");
    let refresh = || {
        let args = ["--root-dir", &root, "cdi", "refresh", "--source", "proc"];
        let said = node.ctl(&args).ok();
        (said, read_spec(&file).expect("a valid spec"))
    };
    let parts = |spec: &Spec| {
        let names = spec.devices.iter().map(|device| device.name.as_str());
        names.filter(|name| name.starts_with("0:")).count()
    };
    let (said, before) = refresh();
    assert!(said.contains("written"), "{said}");
    // One instance of the first GPU goes, then all.
    let mig = node.0.join("proc/driver/nvidia/capabilities/gpu0/mig");
    let instances: Vec<_> = fs::read_dir(&mig)
        .expect("list the instances")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(parts(&before) == instances.len() && instances.len() > 1);
    fs::rename(&instances[0], node.0.join("gone")).expect("destroy an instance");
    let (said, fewer) = refresh();
    assert!(said.contains("replaced"), "{said}");
    assert_eq!(parts(&fewer) + 1, parts(&before));
    fs::rename(node.0.join("gone"), &instances[0]).expect("make it anew");
    let (said, again) = refresh();
    assert!(said.contains("replaced") && again == before, "{said}");
    // Firmware that the package brings later.
    let firmware = "lib/firmware/nvidia/550.54.15/gsp_new.bin";
    fs::create_dir_all(node.0.join(firmware).parent().expect("a directory")).expect("make it");
    fs::write(node.0.join(firmware), "").expect("write firmware");
    let (said, with) = refresh();
    let mounts = with.container_edits.mounts.iter();
    let told: Vec<_> = mounts.map(|mount| mount.host_path.as_str()).collect();
    assert!(
        said.contains("replaced") && told.contains(&format!("/{firmware}").as_str()),
        "{told:?}"
    );
    // Files of the next driver, whose module is not loaded yet: the old spec stays.
    let lib = node.0.join("usr/lib/x86_64-linux-gnu");
    let bytes = fs::read(&file).expect("read the spec");
    for name in ["libcuda.so", "libnvidia-ml.so"] {
        fs::rename(
            lib.join(format!("{name}.550.54.15")),
            lib.join(format!("{name}.560.1.1")),
        )
        .expect("update the driver");
    }
    let args = ["--root-dir", &root, "cdi", "refresh", "--source", "proc"];
    drop(node.ctl(&args).fails("hint: reboot after an update"));
    assert_eq!(fs::read(&file).expect("read the spec"), bytes);
    assert!(refresh_leaves_nothing(&file), "temporary files");
}

fn refresh_leaves_nothing(file: &Path) -> bool {
    let dir = file.parent().expect("a directory");
    fs::read_dir(dir).expect("list").count() == 1
}
