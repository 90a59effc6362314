//! The spec of each kind of machine, kept in `cdi/platforms` and reviewed against NVIDIA's rules.
#![allow(missing_docs, unused_crate_dependencies, clippy::unwrap_used)]

mod tree;

use fleet_cdi::{Format, Hook, Spec, Version, parse};
use fleet_discover::{Features, HookOptions, Mode, Naming, Options, Stamping};
use tree::{LIB, Maker, V, assert_golden, gpu, inventory, names, part};

fn options() -> Options {
    Options {
        mode: Mode::Nvml,
        ..Options::default()
    }
}

fn of_mode(mode: Mode) -> Options {
    Options {
        mode,
        ..Options::default()
    }
}

#[test]
fn a_workstation_with_graphics() {
    let mut maker = Maker::new();
    maker
        .compute()
        .control()
        .node("/dev/nvidia0", 195, 0)
        .drm("0000:01:00.0", 1);
    for (name, soname) in [
        ("libGLX_nvidia", "libGLX_nvidia.so.0"),
        ("libnvidia-allocator", "libnvidia-allocator.so.1"),
    ] {
        maker.library(&format!("{LIB}/{name}.so.{V}"), soname, false);
    }
    maker.library(
        &format!("{LIB}/libnvidia-egl-gbm.so.1.1.1"),
        "libnvidia-egl-gbm.so.1",
        false,
    );
    maker.library(
        &format!("{LIB}/vdpau/libvdpau_nvidia.so.{V}"),
        "libvdpau_nvidia.so.1",
        false,
    );
    maker.files(&[
        &format!("{LIB}/nvidia/xorg/nvidia_drv.so"),
        &format!("{LIB}/nvidia/xorg/libglxserver_nvidia.so.{V}"),
        "/usr/bin/nvidia-xconfig",
        "/usr/share/vulkan/icd.d/nvidia_icd.json",
        "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
        "/usr/share/X11/xorg.conf.d/10-nvidia.conf",
        "/etc/OpenCL/vendors/nvidia.icd",
    ]);
    let output = maker.generate(
        Some(&inventory(vec![gpu(0, 0, "0000:01:00.0")])),
        &options(),
    );
    assert_eq!(output.warnings, [""; 0]);
    assert_golden("workstation", &output.specs[0].spec);
}

/// Links that udev left behind lead to nodes that the container does not get.
#[test]
fn links_by_path_only_to_nodes_of_the_gpu() {
    let mut maker = Maker::new();
    let bus = "0000:01:00.0";
    maker
        .compute()
        .control()
        .node("/dev/nvidia0", 195, 0)
        .drm(bus, 1)
        .link(&format!("/dev/dri/by-path/pci-{bus}-card"), "../card7");
    let told = inventory(vec![gpu(0, 0, bus)]);
    let output = maker.generate(Some(&told), &options());
    let hooks = &output.specs[0].spec.devices[0].container_edits.hooks;
    let links = hooks[0].args.iter().filter(|arg| arg.contains("::"));
    let want = format!("../renderD128::/dev/dri/by-path/pci-{bus}-render");
    assert_eq!(links.collect::<Vec<_>>(), [&want]);
}

/// For old engines that make directories of nodes unsearchable.
#[test]
fn directories_of_nodes_are_opened_when_asked_for() {
    let mut maker = Maker::new();
    let bus = "0000:01:00.0";
    maker
        .compute()
        .control()
        .node("/dev/nvidia0", 195, 0)
        .drm(bus, 1);
    let hooks = HookOptions {
        enabled: vec!["chmod".to_owned()],
        ..HookOptions::default()
    };
    let told = inventory(vec![gpu(0, 0, bus)]);
    let output = maker.generate(Some(&told), &Options { hooks, ..options() });
    let hooks = &output.specs[0].spec.devices[0].container_edits.hooks;
    let last = hooks.last().unwrap();
    assert_eq!(
        last.args[2..],
        ["chmod", "--mode", "755", "--path", "/dev/dri"]
    );
}

#[test]
fn vendor_and_class_can_be_chosen() {
    let mut maker = Maker::new();
    maker.node("/dev/gdrdrv", 240, 0);
    let kind = |vendor: Option<&str>, class: Option<&str>| {
        let (vendor, class) = (vendor.map(str::to_owned), class.map(str::to_owned));
        let options = Options {
            vendor,
            class,
            ..of_mode(Mode::Gdrcopy)
        };
        maker.generate(None, &options).specs.remove(0).spec.kind
    };
    assert_eq!(kind(None, None), "nvidia.com/gdrcopy");
    assert_eq!(kind(Some("v.example"), None), "v.example/gdrcopy");
    assert_eq!(kind(None, Some("c")), "nvidia.com/c");
}

