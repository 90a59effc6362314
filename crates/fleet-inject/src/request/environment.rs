//! Devices asked for by environment variable. An image sets these by itself, so a policy may demand privileges.

use serde_json::Value;

use super::{RequestError, RequestOutcome, Source, Wanted, names, within_limit};
use crate::image::{self, SWARM_PREFIX, VISIBLE_DEVICES};
use crate::policy::Policy;
use crate::spec;

pub(super) fn may_ask(spec: &Value) -> bool {
    let swarm = || {
        let mut entries = spec::list(spec, "/process/env")
            .iter()
            .filter_map(Value::as_str);
        entries.any(|entry| entry.starts_with(SWARM_PREFIX))
    };
    match image::env(spec, VISIBLE_DEVICES) {
        Some(value) => asks(value) || swarm(),
        None => image::is_legacy_cuda(spec) || swarm(),
    }
}

pub(super) fn items(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

fn asks(value: &str) -> bool {
    let mut some = false;
    items(value).all(|item| {
        some = true;
        item != "void"
    }) && some
}

pub(super) fn read(
    spec: &Value,
    policy: &Policy,
    outcome: &mut RequestOutcome,
) -> Result<Wanted, RequestError> {
    let values = values(spec, policy);
    let asking: Vec<_> = values
        .iter()
        .filter(|(value, _)| items(value).next().is_some())
        .collect();
    if asking.is_empty() || asking.iter().any(|(value, _)| !asks(value)) {
        return Ok(Wanted::default());
    }
    if let Some(setting) = refused_by(spec, policy) {
        for (value, source) in asking {
            outcome.refuse(source.clone(), value, setting);
        }
        return Ok(Wanted::default());
    }
    let mut list = Vec::new();
    for (value, source) in asking {
        within_limit(value, source)?;
        list.extend(items(value).map(|item| (item, source.clone())));
    }
    names::visible(&list, &policy.default_kind)
}

fn values<'a>(spec: &'a Value, policy: &Policy) -> Vec<(&'a str, Source)> {
    let set = |name: &str| {
        Some((
            image::env(spec, name)?,
            Source::Environment(name.to_owned()),
        ))
    };
    let swarm: Vec<_> = policy
        .swarm_resource
        .iter()
        .filter_map(|name| set(name))
        .collect();
    if !swarm.is_empty() {
        return swarm;
    }
    match set(VISIBLE_DEVICES) {
        Some(value) => vec![value],
        None if image::is_legacy_cuda(spec) => vec![("all", Source::LegacyImage)],
        None => Vec::new(),
    }
}

/// The setting that refuses what this container's environment asks for.
pub(super) fn refused_by(spec: &Value, policy: &Policy) -> Option<&'static str> {
    if !policy.sources.environment {
        return Some("sources.environment");
    }
    let accepted = policy.accepts_unprivileged_environment(image::is_made_by_cri(spec))
        || image::is_privileged(spec);
    (!accepted).then_some("sources.environment-unprivileged")
}
