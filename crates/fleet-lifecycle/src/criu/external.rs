//! What of a container's mounts comes from outside: CRIU is told of each of them, and where it is to be had again.
//!
//! CRIU saves file systems of the container's own, such as a tmpfs, with their content. All else is named at the
//! checkpoint by its place in the container, and at the restore by what the spec of that day says is to be there.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use fleet_rootfs::root::clean;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::table::{self, Mount};
use crate::cgroup::{Cgroup, Shown};
use crate::error::{Context, Error, Result};
use crate::spec::{self, Namespace};
use crate::surroundings;
use crate::sys::mount::open_in_root;

/// A mount from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct External {
    /// Where it is in the container.
    pub(crate) point: String,
    /// What it is.
    pub(crate) from: From,
}

/// Where a mount from outside comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum From {
    /// The bind mount of the spec with this destination.
    Mount(String),
    /// A device of the spec, where the container could not make a node.
    Device(String),
    /// The cgroup of the container in the hierarchy of these controllers, or all on v2, and the way from there.
    Cgroup(String, String),
    /// All cgroups of the machine, which only a container on v2 without a cgroup namespace sees.
    Cgroups,
    /// The host's `/dev/null`, which masks a file.
    Null,
    /// The driver's parameters, changed for the container.
    Parameters,
}

/// The file that `disable-device-node-modification` covers.
const PARAMETERS: &str = "/proc/driver/nvidia/params";
/// Kinds of file systems that show cgroups.
const CGROUPS: [&str; 2] = ["cgroup", "cgroup2"];

/// Sorts the mounts of the container whose first process is `pid`.
///
/// # Errors
/// A mount that is neither the container's own nor known to come from anywhere, by its place.
pub(crate) fn sort(pid: i32, full: &Value, group: &Cgroup) -> Result<Vec<External>> {
    let all = Known {
        mounts: table::of_process(pid)?,
        named: named(pid, full)?,
        covered: ["maskedPaths", "readonlyPaths"]
            .iter()
            .flat_map(|key| spec::strings(full, &format!("/linux/{key}")))
            .collect(),
    };
    let shown = group.shown()?;
    let mut found = Vec::new();
    for mount in all.mounts.iter().filter(|mount| mount.point != "/") {
        let known = all.from(mount, full);
        let from = known.or_else(|| cgroup(mount, full, &shown, group));
        if let Some(from) = from {
            let point = mount.point.clone();
            found.push(External { point, from });
        } else if CGROUPS.contains(&mount.kind.as_str()) || !all.is_own(mount) {
            return Err(Error::Invalid(format!(
                "mount `{}` ({}) of the container is not one of its spec: it cannot be checkpointed",
                mount.point, mount.kind
            )));
        }
    }
    Ok(found)
}

/// All that is known of a container's mounts.
#[derive(Debug)]
struct Known {
    mounts: Vec<Mount>,
    named: Vec<Named>,
    /// Masked and read-only paths.
    covered: Vec<String>,
}

/// A mount of the spec.
#[derive(Debug)]
struct Named {
    id: u32,
    destination: String,
    bind: bool,
}

impl Known {
    fn bind(&self, id: u32) -> Option<&Named> {
        self.named.iter().find(|named| named.bind && named.id == id)
    }

    fn from(&self, mount: &Mount, full: &Value) -> Option<From> {
        if let Some(named) = self.bind(mount.id) {
            return Some(From::Mount(named.destination.clone()));
        }
        if self.is_own(mount) || self.is_strange(mount) {
            return None;
        }
        if mount.point == PARAMETERS {
            return Some(From::Parameters);
        }
        if is_device(full, &mount.point) {
            return Some(From::Device(mount.point.clone()));
        }
        let null = mount.root == "/null" || mount.root == "/dev/null";
        (null && self.covered.contains(&mount.point)).then_some(From::Null)
    }

    /// Came along with a directory of the host.
    fn is_strange(&self, mount: &Mount) -> bool {
        let known = self.named.iter().any(|named| named.id == mount.id)
            || self.covered.contains(&mount.point);
        !known && self.bind(mount.parent).is_some()
    }

    /// Whether CRIU can make it anew: all of its file system is mounted in the container, too, or comes from outside.
    fn is_own(&self, mount: &Mount) -> bool {
        let whole = |other: &Mount| {
            other.root == "/" || other.point == "/" || self.bind(other.id).is_some()
        };
        !self.is_strange(mount)
            && self
                .mounts
                .iter()
                .filter(|other| other.device == mount.device && whole(other))
                .any(|other| below(&mount.root, &other.root).is_some())
    }
}