#[test]
fn partitions_and_whole_gpus() {
    let mut maker = Maker::new();
    maker.compute().control();
    let (first, second) = ("0000:17:00.0", "0000:65:00.0");
    maker
        .node("/dev/nvidia0", 195, 0)
        .node("/dev/nvidia1", 195, 1)
        .drm(first, 1)
        .drm(second, 2);
    let mut minors = String::from("config 1\nmonitor 2\n");
    for (instance, minor) in [(1, 3), (2, 12), (13, 111)] {
        minors += &format!(
            "gpu0/gi{instance}/access {minor}\ngpu0/gi{instance}/ci0/access {}\n",
            minor + 1
        );
        maker.node_of(
            &format!("/dev/nvidia-caps/nvidia-cap{minor}"),
            508,
            minor,
            0o444,
            0,
        );
        maker.node_of(
            &format!("/dev/nvidia-caps/nvidia-cap{}", minor + 1),
            508,
            minor + 1,
            0o444,
            0,
        );
    }
    maker.write("/proc/driver/nvidia-caps/mig-minors", &minors);
    let mut told = inventory(vec![gpu(0, 0, first), gpu(1, 1, second)]);
    told.gpus[0].mig = Some(vec![
        part(0, 1, false),
        part(1, 2, true),
        part(3, 13, false),
    ]);
    let output = maker.generate(Some(&told), &options());
    assert_eq!(output.warnings, [""; 0]);
    let want = ["0:0", "0:1", "0:3", "1"];
    assert_eq!(
        names(&output.specs[0])[..4],
        want,
        "a partitioned GPU is no device as a whole"
    );
    assert_golden("a100-mig", &output.specs[0].spec);

    // One partition whose nodes are gone does not cost the others.
    told.gpus[0].mig.as_mut().unwrap().push(part(4, 9, false));
    let output = maker.generate(Some(&told), &options());
    assert_eq!(names(&output.specs[0])[..4], want);
    assert!(
        output.warnings[0].contains("partition 0:4") && output.warnings[0].contains("gi9/ci0"),
        "{:?}",
        output.warnings
    );
}

#[test]
fn a_driver_in_a_container() {
    let mut maker = Maker::new();
    maker.driver_root = "/run/nvidia/driver".to_owned();
    maker.dev_root = "/run/nvidia/driver".to_owned();
    maker
        .compute()
        .control()
        .node("/dev/nvidia0", 195, 0)
        .drm("0000:01:00.0", 1);
    maker
        .files(&["/opt/bin/nvidia-debugdump"])
        .link("/usr/bin/nvidia-debugdump", "/opt/bin/nvidia-debugdump");
    let told = inventory(vec![gpu(0, 0, "0000:01:00.0")]);
    assert_golden(
        "driver-container",
        &maker.generate(Some(&told), &options()).specs[0].spec,
    );
}

#[test]
fn coherent_gpus_get_specs_of_their_own() {
    let mut maker = Maker::new();
    maker.compute().control();
    let mut told = inventory(vec![
        gpu(0, 0, "0009:01:00.0"),
        gpu(1, 1, "0019:01:00.0"),
        gpu(2, 2, "0029:01:00.0"),
    ]);
    for (minor, gpu) in (0..).zip(&mut told.gpus) {
        maker.node(&format!("/dev/nvidia{minor}"), 195, minor);
        gpu.name = "NVIDIA GH200 480GB".to_owned();
        gpu.coherent = [Some(true), Some(false), None][usize::try_from(minor).unwrap()];
    }
    let features = Features {
        coherent: true,
        ..Features::default()
    };
    let output = maker.generate(
        Some(&told),
        &Options {
            features,
            naming: vec![Naming::Index],
            ..options()
        },
    );
    let told_of = |n: usize| {
        (
            output.specs[n].infix,
            output.specs[n].spec.kind.as_str(),
            names(&output.specs[n]),
        )
    };
    assert_eq!(
        told_of(0),
        ("", "nvidia.com/gpu", vec!["0", "1", "2", "all"])
    );
    assert_eq!(
        told_of(1),
        (".coherent", "nvidia.com/gpu.coherent", vec!["0", "all"])
    );
    assert_eq!(
        told_of(2),
        (
            ".noncoherent",
            "nvidia.com/gpu.noncoherent",
            vec!["1", "all"]
        )
    );
    for generated in &output.specs {
        assert!(
            generated
                .spec
                .devices
                .iter()
                .all(|device| device.annotations.is_empty())
        );
        assert_eq!(
            generated.spec.container_edits,
            output.specs[0].spec.container_edits
        );
    }
    assert_golden("gh200-coherent", &output.specs[1].spec);
}

