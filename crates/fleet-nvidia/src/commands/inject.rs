//! Devices asked for by the spec: the one place where the runtime meets CDI.

use serde_json::Value;

use fleet_host::{Applied, Env};
use fleet_lifecycle::Error;

use super::Context;

/// Edits the spec in memory. A spec that asks for nothing costs no file access.
pub(super) fn inject(context: &Context, spec: &mut Value) -> Result<Applied, Error> {
    let outcome = fleet_host::inject(spec, &env(context));
    let outcome = outcome.map_err(|err| Error::Invalid(err.to_string()))?;
    for warning in &outcome.warnings {
        context.log.warn(warning);
    }
    Ok(outcome.applied)
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
