//! Mounts and mount changes that the library cannot do, made inside the container after the root was changed.
//!
//! Paths are walked in the container's own root here, so a hostile symbolic link leads nowhere else.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, umount2};

use crate::copyup;
use crate::error::{Context, Error, Result};
use crate::surroundings;
use crate::sys::mount::{Attributes, attr, clone_tree, open_in_root, set_attributes};

pub use super::late::LateMount;
pub(crate) use super::late::stays_a_peer;

/// Largest amount of image content copied into a tmpfs, in bytes.
const COPY_UP_LIMIT: u64 = 1024 * 1024 * 1024;

/// What is left to do about mounts.
#[derive(Debug, Default)]
pub struct Layout {
    /// `/dev` is ours: the scratch one goes away, the late mounts come.
    pub own_dev: bool,
    /// `/dev` is a bind of another directory: nothing is made in it.
    pub bound_dev: bool,
    /// `/dev` becomes read-only once its nodes exist.
    pub read_only_dev: bool,
    /// The root mount follows no links while the library works.
    pub links_withheld: bool,
    /// Mounts withheld from the library, in spec order.
    pub late: Vec<LateMount>,
    /// Changes to mounts that the library made.
    pub fixups: Vec<Fixup>,
    /// Directories whose image content is copied into the tmpfs over them.
    pub copy_up: Vec<String>,
}

impl Layout {
    /// Does it all.
    ///
    /// # Errors
    /// The mount that failed, by destination.
    pub fn apply(&self) -> Result<()> {
        if self.links_withheld {
            surroundings::follow_links(Path::new("/"))?;
        }
        if self.own_dev {
            umount2("/dev", MntFlags::MNT_DETACH).op(|| "unmount the scratch /dev")?;
        }
        self.late.iter().try_for_each(LateMount::make)?;
        if !self.copy_up.is_empty() {
            self.copy_up()?;
        }
        self.fixups.iter().try_for_each(Fixup::apply)
    }

    /// A copy of the root mount alone shows what the tmpfs mounts cover.
    fn copy_up(&self) -> Result<()> {
        let lower = clone_tree(c"/", false).op(|| "open the root file system for tmpcopyup")?;
        for to in &self.copy_up {
            let path = c_path(to)?;
            let source =
                match open_in_root(lower.as_fd(), &path, libc::O_RDONLY | libc::O_DIRECTORY) {
                    Ok(fd) => fd,
                    Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                    Err(source) => {
                        return Err(Error::Io {
                            op: format!("tmpcopyup `{to}`"),
                            source,
                        });
                    }
                };
            let target = fs::File::open(to).op(|| format!("tmpcopyup `{to}`"))?;
            copyup::copy_tree(source.as_fd(), target.as_fd(), COPY_UP_LIMIT)
                .map_err(|err| Error::Setup(format!("tmpcopyup `{to}`: {err}")))?;
        }
        Ok(())
    }
}

pub(super) fn c_path(path: &str) -> Result<CString> {
    CString::new(path)
        .map_err(|_| Error::Invalid(format!("path `{}` contains NUL", path.replace('\0', "?"))))
}

/// A change of flags or propagation of one mount.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fixup {
    destination: String,
    propagation: Option<(u64, bool)>,
    set: u64,
    clear: u64,
    recursive_read_only: bool,
    copy_up: bool,
}

const PROPAGATIONS: [(&str, MsFlags, bool); 8] = [
    ("shared", MsFlags::MS_SHARED, false),
    ("rshared", MsFlags::MS_SHARED, true),
    ("slave", MsFlags::MS_SLAVE, false),
    ("rslave", MsFlags::MS_SLAVE, true),
    ("private", MsFlags::MS_PRIVATE, false),
    ("rprivate", MsFlags::MS_PRIVATE, true),
    ("unbindable", MsFlags::MS_UNBINDABLE, false),
    ("runbindable", MsFlags::MS_UNBINDABLE, true),
];

/// Options that ask for a flag of the source to be cleared on a bind.
const CLEARING: [(&str, u64); 4] = [
    ("rw", attr::RDONLY),
    ("suid", attr::NOSUID),
    ("dev", attr::NODEV),
    ("exec", attr::NOEXEC),
];

/// Options with no meaning for the mount itself, or none on any kernel we run on.
const IGNORED: [&str; 10] = [
    "defaults",
    "silent",
    "loud",
    "iversion",
    "noiversion",
    "U",
    "z",
    "Z",
    "notmpcopyup",
    "nofail",
];

/// Superblock options, which a bind cannot change.
const SUPERBLOCK: [&str; 9] = [
    "sync",
    "async",
    "dirsync",
    "mand",
    "nomand",
    "lazytime",
    "nolazytime",
    "acl",
    "noacl",
];

impl Fixup {
    /// No change yet.
    #[must_use]
    pub fn new(destination: &str) -> Self {
        Self {
            destination: destination.to_owned(),
            ..Self::default()
        }
    }

