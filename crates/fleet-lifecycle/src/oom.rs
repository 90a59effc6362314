//! `process.oomScoreAdj`: set on the process that makes the container's, and inherited.

use std::fs;

use serde_json::Value;

use crate::error::{Error, Result, errno_text};

const FILE: &str = "/proc/self/oom_score_adj";

/// Sets the value the spec asks for.
///
/// # Errors
/// A value out of range, or one that needs `CAP_SYS_RESOURCE`. Rootless, a refused lower value is left as it is,
/// since the engine asks for what it cannot know to be refused.
pub(crate) fn set(process: &Value, rootless: bool) -> Result<()> {
    let Some(wanted) = process.get("oomScoreAdj").and_then(Value::as_i64) else {
        return Ok(());
    };
    if !(-1000..=1000).contains(&wanted) {
        return Err(Error::Invalid(format!(
            "`process.oomScoreAdj` {wanted} is not between -1000 and 1000"
        )));
    }
    let before = fs::read_to_string(FILE).ok();
    if before.as_deref().map(str::trim) == Some(&wanted.to_string()) {
        return Ok(());
    }
    match fs::write(FILE, wanted.to_string()) {
        Err(err) if !rootless => Err(Error::Setup(format!(
            "set oom score {wanted} in `{FILE}`: {}; hint: a value below the caller's needs CAP_SYS_RESOURCE",
            errno_text(&err)
        ))),
        _ => Ok(()),
    }
}
