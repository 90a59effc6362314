//! Spec versions, and the lowest one that content needs (CDI SPEC 1.1.0, "Released versions").

use std::fmt;

use crate::model::{ContainerEdits, Spec};

/// A released version of the CDI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u8, u8);

const KNOWN: [Version; 10] = [
    Version(0, 1),
    Version(0, 2),
    Version(0, 3),
    Version(0, 4),
    Version(0, 5),
    Version(0, 6),
    Version(0, 7),
    Version(0, 8),
    Version(1, 0),
    Version(1, 1),
];

impl Version {
    /// The lowest that is still read.
    pub const V0_3: Self = Self(0, 3);
    /// Mount types.
    pub const V0_4: Self = Self(0, 4);
    /// Host paths of devices, device names that begin with a digit.
    pub const V0_5: Self = Self(0, 5);
    /// Annotations, dots in the class.
    pub const V0_6: Self = Self(0, 6);
    /// Intel RDT, additional groups.
    pub const V0_7: Self = Self(0, 7);
    /// Network devices, RDT schemata and monitoring.
    pub const V1_1: Self = Self(1, 1);

    /// Reads `1.0.0` or `v1.0.0`; only released versions are known.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        KNOWN
            .into_iter()
            .find(|version| version.to_string() == text)
    }

    /// The lowest version that can express this spec.
    #[must_use]
    pub fn needed(spec: &Spec) -> Self {
        let class_has_dot = spec
            .kind
            .split_once('/')
            .is_some_and(|(_, class)| class.contains('.'));
        let mut needed = if !spec.annotations.is_empty() || class_has_dot {
            Self::V0_6
        } else {
            Self::V0_3
        };
        needed = needed.max(of_edits(&spec.container_edits));
        for device in &spec.devices {
            if device.name.starts_with(|c: char| c.is_ascii_digit()) {
                needed = needed.max(Self::V0_5);
            }
            if !device.annotations.is_empty() {
                needed = needed.max(Self::V0_6);
            }
            needed = needed.max(of_edits(&device.container_edits));
        }
        needed
    }
}

fn of_edits(edits: &ContainerEdits) -> Version {
    let rdt = edits.intel_rdt.as_ref();
    if !edits.net_devices.is_empty()
        || rdt.is_some_and(|r| !r.schemata.is_empty() || r.enable_monitoring == Some(true))
    {
        return Version::V1_1;
    }
    if rdt.is_some() || !edits.additional_gids.is_empty() {
        return Version::V0_7;
    }
    if edits
        .device_nodes
        .iter()
        .any(|node| node.host_path.as_deref().is_some_and(|p| !p.is_empty()))
    {
        return Version::V0_5;
    }
    if edits
        .mounts
        .iter()
        .any(|mount| mount.mount_type.as_deref().is_some_and(|t| !t.is_empty()))
    {
        return Version::V0_4;
    }
    Version::V0_3
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Format, parse};

    #[test]
    fn spellings() {
        assert_eq!(Version::parse("v0.5.0"), Some(Version::V0_5));
        for bad in ["", "0.5", "0.5.1", "1.2.0", "vv1.0.0", "1.0.0 ", "V1.0.0"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_needs_what() {
        let spec = |kind: &str, name: &str, global: &str, edits: &str| {
            let text = format!(
                r#"{{"cdiVersion":"1.1.0","kind":"{kind}","containerEdits":{{{global}}},"devices":[{{"name":"{name}","containerEdits":{{{edits}}}}}]}}"#
            );
            Version::needed(&parse(text.as_bytes(), Format::Json).unwrap())
        };
        let env = r#""env":["A=b"]"#;
        let cases = [
            ("v/c", "d", "", env, Version::V0_3),
            (
                "v/c",
                "d",
                "",
                r#""mounts":[{"hostPath":"/a","containerPath":"/a","type":"tmpfs"}]"#,
                Version::V0_4,
            ),
            ("v/c", "0", "", env, Version::V0_5),
            (
                "v/c",
                "d",
                "",
                r#""deviceNodes":[{"path":"/dev/a","hostPath":"/x/a"}]"#,
                Version::V0_5,
            ),
            ("v/c.e", "d", "", env, Version::V0_6),
            ("v/c", "d", r#""additionalGids":[5]"#, env, Version::V0_7),
            (
                "v/c",
                "d",
                "",
                r#""intelRdt":{"closID":"a"}"#,
                Version::V0_7,
            ),
            (
                "v/c",
                "d",
                "",
                r#""intelRdt":{"schemata":["a"]}"#,
                Version::V1_1,
            ),
            (
                "v/c",
                "d",
                "",
                r#""netDevices":[{"hostInterfaceName":"a","name":"b"}]"#,
                Version::V1_1,
            ),
        ];
        for (kind, name, global, edits, want) in cases {
            assert_eq!(
                spec(kind, name, global, edits),
                want,
                "{kind} {name} {edits}"
            );
        }
    }
}
