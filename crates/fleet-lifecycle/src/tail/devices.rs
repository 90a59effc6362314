//! Device nodes of the spec, and the default ones where the library's `/dev` is not used.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use fleet_rootfs::root::clean;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown};
use serde_json::Value;

use super::mounts::{Layout, make_target};
use super::nodes::{self, HostNode};
use crate::error::{Context, Error, Result};
use crate::sys::mount::{Attributes, attach_tree, attr, clone_tree, set_attributes};
use crate::{idmap, spec};

/// Default devices, `runtime-spec config-linux.md#default-devices`; numbers from the kernel's `devices.txt`.
const DEFAULTS: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Default links, `runtime-spec runtime-linux.md#dev-symbolic-links`.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// One device node to make.
#[derive(Debug)]
pub struct Node {
    path: String,
    kind: SFlag,
    major: u64,
    minor: u64,
    mode: u32,
    uid: Option<u32>,
    gid: Option<u32>,
    /// The host's node, for places where `mknod` is refused.
    host: Option<OwnedFd>,
}

impl Node {
    /// Reads one entry of `linux.devices`.
    ///
    /// # Errors
    /// A field that is missing or wrong, by device path.
    pub fn from_spec(device: &Value) -> Result<Self> {
        let path = clean(device["path"].as_str().unwrap_or_default());
        if path == "/" {
            return Err(Error::Invalid(
                "a device of `linux.devices` has no `path`".to_owned(),
            ));
        }
        let kind = match device["type"].as_str().unwrap_or_default() {
            "c" | "u" => SFlag::S_IFCHR,
            "b" => SFlag::S_IFBLK,
            "p" => SFlag::S_IFIFO,
            other => {
                return Err(Error::Invalid(format!(
                    "device `{path}` has the unknown type \"{other}\""
                )));
            }
        };
        let part = |key: &str| match device.get(key) {
            None | Some(Value::Null) if kind == SFlag::S_IFIFO => Ok(0),
            Some(value) if value.as_u64().is_some_and(|n| n < 1 << 20) => {
                Ok(value.as_u64().unwrap_or(0))
            }
            _ => Err(Error::Invalid(format!(
                "device `{path}` has no usable `{key}` number"
            ))),
        };
        Ok(Self {
            kind,
            major: part("major")?,
            minor: part("minor")?,
            mode: spec::number(device, "/fileMode").unwrap_or(0o666) & 0o7777,
            uid: spec::number(device, "/uid"),
            gid: spec::number(device, "/gid"),
            host: None,
            path,
        })
    }

    fn default_node(path: &str, major: u64, minor: u64, bind: bool) -> Result<Self> {
        let host = bind.then(|| open_host(path, path)).transpose()?;
        Ok(Self {
            path: path.to_owned(),
            kind: SFlag::S_IFCHR,
            major,
            minor,
            mode: 0o666,
            uid: None,
            gid: None,
            host,
        })
    }

    fn make(&self) -> Result<()> {
        if self.present() {
            return self.finish();
        }
        if let Some(parent) = Path::new(&self.path).parent() {
            fs::create_dir_all(parent)
                .op(|| format!("make the directory of device `{}`", self.path))?;
        }
        match &self.host {
            Some(host) => self.bind(host),
            None => {
                // A stale file in the image gives way to the node that was asked for.
                drop(fs::remove_file(&self.path));
                let number = makedev(self.major, self.minor);
                mknod(
                    self.path.as_str(),
                    self.kind,
                    Mode::from_bits_truncate(self.mode),
                    number,
                )
                .op(|| {
                    format!(
                        "make device `{}` ({}:{})",
                        self.path, self.major, self.minor
                    )
                })?;
                self.finish()
            }
        }
    }

    /// The same node is there already: made by the library, listed twice, or part of a bound `/dev`.
    fn present(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|meta| {
            let kind = meta.file_type();
            let same_kind = match self.kind {
                SFlag::S_IFBLK => kind.is_block_device(),
                SFlag::S_IFIFO => return kind.is_fifo(),
                _ => kind.is_char_device(),
            };
            same_kind && meta.rdev() == makedev(self.major, self.minor)
        })
    }

    fn finish(&self) -> Result<()> {
        if self.host.is_some() {
            return Ok(());
        }
        let failed = || format!("set owner and mode of device `{}`", self.path);
        fs::set_permissions(&self.path, fs::Permissions::from_mode(self.mode)).op(failed)?;
        chown(
            self.path.as_str(),
            self.uid.map(Uid::from_raw),
            self.gid.map(Gid::from_raw),
        )
        .op(failed)
    }

    fn bind(&self, host: &OwnedFd) -> Result<()> {
        let failed = || format!("bind device `{}`", self.path);
        make_target(&self.path, false).op(failed)?;
        let target = fs::File::options()
            .read(true)
            .open_path(&self.path)
            .op(failed)?;
        attach_tree(host.as_fd(), target.as_fd()).op(failed)
    }
}

trait OpenPath {
    fn open_path(&mut self, path: &str) -> io::Result<fs::File>;
}

impl OpenPath for fs::OpenOptions {
    fn open_path(&mut self, path: &str) -> io::Result<fs::File> {
        std::os::unix::fs::OpenOptionsExt::custom_flags(self, libc::O_PATH | libc::O_NOFOLLOW)
            .open(path)
    }
}

