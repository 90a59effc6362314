use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::tree::NodeStat;

fn machine(dir: &Path, devices: &str) -> Tree {
    fs::create_dir_all(dir.join("proc/driver/nvidia-caps")).unwrap();
    fs::write(dir.join("proc/devices"), devices).unwrap();
    fs::write(
        dir.join("proc/driver/nvidia-caps/mig-minors"),
        "config 1\nmonitor 2\ngpu0/gi0/access 3\ngpu0/gi0/ci0/access 4\ngpu1/gi0/access 138\n",
    )
    .unwrap();
    let gpu = dir.join("sys/bus/pci/devices/0000:17:00.0");
    fs::create_dir_all(&gpu).unwrap();
    fs::write(gpu.join("vendor"), "0x10de\n").unwrap();
    fs::write(gpu.join("class"), "0x030200\n").unwrap();
    Tree::open(dir, "/").unwrap()
}

fn shown(nodes: &[DeviceNode]) -> Vec<String> {
    let show = |node: &DeviceNode| format!("{} {}:{}", node.path, node.major, node.minor);
    nodes.iter().map(show).collect()
}

#[test]
fn numbers_come_from_proc() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        "Character devices:\n195 nvidia\n508 nvidia-caps\n511 nvidia-uvm\n\nBlock devices:\n";
    let system = machine(dir.path(), text);
    let all = Majors::of(&system).unwrap().all(&system);
    let want = [
        "/dev/nvidiactl 195:255",
        "/dev/nvidia-modeset 195:254",
        "/dev/nvidia-uvm 511:0",
        "/dev/nvidia-uvm-tools 511:1",
        "/dev/nvidia0 195:0",
        "/dev/nvidia-caps/nvidia-cap1 508:1",
        "/dev/nvidia-caps/nvidia-cap2 508:2",
        "/dev/nvidia-caps/nvidia-cap3 508:3",
        "/dev/nvidia-caps/nvidia-cap4 508:4",
    ];
    assert_eq!(shown(&all), want, "only GPUs that are on the bus");
}

#[test]
fn old_names_and_missing_modules() {
    let dir = tempfile::tempdir().unwrap();
    let text = "Character devices:\n195 nvidia-frontend\n511 nvidia-uvm\n";
    let system = machine(dir.path(), text);
    assert_eq!(Majors::of(&system).unwrap().control()[0].major, 195);
    let text = "Character devices:\n195 nvidia\n";
    let err = Majors::of(&machine(dir.path(), text))
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("`nvidia-uvm`") && err.contains("hint: load the module"),
        "{err}"
    );
    fs::remove_file(dir.path().join("proc/devices")).unwrap();
    assert!(
        Majors::of(&system)
            .unwrap_err()
            .to_string()
            .starts_with("read /proc/devices: ")
    );
}

fn tree_with(dir: &Path, nodes: &[(&str, u32, u32)]) -> Tree {
    let mut table = BTreeMap::new();
    for (path, major, minor) in nodes {
        let file = dir.join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
        let (major, minor) = (*major, *minor);
        table.insert(
            (*path).to_owned(),
            NodeStat {
                major,
                minor,
                mode: 0o666,
                gid: 0,
            },
        );
    }
    Tree::open(dir, "/").unwrap().with_nodes(table)
}

#[test]
fn nodes_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = [
        ("/dev/nvidia0", 195, 0),
        ("/dev/nvidiactl", 195, 255),
        ("/dev/nvidia-fs0", 240, 0),
        ("/dev/nvidia-nvswitch0", 241, 0),
        ("/dev/nvidia-nvlink", 242, 0),
        ("/dev/nvidia-caps/nvidia-cap1", 508, 1),
    ];
    let tree = tree_with(dir.path(), &nodes);
    fs::write(dir.path().join("dev/nvidia-text"), "").unwrap();
    let found = shown(&existing(&tree));
    let want = [
        "/dev/nvidia0 195:0",
        "/dev/nvidiactl 195:255",
        "/dev/nvidia-caps/nvidia-cap1 508:1",
    ];
    assert_eq!(found, want);

    let node = |path: &str, minor| DeviceNode {
        path: path.to_owned(),
        major: 195,
        minor,
    };
    assert!(!is_missing(&tree, &node("/dev/nvidia0", 0)).unwrap());
    assert!(is_missing(&tree, &node("/dev/nvidia7", 7)).unwrap());
    let err = is_missing(&tree, &node("/dev/nvidia0", 1))
        .unwrap_err()
        .to_string();
    assert_eq!(
        err,
        "make node /dev/nvidia0 (195:1): node 195:0 is in the way"
    );
    let err = is_missing(&tree, &node("/dev/nvidia-text", 1))
        .unwrap_err()
        .to_string();
    assert!(
        err.ends_with("something that is no node is in the way"),
        "{err}"
    );
}

