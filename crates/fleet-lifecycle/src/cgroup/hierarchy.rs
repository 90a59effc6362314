//! Where cgroup hierarchies are mounted, which controllers each has, and how a cgroup is made in one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::put;
use super::{CgroupError, Result, io_error};

/// Where every engine and libcgroups expect the cgroup2 file system.
const UNIFIED: &str = "/sys/fs/cgroup";
/// Where systemd mounts a cgroup2 without controllers beside those of v1, to see by it which units are in use.
const BESIDE_V1: &str = "/sys/fs/cgroup/unified";

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
    /// v1: controller names, or `name=systemd`; one without a name is systemd's own cgroup2. v2: empty.
    pub(super) controllers: Vec<String>,
    mount: PathBuf,
    /// The cgroup that is mounted there; `/` but inside a container without a cgroup namespace.
    root: String,
}

impl Hierarchy {
    /// v2 has them all in one place.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.is_empty() || self.controllers.iter().any(|c| c == controller)
    }

    /// Whether it is a cgroup2 beside those of v1, without controllers.
    pub(super) fn is_beside_v1(&self) -> bool {
        self.controllers.first().is_some_and(String::is_empty)
    }

    pub(super) fn leaf(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Name of the directory that it is mounted on.
    pub(super) fn name(&self) -> Option<&str> {
        self.mount.file_name()?.to_str()
    }

    /// Where a `/proc/PID/cgroup` text says the process is, as a path below this mount.
    pub(super) fn place(&self, table: &str) -> Option<String> {
        let controller = self.controllers.first().map_or("", String::as_str);
        let path = entry(table, controller)?;
        if self.root == "/" || self.root.starts_with("/..") {
            return Some(path);
        }
        let below = Path::new(&path).strip_prefix(&self.root).ok()?;
        Some(format!("/{}", below.display()))
    }

    /// Makes the directories and what they need to take processes; `made` gets each new one, parents first.
    pub(super) fn make(&self, path: &str, made: &mut Vec<PathBuf>) -> io::Result<()> {
        let mut dir = self.mount.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if self.controllers.is_empty() {
                enable_controllers(&dir);
            }
            let parent = dir.clone();
            dir.push(part);
            match fs::create_dir(&dir) {
                Ok(()) => made.push(dir.clone()),
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
                Err(err) => return Err(err),
            }
            if self.controllers.iter().any(|c| c == "cpuset") {
                inherit_cpuset(&parent, &dir)?;
            }
        }
        Ok(())
    }

    /// Why the cgroup cannot take processes, if so: below a threaded cgroup only threads can be moved
    /// (kernel `cgroup-v2.rst`, "Threads").
    pub(super) fn unusable(&self, path: &str) -> Option<String> {
        let kind = fs::read_to_string(self.leaf(path).join("cgroup.type")).ok()?;
        let kind = kind.trim();
        (kind == "domain invalid" || kind == "threaded").then(|| kind.to_owned())
    }
}

/// Best effort: a limit that needs a controller which could not be enabled fails when it is set.
fn enable_controllers(dir: &Path) {
    let Ok(available) = fs::read_to_string(dir.join("cgroup.controllers")) else {
        return;
    };
    let file = dir.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file).unwrap_or_default();
    let missing: Vec<String> = available
        .split_whitespace()
        .filter(|c| !enabled.split_whitespace().any(|e| e == *c))
        .map(|c| format!("+{c}"))
        .collect();
    // One refused controller refuses the whole line.
    if !missing.is_empty() && put(&file, &missing.join(" ")).is_err() {
        for controller in missing {
            drop(put(&file, &controller));
        }
    }
}

/// A v1 cpuset takes no process until it has CPUs and memory nodes.
fn inherit_cpuset(parent: &Path, dir: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim().is_empty()) {
            let value = fs::read_to_string(parent.join(file))?;
            put(&dir.join(file), value.trim())?;
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
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let own = read(Path::new("/proc/self/cgroup"))?;
    let found = parse(&mounts, &own, version);
    if found.is_empty() {
        return Err(CgroupError::Invalid(
            "no cgroup file system is mounted; hint: `--cgroup-manager disabled` runs without"
                .to_owned(),
        ));
    }
    Ok(found)
}

/// The hierarchies that hold a known cgroup. On v2 the mount table, long on a busy machine, need not be read.
pub(super) fn of_leaf(version: Version) -> Result<Vec<Hierarchy>> {
    if version == Version::V2 && crate::surroundings::unified() {
        return Ok(vec![Hierarchy {
            controllers: Vec::new(),
            mount: UNIFIED.into(),
            root: "/".to_owned(),
        }]);
    }
    all(version)
}

/// The cgroup2 by which systemd follows its units on a hybrid machine: a unit without a process there ends, whatever
/// the v1 hierarchies say.
pub(super) fn of_units() -> Option<Hierarchy> {
    crate::surroundings::is_cgroup2(BESIDE_V1).then(|| Hierarchy {
        controllers: vec![String::new()],
        mount: BESIDE_V1.into(),
        root: "/".to_owned(),
    })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(io_error("read", path))
}

