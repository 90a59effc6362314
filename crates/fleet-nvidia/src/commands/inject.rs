//! Devices asked for by the spec: the one place where the runtime meets CDI.

use std::path::Path;

use serde_json::Value;

use fleet_discover::Live;
use fleet_host::{Env, MissingNodes, Outcome, Store};
use fleet_lifecycle::Error;

use super::{Context, audit};

/// Edits the spec in memory. A spec that asks for nothing costs no file access.
pub(super) fn inject(
    context: &Context,
    id: &str,
    bundle: &Path,
    spec: &mut Value,
) -> Result<Outcome, Error> {
    let env = env(context);
    let host = Live::default()
        .keeping(Store::of(&env))
        .with_missing_nodes(MissingNodes::at_create(&env));
    let outcome = fleet_host::inject_with(spec, &env, &host).map_err(|err| {
        audit::refused(context, id, bundle, spec, &err);
        Error::Invalid(err.to_string())
    })?;
    for warning in &outcome.warnings {
        context.log.warn(warning);
    }
    Ok(outcome)
}

pub(super) fn env(context: &Context) -> Env {
    Env {
        euid: context.who.euid,
        in_userns: context.who.in_user_namespace,
        xdg_config_home: std::env::var("XDG_CONFIG_HOME").ok(),
        xdg_runtime_dir: std::env::var("XDG_RUNTIME_DIR").ok(),
        home: std::env::var("HOME").ok(),
        config: context.global.config.clone(),
    }
}
