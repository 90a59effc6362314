//! The simulated node: what its `nvidia-smi` and the real one tell of the machines, on the host and in containers.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleet_tests::{Bundle, Output, driver, path, run, skip, unique};
use serde_json::json;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// A tree that goes away with the test, and its CDI spec.
struct Node {
    root: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.root));
        drop(fs::remove_file("/etc/cdi/nvidia.yaml"));
    }
}

fn create(machine: &str, options: &[&str]) -> (Node, Output) {
    let node = Node {
        root: PathBuf::from("/run").join(unique("node")),
    };
    let out = run(Command::new(path("FLEET_CTL"))
        .args(["simulate", "create", "--quiet", "--machine", machine])
        .args(["--cdi", "/etc/cdi/nvidia.yaml", "--programs"])
        .arg(path("FLEET_PROGRAMS"))
        .args(options)
        .arg("--root")
        .arg(&node.root));
    (node, out)
}

/// A node, or nothing where no device nodes can be borrowed.
fn node(test: &str, machine: &str, options: &[&str]) -> Option<Node> {
    let (node, out) = create(machine, options);
    if out.code != 0 {
        skip(test, out.stderr.trim());
        return None;
    }
    Some(node)
}

impl Node {
    /// The node's `nvidia-smi` on the host.
    fn smi(&self, args: &[&str]) -> Output {
        run(Command::new(self.root.join("usr/bin/nvidia-smi"))
            .args(args)
            .env_clear()
            .env("LD_LIBRARY_PATH", self.root.join(LIBRARIES)))
    }

    /// The same in a container that was given some GPUs.
    fn smi_in_container(&self, devices: &str, args: &str) -> Output {
        let env = json!([
            "PATH=/bin:/sbin:/usr/bin",
            format!("NVIDIA_VISIBLE_DEVICES={devices}")
        ]);
        let bundle = Bundle::new(&format!("nvidia-smi {args}")).set("/process/env", env);
        let image = path("FLEET_STATE").join("images/glibc.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C")
            .arg(bundle.dir.join("rootfs"))
            .arg("-xf")
            .arg(image);
        assert_eq!(run(&mut tar).code, 0, "unpack the image");
        bundle.run()
    }
}

fn lines(text: &str, start: &str) -> usize {
    text.lines().filter(|line| line.starts_with(start)).count()
}

#[test]
fn machines_have_their_gpus() {
    for (machine, count, name) in [
        ("a100x1", 1, "NVIDIA A100-SXM4-40GB"),
        ("h100x16", 16, "NVIDIA H100 80GB HBM3"),
        ("h200x2", 2, "NVIDIA H200"),
        ("b200x8", 8, "NVIDIA B200"),
        ("dgx-station", 5, "NVIDIA DGX Display"),
        ("grace-hopper", 1, "NVIDIA GH200 480GB"),
        ("workstation", 2, "NVIDIA GeForce RTX 4090"),
    ] {
        let Some(node) = node("machines_have_their_gpus", machine, &[]) else {
            return;
        };
        let list = node.smi(&["-L"]).ok();
        assert_eq!(lines(&list, "GPU "), count, "{machine}: {list}");
        assert!(list.contains(name), "{machine}: {list}");
        let table = node.smi(&[]).ok();
        assert!(table.contains("Driver Version: 550.54.15"), "{table}");
        let uuids = node
            .smi(&["--query-gpu=uuid", "--format=csv,noheader"])
            .ok();
        let different: BTreeSet<&str> = uuids.lines().collect();
        assert_eq!(different.len(), count, "{machine}: {uuids}");
    }
}

#[test]
fn two_trees_of_one_description_are_alike() {
    let Some(one) = node("two_trees_of_one_description_are_alike", "mig-mixed", &[]) else {
        return;
    };
    let (other, out) = create("mig-mixed", &[]);
    out.silent();
    for args in [&["-L"][..], &[]] {
        let told = one.smi(args).ok();
        assert!(!told.is_empty());
        assert_eq!(told, other.smi(args).ok());
    }
}

