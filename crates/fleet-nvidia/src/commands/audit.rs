//! The audit trail of a container's life. Without one in its record nothing is done here.

use std::path::Path;

use chrono::{SecondsFormat, Utc};
use fleet_host::{EventKind, HostRoot, InjectError, Outcome, Subject, Trail};
use fleet_lifecycle::Error;
use fleet_lifecycle::delete::delete;
use fleet_lifecycle::record::Container;
use serde_json::Value;

use super::{Context, inject};

/// Whom the container is made for; its spec has the devices by now.
pub(super) fn trail(
    context: &Context,
    id: &str,
    bundle: &Path,
    spec: &Value,
    outcome: &Outcome,
) -> Option<Trail> {
    if !outcome.audit.is_on() {
        return None;
    }
    let mut subject = subject(context, id, bundle, spec);
    subject.devices.clone_from(&outcome.granted);
    Trail::new(&outcome.audit, subject)
}

fn subject(context: &Context, id: &str, bundle: &Path, spec: &Value) -> Subject {
    Subject {
        container: id.to_owned(),
        bundle: bundle.to_path_buf(),
        uid: context.who.euid,
        labels: fleet_host::labels(spec),
        devices: Vec::new(),
    }
}

/// The container is there. One that cannot be written down goes again.
pub(super) fn created(
    context: &Context,
    container: &Container,
    trail: Option<&Trail>,
    outcome: &Outcome,
) -> Result<(), Error> {
    let Some(trail) = trail else { return Ok(()) };
    let time = now();
    let denied = match outcome.refused.is_empty() {
        true => Ok(()),
        false => trail.deny(&time, &outcome.refused, None),
    };
    denied
        .and_then(|()| trail.created(&time, &warnings(outcome)))
        .map_err(|err| {
            // The first error is the one to report.
            drop(delete(&context.root, &container.record.id, true));
            Error::Setup(format!(
                "{err}; hint: `[audit]` of the configuration asks for it"
            ))
        })
}

/// Without what the event of refused requests tells.
fn warnings(outcome: &Outcome) -> Vec<String> {
    let refused: Vec<_> = outcome.refused.iter().map(ToString::to_string).collect();
    let mut warnings = outcome.warnings.clone();
    warnings.retain(|warning| !refused.contains(warning));
    warnings
}

/// The request was refused as a whole. The error is told to the caller in any case, so a trail that cannot be
/// written is a warning here.
pub(super) fn refused(
    context: &Context,
    id: &str,
    bundle: &Path,
    spec: &Value,
    error: &InjectError,
) {
    let policy = fleet_host::load_policy(&inject::env(context), &HostRoot::default());
    let Ok((file, _)) = policy else { return };
    let subject = subject(context, id, bundle, spec);
    let Some(trail) = Trail::new(&file.policy.audit, subject) else {
        return;
    };
    if let Err(err) = trail.deny(&now(), &[], Some(&error.to_string())) {
        context.log.warn(&err.to_string());
    }
}

/// What became of a container that is written down.
pub(super) fn tell(context: &Context, container: &Container, event: EventKind) {
    let Some(kept) = &container.record.audit else {
        return;
    };
    let told = serde_json::from_value::<Trail>(kept.clone())
        .map_err(|err| err.to_string())
        .and_then(|trail| trail.tell(event, &now()).map_err(|err| err.to_string()));
    if let Err(err) = told {
        context.log.warn(&err);
    }
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}
