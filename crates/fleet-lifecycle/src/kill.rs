//! `kill`: a signal to the first process, or to every process of the container.

use crate::delegate;
use crate::error::{Context, Error, Result};
use crate::pidfd::PidFd;
use crate::record::{Container, Status};

/// Sends `signal` to the first process, or with `all` to every process in the container's cgroup.
///
/// # Errors
/// [`Error::NotRunning`] when there is nothing to signal.
pub fn kill(container: &Container, signal: i32, all: bool) -> Result<()> {
    if container.record.delegate.is_some() {
        return delegate::kill(container, signal, all);
    }
    if all && container.record.cgroup.writable() {
        return Ok(container.record.cgroup.kill_all(signal)?);
    }
    if matches!(container.status()?, Status::Stopped | Status::Creating) {
        return Err(Error::NotRunning(container.record.id.clone()));
    }
    // By descriptor: the pid may be a stranger's by now.
    let process = PidFd::open(container.record.pid)
        .op(|| format!("open process {}", container.record.pid))?;
    if !container.alive()? {
        return Err(Error::NotRunning(container.record.id.clone()));
    }
    match process.send(signal) {
        Err(err) if err.raw_os_error() == Some(libc::ESRCH) => {
            Err(Error::NotRunning(container.record.id.clone()))
        }
        other => other.op(|| format!("send signal {signal} to process {}", container.record.pid)),
    }
}
