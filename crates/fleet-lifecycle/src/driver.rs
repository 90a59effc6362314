//! The short-lived process that drives the library.
//!
//! It is made inside the container's cgroup, so that the library's processes are born there, and it takes what a
//! container inherits from its maker (score, keyring, namespaces of the host, a view of `/sys`), so that nothing of
//! the runtime's own process has to be put back.

use std::sync::Arc;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::cgroup::{Doors, Way};
use crate::error::{Context, Error, Result};
use crate::panics;
use crate::sys::process::{self, SharedText};

/// Runs `work`, which makes a process, in a child of ours inside the cgroup; returns that process's pid. It becomes
/// our child when its maker ends.
///
/// # Errors
/// What `work` said, as text: an error cannot cross processes otherwise.
pub(crate) fn run(doors: Option<&Doors>, work: impl FnOnce() -> Result<i32>) -> Result<i32> {
    let outcome = Arc::new(SharedText::new().op(|| "map a shared page")?);
    process::set_subreaper(true).op(|| "become the reaper of orphaned processes")?;
    let parent = nix::unistd::getpid();
    let (forked, way) = fork(doors)?;
    match forked {
        ForkResult::Parent { child } => wait(child, &outcome),
        ForkResult::Child => {
            // Those of the processes that the library makes end up here as well.
            let page = Arc::clone(&outcome);
            panics::told_by(move |err| {
                page.store_first(&err.to_string());
                process::leave(0)
            });
            let made = prepare(doors, way, parent).and_then(|()| work());
            outcome.store_first(&match made {
                Ok(pid) => format!("{MADE}{pid}"),
                Err(err) => err.to_string(),
            });
            process::leave(0)
        }
    }
}

/// Makes a child in the cgroup, if there is one; it must enter by what is returned beside.
///
/// # Errors
/// As [`Doors::fork`].
pub(crate) fn fork(doors: Option<&Doors>) -> Result<(ForkResult, Way)> {
    match doors {
        Some(doors) => doors.fork(),
        None => Ok((process::fork().op(|| "fork")?, Way::Inside)),
    }
}

/// Precedes the pid; no error starts with it.
const MADE: &str = "\0pid ";

fn prepare(doors: Option<&Doors>, way: Way, parent: Pid) -> Result<()> {
    // A runtime that is killed half-way leaves no process that goes on without it.
    process::die_with_parent(true).op(|| "ask to die with the runtime")?;
    if nix::unistd::getppid() != parent {
        process::leave(1);
    }
    doors.map_or(Ok(()), |doors| doors.enter(way))
}

fn wait(child: Pid, outcome: &SharedText) -> Result<i32> {
    let status = loop {
        match waitpid(child, None) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other.op(|| "wait for the process that makes the container")?,
        }
    };
    let said = outcome.load().unwrap_or_default();
    let pid = said.strip_prefix(MADE).map(str::parse);
    match (pid, status) {
        (Some(Ok(pid)), _) => Ok(pid),
        (_, WaitStatus::Signaled(_, signal, _)) => Err(Error::Setup(format!(
            "the process that makes the container was killed by signal {}; hint: is its memory limit enough to start?",
            signal as i32
        ))),
        _ if said.is_empty() => Err(Error::Setup(
            "the process that makes the container ended without a word".to_owned(),
        )),
        _ => Err(Error::Setup(said)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_cross_the_process_border() {
        assert_eq!(run(None, || Ok(4711)).unwrap(), 4711);
        let failed = run(None, || Err(Error::Invalid("no such thing".to_owned())));
        assert_eq!(failed.unwrap_err().to_string(), "no such thing");
    }

    #[test]
    fn a_killed_maker_is_an_error() {
        let killed = run(None, || {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
            Ok(1)
        });
        assert!(killed.unwrap_err().to_string().contains("signal 9"));
    }
}