/// Devices that every container has (`runtime-spec config-linux.md#default-devices`).
const DEFAULTS: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];

fn is_device(full: &Value, path: &str) -> bool {
    let devices = spec::list(full, "/linux/devices").iter();
    let mut devices = devices.map(|device| clean(device["path"].as_str().unwrap_or_default()));
    devices.any(|known| known == path) || DEFAULTS.contains(&path)
}

/// The way from `above` to `path`; `None` when it is elsewhere.
fn below<'a>(path: &'a str, above: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(above.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn cgroup(mount: &Mount, full: &Value, shown: &[Shown], group: &Cgroup) -> Option<From> {
    if !CGROUPS.contains(&mount.kind.as_str()) {
        return None;
    }
    if mount.kind == "cgroup2" && mount.root == "/" && sees_all(full) {
        return Some(From::Cgroups);
    }
    let way = below(&mount.root, group.path())?.to_owned();
    if mount.kind == "cgroup2" {
        return Some(From::Cgroup(String::new(), way));
    }
    let has = |data: &str| {
        let options: Vec<&str> = mount.options.split(',').collect();
        data.split(',')
            .all(|controller| options.contains(&controller))
    };
    let hierarchy = shown
        .iter()
        .find(|shown| !shown.data.is_empty() && has(&shown.data))?;
    Some(From::Cgroup(hierarchy.data.clone(), way))
}

/// Whether a cgroup mount shows the container all cgroups.
fn sees_all(full: &Value) -> bool {
    surroundings::unified() && spec::namespace(full, "cgroup") == Namespace::Inherited
}

/// The mounts that those of the spec have become.
fn named(pid: i32, full: &Value) -> Result<Vec<Named>> {
    let path = format!("/proc/{pid}/root");
    let root = fs::File::open(&path).op(|| format!("open `{path}`"))?;
    let mut named = Vec::new();
    for mount in spec::list(full, "/mounts") {
        let destination = destination(mount);
        let Ok(target) = CString::new(destination.as_str()) else {
            continue;
        };
        // One that is not there any more, or covered, is not the container's to have back.
        if let Ok(file) = open_in_root(root.as_fd(), &target, libc::O_PATH) {
            named.push(Named {
                id: table::mount_of(file.as_fd())?,
                destination,
                bind: is_bind(mount),
            });
        }
    }
    Ok(named)
}

fn destination(mount: &Value) -> String {
    clean(mount["destination"].as_str().unwrap_or_default())
}

fn is_bind(mount: &Value) -> bool {
    let options = spec::strings(mount, "/options");
    mount["type"] == "bind" || options.iter().any(|o| o == "bind" || o == "rbind")
}

/// Destination and source of each bind mount.
fn binds(full: &Value) -> impl Iterator<Item = (String, &str)> {
    let all = spec::list(full, "/mounts").iter();
    all.filter(|mount| is_bind(mount)).map(|mount| {
        (
            destination(mount),
            mount["source"].as_str().unwrap_or_default(),
        )
    })
}

/// What gives mounts from outside back.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// The spec.
    pub(crate) full: &'a Value,
    /// Where relative sources begin.
    pub(crate) bundle: &'a Path,
    /// Container device path to host path, where they differ.
    pub(crate) host_paths: &'a std::collections::BTreeMap<String, String>,
}

