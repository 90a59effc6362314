//! What the kernel shows in `/sys` of GPUs and `NVSwitch` chips.
//!
//! `sys/bus/pci/devices/ADDRESS` is a directory here and a link into `sys/devices` on a real machine, so that this one
//! directory can be bound over the real one.

use fleet_sim_machine::{Drm, Gpu, Machine, Platform, model};

use crate::files::Entry;

/// PCI ids of an `NVSwitch` of the third generation.
const SWITCH_ID: u32 = 0x22a3_10de;
const SWITCH_CLASS: u32 = 0x06_8000;

/// All files of `/sys`.
#[must_use]
pub fn sys_files(machine: &Machine) -> Vec<Entry> {
    let mut out = Vec::new();
    if machine.platform != Platform::Native {
        return out;
    }
    for gpu in &machine.gpus {
        gpu_files(gpu, &mut out);
    }
    for (n, bus) in machine
        .switches
        .iter()
        .filter_map(|switch| switch.bus_id.as_deref())
        .enumerate()
    {
        let name = format!("nvswitch {n}");
        pci(bus, (SWITCH_ID, SWITCH_ID, SWITCH_CLASS), &name, &mut out);
    }
    out.push(Entry::kernel(
        "sys/module/nvidia/version",
        format!("{}\n", machine.module_version),
    ));
    for module in ["nvidia", "nvidia_uvm", "nvidia_modeset"] {
        let path = format!("sys/module/{module}/initstate");
        out.push(Entry::kernel(path, "live\n"));
    }
    out.push(Entry::kernel(
        "sys/module/firmware_class/parameters/path",
        "\n",
    ));
    out
}

fn gpu_files(gpu: &Gpu, out: &mut Vec<Entry>) {
    let Some(model) = model(&gpu.model) else {
        return;
    };
    let ids = (model.pci_id, model.subsystem_id, model.class);
    pci(&gpu.bus_id, ids, "nvidia", out);
    let dir = format!("sys/bus/pci/devices/{}", gpu.bus_id);
    for (name, text) in [
        ("current_link_speed", link_speed(model.pcie_gen)),
        ("current_link_width", "16"),
    ] {
        out.push(Entry::kernel(format!("{dir}/{name}"), format!("{text}\n")));
    }
    if let Some(drm) = &gpu.drm {
        drm_files(&dir, drm, out);
    }
}

fn pci(bus: &str, (id, subsystem, class): (u32, u32, u32), name: &str, out: &mut Vec<Entry>) {
    let dir = format!("sys/bus/pci/devices/{bus}");
    let half =
        |id: u32, high: bool| format!("0x{:04x}\n", if high { id >> 16 } else { id & 0xffff });
    for (file, text) in [
        ("vendor", half(id, false)),
        ("device", half(id, true)),
        ("subsystem_vendor", half(subsystem, false)),
        ("subsystem_device", half(subsystem, true)),
        ("class", format!("0x{class:06x}\n")),
        ("revision", "0xa1\n".to_owned()),
        ("numa_node", "0\n".to_owned()),
        ("enable", "1\n".to_owned()),
        ("irq", "16\n".to_owned()),
        (
            "uevent",
            format!(
                "DRIVER={}\nPCI_CLASS={class:X}\nPCI_ID={:04X}:{:04X}\nPCI_SLOT_NAME={bus}\n",
                name.split(' ').next().unwrap_or("nvidia"),
                id & 0xffff,
                id >> 16
            ),
        ),
    ] {
        out.push(Entry::kernel(format!("{dir}/{file}"), text));
    }
    out.push(Entry::link(
        format!("{dir}/driver"),
        if name == "nvidia" {
            "../../drivers/nvidia"
        } else {
            "../../drivers/nvidia-nvswitch"
        },
    ));
}

fn link_speed(generation: u32) -> &'static str {
    match generation {
        5 => "32.0 GT/s PCIe",
        4 => "16.0 GT/s PCIe",
        _ => "8.0 GT/s PCIe",
    }
}

/// The numbers are the driver's whatever the nodes of the tree have.
fn drm_files(dir: &str, drm: &Drm, out: &mut Vec<Entry>) {
    for node in [&drm.card, &drm.render] {
        let name = node.name.rsplit('/').next().unwrap_or_default();
        let (major, minor) = (node.major, node.minor);
        out.push(Entry::kernel(
            format!("{dir}/drm/{name}/dev"),
            format!("{major}:{minor}\n"),
        ));
        out.push(Entry::kernel(
            format!("{dir}/drm/{name}/uevent"),
            format!(
                "MAJOR={major}\nMINOR={minor}\nDEVNAME={}\nDEVTYPE=drm_minor\n",
                node.name
            ),
        ));
        out.push(Entry::link(
            format!("sys/class/drm/{name}"),
            format!(
                "../../bus/pci/devices/{}/drm/{name}",
                dir.rsplit('/').next().unwrap_or_default()
            ),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(machine: &str, path: &str) -> Option<String> {
        sys_files(&Machine::load(machine, None).unwrap())
            .into_iter()
            .find_map(|entry| match entry {
                Entry::File {
                    path: at, content, ..
                } if at == path => Some(String::from_utf8(content).unwrap()),
                Entry::Link { path: at, target } if at == path => Some(target),
                _ => None,
            })
    }

    #[test]
    fn gpus_are_found_by_address() {
        let gpu = |file: &str| {
            found(
                "dgx-h100",
                &format!("sys/bus/pci/devices/0000:2a:00.0/{file}"),
            )
        };
        assert_eq!(gpu("vendor").unwrap(), "0x10de\n");
        assert_eq!(gpu("device").unwrap(), "0x2330\n");
        assert_eq!(gpu("class").unwrap(), "0x030200\n");
        assert_eq!(gpu("driver").unwrap(), "../../drivers/nvidia");
        assert_eq!(gpu("drm/card2/dev").unwrap(), "226:2\n");
        assert_eq!(gpu("drm/renderD129/dev").unwrap(), "226:129\n");
        assert_eq!(
            found("dgx-h100", "sys/class/drm/card2").unwrap(),
            "../../bus/pci/devices/0000:2a:00.0/drm/card2"
        );
        let switch = found("dgx-h100", "sys/bus/pci/devices/0000:c1:00.0/class");
        assert_eq!(switch.unwrap(), "0x068000\n");
        let headless = "sys/bus/pci/devices/0000:17:00.0/drm/card1/dev";
        assert_eq!(found("h100x1", headless), None);
    }
}
