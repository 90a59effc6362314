//! `pause` and `resume`: the cgroup's freezer.

use crate::delegate;
use crate::error::{Error, Result};
use crate::record::{Container, Status};

/// Freezes every process of a running or created container.
///
/// # Errors
/// [`Error::WrongStatus`] in any other state, or without a cgroup of its own.
pub fn pause(container: &Container) -> Result<()> {
    if container.record.delegate.is_some() {
        return delegate::simply("pause", container);
    }
    match container.status()? {
        Status::Running | Status::Created => {}
        other => return Err(wrong("pause", container, other.as_str(), "")),
    }
    own_cgroup("pause", container)?;
    Ok(container.record.cgroup.freeze()?)
}

/// Thaws a paused container.
///
/// # Errors
/// [`Error::WrongStatus`] unless it is paused.
pub fn resume(container: &Container) -> Result<()> {
    if container.record.delegate.is_some() {
        return delegate::simply("resume", container);
    }
    own_cgroup("resume", container)?;
    let frozen = container.alive()? && container.record.cgroup.is_frozen().unwrap_or(false);
    if !frozen {
        return Err(wrong("resume", container, container.status()?.as_str(), ""));
    }
    Ok(container.record.cgroup.thaw()?)
}

fn own_cgroup(verb: &'static str, container: &Container) -> Result<()> {
    if container.record.cgroup.writable() {
        return Ok(());
    }
    Err(wrong(
        verb,
        container,
        "without a cgroup of its own",
        "; hint: rootless containers need cgroup v2 with delegation",
    ))
}

fn wrong(verb: &'static str, container: &Container, status: &str, hint: &'static str) -> Error {
    Error::WrongStatus {
        verb,
        id: container.record.id.clone(),
        status: status.to_owned(),
        hint,
    }
}
