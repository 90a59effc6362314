//! The simulated NVML through `nvml-wrapper`, the library that this project discovers GPUs with.
#![allow(missing_docs, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fleet_tests::{path, run, unique};
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Brand, Clock, TemperatureSensor, TopologyLevel};
use nvml_wrapper::enums::device::DeviceArchitecture;
use nvml_wrapper::error::NvmlError;

/// A tree without device nodes, which needs no privilege; NVML reads the list instead.
struct Tree {
    root: PathBuf,
}

impl Drop for Tree {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.root));
    }
}

impl Tree {
    fn new(machine: &str) -> Self {
        let root = PathBuf::from("/run").join(unique("nvml"));
        run(Command::new(path("FLEET_CTL"))
            .args(["simulate", "create", "--quiet", "--nodes", "listed"])
            .args(["--machine", machine, "--programs"])
            .arg(path("FLEET_PROGRAMS"))
            .arg("--root")
            .arg(&root))
        .silent();
        Self { root }
    }

    fn nvml(&self) -> Result<Nvml, NvmlError> {
        let library = self.root.join("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");
        Nvml::builder().lib_path(library.as_os_str()).init()
    }
}

#[test]
fn a_gpu_is_described_in_full() {
    let tree = Tree::new("dgx-h100");
    let nvml = tree.nvml().expect("NVML");
    assert_eq!(nvml.device_count().expect("count"), 8);
    assert_eq!(nvml.sys_driver_version().expect("version"), "550.54.15");
    assert_eq!(nvml.sys_nvml_version().expect("version"), "12.550.54.15");
    assert_eq!(nvml.sys_cuda_driver_version().expect("version"), 12_040);

    let gpu = nvml.device_by_index(1).expect("device");
    assert_eq!(gpu.name().expect("name"), "NVIDIA H100 80GB HBM3");
    assert_eq!(gpu.minor_number().expect("minor"), 1);
    assert_eq!(gpu.brand().expect("brand"), Brand::Nvidia);
    assert_eq!(
        gpu.architecture().expect("architecture"),
        DeviceArchitecture::Hopper
    );
    let capability = gpu.cuda_compute_capability().expect("capability");
    assert_eq!((capability.major, capability.minor), (9, 0));
    let pci = gpu.pci_info().expect("PCI");
    assert_eq!(
        (pci.bus_id.as_str(), pci.pci_device_id),
        ("00000000:2A:00.0", 0x2330_10de)
    );
    assert_eq!(gpu.memory_info().expect("memory").total, 81_559 << 20);
    assert_eq!(gpu.bar1_memory_info().expect("BAR1").total, 131_072 << 20);
    assert_eq!(
        gpu.temperature(TemperatureSensor::Gpu)
            .expect("temperature"),
        32
    );
    assert_eq!(gpu.power_usage().expect("power"), 70_000);
    assert_eq!(
        gpu.power_management_limit_default().expect("limit"),
        700_000
    );
    assert_eq!(gpu.clock_info(Clock::SM).expect("clock"), 345);
    assert_eq!(gpu.max_clock_info(Clock::Memory).expect("clock"), 2619);
    assert_eq!(gpu.supported_memory_clocks().expect("clocks"), [2619]);
    assert_eq!(gpu.utilization_rates().expect("load").gpu, 0);
    assert!(gpu.is_ecc_enabled().expect("ECC").currently_enabled);
    assert!(gpu.is_in_persistent_mode().expect("mode"));
    assert_eq!(gpu.max_pcie_link_gen().expect("PCIe"), 5);
    assert_eq!(gpu.num_cores().expect("cores"), 16_896);
    assert_eq!(gpu.memory_bus_width().expect("width"), 5120);
    assert!(
        gpu.running_compute_processes()
            .expect("processes")
            .is_empty()
    );
    assert_eq!(gpu.gsp_firmware_version().expect("firmware"), "550.54.15");
    assert!(gpu.link_wrapper_for(17).is_active().expect("link"));
    assert!(gpu.link_wrapper_for(18).is_active().is_err());
    assert!(matches!(gpu.fan_speed(0), Err(NvmlError::NotSupported)));
}

