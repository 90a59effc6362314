//! Mounts made by the tail, after the library's.
//!
//! A bind is a detached copy of the host's mount, taken and dressed by the caller: with the caller's rights, so that
//! neither the directories above the source nor the id map of the container matter (libcontainer 0.7: L8, L9).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use fleet_rootfs::root::clean;
use nix::mount::{MsFlags, mount};
use serde_json::Value;

use super::mounts::{Fixup, c_path, make_target};
use crate::cgroup::Shown;
use crate::error::{Context, Error, Result};
use crate::sys::mount::{Attributes, attach_tree, attr, clone_tree, open_in_root, set_attributes};
use crate::{idmap, mount_options, spec};

#[derive(Debug)]
enum Source {
    /// A detached copy of the host's mount, and whether it is of a directory.
    Tree(OwnedFd, bool),
    /// A file system of this type, flags and data.
    FileSystem(String, MsFlags, String),
}

/// A mount made by the tail.
#[derive(Debug)]
pub struct LateMount {
    destination: String,
    source: Source,
    fixup: Fixup,
}

const FLAGS: [(&str, MsFlags); 8] = [
    ("ro", MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC),
    ("noatime", MsFlags::MS_NOATIME),
    ("relatime", MsFlags::MS_RELATIME),
    ("strictatime", MsFlags::MS_STRICTATIME),
    ("sync", MsFlags::MS_SYNCHRONOUS),
];

impl LateMount {
    /// Opens a bind's source now, while the host is still visible. A relative source is below `bundle`.
    ///
    /// # Errors
    /// The source, when it cannot be opened, and an id map or flag that it does not take.
    pub fn from_spec(full: &Value, given: &Value, bundle: &Path) -> Result<Self> {
        let destination = clean(given["destination"].as_str().unwrap_or_default());
        let options: Vec<String> = spec::strings(given, "/options");
        let bind = given["type"] == "bind" || options.iter().any(|o| o == "bind" || o == "rbind");
        let mut fixup = Fixup::new(&destination);
        let source = if bind {
            for option in &options {
                fixup.take_propagation(option);
            }
            tree(full, given, bundle, &destination)?
        } else {
            file_system(given, &options, &mut fixup)
        };
        Ok(Self {
            destination,
            source,
            fixup,
        })
    }

    /// A bind of one file, which nothing can be mounted below. Files are many with a GPU, one for each library of its
    /// driver, and cost a fraction of what they cost the library.
    ///
    /// # Errors
    /// The source, when it cannot be opened, or a flag that it does not take.
    pub fn file(source: &Path, destination: &str, options: &[String]) -> Result<Self> {
        Self::bind(source, destination, options, false)
    }

    fn bind(source: &Path, destination: &str, options: &[String], directory: bool) -> Result<Self> {
        let failed = || format!("mount `{}` on `{destination}`", source.display());
        let text = source.to_str().ok_or_else(|| {
            Error::Invalid(format!("mount `{destination}`: its source is not UTF-8"))
        })?;
        let tree = clone_tree(&c_path(text)?, false).op(failed)?;
        let what = Attributes {
            set: mount_options::changes(options)
                .iter()
                .fold(0, |all, change| all | change.set),
            // The copy is a peer of the host's mount.
            propagation: MsFlags::MS_PRIVATE.bits(),
            ..Attributes::default()
        };
        set_attributes(tree.as_fd(), what).op(|| format!("set flags of mount `{destination}`"))?;
        Ok(Self {
            destination: destination.to_owned(),
            source: Source::Tree(tree, directory),
            fixup: Fixup::new(destination),
        })
    }