#[test]
fn parts_of_the_driver_by_capability() {
    let mut maker = Maker::new();
    maker.compute().control().node("/dev/nvidia0", 195, 0);
    maker.library(
        &format!("{LIB}/libGLX_nvidia.so.{V}"),
        "libGLX_nvidia.so.0",
        false,
    );
    maker.write(&format!("/usr/lib32/libcuda.so.{V}"), "\u{7f}ELF\u{1}");
    let features = Features {
        parts: true,
        compat32: true,
        ..Features::default()
    };
    let output = maker.generate(
        Some(&inventory(vec![gpu(0, 0, "0000:01:00.0")])),
        &Options {
            features,
            ..options()
        },
    );
    let kinds: Vec<_> = output
        .specs
        .iter()
        .map(|generated| (generated.infix, generated.spec.kind.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("", "nvidia.com/gpu"),
            (".node", "nvidia.com/gpu-node"),
            (".driver", "nvidia.com/gpu-driver")
        ]
    );
    let nodes = &output.specs[1].spec;
    assert!(
        nodes.container_edits.mounts.is_empty() && nodes.container_edits.device_nodes.len() == 4
    );
    let driver = &output.specs[2].spec;
    assert!(
        driver.container_edits.mounts.is_empty() && driver.container_edits.device_nodes.is_empty()
    );
    let of = |name: &str| {
        let device = driver
            .devices
            .iter()
            .find(|device| device.name == name)
            .unwrap();
        let mounts = device.container_edits.mounts.iter();
        mounts
            .map(|mount| mount.container_path.rsplit('/').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(of("utility").contains(&"nvidia-smi".to_owned()));
    assert!(!of("utility").iter().any(|name| name.starts_with("libcuda")));
    assert!(of("compute").contains(&format!("libcuda.so.{V}")));
    assert!(of("graphics").contains(&format!("libGLX_nvidia.so.{V}")));
    assert_eq!(of("compat32"), [format!("libcuda.so.{V}")]);
    // Together they are the whole.
    let main = &output.specs[0].spec.container_edits;
    let all = &driver
        .devices
        .iter()
        .find(|device| device.name == "all")
        .unwrap()
        .container_edits;
    for mount in &main.mounts {
        assert!(all.mounts.contains(mount), "{mount:?}");
    }
    assert_golden("parts-driver", driver);
    assert_golden("parts-node", nodes);
}

#[test]
fn management() {
    let mut maker = Maker::new();
    maker
        .compute()
        .control()
        .node("/dev/nvidia0", 195, 0)
        .node("/dev/nvidia1", 195, 1);
    for (name, minor) in [
        ("nvidia-fs0", 0),
        ("nvidia-nvswitch0", 1),
        ("nvidia-nvlink", 2),
        ("nvidia-caps-imex-channels/channel0", 0),
    ] {
        maker.node(&format!("/dev/{name}"), 240, minor);
    }
    maker.node_of("/dev/nvidia-caps/nvidia-cap1", 508, 1, 0o400, 0);
    // What such a container has no use for.
    maker.files(&[
        &format!("{LIB}/nvidia/xorg/nvidia_drv.so"),
        "/usr/bin/nvidia-xconfig",
        "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
    ]);
    let hooks = HookOptions {
        enabled: vec!["chmod".to_owned()],
        ..HookOptions::default()
    };
    let output = maker.generate(
        None,
        &Options {
            hooks,
            ..of_mode(Mode::Management)
        },
    );
    assert_golden("management", &output.specs[0].spec);
    let mut others = Maker::new();
    for nodes in [&[][..], &["nvidia-fs0", "nvidia-nvswitch0"]] {
        for (minor, node) in (0..).zip(nodes) {
            others.node(&format!("/dev/{node}"), 240, minor);
        }
        let err = others
            .try_generate(None, &of_mode(Mode::Management))
            .unwrap_err();
        assert!(
            err.starts_with(
                "find devices in mode management: there is no node of the driver below /dev"
            ),
            "{err}"
        );
    }
}

#[test]
fn devices_beside_gpus() {
    for (mode, nodes) in [
        (Mode::Gds, &["nvidia-fs0", "nvidia-fs1"][..]),
        (
            Mode::Mofed,
            &[
                "infiniband/uverbs0",
                "infiniband/uverbs1",
                "infiniband/rdma_cm",
            ],
        ),
        (Mode::Gdrcopy, &["gdrdrv"]),
        (
            Mode::Nvswitch,
            &["nvidia-nvswitchctl", "nvidia-nvswitch0", "nvidia-nvswitch1"],
        ),
    ] {
        let mut maker = Maker::new();
        maker.dirs(&["/run/udev"]).files(&["/etc/cufile.json"]);
        let err = maker.try_generate(None, &of_mode(mode)).unwrap_err();
        assert!(
            err.starts_with(&format!(
                "find devices in mode {}: there is no /dev/",
                mode.name()
            )),
            "{err}"
        );
        for (minor, node) in (0..).zip(nodes) {
            maker.node(&format!("/dev/{node}"), 240, minor);
        }
        let output = maker.generate(None, &of_mode(mode));
        assert_eq!(
            output.specs[0].spec.kind,
            format!("nvidia.com/{}", mode.name())
        );
        assert_golden(mode.name(), &output.specs[0].spec);
    }
}

#[test]
fn imex_channels() {
    let mut maker = Maker::new();
    for minor in [0, 2, 10] {
        maker.node(
            &format!("/dev/nvidia-caps-imex-channels/channel{minor}"),
            234,
            minor,
        );
    }
    maker.write("/dev/nvidia-caps-imex-channels/channelx", "");
    maker.write("/dev/nvidia-caps-imex-channels/channel6", "no node");
    let output = maker.generate(None, &of_mode(Mode::Imex));
    assert_golden("imex", &output.specs[0].spec);
    let with_ids = |ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        maker.try_generate(
            None,
            &Options {
                ids,
                all_device: false,
                ..of_mode(Mode::Imex)
            },
        )
    };
    assert_eq!(
        names(&with_ids(&["channel2", "10"]).unwrap().specs[0]),
        ["10", "2"]
    );
    for (id, why) in [
        ("1048576", "from 0 to 1048575"),
        ("-1", "from 0"),
        ("x", "from 0"),
        ("5", "channel5"),
        ("6", "channel6 is no character device"),
    ] {
        let err = with_ids(&[id]).unwrap_err();
        assert!(err.contains(why), "{id}: {err}");
    }
}

#[test]
fn the_windows_subsystem() {
    let store = "/usr/lib/wsl/drivers/nv_dispi.inf_amd64_1a2b";
    let mut maker = Maker::new();
    let file = |name: &str| format!("{store}/{name}");
    for name in [
        "libcuda.so.1.1",
        "libcuda_loader.so",
        "libnvidia-ml.so.1",
        "nvcubins.bin",
        "nvidia-smi",
        "libnvwgf2umx.so",
        "nvopencl64.dll",
        "nvsub.bin",
        "readme.txt",
    ] {
        maker.files(&[&file(name)]);
    }
    maker.files(&[
        "/usr/lib/wsl/lib/libdxcore.so",
        "/usr/lib/wsl/drivers/other/libx.so",
    ]);
    assert!(
        maker
            .try_generate(None, &of_mode(Mode::Wsl))
            .unwrap_err()
            .contains("there is no /dev/dxg")
    );
    maker.node("/dev/dxg", 10, 125);
    let output = maker.generate(None, &of_mode(Mode::Auto));
    assert_eq!((output.mode, &output.warnings), (Mode::Wsl, &Vec::new()));
    assert_golden("wsl", &output.specs[0].spec);
    // Replaced drivers' stores, before and behind in the alphabet.
    for name in ["nv_old", "a_old"] {
        let path = format!("/usr/lib/wsl/drivers/{name}/libcuda.so.1.1");
        maker.files(&[&path]);
        let old = std::fs::File::open(maker.at(&path)).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    let again = maker.generate(None, &of_mode(Mode::Wsl));
    assert_eq!(again.specs, output.specs);
    assert!(
        again.warnings[0].contains("there are others: /usr/lib/wsl/drivers/a_old, "),
        "{:?}",
        again.warnings
    );
    // Neither sign alone makes a machine one of these.
    std::fs::remove_file(maker.at("/usr/lib/wsl/lib/libdxcore.so")).unwrap();
    assert_eq!(
        fleet_discover::resolve(&maker.machine(), &of_mode(Mode::Auto)),
        Mode::Nvml
    );
    let mut maker = Maker::new();
    maker.files(&["/usr/lib/wsl/lib/libdxcore.so"]);
    assert_eq!(
        fleet_discover::resolve(&maker.machine(), &of_mode(Mode::Auto)),
        Mode::Nvml
    );
}

/// Lists as the packages of a Jetson install them, with what there is on it.
fn jetson() -> Maker {
    let mut maker = Maker::new();
    let dir = "/etc/nvidia-container-runtime/host-files-for-container.d";
    maker.write(
        &format!("{dir}/devices.csv"),
        "dev, /dev/nvhost-ctrl-gpu\ndev, /dev/nvidia*\ndev, /dev/nvmap\ndev, /dev/gone\n",
    );
    let drivers = "lib, /usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1.1\n\
        lib, /usr/lib/aarch64-linux-gnu/tegra/libnv*.so\n\
        sym, /usr/lib/aarch64-linux-gnu/tegra/libcuda.so\n\
        sym, /usr/lib/aarch64-linux-gnu/libcuda.so\n\
        sym, /usr/lib/aarch64-linux-gnu/loop.so\n\
        dir, /usr/lib/aarch64-linux-gnu/tegra-egl\n\
        dir, /usr/lib/aarch64-linux-gnu/tegra-doc\n\
        \n  lib ,  /etc/vulkan/icd.d/nvidia_icd.json  \n\
        bad line\nodd, /x\nlib, relative\n";
    maker.write(&format!("{dir}/drivers.csv"), drivers);
    maker
        .write("/etc/nv_tegra_release", "# R36 (release)\n")
        .write("/sys/devices/soc0/family", "Tegra\n");
    let tegra = "/usr/lib/aarch64-linux-gnu/tegra";
    maker.library(&format!("{tegra}/libcuda.so.1.1"), "libcuda.so.1", false);
    maker.library(&format!("{tegra}/libnvrm.so"), "libnvrm.so", false);
    maker.link(&format!("{tegra}/libcuda.so"), "libcuda.so.1");
    maker.link("/usr/lib/aarch64-linux-gnu/libcuda.so", "tegra/libcuda.so");
    maker.link("/usr/lib/aarch64-linux-gnu/loop.so", "loop.so");
    maker
        .dirs(&["/usr/lib/aarch64-linux-gnu/tegra-egl"])
        .files(&[
            "/etc/vulkan/icd.d/nvidia_icd.json",
            "/usr/lib/aarch64-linux-gnu/tegra-doc",
        ]);
    maker
        .node("/dev/nvhost-ctrl-gpu", 505, 1)
        .node("/dev/nvmap", 10, 120);
    maker
}

#[test]
fn tegra_from_its_lists() {
    let mut maker = jetson();
    maker
        .node("/dev/nvidia0", 195, 0)
        .node("/dev/nvidiactl", 195, 255);
    let output = maker.generate(None, &of_mode(Mode::Auto));
    assert_eq!(output.mode, Mode::Csv);
    let warned = output.warnings.join("\n");
    for word in [
        "line 10 of Tegra's list",
        "type `odd`",
        "is not absolute",
        "l4t.csv is left out",
        "loop.so is left out",
    ] {
        assert!(warned.contains(word), "{word}: {warned}");
    }
    assert_golden("orin-csv", &output.specs[0].spec);
    let mut told = inventory(vec![gpu(0, 0, "x")]);
    told.gpus[0].name = "Orin (nvgpu)".to_owned();
    told.cuda_version = Some("12.6".to_owned());
    let output = maker.generate(Some(&told), &of_mode(Mode::Auto));
    assert_eq!(output.mode, Mode::Csv, "an integrated GPU");
    let compat = output.specs[0]
        .spec
        .container_edits
        .hooks
        .iter()
        .find(|hook| hook.args.contains(&"enable-cuda-compat".to_owned()));
    let args = &compat.unwrap().args[3..];
    assert_eq!(
        args,
        [
            "--host-cuda-version=12.6",
            "--cuda-compat-container-root=/usr/local/cuda/compat_orin"
        ]
    );
    "NVIDIA Thor".clone_into(&mut told.gpus[0].name);
    let thor = maker.generate(Some(&told), &of_mode(Mode::Auto));
    let hooks = thor.specs[0].spec.container_edits.hooks.iter();
    let args: Vec<&String> = hooks.flat_map(|hook| &hook.args).collect();
    assert!(args.iter().any(|arg| *arg == "--host-cuda-version=12.6"));
    assert!(!args.iter().any(|arg| arg.contains("compat-container-root")));
    let ids = vec!["1".to_owned()];
    let err = maker
        .try_generate(
            None,
            &Options {
                ids,
                ..of_mode(Mode::Csv)
            },
        )
        .unwrap_err();
    assert_eq!(err, "find device `1`: this system has one device, 0");
}

/// Files of Tegra beside NVIDIA's management library: what its GPU is decides (a Jetson with a card has both).
#[test]
fn tegra_with_the_management_library() {
    let mut maker = jetson();
    maker.compute().control().node("/dev/nvidia0", 195, 0);
    let mut told = inventory(vec![gpu(0, 0, "0000:01:00.0")]);
    let output = maker.generate(Some(&told), &of_mode(Mode::Auto));
    assert_eq!(output.mode, Mode::Nvml);
    for (name, want) in [("Orin (nvgpu)", Mode::Csv), ("NVIDIA Thor", Mode::Csv)] {
        name.clone_into(&mut told.gpus[0].name);
        let output = maker.generate(Some(&told), &of_mode(Mode::Auto));
        assert_eq!(output.mode, want, "{name}");
    }
}

#[test]
fn tegra_links_can_be_left_out() {
    let maker = jetson();
    let mut options = of_mode(Mode::Csv);
    let links = |options: &Options| {
        let spec = maker.generate(None, options).specs.remove(0).spec;
        let hooks = spec.container_edits.hooks;
        let args = hooks
            .iter()
            .flat_map(|hook| &hook.args)
            .filter(|arg| arg.contains("::"))
            .cloned();
        args.collect::<Vec<_>>()
    };
    assert!(
        links(&options)
            .contains(&"tegra/libcuda.so::/usr/lib/aarch64-linux-gnu/libcuda.so".to_owned())
    );
    options.csv.ignore = vec!["/usr/lib/*/libcuda.so".to_owned()];
    assert!(
        !links(&options)
            .contains(&"tegra/libcuda.so::/usr/lib/aarch64-linux-gnu/libcuda.so".to_owned())
    );
    assert!(
        links(&options)
            .iter()
            .any(|link| link.ends_with("tegra/libcuda.so")),
        "a star crosses no slash"
    );
    options.csv.ignore = vec!["**/libcuda.so".to_owned()];
    let expected = "libcuda.so.1::/usr/lib/aarch64-linux-gnu/tegra/libcuda.so";
    let left = links(&options);
    let left: Vec<_> = left
        .iter()
        .filter(|link| link.ends_with("/libcuda.so"))
        .collect();
    assert_eq!(left, [expected], "which belongs to the library");
    options.csv.ignore = vec!["**/aarch64-linux-gnu/libcuda.so".to_owned()];
    assert!(
        links(&options)
            .contains(&"tegra/libcuda.so::/usr/lib/aarch64-linux-gnu/libcuda.so".to_owned()),
        "a name is one part of a path"
    );
    options.csv.files = vec!["/no/such.csv".to_owned()];
    let err = maker.try_generate(None, &options).unwrap_err();
    assert!(
        err.contains("there is nothing in /no/such.csv; hint: --csv.file"),
        "{err}"
    );
}

#[test]
fn tegra_with_a_card() {
    let mut maker = jetson();
    maker.control().drm("0005:01:00.0", 2);
    // A list that names no node of the display and none of the driver.
    let dir = "/etc/nvidia-container-runtime/host-files-for-container.d";
    maker.write(
        &format!("{dir}/devices.csv"),
        "dev, /dev/nvhost-ctrl-gpu\ndev, /dev/nvidia0\ndev, /dev/nvidia1\ndev, /dev/nvmap\n",
    );
    for minor in 0..3 {
        maker.node(&format!("/dev/nvidia{minor}"), 195, minor);
    }
    let mut told = inventory(vec![gpu(0, 0, "x"), gpu(1, 1, "0005:01:00.0")]);
    told.gpus[0].name = "NVIDIA Thor".to_owned();
    let mut options = of_mode(Mode::Auto);
    options.naming = vec![Naming::Index];
    let paths = |maker: &Maker, options: &Options, name: &str| -> Vec<String> {
        let output = maker.generate(Some(&told), options);
        let spec = &output.specs[0].spec;
        let device = spec
            .devices
            .iter()
            .find(|device| device.name == name)
            .unwrap();
        device
            .container_edits
            .device_nodes
            .iter()
            .map(|node| node.path.clone())
            .collect()
    };
    assert_eq!(
        paths(&maker, &options, "0"),
        [
            "/dev/nvhost-ctrl-gpu",
            "/dev/nvidia0",
            "/dev/nvidia2",
            "/dev/nvmap"
        ]
    );
    assert_eq!(
        paths(&maker, &options, "1"),
        [
            "/dev/nvhost-ctrl-gpu",
            "/dev/nvidia-modeset",
            "/dev/nvidia-uvm",
            "/dev/nvidia-uvm-tools",
            "/dev/nvidia1",
            "/dev/nvidiactl",
            "/dev/nvmap",
            "/dev/dri/card2",
            "/dev/dri/renderD129",
        ]
    );
    // The integrated GPU is known by its place on the bus as well.
    let mut placed = told.clone();
    "NVIDIA GPU".clone_into(&mut placed.gpus[0].name);
    let csv = Options {
        mode: Mode::Csv,
        ..options.clone()
    };
    assert!(maker.try_generate(Some(&placed), &csv).is_err());
    placed.gpus[0].bus_id = gpu(0, 0, "0000:01:00.0").bus_id;
    let output = maker.generate(Some(&placed), &csv);
    assert_eq!(names(&output.specs[0]), ["0", "1", "all"]);
    options.features.one_csv_device = true;
    let output = maker.generate(Some(&told), &options);
    assert_eq!(names(&output.specs[0]), ["0", "all"]);
}

/// What the toolkit writes for a machine of two GPUs, made from the machine that this spec describes.
#[test]
fn the_toolkits_own_example() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../cdi/vendors/nvidia-x86_64-2gpu.yaml"
    );
    let want = parse(&std::fs::read(path).unwrap(), Format::Yaml).unwrap();
    let maker = machine_of(&want);
    let uuids: Vec<_> = want
        .devices
        .iter()
        .filter(|device| device.name.starts_with("GPU-"))
        .collect();
    let mut told = inventory(vec![gpu(0, 0, "0000:17:00.0"), gpu(1, 1, "0000:65:00.0")]);
    for (gpu, device) in told.gpus.iter_mut().zip(&uuids) {
        gpu.uuid = Some(device.name.clone());
    }
    let hooks = HookOptions {
        path: "/usr/bin/nvidia-cdi-hook".to_owned(),
        ..HookOptions::default()
    };
    let stamping = Stamping::Never;
    let output = maker.generate(
        Some(&told),
        &Options {
            hooks,
            stamping,
            ..options()
        },
    );
    assert_eq!(comparable(output.specs[0].spec.clone()), comparable(want));
}

