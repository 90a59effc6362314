//! GPU models. Names, PCI ids and sizes are what NVML and `lspci` tell of the product.

use crate::mig::Family;

/// What all boards of a product share.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// How a description names it.
    pub key: &'static str,
    /// Product name, as NVML tells it.
    pub name: &'static str,
    /// PCI device id (upper half) and vendor (lower half), as in `nvmlPciInfo_t`.
    pub pci_id: u32,
    /// PCI subsystem id, the same way.
    pub subsystem_id: u32,
    /// PCI class: 3D controller or VGA controller.
    pub class: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// BAR1 aperture in MiB.
    pub bar1_mib: u64,
    /// Memory bus width in bits.
    pub bus_width: u32,
    /// Compute capability.
    pub compute: (i32, i32),
    /// `nvmlDeviceArchitecture_t`.
    pub architecture: u32,
    /// `nvmlBrandType_t`.
    pub brand: u32,
    /// CUDA cores.
    pub cores: u32,
    /// Power limit in watts.
    pub power_limit: u32,
    /// Power draw when idle, in watts.
    pub idle_power: u32,
    /// Highest clock of the multiprocessors, MHz.
    pub sm_clock: u32,
    /// Highest memory clock, MHz.
    pub memory_clock: u32,
    /// PCIe generation.
    pub pcie_gen: u32,
    /// `NVLink` links.
    pub nvlinks: u32,
    /// Video BIOS.
    pub vbios: &'static str,
    /// Part number of the board.
    pub part: &'static str,
    /// MIG profiles, if the GPU can be divided.
    pub mig: Option<Family>,
    /// Whether memory is error-corrected.
    pub ecc: bool,
    /// Whether it has a fan of its own.
    pub fan: bool,
    /// Whether its memory is coherent with the processor's (Grace Hopper).
    pub coherent: bool,
}

const CONTROLLER_3D: u32 = 0x03_0200;
const CONTROLLER_VGA: u32 = 0x03_0000;

/// `nvml.h`: `NVML_DEVICE_ARCH_…`.
const TURING: u32 = 6;
const AMPERE: u32 = 7;
const ADA: u32 = 8;
const HOPPER: u32 = 9;
const BLACKWELL: u32 = 10;

/// `nvml.h`: `NVML_BRAND_…`.
const BRAND_GEFORCE: u32 = 5;
const BRAND_RTX: u32 = 13;
const BRAND_NVIDIA: u32 = 14;

const H100: Model = Model {
    key: "h100",
    name: "NVIDIA H100 80GB HBM3",
    pci_id: 0x2330_10de,
    subsystem_id: 0x16c1_10de,
    class: CONTROLLER_3D,
    memory_mib: 81_559,
    bar1_mib: 131_072,
    bus_width: 5120,
    compute: (9, 0),
    architecture: HOPPER,
    brand: BRAND_NVIDIA,
    cores: 16_896,
    power_limit: 700,
    idle_power: 69,
    sm_clock: 1980,
    memory_clock: 2619,
    pcie_gen: 5,
    nvlinks: 18,
    vbios: "96.00.61.00.01",
    part: "692-2G520-0200-000",
    mig: Some(Family::Gb80Hopper),
    ecc: true,
    fan: false,
    coherent: false,
};

const A100: Model = Model {
    key: "a100",
    name: "NVIDIA A100-SXM4-40GB",
    pci_id: 0x20b0_10de,
    subsystem_id: 0x144e_10de,
    memory_mib: 40_960,
    bar1_mib: 65_536,
    compute: (8, 0),
    architecture: AMPERE,
    cores: 6912,
    power_limit: 400,
    idle_power: 52,
    sm_clock: 1410,
    memory_clock: 1215,
    pcie_gen: 4,
    nvlinks: 12,
    vbios: "92.00.45.00.03",
    part: "692-2G506-0200-002",
    mig: Some(Family::Gb40Ampere),
    ..H100
};

/// A board without `NVLink`, MIG and the rest of the data centre.
const WORKSTATION: Model = Model {
    key: "rtx6000",
    name: "NVIDIA RTX 6000 Ada Generation",
    pci_id: 0x26b1_10de,
    subsystem_id: 0x16a1_10de,
    class: CONTROLLER_VGA,
    memory_mib: 49_140,
    bar1_mib: 65_536,
    bus_width: 384,
    compute: (8, 9),
    architecture: ADA,
    brand: BRAND_RTX,
    cores: 18_176,
    power_limit: 300,
    idle_power: 23,
    sm_clock: 3105,
    memory_clock: 10_001,
    pcie_gen: 4,
    nvlinks: 0,
    vbios: "95.02.47.00.05",
    part: "900-5G133-2200-000",
    mig: None,
    ecc: true,
    fan: true,
    coherent: false,
};

