//! A process that keeps a new scope's place.
//!
//! systemd makes a scope only around a process, and ends it when the last one leaves; limits and device rules must be
//! in force before the container's first process exists. So a child that does nothing is there first, and goes when
//! the container has its own.

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

use crate::cgroup::{CgroupError, Result};
use crate::sys::process;

/// The child; it ends with this value.
#[derive(Debug)]
pub struct Occupant(Pid);

impl Occupant {
    /// Makes the child.
    ///
    /// # Errors
    /// As `man 2 fork`.
    pub(super) fn new() -> Result<Self> {
        let parent = nix::unistd::getpid();
        match process::fork() {
            Ok(ForkResult::Parent { child }) => Ok(Self(child)),
            Ok(ForkResult::Child) => idle(parent),
            Err(err) => Err(CgroupError::Invalid(format!(
                "make a process to hold the scope: {}",
                crate::error::errno_text(&err)
            ))),
        }
    }

    pub(in crate::cgroup) fn pid(&self) -> i32 {
        self.0.as_raw()
    }
}

/// Sleeps until it is killed, by us or by our death.
fn idle(parent: Pid) -> ! {
    let bound = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    if bound.is_err() || nix::unistd::getppid() != parent {
        process::leave(1);
    }
    loop {
        nix::unistd::pause();
    }
}

impl Drop for Occupant {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_its_value() {
        let occupant = Occupant::new().unwrap();
        let pid = occupant.0;
        assert!(kill(pid, None).is_ok());
        drop(occupant);
        assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }
}