/// Files, links and nodes that a spec of the toolkit speaks of.
fn machine_of(spec: &Spec) -> Maker {
    let mut maker = Maker::new();
    let common = &spec.container_edits;
    let arguments = |hook: &Hook| {
        hook.args
            .iter()
            .filter_map(|arg| arg.split_once("::"))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect::<Vec<_>>()
    };
    let links: Vec<_> = common.hooks.iter().flat_map(arguments).collect();
    for mount in &common.mounts {
        let (dir, name) = mount.host_path.rsplit_once('/').unwrap();
        if mount.host_path == "/tmp/nvidia-mps" {
            maker.dirs(&["/tmp/nvidia-mps"]);
        } else if name.starts_with("lib") && name.contains(".so.") && !dir.ends_with("xorg") {
            // The SONAME is the link that leads to the file.
            let soname = links
                .iter()
                .find(|(target, link)| target == name && !link.contains("GLX_indirect"));
            let soname = soname.map_or(String::new(), |(_, link)| {
                link.rsplit('/').next().unwrap().to_owned()
            });
            maker.library(&mount.host_path, &soname, false);
        } else {
            maker.files(&[&mount.host_path]);
        }
    }
    for (target, link) in &links {
        if !link.contains("/gbm/") && !link.contains("xorg") && !link.contains("GLX_indirect") {
            maker.link(link, target);
        }
    }
    let nodes = spec
        .devices
        .iter()
        .flat_map(|device| &device.container_edits.device_nodes);
    for node in nodes.chain(&common.device_nodes) {
        let number = |part: Option<i64>| u32::try_from(part.unwrap()).unwrap();
        maker.node_of(
            &node.path,
            number(node.major),
            number(node.minor),
            node.file_mode.unwrap(),
            node.gid.unwrap_or(0),
        );
    }
    for (bus, card) in [("0000:17:00.0", 1), ("0000:65:00.0", 2)] {
        maker.drm(bus, card);
    }
    maker
}

