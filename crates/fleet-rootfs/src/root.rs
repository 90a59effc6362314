//! File operations below a root directory, by descriptor.
//!
//! A path is resolved once, to a descriptor; what is done next is done to that descriptor, or to a single name in a
//! directory that was resolved. `pathrs` offers the same and comes with libcontainer, but opens a procfs handle
//! for itself first; `openat2` alone is enough here, since the kernel that the runtime needs anyway (5.12) has it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::sys::open_in_root;

/// A root directory that nothing leaves.
#[derive(Debug, Clone, Copy)]
pub struct Root<'fd>(BorrowedFd<'fd>);

/// A resolved directory and a name in it.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: CString,
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Cleans a path lexically; the result is absolute and free of `..`.
#[must_use]
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

impl<'fd> Root<'fd> {
    /// Takes the directory behind `fd` as root.
    #[must_use]
    pub fn new(fd: BorrowedFd<'fd>) -> Self {
        Self(fd)
    }

    /// Opens an existing file or directory.
    ///
    /// # Errors
    /// As `man 2 openat2`.
    pub fn open(&self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        open_in_root(self.0, c_string(path)?.as_c_str(), flags.bits(), 0)
    }

    /// Follows `path` to what it names and returns its attributes.
    ///
    /// # Errors
    /// As `man 2 openat2`.
    pub fn stat(&self, path: &str) -> io::Result<FileStat> {
        Ok(fstat(self.open(path, OFlag::O_PATH)?.as_raw_fd())?)
    }

    /// Whether `path` names something.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.open(path, OFlag::O_PATH).is_ok()
    }

    /// Opens a regular file for reading; anything else (a FIFO would block) is `EINVAL`.
    ///
    /// # Errors
    /// As `man 2 openat2`.
    pub fn open_file(&self, path: &str) -> io::Result<File> {
        let fd = self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        if SFlag::from_bits_truncate(fstat(fd.as_raw_fd())?.st_mode) & SFlag::S_IFMT
            != SFlag::S_IFREG
        {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(File::from(fd))
    }

    /// Reads a regular file of at most `limit` bytes; a larger one is `EFBIG`.
    ///
    /// # Errors
    /// As `man 2 openat2`.
    pub fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self
            .open_file(path)?
            .take(limit + 1)
            .read_to_end(&mut bytes)?;
        if u64::try_from(read).unwrap_or(u64::MAX) > limit {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        Ok(bytes)
    }

    /// Names in a directory with their type as the directory tells it, sorted.
    ///
    /// # Errors
    /// As `man 2 openat2`.
    pub fn list(&self, path: &str) -> io::Result<Vec<(String, SFlag)>> {
        let fd = self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let mut names = Vec::new();
        let copy = fd.try_clone()?;
        for entry in Dir::from(fd)?.iter() {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            let kind = fstatat(Some(copy.as_raw_fd()), name, AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_or(SFlag::empty(), |stat| {
                    SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT)
                });
            names.push((name.to_owned(), kind));
        }
        names.sort();
        Ok(names)
    }

    /// Makes a directory and its parents, 0755, and opens it.
    ///
    /// # Errors
    /// `ENOTDIR` when something else is in the way.
    pub fn make_directory(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        if let Ok(fd) = self.open(path, flags) {
            return Ok(fd);
        }
        let mut at = String::new();
        let mut directory = self.open("/", flags)?;
        for part in clean(path).split('/').filter(|part| !part.is_empty()) {
            at = format!("{at}/{part}");
            match self.open(&at, flags) {
                Ok(next) => directory = next,
                Err(err) if err.raw_os_error() == Some(libc::ENOENT) => {
                    match mkdirat(
                        Some(directory.as_raw_fd()),
                        part,
                        Mode::from_bits_truncate(0o755),
                    ) {
                        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                    directory = self.open(&at, flags)?;
                }
                Err(err) => return Err(err),
            }
        }
        Ok(directory)
    }

    /// Resolves the directory of `path`, making it when missing, and keeps the last name as it is.
    ///
    /// # Errors
    /// `EINVAL` for the root itself.
    pub fn place(&self, path: &str) -> io::Result<Place> {
        let path = clean(path);
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path.as_str()));
        if name.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let directory = self.make_directory(if parent.is_empty() { "/" } else { parent })?;
        Ok(Place {
            directory,
            name: c_string(name)?,
        })
    }

    /// Writes a file in one step: readers see the old content or the new, never half. Unchanged content is left.
    ///
    /// # Errors
    /// As `man 2 renameat`; nothing is left behind.
    pub fn replace(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let same = self
            .read(path, u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            .is_ok_and(|old| old == bytes);
        if same {
            return Ok(());
        }
        self.place(path)?.replace_file(bytes, mode)
    }
}

/// Tells temporary names of one process apart.
static COUNTER: AtomicU32 = AtomicU32::new(0);

