//! What the driver shows in `/proc`.

use std::fmt::Write as _;

use fleet_sim_machine::{Gpu, GpuFault, Machine, Platform, cap_minor, major, model};

use crate::files::Entry;

/// Parameters of the module, those of a driver of the 550 series at their defaults.
const PARAMS: &str = "ResmanDebugLevel: 4294967295
RmLogonRC: 1
ModifyDeviceFiles: 1
DeviceFileUID: 0
DeviceFileGID: 0
DeviceFileMode: 438
InitializeSystemMemoryAllocations: 1
UsePageAttributeTable: 4294967295
EnableMSI: 1
EnablePCIeGen3: 0
MemoryPoolSize: 0
KMallocHeapMaxSize: 0
VMallocHeapMaxSize: 0
IgnoreMMIOCheck: 0
EnableStreamMemOPs: 0
EnableUserNUMAManagement: 1
NvLinkDisable: 0
RmProfilingAdminOnly: 1
PreserveVideoMemoryAllocations: 0
EnableS0ixPowerManagement: 0
S0ixPowerManagementVideoMemoryThreshold: 256
DynamicPowerManagement: 3
DynamicPowerManagementVideoMemoryThreshold: 200
RegisterPCIDriver: 1
EnablePCIERelaxedOrderingMode: 0
EnableResizableBar: 0
EnableGpuFirmware: 18
EnableGpuFirmwareLogs: 2
RmNvlinkBandwidthLinkCount: 0
EnableDbgBreakpoint: 0
OpenRmEnableUnsupportedGpus: 1
DmaRemapPeerMmio: 1
ImexChannelCount: 2048
CreateImexChannel0: 0
RegistryDwords: \"\"
RegistryDwordsPerDevice: \"\"
RmMsg: \"\"
GpuBlacklist: \"\"
TemporaryFilePath: \"\"
ExcludedGpus: \"\"
";

/// GPUs and GPU instances for which the driver reserves numbers in `mig-minors`.
const RESERVED_GPUS: u32 = 32;
const RESERVED_INSTANCES: u32 = 15;
const RESERVED_COMPUTE: u32 = 8;

/// All files of `/proc`.
#[must_use]
pub fn proc_files(machine: &Machine) -> Vec<Entry> {
    let mut out = vec![Entry::kernel(
        "proc/sys/kernel/random/boot_id",
        format!("{}\n", machine.boot_id),
    )];
    match machine.platform {
        Platform::Native => native(machine, &mut out),
        Platform::Wsl => out.push(Entry::kernel(
            "proc/version",
            "Linux version 5.15.153.1-microsoft-standard-WSL2 (root@buildhost) (gcc (GCC) 11.2.0) #1 SMP Fri Mar 29 23:14:13 UTC 2024\n",
        )),
        Platform::Tegra => {}
    }
    out
}

fn native(machine: &Machine, out: &mut Vec<Entry>) {
    out.push(Entry::kernel("proc/devices", devices(machine)));
    out.push(Entry::kernel("proc/modules", modules(machine)));
    out.push(Entry::kernel(
        "proc/driver/nvidia/version",
        format!(
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n",
            machine.module_version
        ),
    ));
    out.push(Entry::kernel("proc/driver/nvidia/params", PARAMS));
    out.push(Entry::kernel(
        "proc/driver/nvidia-caps/mig-minors",
        mig_minors(),
    ));
    for (name, minor, mode) in [("config", 1, 0o400), ("monitor", 2, 0o444)] {
        out.push(access(&format!("mig/{name}"), minor, mode));
    }
    for gpu in &machine.gpus {
        gpu_files(gpu, &machine.module_version, out);
    }
}

fn devices(machine: &Machine) -> String {
    let mut lines = vec![
        (1, "mem"),
        (4, "tty"),
        (5, "/dev/tty"),
        (10, "misc"),
        (major::NVIDIA, "nvidia"),
        (major::NVIDIA, "nvidia-modeset"),
        (major::NVIDIA, "nvidiactl"),
        (major::DRM, "drm"),
        (major::IMEX, "nvidia-caps-imex-channels"),
        (major::NVLINK, "nvidia-nvlink"),
        (major::NVSWITCH, "nvidia-nvswitch"),
        (major::CAPS, "nvidia-caps"),
        (major::UVM, "nvidia-uvm"),
    ];
    if machine.gpus.iter().all(|gpu| gpu.drm.is_none()) {
        lines.retain(|(_, name)| *name != "drm");
    }
    let mut text = "Character devices:\n".to_owned();
    for (number, name) in lines {
        let _ = writeln!(text, "{number:>3} {name}");
    }
    text.push_str("\nBlock devices:\n  7 loop\n259 blkext\n");
    text
}

fn modules(machine: &Machine) -> String {
    let mut text = "nvidia_uvm 4956160 0 - Live 0x0000000000000000 (OE)\n".to_owned();
    if machine.gpus.iter().any(|gpu| gpu.drm.is_some()) {
        text.push_str("nvidia_drm 122880 0 - Live 0x0000000000000000 (OE)\n");
    }
    text.push_str("nvidia_modeset 1355776 1 nvidia_drm, Live 0x0000000000000000 (OE)\nnvidia 54566912 2 nvidia_uvm,nvidia_modeset, Live 0x0000000000000000 (OE)\n");
    text
}