/// Links are made in any order. In the example the links of `all` are one hook; the toolkit's code writes one for each
/// GPU, as we do.
fn comparable(mut spec: Spec) -> Spec {
    let devices = spec
        .devices
        .iter_mut()
        .map(|device| &mut device.container_edits);
    for edits in devices.chain([&mut spec.container_edits]) {
        let mut merged: Vec<Hook> = Vec::new();
        for hook in edits.hooks.drain(..) {
            let same = merged.iter_mut().find(|known| {
                known.args.get(1) == hook.args.get(1)
                    && hook.args.iter().any(|arg| arg.contains("/by-path/"))
            });
            match same {
                Some(known) => known.args.extend(hook.args.into_iter().skip(2)),
                None => merged.push(hook),
            }
        }
        for hook in merged
            .iter_mut()
            .filter(|hook| hook.args[1] == "create-symlinks")
        {
            hook.args.sort();
        }
        edits.hooks = merged;
    }
    spec
}

#[test]
fn a_stamp_costs_no_version_unless_wanted() {
    let mut maker = Maker::new();
    maker.compute().control().node("/dev/nvidia0", 195, 0);
    let told = inventory(vec![gpu(0, 0, "0000:01:00.0")]);
    let with = |maker: &Maker, stamping, newest| {
        let spec = maker
            .generate(
                Some(&told),
                &Options {
                    stamping,
                    newest,
                    ..options()
                },
            )
            .specs
            .remove(0)
            .spec;
        (spec.cdi_version, spec.annotations.len())
    };
    let text = |version: &str| version.to_owned();
    assert_eq!(with(&maker, Stamping::Free, None), (text("0.5.0"), 0));
    assert_eq!(with(&maker, Stamping::Always, None), (text("0.6.0"), 3));
    assert_eq!(
        with(&maker, Stamping::Always, Some(Version::V0_5)),
        (text("0.5.0"), 0)
    );
    maker.drm("0000:01:00.0", 1).write(
        "/proc/sys/kernel/random/boot_id",
        "0f1e2d3c-aaaa-bbbb-cccc-0123456789ab\n",
    );
    assert_eq!(with(&maker, Stamping::Free, None), (text("0.7.0"), 4));
    assert_eq!(
        with(&maker, Stamping::Free, Some(Version::V0_6)),
        (text("0.5.0"), 0),
        "groups go, and the stamp does not raise it"
    );
    assert_eq!(with(&maker, Stamping::Never, None), (text("0.7.0"), 0));
}

