//! What the container's own spec says about it: its environment, its privileges, who made it.

use serde_json::Value;

use crate::spec;

/// Start of the variables in which Docker states a swarm's generic resources.
pub(crate) const SWARM_PREFIX: &str = "DOCKER_RESOURCE_";
/// The variable by which an image or a user asks for GPUs.
pub(crate) const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";

/// Presence tells the CRI of CRI-O and of containerd; Podman sets neither, and no annotation of a pod can take
/// them away again.
const CRI_MARKS: [&str; 2] = [
    "io.kubernetes.cri-o.SandboxName",
    "io.kubernetes.cri.sandbox-id",
];
const SANDBOX_MARKS: [&str; 2] = [
    "io.kubernetes.cri-o.ContainerType",
    "io.kubernetes.cri.container-type",
];

/// The value of an environment variable. Of duplicates the last one counts, and an entry without `=` is passed over.
pub(crate) fn env<'a>(spec: &'a Value, name: &str) -> Option<&'a str> {
    let entries = spec::list(spec, "/process/env").iter().rev();
    entries
        .filter_map(Value::as_str)
        .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// Whether the container has `CAP_SYS_ADMIN` within its reach; the image cannot give itself that.
pub(crate) fn is_privileged(spec: &Value) -> bool {
    let bounding = spec::list(spec, "/process/capabilities/bounding");
    bounding.iter().any(|name| name == "CAP_SYS_ADMIN")
}

/// Whether a Kubernetes CRI server made the container.
pub(crate) fn is_made_by_cri(spec: &Value) -> bool {
    CRI_MARKS.iter().any(|mark| {
        spec.get("annotations")
            .and_then(|map| map.get(*mark))
            .is_some()
    })
}

/// Whether this is a pod's sandbox ("pause") container.
pub(crate) fn is_sandbox(spec: &Value) -> bool {
    let annotations = spec.get("annotations");
    SANDBOX_MARKS.iter().any(|mark| {
        annotations
            .and_then(|map| map.get(*mark))
            .is_some_and(|value| value == "sandbox")
    })
}

/// An image of the time before `NVIDIA_VISIBLE_DEVICES`: it names its CUDA version and expects every GPU.
pub(crate) fn is_legacy_cuda(spec: &Value) -> bool {
    env(spec, "CUDA_VERSION").is_some_and(|value| !value.is_empty())
        && env(spec, "NVIDIA_REQUIRE_CUDA").is_none_or(str::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_duplicate_counts() {
        let spec = json!({"process": {"env": ["A=1", "A", "AB=3", "A=2=x", 7, "=y", "B="]}});
        for (name, want) in [
            ("A", Some("2=x")),
            ("AB", Some("3")),
            ("B", Some("")),
            ("C", None),
        ] {
            assert_eq!(env(&spec, name), want, "{name}");
        }
        assert_eq!(env(&json!({}), "A"), None);
        assert_eq!(env(&json!({"process": {"env": null}}), "A"), None);
    }

    #[test]
    fn privilege_is_the_bounding_set() {
        let with = |set: &str, cap: &str| json!({"process": {"capabilities": {set: [cap]}}});
        assert!(is_privileged(&with("bounding", "CAP_SYS_ADMIN")));
        assert!(!is_privileged(&with("effective", "CAP_SYS_ADMIN")));
        assert!(!is_privileged(&with("bounding", "CAP_CHOWN")));
        assert!(!is_privileged(&json!({})));
    }

    #[test]
    fn legacy_images_state_a_version_and_no_requirement() {
        let with = |env: &[&str]| json!({"process": {"env": env}});
        assert!(is_legacy_cuda(&with(&["CUDA_VERSION=8.0"])));
        assert!(is_legacy_cuda(&with(&[
            "CUDA_VERSION=8.0",
            "NVIDIA_REQUIRE_CUDA="
        ])));
        assert!(!is_legacy_cuda(&with(&[
            "CUDA_VERSION=12.4",
            "NVIDIA_REQUIRE_CUDA=cuda>=12.4"
        ])));
        assert!(!is_legacy_cuda(&with(&["PATH=/bin"])));
    }

    #[test]
    fn sandboxes_and_cri_are_told_by_their_marks() {
        let with = |key: &str, value: &str| json!({"annotations": {key: value}});
        assert!(is_sandbox(&with(
            "io.kubernetes.cri-o.ContainerType",
            "sandbox"
        )));
        assert!(is_sandbox(&with(
            "io.kubernetes.cri.container-type",
            "sandbox"
        )));
        assert!(!is_sandbox(&with(
            "io.kubernetes.cri.container-type",
            "container"
        )));
        assert!(is_made_by_cri(&with(
            "io.kubernetes.cri-o.SandboxName",
            "k8s_x"
        )));
        // Podman before 5 wrote CRI-O's container type too.
        assert!(!is_made_by_cri(&with(
            "io.kubernetes.cri-o.ContainerType",
            "container"
        )));
    }
}