/// A container that was given one part of a GPU sees that part alone, and its kernel agrees.
#[test]
fn a_mig_device_alone() {
    let Some(node) = node("a_mig_device_alone", "mig-mixed", &[]) else {
        return;
    };
    let host = node.smi(&["-L"]).ok();
    assert_eq!(lines(&host, "  MIG "), 6, "{host}");
    let wanted = host
        .lines()
        .find(|line| line.contains("MIG 2g.10gb"))
        .expect("a part");
    let uuid = wanted
        .split("UUID: ")
        .nth(1)
        .expect("a UUID")
        .trim_end_matches(')');
    for device in ["0:1", uuid] {
        let inside = node.smi_in_container(device, "-L").ok();
        assert_eq!(lines(&inside, "GPU "), 1, "{inside}");
        let parts: Vec<&str> = inside
            .lines()
            .filter(|line| line.starts_with("  MIG "))
            .collect();
        assert_eq!(parts.len(), 1, "{inside}");
        assert!(
            parts[0].contains("MIG 2g.10gb") && parts[0].contains(uuid),
            "{inside}"
        );
    }
    let all = node.smi_in_container("all", "-L").ok();
    assert_eq!(lines(&all, "  MIG "), 6, "{all}");
    // The fourth GPU is divided into nothing: no device of it can be asked for.
    assert_eq!(lines(&all, "GPU "), 3, "{all}");
}

#[test]
fn a_lost_gpu_does_not_hide_the_others() {
    let Some(node) = node("a_lost_gpu_does_not_hide_the_others", "lost-gpu", &[]) else {
        return;
    };
    let out = node.smi(&["-L"]);
    assert_eq!(out.code, 15, "{out:?}");
    assert_eq!(lines(&out.stdout, "GPU "), 2, "{out:?}");
    assert!(out.stdout.contains("gpu 1: GPU is lost"), "{out:?}");
    // Its spec leaves it out, and a container with the rest is well.
    let inside = node.smi_in_container("all", "-L").ok();
    assert_eq!(lines(&inside, "GPU "), 2, "{inside}");
}

#[test]
fn other_faults() {
    let Some(mismatch) = node("other_faults", "mismatch", &[]) else {
        return;
    };
    let out = mismatch.smi(&["-L"]);
    assert_eq!(out.code, 18, "{out:?}");
    assert!(out.stdout.contains("version mismatch"), "{out:?}");
    let version = fs::read_to_string(mismatch.root.join("proc/driver/nvidia/version"));
    assert!(version.expect("version").contains("550.90.07"));

    let (bad, out) = create("bad-nodes", &[]);
    out.silent();
    // The first, the one whose /proc file is garbage, and, for root, the one whose node has no permissions.
    let list = bad.smi(&["-L"]).ok();
    assert_eq!(lines(&list, "GPU "), 3, "{list}");
    assert!(!bad.root.join("dev/nvidia1").exists() && bad.root.join("dev/nvidia2").exists());

    fs::remove_file(bad.root.join("dev/nvidiactl")).expect("remove the control node");
    assert_eq!(bad.smi(&["-L"]).code, 9);
}

#[test]
fn a_description_file_and_its_mistakes() {
    let file = PathBuf::from("/run").join(unique("machine"));
    fs::write(&file, "[[gpu]]\nmodel = \"l40s\"\nuuid = \"GPU-00000000-1111-2222-3333-444444444444\"\nname = \"NVIDIA Test\"\n").expect("write");
    let given = file.display().to_string();
    if let Some(node) = node("a_description_file_and_its_mistakes", &given, &[]) {
        assert_eq!(
            node.smi(&["-L"]).ok(),
            "GPU 0: NVIDIA Test (UUID: GPU-00000000-1111-2222-3333-444444444444)\n"
        );
    }
    fs::write(&file, "[[gpu]]\nmodel = \"voodoo2\"\n").expect("write");
    drop(
        create(&given, &[])
            .1
            .fails("no GPU model `voodoo2`; hint: "),
    );
    drop(
        create("/no/such/file", &[])
            .1
            .fails("hint: a description file"),
    );
    fs::remove_file(file).expect("remove");
}

#[test]
fn what_was_made_can_be_removed() {
    let ctl = |args: &[&str]| run(Command::new(path("FLEET_CTL")).arg("simulate").args(args));
    let (node, out) = create("h100x1", &["--nodes", "listed"]);
    out.silent();
    let root = node.root.display().to_string();
    ctl(&["remove", &root]).silent();
    assert!(!node.root.exists());
    drop(create("wsl", &[]).1.fails("`wsl` has no CDI spec to write"));
    drop(ctl(&["remove", "/etc"]).fails("holds no simulated node"));
    let list = ctl(&["list"]).ok();
    for name in ["h100xN[-mig]", "dgx-h100", "wsl", "orin"] {
        assert!(list.contains(name), "{list}");
    }
    assert!(
        ctl(&["describe", "lost-gpu"])
            .ok()
            .contains("fault = \"lost\"")
    );
}