#[test]
fn no_gpu_no_spec() {
    let mut maker = Maker::new();
    maker.compute().control();
    let err = maker
        .try_generate(Some(&inventory(Vec::new())), &options())
        .unwrap_err();
    assert!(
        err.starts_with("find devices in mode nvml: the driver knows no GPU; hint: "),
        "{err}"
    );
    let told = inventory(vec![gpu(0, 0, "0000:01:00.0")]);
    let err = maker.try_generate(Some(&told), &options()).unwrap_err();
    assert!(
        err.contains("none of 1 GPUs can be used") && err.contains("/dev/nvidia0 is missing"),
        "{err}"
    );
    let mut told = told;
    told.gpus[0].mig = Some(Vec::new());
    let err = maker.try_generate(Some(&told), &options()).unwrap_err();
    assert!(err.contains("partitioned GPUs have no partitions"), "{err}");
    let ids = vec!["none".to_owned()];
    let output = maker.generate(Some(&inventory(Vec::new())), &Options { ids, ..options() });
    assert_eq!(names(&output.specs[0]), ["none"]);
    assert_eq!(
        output.specs[0].spec.devices[0].container_edits.env,
        ["NVCT_EMPTY_DEVICE="]
    );
}

#[test]
fn groups_and_sockets_can_be_left_out() {
    let mut maker = Maker::new();
    maker
        .compute()
        .control()
        .node("/dev/nvidia0", 195, 0)
        .drm("0000:01:00.0", 1);
    let told = inventory(vec![gpu(0, 0, "0000:01:00.0")]);
    let features = Features {
        no_additional_gids: true,
        no_sockets: true,
        ..Features::default()
    };
    let spec = maker
        .generate(
            Some(&told),
            &Options {
                features,
                ..options()
            },
        )
        .specs
        .remove(0)
        .spec;
    assert_eq!(spec.cdi_version, "0.5.0");
    assert!(
        !spec
            .container_edits
            .mounts
            .iter()
            .any(|mount| mount.container_path.ends_with("/socket"))
    );
    let card = &spec.devices[0].container_edits.device_nodes[1];
    assert_eq!((card.path.as_str(), card.gid), ("/dev/dri/card1", Some(44)));
}

