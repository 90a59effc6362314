//! Processes by descriptor, and telling a process from a stranger that got its pid later.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::tail::{pidfd_open, pidfd_send_signal};

/// A process held by descriptor (`man 2 pidfd_open`): signals can never reach another one.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the process that has `pid` now; compare [`start_time`] afterwards to know that it is the one meant.
    ///
    /// There is no way around kernels without the call (before Linux 5.3): the mounts need Linux 5.12.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub fn open(pid: i32) -> io::Result<Self> {
        pidfd_open(pid).map(Self)
    }

    /// Sends a signal; 0 only checks.
    ///
    /// # Errors
    /// As `man 2 pidfd_send_signal`.
    pub fn send(&self, signal: i32) -> io::Result<()> {
        pidfd_send_signal(self.0.as_fd(), signal)
    }

    /// Waits until the process has ended; false when `timeout` passed first. `None` waits for ever.
    ///
    /// # Errors
    /// As `man 2 poll`.
    pub fn wait_exit(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let end = timeout.map(|t| Instant::now() + t);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let wait = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left.as_millis().min(60_000)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// When a process was started, in clock ticks since boot (field 22 of `man 5 proc_pid_stat`).
///
/// # Errors
/// When there is no such process.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = read(pid)?;
    parse(&stat)
        .map(|(_, ticks)| ticks)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Whether the process with `pid` is the one started at `ticks`, and not a zombie.
///
/// # Errors
/// When that cannot be told: who has no descriptor left must not take a process for gone.
pub fn is_same(pid: i32, ticks: u64) -> io::Result<bool> {
    match read(pid) {
        Ok(stat) => Ok(parse(&stat)
            .is_some_and(|(state, started)| started == ticks && !matches!(state, 'Z' | 'X'))),
        // The latter: it went while it was read.
        Err(err) if matches!(err.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(false),
        Err(err) => Err(err),
    }
}

/// Whether a process executed a program since it was forked (`PF_FORKNOEXEC` in field 9 of `man 5 proc_pid_stat`).
#[must_use]
pub fn has_executed(pid: i32) -> bool {
    const PF_FORKNOEXEC: u64 = 0x40;
    let flags = read(pid).ok().and_then(|stat| {
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(6)?.parse::<u64>().ok()
    });
    flags.is_some_and(|flags| flags & PF_FORKNOEXEC == 0)
}

/// A process names itself as it likes, so the text need not be UTF-8.
fn read(pid: i32) -> io::Result<String> {
    fs::read(format!("/proc/{pid}/stat")).map(|stat| String::from_utf8_lossy(&stat).into_owned())
}

/// State letter and start time; the name in parentheses may hold anything, so fields count from the last `)`.
fn parse(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses() {
        let line = "12 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21";
        assert_eq!(parse(line), Some(('S', 777)));
        assert_eq!(parse("12 (x"), None);
    }

    #[test]
    fn a_child_is_told_apart_and_waited_for() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = start_time(pid).unwrap();
        assert!(is_same(pid, started).unwrap());
        assert!(!is_same(pid, started + 1).unwrap());
        let fd = PidFd::open(pid).unwrap();
        assert!(!fd.wait_exit(Some(Duration::from_millis(10))).unwrap());
        fd.send(libc::SIGKILL).unwrap();
        assert!(fd.wait_exit(Some(Duration::from_secs(10))).unwrap());
        assert!(!is_same(pid, started).unwrap(), "a zombie is not alive");
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_executed_nothing_is_told_from_one_that_did() {
        use nix::unistd::ForkResult;
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(has_executed(own));
        assert!(!has_executed(i32::MAX));
        match crate::sys::process::fork().unwrap() {
            ForkResult::Child => {
                nix::unistd::pause();
                crate::sys::process::leave(0)
            }
            ForkResult::Parent { child } => {
                let executed = has_executed(child.as_raw());
                nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
                nix::sys::wait::waitpid(child, None).unwrap();
                assert!(!executed);
            }
        }
    }

    #[test]
    fn a_name_that_is_no_text_hides_nobody() {
        let tick = |name: &std::ffi::CStr| {
            crate::sys::process::set_name(name);
            let tid = nix::unistd::gettid().as_raw();
            let started = start_time(tid).unwrap();
            assert!(is_same(tid, started).unwrap());
            started
        };
        std::thread::spawn(move || assert_eq!(tick(c"plain"), tick(c"\xff\xfe) Z 1")))
            .join()
            .unwrap();
    }

    #[test]
    fn nobody_is_an_error() {
        assert!(start_time(i32::MAX).is_err() && !is_same(i32::MAX, 0).unwrap());
        let err = PidFd::open(i32::MAX).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::ESRCH));
        assert!(PidFd::open(-1).is_err());
    }
}
