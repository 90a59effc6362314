//! CRIU as a child that is asked over a socket (`criu swrk`, what CRIU's own library does).
//!
//! Its command line has no way to hand over a terminal's master, and tells failures by its log alone.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, send, socketpair,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, dup2};

use super::wire::{Fields, Message};
use crate::cgroup::{Doors, Way};
use crate::driver;
use crate::error::{Context, Error, Result};
use crate::panics;
use crate::sys::process::{self, SharedText};

/// Where the program is looked for, and all that it may find of others' (`tar`, `iptables-restore`).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `criu swrk N`: its end of the socket. What else it gets follows.
const SOCKET: RawFd = 3;
/// The first that has all requests that are made here.
const OLDEST: (u64, u64) = (3, 17);
/// An answer is much shorter.
const ANSWER: usize = 64 * 1024;

/// `criu_req_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Kind {
    Dump = 1,
    Restore = 2,
    Notify = 6,
    Version = 10,
    PreDump = 13,
}

/// The program, found.
#[derive(Debug)]
pub(crate) struct Program(PathBuf);

impl Program {
    /// Looks for it where programs of the machine are; no environment has a say in it.
    ///
    /// # Errors
    /// None is installed.
    pub(crate) fn find() -> Result<Self> {
        PATH.split(':')
            .map(|dir| Path::new(dir).join("criu"))
            .find(|path| nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file())
            .map(Self)
            .ok_or_else(|| {
                Error::Invalid(format!(
                    "checkpoint and restore need CRIU, which is in none of {PATH}; hint: install the package criu"
                ))
            })
    }

    /// Asks for its version, since one that is too old, or does not start, is to be told before anything is touched.
    ///
    /// # Errors
    /// It is too old, or gives no answer.
    pub(crate) fn check(&self) -> Result<()> {
        let service = Service::open(self, Surroundings::default(), || Ok(()))?;
        let answer = service.ask(Kind::Version, &Message::default(), |_, _| Ok(()))?;
        let part = |field| answer.version.get(field).copied().unwrap_or(0);
        let version = (part(0), part(1));
        match version < OLDEST {
            true => Err(Error::Invalid(format!(
                "CRIU {}.{} (`{}`) is too old; hint: {}.{} or later is needed",
                version.0,
                version.1,
                self.0.display(),
                OLDEST.0,
                OLDEST.1
            ))),
            false => Ok(()),
        }
    }
}

/// What a CRIU that restores a container inherits.
#[derive(Debug, Default)]
pub(crate) struct Surroundings<'a> {
    /// The cgroup that it starts in, and all that it makes.
    pub(crate) doors: Option<&'a Doors>,
    /// The caller's stdin, stdout and stderr; none of them otherwise.
    pub(crate) stdio: bool,
    /// From [`FIRST_KEPT`] up.
    pub(crate) kept: Vec<BorrowedFd<'a>>,
}

/// The number that the first descriptor of [`Surroundings::kept`] has there.
pub(crate) const FIRST_KEPT: RawFd = SOCKET + 1;

/// A CRIU that runs.
#[derive(Debug)]
pub(super) struct Service {
    socket: OwnedFd,
    pid: Pid,
    trouble: Arc<SharedText>,
}

/// How CRIU answered.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The restored first process.
    pub(super) pid: Option<i32>,
    version: Vec<u64>,
}

/// What CRIU tells on its way.
#[derive(Debug)]
pub(crate) struct Notice {
    /// `setup-namespaces`, `orphan-pts-master`, `post-dump`, …
    pub(crate) script: String,
    /// The process it is about.
    pub(crate) pid: i32,
}

impl Service {
    /// Starts CRIU; `prepare` is done in the new process, in its cgroup.
    ///
    /// # Errors
    /// As `man 2 fork`.
    pub(super) fn open(
        program: &Program,
        surroundings: Surroundings<'_>,
        prepare: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .op(|| "make a socket pair")?;
        let trouble = Arc::new(SharedText::new().op(|| "map a shared page")?);
        let (forked, way) = driver::fork(surroundings.doors)?;
        match forked {
            ForkResult::Parent { child } => Ok(Self {
                socket: ours,
                pid: child,
                trouble,
            }),
            ForkResult::Child => {
                let page = Arc::clone(&trouble);
                panics::told_by(move |err| {
                    page.store_first(&err.to_string());
                    process::leave(1)
                });
                let done = become_criu(program, &surroundings, way, theirs.as_fd(), prepare);
                if let Err(err) = done {
                    trouble.store_first(&err.to_string());
                }
                process::leave(1)
            }
        }
    }