/// Makes the nodes for the user namespace of the spec; false where the caller may not after all.
fn prepare(full: &Value, nodes: &mut [Node]) -> Result<bool> {
    let id = |which: &str, id: Option<u32>| {
        let id = id.unwrap_or(0);
        idmap::on_host(full, which, id).unwrap_or(id)
    };
    let wanted: Vec<HostNode> = nodes
        .iter()
        .filter(|node| node.kind != SFlag::S_IFIFO)
        .map(|node| HostNode {
            kind: node.kind,
            number: (node.major, node.minor),
            mode: node.mode,
            owner: (id("uid", node.uid), id("gid", node.gid)),
        })
        .collect();
    if wanted.is_empty() {
        return Ok(true);
    }
    let made = match nodes::make(&wanted) {
        Ok(made) => made,
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        Err(source) => {
            return Err(Error::Io {
                op: "make device nodes for the user namespace".to_owned(),
                source,
            });
        }
    };
    let binds = nodes.iter_mut().filter(|node| node.kind != SFlag::S_IFIFO);
    for (node, tree) in binds.zip(made) {
        node.host = Some(tree);
    }
    Ok(true)
}

fn open_host(host_path: &str, path: &str) -> Result<OwnedFd> {
    let c_path = CString::new(host_path)
        .map_err(|_| Error::Invalid(format!("device `{path}`: NUL in host path")))?;
    let tree = clone_tree(&c_path, false).map_err(|err| {
        // Engines take the C library's words for a missing program of the user's.
        let cause = match err.kind() {
            io::ErrorKind::NotFound => "it is missing (ENOENT)".to_owned(),
            _ => crate::error::errno_text(&err).to_lowercase(),
        };
        Error::Setup(format!(
            "bind device `{path}` from `{host_path}`: {cause}; hint: inside a user namespace a device must exist on the host"
        ))
    })?;
    set_attributes(
        tree.as_fd(),
        Attributes {
            set: attr::NOSUID | attr::NOEXEC,
            ..Attributes::default()
        },
    )
    .op(|| format!("set flags of device `{path}`"))?;
    Ok(tree)
}

/// The nodes of a container.
#[derive(Debug, Default)]
pub struct Devices {
    nodes: Vec<Node>,
    links: bool,
}

impl Devices {
    /// Plans the nodes of `linux.devices`; `host_path` tells where a node is on the host.
    ///
    /// Where `/dev` is ours the default nodes and links are added; a bound `/dev` gets none. With `bind`, `mknod` is
    /// refused inside: with a `privileged` caller the nodes are made now, else the host's are opened.
    ///
    /// # Errors
    /// As [`Node::from_spec`]; a host node that cannot be opened.
    pub fn plan(
        full: &Value,
        host_path: impl Fn(&str) -> String,
        bind: bool,
        privileged: bool,
        layout: &Layout,
    ) -> Result<Self> {
        let (own_dev, bound_dev) = (layout.own_dev, layout.bound_dev);
        let defaults = own_dev && !bound_dev;
        let mut nodes = Vec::new();
        if defaults {
            for (path, major, minor) in DEFAULTS {
                nodes.push(Node::default_node(path, major, minor, bind)?);
            }
        }
        let asked = spec::list(full, "/linux/devices")
            .iter()
            .map(Node::from_spec);
        let mut asked = asked.collect::<Result<Vec<Node>>>()?;
        if bind && !(privileged && prepare(full, &mut asked)?) {
            for (node, device) in asked.iter_mut().zip(spec::list(full, "/linux/devices")) {
                let path = device["path"].as_str().unwrap_or_default();
                if node.kind != SFlag::S_IFIFO {
                    node.host = Some(open_host(&host_path(path), &node.path)?);
                }
            }
        }
        nodes.extend(asked);
        Ok(Self {
            nodes,
            links: defaults,
        })
    }

    /// Makes what is missing.
    ///
    /// # Errors
    /// The node that failed, by path and number.
    pub fn make(&self) -> Result<()> {
        if self.nodes.is_empty() && !self.links {
            return Ok(());
        }
        let umask = nix::sys::stat::umask(Mode::empty());
        let made = self.nodes.iter().try_for_each(Node::make);
        nix::sys::stat::umask(umask);
        made?;
        if self.links {
            for (target, link) in LINKS {
                match symlink(target, link) {
                    Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(Error::Io {
                            op: format!("make link `{link}`"),
                            source: err,
                        });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Podman's `run` takes these words for a command that is not there, and ends with 127.
    #[test]
    fn a_missing_device_does_not_read_like_a_missing_command() {
        let err = open_host("/nonexistent/nvidia0", "/dev/nvidia0").unwrap_err();
        let text = err.to_string();
        assert!(text.contains("/nonexistent/nvidia0"), "{text}");
        assert!(!text.to_lowercase().contains("no such file"), "{text}");
    }

    #[test]
    fn entries_are_checked() {
        let good = json!({"path": "/dev//nvidia0/", "type": "c", "major": 195, "minor": 0, "fileMode": 438});
        let node = Node::from_spec(&good).unwrap();
        assert_eq!(
            (node.path.as_str(), node.major, node.minor, node.mode),
            ("/dev/nvidia0", 195, 0, 0o666)
        );
        for bad in [
            json!({"type": "c", "major": 1, "minor": 3}),
            json!({"path": "/dev/x", "type": "q", "major": 1, "minor": 3}),
            json!({"path": "/dev/x", "type": "c", "major": -1, "minor": 3}),
            json!({"path": "/dev/x", "type": "c", "major": 1}),
        ] {
            assert!(Node::from_spec(&bad).is_err(), "{bad}");
        }
        assert!(Node::from_spec(&json!({"path": "/dev/p", "type": "p"})).is_ok());
    }
}
