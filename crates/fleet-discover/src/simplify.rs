//! One order and no repetition, so that equal machines give equal files.

use fleet_cdi::{ContainerEdits, Device, Spec};

use crate::edits::append;

/// The name of the device that is all devices.
pub(crate) const ALL: &str = "all";

/// Removes repetitions, then from devices what the whole spec says already, then sorts.
pub(crate) fn simplify(spec: &mut Spec) {
    deduplicate(&mut spec.container_edits);
    for device in &mut spec.devices {
        deduplicate(&mut device.container_edits);
        remove_common(&mut device.container_edits, &spec.container_edits);
        sort(&mut device.container_edits);
    }
    sort(&mut spec.container_edits);
    spec.devices.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Adds a device that is all devices together, unless one has that name.
pub(crate) fn add_all(spec: &mut Spec) {
    if spec.devices.is_empty() || spec.devices.iter().any(|device| device.name == ALL) {
        return;
    }
    let mut all = Device {
        name: ALL.to_owned(),
        ..Device::default()
    };
    for device in &spec.devices {
        append(&mut all.container_edits, device.container_edits.clone());
    }
    spec.devices.push(all);
    simplify(spec);
}

fn unique<T: PartialEq>(list: &mut Vec<T>) {
    let mut seen: Vec<T> = Vec::with_capacity(list.len());
    for entry in list.drain(..) {
        if !seen.contains(&entry) {
            seen.push(entry);
        }
    }
    *list = seen;
}

fn deduplicate(edits: &mut ContainerEdits) {
    unique(&mut edits.env);
    unique(&mut edits.device_nodes);
    unique(&mut edits.hooks);
    unique(&mut edits.mounts);
    edits.additional_gids.sort_unstable();
    edits.additional_gids.dedup();
}

/// A device with nothing left is none that a reader takes: it keeps what it has.
fn remove_common(edits: &mut ContainerEdits, common: &ContainerEdits) {
    let mut less = edits.clone();
    less.env.retain(|entry| !common.env.contains(entry));
    less.device_nodes
        .retain(|entry| !common.device_nodes.contains(entry));
    less.hooks.retain(|entry| !common.hooks.contains(entry));
    less.mounts.retain(|entry| !common.mounts.contains(entry));
    let lists = [
        less.env.is_empty(),
        less.device_nodes.is_empty(),
        less.hooks.is_empty(),
        less.mounts.is_empty(),
    ];
    if lists.contains(&false) {
        *edits = less;
    }
}

fn sort(edits: &mut ContainerEdits) {
    let key = |path: &str, host: Option<&str>| {
        let depth = path.split('/').filter(|part| !part.is_empty()).count();
        (depth, path.to_owned(), host.unwrap_or_default().to_owned())
    };
    edits
        .device_nodes
        .sort_by_cached_key(|node| key(&node.path, node.host_path.as_deref()));
    edits
        .mounts
        .sort_by_cached_key(|mount| key(&mount.container_path, Some(&mount.host_path)));
}

#[cfg(test)]
mod tests {
    use fleet_cdi::{DeviceNode, Mount};

    use super::*;

    fn node(path: &str) -> DeviceNode {
        DeviceNode {
            path: path.to_owned(),
            ..DeviceNode::default()
        }
    }

    fn mount(path: &str) -> Mount {
        Mount {
            container_path: path.to_owned(),
            host_path: path.to_owned(),
            ..Mount::default()
        }
    }

    fn device(name: &str, nodes: &[&str], gids: &[u32]) -> Device {
        Device {
            name: name.to_owned(),
            container_edits: ContainerEdits {
                device_nodes: nodes.iter().map(|path| node(path)).collect(),
                additional_gids: gids.to_vec(),
                ..ContainerEdits::default()
            },
            ..Device::default()
        }
    }

    fn paths(edits: &ContainerEdits) -> Vec<&str> {
        edits
            .device_nodes
            .iter()
            .map(|node| node.path.as_str())
            .collect()
    }

    #[test]
    fn repetitions_go_and_the_order_is_by_depth_and_name() {
        let mut spec = Spec::default();
        let paths_in = [
            "/dev/dri/card0",
            "/dev/nvidia1",
            "/dev/nvidia0",
            "/dev/nvidia1",
        ];
        spec.devices.push(device("1", &paths_in, &[44, 5, 44]));
        spec.devices.push(device("0", &["/dev/nvidia0"], &[]));
        spec.container_edits.mounts =
            vec![mount("/usr/lib/x"), mount("/a"), mount("/b/c"), mount("/a")];
        simplify(&mut spec);
        assert_eq!(spec.devices[0].name, "0");
        let edits = &spec.devices[1].container_edits;
        assert_eq!(
            paths(edits),
            ["/dev/nvidia0", "/dev/nvidia1", "/dev/dri/card0"]
        );
        assert_eq!(edits.additional_gids, [5, 44]);
        let mounts = spec.container_edits.mounts.iter();
        let mounts: Vec<_> = mounts.map(|mount| mount.container_path.as_str()).collect();
        assert_eq!(mounts, ["/a", "/b/c", "/usr/lib/x"]);
    }

    #[test]
    fn what_all_get_is_not_said_again_unless_nothing_would_be_left() {
        let mut spec = Spec::default();
        spec.container_edits
            .device_nodes
            .push(node("/dev/nvidiactl"));
        spec.devices
            .push(device("a", &["/dev/nvidiactl", "/dev/nvidia0"], &[]));
        spec.devices.push(device("b", &["/dev/nvidiactl"], &[]));
        simplify(&mut spec);
        assert_eq!(paths(&spec.devices[0].container_edits), ["/dev/nvidia0"]);
        assert_eq!(paths(&spec.devices[1].container_edits), ["/dev/nvidiactl"]);
    }

    #[test]
    fn what_all_get_is_not_said_again_of_any_kind() {
        let edits = |name: &str| ContainerEdits {
            env: vec![format!("{name}=1")],
            device_nodes: vec![node(&format!("/dev/{name}"))],
            hooks: vec![fleet_cdi::Hook {
                path: name.to_owned(),
                ..fleet_cdi::Hook::default()
            }],
            mounts: vec![mount(&format!("/{name}"))],
            ..ContainerEdits::default()
        };
        let mut spec = Spec {
            container_edits: edits("common"),
            ..Spec::default()
        };
        let mut own = edits("common");
        append(&mut own, edits("own"));
        // Twice, as where two rules find the same.
        append(&mut own, edits("own"));
        append(&mut spec.container_edits, edits("common"));
        spec.devices.push(Device {
            name: "0".to_owned(),
            container_edits: own,
            ..Device::default()
        });
        simplify(&mut spec);
        assert_eq!(spec.container_edits, edits("common"));
        assert_eq!(spec.devices[0].container_edits, edits("own"));
    }

    #[test]
    fn all_is_the_union_and_takes_nobodys_name() {
        let mut spec = Spec::default();
        spec.devices.push(device("0", &["/dev/nvidia0"], &[44]));
        spec.devices.push(device("GPU-0", &["/dev/nvidia0"], &[44]));
        spec.devices.push(device("1", &["/dev/nvidia1"], &[]));
        add_all(&mut spec);
        let names: Vec<_> = spec
            .devices
            .iter()
            .map(|device| device.name.as_str())
            .collect();
        assert_eq!(names, ["0", "1", "GPU-0", "all"]);
        assert_eq!(
            paths(&spec.devices[3].container_edits),
            ["/dev/nvidia0", "/dev/nvidia1"]
        );
        assert_eq!(spec.devices[3].container_edits.additional_gids, [44]);
        let before = spec.clone();
        add_all(&mut spec);
        assert_eq!(spec, before);
        let mut empty = Spec::default();
        add_all(&mut empty);
        assert_eq!(empty.devices, []);
    }
}