#[test]
fn gpus_are_found_by_every_name() {
    let tree = Tree::new("dgx-h100");
    let nvml = tree.nvml().expect("NVML");
    let gpu = nvml.device_by_index(3).expect("device");
    let uuid = gpu.uuid().expect("UUID");
    assert_eq!(
        nvml.device_by_uuid(uuid.as_str())
            .expect("by UUID")
            .index()
            .expect("index"),
        3
    );
    for address in ["0000:5d:00.0", "00000000:5D:00.0", "5d:00.0"] {
        let found = nvml.device_by_pci_bus_id(address).expect("by address");
        assert_eq!(found.uuid().expect("UUID"), uuid, "{address}");
    }
    assert_eq!(gpu.serial().expect("serial"), "1652523000003");
    assert!(matches!(
        nvml.device_by_index(8),
        Err(NvmlError::InvalidArg)
    ));
    assert!(matches!(
        nvml.device_by_uuid("GPU-x"),
        Err(NvmlError::NotFound)
    ));
    // Four GPUs at each socket.
    let level = |n| {
        let other = nvml.device_by_index(n).expect("device");
        gpu.topology_common_ancestor(other).expect("topology")
    };
    assert_eq!(level(2), TopologyLevel::Node);
    assert_eq!(level(7), TopologyLevel::System);
}

#[test]
fn index_and_minor_number_differ() {
    let file = PathBuf::from("/run").join(unique("machine"));
    let text = "[[gpu]]\nmodel = \"h100\"\nbus-id = \"0000:db:00.0\"\n[[gpu]]\nmodel = \"h100\"\nbus-id = \"0000:17:00.0\"\n";
    fs::write(&file, text).expect("write");
    let tree = Tree::new(&file.display().to_string());
    let nvml = tree.nvml().expect("NVML");
    let minors: Vec<u32> = (0..2)
        .map(|n| {
            nvml.device_by_index(n)
                .and_then(|gpu| gpu.minor_number())
                .expect("minor")
        })
        .collect();
    assert_eq!(minors, [1, 0]);
    fs::remove_file(file).expect("remove");
}

#[test]
fn mig_devices_have_handles() {
    let tree = Tree::new("mig-mixed");
    let nvml = tree.nvml().expect("NVML");
    let gpu = nvml.device_by_index(0).expect("device");
    assert!(gpu.mig_mode().expect("mode").current == 1);
    assert_eq!(gpu.mig_device_count().expect("count"), 7);
    let part = gpu.mig_device_by_index(1).expect("part");
    assert!(part.mig_is_mig_device_handle().expect("handle"));
    assert_eq!(
        part.name().expect("name"),
        "NVIDIA A100-SXM4-40GB MIG 2g.10gb"
    );
    let uuid = part.uuid().expect("UUID");
    assert!(uuid.starts_with("MIG-"), "{uuid}");
    assert_eq!(
        nvml.device_by_uuid(uuid.as_str())
            .expect("by UUID")
            .uuid()
            .expect("UUID"),
        uuid
    );
    let parent = part.mig_parent_device().and_then(|parent| parent.uuid());
    assert_eq!(parent.expect("parent"), gpu.uuid().expect("UUID"));
    assert_eq!(part.memory_info().expect("memory").total, 9984 << 20);
    let attributes = part.attributes().expect("attributes");
    assert_eq!(attributes.multiprocessor_count, 28);
    assert_eq!(attributes.gpu_instance_slice_count, 2);
    assert!(matches!(
        gpu.mig_device_by_index(3),
        Err(NvmlError::NotFound)
    ));
    assert!(matches!(part.power_usage(), Err(NvmlError::NotSupported)));
    // MIG is off here, and unknown there.
    let off = nvml.device_by_index(1).expect("device");
    assert!(off.mig_mode().expect("mode").current == 0);
    assert!(off.mig_device_by_index(0).is_err());
    let workstation = Tree::new("workstation");
    let nvml = workstation.nvml().expect("NVML");
    let gpu = nvml.device_by_index(0).expect("device");
    assert!(matches!(gpu.mig_mode(), Err(NvmlError::NotSupported)));
    assert_eq!(gpu.fan_speed(0).expect("fan"), 30);
}

#[test]
fn faults_are_nvml_errors() {
    let lost = Tree::new("lost-gpu");
    let nvml = lost.nvml().expect("NVML");
    assert_eq!(nvml.device_count().expect("count"), 3);
    assert!(matches!(nvml.device_by_index(1), Err(NvmlError::GpuLost)));
    assert!(nvml.device_by_index(2).is_ok());

    let mismatch = Tree::new("mismatch");
    assert!(matches!(
        mismatch.nvml(),
        Err(NvmlError::LibRmVersionMismatch)
    ));

    let bad = Tree::new("bad-nodes");
    let nvml = bad.nvml().expect("NVML");
    // The one without a node and the one whose node nobody may open are not there.
    assert_eq!(nvml.device_count().expect("count"), 3);

    let file = PathBuf::from("/run").join(unique("machine"));
    fs::write(&file, "init-error = \"unknown\"\n").expect("write");
    let broken = Tree::new(&file.display().to_string());
    assert!(matches!(broken.nvml(), Err(NvmlError::Unknown)));
    fs::remove_file(file).expect("remove");
}