impl Sources<'_> {
    /// Refuses mounts that the spec has no source for, and those of the spec that the container would be without.
    ///
    /// # Errors
    /// The first of them, by its place.
    pub(crate) fn check(&self, all: &[External]) -> Result<()> {
        for external in all {
            check_path(&external.point)?;
            match &external.from {
                From::Mount(destination) => drop(self.source(destination)?),
                From::Device(path) => self.check_device(path)?,
                From::Cgroup(_, way) if !way.is_empty() => check_path(way)?,
                From::Cgroups if !sees_all(self.full) => {
                    return Err(Error::Invalid(
                        "the container saw all cgroups of the machine at the checkpoint, which the spec does not let it: it cannot be restored".to_owned(),
                    ));
                }
                From::Cgroups | From::Cgroup(..) | From::Null | From::Parameters => {}
            }
        }
        let has = |destination: &str| {
            all.iter()
                .any(|e| matches!(&e.from, From::Mount(known) if known == destination))
        };
        match binds(self.full).find(|(destination, _)| !has(destination)) {
            Some((destination, _)) => Err(Error::Invalid(format!(
                "mount `{destination}` of the spec was not there at the checkpoint: it cannot be restored with it"
            ))),
            None => Ok(()),
        }
    }

    fn check_device(&self, path: &str) -> Result<()> {
        match is_device(self.full, path) {
            true => Ok(()),
            false => Err(Error::Invalid(format!(
                "device `{path}` was bound at the checkpoint and is not in the spec: it cannot be restored without it"
            ))),
        }
    }

    fn source(&self, destination: &str) -> Result<PathBuf> {
        let found = binds(self.full).filter(|(known, _)| known == destination);
        let (_, source) = found.last().ok_or_else(|| {
            Error::Invalid(format!(
                "mount `{destination}` was there at the checkpoint and is not in the spec: it cannot be restored without it"
            ))
        })?;
        Ok(self.bundle.join(source))
    }

    /// The host's path that a mount is to show.
    ///
    /// # Errors
    /// As [`Sources::check`].
    pub(crate) fn path(
        &self,
        external: &External,
        group: &Cgroup,
        parameters: &Path,
    ) -> Result<PathBuf> {
        Ok(match &external.from {
            From::Mount(destination) => real(&self.source(destination)?)?,
            From::Device(path) => {
                let host = self.host_paths.get(path);
                real(Path::new(host.map_or(path.as_str(), String::as_str)))?
            }
            From::Cgroup(controllers, way) => {
                let leaf = group.leaf_of(controllers)?.ok_or_else(|| {
                    Error::Invalid(format!(
                        "cgroup mount `{}`: this machine has no hierarchy of `{controllers}`",
                        external.point
                    ))
                })?;
                leaf.join(way.trim_start_matches('/'))
            }
            From::Cgroups => PathBuf::from(surroundings::POINT),
            From::Null => PathBuf::from("/dev/null"),
            From::Parameters => parameters.to_path_buf(),
        })
    }

    /// Where the root file system must have something to mount on, and whether it is a directory. What lies below
    /// another mount is that one's.
    pub(crate) fn points(&self, all: &[External]) -> Vec<(String, bool)> {
        let own = spec::list(self.full, "/mounts")
            .iter()
            .filter(|mount| !is_bind(mount))
            .map(|mount| (destination(mount), true));
        let outside = all
            .iter()
            .map(|external| (external.point.clone(), self.is_directory(external)));
        let all: Vec<(String, bool)> = own.chain(outside).collect();
        let covered = |path: &str| {
            let mut others = all.iter().filter(|(above, _)| above != path);
            others.any(|(above, _)| below(path, above).is_some())
        };
        all.iter()
            .filter(|(path, _)| !covered(path))
            .cloned()
            .collect()
    }

    fn is_directory(&self, external: &External) -> bool {
        match &external.from {
            From::Mount(destination) => self.source(destination).is_ok_and(|path| path.is_dir()),
            From::Cgroup(..) | From::Cgroups => true,
            _ => false,
        }
    }
}

/// CRIU takes a link for what is to be mounted.
fn real(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).op(|| format!("find `{}`", path.display()))
}

