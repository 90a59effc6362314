//! Names of partitions from before driver 470: GPU, GPU instance and compute instance.

use std::fmt;

use fleet_cdi::QualifiedName;

const START: &str = "MIG-";

/// `MIG-GPU-<uuid>/<GPU instance>/<compute instance>`.
///
/// A CDI name holds no slash: in the name of a request colons stand in their place, until the host tells which device it
/// is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldMig<'a> {
    /// UUID of the GPU, `GPU-…`.
    pub gpu: &'a str,
    /// Number of the GPU instance.
    pub gpu_instance: u32,
    /// Number of the compute instance in it.
    pub compute_instance: u32,
}

impl<'a> OldMig<'a> {
    /// The partition that a device of a request means, if the device has such a name.
    #[must_use]
    pub fn of(name: &'a QualifiedName) -> Option<Self> {
        Self::split(name.name(), ':')
    }

    /// As users write it.
    pub(super) fn written(id: &'a str) -> Option<Self> {
        Self::split(id, '/')
    }

    fn split(text: &'a str, between: char) -> Option<Self> {
        let number = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_plain)
        };
        let mut parts = text.strip_prefix(START)?.split(between);
        let found = Self {
            gpu: parts.next().filter(|gpu| gpu.starts_with("GPU-"))?,
            gpu_instance: number(parts.next()?)?,
            compute_instance: number(parts.next()?)?,
        };
        parts.next().is_none().then_some(found)
    }
}

impl fmt::Display for OldMig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            gpu,
            gpu_instance,
            compute_instance,
        } = self;
        write!(f, "{START}{gpu}:{gpu_instance}:{compute_instance}")
    }
}

/// Whether an id is meant to be such a name: a slash in a name of MIG has no other meaning.
pub(super) fn is_meant(id: &str) -> bool {
    id.starts_with("MIG-GPU-") && id.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpu_and_both_instances() {
        let name = "MIG-GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c";
        let text = format!("{name}/7/0");
        let old = OldMig::written(&text).unwrap();
        assert_eq!(
            (old.gpu, old.gpu_instance, old.compute_instance),
            (&name[4..], 7, 0)
        );
        let legal: QualifiedName = format!("nvidia.com/gpu={old}").parse().unwrap();
        assert_eq!(OldMig::of(&legal), Some(old));
        for other in [
            "",
            "/7",
            "/7/0/0",
            "/7/x",
            "/7/-1",
            "/+7/0",
            "//0",
            "/99999999999/0",
        ] {
            assert_eq!(OldMig::written(&format!("{name}{other}")), None, "{other}");
        }
        assert_eq!(OldMig::written("MIG-4cf8db2d/7/0"), None);
        for other in ["0:1", "MIG-4cf8db2d-06c0-7d70", "all"] {
            let name = format!("nvidia.com/gpu={other}").parse().unwrap();
            assert_eq!(OldMig::of(&name), None, "{other}");
        }
    }
}
