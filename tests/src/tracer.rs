//! Faults at a chosen system call: a command is traced, and at the n-th call of one of its processes that process is
//! killed, or the call fails with a chosen error and is not made.
//!
//! The shipped binary itself is tested that way, and each of its short-lived processes can be hit, which `strace
//! --inject` cannot tell apart. Only what the runtime itself does is traced: a program that it executes is let go.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::{Output, OutputFiles};

/// A system call of a traced command: which of its processes, in order of birth, and which of that process's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spot {
    /// 0 is the command itself.
    pub process: usize,
    /// From 0.
    pub call: usize,
}

/// What was called where.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Where.
    pub spot: Spot,
    /// Number of the system call.
    pub number: u64,
    /// Its arguments.
    pub args: [u64; 4],
}

/// What happens there instead of the call.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The process is killed.
    Kill,
    /// The call fails, if it is the one of that number there.
    Fail(u64, Errno),
}

/// What came of a traced command.
#[derive(Debug)]
pub struct Trace {
    /// As of [`crate::run`].
    pub output: Output,
    /// All calls up to the end of the command.
    pub calls: Vec<Call>,
    /// The call that was hit; none when the command never came to it.
    pub hit: Option<Call>,
}

/// Longest time that a traced command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a command, with a fault or none.
#[must_use]
pub fn run(command: &Command, fault: Option<(Spot, Fault)>) -> Trace {
    let line = format!("{command:?} with {fault:?}");
    let files = OutputFiles::new();
    // It stops before it becomes the command, so that nothing is missed.
    let mut stopped = Command::new("sh");
    stopped
        .args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(files.stdout())
        .stderr(files.stderr());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => stopped.env(name, value),
            None => stopped.env_remove(name),
        };
    }
    // The tracer waits for it, by number.
    #[allow(clippy::zombie_processes)]
    let child = stopped.spawn().expect("spawn");
    let main = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let (done, wait) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = kill(main, Signal::SIGKILL);
            return true;
        }
        false
    });
    // When the thread ends, the kernel lets go of all that it still traces.
    let tracer = std::thread::spawn(move || Tracer::new(main, fault).run());
    let (code, calls, hit) = tracer.join().expect("the tracer");
    drop(done);
    let late = watchdog.join().expect("the watchdog");
    let (stdout, stderr) = files.read();
    assert!(!late, "{line}: not done after {PATIENCE:?}: {stderr}");
    let output = Output {
        line,
        code,
        stdout,
        stderr,
    };
    Trace { output, calls, hit }
}

#[derive(Debug, Default)]
struct Process {
    number: usize,
    calls: usize,
    inside: bool,
    refuse: Option<Errno>,
}

struct Tracer {
    main: Pid,
    fault: Option<(Spot, Fault)>,
    /// The shell has become the command.
    begun: bool,
    known: HashMap<Pid, Process>,
    calls: Vec<Call>,
    hit: Option<Call>,
}

impl Tracer {
    fn new(main: Pid, fault: Option<(Spot, Fault)>) -> Self {
        Self {
            main,
            fault,
            begun: false,
            known: HashMap::from([(main, Process::default())]),
            calls: Vec::new(),
            hit: None,
        }
    }

    fn run(mut self) -> (i32, Vec<Call>, Option<Call>) {
        let stopped = waitpid(self.main, Some(WaitPidFlag::WUNTRACED));
        assert!(
            matches!(stopped, Ok(WaitStatus::Stopped(..))),
            "{stopped:?}"
        );
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(self.main, options).expect("trace the command");
        kill(self.main, Signal::SIGCONT).expect("let the command go on");
        let code = loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.main => break code,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.main => {
                    break 128 + signal as i32;
                }
                Ok(status) => self.step(status),
                Err(Errno::EINTR) => {}
                Err(err) => panic!("wait for the traced command: {err}"),
            }
        };
        (code, self.calls, self.hit)
    }

    /// A process that was killed meanwhile is no error.
    fn step(&mut self, status: WaitStatus) {
        let _gone = match status {
            WaitStatus::PtraceSyscall(pid) => {
                self.call(pid).and_then(|()| ptrace::syscall(pid, None))
            }
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => self.exec(pid),
            WaitStatus::PtraceEvent(pid, ..) => {
                self.get(pid);
                ptrace::syscall(pid, None)
            }
            WaitStatus::Stopped(pid, signal) => ptrace::syscall(pid, signal),
            _ => Ok(()),
        };
    }

    fn get(&mut self, pid: Pid) -> &mut Process {
        let number = self.known.len();
        self.known.entry(pid).or_insert_with(|| Process {
            number,
            ..Process::default()
        })
    }

    /// The command executes itself again from a protected view, which goes on being it.
    fn exec(&mut self, pid: Pid) -> nix::Result<()> {
        if pid != self.main {
            return ptrace::detach(pid, None);
        }
        if !self.begun {
            self.begun = true;
            // The end of the call by which the shell became it.
            self.get(pid).inside = true;
        }
        ptrace::syscall(pid, None)
    }

    fn call(&mut self, pid: Pid) -> nix::Result<()> {
        let (begun, fault, hit) = (self.begun, self.fault, self.hit.is_some());
        let process = self.get(pid);
        if process.inside {
            process.inside = false;
            if let Some(errno) = process.refuse.take() {
                let mut regs = ptrace::getregs(pid)?;
                regs.rax = (-i64::from(errno as i32)).cast_unsigned();
                ptrace::setregs(pid, regs)?;
            }
            return Ok(());
        }
        process.inside = true;
        if !begun {
            return Ok(());
        }
        let mut regs = ptrace::getregs(pid)?;
        let spot = Spot {
            process: process.number,
            call: process.calls,
        };
        process.calls += 1;
        let call = Call {
            spot,
            number: regs.orig_rax,
            args: [regs.rdi, regs.rsi, regs.rdx, regs.r10],
        };
        let meant = |fault| !matches!(fault, Fault::Fail(number, _) if number != call.number);
        let here = fault.filter(|(at, fault)| *at == spot && !hit && meant(*fault));
        match here {
            Some((_, Fault::Kill)) => kill(pid, Signal::SIGKILL)?,
            Some((_, Fault::Fail(_, errno))) => {
                process.refuse = Some(errno);
                regs.orig_rax = u64::MAX;
                ptrace::setregs(pid, regs)?;
            }
            None => {}
        }
        self.calls.push(call);
        if here.is_some() {
            self.hit = Some(call);
        }
        Ok(())
    }
}
