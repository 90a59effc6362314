//! Spec versions, and the lowest one that content needs (CDI SPEC 1.1.0, "Released versions").

use std::fmt;

use crate::model::{ContainerEdits, Spec};

/// A released version of the CDI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u8, u8);

/// Every released version, ascending.
pub(crate) const KNOWN: [Version; 10] = [
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
        for known in ["0.1.0", "0.2.0", "0.8.0", "1.0.0", "1.1.0"] {
            assert_eq!(Version::parse(known).unwrap().to_string(), known);
        }
        for bad in ["", "0.5", "0.5.1", "1.2.0", "vv1.0.0", "1.0.0 ", "V1.0.0"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    fn needed(kind: &str, device: &str, around: &str) -> Version {
        let text = format!(
            r#"{{"cdiVersion":"1.1.0","kind":"{kind}",{around}"devices":[{{"name":"z","containerEdits":{{"env":["A=b"]}}}},{device}]}}"#
        );
        Version::needed(&parse(text.as_bytes(), Format::Json).unwrap())
    }

    #[test]
    fn what_edits_need() {
        let cases = [
            (r#""env":["A=b"]"#, Version::V0_3),
            (
                r#""mounts":[{"hostPath":"/a","containerPath":"/a"}]"#,
                Version::V0_3,
            ),
            (
                r#""mounts":[{"hostPath":"/a","containerPath":"/a","type":"tmpfs"}]"#,
                Version::V0_4,
            ),
            (r#""deviceNodes":[{"path":"/dev/a"}]"#, Version::V0_3),
            (
                r#""deviceNodes":[{"path":"/dev/a","hostPath":"/x/a"}]"#,
                Version::V0_5,
            ),
            (r#""additionalGids":[5]"#, Version::V0_7),
            (r#""intelRdt":{}"#, Version::V0_7),
            (
                r#""intelRdt":{"closID":"a","enableMonitoring":false}"#,
                Version::V0_7,
            ),
            (r#""intelRdt":{"schemata":["a"]}"#, Version::V1_1),
            (r#""intelRdt":{"enableMonitoring":true}"#, Version::V1_1),
            (
                r#""netDevices":[{"hostInterfaceName":"a","name":"b"}]"#,
                Version::V1_1,
            ),
        ];
        for (edits, want) in cases {
            let device = format!(r#"{{"name":"d","containerEdits":{{{edits}}}}}"#);
            assert_eq!(needed("v/c", &device, ""), want, "{edits}");
            let plain = r#"{"name":"d","containerEdits":{"env":["A=b"]}}"#;
            let global = format!(r#""containerEdits":{{{edits}}},"#);
            assert_eq!(needed("v/c", plain, &global), want, "global {edits}");
        }
    }

    #[test]
    fn what_names_and_annotations_need() {
        let device = |name: &str, annotations: &str| {
            format!(
                r#"{{"name":"{name}","annotations":{annotations},"containerEdits":{{"env":["A=b"]}}}}"#
            )
        };
        let cases = [
            ("v.com/c", "d", "{}", "", Version::V0_3),
            ("v/c", "0", "{}", "", Version::V0_5),
            ("v/c.e", "d", "{}", "", Version::V0_6),
            ("v/c", "d", r#"{"a":"b"}"#, "", Version::V0_6),
            (
                "v/c",
                "d",
                "{}",
                r#""annotations":{"a":"b"},"#,
                Version::V0_6,
            ),
            ("v/c", "d", "{}", r#""annotations":{},"#, Version::V0_3),
        ];
        for (kind, name, annotations, around, want) in cases {
            let got = needed(kind, &device(name, annotations), around);
            assert_eq!(got, want, "{kind} {name} {annotations} {around}");
        }
    }
}
