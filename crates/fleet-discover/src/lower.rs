//! The CDI version: the lowest that holds the content, and content for readers of an older one.

use fleet_cdi::{Spec, Version};

use crate::error::DiscoverError;

/// Declares the lowest version that can express the spec. With `newest`, what a reader of that version does not know is
/// left out first; what was is told, one sentence each.
pub(crate) fn set_version(
    spec: &mut Spec,
    newest: Option<Version>,
) -> Result<Vec<String>, DiscoverError> {
    let mut lost = Vec::new();
    if let Some(newest) = newest {
        lower(spec, newest, &mut lost)?;
    }
    spec.cdi_version = Version::needed(spec).to_string();
    Ok(lost)
}

fn lower(spec: &mut Spec, newest: Version, lost: &mut Vec<String>) -> Result<(), DiscoverError> {
    if newest < Version::V0_7 {
        drop_groups(spec, lost);
    }
    if newest < Version::V0_6 {
        drop_annotations(spec, lost);
    }
    if newest < Version::V0_5 {
        drop_host_paths(spec);
        drop_digits(spec, lost);
    }
    let needed = Version::needed(spec);
    if spec.devices.is_empty() || needed > newest {
        return Err(DiscoverError::TooNew {
            newest: newest.to_string(),
            why: cause(spec, newest),
        });
    }
    Ok(())
}

fn cause(spec: &Spec, newest: Version) -> String {
    let class = spec.kind.split_once('/').map_or("", |(_, class)| class);
    if spec.devices.is_empty() {
        return "every device has a name that begins with a digit; hint: --device-name-strategy uuid or type-index".to_owned();
    }
    if newest < Version::V0_6 && class.contains('.') {
        return format!("the class `{class}` has a dot; hint: --class");
    }
    let edits = spec.devices.iter().map(|device| &device.container_edits);
    let mut nodes = edits
        .chain([&spec.container_edits])
        .flat_map(|edits| &edits.device_nodes);
    match nodes.find(|node| node.host_path.is_some()) {
        Some(node) => format!(
            "device node {} lies elsewhere on the host, which CDI can say since 0.5.0",
            node.path
        ),
        None => format!("it needs {}", Version::needed(spec)),
    }
}

fn drop_groups(spec: &mut Spec, lost: &mut Vec<String>) {
    let mut groups = Vec::new();
    let devices = spec
        .devices
        .iter_mut()
        .map(|device| &mut device.container_edits);
    for edits in devices.chain([&mut spec.container_edits]) {
        groups.append(&mut edits.additional_gids);
    }
    groups.sort_unstable();
    groups.dedup();
    if !groups.is_empty() {
        let groups: Vec<_> = groups.iter().map(ToString::to_string).collect();
        lost.push(format!(
            "supplementary groups {} are not in the spec: other users than root need --group-add for /dev/dri",
            groups.join(", ")
        ));
    }
}

fn drop_annotations(spec: &mut Spec, lost: &mut Vec<String>) {
    let on_devices = spec
        .devices
        .iter()
        .any(|device| !device.annotations.is_empty());
    if on_devices || !spec.annotations.is_empty() {
        lost.push("annotations are not in the spec".to_owned());
    }
    spec.annotations.clear();
    for device in &mut spec.devices {
        device.annotations.clear();
    }
}

fn drop_host_paths(spec: &mut Spec) {
    let devices = spec
        .devices
        .iter_mut()
        .map(|device| &mut device.container_edits);
    for edits in devices.chain([&mut spec.container_edits]) {
        for node in &mut edits.device_nodes {
            if node.host_path.as_ref() == Some(&node.path) {
                node.host_path = None;
            }
        }
    }
}

fn drop_digits(spec: &mut Spec, lost: &mut Vec<String>) {
    let digit = |name: &str| name.starts_with(|first: char| first.is_ascii_digit());
    let names = spec.devices.iter().map(|device| device.name.as_str());
    let names: Vec<_> = names.filter(|name| digit(name)).collect();
    if !names.is_empty() {
        lost.push(format!(
            "devices {} are not in the spec: names that begin with a digit are known since CDI 0.5.0",
            names.join(", ")
        ));
    }
    spec.devices.retain(|device| !digit(&device.name));
}

