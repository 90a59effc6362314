//! From a spec's `process` to the program that the tail runs.

use std::path::Path;

use serde_json::Value;

use crate::capabilities::Sets;
use crate::error::{Error, Result};
use crate::io_priority::IoPriority;
use crate::labels::Labels;
use crate::personality::Personality;
use crate::scheduler::Scheduler;
use crate::seccomp::Receiver;
use crate::tail::Program;
use crate::{annotations, seccomp, spec};

/// Reads `process`; `state` is what an agent of the seccomp profile is told. The profile is the container's, for its first and every later process.
///
/// # Errors
/// A field that cannot be honoured.
pub(crate) fn from_spec(
    full: &Value,
    process: &Value,
    cache: Option<&Path>,
    state: &Value,
) -> Result<Program> {
    let sets = Sets::from_spec(process.get("capabilities").filter(|c| !c.is_null()));
    let filter = match full.pointer("/linux/seccomp").filter(|s| s.is_object()) {
        Some(profile) => {
            if annotations::fails_on_unknown_calls(full) {
                seccomp::check_names(profile)?;
            }
            seccomp::load(profile, cache)?
        }
        None => None,
    };
    Ok(Program {
        args: spec::strings(process, "/args"),
        env: spec::strings(process, "/env"),
        cwd: spec::text(process, "/cwd").unwrap_or("/").to_owned(),
        uid: spec::number(process, "/user/uid").unwrap_or(0),
        gid: spec::number(process, "/user/gid").unwrap_or(0),
        groups: groups(full, process)?,
        umask: spec::number(process, "/user/umask"),
        personality: Personality::from_spec(full)?,
        io_priority: IoPriority::from_process(process)?,
        scheduler: Scheduler::from_process(process)?,
        rlimits: spec::list(process, "/rlimits").to_vec(),
        capabilities: sets.map_err(|err| Error::Invalid(err.to_string()))?,
        no_new_privileges: spec::flag(process, "/noNewPrivileges"),
        agent: Receiver::from_spec(full, state)?,
        seccomp: filter,
        labels: Labels::of(process).map_err(|err| Error::Setup(err.to_string()))?,
    })
}

fn groups(full: &Value, process: &Value) -> Result<Option<Vec<u32>>> {
    if annotations::keeps_groups(full) {
        return Ok(None);
    }
    spec::list(process, "/user/additionalGids")
        .iter()
        .map(|gid| {
            let number = gid.as_u64().and_then(|n| u32::try_from(n).ok());
            number.ok_or_else(|| {
                Error::Invalid(format!(
                    "`process.user.additionalGids` has the unusable entry {gid}"
                ))
            })
        })
        .collect::<Result<Vec<u32>>>()
        .map(Some)
}
