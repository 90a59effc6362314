//! Where cgroup hierarchies are mounted, and which controllers each has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CgroupError, Result};

/// Interface version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Version {
    /// One hierarchy per controller; also hybrid machines.
    V1,
    /// One hierarchy for all.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// v1: controller names, or `name=systemd`. v2: empty.
    pub(super) controllers: Vec<String>,
    mount: PathBuf,
}

impl Hierarchy {
    #[cfg(test)]
    pub(super) fn for_test() -> Self {
        Self {
            controllers: Vec::new(),
            mount: PathBuf::new(),
        }
    }

    /// v2 has them all in one place.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.is_empty() || self.controllers.iter().any(|c| c == controller)
    }

    pub(super) fn leaf(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Makes the directory and what it needs to take processes.
    pub(super) fn make(&self, path: &str) -> io::Result<()> {
        let mut dir = self.mount.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if self.controllers.is_empty() {
                enable_controllers(&dir);
            }
            let parent = dir.clone();
            dir.push(part);
            match fs::create_dir(&dir) {
                Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
                _ => {}
            }
            if self.controllers.iter().any(|c| c == "cpuset") {
                inherit_cpuset(&parent, &dir)?;
            }
        }
        Ok(())
    }
}

/// Best effort: a limit that needs a controller which could not be enabled fails when it is set.
fn enable_controllers(dir: &Path) {
    let Ok(available) = fs::read_to_string(dir.join("cgroup.controllers")) else {
        return;
    };
    let enabled = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    for controller in available
        .split_whitespace()
        .filter(|c| !enabled.split_whitespace().any(|e| e == *c))
    {
        drop(fs::write(
            dir.join("cgroup.subtree_control"),
            format!("+{controller}"),
        ));
    }
}

/// A v1 cpuset takes no process until it has CPUs and memory nodes.
fn inherit_cpuset(parent: &Path, dir: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim().is_empty()) {
            let value = fs::read_to_string(parent.join(file))?;
            fs::write(dir.join(file), value.trim())?;
        }
    }
    Ok(())
}

/// The version in use: v2 when `/sys/fs/cgroup` itself is cgroup2.
pub(super) fn version() -> Version {
    if crate::surroundings::unified() {
        Version::V2
    } else {
        Version::V1
    }
}

/// All hierarchies of that version; on a hybrid machine the cgroup2 one is left to systemd.
pub(super) fn all(version: Version) -> Result<Vec<Hierarchy>> {
    let path = Path::new("/proc/self/mountinfo");
    let table = fs::read_to_string(path).map_err(super::io_error("read", path))?;
    let mut found: Vec<Hierarchy> = Vec::new();
    for hierarchy in table.lines().filter_map(|line| parse(line, version)) {
        // A hierarchy mounted twice counts once; the one under /sys/fs/cgroup comes first.
        if !found
            .iter()
            .any(|known| known.controllers == hierarchy.controllers)
        {
            found.push(hierarchy);
        }
    }
    if found.is_empty() {
        return Err(CgroupError::Invalid(
            "no cgroup file system is mounted; hint: `--cgroup-manager disabled` runs without"
                .to_owned(),
        ));
    }
    Ok(found)
}

/// `man 5 proc_pid_mountinfo`: id parent dev root point options [tags] - type source superoptions.
fn parse(line: &str, version: Version) -> Option<Hierarchy> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    if root != "/" && !root.starts_with("/..") && version == Version::V1 {
        // A bind of one cgroup, such as a container's own view.
        return None;
    }
    let mount = PathBuf::from(point);
    match (version, kind) {
        (Version::V2, "cgroup2") if point == "/sys/fs/cgroup" => Some(Hierarchy {
            controllers: Vec::new(),
            mount,
        }),
        (Version::V1, "cgroup") => {
            let known = |word: &&str| {
                !matches!(*word, "rw" | "ro" | "xattr" | "noprefix" | "clone_children")
                    && !word.starts_with("release_agent")
            };
            let controllers: Vec<String> = options
                .split(',')
                .filter(known)
                .map(str::to_owned)
                .collect();
            (!controllers.is_empty()).then_some(Hierarchy { controllers, mount })
        }
        _ => None,
    }
}

/// The cgroup named in a `/proc/PID/cgroup` file for a controller (`""` for v2).
pub(super) fn own_path(file: &str, controller: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        names
            .split(',')
            .any(|name| name == controller)
            .then(|| path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_lines() {
        let v1 = "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(
            parse(v1, Version::V1).unwrap().controllers,
            ["cpu", "cpuacct"]
        );
        assert_eq!(parse(v1, Version::V2), None);
        let named = "31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd";
        assert_eq!(
            parse(named, Version::V1).unwrap().controllers,
            ["name=systemd"]
        );
        let v2 = "26 25 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert!(parse(v2, Version::V2).unwrap().has("memory"));
        let bound = "26 25 0:23 /a/b /x rw - cgroup cgroup rw,memory";
        assert_eq!(parse(bound, Version::V1), None);
    }

    #[test]
    fn leaves_stay_below_the_mount() {
        let hierarchy = Hierarchy {
            controllers: vec![],
            mount: "/sys/fs/cgroup".into(),
        };
        assert_eq!(hierarchy.leaf("/a/b"), Path::new("/sys/fs/cgroup/a/b"));
    }
}
