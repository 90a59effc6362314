//! What in a spec not every reader knows, part by part (CDI SPEC 1.1.0, "Released versions").

use crate::model::{ContainerEdits, Spec};
use crate::version::Version;

/// A part of a spec and the version that brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// A reader of an older version refuses the file.
    pub version: Version,
    /// Which part, such as `additionalGids of device "0"`.
    pub what: String,
}

impl Spec {
    /// Every part that needs more than the first version, in the order of the file. The highest of their versions is
    /// [`Version::needed`].
    #[must_use]
    pub fn needs(&self) -> Vec<Need> {
        let mut needs = Needs(Vec::new());
        let class = self.kind.split_once('/').map_or("", |(_, class)| class);
        needs.add(class.contains('.'), Version::V0_6, || {
            format!("the dot in the class of \"{}\"", self.kind)
        });
        needs.add(!self.annotations.is_empty(), Version::V0_6, || {
            "annotations".to_owned()
        });
        needs.edits(&self.container_edits, "the common edits");
        for device in &self.devices {
            let of = format!("device \"{}\"", device.name);
            let has_digit = device.name.starts_with(|c: char| c.is_ascii_digit());
            needs.add(has_digit, Version::V0_5, || {
                format!("the name of {of}, which begins with a digit")
            });
            needs.add(!device.annotations.is_empty(), Version::V0_6, || {
                format!("annotations of {of}")
            });
            needs.edits(&device.container_edits, &of);
        }
        needs.0
    }
}

struct Needs(Vec<Need>);

impl Needs {
    fn add(&mut self, is_there: bool, version: Version, what: impl Fn() -> String) {
        if is_there {
            let what = what();
            self.0.push(Need { version, what });
        }
    }

    fn edits(&mut self, edits: &ContainerEdits, of: &str) {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let rdt = edits.intel_rdt.as_ref();
        let parts = [
            (
                edits.mounts.iter().any(|mount| given(&mount.mount_type)),
                Version::V0_4,
                "a mount type",
            ),
            (
                edits.device_nodes.iter().any(|node| given(&node.host_path)),
                Version::V0_5,
                "hostPath of a device node",
            ),
            (
                !edits.additional_gids.is_empty(),
                Version::V0_7,
                "additionalGids",
            ),
            (rdt.is_some(), Version::V0_7, "intelRdt"),
            (!edits.net_devices.is_empty(), Version::V1_1, "netDevices"),
            (
                rdt.is_some_and(|rdt| !rdt.schemata.is_empty()),
                Version::V1_1,
                "intelRdt.schemata",
            ),
            (
                rdt.is_some_and(|rdt| rdt.enable_monitoring == Some(true)),
                Version::V1_1,
                "intelRdt.enableMonitoring",
            ),
        ];
        for (is_there, version, part) in parts {
            self.add(is_there, version, || format!("{part} of {of}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use crate::model::DeviceNode;

    #[test]
    fn the_highest_need_is_the_lowest_version() {
        for seed in 0..500 {
            let mut dice = Dice::new(seed);
            let mut spec = dice.spec();
            match dice.below(4) {
                0 => spec.kind = "vendor.example/dev.x".to_owned(),
                1 => spec.container_edits = ContainerEdits::default(),
                2 => spec.annotations.clear(),
                _ => spec.devices.truncate(1),
            }
            let highest = spec.needs().iter().map(|need| need.version).max();
            let want = Version::needed(&spec);
            assert_eq!(highest.unwrap_or(Version::V0_3), want, "seed {seed}");
        }
    }

    /// The table of the specification, part by part.
    #[test]
    fn each_part_needs_the_version_that_brought_it() {
        let needed = |head: &str, edits: &str| {
            let text = format!(
                "cdiVersion: 1.1.0\n{head}\ndevices:\n- name: x\n  containerEdits: {edits}\n"
            );
            let spec = crate::parse(text.as_bytes(), crate::Format::Yaml).unwrap();
            let told = spec.needs().iter().map(|need| need.version).max();
            assert_eq!(
                told.unwrap_or(Version::V0_3),
                Version::needed(&spec),
                "{text}"
            );
            Version::needed(&spec).to_string()
        };
        let plain = "{env: [A=1]}";
        assert_eq!(needed("kind: a.com/b", plain), "0.3.0");
        assert_eq!(needed("kind: a.com/b.c", plain), "0.6.0");
        assert_eq!(needed("kind: a.com/b\nannotations: {k: v}", plain), "0.6.0");
        for (edits, want) in [
            ("{mounts: [{hostPath: /a, containerPath: /b}]}", "0.3.0"),
            (
                "{mounts: [{hostPath: a, containerPath: /b, type: tmpfs}]}",
                "0.4.0",
            ),
            ("{deviceNodes: [{path: /dev/x, hostPath: /dev/y}]}", "0.5.0"),
            ("{env: [A=1], additionalGids: [44]}", "0.7.0"),
            ("{netDevices: [{hostInterfaceName: a, name: b}]}", "1.1.0"),
        ] {
            assert_eq!(needed("kind: a.com/b", edits), want, "{edits}");
        }
    }

    #[test]
    fn parts_are_named_with_their_device() {
        let spec = crate::parse(
            b"cdiVersion: 0.7.0\nkind: a.com/b\ndevices:\n- name: \"0\"\n  containerEdits:\n    additionalGids: [44]\n    deviceNodes: [{path: /dev/x}]\n",
            crate::Format::Yaml,
        )
        .unwrap();
        let needs = |spec: &Spec| -> Vec<String> {
            spec.needs()
                .iter()
                .map(|need| format!("{} {}", need.version, need.what))
                .collect()
        };
        let want = [
            "0.5.0 the name of device \"0\", which begins with a digit",
            "0.7.0 additionalGids of device \"0\"",
        ];
        assert_eq!(needs(&spec), want);
        let mut plain = spec.clone();
        plain.devices[0].name = "x".to_owned();
        plain.devices[0].container_edits.additional_gids.clear();
        assert_eq!(needs(&plain), [""; 0]);
        let node = DeviceNode {
            host_path: Some("/h".to_owned()),
            ..DeviceNode::default()
        };
        plain.container_edits.device_nodes.push(node);
        assert_eq!(
            needs(&plain),
            ["0.5.0 hostPath of a device node of the common edits"]
        );
    }
}
