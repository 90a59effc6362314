//! The hidden verb that libcontainer runs as a hook.

use std::ffi::OsString;
use std::process::ExitCode;

use fleet_lifecycle::hookpoint;

/// Runs the verb when it is the one asked for; before clap, since it is on every hooked container's way.
pub(crate) fn intercept(args: &[OsString]) -> Option<ExitCode> {
    let [_, verb, stage, plan, report] = args else {
        return None;
    };
    if verb != hookpoint::VERB {
        return None;
    }
    let number = |arg: &OsString| arg.to_str()?.parse().ok();
    let done = match (stage.to_str(), number(plan), number(report)) {
        (Some(stage), Some(plan), Some(report)) => hookpoint::run(stage, plan, report).is_ok(),
        _ => false,
    };
    Some(if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
