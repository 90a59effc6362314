//! What holds for every generated spec: it is valid, declares the lowest version, and injected twice is injected once.
#![allow(missing_docs, unused_crate_dependencies, clippy::unwrap_used)]

mod tree;

use std::io;
use std::path::{Path, PathBuf};

use fleet_cdi::{LoadedSpec, Registry, Spec, Version};
use fleet_discover::{Features, HookOptions, Mode, Naming, Options, Stamping};
use fleet_host::gpu::Inventory;
use fleet_host::{Env, Host, inject_with};
use fleet_inject::{DeviceKind, DeviceStat, HostProbe};
use serde_json::{Value, json};
use tree::{LIB, Maker, V, gpu, inventory, part};

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        // Knuth's constants for a linear congruential generator.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// A machine with a random part of what machines have, and what NVML says of it.
fn machine(dice: &mut Dice) -> (Maker, Inventory) {
    let mut maker = Maker::new();
    if dice.coin() {
        maker.driver_root = "/run/nvidia/driver".to_owned();
        maker.dev_root = if dice.coin() {
            "/".to_owned()
        } else {
            maker.driver_root.clone()
        };
    }
    maker.compute().control();
    for name in [
        "libGLX_nvidia",
        "libnvidia-allocator",
        "libnvidia-future",
        "vdpau/libvdpau_nvidia",
    ] {
        if dice.coin() {
            let soname = format!("{}.so.1", name.rsplit('/').next().unwrap());
            maker.library(&format!("{LIB}/{name}.so.{V}"), &soname, dice.coin());
        }
    }
    let count = u32::try_from(1 + dice.below(4)).unwrap();
    let mut gpus = Vec::new();
    let mut minors = String::new();
    for index in 0..count {
        let bus = format!("0000:{index:02x}:00.0");
        let mut gpu = gpu(index, count - 1 - index, &bus);
        maker.node(&format!("/dev/nvidia{}", gpu.minor), 195, gpu.minor);
        if dice.coin() {
            maker.drm(&bus, index + 1);
        }
        gpu.coherent = [None, Some(true), Some(false)][usize::try_from(dice.below(3)).unwrap()];
        if dice.below(3) == 0 {
            let parts = (0..u32::try_from(dice.below(3)).unwrap())
                .map(|n| part(n, n + 10 * index, dice.coin()));
            let parts: Vec<_> = parts.collect();
            for part in &parts {
                let (gi, minor) = (part.gpu_instance, 100 * index + 10 * part.gpu_instance);
                minors += &format!(
                    "gpu{0}/gi{gi}/access {minor}\ngpu{0}/gi{gi}/ci0/access {1}\n",
                    gpu.minor,
                    minor + 1
                );
                for minor in [minor, minor + 1] {
                    maker.node_of(
                        &format!("/dev/nvidia-caps/nvidia-cap{minor}"),
                        508,
                        minor,
                        0o444,
                        0,
                    );
                }
            }
            gpu.mig = Some(parts);
        }
        gpus.push(gpu);
    }
    maker.write("/proc/driver/nvidia-caps/mig-minors", &minors);
    (maker, inventory(gpus))
}

fn options(dice: &mut Dice) -> Options {
    let all = [Naming::Index, Naming::Uuid, Naming::TypeIndex];
    let mut naming: Vec<_> = all.into_iter().filter(|_| dice.coin()).collect();
    if naming.is_empty() {
        naming.push(Naming::Uuid);
    }
    let path = [
        "/usr/bin/fleet-nvidia",
        "/usr/bin/nvidia-cdi-hook",
        "/usr/bin/nvidia-ctk",
    ];
    let hooks = ["all", "chmod", "create-symlinks", "update-ldcache"];
    let pick = |dice: &mut Dice| -> Vec<String> {
        hooks[1..]
            .iter()
            .filter(|_| dice.below(4) == 0)
            .map(|name| (*name).to_owned())
            .collect()
    };
    Options {
        mode: Mode::Nvml,
        naming,
        all_device: dice.coin(),
        hooks: HookOptions {
            path: path[usize::try_from(dice.below(3)).unwrap()].to_owned(),
            disabled: pick(dice),
            enabled: pick(dice),
            ldconfig: dice.coin().then(|| "/sbin/ldconfig".to_owned()),
        },
        features: Features {
            coherent: dice.coin(),
            parts: dice.coin(),
            no_additional_gids: dice.coin(),
            no_sockets: dice.coin(),
            ..Features::default()
        },
        stamping: [Stamping::Free, Stamping::Always, Stamping::Never]
            [usize::try_from(dice.below(3)).unwrap()],
        newest: dice.coin().then(|| {
            [Version::V0_5, Version::V0_6, Version::V0_7][usize::try_from(dice.below(3)).unwrap()]
        }),
        ..Options::default()
    }
}