/// A command that runs inside a tree finds its GPUs where a real machine has them, and leaves the machine as it was.
#[test]
fn a_command_inside_the_tree() {
    let Some(node) = node("a_command_inside_the_tree", "dgx-h100", &[]) else {
        return;
    };
    let inside =
        |script: &str| run(Command::new(node.root.join("enter")).args(["sh", "-c", script])).ok();
    let version = inside("cat /proc/driver/nvidia/version; grep nvidia-caps /proc/devices");
    assert!(
        version.contains("550.54.15") && version.contains("510 nvidia-caps"),
        "{version}"
    );
    let found =
        inside("ls /sys/bus/pci/devices/0000:2a:00.0/drm; echo x >/dev/null; ls /dev/nvidia7");
    assert_eq!(found, "card2\nrenderD129\n/dev/nvidia7\n");
    assert_eq!(lines(&inside("nvidia-smi -L"), "GPU "), 8);
    assert!(!Path::new("/proc/driver/nvidia").exists() || !Path::new("/dev/nvidia7").exists());
}

/// Names of the devices in the CDI directories.
fn device_names() -> Vec<String> {
    let list = run(Command::new(path("FLEET_CTL")).args(["cdi", "list"])).ok();
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    list.lines().filter_map(first).collect()
}

/// The spec that comes with a node and the one that is generated from it name the same devices, and a part of a GPU
/// works with the generated one, which knows nothing of the simulation.
#[test]
fn generated_specs_agree() {
    for machine in [
        "h100x2",
        "dgx-h100",
        "dgx-station",
        "grace-hopper",
        "lost-gpu",
        "mig-mixed",
    ] {
        let Some(node) = node("generated_specs_agree", machine, &[]) else {
            return;
        };
        let ours = device_names();
        assert!(ours.len() >= 3, "{machine}: {ours:?}");
        let out = run(Command::new(node.root.join("enter"))
            .arg(path("FLEET_CTL"))
            .args(["cdi", "generate", "--output", "/etc/cdi/nvidia.yaml"])
            .arg("--driver-root")
            .arg(&node.root));
        assert_eq!(out.code, 0, "{machine}: {out:?}");
        assert_eq!(device_names(), ours, "{machine}");
        if machine == "mig-mixed" {
            let part = node.smi_in_container("0:1", "-L").ok();
            assert_eq!(
                (lines(&part, "GPU "), lines(&part, "  MIG ")),
                (1, 1),
                "{part}"
            );
            assert!(part.contains("MIG 2g.10gb"), "{part}");
        }
    }
}

