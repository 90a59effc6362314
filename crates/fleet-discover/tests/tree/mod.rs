//! Made-up machines: files in a temporary directory, and a table that says which of them are device nodes.
#![allow(dead_code, unreachable_pub)]

#[path = "../../../fleet-host/src/files/tests/elf.rs"]
mod elf;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use fleet_cdi::{Format, Spec, encode_spec};
use fleet_discover::{Generated, Machine, Options, Output, generate};
use fleet_host::NodeStat;
use fleet_host::gpu::{BusId, Gpu, Inventory, MigDevice};

pub const V: &str = "550.54.15";
pub const LIB: &str = "/usr/lib/x86_64-linux-gnu";

/// A machine being made up.
pub struct Maker {
    dir: tempfile::TempDir,
    nodes: BTreeMap<String, NodeStat>,
    pub driver_root: String,
    pub dev_root: String,
}

impl Maker {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            nodes: BTreeMap::new(),
            driver_root: "/".to_owned(),
            dev_root: "/".to_owned(),
        }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        let path = self.dir.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn driver(&self, path: &str) -> PathBuf {
        self.at(&format!("{}{path}", self.driver_root.trim_end_matches('/')))
    }

    pub fn write(&mut self, path: &str, text: &str) -> &mut Self {
        fs::write(self.at(path), text).unwrap();
        self
    }

    /// Files of the driver's root.
    pub fn files(&mut self, paths: &[&str]) -> &mut Self {
        for path in paths {
            let at = self.driver(path);
            fs::write(&at, "x").unwrap();
            fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        }
        self
    }

    pub fn dirs(&mut self, paths: &[&str]) -> &mut Self {
        for path in paths {
            fs::create_dir_all(self.driver(path)).unwrap();
        }
        self
    }

    /// A library, its SONAME's link, and its plain link.
    pub fn library(&mut self, file: &str, soname: &str, plain: bool) -> &mut Self {
        fs::write(self.driver(file), elf::library(soname)).unwrap();
        let (dir, name) = file.rsplit_once('/').unwrap();
        if !soname.is_empty() && soname != name {
            self.link(&format!("{dir}/{soname}"), name);
        }
        if plain {
            let short = &name[..name.find(".so").unwrap() + 3];
            self.link(
                &format!("{dir}/{short}"),
                if soname.is_empty() { name } else { soname },
            );
        }
        self
    }

    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        drop(fs::remove_file(self.driver(path)));
        symlink(target, self.driver(path)).unwrap();
        self
    }

    pub fn node(&mut self, path: &str, major: u32, minor: u32) -> &mut Self {
        self.node_of(path, major, minor, 0o666, 0)
    }

    pub fn node_of(
        &mut self,
        path: &str,
        major: u32,
        minor: u32,
        mode: u32,
        gid: u32,
    ) -> &mut Self {
        let at = format!("{}{path}", self.dev_root.trim_end_matches('/'));
        fs::write(self.at(&at), "").unwrap();
        let stat = NodeStat {
            major,
            minor,
            mode,
            gid,
        };
        self.nodes.insert(path.to_owned(), stat);
        self
    }

    pub fn control(&mut self) -> &mut Self {
        self.node("/dev/nvidiactl", 195, 255)
            .node("/dev/nvidia-modeset", 195, 254);
        self.node("/dev/nvidia-uvm", 511, 0)
            .node("/dev/nvidia-uvm-tools", 511, 1)
    }

    /// The nodes of a GPU's DRM devices, their entries in sysfs, and udev's links.
    pub fn drm(&mut self, bus: &str, card: u32) -> &mut Self {
        let render = 127 + card;
        self.node_of(&format!("/dev/dri/card{card}"), 226, card, 0o660, 44);
        self.node_of(
            &format!("/dev/dri/renderD{render}"),
            226,
            render,
            0o660,
            993,
        );
        for name in [format!("card{card}"), format!("renderD{render}")] {
            fs::create_dir_all(self.at(&format!("/sys/bus/pci/devices/{bus}/drm/{name}"))).unwrap();
        }
        let by_path = format!(
            "{}/dev/dri/by-path/pci-{bus}",
            self.dev_root.trim_end_matches('/')
        );
        for (end, name) in [
            ("card", format!("../card{card}")),
            ("render", format!("../renderD{render}")),
        ] {
            symlink(name, self.at(&format!("{by_path}-{end}"))).unwrap();
        }
        self
    }

    /// A driver without the graphics stack.
    pub fn compute(&mut self) -> &mut Self {
        for (name, soname, plain) in [
            ("libcuda", "libcuda.so.1", true),
            ("libnvidia-ml", "libnvidia-ml.so.1", true),
            (
                "libnvidia-ptxjitcompiler",
                "libnvidia-ptxjitcompiler.so.1",
                true,
            ),
            ("libnvidia-nvvm", "libnvidia-nvvm.so.4", true),
            ("libnvidia-gpucomp", "", false),
            ("libnvcuvid", "libnvcuvid.so.1", true),
        ] {
            self.library(&format!("{LIB}/{name}.so.{V}"), soname, plain);
        }
        self.files(&["/usr/bin/nvidia-smi", "/usr/bin/nvidia-cuda-mps-control"]);
        let firmware = format!("/lib/firmware/nvidia/{V}/gsp_ga10x.bin");
        self.files(&[&firmware, "/run/nvidia-persistenced/socket"])
    }

    pub fn machine(&self) -> Machine {
        let root = self.dir.path();
        let mut machine = Machine::open(root, &self.driver_root, &self.dev_root, root).unwrap();
        machine.dev = machine.dev.with_nodes(self.nodes.clone());
        machine
    }

    pub fn generate(&self, inventory: Option<&Inventory>, options: &Options) -> Output {
        self.try_generate(inventory, options).unwrap()
    }

    pub fn try_generate(
        &self,
        inventory: Option<&Inventory>,
        options: &Options,
    ) -> Result<Output, String> {
        // Whatever the tests' own environment says: programs are looked for by it.
        generate(&self.machine(), inventory, options).map_err(|err| err.to_string())
    }
}

pub fn gpu(index: u32, minor: u32, bus: &str) -> Gpu {
    Gpu {
        index,
        minor,
        uuid: Some(format!("GPU-5d31a1c2-0f4e-4b7a-9a11-{index:012}")),
        bus_id: BusId::parse(bus),
        name: "NVIDIA A100-SXM4-40GB".to_owned(),
        mig: None,
        coherent: None,
        arch: None,
        brand: None,
    }
}

pub fn part(index: u32, gpu_instance: u32, graphics: bool) -> MigDevice {
    MigDevice {
        index,
        uuid: Some(format!("MIG-8e7b42d9-63c5-4f0d-b2aa-{gpu_instance:012}")),
        gpu_instance,
        compute_instance: 0,
        graphics,
    }
}

pub fn inventory(gpus: Vec<Gpu>) -> Inventory {
    Inventory {
        driver_version: Some(V.to_owned()),
        cuda_version: Some("12.4".to_owned()),
        gpus,
        warnings: Vec::new(),
    }
}

/// Compares with the committed spec; `UPDATE=1` rewrites it.
pub fn assert_golden(name: &str, spec: &Spec) {
    let path = format!(
        "{}/../../cdi/platforms/{name}.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = encode_spec(spec, Format::Yaml).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, want, "{path}: UPDATE=1 rewrites it");
}

pub fn names(generated: &Generated) -> Vec<&str> {
    generated
        .spec
        .devices
        .iter()
        .map(|device| device.name.as_str())
        .collect()
}
