//! `linux.intelRdt`: shares of cache and memory bandwidth by the resctrl file system (`runtime-spec
//! config-linux.md#intelrdt`, kernel `Documentation/filesystems/resctrl.rst`).
//!
//! As with runc: a class that the container brings (`closID`) is not removed; one without a name of its own is called after
//! the container and goes with it. libcontainer 0.7 does this, too, but from its builder only.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::spec;

/// Names in the root of resctrl that are no classes.
const TAKEN: [&str; 3] = ["info", "mon_groups", "mon_data"];

/// The class that a container's processes are in, as its record holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Class {
    path: PathBuf,
    /// It goes with the container.
    #[serde(default)]
    ours: bool,
    /// The container's monitoring group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<PathBuf>,
}

impl Class {
    /// Makes or finds the class of a container, with its shares; `None` where the spec names none. `resctrl` is the
    /// mount point of the file system.
    ///
    /// # Errors
    /// A class that should be there, or a share that the kernel does not accept, in its own words.
    pub(crate) fn make(full: &Value, id: &str, resctrl: &Path) -> Result<Option<Self>> {
        let Some(given) = full.pointer("/linux/intelRdt").filter(|r| r.is_object()) else {
            return Ok(None);
        };
        let name = spec::text(given, "/closID").filter(|name| !name.is_empty());
        let path = match name {
            Some("/") => resctrl.to_path_buf(),
            _ => resctrl.join(checked(name.unwrap_or(id))?),
        };
        let shares = shares(given);
        if name.is_some() && shares.is_empty() && !path.is_dir() {
            return Err(Error::Setup(format!(
                "`linux.intelRdt.closID`: class `{}` is not there, and the spec gives no shares to make it with",
                path.display()
            )));
        }
        let made = make_directory(resctrl, &path)?;
        let class = Self {
            ours: made && name.is_none(),
            monitor: spec::flag(given, "/enableMonitoring")
                .then(|| path.join("mon_groups").join(id)),
            path,
        };
        // What was made goes again when the rest fails.
        let ready = class.share(&shares).and_then(|()| match &class.monitor {
            Some(group) => make_directory(resctrl, group).map(drop),
            None => Ok(()),
        });
        match ready {
            Ok(()) => Ok(Some(class)),
            Err(err) => {
                if made {
                    drop(fs::remove_dir(&class.path));
                }
                Err(err)
            }
        }
    }

    /// The files that a process is written to.
    #[must_use]
    pub(crate) fn doors(&self) -> Vec<PathBuf> {
        [Some(&self.path), self.monitor.as_ref()]
            .into_iter()
            .flatten()
            .map(|dir| dir.join("tasks"))
            .collect()
    }

    /// Moves a process of one thread.
    ///
    /// # Errors
    /// The file that could not be written.
    pub(crate) fn enter(&self, pid: i32) -> Result<()> {
        self.doors()
            .iter()
            .try_for_each(|file| write(self.root(), file, &format!("{pid}\n")))
    }

    /// Changes the shares: lines such as `L3:0=f;1=f` and `MB:0=20`.
    ///
    /// # Errors
    /// What the kernel does not accept, in its own words.
    pub fn share(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let text = lines.iter().map(|line| format!("{line}\n"));
        let file = self.path.join("schemata");
        write(self.root(), &file, &text.collect::<String>())
    }

    /// Takes away what was made for the container.
    ///
    /// # Errors
    /// The directory that could not be removed.
    pub(crate) fn remove(&self) -> Result<()> {
        let gone = match (self.ours, &self.monitor) {
            // Its monitoring group goes with it.
            (true, _) => Some(&self.path),
            (false, group) => group.as_ref(),
        };
        match gone.map_or(Ok(()), fs::remove_dir) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(failed(self.root(), "remove", &self.path, &err))
            }
            _ => Ok(()),
        }
    }

    /// Where the kernel's own words are.
    fn root(&self) -> &Path {
        match self.path.join("info").is_dir() {
            true => &self.path,
            false => self.path.parent().unwrap_or(&self.path),
        }
    }
}

/// Where resctrl is mounted.
///
/// # Errors
/// It is not.
pub(crate) fn mount_point() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    find(&table).ok_or_else(|| {
        Error::Setup(
            "`linux.intelRdt` needs the resctrl file system, which is not mounted; hint: `mount -t resctrl resctrl /sys/fs/resctrl` on a CPU that has RDT"
                .to_owned(),
        )
    })
}

fn find(mountinfo: &str) -> Option<PathBuf> {
    let point = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        (kind == "resctrl").then(|| before.split(' ').nth(4).map(PathBuf::from))?
    };
    mountinfo.lines().find_map(point)
}

/// The lines of all three fields. Bandwidth in the field for caches gives way to that in its own (`runtime-spec
/// config-linux.md#intelrdt`).
fn shares(given: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let bandwidth = spec::text(given, "/memBwSchema").filter(|text| !text.is_empty());
    if let Some(text) = spec::text(given, "/l3CacheSchema") {
        let caches = text
            .lines()
            .filter(|line| bandwidth.is_none() || !line.trim_start().starts_with("MB:"));
        lines.extend(caches.map(str::to_owned));
    }
    lines.extend(bandwidth.map(str::to_owned));
    lines.extend(spec::strings(given, "/schemata"));
    lines.retain(|line| !line.trim().is_empty());
    lines
}