fn parse(mounts: &str, own: &str, version: Version) -> Vec<Hierarchy> {
    let mut ranked: Vec<(u8, Hierarchy)> = mounts
        .lines()
        .filter_map(|line| parse_line(line, own, version))
        .collect();
    // A hierarchy may be mounted more than once: whole ones first, then those that show our part of it.
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut found: Vec<Hierarchy> = Vec::new();
    for (_, hierarchy) in ranked {
        if !found
            .iter()
            .any(|known| known.controllers == hierarchy.controllers)
        {
            found.push(hierarchy);
        }
    }
    found
}

/// `man 5 proc_pid_mountinfo`: id parent dev root point options [tags] - type source superoptions.
fn parse_line(line: &str, own: &str, version: Version) -> Option<(u8, Hierarchy)> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let controllers = match (version, kind) {
        (Version::V2, "cgroup2") if point == UNIFIED => Vec::new(),
        (Version::V1, "cgroup") => options
            .split(',')
            .filter(|word| entry(own, word).is_some())
            .map(str::to_owned)
            .collect(),
        _ => return None,
    };
    if version == Version::V1 && controllers.is_empty() {
        return None;
    }
    let controller = controllers.first().map_or("", String::as_str);
    let rank = match root {
        "/" => 0,
        // A container's view without a cgroup namespace; a bind of somebody else's cgroup does not count.
        root if entry(own, controller).is_some_and(|own| Path::new(&own).starts_with(root)) => 1,
        root if root.starts_with("/..") => 2,
        _ => return None,
    };
    let (mount, root) = (unescape(point), unescape(root));
    let hierarchy = Hierarchy {
        controllers,
        mount: mount.into(),
        root,
    };
    Some((rank, hierarchy))
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The path for a controller (`""` for v2) in a `/proc/PID/cgroup` text.
pub(super) fn entry(table: &str, controller: &str) -> Option<String> {
    table.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        names
            .split(',')
            .any(|name| name == controller)
            .then(|| path.to_owned())
    })
}

#[cfg(test)]
pub(super) fn at(mount: &Path, controllers: &[&str]) -> Hierarchy {
    Hierarchy {
        controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
        mount: mount.to_path_buf(),
        root: "/".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "9:name=systemd:/init.scope\n4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:devices:/docker/abc\n0::/docker/abc\n";

    #[test]
    fn mount_lines() {
        let table = "\
31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:3 - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
33 25 0:29 /machine/other /var/rootfs/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 25 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 25 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
        let v1 = parse(table, OWN, Version::V1);
        let names: Vec<_> = v1.iter().map(|h| h.controllers.join(",")).collect();
        assert_eq!(names, ["cpu,cpuacct", "name=systemd", "memory"]);
        assert_eq!(
            v1[0].leaf("/a/b"),
            Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b")
        );
        assert_eq!(
            v1[2].leaf("/a"),
            Path::new("/sys/fs/cgroup/memory/a"),
            "our part of it"
        );
        assert_eq!(
            v1[2].place(OWN).as_deref(),
            Some("/"),
            "relative to what is mounted"
        );
        assert_eq!(v1[0].place(OWN).as_deref(), Some("/docker/abc"));
        assert_eq!(
            parse(table, OWN, Version::V2),
            [],
            "unified elsewhere is the hybrid layout"
        );
    }

    #[test]
    fn unified_mount() {
        let table = "26 25 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let v2 = parse(table, OWN, Version::V2);
        assert_eq!(v2.len(), 1);
        assert!(v2[0].has("memory"));
        assert_eq!(v2[0].leaf("/a/b"), Path::new("/sys/fs/cgroup/a/b"));
        assert_eq!(v2[0].place(OWN).as_deref(), Some("/docker/abc"));
    }

    #[test]
    fn cgroup2_beside_v1() {
        let beside = at(Path::new(BESIDE_V1), &[""]);
        assert!(beside.is_beside_v1() && !beside.has("devices") && !beside.has("name=systemd"));
        assert_eq!(beside.place(OWN).as_deref(), Some("/docker/abc"));
        for other in [&[][..], &["memory"], &["name=systemd"]] {
            assert!(!at(Path::new("/m"), other).is_beside_v1(), "{other:?}");
        }
    }

    #[test]
    fn the_whole_hierarchy_wins_over_a_part() {
        let table = "\
34 25 0:29 /docker/abc /part rw - cgroup cgroup rw,memory
35 25 0:29 / /whole\\040one rw - cgroup cgroup rw,memory
";
        assert_eq!(
            parse(table, OWN, Version::V1)[0].leaf("/x"),
            Path::new("/whole one/x")
        );
    }

    #[test]
    fn entries() {
        assert_eq!(entry(OWN, "").as_deref(), Some("/docker/abc"));
        assert_eq!(entry(OWN, "cpuacct").as_deref(), Some("/docker/abc"));
        assert_eq!(entry(OWN, "name=systemd").as_deref(), Some("/init.scope"));
        assert_eq!(entry(OWN, "rw"), None);
        assert_eq!(entry("0::/a:b", "").as_deref(), Some("/a:b"));
    }
}