#[test]
fn every_function_of_nvml_resolves() {
    let symbols =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/fleet-sim/nvml/symbols.txt");
    let wanted = fs::read_to_string(symbols).expect("symbols");
    let library = path("FLEET_PROGRAMS").join("libnvidia_ml.so");
    let has = run(Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(library))
    .ok();
    let has: BTreeSet<&str> = has
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    let missing: Vec<&str> = wanted.lines().filter(|name| !has.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Some files of Debian's driver packages, or a loud skip where they cannot be had.
fn real_driver(test: &str) -> Option<String> {
    let dir = driver::unpacked(test)?;
    // All of them would be half a gigabyte for each node.
    let (all, some) = (dir.join("root"), PathBuf::from("/run/some-driver-files"));
    let libraries = "usr/lib/x86_64-linux-gnu/nvidia/current";
    let wanted = [
        "libcuda.so",
        "libnvidia-ml.so",
        "libnvidia-cfg.so",
        "libnvidia-ptxjitcompiler.so",
    ];
    let mut copy = Command::new("cp");
    copy.arg("-a").arg("-t").arg(some.join(libraries));
    for entry in fs::read_dir(all.join(libraries)).expect("list the libraries") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if wanted.iter().any(|prefix| name.starts_with(prefix)) {
            copy.arg(entry.path());
        }
    }
    fs::create_dir_all(some.join(libraries)).expect("mkdir");
    run(&mut copy).silent();
    let program = "usr/lib/nvidia/current/nvidia-smi";
    fs::create_dir_all(some.join("usr/lib/nvidia/current")).expect("mkdir");
    fs::copy(all.join(program), some.join(program)).expect("copy nvidia-smi");
    Some(some.display().to_string())
}

/// The report without the time that it was made.
fn timeless(report: &str) -> String {
    let keep = |line: &&str| !line.starts_with("Timestamp") && !line.contains(" 20");
    report.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

/// The real `nvidia-smi` shows the simulated GPUs in its three forms, on the host and, with the driver's real files and
/// the same result, in a container.
#[test]
fn the_real_nvidia_smi() {
    let test = "the_real_nvidia_smi";
    let Some(files) = real_driver(test) else {
        return;
    };
    let Some(node) = node(test, "h100x2", &["--files", &files]) else {
        return;
    };
    let list = node.smi(&["-L"]).ok();
    assert_eq!(
        list,
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5fbe0d8a-7d2c-4c1f-9a6e-000000000000)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-5fbe0d8a-7d2c-4c1f-9a6e-000000000001)\n"
    );
    let table = node.smi(&[]).ok();
    for word in [
        "NVIDIA-SMI 5",
        "1MiB /  81559MiB",
        "69W /  700W",
        "No running processes found",
    ] {
        let squeezed = |text: &str| text.replace(' ', "");
        assert!(
            squeezed(&table).contains(&squeezed(word)),
            "{word}: {table}"
        );
    }
    let report = node.smi(&["-q"]).ok();
    for word in [
        "Attached GPUs                             : 2",
        "Product Architecture                  : Hopper",
        "GPU UUID                              : GPU-5fbe0d8a-7d2c-4c1f-9a6e-000000000001",
        "Device Id                         : 0x233010DE",
        "Max                       : 5",
        "Total                             : 81559 MiB",
    ] {
        assert!(report.contains(word), "{word}: {report}");
    }
    for bad in ["Unknown Error", "Insufficient Size", "ERR!"] {
        assert!(!report.contains(bad), "{bad}: {report}");
    }
    assert_eq!(node.smi_in_container("all", "-L").ok(), list);
    assert_eq!(
        timeless(&node.smi_in_container("all", "").ok()),
        timeless(&table)
    );
    assert_eq!(
        timeless(&node.smi_in_container("all", "-q").ok()),
        timeless(&report)
    );
    let one = node.smi_in_container("1", "-L").ok();
    assert_eq!(
        one,
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5fbe0d8a-7d2c-4c1f-9a6e-000000000001)\n"
    );
}

/// The real program on MIG, a lost GPU and two versions, with the words and exit codes that users report.
#[test]
fn the_real_nvidia_smi_on_special_nodes() {
    let test = "the_real_nvidia_smi_on_special_nodes";
    let Some(files) = real_driver(test) else {
        return;
    };
    let Some(mig) = node(test, "mig-mixed", &["--files", &files]) else {
        return;
    };
    let list = mig.smi(&["-L"]).ok();
    for word in [
        "  MIG 3g.20gb     Device  0: (UUID: MIG-",
        "  MIG 2c.4g.40gb  Device  1: ",
    ] {
        assert!(list.contains(word), "{word}: {list}");
    }
    let table = mig.smi(&[]).ok();
    assert!(
        table.contains("| MIG devices: ") && table.contains("/ 20096MiB"),
        "{table}"
    );
    let instances = mig.smi(&["mig", "-lgi"]).ok();
    assert!(
        instances.contains("MIG 2g.10gb         14        3          4:2"),
        "{instances}"
    );
    let part = mig.smi_in_container("0:0", "-L").ok();
    assert_eq!(
        (lines(&part, "GPU "), lines(&part, "  MIG 3g.20gb ")),
        (1, 1),
        "{part}"
    );
    assert_eq!(lines(&part, "  MIG "), 1, "{part}");

    let (dgx, out) = create("dgx-h100", &["--files", &files]);
    out.silent();
    let topology = dgx.smi(&["topo", "-m"]).ok();
    assert!(topology.contains("GPU7\tNV18\tNV18"), "{topology}");
    let links = dgx.smi(&["nvlink", "-s", "-i", "0"]).ok();
    assert_eq!(lines(&links, "\t Link "), 18, "{links}");

    let (lost, out) = create("lost-gpu", &["--files", &files]);
    out.silent();
    let out = lost.smi(&["-L"]);
    assert_eq!(out.code, 15, "{out:?}");
    assert!(
        out.stdout.contains("GPU is lost.  Reboot the system"),
        "{out:?}"
    );
    assert_eq!(lines(&out.stdout, "GPU "), 2, "{out:?}");

    let (mismatch, out) = create("mismatch", &["--files", &files]);
    out.silent();
    let out = mismatch.smi(&[]);
    assert_eq!(out.code, 18, "{out:?}");
    let word =
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 5";
    assert!(out.stdout.contains(word), "{out:?}");
}
