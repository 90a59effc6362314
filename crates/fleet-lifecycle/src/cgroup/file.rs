//! Reading and writing one file of a cgroup.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Writes a value in one call. Never asks for the file to be created: the kernel answers that with EACCES, which
/// would hide that the file is missing.
pub(super) fn put(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

/// Waits until `line` is in an events file (`cgroup.events`): the kernel wakes pollers on each change
/// (`cgroup-v2.rst`). False when that took longer than `end`.
pub(super) fn wait_for_line(events: &Path, line: &str, end: Instant) -> io::Result<bool> {
    let file = File::open(events)?;
    let mut buffer = [0_u8; 256];
    loop {
        let length = file.read_at(&mut buffer, 0)?;
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        if text.lines().any(|known| known == line) {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // Bounded, so that a wake-up that never comes costs little.
        let turn = PollTimeout::try_from(
            left.min(Duration::from_millis(100))
                .max(Duration::from_millis(1)),
        );
        let mut entry = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut entry, turn.unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A file's first number; `None` for `max`, text and absent files.
pub(super) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path)
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_not_made() {
        let dir = std::env::temp_dir().join(format!("fleet-put-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(
            put(&dir.join("x"), "1").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        fs::write(dir.join("x"), "").unwrap();
        put(&dir.join("x"), "7").unwrap();
        assert_eq!(number(&dir.join("x")), Some(7));
        assert_eq!(number(&dir.join("y")), None);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn waiting_ends() {
        let path = std::env::temp_dir().join(format!("fleet-wait-{}", std::process::id()));
        fs::write(&path, "populated 1\nfrozen 0\n").unwrap();
        assert!(wait_for_line(&path, "populated 1", Instant::now()).unwrap());
        let start = Instant::now();
        assert!(!wait_for_line(&path, "frozen 1", start + Duration::from_millis(30)).unwrap());
        assert!(start.elapsed() < Duration::from_secs(5));
        fs::remove_file(path).unwrap();
    }
}