#[test]
fn a_display_gpu_is_no_device() {
    let mut maker = Maker::new();
    maker
        .compute()
        .control()
        .node("/dev/nvidia0", 195, 0)
        .node("/dev/nvidia1", 195, 1);
    let mut told = inventory(vec![gpu(0, 0, "0000:01:00.0"), gpu(1, 1, "0000:02:00.0")]);
    told.gpus[0].name = "NVIDIA DGX Display".to_owned();
    let options = Options {
        naming: vec![Naming::TypeIndex],
        ..options()
    };
    assert_eq!(
        names(&maker.generate(Some(&told), &options).specs[0]),
        ["all", "gpu1"]
    );
}

#[test]
fn two_gpus_of_one_uuid() {
    let mut maker = Maker::new();
    maker
        .compute()
        .control()
        .node("/dev/nvidia0", 195, 0)
        .node("/dev/nvidia1", 195, 1);
    let mut told = inventory(vec![gpu(0, 0, "0000:01:00.0"), gpu(1, 1, "0000:02:00.0")]);
    told.gpus[1].uuid = told.gpus[0].uuid.clone();
    let output = maker.generate(Some(&told), &options());
    let uuid = told.gpus[0].uuid.clone().unwrap();
    assert_eq!(names(&output.specs[0]), ["0", "1", &uuid, "all"]);
    assert!(
        output.warnings[0].starts_with("GPU 1 is left out under the name GPU-"),
        "{:?}",
        output.warnings
    );
}
