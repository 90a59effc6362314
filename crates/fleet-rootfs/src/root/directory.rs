//! A directory that is held open, and what is done to single names in it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, openat, readlinkat, renameat,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

/// More entries than a directory of libraries has; a larger one is refused with `E2BIG` rather than read.
const MAX_ENTRIES: usize = 100_000;
/// Left-over temporary names of a killed process that are stepped over.
const MAX_TRIES: u32 = 1000;

/// A directory below a root, resolved once: nothing that is renamed meanwhile leads an operation elsewhere.
#[derive(Debug)]
pub struct Directory(OwnedFd);

/// Tells temporary names of one process apart.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A name that stays in its directory.
fn single(name: &str) -> io::Result<&str> {
    if matches!(name, "" | "." | "..") || name.contains('/') {
        return Err(Errno::INVAL.into());
    }
    Ok(name)
}

impl Directory {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Device and inode, which tell one directory reached by two paths.
    ///
    /// # Errors
    /// As `man 2 fstat`.
    pub fn id(&self) -> io::Result<(u64, u64)> {
        let stat = fstat(&self.0)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Its attributes.
    ///
    /// # Errors
    /// As `man 2 fstat`.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(fstat(&self.0)?)
    }

    /// Names in the directory with their own type (a link is a link), sorted. Names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// As `man 2 getdents`; `E2BIG` above 100 000 entries.
    pub fn entries(&self) -> io::Result<Vec<(String, FileType)>> {
        let mut names = Vec::new();
        self.each(|name, kind| names.push((name.to_owned(), kind)))?;
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(names)
    }

    /// Calls `visit` for each of [`Directory::entries`], in the order of the file system.
    ///
    /// # Errors
    /// As [`Directory::entries`].
    pub fn each(&self, mut visit: impl FnMut(&str, FileType)) -> io::Result<()> {
        for (count, entry) in Dir::read_from(&self.0)?.enumerate() {
            let entry = entry?;
            if count == MAX_ENTRIES {
                return Err(Errno::TOOBIG.into());
            }
            match entry.file_name().to_str() {
                Err(_) | Ok("." | "..") => {}
                Ok(name) => match entry.file_type() {
                    // Some file systems do not tell.
                    FileType::Unknown => visit(name, self.kind(name)?.unwrap_or(FileType::Unknown)),
                    kind => visit(name, kind),
                },
            }
        }
        Ok(())
    }

    /// What the name is, without following it.
    ///
    /// # Errors
    /// As `man 2 fstatat`; a name that is missing is `None`.
    pub fn kind(&self, name: &str) -> io::Result<Option<FileType>> {
        match statat(&self.0, single(name)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(err) => Err(err.into()),
        }
    }

    /// Opens the name for reading, never through a link; a FIFO does not block.
    ///
    /// # Errors
    /// As `man 2 openat`; `ELOOP` for a link.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(openat(&self.0, single(name)?, flags, Mode::empty())?.into())
    }

    /// The text of the link that the name is; `None` when it is missing, no link, or its text is not UTF-8.
    ///
    /// # Errors
    /// As `man 2 readlinkat`.
    pub fn read_link(&self, name: &str) -> io::Result<Option<String>> {
        match readlinkat(&self.0, single(name)?, Vec::new()) {
            Ok(text) => Ok(text.into_string().ok()),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(err) => Err(err.into()),
        }
    }

    /// Makes the name a link to `target`.
    ///
    /// # Errors
    /// As `man 2 symlinkat`; `EEXIST` when the name is taken.
    pub fn make_link(&self, target: &str, name: &str) -> io::Result<()> {
        Ok(symlinkat(target, &self.0, single(name)?)?)
    }

    /// Makes the name a link to `target` in one step, replacing anything but a directory.
    ///
    /// # Errors
    /// As `man 2 renameat`; `EISDIR` for a directory, `EBUSY` for a mount in its place.
    pub fn replace_link(&self, target: &str, name: &str) -> io::Result<()> {
        let ((), temporary) = self.temporary(single(name)?, |temporary| {
            symlinkat(target, &self.0, temporary)
        })?;
        self.put(&temporary, name)
    }

    /// Writes a file in one step: readers see the old content or the new, never half.
    ///
    /// # Errors
    /// As `man 2 renameat`; nothing is left behind.
    pub fn replace_file(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (fd, temporary) = self.temporary(single(name)?, |temporary| {
            openat(&self.0, temporary, flags, Mode::from_raw_mode(0o600))
        })?;
        let mut file = File::from(fd);
        let written = file.write_all(bytes).and_then(|()| {
            // The mode given to `open` is cut by the umask.
            fchmod(&file, Mode::from_raw_mode(mode)).map_err(io::Error::from)
        });
        match written {
            Ok(()) => self.put(&temporary, name),
            Err(err) => {
                self.discard(&temporary);
                Err(err)
            }
        }
    }

    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// As `man 2 unlinkat`.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, single(name)?, AtFlags::empty())?)
    }

    /// Makes something under a new name beside `name`. In a process id namespace the id alone tells nothing apart,
    /// and a killed process may have left its own behind.
    fn temporary<T>(
        &self,
        name: &str,
        make: impl Fn(&str) -> rustix::io::Result<T>,
    ) -> io::Result<(T, String)> {
        let short: String = name.chars().take(40).collect();
        for _ in 0..MAX_TRIES {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let temporary = format!(".{short}.fleet-{}-{number}", std::process::id());
            match make(&temporary) {
                Ok(made) => return Ok((made, temporary)),
                Err(Errno::EXIST) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Err(Errno::EXIST.into())
    }

    fn put(&self, temporary: &str, name: &str) -> io::Result<()> {
        renameat(&self.0, temporary, &self.0, name).map_err(|err| {
            self.discard(temporary);
            err.into()
        })
    }

    fn discard(&self, temporary: &str) {
        // The failure that led here is the one worth telling.
        let _ = unlinkat(&self.0, temporary, AtFlags::empty());
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::tests::Tree;

    #[test]
    fn left_over_temporary_names_are_stepped_over() {
        let tree = Tree::new("left-over");
        let next = COUNTER.load(Ordering::Relaxed);
        for number in next..next + 500 {
            tree.write(&format!(".x.fleet-{}-{number}", std::process::id()), "");
        }
        let directory = tree.root().directory("/").unwrap();
        directory.replace_file("x", b"1", 0o644).unwrap();
        directory.replace_link("t", "x").unwrap();
        assert_eq!(directory.read_link("x").unwrap().as_deref(), Some("t"));
        assert_eq!(directory.entries().unwrap().len(), 501);
    }

    #[test]
    fn a_file_that_cannot_be_put_leaves_nothing() {
        let tree = Tree::new("discard");
        std::fs::create_dir(tree.path.join("x")).unwrap();
        let directory = tree.root().directory("/").unwrap();
        for failed in [
            directory.replace_file("x", b"1", 0o644),
            directory.replace_link("t", "x"),
        ] {
            assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::EISDIR));
        }
        assert_eq!(directory.entries().unwrap().len(), 1);
    }
}
