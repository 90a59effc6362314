//! A directory that stands for somebody's `/`: of the machine, of a driver installation, of the one that `/dev` is in.
//!
//! Paths are looked up as a process that has this directory as its root would see them (`man 2 openat2`,
//! `RESOLVE_IN_ROOT`): a link of a driver container leads nowhere outside of it.

mod facts;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fleet_rootfs::root::{FileType, OFlags, Root, Stat, clean};
use glob::Pattern;
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

pub use facts::{Compare, Facts};
use facts::{Journal, Query};

/// What a device node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStat {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Group.
    pub gid: u32,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The path without links.
    pub path: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A directory that stands for `/`.
#[derive(Debug)]
pub struct Tree {
    fd: OwnedFd,
    real: PathBuf,
    prefix: String,
    nodes: BTreeMap<String, NodeStat>,
    journal: Option<Journal>,
}

impl Tree {
    /// Opens the directory `at`, whose files the reader of a spec finds below `prefix` (`/` or empty for none).
    ///
    /// # Errors
    /// It is no directory, or cannot be searched.
    pub fn open(at: &Path, prefix: &str) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(at)?;
        let prefix = clean(prefix);
        let tree = Self {
            real: std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?,
            fd: fd.into(),
            prefix: prefix.trim_end_matches('/').to_owned(),
            nodes: BTreeMap::new(),
            journal: None,
        };
        Ok(tree)
    }

    /// Lets plain files stand for device nodes, for tests and trees made without privileges.
    #[must_use]
    pub fn with_nodes(mut self, nodes: BTreeMap<String, NodeStat>) -> Self {
        self.nodes = nodes;
        self
    }

    fn root(&self) -> Root<'_> {
        Root::new(self.fd.as_fd())
    }

    /// Whether the tree is the reader's own `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.prefix.is_empty()
    }

    /// Where the reader of a spec finds the tree; empty for `/`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where the reader of a spec finds a path of the tree.
    #[must_use]
    pub fn host(&self, path: &str) -> String {
        format!("{}{}", self.prefix, clean(path))
    }

    /// Where this process finds a path of the tree whose links are resolved.
    #[must_use]
    pub fn real(&self, path: &str) -> PathBuf {
        self.real.join(clean(path).trim_start_matches('/'))
    }

    /// Looks a path up once, every link followed within the tree.
    ///
    /// # Errors
    /// A component is missing, or links go round in circles.
    pub fn look(&self, path: &str) -> io::Result<Found> {
        let found = self.look_up(path);
        if let Some(journal) = &self.journal {
            let in_place = found.as_ref().is_ok_and(|found| found.path == path);
            if !(in_place && journal.has_directory_of(path)) {
                let value = of(&found, |found| facts::of_target(&found.path, found.is_dir));
                journal.note(Query::Leads, path, value);
            }
        }
        found
    }

    fn look_up(&self, path: &str) -> io::Result<Found> {
        let fd = self.root().open(path, OFlags::PATH)?;
        let real = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        let below = real
            .strip_prefix(&self.real)
            .map_err(|_| io::Error::other("was moved while it was looked at"))?;
        let Some(below) = below.to_str() else {
            return Err(io::Error::other("has a name that is not UTF-8"));
        };
        let meta = File::from(fd).metadata()?;
        Ok(Found {
            path: format!("/{below}"),
            is_dir: meta.is_dir(),
        })
    }

    /// The path with every link followed within the tree.
    ///
    /// # Errors
    /// As [`Tree::look`].
    pub fn resolve(&self, path: &str) -> io::Result<String> {
        Ok(self.look(path)?.path)
    }

    fn stat(&self, path: &str) -> Option<Stat> {
        let stat = self.root().stat(path);
        if let Some(journal) = &self.journal {
            journal.note(Query::Kind, path, of(&stat, facts::of_kind));
        }
        stat.ok()
    }

    /// Whether the path leads to something that is no directory.
    #[must_use]
    pub fn is_file(&self, path: &str) -> bool {
        self.stat(path)
            .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
    }

    /// Whether the path leads to a directory.
    #[must_use]
    pub fn is_dir(&self, path: &str) -> bool {
        self.stat(path)
            .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// Whether the path leads to a file with an execute bit.
    #[must_use]
    pub fn is_program(&self, path: &str) -> bool {
        self.stat(path).is_some_and(|stat| {
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            !is_dir && stat.st_mode & 0o111 != 0
        })
    }

    /// Whether the name itself is a directory that belongs to root and that only root can change.
    #[must_use]
    pub fn is_roots_directory(&self, path: &str) -> bool {
        let fd = self.root().open(path, OFlags::PATH | OFlags::NOFOLLOW);
        let meta = fd.and_then(|fd| File::from(fd).metadata());
        let is_roots = meta.is_ok_and(|meta| meta.is_dir() && meta.uid() == 0);
        if let Some(journal) = &self.journal {
            journal.note(Query::Roots, path, Ok(facts::of_text(is_roots)));
        }
        is_roots
    }

    /// Whether the path leads anywhere.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.stat(path).is_some()
    }

    /// Whether the name itself is a link, wherever it leads.
    #[must_use]
    pub fn is_link(&self, path: &str) -> bool {
        self.read_link(path).is_ok()
    }

    /// The text of a link.
    ///
    /// # Errors
    /// It is no link.
    pub fn read_link(&self, path: &str) -> io::Result<String> {
        let text = self.root().read_link(path);
        if let Some(journal) = &self.journal
            && !journal.has_directory_of(path)
        {
            journal.note(Query::Link, path, of(&text, |text| facts::of_text(text)));
        }
        text
    }

    /// Names in a directory, sorted, and device and inode, which tell a directory that is reached by two paths.
    ///
    /// # Errors
    /// It is missing or cannot be read.
    pub fn directory(&self, path: &str) -> io::Result<(Vec<String>, (u64, u64))> {
        let found = self.read_directory(path);
        if let Some(journal) = &self.journal {
            match journal.is_by_content() {
                true => journal.note(
                    Query::Names,
                    path,
                    of(&found, |(names, _)| facts::of_text(names)),
                ),
                false => {
                    // From before the names were read: what came later is noticed.
                    if let Ok((_, stat)) = &found {
                        journal.note_time(stat);
                    }
                    let value = of(&found, |(_, stat)| facts::of_identity(stat));
                    journal.note(Query::Directory, path, value);
                }
            }
        }
        found.map(|(names, stat)| (names, (stat.st_dev, stat.st_ino)))
    }

    fn read_directory(&self, path: &str) -> io::Result<(Vec<String>, Stat)> {
        let directory = self.root().directory(path)?;
        let stat = directory.stat()?;
        let names = directory.entries()?.into_iter().map(|(name, _)| name);
        Ok((names.collect(), stat))
    }

    /// A file for reading.
    ///
    /// # Errors
    /// It is missing, no regular file, or cannot be read.
    pub fn file(&self, path: &str) -> io::Result<File> {
        self.note_file(path);
        self.root().open_file(path)
    }

    fn note_file(&self, path: &str) {
        let Some(journal) = &self.journal else { return };
        let stat = self.root().stat(path);
        if let Ok(stat) = &stat {
            journal.note_time(stat);
        }
        journal.note(Query::File, path, of(&stat, facts::of_identity));
    }

    /// A small file's bytes.
    ///
    /// # Errors
    /// It is missing, no regular file, cannot be read, or is longer than `limit`.
    pub fn bytes(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        self.note_file(path);
        self.root().read(path, limit)
    }

    /// A small text file. What is not UTF-8 in it is replaced.
    ///
    /// # Errors
    /// As [`Tree::bytes`].
    pub fn text(&self, path: &str) -> io::Result<String> {
        let bytes = self.root().read(path, TEXT_LIMIT);
        if let Some(journal) = &self.journal {
            journal.note(
                Query::Content,
                path,
                of(&bytes, |bytes| facts::of_text(bytes)),
            );
        }
        let bytes = bytes?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Names in a directory, sorted.
    ///
    /// # Errors
    /// It is missing or cannot be read.
    pub fn names(&self, dir: &str) -> io::Result<Vec<String>> {
        Ok(self.directory(dir)?.0)
    }

    /// Paths that match a shell pattern, sorted within each directory; links are not followed at the end. What cannot
    /// be read matches nothing.
    #[must_use]
    pub fn glob(&self, pattern: &str) -> Vec<String> {
        let mut found = vec![String::new()];
        for part in clean(pattern).split('/').filter(|part| !part.is_empty()) {
            found = match wildcard(part) {
                None => found.into_iter().map(|at| format!("{at}/{part}")).collect(),
                Some(pattern) => found
                    .iter()
                    .flat_map(|at| self.matching(at, &pattern))
                    .collect(),
            };
        }
        found.retain(|path| self.has_name(path));
        found
    }

    fn has_name(&self, path: &str) -> bool {
        let fd = self.root().open(path, OFlags::PATH | OFlags::NOFOLLOW);
        if let Some(journal) = &self.journal
            && !journal.has_directory_of(path)
        {
            // Asked for again as if it were followed, which tells no less.
            let value = self.root().stat(path);
            journal.note(Query::Kind, path, of(&value, facts::of_kind));
        }
        fd.is_ok()
    }

    /// Paths in `dir` whose names match.
    pub(crate) fn matching(&self, dir: &str, pattern: &Pattern) -> Vec<String> {
        let at = if dir.is_empty() { "/" } else { dir };
        let names = self.names(at).unwrap_or_default();
        let dir = dir.trim_end_matches('/');
        let names = names.iter().filter(|name| pattern.matches(name));
        names.map(|name| format!("{dir}/{name}")).collect()
    }

    /// A character device, links not followed; `None` for anything else.
    ///
    /// # Errors
    /// It is missing or cannot be looked at.
    pub fn node(&self, path: &str) -> io::Result<Option<NodeStat>> {
        let node = self.read_node(path);
        if let Some(journal) = &self.journal {
            journal.note(Query::Node, path, of(&node, |node| facts::of_node(*node)));
        }
        node
    }

    fn read_node(&self, path: &str) -> io::Result<Option<NodeStat>> {
        if let Some(stat) = self.nodes.get(path) {
            return Ok(Some(*stat));
        }
        let fd = self.root().open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let stat = File::from(fd).metadata()?;
        if !stat.file_type().is_char_device() {
            return Ok(None);
        }
        let number = |part: u64| {
            u32::try_from(part).map_err(|_| io::Error::other("has an absurd device number"))
        };
        Ok(Some(NodeStat {
            major: number(major(stat.rdev()))?,
            minor: number(minor(stat.rdev()))?,
            mode: stat.mode() & 0o7777,
            gid: stat.gid(),
        }))
    }
}

/// What a finding is known by again.
fn of<T>(found: &io::Result<T>, value: impl FnOnce(&T) -> u64) -> io::Result<u64> {
    match found {
        Ok(found) => Ok(value(found)),
        Err(err) => Err(match err.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => err.kind().into(),
        }),
    }
}

/// More than any text file of the driver or of proc that is read here.
const TEXT_LIMIT: u64 = 1024 * 1024;

/// A path component as a pattern, if it is one. Go's negation `[^…]` is the shell's `[!…]`.
pub(crate) fn wildcard(part: &str) -> Option<Pattern> {
    if !part.contains(['*', '?', '[']) {
        return None;
    }
    Pattern::new(&part.replace("[^", "[!")).ok()
}
