//! Lookup below a root without `openat2`: one component at a time, by descriptor, links read and never followed by
//! the kernel.
//!
//! The directories on the way are kept open, so `..` returns to the descriptor that led here: a directory that is
//! moved elsewhere meanwhile does not take the lookup with it. The text of a magic link (`/proc/<pid>/root`) is
//! resolved like that of any other link, below the root; the jump behind it is never taken.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::{Errno, Result};

/// As many as the kernel follows (`man 7 path_resolution`).
const MAX_LINKS: usize = 40;

/// What is left to resolve, and what has been.
struct Walk<'fd> {
    root: BorrowedFd<'fd>,
    /// Directories below the root, from the outermost.
    stack: Vec<OwnedFd>,
    /// Components to come, the next one last.
    todo: Vec<Vec<u8>>,
    links: usize,
}

/// One component's outcome.
enum Step {
    Found(OwnedFd),
    Further,
}

/// Opens `path` as seen from `root`.
pub(super) fn open(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    let mut walk = Walk {
        root,
        stack: Vec::new(),
        todo: Vec::new(),
        links: 0,
    };
    let mut flags = flags;
    walk.push(path, &mut flags);
    while let Some(part) = walk.todo.pop() {
        if part == b".." {
            walk.stack.pop();
        } else if let Step::Found(fd) = walk.step(part, &mut flags, mode)? {
            return Ok(fd);
        }
    }
    if flags.contains(OFlags::CREATE | OFlags::EXCL) {
        return Err(Errno::EXIST);
    }
    openat(
        walk.here(),
        ".",
        flags.difference(OFlags::CREATE),
        Mode::empty(),
    )
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root, AsFd::as_fd)
    }

    fn push(&mut self, path: &[u8], flags: &mut OFlags) {
        // Only a directory is meant by `name/` and `name/.`.
        if self.todo.is_empty() && (path.ends_with(b"/") || path.ends_with(b"/.")) {
            flags.insert(OFlags::DIRECTORY);
        }
        let parts = path.split(|byte| *byte == b'/').rev();
        let parts = parts.filter(|part| !part.is_empty() && *part != b".");
        self.todo.extend(parts.map(<[u8]>::to_vec));
    }

    fn step(&mut self, part: Vec<u8>, flags: &mut OFlags, mode: Mode) -> Result<Step> {
        let last = self.todo.is_empty();
        let probe = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = match openat(self.here(), part.as_slice(), probe, Mode::empty()) {
            Err(Errno::NOENT) if last && flags.contains(OFlags::CREATE) => {
                let created = openat(
                    self.here(),
                    part.as_slice(),
                    *flags | OFlags::NOFOLLOW,
                    mode,
                );
                return created.map(Step::Found);
            }
            other => other?,
        };
        let kind = FileType::from_raw_mode(fstat(&entry)?.st_mode);
        if last && flags.contains(OFlags::CREATE | OFlags::EXCL) {
            return Err(Errno::EXIST);
        }
        if kind == FileType::Symlink && !(last && flags.contains(OFlags::NOFOLLOW)) {
            return self.follow(&entry, flags);
        }
        if last {
            return self.finish(part, entry, kind, *flags, mode);
        }
        if kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        self.stack.push(entry);
        Ok(Step::Further)
    }

    fn follow(&mut self, link: &OwnedFd, flags: &mut OFlags) -> Result<Step> {
        self.count()?;
        let text = readlinkat(link, "", Vec::new())?;
        if text.as_bytes().is_empty() {
            return Err(Errno::NOENT);
        }
        if text.as_bytes().starts_with(b"/") {
            self.stack.clear();
        }
        self.push(text.as_bytes(), flags);
        Ok(Step::Further)
    }

    fn finish(
        &mut self,
        part: Vec<u8>,
        entry: OwnedFd,
        kind: FileType,
        flags: OFlags,
        mode: Mode,
    ) -> Result<Step> {
        if flags.contains(OFlags::DIRECTORY) && kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        if flags.contains(OFlags::PATH) {
            return Ok(Step::Found(entry));
        }
        match openat(self.here(), part.as_slice(), flags | OFlags::NOFOLLOW, mode) {
            // The entry became a link since it was looked at.
            Err(Errno::LOOP) if !flags.contains(OFlags::NOFOLLOW) => {
                self.count()?;
                self.todo.push(part);
                Ok(Step::Further)
            }
            other => other.map(Step::Found),
        }
    }

    fn count(&mut self) -> Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        Ok(())
    }
}