/// What a file that travels with a checkpoint may say.
fn check_path(path: &str) -> Result<()> {
    match path.starts_with('/') && clean(path) == path && !path.contains(['\0', '\n']) {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "the checkpoint names the path `{}`, which is none: refused",
            path.escape_debug()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mount(id: u32, device: &str, root: &str, point: &str, kind: &str) -> Mount {
        Mount {
            id,
            parent: 1,
            device: device.to_owned(),
            root: root.to_owned(),
            point: point.to_owned(),
            kind: kind.to_owned(),
            options: String::new(),
        }
    }

    #[test]
    fn own_file_systems_are_mounted_whole() {
        let all = [
            mount(1, "8:0", "/ct/rootfs", "/", "ext4"),
            mount(2, "0:5", "/", "/proc", "proc"),
            mount(3, "0:5", "/sys", "/proc/sys", "proc"),
            mount(4, "0:6", "/params", PARAMETERS, "tmpfs"),
            mount(5, "8:0", "/srv", "/data", "ext4"),
            mount(6, "8:0", "/ct/rootfs/x", "/y", "ext4"),
            mount(7, "0:7", "/null", "/proc/kcore", "devtmpfs"),
            mount(8, "0:7", "/null", "/etc/passwd", "devtmpfs"),
            mount(9, "0:7", "/nvidia0", "/dev/nvidia0", "devtmpfs"),
            Mount {
                parent: 5,
                ..mount(10, "0:8", "/", "/data/below", "tmpfs")
            },
        ];
        let known = Known {
            mounts: all.to_vec(),
            named: vec![Named {
                id: 5,
                destination: "/data".to_owned(),
                bind: true,
            }],
            covered: vec!["/proc/kcore".to_owned()],
        };
        let own = known.mounts.iter().filter(|mount| known.is_own(mount));
        assert_eq!(
            own.map(|mount| mount.id).collect::<Vec<_>>(),
            [1, 2, 3, 5, 6]
        );
        let full = json!({"linux": {"devices": [{"path": "/dev/nvidia0"}]}});
        let from = |index: usize| known.from(&known.mounts[index], &full);
        assert_eq!(from(3), Some(From::Parameters));
        assert_eq!(from(4), Some(From::Mount("/data".to_owned())));
        assert_eq!(from(5), None);
        assert_eq!(from(6), Some(From::Null));
        assert_eq!(from(7), None, "no path that is to be masked");
        assert_eq!(from(8), Some(From::Device("/dev/nvidia0".to_owned())));
        assert_eq!(from(9), None);
        assert!(known.is_strange(&known.mounts[9]));
        assert!(!known.is_own(&known.mounts[9]), "whole, but the host's");
    }

    #[test]
    fn ways_below() {
        assert_eq!(below("/a/b", "/a"), Some("/b"));
        assert_eq!(below("/a", "/a"), Some(""));
        assert_eq!(below("/a/b", "/"), Some("/a/b"));
        assert_eq!(below("/ab", "/a"), None);
        assert_eq!(below("/", "/a"), None);
    }

    #[test]
    fn a_spec_that_has_changed_is_refused() {
        let full = json!({"mounts": [
            {"destination": "/data", "type": "bind", "source": "data"},
            {"destination": "/etc/hosts/", "source": "/run/hosts", "options": ["rbind", "ro"]},
            {"destination": "/proc", "type": "proc"},
        ]});
        let host_paths = std::collections::BTreeMap::new();
        let sources = Sources {
            full: &full,
            bundle: Path::new("/b"),
            host_paths: &host_paths,
        };
        let known = |point: &str, from| External {
            point: point.to_owned(),
            from,
        };
        let data = known("/data", From::Mount("/data".to_owned()));
        let hosts = known("/etc/hosts", From::Mount("/etc/hosts".to_owned()));
        let all = [data.clone(), hosts.clone()];
        sources.check(&all).unwrap();
        assert_eq!(sources.source("/data").unwrap(), Path::new("/b/data"));
        assert_eq!(
            sources.source("/etc/hosts").unwrap(),
            Path::new("/run/hosts")
        );
        let below = known("/data/x", From::Null);
        let points = sources.points(&[data.clone(), hosts.clone(), below]);
        let want = [("/proc", true), ("/data", false), ("/etc/hosts", false)];
        assert_eq!(
            points,
            want.map(|(path, directory)| (path.to_owned(), directory))
        );
        let err = sources
            .check(std::slice::from_ref(&data))
            .unwrap_err()
            .to_string();
        assert!(
            err.contains("mount `/etc/hosts` of the spec was not there"),
            "{err}"
        );
        let gone = known("/lib/x", From::Mount("/lib/x".to_owned()));
        let err = sources.check(&[data, hosts, gone]).unwrap_err().to_string();
        assert!(err.contains("mount `/lib/x` was there"), "{err}");
    }

    #[test]
    fn paths_of_a_strangers_making_are_refused() {
        for path in ["", "x", "/a/../b", "/a//b", "/a/", "/a\nb", "/a\0"] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        check_path("/a b/c").unwrap();
    }

    #[test]
    fn descriptions_are_read_strictly() {
        let external = External {
            point: "/x".to_owned(),
            from: From::Cgroup("cpu,cpuacct".to_owned(), "/b".to_owned()),
        };
        let text = serde_json::to_string(&external).unwrap();
        assert_eq!(serde_json::from_str::<External>(&text).unwrap(), external);
        for text in [
            r#"{"point": "/x"}"#,
            r#"{"point": "/x", "from": "null", "more": 1}"#,
            r#"{"point": "/x", "from": {"file": "/etc/shadow"}}"#,
        ] {
            serde_json::from_str::<External>(text).unwrap_err();
        }
    }
}
