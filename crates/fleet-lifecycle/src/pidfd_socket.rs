//! `--pidfd-socket`: an engine that wants to wait for or signal a process by descriptor gets one, as from runc.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::console_socket;
use crate::error::{Context, Result};
use crate::pidfd::PidFd;

/// A connected socket of the engine's.
#[derive(Debug)]
pub struct PidfdSocket(OwnedFd);

impl PidfdSocket {
    /// Connects; before anything is made, so that a wrong path costs nothing.
    ///
    /// # Errors
    /// The path, when nobody listens there.
    pub fn connect(path: &Path) -> Result<Self> {
        console_socket::connect_to("pidfd socket", path).map(Self)
    }

    /// Sends a descriptor of the process, which must be ours to wait for or still blocked: its number cannot have been
    /// given to another.
    ///
    /// # Errors
    /// As the system calls.
    pub fn send(&self, pid: i32) -> Result<()> {
        let process = PidFd::open(pid).op(|| format!("open process {pid}"))?;
        let fds = [process.as_fd().as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let name = [IoSlice::new(b"pidfd")];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &name, &rights, flags, None)
            .map(drop)
            .op(|| "send the descriptor of the process over the pidfd socket")
    }
}