/// All models.
pub const MODELS: [Model; 13] = [
    A100,
    Model {
        key: "a100-80gb",
        name: "NVIDIA A100-SXM4-80GB",
        pci_id: 0x20b2_10de,
        subsystem_id: 0x147f_10de,
        memory_mib: 81_920,
        bar1_mib: 131_072,
        memory_clock: 1593,
        part: "692-2G506-0210-002",
        mig: Some(Family::Gb80Ampere),
        ..A100
    },
    H100,
    Model {
        key: "h100-pcie",
        name: "NVIDIA H100 PCIe",
        pci_id: 0x2331_10de,
        subsystem_id: 0x1626_10de,
        cores: 14_592,
        power_limit: 350,
        idle_power: 46,
        sm_clock: 1755,
        memory_clock: 1593,
        nvlinks: 12,
        vbios: "96.00.74.00.11",
        part: "900-21010-0000-000",
        ..H100
    },
    Model {
        key: "h200",
        name: "NVIDIA H200",
        pci_id: 0x2335_10de,
        subsystem_id: 0x18be_10de,
        memory_mib: 143_771,
        bar1_mib: 262_144,
        bus_width: 6144,
        idle_power: 75,
        memory_clock: 3201,
        vbios: "96.00.a5.00.01",
        part: "692-2G520-0280-000",
        mig: Some(Family::Gb141),
        ..H100
    },
    Model {
        key: "b200",
        name: "NVIDIA B200",
        pci_id: 0x2901_10de,
        subsystem_id: 0x1999_10de,
        memory_mib: 183_359,
        bar1_mib: 262_144,
        bus_width: 8192,
        compute: (10, 0),
        architecture: BLACKWELL,
        cores: 18_944,
        power_limit: 1000,
        idle_power: 141,
        sm_clock: 1965,
        memory_clock: 3996,
        vbios: "97.00.88.00.0f",
        part: "692-2G525-0220-000",
        mig: Some(Family::Gb180),
        ..H100
    },
    Model {
        key: "gh200",
        name: "NVIDIA GH200 480GB",
        pci_id: 0x2342_10de,
        subsystem_id: 0x16eb_10de,
        memory_mib: 97_871,
        power_limit: 900,
        idle_power: 77,
        vbios: "96.00.a0.00.01",
        part: "900-2G530-0000-000",
        mig: Some(Family::Gb96),
        coherent: true,
        ..H100
    },
    Model {
        key: "dgx-display",
        name: "NVIDIA DGX Display",
        pci_id: 0x1fb0_10de,
        subsystem_id: 0x1489_10de,
        memory_mib: 3911,
        bar1_mib: 256,
        bus_width: 128,
        compute: (7, 5),
        architecture: TURING,
        brand: BRAND_NVIDIA,
        cores: 896,
        power_limit: 50,
        idle_power: 4,
        sm_clock: 2100,
        memory_clock: 5001,
        pcie_gen: 3,
        vbios: "90.17.60.00.8b",
        part: "900-1G178-2550-000",
        ecc: false,
        ..WORKSTATION
    },
    Model {
        key: "l40s",
        name: "NVIDIA L40S",
        pci_id: 0x26b9_10de,
        subsystem_id: 0x1851_10de,
        class: CONTROLLER_3D,
        memory_mib: 46_068,
        brand: BRAND_NVIDIA,
        power_limit: 350,
        idle_power: 35,
        sm_clock: 2520,
        memory_clock: 9001,
        vbios: "95.02.66.00.02",
        part: "900-2G133-0080-000",
        fan: false,
        ..WORKSTATION
    },
    WORKSTATION,
    Model {
        key: "rtx4090",
        name: "NVIDIA GeForce RTX 4090",
        pci_id: 0x2684_10de,
        subsystem_id: 0x16f3_10de,
        memory_mib: 24_564,
        bar1_mib: 32_768,
        brand: BRAND_GEFORCE,
        cores: 16_384,
        power_limit: 450,
        idle_power: 18,
        memory_clock: 10_501,
        vbios: "95.02.3c.40.b8",
        part: "900-1G136-2530-000",
        ecc: false,
        ..WORKSTATION
    },
    Model {
        key: "orin",
        name: "Orin (nvgpu)",
        pci_id: 0,
        subsystem_id: 0,
        memory_mib: 30_697,
        compute: (8, 7),
        architecture: AMPERE,
        brand: BRAND_NVIDIA,
        cores: 2048,
        power_limit: 60,
        idle_power: 5,
        sm_clock: 1300,
        memory_clock: 3199,
        vbios: "",
        part: "",
        ecc: false,
        fan: false,
        ..WORKSTATION
    },
    Model {
        key: "thor",
        name: "NVIDIA Thor",
        pci_id: 0,
        subsystem_id: 0,
        memory_mib: 125_772,
        compute: (11, 0),
        architecture: BLACKWELL,
        brand: BRAND_NVIDIA,
        cores: 2560,
        power_limit: 130,
        idle_power: 9,
        sm_clock: 1575,
        memory_clock: 4266,
        vbios: "",
        part: "",
        ecc: false,
        fan: false,
        ..WORKSTATION
    },
];

/// A model by its key.
#[must_use]
pub fn model(key: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_one_model_each() {
        for one in &MODELS {
            assert_eq!(model(one.key).unwrap().name, one.name);
        }
        assert!(model("voodoo2").is_none());
    }
}