/// Numbers are reserved for every GPU and instance that could ever be.
fn mig_minors() -> String {
    let mut text = "config 1\nmonitor 2\n".to_owned();
    for gpu in 0..RESERVED_GPUS {
        for gi in 0..RESERVED_INSTANCES {
            let _ = writeln!(text, "gpu{gpu}/gi{gi}/access {}", cap_minor(gpu, gi, None));
            for ci in 0..RESERVED_COMPUTE {
                let minor = cap_minor(gpu, gi, Some(ci));
                let _ = writeln!(text, "gpu{gpu}/gi{gi}/ci{ci}/access {minor}");
            }
        }
    }
    text
}

fn access(path: &str, minor: u32, mode: u32) -> Entry {
    Entry::kernel(
        format!("proc/driver/nvidia/capabilities/{path}"),
        format!("DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n"),
    )
}

fn gpu_files(gpu: &Gpu, module: &str, out: &mut Vec<Entry>) {
    let dir = format!("proc/driver/nvidia/gpus/{}", gpu.bus_id);
    let information = match gpu.fault {
        Some(GpuFault::GarbledProc) => {
            b"Model: \xff\xfe\x00\nDevice Minor: \t 99999999999999999999\nBus Location: ".to_vec()
        }
        _ => information(gpu, module).into_bytes(),
    };
    out.push(Entry::kernel(format!("{dir}/information"), information));
    out.push(Entry::kernel(
        format!("{dir}/power"),
        "Runtime D3 status:          Disabled by default\nVideo Memory:               Active\n",
    ));
    out.push(Entry::kernel(format!("{dir}/registry"), "Binary: \"\"\n"));
    for instance in gpu.mig.iter().flatten() {
        let below = format!("gpu{}/mig/gi{}", gpu.minor, instance.id);
        let minor = cap_minor(gpu.minor, instance.id, None);
        out.push(access(&format!("{below}/access"), minor, 0o444));
        for compute in &instance.compute {
            let minor = cap_minor(gpu.minor, instance.id, Some(compute.id));
            out.push(access(
                &format!("{below}/ci{}/access", compute.id),
                minor,
                0o444,
            ));
        }
    }
}

fn information(gpu: &Gpu, module: &str) -> String {
    let vbios = model(&gpu.model).map_or("", |model| model.vbios);
    let lost = gpu.fault == Some(GpuFault::Lost);
    // What the driver prints of a GPU that no longer answers.
    let (uuid, vbios) = if lost {
        ("GPU-????????-????-????-????-????????????", "??.??.??.??.??")
    } else {
        (gpu.uuid.as_str(), vbios)
    };
    format!(
        "Model: \t\t {}\nIRQ:   \t\t {}\nGPU UUID: \t {uuid}\nVideo BIOS: \t {vbios}\nBus Type: \t PCIe\nDMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t {}\nDevice Minor: \t {}\nGPU Firmware: \t {module}\nGPU Excluded:\t No\n",
        gpu.name,
        16 + gpu.minor,
        gpu.bus_id,
        gpu.minor
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(machine: &str, path: &str) -> String {
        let machine = Machine::load(machine, None).unwrap();
        proc_files(&machine)
            .into_iter()
            .find_map(|entry| match entry {
                Entry::File {
                    path: at, content, ..
                } if at == path => Some(String::from_utf8_lossy(&content).into_owned()),
                _ => None,
            })
            .unwrap_or_else(|| panic!("{path} is missing"))
    }

    #[test]
    fn the_driver_tells_of_itself_and_its_gpus() {
        let version = text("mismatch", "proc/driver/nvidia/version");
        assert!(version.contains("  550.90.07  "), "{version}");
        let gpu = text("h100x2", "proc/driver/nvidia/gpus/0000:2a:00.0/information");
        assert!(gpu.contains("Device Minor: \t 1\n"), "{gpu}");
        assert!(gpu.contains("Model: \t\t NVIDIA H100 80GB HBM3\n"), "{gpu}");
        let lost = text(
            "lost-gpu",
            "proc/driver/nvidia/gpus/0000:2a:00.0/information",
        );
        assert!(lost.contains("GPU-????????"), "{lost}");
        let devices = text("h100x2", "proc/devices");
        assert!(devices.contains("195 nvidia\n") && !devices.contains("drm"));
        assert!(text("dgx-h100", "proc/devices").contains("226 drm\n"));
    }

    #[test]
    fn mig_has_its_numbers_and_access_files() {
        let minors = text("h100x1", "proc/driver/nvidia-caps/mig-minors");
        assert_eq!(minors.lines().count(), 2 + 32 * 135);
        assert!(minors.ends_with("gpu31/gi14/ci7/access 4322\n"));
        let access = text(
            "mig-mixed",
            "proc/driver/nvidia/capabilities/gpu0/mig/gi1/ci0/access",
        );
        assert_eq!(
            access,
            "DeviceFileMinor: 13\nDeviceFileMode: 292\nDeviceFileModify: 1\n"
        );
        assert!(
            text("mig-mixed", "proc/driver/nvidia/capabilities/mig/config").contains(": 256\n")
        );
    }

    #[test]
    fn wsl_and_tegra_have_no_nvidia_directory() {
        for name in ["wsl", "orin"] {
            let machine = Machine::load(name, None).unwrap();
            let found = proc_files(&machine)
                .iter()
                .any(|entry| entry.path().contains("driver/nvidia"));
            assert!(!found, "{name}");
        }
    }
}
