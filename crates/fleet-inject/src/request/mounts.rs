//! Devices asked for by mounting `/dev/null` below a directory of NVIDIA's: a pod without the right to mount host
//! paths cannot forge it.

use serde_json::Value;

use super::{RequestError, RequestOutcome, Source, Wanted, names};
use crate::policy::Policy;
use crate::spec;

const ROOT: &str = "/var/run/nvidia-container-devices/";
const IMEX: &str = "imex/";

pub(super) fn may_ask(spec: &Value) -> bool {
    requests(spec).next().is_some()
}

/// Destinations of the mounts that ask, and what follows the directory in them.
fn requests(spec: &Value) -> impl Iterator<Item = (&str, &str)> {
    let asks = spec::list(spec, "/mounts")
        .iter()
        .filter(|mount| spec::text(mount, "source") == "/dev/null");
    asks.filter_map(|mount| {
        let destination = spec::text(mount, "destination");
        let id = destination.strip_prefix(ROOT)?.trim_matches('/');
        (!id.is_empty()).then_some((destination, id))
    })
}

pub(super) fn read(
    spec: &Value,
    policy: &Policy,
    outcome: &mut RequestOutcome,
) -> Result<Wanted, RequestError> {
    let mut list = Vec::new();
    for (destination, id) in requests(spec) {
        let source = Source::VolumeMount(destination.to_owned());
        if !policy.sources.volume_mounts {
            outcome.refuse(source, id, "sources.volume-mounts");
        } else if id.starts_with(IMEX) {
            // Read with what else a container wants beside its GPUs.
        } else {
            list.push((cdi_name(id).unwrap_or_else(|| id.to_owned()), source));
        }
    }
    let list: Vec<_> = list
        .iter()
        .map(|(id, source)| (id.as_str(), source.clone()))
        .collect();
    names::visible(&list, &policy.default_kind)
}

/// Ids of IMEX channels, where the policy accepts mounts.
pub(super) fn imex(spec: &Value, policy: &Policy) -> Vec<(String, Source)> {
    let accepted = policy.sources.volume_mounts;
    let asked = requests(spec).filter(|_| accepted);
    asked
        .filter_map(|(destination, id)| {
            let source = Source::VolumeMount(destination.to_owned());
            Some((id.strip_prefix(IMEX)?.to_owned(), source))
        })
        .collect()
}

/// `cdi/vendor/class/device`, as well as `cdi/vendor/class=device`.
fn cdi_name(id: &str) -> Option<String> {
    let name = id.strip_prefix("cdi/")?;
    if name.contains('=') {
        return Some(name.to_owned());
    }
    let (vendor, rest) = name.split_once('/')?;
    let (class, device) = rest.split_once('/')?;
    Some(format!("{vendor}/{class}={device}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_cdi_mount_are_read() {
        let cases = [
            ("cdi/nvidia.com/gpu/0", Some("nvidia.com/gpu=0")),
            ("cdi/nvidia.com/gpu=0", Some("nvidia.com/gpu=0")),
            ("cdi/nvidia.com/gpu", None),
            ("0", None),
        ];
        for (id, want) in cases {
            assert_eq!(cdi_name(id).as_deref(), want, "{id}");
        }
    }
}
