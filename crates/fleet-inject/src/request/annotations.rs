//! CDI names in annotations (CDI SPEC 1.1.0, "Requesting devices"; Kubernetes' `cdi.k8s.io/`).

use serde_json::Value;

use super::{RequestError, RequestOutcome, Source, Wanted, names, within_limit};
use crate::policy::Policy;
use crate::spec;

const USUAL_PREFIX: &str = "cdi.k8s.io/";

/// Under any policy: the usual prefix, or a value of the shape `vendor/class=…` for a prefix that only the
/// configuration knows.
pub(super) fn may_ask(spec: &Value) -> bool {
    spec::annotations(spec)
        .any(|(key, value)| key.starts_with(USUAL_PREFIX) || looks_like_names(value))
}

fn looks_like_names(value: &str) -> bool {
    const LONGEST_KIND: usize = 512;
    let start = value
        .as_bytes()
        .get(..LONGEST_KIND)
        .unwrap_or(value.as_bytes());
    let kind = start
        .iter()
        .position(|byte| *byte == b'=')
        .and_then(|end| start.get(..end));
    kind.is_some_and(|kind| {
        kind.contains(&b'/')
            && kind
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(byte))
    })
}

pub(super) fn read(
    spec: &Value,
    policy: &Policy,
    outcome: &mut RequestOutcome,
) -> Result<Wanted, RequestError> {
    let is_ours = |key: &str| {
        policy
            .annotation_prefixes
            .iter()
            .any(|prefix| key.starts_with(prefix.as_str()))
    };
    let mut found: Vec<_> = spec::annotations(spec)
        .filter(|(key, _)| is_ours(key))
        .collect();
    // A JSON object has no order, and the order of devices shows in the container.
    found.sort_unstable();
    let mut wanted = Wanted::default();
    for (key, value) in found {
        let source = Source::Annotation(key.to_owned());
        if !policy.sources.cdi_annotations {
            outcome.refuse(source, value, "sources.cdi-annotations");
            continue;
        }
        within_limit(value, &source)?;
        let items: Vec<&str> = value.split(',').collect();
        let devices = names::annotated(&items, &policy.default_kind, &source)?;
        wanted.devices.extend(devices);
    }
    Ok(wanted)
}
