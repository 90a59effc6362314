//! The container's terminal: made in its own devpts, owned by its user, sized, and handed to the engine.

use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{fstat, major, minor};
use nix::unistd::{Gid, Uid, dup2, fchown};

use super::mounts::make_target;
use crate::error::{Context, Error, Result};
use crate::sys::mount::{attach_tree, clone_object};
use crate::sys::process::{WindowSize, open_slave, set_controlling_terminal, set_window_size};

/// `/dev/ptmx` is 5:2 (kernel `devices.txt`).
const PTMX: (u64, u64) = (5, 2);

/// Where the terminal's master goes and how the slave is set up.
#[derive(Debug)]
pub struct Console {
    /// A connected Unix stream socket that takes the master by `SCM_RIGHTS`.
    pub socket: OwnedFd,
    /// Initial size.
    pub size: Option<WindowSize>,
    /// Also show it as `/dev/console` (the first process only).
    pub bind: bool,
    /// User id inside the container.
    pub owner: u32,
}

impl Console {
    /// Makes the terminal, sends the master and makes the slave this process's stdio and controlling terminal.
    ///
    /// # Errors
    /// The step that failed.
    pub fn open(&self) -> Result<()> {
        let master = open_master()?;
        let slave = open_slave(master.as_fd()).op(|| "open the terminal's slave")?;
        if let Some(size) = &self.size {
            set_window_size(slave.as_fd(), size).op(|| "set the terminal's size")?;
        }
        // The slave belongs to the user, so that `tty`, `mesg` and re-opening it work without root.
        match fchown(
            slave.as_raw_fd(),
            Some(Uid::from_raw(self.owner)),
            None::<Gid>,
        ) {
            Ok(()) | Err(nix::errno::Errno::EPERM | nix::errno::Errno::EINVAL) => {}
            Err(errno) => return Err(errno).op(|| "set the terminal's owner"),
        }
        if self.bind {
            make_target("/dev/console", false).op(|| "make /dev/console")?;
            let target = fs::File::options()
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
                .open("/dev/console");
            let target = target.op(|| "open /dev/console")?;
            let tree = clone_object(slave.as_fd()).op(|| "bind the terminal on /dev/console")?;
            attach_tree(tree.as_fd(), target.as_fd()).op(|| "bind the terminal on /dev/console")?;
        }
        send(&self.socket, &master)?;
        set_controlling_terminal(slave.as_fd()).op(|| "take the controlling terminal")?;
        for fd in 0..=2 {
            dup2(slave.as_raw_fd(), fd).op(|| "make the terminal stdio")?;
        }
        Ok(())
    }
}

/// Sends a terminal's master to who waits for it.
///
/// # Errors
/// As `man 2 sendmsg`.
pub(crate) fn send(socket: &OwnedFd, master: &OwnedFd) -> Result<()> {
    let fds = [master.as_raw_fd()];
    let text = [IoSlice::new(b"/dev/ptmx")];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &text, &rights, MsgFlags::empty(), None)
        .map(drop)
        .op(|| "send the terminal over the console socket")
}

/// The image must not slip us another device (CVE-2025-52565): only a real ptmx is accepted.
fn open_master() -> Result<OwnedFd> {
    let open = |path: &str| {
        fs::File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NOFOLLOW)
            .open(path)
    };
    let file = match open("/dev/pts/ptmx") {
        Err(err) if err.kind() == io::ErrorKind::NotFound => open("/dev/ptmx"),
        other => other,
    }
    .op(|| "open a terminal in the container's /dev/pts")?;
    let device = fstat(file.as_raw_fd()).op(|| "stat the terminal")?.st_rdev;
    if (major(device), minor(device)) != PTMX {
        return Err(Error::Setup(
            "`/dev/pts/ptmx` of the container is not a terminal multiplexer: refused".to_owned(),
        ));
    }
    Ok(file.into())
}
