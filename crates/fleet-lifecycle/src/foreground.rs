//! Waiting in the foreground: signals and terminal traffic go to the container's process, its exit status comes back.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use crate::notify::Proxy;
use crate::panics;
use crate::pidfd::PidFd;
use crate::sys::process::{adopt, set_window_size, window_size};

/// A terminal of ours between the caller's and the container's.
#[derive(Debug)]
pub struct Relay {
    master: std::fs::File,
    saved: Option<Termios>,
}

/// Both ends over which the terminal's master travels when the runtime itself takes it.
///
/// # Errors
/// As `man 2 socketpair`.
pub fn console_pair() -> Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .op(|| "make a socket pair")
}

/// Gives a terminal the size of the caller's from the start, unless the process has its own: the program may ask for
/// it before the relay begins.
pub fn size_console(process: &mut Value) {
    let Ok(size) = window_size(io::stdin().as_fd()) else {
        return;
    };
    if process.get("consoleSize").is_none_or(Value::is_null) && size.ws_row > 0 && size.ws_col > 0 {
        process["consoleSize"] = json!({"height": size.ws_row, "width": size.ws_col});
    }
}

impl Relay {
    /// Takes the master that the container's process sent, and makes the caller's terminal raw.
    ///
    /// # Errors
    /// When no master arrived.
    pub fn receive(socket: &OwnedFd) -> Result<Self> {
        let mut text = [0_u8; 64];
        let mut slices = [io::IoSliceMut::new(&mut text)];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let message = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .op(|| "receive the terminal")?;
        let fd = message
            .cmsgs()
            .op(|| "receive the terminal")?
            .find_map(|cmsg| match cmsg {
                ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                _ => None,
            });
        let master =
            adopt(fd.ok_or_else(|| Error::Setup("the container sent no terminal".to_owned()))?);
        let saved = tcgetattr(io::stdin()).ok();
        if let Some(before) = &saved {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &raw);
            let before = before.clone();
            panics::undone_by(move || {
                let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &before);
            });
        }
        let relay = Self { master, saved };
        relay.resize();
        Ok(relay)
    }

    /// Follows the size of the caller's terminal.
    fn resize(&self) {
        if let Ok(size) = window_size(io::stdin().as_fd()) {
            drop(set_window_size(self.master.as_fd(), &size));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.saved {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

/// Signals are held back from here on, so that none is lost between making the process and waiting for it.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks every signal that can be forwarded.
    ///
    /// # Errors
    /// As `man 2 signalfd`.
    pub fn hold() -> Result<Self> {
        let mut set = SigSet::all();
        for kept in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGABRT,
            Signal::SIGTRAP,
        ] {
            set.remove(kept);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).op(|| "block signals")?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(Self)
            .op(|| "make a signal descriptor")
    }
}

/// Waits for `pid`, our child. Returns its exit code, or 128 plus the signal that ended it.
///
/// # Errors
/// When it cannot be waited for.
pub fn wait(
    pid: i32,
    mut signals: Signals,
    mut relay: Option<Relay>,
    mut proxy: Option<Proxy>,
) -> Result<i32> {
    let process = PidFd::open(pid).op(|| format!("open process {pid}"))?;
    let mut stdin_open = relay.is_some();
    let mut master_open = relay.is_some();
    loop {
        let ready = poll_once(
            &process,
            &signals.0,
            relay.as_ref(),
            proxy.as_ref(),
            stdin_open,
            master_open,
        )?;
        if ready.signals {
            forward(&process, &mut signals.0, relay.as_ref());
        }
        if ready.proxy {
            proxy = tell(proxy);
        }
        if let Some(relay) = &mut relay {
            if ready.stdin {
                stdin_open = copy(&mut io::stdin().lock(), &mut relay.master);
            }
            if ready.master {
                master_open = copy(&mut relay.master, &mut io::stdout().lock());
            }
        }
        // The terminal is drained before the end is reported.
        if ready.process && !(master_open && ready.master) {
            break;
        }
    }
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::empty()))
        .op(|| format!("wait for process {pid}"))?
    {
        WaitStatus::Exited(_, code) => Ok(code),
        WaitStatus::Signaled(_, signal, _) => Ok(128 + signal as i32),
        other => Err(Error::Setup(format!(
            "process {pid} ended in an unknown way: {other:?}"
        ))),
    }
}

/// A service manager that cannot be told finds out by itself; the container runs on. Once it was told there is nothing
/// more to pass on.
fn tell(proxy: Option<Proxy>) -> Option<Proxy> {
    let proxy = proxy?;
    if !proxy.ready() {
        return Some(proxy);
    }
    let main = i32::try_from(std::process::id()).unwrap_or_default();
    if let Err(err) = proxy.pass_on(main) {
        tracing::warn!("{err}");
    }
    None
}

struct Ready {
    process: bool,
    proxy: bool,
    signals: bool,
    stdin: bool,
    master: bool,
}

fn poll_once(
    process: &PidFd,
    signals: &SignalFd,
    relay: Option<&Relay>,
    proxy: Option<&Proxy>,
    stdin: bool,
    master: bool,
) -> Result<Ready> {
    let input = io::stdin();
    let mut fds = vec![
        PollFd::new(process.as_fd(), PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    let mut stdin_at = None;
    let mut master_at = None;
    if stdin {
        stdin_at = Some(fds.len());
        fds.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
    }
    if let Some(relay) = relay.filter(|_| master) {
        master_at = Some(fds.len());
        fds.push(PollFd::new(relay.master.as_fd(), PollFlags::POLLIN));
    }
    let mut proxy_at = None;
    if let Some(proxy) = proxy {
        proxy_at = Some(fds.len());
        fds.push(PollFd::new(proxy.as_fd(), PollFlags::POLLIN));
    }
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other.map(drop).op(|| "poll")?,
        }
    }
    let any = |at: usize| fds[at].any().unwrap_or(false);
    Ok(Ready {
        process: any(0),
        proxy: proxy_at.is_some_and(any),
        signals: any(1),
        stdin: stdin_at.is_some_and(any),
        master: master_at.is_some_and(any),
    })
}

fn forward(process: &PidFd, signals: &mut SignalFd, relay: Option<&Relay>) {
    while let Ok(Some(info)) = signals.read_signal() {
        let Ok(number) = i32::try_from(info.ssi_signo) else {
            continue;
        };
        match number {
            libc::SIGCHLD => {}
            libc::SIGWINCH if relay.is_some() => relay.into_iter().for_each(Relay::resize),
            // Stop signals of the job are the caller's own business.
            libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU | libc::SIGCONT => {}
            other => drop(process.send(other)),
        }
    }
}

/// One chunk from `from` to `to`; false when `from` has ended.
fn copy(from: &mut impl Read, to: &mut impl Write) -> bool {
    let mut buffer = [0_u8; 8192];
    match from.read(&mut buffer) {
        // A terminal whose last slave was closed answers EIO.
        Ok(0) | Err(_) => false,
        Ok(length) => to
            .write_all(&buffer[..length])
            .and_then(|()| to.flush())
            .is_ok(),
    }
}
