//! Staying after the install: the health file says whether the installation is as it should be. Nothing is written
//! anew by itself: two installers on a node would do that to each other for ever.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::args::Install;
use super::installation::Installation;
use super::{NodeError, place};
use crate::{CtlError, Verdict};

/// SIGTERM and SIGINT, which wait until they are asked for.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    pub(super) fn block() -> Result<Self, NodeError> {
        let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        let fd = set.thread_block().and_then(|()| {
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        });
        fd.map(Self).map_err(NodeError::Signal)
    }

    /// Whether one came within this time.
    fn came(&self, patience: Duration) -> Result<bool, NodeError> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) if Instant::now() >= until => return Ok(false),
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(err) => return Err(NodeError::Signal(err)),
            }
        }
    }
}

/// Looks at the installation until a signal comes.
pub(super) fn stay(
    installation: &Installation,
    args: &Install,
    signals: &Signals,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    let mut before = None;
    loop {
        let status = installation.status();
        installation.tell(&status)?;
        if before.as_ref() != Some(&status) {
            write!(out, "{}", status.text())?;
            out.flush()?;
            before = Some(status);
        }
        if signals.came(Duration::from_secs(args.interval.into()))? {
            break;
        }
    }
    let _lock = place::lock(installation.files())?;
    if !installation.is_current() {
        writeln!(out, "another installer has taken over: everything stays")?;
        return Ok(Verdict::Fine);
    }
    installation.silence()?;
    if args.remove_on_exit
        && let Err(err) = installation.uninstall(args.restart, false, out, remarks)
    {
        match err {
            CtlError::Node(NodeError::Asked(why)) => writeln!(remarks, "fleet-nvidia-ctl: {why}")?,
            other => return Err(other),
        }
    }
    Ok(Verdict::Fine)
}
