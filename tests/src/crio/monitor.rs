//! conmon as CRI-O starts it: its answer comes over a pipe, and it waits for a byte before it begins.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::Value;

use super::clean;
use crate::run;

/// One run of conmon.
#[derive(Debug)]
pub struct Monitor;

/// Longest that conmon may take to answer, in milliseconds.
const PATIENCE: u16 = 60_000;

impl Monitor {
    /// Starts conmon in `dir`, lets it begin, and gives what it said: `{"pid": …}` or `{"exit_code": …}`, with a
    /// `message` when it failed.
    #[must_use]
    #[track_caller]
    pub fn answer(args: &[&str], dir: &Path) -> Value {
        let (sync, said) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("make a pipe");
        let (begin, start) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("make a pipe");
        let (said, begin) = (above(&said), above(&begin));
        // As descriptors 3 and 4, and no others.
        let script = format!(
            "exec \"$0\" \"$@\" 3>&{w} 4<&{r} {w}>&- {r}<&-",
            w = said.as_raw_fd(),
            r = begin.as_raw_fd()
        );
        let mut command = Command::new("bash");
        clean(&mut command)
            .args(["-c", &script, "conmon"])
            .args(args)
            .envs([
                ("_OCI_SYNCPIPE", "3"),
                ("_OCI_STARTPIPE", "4"),
                ("CRI_O_EXTERNAL", "1"),
            ])
            .current_dir(dir)
            .stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("start conmon");
        drop((said, begin));
        File::from(start).write_all(&[0]).expect("let conmon begin");
        let line = line(sync);
        drop(child.wait());
        serde_json::from_str(&line).unwrap_or_else(|err| panic!("conmon said `{line}`: {err}"))
    }
}

/// A copy that programs inherit, out of the way of the descriptors that bash redirects.
fn above(fd: &OwnedFd) -> OwnedFd {
    let number = fcntl(fd.as_raw_fd(), FcntlArg::F_DUPFD(20)).expect("duplicate a descriptor");
    #[allow(unsafe_code)]
    // SAFETY: the descriptor was just made, and nothing else knows it.
    unsafe {
        std::os::fd::FromRawFd::from_raw_fd(number)
    }
}

/// One line, or what came before the end.
fn line(pipe: OwnedFd) -> String {
    let mut bytes = Vec::new();
    let mut pipe = File::from(pipe);
    while bytes.last() != Some(&b'\n') {
        let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut polled, PollTimeout::from(PATIENCE)).expect("poll");
        assert!(ready > 0, "conmon does not answer");
        let mut byte = [0];
        if pipe.read(&mut byte).expect("read the pipe") == 0 {
            break;
        }
        bytes.extend(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the master of a terminal on a console socket.
#[must_use]
#[track_caller]
pub fn receive_terminal(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().expect("accept");
    let mut text = [0; 4096];
    let mut parts = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let fd = stream.as_raw_fd();
    let message =
        recvmsg::<()>(fd, &mut parts, Some(&mut space), MsgFlags::empty()).expect("receive");
    let master = message
        .cmsgs()
        .expect("control messages")
        .find_map(|part| match part {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
    #[allow(unsafe_code)]
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe {
        std::os::fd::FromRawFd::from_raw_fd(master.expect("a descriptor"))
    }
}

/// The two streams of a log in the kubelet's format: `TIME stdout|stderr F|P TEXT`, where P is a line that goes on.
#[must_use]
#[track_caller]
pub fn log_streams(file: &Path) -> (String, String) {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut streams = (String::new(), String::new());
    for (index, line) in text.lines().enumerate() {
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        let [time, stream, tag, text] = parts[..] else {
            panic!("not a log line: {line}");
        };
        if index == 0 {
            let valid = run(Command::new("date").args(["--date", time])).code == 0;
            assert!(valid && time.contains('T'), "not RFC 3339: {line}");
        }
        let into = match stream {
            "stdout" => &mut streams.0,
            "stderr" => &mut streams.1,
            other => panic!("no stream is called {other}"),
        };
        into.push_str(text);
        if tag == "F" {
            into.push('\n');
        }
    }
    streams
}
