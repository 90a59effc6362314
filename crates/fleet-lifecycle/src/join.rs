//! Makes one more process in a container.
//!
//! It takes one fork: the runtime's own process asks for process numbers of the container, its child is born there and
//! in the container's cgroup, does what takes the rights of the host, enters the other namespaces and runs the tail.
//! A user without rights on the host may not do the former from outside of the container's user namespace, and sends a
//! process ahead, which makes that child and ends.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getpid, pipe2, setsid};
use serde_json::Value;

use crate::affinity::Affinity;
use crate::cgroup::{Doors, Way};
use crate::error::{Context, Error, Result, errno_text};
use crate::leash::Leash;
use crate::namespaces::Namespaces;
use crate::pidfd::PidFd;
use crate::sys::process::{self, SharedText};
use crate::tail::Tail;
use crate::{driver, oom, panics};

/// The process that is to be.
#[derive(Debug)]
pub(crate) struct Newcomer<'a> {
    /// Where it lives.
    pub namespaces: Namespaces,
    /// How it gets into the container's cgroup.
    pub doors: Option<&'a Doors>,
    /// Other files that take its number, and on whose behalf.
    pub places: Vec<(PathBuf, &'static str)>,
    /// Its `process` object.
    pub process: &'a Value,
    /// Whether a refused score is no error.
    pub rootless: bool,
    /// Where it runs.
    pub affinity: Affinity,
    /// Number of descriptors from 3 up that the program keeps.
    pub preserve_fds: u32,
    /// What it does inside.
    pub tail: Tail,
}

/// Makes the process and returns its pid once its program was executed. It is our child.
///
/// # Errors
/// [`Error::Setup`] with what the process itself said, also when its program could not be executed.
pub(crate) fn start(mut newcomer: Newcomer<'_>) -> Result<i32> {
    newcomer.tail.maker = Some(PidFd::open(getpid().as_raw()).op(|| "open the own process")?);
    let report = Arc::clone(&newcomer.tail.report);
    // Its end closes when the program is executed.
    let (running, held) = pipe2(OFlag::O_CLOEXEC).op(|| "make a pipe")?;
    let pid = newcomer.born()?;
    drop((newcomer, held));
    wait_for_program(pid, running.into(), &report)
}

impl Newcomer<'_> {
    fn born(&mut self) -> Result<i32> {
        let seen = self.namespaces.number_processes();
        if !self.namespaces.enter_for_children()? {
            return self.born_of_another();
        }
        if seen {
            // From inside of the container, from its birth (CVE-2016-9962).
            process::set_dumpable(false).op(|| "set PR_SET_DUMPABLE")?;
        }
        let (forked, way) = driver::fork(self.doors)?;
        match forked {
            ForkResult::Parent { child } => Ok(child.as_raw()),
            ForkResult::Child => self.live(|this| this.leave_the_host(way)),
        }
    }

    /// The process ahead may be killed when the child was made already, and nobody else knows the child's number: it
    /// goes on only at our word.
    fn born_of_another(&mut self) -> Result<i32> {
        let leash = Leash::new()?;
        self.tail.leash = Some(leash.end()?);
        let made = driver::run(self.doors, || {
            leash.belongs_to_the_parent();
            self.leave_the_host(Way::Inside)?;
            self.namespaces.enter_user_for_children()?;
            match process::fork_sibling().op(|| "fork")? {
                ForkResult::Parent { child } => Ok(child.as_raw()),
                ForkResult::Child => self
                    .live(|_| process::die_with_parent(true).op(|| "ask to die with the runtime")),
            }
        });
        match made {
            Ok(pid) => leash.let_go().map(|()| pid),
            Err(err) => {
                drop(leash);
                while waitpid(None, None).is_ok() {}
                Err(err)
            }
        }
    }

    /// What takes the rights of the host.
    fn leave_the_host(&self, way: Way) -> Result<()> {
        // The change of user takes that back; the tail asks once more, and whether it was too late.
        process::die_with_parent(true).op(|| "ask to die with the runtime")?;
        self.doors.map_or(Ok(()), |doors| doors.enter(way))?;
        self.places
            .iter()
            .try_for_each(|(file, behalf)| move_to(file, behalf))?;
        oom::set(self.process, self.rootless)?;
        self.affinity.apply()?;
        process::set_dumpable(false).op(|| "set PR_SET_DUMPABLE")
    }

    /// What is to be done before anything of the container's is in reach.
    fn set_apart(&self) -> Result<()> {
        setsid().op(|| "make a session")?;
        if let Some(agent) = &self.tail.program.agent {
            agent.announce(own_number()?);
        }
        self.tail.open_labels()?;
        // Also what the caller has left open: a program, or its working directory, must not reach the host by it.
        process::close_on_exec(self.preserve_fds.saturating_add(3))
            .op(|| "close descriptors on execution")
    }

    /// The new process's whole life, up to the program.
    fn live(&mut self, first: impl FnOnce(&Self) -> Result<()>) -> ! {
        let report = Arc::clone(&self.tail.report);
        panics::told_by(move |err| {
            report.store_first(&err.to_string());
            process::leave(1)
        });
        match self.work(first) {
            Error::Told(_) => {}
            err => self.tail.report.store_first(&err.to_string()),
        }
        process::leave(1)
    }

    /// Returns only what failed.
    fn work(&mut self, first: impl FnOnce(&Self) -> Result<()>) -> Error {
        let ready = first(self)
            .and_then(|()| self.set_apart())
            .and_then(|()| self.namespaces.enter())
            .and_then(|()| self.tail.prepare());
        match ready {
            Ok(()) => {
                self.tail.report.mark();
                self.tail.run()
            }
            Err(err) => err,
        }
    }
}

/// `0` is the writer; only then need the kernel not wait.
fn move_to(file: &Path, behalf: &str) -> Result<()> {
    let moved = OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut file| file.write_all(b"0"));
    moved.map_err(|err| {
        let pid = own_number().unwrap_or_default();
        let cause = errno_text(&err).to_lowercase();
        Error::Setup(format!(
            "`{behalf}`: adding pid {pid} to {}: {cause}",
            file.display()
        ))
    })
}

/// Our pid as the runtime sees it, which is another one in the container.
fn own_number() -> Result<i32> {
    let link = fs::read_link("/proc/self").op(|| "read `/proc/self`")?;
    let number = link.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::Setup("`/proc/self` is not a number".to_owned()))
}

fn wait_for_program(pid: i32, mut running: File, report: &SharedText) -> Result<i32> {
    let waited = running
        .read_to_end(&mut Vec::new())
        .op(|| "wait for the new process");
    if waited.is_ok() && report.marked() && report.load().is_none() {
        return Ok(pid);
    }
    let status = end(pid);
    waited?;
    Err(Error::Setup(report.load().unwrap_or_else(|| how(status))))
}

/// Nothing is left of a process that did not come to its program.
fn end(pid: i32) -> Option<WaitStatus> {
    let pid = Pid::from_raw(pid);
    let _ = kill(pid, Signal::SIGKILL);
    waitpid(pid, None).ok()
}

fn how(status: Option<WaitStatus>) -> String {
    match status {
        Some(WaitStatus::Signaled(_, signal, _)) => format!(
            "the new process was killed by signal {} before its program was executed; hint: is the memory limit of the container enough?",
            signal as i32
        ),
        _ => "the new process ended before its program was executed".to_owned(),
    }
}