impl Place {
    fn temporary(&self) -> io::Result<CString> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = self.name.to_string_lossy();
        let short: String = name.chars().take(64).collect();
        c_string(&format!(".{short}.fleet-{}-{number}", std::process::id()))
    }

    /// What the name is now, without following it.
    #[must_use]
    pub fn kind(&self) -> Option<SFlag> {
        let stat = fstatat(
            Some(self.directory.as_raw_fd()),
            self.name.as_c_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .ok()?;
        Some(SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT))
    }

    /// The text of the link that the name is, if it is one.
    #[must_use]
    pub fn link_text(&self) -> Option<String> {
        readlinkat(Some(self.directory.as_raw_fd()), self.name.as_c_str())
            .ok()?
            .into_string()
            .ok()
    }

    /// Makes the name a link to `target`, replacing anything but a directory, in one step.
    ///
    /// # Errors
    /// As `man 2 renameat`.
    pub fn replace_link(&self, target: &str) -> io::Result<()> {
        let temporary = self.temporary()?;
        symlinkat(
            target,
            Some(self.directory.as_raw_fd()),
            temporary.as_c_str(),
        )?;
        self.put(&temporary)
    }

    fn replace_file(&self, bytes: &[u8], mode: u32) -> io::Result<()> {
        let temporary = self.temporary()?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        // One name in a directory that is held: there is nothing left to resolve.
        let fd = open_in_root(self.directory.as_fd(), &temporary, flags.bits(), 0o600)?;
        let mut file = File::from(fd);
        let written = file.write_all(bytes).and_then(|()| {
            nix::sys::stat::fchmod(file.as_raw_fd(), Mode::from_bits_truncate(mode))
                .map_err(io::Error::from)
        });
        match written {
            Ok(()) => self.put(&temporary),
            Err(err) => {
                self.discard(&temporary);
                Err(err)
            }
        }
    }

    fn put(&self, temporary: &CString) -> io::Result<()> {
        let directory = Some(self.directory.as_raw_fd());
        renameat(
            directory,
            temporary.as_c_str(),
            directory,
            self.name.as_c_str(),
        )
        .map_err(|errno| {
            self.discard(temporary);
            io::Error::from(errno)
        })
    }

    fn discard(&self, temporary: &CString) {
        let _ = unlinkat(
            Some(self.directory.as_raw_fd()),
            temporary.as_c_str(),
            UnlinkatFlags::NoRemoveDir,
        );
    }
}

/// Reads exactly `length` bytes at `offset`, or nothing.
pub(crate) fn read_at(file: &File, offset: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// A root directory that goes away with the test.
    pub(crate) struct Tree {
        pub(crate) path: PathBuf,
        pub(crate) fd: File,
    }

    impl Tree {
        pub(crate) fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("fleet-rootfs-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&path));
            fs::create_dir_all(path.join("root")).unwrap();
            let fd = File::open(path.join("root")).unwrap();
            Self {
                path: path.join("root"),
                fd,
            }
        }

        pub(crate) fn root(&self) -> Root<'_> {
            Root::new(self.fd.as_fd())
        }

        pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
            let path = self.path.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        pub(crate) fn read(&self, path: &str) -> String {
            fs::read_to_string(self.path.join(path.trim_start_matches('/'))).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(self.path.parent().unwrap()));
        }
    }

    #[test]
    fn links_stay_inside() {
        let tree = Tree::new("inside");
        fs::write(tree.path.parent().unwrap().join("secret"), "host").unwrap();
        symlink("../secret", tree.path.join("up")).unwrap();
        symlink("/../../../../etc", tree.path.join("etc")).unwrap();
        assert!(tree.root().read("/up", 100).is_err());
        // `/etc` of the root does not exist, so the link leads nowhere.
        assert!(
            tree.root().replace("/etc/x", b"1", 0o644).is_err() || tree.path.join("etc/x").exists()
        );
        assert!(!PathBuf::from("/etc/x").exists());
    }

    #[test]
    fn replace_is_idempotent_and_leaves_nothing() {
        let tree = Tree::new("replace");
        tree.root().replace("/a/b/c", b"one", 0o640).unwrap();
        tree.root().replace("/a/b/c", b"two", 0o644).unwrap();
        tree.root().replace("/a/b/c", b"two", 0o644).unwrap();
        assert_eq!(tree.read("a/b/c"), "two");
        assert_eq!(fs::read_dir(tree.path.join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn only_regular_files_are_read() {
        let tree = Tree::new("fifo");
        nix::unistd::mkfifo(&tree.path.join("pipe"), Mode::S_IRWXU).unwrap();
        assert!(tree.root().read("/pipe", 10).is_err());
        tree.write("big", [0; 20]);
        assert_eq!(
            tree.root().read("/big", 10).unwrap_err().raw_os_error(),
            Some(libc::EFBIG)
        );
    }
}