    /// Sends a request and waits for its end. `notified` is called for what CRIU tells meanwhile; when it fails, CRIU
    /// gives up and takes back what it did.
    ///
    /// # Errors
    /// What CRIU, or `notified`, has against it.
    pub(super) fn ask(
        self,
        kind: Kind,
        options: &Message,
        mut notified: impl FnMut(&Notice, Option<OwnedFd>) -> Result<()>,
    ) -> Result<Answer> {
        let mut failure = None;
        let answer = self.talk(kind, options, &mut |notice, fd| {
            let done = notified(notice, fd);
            let well = done.is_ok();
            failure = failure.take().or_else(|| done.err());
            well
        });
        drop(self.socket);
        let ended = wait(self.pid);
        if let Some(failure) = failure {
            return Err(failure);
        }
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(end_of(&ended, self.trouble.load())),
            Err(err) => Err(err),
        }
    }

    /// `None` when CRIU ends without an answer.
    fn talk(
        &self,
        kind: Kind,
        options: &Message,
        notified: &mut dyn FnMut(&Notice, Option<OwnedFd>) -> bool,
    ) -> Result<Option<Answer>> {
        let mut request = Message::default();
        request.number(1, kind as u64);
        if kind != Kind::Version {
            request.message(2, options);
        }
        if !self.send(&request)? {
            return Ok(None);
        }
        loop {
            let mut buffer = vec![0_u8; ANSWER];
            let (length, fd) = self.receive(&mut buffer)?;
            if length == 0 {
                return Ok(None);
            }
            let answer = buffer.get(..length).and_then(Fields::parse);
            let answer = answer
                .ok_or_else(|| Error::Setup("CRIU's answer cannot be understood".to_owned()))?;
            if answer.number(1) == Some(Kind::Notify as u64) {
                let notice = answer.message(5).unwrap_or_default();
                let notice = Notice {
                    script: notice.text(1).unwrap_or_default(),
                    pid: notice.signed(2).unwrap_or(0),
                };
                let well = notified(&notice, fd);
                let mut reply = Message::default();
                reply
                    .number(1, Kind::Notify as u64)
                    .number(3, u64::from(well));
                if !self.send(&reply)? {
                    return Ok(None);
                }
                continue;
            }
            return read_answer(&answer).map(Some);
        }
    }

    /// False when nobody is there any more.
    fn send(&self, message: &Message) -> Result<bool> {
        loop {
            match send(
                self.socket.as_raw_fd(),
                message.as_bytes(),
                MsgFlags::MSG_NOSIGNAL,
            ) {
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(false),
                other => return other.op(|| "talk to CRIU").map(|_| true),
            }
        }
    }

    /// The length of a message, 0 when nobody is there any more, and the descriptor that came with it.
    fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
        let mut space = nix::cmsg_space!([RawFd; 1]);
        loop {
            let mut slices = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(&mut space),
                flags,
            ) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok((0, None)),
                other => {
                    let message = other.op(|| "listen to CRIU")?;
                    let mut all = message.cmsgs().op(|| "listen to CRIU")?;
                    let fd = all.find_map(|cmsg| match cmsg {
                        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                        _ => None,
                    });
                    return Ok((message.bytes, fd.map(|fd| process::adopt(fd).into())));
                }
            }
        }
    }
}

/// The fields of `criu_resp`.
fn read_answer(answer: &Fields<'_>) -> Result<Answer> {
    if answer.number(2) != Some(1) {
        let number = answer.signed(7).filter(|errno| *errno != 0);
        let errno = number.map(|number| Errno::from_raw(number).desc());
        let said = answer.text(9).filter(|text| !text.is_empty());
        let words: Vec<String> = said.into_iter().chain(errno.map(str::to_owned)).collect();
        return Err(Error::Setup(words.join(": ")));
    }
    let version = answer.message(10);
    let part = |field| version.as_ref().and_then(|version| version.number(field));
    Ok(Answer {
        pid: answer.message(4).and_then(|restored| restored.signed(1)),
        version: [1, 2]
            .into_iter()
            .map(|field| part(field).unwrap_or(0))
            .collect(),
    })
}

fn wait(pid: Pid) -> nix::Result<WaitStatus> {
    loop {
        match waitpid(pid, None) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

fn end_of(ended: &nix::Result<WaitStatus>, trouble: Option<String>) -> Error {
    Error::Setup(match (trouble, ended) {
        (Some(text), _) => text,
        (None, Ok(WaitStatus::Signaled(_, signal, _))) => format!(
            "CRIU was killed by signal {}; hint: is the memory limit enough for CRIU beside the container?",
            *signal as i32
        ),
        _ => "CRIU ended without a word".to_owned(),
    })
}

/// Only returns when it fails.
fn become_criu(
    program: &Program,
    surroundings: &Surroundings<'_>,
    way: Way,
    socket: BorrowedFd<'_>,
    prepare: impl FnOnce() -> Result<()>,
) -> Result<()> {
    surroundings
        .doors
        .map_or(Ok(()), |doors| doors.enter(way))?;
    prepare()?;
    chdir("/").op(|| "enter /")?;
    if !surroundings.stdio {
        let null = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .op(|| "open /dev/null")?;
        for fd in 0..=2 {
            dup2(null.as_raw_fd(), fd).op(|| "leave stdio")?;
        }
    }
    place(&[&[socket], surroundings.kept.as_slice()].concat())?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).op(|| "unblock signals")?;
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| Error::Invalid("a path with a NUL".to_owned()))
    };
    let path = text(program.0.as_os_str().as_bytes())?;
    let args = [c"criu", c"swrk", c"3"];
    let env = [text(format!("PATH={PATH}").as_bytes())?];
    nix::unistd::execve(&path, &args, &env)
        .map(drop)
        .op(|| format!("execute `{}`", program.0.display()))
}

/// Gives descriptors the numbers from [`SOCKET`] up; all others are closed when CRIU is executed.
fn place(fds: &[BorrowedFd<'_>]) -> Result<()> {
    let failed = || "arrange descriptors";
    let above = SOCKET + RawFd::try_from(fds.len()).unwrap_or(RawFd::MAX - SOCKET);
    // Copies beyond all places: none is taken before what is there was copied.
    let copies = fds
        .iter()
        .map(|fd| fcntl(fd.as_raw_fd(), FcntlArg::F_DUPFD_CLOEXEC(above)).op(failed));
    let copies = copies.collect::<Result<Vec<RawFd>>>()?;
    for (copy, place) in copies.iter().zip(SOCKET..) {
        dup2(*copy, place).op(failed)?;
        fcntl(place, FcntlArg::F_SETFD(FdFlag::empty())).op(failed)?;
    }
    process::close_on_exec(u32::try_from(above).unwrap_or(u32::MAX)).op(failed)
}