    /// libcontainer 0.7: ignores propagation options (youki#3604). True when `option` is one.
    pub fn take_propagation(&mut self, option: &str) -> bool {
        let known = PROPAGATIONS.iter().find(|(name, ..)| *name == option);
        if let Some((_, flag, recursive)) = known {
            self.propagation = Some((flag.bits(), *recursive));
        }
        known.is_some()
    }

    /// Takes over a mount option that the library cannot do; false leaves it to the library.
    pub fn take(&mut self, option: &str, bind: bool) -> bool {
        if self.take_propagation(option) {
            return true;
        }
        match option {
            "tmpcopyup" => self.copy_up = true,
            "nosymfollow" => self.set |= attr::NOSYMFOLLOW,
            "symfollow" => self.clear |= attr::NOSYMFOLLOW,
            other if IGNORED.contains(&other) => {}
            other if bind && SUPERBLOCK.contains(&other) => {}
            other => {
                if let Some((_, flag)) = CLEARING.iter().find(|(name, _)| bind && *name == other) {
                    // libcontainer 0.7: only ever sets flags on a bind (L25); the option itself does no harm there.
                    self.clear |= flag;
                }
                return false;
            }
        }
        true
    }

    /// libcontainer 0.7: drops `ro` of a cgroup v1 mount (L23).
    pub fn make_read_only(&mut self) {
        self.recursive_read_only = true;
    }

    /// Whether `tmpcopyup` was among the options.
    #[must_use]
    pub fn copy_up(&self) -> bool {
        self.copy_up
    }

    /// Whether there is anything to do.
    #[must_use]
    pub fn needed(&self) -> bool {
        self.propagation.is_some() || self.set | self.clear != 0 || self.recursive_read_only
    }

    pub(super) fn apply(&self) -> Result<()> {
        let path = c_path(&self.destination)?;
        let root = fs::File::open("/").op(|| "open /")?;
        let mount = open_in_root(root.as_fd(), &path, libc::O_PATH)
            .op(|| format!("mount `{}`", self.destination))?;
        let change = |what: Attributes, word: &str| {
            set_attributes(mount.as_fd(), what)
                .op(|| format!("set {word} of mount `{}`", self.destination))
        };
        if self.set != 0 {
            change(
                Attributes {
                    set: self.set,
                    ..Attributes::default()
                },
                "flags",
            )?;
        }
        if self.clear != 0 {
            // A flag that a less privileged owner may not clear stays, as with the peers.
            drop(set_attributes(
                mount.as_fd(),
                Attributes {
                    clear: self.clear,
                    ..Attributes::default()
                },
            ));
        }
        if self.recursive_read_only {
            change(
                Attributes {
                    set: attr::RDONLY,
                    recursive: true,
                    ..Attributes::default()
                },
                "read-only",
            )?;
        }
        if let Some((propagation, recursive)) = self.propagation {
            change(
                Attributes {
                    propagation,
                    recursive,
                    ..Attributes::default()
                },
                "propagation",
            )?;
        }
        Ok(())
    }
}

/// Makes the directory or empty file that is mounted over. A symbolic link that leads to nothing is followed: what it
/// names is made, inside the container's root.
///
/// # Errors
/// As the system call.
pub(super) fn make_target(path: &str, directory: bool) -> io::Result<()> {
    let path = end_of_links(Path::new(path))?;
    refuse_magic_links(&path)?;
    if directory {
        return fs::create_dir_all(path);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
    {
        Ok(_) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(err) => Err(err),
    }
}

/// The links below `/proc/self/fd` of an image's making must not lead to what we hold open.
fn refuse_magic_links(path: &Path) -> io::Result<()> {
    let root = fs::File::open("/")?;
    for part in path.ancestors() {
        let part = CString::new(part.as_os_str().as_encoded_bytes())?;
        match open_in_root(root.as_fd(), &part, libc::O_PATH) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(drop),
        }
    }
    Ok(())
}

/// As many as the kernel follows (`man 7 path_resolution`).
const MOST_LINKS: usize = 40;

fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = path.parent().unwrap_or_else(|| Path::new("/")).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_taken_over() {
        let cases = [
            ("rshared", true, true),
            ("tmpcopyup", false, true),
            ("nosymfollow", true, true),
            ("lazytime", true, true),
            ("lazytime", false, false),
            ("rw", true, false),
            ("ro", true, false),
            ("size=1k", false, false),
        ];
        for (option, bind, taken) in cases {
            assert_eq!(
                Fixup::new("/x").take(option, bind),
                taken,
                "{option} {bind}"
            );
        }
    }

    #[test]
    fn rw_on_a_bind_clears_read_only() {
        let mut fixup = Fixup::new("/x");
        fixup.take("rw", true);
        assert!(fixup.needed());
        let mut fixup = Fixup::new("/x");
        fixup.take("rw", false);
        assert!(!fixup.needed());
    }
}