    /// A container's own cgroups on v1, each hierarchy in its directory: as its root where the container has a cgroup
    /// namespace, else by a bind of its leaf.
    ///
    /// libcontainer 0.7: takes the process whose pid it has in a joined pid namespace for one of the host, and then
    /// fails or binds another process's cgroup; beside the host's pid namespace it binds the hierarchy's root.
    ///
    /// # Errors
    /// The cgroup that cannot be opened.
    pub(crate) fn cgroups(
        destination: &str,
        shown: &[Shown],
        namespaced: bool,
    ) -> Result<Vec<Self>> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let file_system = |destination: &str, kind: &str, data: &str| Self {
            destination: destination.to_owned(),
            source: Source::FileSystem(kind.to_owned(), flags, data.to_owned()),
            fixup: Fixup::new(destination),
        };
        let mut all = vec![file_system(destination, "tmpfs", "mode=755")];
        let options = ["nosuid", "nodev", "noexec"].map(str::to_owned);
        for part in shown {
            for name in &part.names {
                let to = format!("{destination}/{name}");
                all.push(if namespaced {
                    file_system(&to, "cgroup", &part.data)
                } else {
                    Self::bind(&part.leaf, &to, &options, true)?
                });
            }
        }
        Ok(all)
    }

    /// An empty read-only directory where a file system cannot be shown.
    #[must_use]
    pub fn empty_tmpfs(destination: &str) -> Self {
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        Self {
            destination: destination.to_owned(),
            source: Source::FileSystem("tmpfs".to_owned(), flags, "size=0k,mode=755".to_owned()),
            fixup: Fixup::new(destination),
        }
    }

    pub(super) fn make(&self) -> Result<()> {
        let failed = || format!("mount on `{}`", self.destination);
        match &self.source {
            Source::Tree(tree, directory) => {
                let target = open_target(&self.destination, *directory).op(failed)?;
                attach_tree(tree.as_fd(), target.as_fd()).op(failed)?;
            }
            Source::FileSystem(kind, flags, data) => {
                make_target(&self.destination, true).op(failed)?;
                mount(
                    Some(kind.as_str()),
                    self.destination.as_str(),
                    Some(kind.as_str()),
                    *flags,
                    Some(data.as_str()),
                )
                .op(failed)?;
            }
        }
        if self.fixup.needed() {
            self.fixup.apply()
        } else {
            Ok(())
        }
    }
}

/// What is mounted over, made if it is missing.
fn open_target(path: &str, directory: bool) -> io::Result<OwnedFd> {
    let root = fs::File::open("/")?;
    let name = CString::new(path)?;
    let open = || open_in_root(root.as_fd(), &name, libc::O_PATH);
    match open() {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            make_target(path, directory)?;
            open()
        }
        other => other,
    }
}

fn file_system(given: &Value, options: &[String], fixup: &mut Fixup) -> Source {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options {
        if let Some((_, flag)) = FLAGS.iter().find(|(name, _)| name == option) {
            flags |= *flag;
        } else if !fixup.take(option, false)
            && !matches!(option.as_str(), "rw" | "suid" | "dev" | "exec")
        {
            data.push(option.clone());
        }
    }
    let kind = given["type"].as_str().unwrap_or("none");
    Source::FileSystem(kind.to_owned(), flags, data.join(","))
}

/// Whether what is mounted below a bind shows on both sides, in the container and on the host. The root's propagation
/// decides, too: with another one the host's mounts reach the container as slaves, as with the peers.
pub(crate) fn stays_a_peer(full: &Value, mount: &Value) -> bool {
    let root = spec::text(full, "/linux/rootfsPropagation");
    let options = spec::strings(mount, "/options");
    matches!(root, Some("shared" | "rshared"))
        && options.iter().any(|o| o == "shared" || o == "rshared")
}

fn tree(full: &Value, given: &Value, bundle: &Path, destination: &str) -> Result<Source> {
    let source = bundle.join(given["source"].as_str().unwrap_or_default());
    let shown = source.display();
    let text = source
        .to_str()
        .ok_or_else(|| Error::Invalid(format!("mount `{destination}`: its source is not UTF-8")))?;
    let options = spec::strings(given, "/options");
    let recursive = options.iter().any(|o| o == "rbind");
    let tree = clone_tree(&c_path(text)?, recursive)
        .op(|| format!("mount `{shown}` on `{destination}`"))?;
    if let Some(map) = idmap::wanted(full, given)? {
        let what = Attributes {
            set: attr::IDMAP,
            recursive: map.recursive,
            user_namespace: Some(map.namespace.as_fd()),
            ..Attributes::default()
        };
        set_attributes(tree.as_fd(), what)
            .op(|| format!("map the ids of mount `{destination}` (idmapped mount of `{shown}`)"))?;
    }
    for change in mount_options::changes(&options) {
        set_attributes(tree.as_fd(), change)
            .op(|| format!("set flags of mount `{destination}`"))?;
    }
    if !stays_a_peer(full, given) {
        // The copy is a peer of the host's mount: what the container mounts below it would come up on the host.
        let what = Attributes {
            propagation: MsFlags::MS_SLAVE.bits(),
            recursive: true,
            ..Attributes::default()
        };
        set_attributes(tree.as_fd(), what)
            .op(|| format!("set propagation of mount `{destination}`"))?;
    }
    let directory = fs::metadata(&source).is_ok_and(|meta| meta.is_dir());
    Ok(Source::Tree(tree, directory))
}
