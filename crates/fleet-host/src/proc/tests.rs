use std::fs;
use std::path::Path;

use super::*;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn info(minor: &str, uuid: &str, bus: &str, more: &str) -> String {
    format!(
        "Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 16\nGPU UUID: \t {uuid}\nBus Location: \t {bus}\nDevice Minor: \t {minor}\n{more}"
    )
}

#[test]
fn gpus_are_read_in_the_order_of_the_bus() {
    let dir = tempfile::tempdir().unwrap();
    let gpus = "proc/driver/nvidia/gpus";
    let uuid = "GPU-5fbe0d8a-7d2c-4c1f-9a6e-00000000000";
    for (minor, bus) in [("1", "0000:17:00.0"), ("0", "0000:65:00.0")] {
        let text = info(
            minor,
            &format!("{uuid}{minor}"),
            bus,
            "GPU Excluded:\t No\n",
        );
        write(dir.path(), &format!("{gpus}/{bus}/information"), &text);
    }
    write(
        dir.path(),
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  x\n",
    );
    let found = inventory(&Tree::open(dir.path(), "/").unwrap());
    assert_eq!(found.driver_version.as_deref(), Some("550.54.15"));
    let told: Vec<_> = found
        .gpus
        .iter()
        .map(|gpu| (gpu.index, gpu.minor))
        .collect();
    assert_eq!(
        told,
        [(0, 1), (1, 0)],
        "the index follows the bus, not the minor number"
    );
    assert_eq!(found.gpus[0].uuid, Some(format!("{uuid}1")));
    assert_eq!(found.warnings, [""; 0]);
}

#[test]
fn bad_files_cost_one_gpu_each_and_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let gpus = "proc/driver/nvidia/gpus";
    let good = "GPU-1";
    for (bus, text) in [
        ("0000:01:00.0", info("0", good, "0000:01:00.0", "")),
        (
            "0000:02:00.0",
            info("99999999999", good, "0000:02:00.0", ""),
        ),
        ("0000:03:00.0", info("-1", good, "0000:03:00.0", "")),
        ("0000:04:00.0", "garbage\n\u{0}\u{1}".to_owned()),
        (
            "0000:05:00.0",
            info("5", good, "0000:05:00.0", "GPU Excluded:\t Yes\n"),
        ),
        (
            "0000:06:00.0",
            info("6", "GPU-????????-????", "0000:06:00.0", ""),
        ),
    ] {
        write(dir.path(), &format!("{gpus}/{bus}/information"), &text);
    }
    fs::create_dir_all(dir.path().join(gpus).join("0000:07:00.0")).unwrap();
    std::os::unix::fs::symlink(
        "information",
        dir.path().join(gpus).join("0000:07:00.0/information"),
    )
    .unwrap();
    let found = inventory(&Tree::open(dir.path(), "/").unwrap());
    let told = found.gpus.iter();
    let told: Vec<_> = told.map(|gpu| (gpu.index, gpu.minor)).collect();
    assert_eq!(told, [(0, 0), (4, 6)], "others keep their indexes");
    let warned = found.warnings.join("\n");
    for word in [
        "02:00.0",
        "03:00.0",
        "04:00.0",
        "07:00.0",
        "06:00.0 has no UUID",
    ] {
        assert!(warned.contains(word), "{word}: {warned}");
    }
    assert_eq!(found.warnings.len(), 5, "{warned}");
    assert_eq!(
        inventory(&Tree::open(Path::new("/dev"), "/").unwrap()).gpus,
        []
    );
}

#[test]
fn partitions_and_their_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let bus = "0000:01:00.0";
    let text = info("0", "GPU-1", bus, "");
    write(
        dir.path(),
        &format!("proc/driver/nvidia/gpus/{bus}/information"),
        &text,
    );
    let caps = "proc/driver/nvidia/capabilities/gpu0/mig";
    for access in [
        "gi10/ci0",
        "gi2/ci1",
        "gi2/ci0",
        "gi2",
        "gi10",
        "nonsense/ci0",
    ] {
        write(
            dir.path(),
            &format!("{caps}/{access}/access"),
            "DeviceFileMinor: 1\n",
        );
    }
    let found = inventory(&Tree::open(dir.path(), "/").unwrap());
    let parts = found.gpus[0].mig.clone().unwrap();
    let told: Vec<_> = parts
        .iter()
        .map(|mig| (mig.index, mig.gpu_instance, mig.compute_instance))
        .collect();
    assert_eq!(told, [(0, 2, 0), (1, 2, 1), (2, 10, 0)]);
    assert_eq!(found.mig_state(), "0=2.0+2.1+10.0");
}