fn checked(name: &str) -> Result<&str> {
    let bad = name.contains(['/', '\n', '\0']) || name.starts_with('.') || TAKEN.contains(&name);
    match bad {
        true => Err(Error::Invalid(format!(
            "`linux.intelRdt.closID` \"{}\" is no name of a class",
            name.escape_default()
        ))),
        false => Ok(name),
    }
}

/// Whether it was made, or was there.
fn make_directory(root: &Path, path: &Path) -> Result<bool> {
    match DirBuilder::new().create(path) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(err) => Err(failed(root, "make", path, &err)),
    }
}

fn write(root: &Path, file: &Path, text: &str) -> Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|err| failed(root, &format!("write {:?} to", text.trim()), file, &err))
}

/// The kernel tells the cause in a file of its own.
fn failed(root: &Path, what: &str, path: &Path, err: &io::Error) -> Error {
    let said = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    let said = match said.trim() {
        "" | "ok" => String::new(),
        text => format!(": {text}"),
    };
    let cause = err.raw_os_error().map_or_else(
        || err.to_string(),
        |code| format!("{:?}", nix::errno::Errno::from_raw(code)),
    );
    Error::Setup(format!(
        "`linux.intelRdt`: {what} `{}`: {cause}{said}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A directory in the kernel's place: it makes no files in a new class, and a class with files cannot be removed.
    fn resctrl() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("info")).unwrap();
        fs::write(dir.path().join("info/last_cmd_status"), "ok\n").unwrap();
        dir
    }

    fn make(dir: &Path, rdt: Value) -> Result<Option<Class>> {
        Class::make(&json!({"linux": {"intelRdt": rdt}}), "c1", dir)
    }

    fn empty(dir: &Path) {
        for file in ["tasks", "schemata"] {
            drop(fs::remove_file(dir.join(file)));
        }
    }

    #[test]
    fn a_class_of_its_own_comes_and_goes() {
        let dir = resctrl();
        let rdt = json!({"l3CacheSchema": "L3:0=f;1=f0\nMB:0=9", "memBwSchema": "MB:0=20;1=70", "schemata": ["L2:0=ff"]});
        let class = make(dir.path(), rdt).unwrap().unwrap();
        class.enter(77).unwrap();
        let path = dir.path().join("c1");
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap();
        assert_eq!(read("schemata"), "L3:0=f;1=f0\nMB:0=20;1=70\nL2:0=ff\n");
        assert_eq!(read("tasks"), "77\n");
        let kept: Class = serde_json::from_value(json!(class)).unwrap();
        assert_eq!(kept, class);
        empty(&path);
        class.remove().unwrap();
        assert!(!path.exists());
        class.remove().unwrap();
    }

    #[test]
    fn a_named_class_stays() {
        let dir = resctrl();
        let err = make(dir.path(), json!({"closID": "gold"}))
            .unwrap_err()
            .to_string();
        assert!(err.contains("gold` is not there"), "{err}");
        fs::create_dir(dir.path().join("gold")).unwrap();
        let class = make(dir.path(), json!({"closID": "gold"}))
            .unwrap()
            .unwrap();
        class.remove().unwrap();
        assert!(dir.path().join("gold").is_dir());
        let made = make(
            dir.path(),
            json!({"closID": "silver", "memBwSchema": "MB:0=10"}),
        );
        made.unwrap().unwrap().remove().unwrap();
        assert!(dir.path().join("silver").is_dir());
        let root = make(dir.path(), json!({"closID": "/"})).unwrap().unwrap();
        assert_eq!(root.doors(), [dir.path().join("tasks")]);
        root.remove().unwrap();
        assert!(dir.path().is_dir());
    }

    #[test]
    fn monitoring_has_a_group_below_the_class() {
        let dir = resctrl();
        fs::create_dir_all(dir.path().join("gold/mon_groups")).unwrap();
        let rdt = json!({"closID": "gold", "enableMonitoring": true});
        let class = make(dir.path(), rdt).unwrap().unwrap();
        class.enter(5).unwrap();
        let group = dir.path().join("gold/mon_groups/c1");
        assert_eq!(fs::read_to_string(group.join("tasks")).unwrap(), "5\n");
        empty(&group);
        class.remove().unwrap();
        assert!(!group.exists() && dir.path().join("gold").exists());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let dir = resctrl();
        for name in ["..", "a/b", "../x", "info", "mon_groups", ".", "a\nb"] {
            let err = make(dir.path(), json!({"closID": name, "memBwSchema": "MB:0=1"}));
            assert!(
                err.unwrap_err()
                    .to_string()
                    .contains("is no name of a class")
            );
        }
        assert!(make(dir.path(), json!(null)).unwrap().is_none());
    }

    #[test]
    fn the_kernels_own_words_are_in_the_error() {
        let dir = resctrl();
        fs::write(dir.path().join("info/last_cmd_status"), "out of CLOSIDs\n").unwrap();
        let class = Class {
            path: dir.path().join("gone"),
            ours: true,
            monitor: None,
        };
        let err = class.share(&["L3:0=f".to_owned()]).unwrap_err().to_string();
        assert!(err.contains("ENOENT: out of CLOSIDs"), "{err}");
        assert!(!err.to_lowercase().contains("no such file"), "{err}");
    }

    #[test]
    fn the_mount_point() {
        let table = "31 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n40 25 0:30 / /sys/fs/resctrl rw,nosuid - resctrl resctrl rw\n";
        assert_eq!(find(table).as_deref(), Some(Path::new("/sys/fs/resctrl")));
        assert_eq!(find(""), None);
    }
}