#[test]
fn links_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree_with(dir.path(), &[("/dev/nvidia0", 195, 0)]);
    let node = &existing(&tree)[0];
    let at = dir.path().join("dev/char");
    let link = CharLink::new(&tree, node, &at);
    assert!(link.make().unwrap() && link.is_there());
    assert!(!link.make().unwrap(), "a second time does nothing");
    assert_eq!(
        fs::read_link(at.join("195:0")).unwrap(),
        Path::new("/dev/nvidia0")
    );
    fs::remove_file(at.join("195:0")).unwrap();
    symlink("/dev/null", at.join("195:0")).unwrap();
    assert!(
        link.make()
            .unwrap_err()
            .to_string()
            .contains("leads elsewhere")
    );
    fs::remove_file(at.join("195:0")).unwrap();
    symlink("../nvidia0", at.join("195:0")).unwrap();
    let canonical = at.canonicalize().unwrap();
    let link = CharLink::new(&tree, node, &canonical);
    assert!(link.is_there(), "udev's own spelling");
}

/// A machine whose driver has two GPUs, one with a partition.
fn loaded(dir: &Path, devices: &str) -> Tree {
    let system = machine(dir, devices);
    let proc = dir.join("proc/driver/nvidia");
    for (bus, minor) in [("0000:17:00.0", 0), ("0000:2a:00.0", 3)] {
        fs::create_dir_all(proc.join("gpus").join(bus)).unwrap();
        let text = format!("Device Minor: \t {minor}\n");
        fs::write(proc.join("gpus").join(bus).join("information"), text).unwrap();
    }
    fs::create_dir_all(proc.join("capabilities/gpu0/mig/gi0/ci0")).unwrap();
    let version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n";
    fs::write(proc.join("version"), version).unwrap();
    system
}

const DEVICES: &str =
    "Character devices:\n195 nvidia\n508 nvidia-caps\n511 nvidia-uvm\n\nBlock devices:\n";

#[test]
fn only_nodes_that_the_loaded_driver_has_are_known() {
    let dir = tempfile::tempdir().unwrap();
    assert!(
        Stated::of(&machine(dir.path(), DEVICES)).is_none(),
        "no driver is loaded"
    );
    let stated = Stated::of(&loaded(dir.path(), DEVICES)).unwrap();
    let want = [
        "/dev/nvidia-caps/nvidia-cap3 508:3",
        "/dev/nvidia-caps/nvidia-cap4 508:4",
        "/dev/nvidia-modeset 195:254",
        "/dev/nvidia-uvm 511:0",
        "/dev/nvidia-uvm-tools 511:1",
        "/dev/nvidia0 195:0",
        "/dev/nvidia3 195:3",
        "/dev/nvidiactl 195:255",
    ];
    assert_eq!(shown(&stated.needed()), want);
    assert!(
        stated.node("/dev/nvidia-caps/nvidia-cap1").is_some(),
        "rights over MIG"
    );
    for other in [
        "/dev/nvidia1",
        "/dev/nvidia03",
        "/dev/nvidia",
        "/dev/nvidia-caps/nvidia-cap5",
        "/dev/nvidia-caps/nvidia-cap03",
        "/dev/nvidia-fs0",
        "/dev/nvidia-nvswitchctl",
        "/dev/sda",
        "/x/dev/nvidia0",
    ] {
        assert!(stated.node(other).is_none(), "{other}");
    }
    // A module that is not loaded has no numbers.
    let stated = Stated::of(&loaded(dir.path(), "Character devices:\n195 nvidia\n")).unwrap();
    assert!(stated.node("/dev/nvidia-uvm").is_none() && stated.node("/dev/nvidiactl").is_some());
}

/// As the driver's own tool gives them: capabilities are only read.
#[test]
fn modes_of_nodes() {
    let node = |path: &str| DeviceNode {
        path: path.to_owned(),
        major: 1,
        minor: 3,
    };
    assert_eq!(node("/dev/nvidia0").mode(), 0o666);
    assert_eq!(node("/dev/nvidia-uvm").mode(), 0o666);
    assert_eq!(node("/dev/nvidia-caps/nvidia-cap12").mode(), 0o444);
}