#[test]
fn minors_of_mig() {
    let text = "config 1\nmonitor 2\ngpu0/gi0/access 3\ngpu0/gi0/ci0/access 4\ngpu1/gi0/access 300\n\
        nonsense\ngpu0/gi1/access\ngpu0/gi1/access x\ngpu0/gi1/access 99999999999\ngpux/gi0/access 5\n\
        gpu0/gi0/ci0/other 6\n../gi0/access 7\ngpu0/gi5/access  8\n";
    let minors = MigMinors::parse(text);
    assert_eq!(minors.control("config"), Some(1));
    assert_eq!(minors.control("monitor"), Some(2));
    assert_eq!(minors.gpu_instance(0, 0), Some(3));
    assert_eq!(minors.compute_instance(0, 0, 0), Some(4));
    assert_eq!(minors.gpu_instance(1, 0), Some(300));
    assert_eq!(minors.gpu_instance(0, 1), None);
    assert_eq!(minors.of_gpu(0), [3, 4, 8]);
    assert_eq!(MigMinors::parse("").of_gpu(0), [0; 0]);
}

#[test]
fn majors() {
    let text = "Character devices:\n  1 mem\n195 nvidia\n195 nvidia-modeset\n510 nvidia-uvm\nx y\n\nBlock devices:\n259 blkext\n";
    let majors = character_majors(text);
    assert_eq!(majors.get("nvidia"), Some(&195));
    assert_eq!(majors.get("nvidia-uvm"), Some(&510));
    assert_eq!(majors.get("blkext"), None);
    assert!(character_majors("").is_empty());
}

#[test]
fn sysfs() {
    let dir = tempfile::tempdir().unwrap();
    let devices = "sys/bus/pci/devices";
    for (bus, vendor, class) in [
        ("0000:01:00.0", "0x10de", "0x030000"),
        ("0000:02:00.0", "0x10de", "0x030200"),
        ("0000:02:00.1", "0x10de", "0x040300"),
        ("0000:03:00.0", "0x1002", "0x030000"),
        ("0000:04:00.0", "0x10de", "0x068000"),
    ] {
        write(
            dir.path(),
            &format!("{devices}/{bus}/vendor"),
            &format!("{vendor}\n"),
        );
        write(
            dir.path(),
            &format!("{devices}/{bus}/class"),
            &format!("{class}\n"),
        );
    }
    for name in ["card1", "renderD128", "controlD65"] {
        fs::create_dir_all(
            dir.path()
                .join(format!("{devices}/0000:01:00.0/drm/{name}")),
        )
        .unwrap();
    }
    write(dir.path(), "sys/devices/soc0/family", "Tegra\n");
    let tree = Tree::open(dir.path(), "/").unwrap();
    let gpus: Vec<_> = pci_gpus(&tree).iter().map(ToString::to_string).collect();
    assert_eq!(gpus, ["0000:01:00.0", "0000:02:00.0"]);
    let bus = BusId::parse("0000:01:00.0").unwrap();
    assert_eq!(drm_names(&tree, &bus), ["card1", "renderD128"]);
    assert!(is_tegra(&tree));
    fs::remove_file(dir.path().join("sys/devices/soc0/family")).unwrap();
    assert!(!is_tegra(&tree));
    write(dir.path(), "etc/nv_tegra_release", "# R36\n");
    assert!(is_tegra(&tree));
    assert_eq!(boot_id(&tree), None);
}

/// Whatever stands in proc, reading it ends and does not panic.
#[test]
fn noise_is_read_as_nothing() {
    let mut state = 1_u64;
    let mut next = || {
        // Knuth's constants for a linear congruential generator.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap()
    };
    let words = [
        "GPU UUID",
        "Device Minor",
        "Bus Location",
        ":",
        " ",
        "\n",
        "\t",
        "gpu",
        "gi0",
        "/",
        "access",
        "0000:17:00.0",
        "99999999999999999999",
        "-1",
        "config",
        "Character devices:",
        "\u{0}",
        "é",
        "195 nvidia",
    ];
    for _ in 0..2000 {
        let count = next() % 12;
        let text: String = (0..count).map(|_| words[next() % words.len()]).collect();
        drop(information(&text));
        drop(MigMinors::parse(&text).of_gpu(0));
        drop(character_majors(&text));
        drop(BusId::parse(&text));
    }
}