#[cfg(test)]
mod tests {
    use fleet_cdi::{ContainerEdits, Device, DeviceNode};

    use super::*;

    fn spec(names: &[&str]) -> Spec {
        let node = DeviceNode {
            path: "/dev/nvidia0".to_owned(),
            ..DeviceNode::default()
        };
        let device = |name: &&str| Device {
            name: (*name).to_owned(),
            container_edits: ContainerEdits {
                device_nodes: vec![node.clone()],
                additional_gids: vec![44],
                ..ContainerEdits::default()
            },
            ..Device::default()
        };
        let mut spec = Spec {
            kind: "nvidia.com/gpu".to_owned(),
            devices: names.iter().map(device).collect(),
            ..Spec::default()
        };
        spec.annotations.insert("a/b".to_owned(), "c".to_owned());
        spec
    }

    fn lowered(mut spec: Spec, newest: &str) -> Result<(Spec, Vec<String>), String> {
        let lost = set_version(&mut spec, Version::parse(newest)).map_err(|err| err.to_string())?;
        spec.validate().unwrap();
        Ok((spec, lost))
    }

    #[test]
    fn the_lowest_version_is_declared() {
        let mut spec = spec(&["0"]);
        assert_eq!(set_version(&mut spec, None).unwrap(), [""; 0]);
        assert_eq!(spec.cdi_version, "0.7.0");
        let (lower, lost) = lowered(spec, "1.1.0").unwrap();
        assert_eq!(
            (lower.cdi_version.as_str(), lost.len()),
            ("0.7.0", 0),
            "1.1.0 is allowed, not needed"
        );
    }

    #[test]
    fn older_readers_get_less_and_are_told_so() {
        let (got, lost) = lowered(spec(&["0", "all"]), "0.6.0").unwrap();
        assert_eq!(got.cdi_version, "0.6.0");
        assert_eq!(lost.len(), 1, "{lost:?}");
        assert!(
            lost[0].starts_with("supplementary groups 44 are"),
            "{lost:?}"
        );
        let (got, lost) = lowered(spec(&["0", "all"]), "0.5.0").unwrap();
        assert_eq!((got.cdi_version.as_str(), lost.len()), ("0.5.0", 2));
        assert!(got.annotations.is_empty());
        let (got, lost) = lowered(spec(&["0", "GPU-0", "all"]), "0.3.0").unwrap();
        assert_eq!((got.cdi_version.as_str(), lost.len()), ("0.3.0", 3));
        assert_eq!(got.devices.len(), 2);
        // As channels of IMEX have it.
        let mut same = spec(&["a"]);
        same.devices[0].container_edits.device_nodes[0].host_path = Some("/dev/nvidia0".to_owned());
        let (got, _) = lowered(same, "0.4.0").unwrap();
        assert_eq!(got.cdi_version, "0.3.0");
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let err = lowered(spec(&["0"]), "0.4.0").unwrap_err();
        assert!(
            err.contains("begins with a digit; hint: --device-name-strategy"),
            "{err}"
        );
        let mut dotted = spec(&["a"]);
        dotted.kind = "nvidia.com/gpu.coherent".to_owned();
        let err = lowered(dotted, "0.5.0").unwrap_err();
        assert!(err.contains("`gpu.coherent` has a dot"), "{err}");
        let mut elsewhere = spec(&["a"]);
        elsewhere.devices[0].container_edits.device_nodes[0].host_path =
            Some("/x/nvidia0".to_owned());
        let err = lowered(elsewhere.clone(), "0.4.0").unwrap_err();
        assert!(err.contains("/dev/nvidia0 lies elsewhere"), "{err}");
        assert_eq!(lowered(elsewhere, "0.5.0").unwrap().0.cdi_version, "0.5.0");
    }
}