/// A host that has one spec, and all that it speaks of.
struct Paper(Spec);

impl HostProbe for Paper {
    fn lstat_device(&self, path: &str) -> io::Result<DeviceStat> {
        let devices = self.0.devices.iter().map(|device| &device.container_edits);
        let mut nodes = devices
            .chain([&self.0.container_edits])
            .flat_map(|edits| &edits.device_nodes);
        let node = nodes.find(|node| node.host_path.as_ref().unwrap_or(&node.path) == path);
        let node = node.ok_or(io::ErrorKind::NotFound)?;
        let number =
            |part: Option<i64>| part.and_then(|part| u32::try_from(part).ok()).unwrap_or(1);
        Ok(DeviceStat {
            kind: DeviceKind::Char,
            major: number(node.major),
            minor: number(node.minor),
            mode: node.file_mode.unwrap_or(0o666),
        })
    }

    fn exists(&self, _path: &str) -> bool {
        true
    }
}

impl Host for Paper {
    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn registry(&self, _dirs: &[PathBuf]) -> Registry {
        Registry::default().replacing(LoadedSpec {
            path: PathBuf::from("/etc/cdi/nvidia.yaml"),
            priority: 0,
            spec: self.0.clone(),
        })
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn injected_twice_is_injected_once(spec: &Spec) {
    let names: Vec<_> = spec
        .devices
        .iter()
        .map(|device| format!("{}={}", spec.kind, device.name))
        .collect();
    let mut once: Value = json!({
        "ociVersion": "1.0.2",
        "process": {"args": ["x"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
        "annotations": {"cdi.k8s.io/test": names.join(",")},
        "linux": {},
    });
    let (env, host) = (Env::default(), Paper(spec.clone()));
    inject_with(&mut once, &env, &host).unwrap_or_else(|err| panic!("{}: {err}", spec.kind));
    let mut twice = once.clone();
    inject_with(&mut twice, &env, &host).unwrap();
    assert_eq!(once, twice);
}

#[test]
fn every_generated_spec_is_sound() {
    let mut dice = Dice(7);
    let mut written = 0;
    for _ in 0..30 {
        let (maker, told) = machine(&mut dice);
        let options = options(&mut dice);
        let output = match maker.try_generate(Some(&told), &options) {
            Ok(output) => output,
            // Said plainly: a machine whose GPUs are all partitioned into nothing, or a dot for an old reader.
            Err(err) => {
                assert!(
                    err.contains("find devices") || err.contains("has a dot"),
                    "{err}"
                );
                continue;
            }
        };
        for generated in &output.specs {
            let spec = &generated.spec;
            spec.validate().unwrap();
            assert_eq!(spec.cdi_version, Version::needed(spec).to_string());
            assert!(
                options
                    .newest
                    .is_none_or(|newest| Version::needed(spec) <= newest)
            );
            let file = fleet_cdi::encode_spec(spec, fleet_cdi::Format::Yaml).unwrap();
            let read = fleet_cdi::parse(file.as_bytes(), fleet_cdi::Format::Yaml).unwrap();
            assert_eq!(read, *spec, "what is written is read");
            assert!(file.contains("NVIDIA_VISIBLE_DEVICES=void"));
            injected_twice_is_injected_once(spec);
            written += 1;
        }
        assert_eq!(
            maker.try_generate(Some(&told), &options).unwrap(),
            output,
            "equal machines, equal specs"
        );
    }
    assert!(written > 30, "{written}");
}

/// The specs of this project, and those that AMD's, Intel's, NVIDIA's and network vendors' generators write, as inputs.
#[test]
fn every_committed_spec_is_taken_as_it_is() {
    let mut kinds = std::collections::BTreeSet::new();
    for dir in ["nodes", "platforms", "vendors"] {
        let dir = format!("{}/../../cdi/{dir}", env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let spec = fleet_cdi::read_spec(&path).unwrap_or_else(|err| panic!("{err}"));
            spec.validate().unwrap();
            let declared = Version::parse(&spec.cdi_version).unwrap();
            assert!(Version::needed(&spec) <= declared, "{}", path.display());
            if path.parent().unwrap().ends_with("platforms") {
                assert_eq!(Version::needed(&spec), declared, "{}", path.display());
            }
            for format in [fleet_cdi::Format::Json, fleet_cdi::Format::Yaml] {
                let text = fleet_cdi::encode_spec(&spec, format).unwrap();
                assert_eq!(fleet_cdi::parse(text.as_bytes(), format).unwrap(), spec);
            }
            injected_twice_is_injected_once(&spec);
            kinds.insert(spec.kind);
        }
    }
    for kind in [
        "amd.com/gpu",
        "intel.com/gpu",
        "network.example.com/sriov.vf",
        "nvidia.com/gpu",
    ] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
}

/// Something that happens to a machine: a file comes, goes, is replaced, or a node or a link changes.
fn happens(maker: &mut Maker, dice: &mut Dice) -> String {
    let places = [
        format!("{LIB}/libnvidia-new.so.{V}"),
        format!("{LIB}/libnvidia-egl-gbm.so.1.1.1"),
        format!("{LIB}/vdpau/libvdpau_nvidia.so.{V}"),
        format!("{LIB}/nvidia/xorg/nvidia_drv.so"),
        format!("/usr/lib64/libnvidia-other.so.{V}"),
        format!("/lib/firmware/nvidia/{V}/gsp_tu10x.bin"),
        "/usr/bin/nvidia-imex".to_owned(),
        "/usr/sbin/nvidia-smi".to_owned(),
        "/usr/lib/xorg/modules/drivers/nvidia_drv.so".to_owned(),
        "/etc/vulkan/icd.d/nvidia_icd.json".to_owned(),
        "/usr/share/nvidia/nvoptix.bin".to_owned(),
        "/run/nvidia-fabricmanager/socket".to_owned(),
        "/tmp/nvidia-mps/pipe".to_owned(),
        format!("{LIB}/libcuda.so"),
        format!("{LIB}/libnvidia-ml.so.1"),
    ];
    let place = &places[usize::try_from(dice.below(15)).unwrap()];
    let root = maker.driver_root.trim_end_matches('/').to_owned();
    let at = maker.at(&format!("{root}{place}"));
    match dice.below(6) {
        0 | 1 => {
            if !at.is_symlink() {
                maker.files(&[place]);
            }
            format!("{place} comes")
        }
        2 => {
            drop(std::fs::remove_file(&at));
            format!("{place} goes")
        }
        3 => {
            // Replaced by a link to what is there, or will be, elsewhere.
            maker.files(&["/opt/x/file"]);
            maker.link(place, "/opt/x/file");
            format!("{place} becomes a link")
        }
        4 => {
            let minor = u32::try_from(dice.below(4)).unwrap();
            maker.node_of("/dev/nvidiactl", 195, 255, 0o660, 10 + minor);
            format!("/dev/nvidiactl of group {minor}")
        }
        _ => {
            let from = maker.at(&format!("{root}{LIB}/libcuda.so.{V}"));
            let to = from.with_file_name("libcuda.so.999.1");
            drop(std::fs::rename(&to, &from).or_else(|_| std::fs::rename(&from, &to)));
            "libcuda changes its name".to_owned()
        }
    }
}

/// What was remembered of a machine is taken for true only while a new look would give the same spec.
#[test]
fn what_is_remembered_is_as_good_as_a_new_look() {
    let mut dice = Dice(11);
    let (mut same, mut noticed) = (0, 0);
    for _ in 0..12 {
        let (mut maker, told) = machine(&mut dice);
        let options = Options {
            mode: Mode::Nvml,
            ..Options::default()
        };
        for _ in 0..12 {
            let looking = maker.machine().remembering();
            let before = fleet_discover::generate(&looking, Some(&told), &options).ok();
            let facts = looking.facts();
            assert!(maker.machine().still_has(&facts), "nothing has changed");
            // Longer than a tick of the file system's clock.
            std::thread::sleep(std::time::Duration::from_millis(12));
            let what = happens(&mut maker, &mut dice);
            let after = maker.try_generate(Some(&told), &options).ok();
            match (before == after, maker.machine().still_has(&facts)) {
                (false, true) => panic!("{what} and is not noticed: {facts:#?}"),
                (true, true) => same += 1,
                (false, false) => noticed += 1,
                (true, false) => {}
            }
        }
    }
    assert!(same > 10 && noticed > 40, "{same} {noticed}");
}
