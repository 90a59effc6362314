//! `--preserve-fds`: the caller's descriptors from 3 up that the program keeps.
//!
//! As with crun, not all of the range need be open. What is not is taken by a placeholder that ends with `execve`, so
//! that no descriptor of the runtime's own gets a number there and is handed to the program.

use std::os::fd::RawFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;

use crate::error::{Context, Result};

/// More descriptors than any process may have by default (`/proc/sys/fs/nr_open`).
const MOST: u32 = 1 << 20;

/// Takes the free numbers among the first `count` from 3 up, for as long as this process lives. To be called before
/// anything else is opened: the kernel gives out the lowest number that is free.
///
/// # Errors
/// The number that could not be taken.
pub fn take_range(count: u32) -> Result<()> {
    let end = RawFd::try_from(count.min(MOST)).unwrap_or(0) + 3;
    for fd in 3..end {
        if fcntl(fd, FcntlArg::F_GETFD).is_err() {
            open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
                .op(|| format!("keep descriptor {fd} for `--preserve-fds {count}`"))?;
        }
    }
    Ok(())
}
