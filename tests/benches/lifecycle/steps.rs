//! Instructions of a command and of all that it starts, where no counter of the processor is in reach: each process is led
//! through its program one instruction at a time (`man 2 ptrace`, `PTRACE_SINGLESTEP`). Exact, and some thousand times as
//! slow as the command alone.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What takes longer is given up: several threads that wait for each other in a loop never come to an end in this way.
const PATIENCE: Duration = Duration::from_secs(60);

/// A shell that waits to be seized before it becomes the command.
const WAITS: &str = "kill -STOP $$; exec \"$@\"";

/// Instructions in user mode until the command ends, or nothing where that is in vain.
pub(crate) fn instructions(command: &[String]) -> Option<u64> {
    let own = Pid::from_raw(0);
    let all = sched_getaffinity(own).ok()?;
    // Each step is a change from one process to the other and back, which is quicker on one processor.
    let mut one = CpuSet::new();
    one.set((0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap_or(false))?)
        .ok()?;
    sched_setaffinity(own, &one).ok()?;
    let counted = by_steps(command);
    sched_setaffinity(own, &all).ok()?;
    counted
}

fn by_steps(command: &[String]) -> Option<u64> {
    let mut shell = Command::new("sh");
    shell.args(["-c", WAITS, "sh"]).args(command);
    let child = shell
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let first = Pid::from_raw(i32::try_from(child.id()).ok()?);
    waitpid(first, Some(WaitPidFlag::WUNTRACED)).ok()?;
    let mut steps = Steps {
        first,
        at: HashMap::new(),
        begun: false,
        count: 0,
    };
    let counted = seize(first).ok().and_then(|()| steps.all());
    // Whatever it was, it has ended, or ends with what traces it.
    let _ = kill(first, Signal::SIGKILL);
    while waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))
        .is_ok_and(|status| status != WaitStatus::StillAlive)
    {}
    counted
}

fn seize(process: Pid) -> nix::Result<()> {
    let options = Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(process, options)?;
    kill(process, Signal::SIGCONT)
}

struct Steps {
    first: Pid,
    /// Where each process is.
    at: HashMap<Pid, u64>,
    /// The shell has become the command.
    begun: bool,
    count: u64,
}

impl Steps {
    fn all(&mut self) -> Option<u64> {
        let begin = Instant::now();
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(process, 0)) if process == self.first => {
                    return Some(self.count);
                }
                Ok(WaitStatus::Exited(process, _) | WaitStatus::Signaled(process, ..)) => {
                    if process == self.first {
                        return None;
                    }
                    self.at.remove(&process);
                }
                Ok(WaitStatus::Stopped(process, Signal::SIGTRAP)) => {
                    self.step(process);
                    self.go_on(process, None)?;
                }
                Ok(WaitStatus::Stopped(process, signal)) => self.go_on(process, Some(signal))?,
                Ok(WaitStatus::PtraceEvent(process, _, event)) => {
                    if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 {
                        self.begun = true;
                        self.at.remove(&process);
                    }
                    self.go_on(process, None)?;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
            if begin.elapsed() > PATIENCE {
                return None;
            }
        }
    }

    /// Repeated string instructions stop at each repetition and are one.
    fn step(&mut self, process: Pid) {
        let here = address(process);
        if here.is_none() || self.at.insert(process, here.unwrap_or(0)) != here {
            self.count += 1;
        }
    }

    /// A process that was killed meanwhile is heard of by the next wait. Until the command is executed, the shell runs freely.
    fn go_on(&self, process: Pid, signal: Option<Signal>) -> Option<()> {
        let gone = match self.begun {
            true => ptrace::step(process, signal),
            false => ptrace::cont(process, signal),
        };
        matches!(gone, Ok(()) | Err(Errno::ESRCH)).then_some(())
    }
}

#[cfg(target_arch = "x86_64")]
fn address(process: Pid) -> Option<u64> {
    ptrace::getregs(process).ok().map(|registers| registers.rip)
}

#[cfg(not(target_arch = "x86_64"))]
fn address(_: Pid) -> Option<u64> {
    None
}
