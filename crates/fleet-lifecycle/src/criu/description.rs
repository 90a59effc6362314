//! What this runtime writes beside CRIU's images: what the container's surroundings were, and must be again.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::directory::Directory;
use super::external::External;
use super::stdio;
use crate::error::{Error, Result};
use crate::spec;

/// File name in the image directory.
const FILE: &str = "fleet-nvidia.json";
/// Format of the file.
const VERSION: u32 = 1;
/// A container with thousands of mounts stays far below.
const MOST: u64 = 4 * 1024 * 1024;

/// The file. It is read strictly: what is not understood cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Description {
    version: u32,
    /// The program has a terminal.
    terminal: bool,
    /// Its streams (see [`stdio`]).
    stdio: Vec<String>,
    /// Its network namespace is the engine's.
    network: bool,
    /// Mounts from outside.
    pub(crate) external: Vec<External>,
    /// Devices that it has beside the default ones.
    devices: Vec<Node>,
}

/// A device of the spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    path: String,
    kind: String,
    major: u32,
    minor: u32,
}

impl Node {
    fn all(full: &Value) -> Vec<Self> {
        let node = |device: &Value| Self {
            path: fleet_rootfs::root::clean(spec::text(device, "/path").unwrap_or_default()),
            kind: match spec::text(device, "/type") {
                Some("u") => "c",
                other => other.unwrap_or_default(),
            }
            .to_owned(),
            major: spec::number(device, "/major").unwrap_or(0),
            minor: spec::number(device, "/minor").unwrap_or(0),
        };
        let mut all: Vec<_> = spec::list(full, "/linux/devices")
            .iter()
            .map(node)
            .collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all.dedup();
        all
    }

    fn numbers(&self) -> String {
        format!("{} {}:{}", self.kind, self.major, self.minor)
    }
}

impl Description {
    /// Of a container with this spec.
    pub(crate) fn new(
        full: &Value,
        stdio: &[String],
        network: bool,
        external: Vec<External>,
    ) -> Self {
        let terminal = spec::flag(full, "/process/terminal");
        Self {
            version: VERSION,
            terminal,
            stdio: match terminal {
                true => Vec::new(),
                false => stdio.to_vec(),
            },
            network,
            external,
            devices: Node::all(full),
        }
    }

    /// Writes it beside the images.
    ///
    /// # Errors
    /// As `man 2 rename`.
    pub(crate) fn save(&self, images: &Directory) -> Result<()> {
        let text = serde_json::to_vec(self)
            .map_err(|err| Error::Setup(format!("encode the checkpoint: {err}")))?;
        images.put(FILE, &text)
    }

    /// Takes it away after a checkpoint that failed.
    pub(crate) fn discard(images: &Directory) {
        images.remove(FILE);
    }

    /// Reads it.
    ///
    /// # Errors
    /// A directory that holds no checkpoint of this runtime, or a damaged one.
    pub(crate) fn load(images: &Directory) -> Result<Self> {
        let path = images.path().join(FILE);
        let damaged = |why: String| {
            Error::Invalid(format!(
                "checkpoint `{}` cannot be used: {why}",
                path.display()
            ))
        };
        let bytes = images.read(FILE, MOST)?.ok_or_else(|| {
            Error::Invalid(format!(
                "`{}` holds no checkpoint that this runtime made: it has no `{FILE}`",
                images.path().display()
            ))
        })?;
        let read: Self = serde_json::from_slice(&bytes).map_err(|err| damaged(err.to_string()))?;
        if read.version != VERSION {
            return Err(damaged(format!(
                "its version is {}, not {VERSION}",
                read.version
            )));
        }
        match read.stdio.iter().find(|key| !stdio::is_key(key)) {
            Some(key) => Err(damaged(format!(
                "it has the stream `{}`",
                key.escape_debug()
            ))),
            None if read.stdio.len() > 3 => {
                Err(damaged("it has more than three streams".to_owned()))
            }
            None => Ok(read),
        }
    }

    /// Whether its network namespace is the engine's.
    pub(crate) fn network(&self) -> bool {
        self.network
    }

    /// Streams outside of the container that CRIU is told of at the checkpoint.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        let files = self.stdio.iter().filter(|key| stdio::is_file(key));
        files.map(String::as_str)
    }

    /// Streams that are replaced by those of the caller, by number.
    pub(crate) fn streams(&self) -> Vec<(&str, i32)> {
        let mut all: Vec<(&str, i32)> = Vec::new();
        for (key, fd) in self.stdio.iter().zip(0..) {
            if !key.is_empty() && all.iter().all(|(known, _)| known != key) {
                all.push((key, fd));
            }
        }
        all
    }

    /// The device whose numbers CRIU complains about.
    pub(crate) fn device_of(&self, complaint: &str) -> Option<&str> {
        let numbered = |node: &&Node| {
            complaint.contains(&format!("({}hr {}:{})", node.kind, node.major, node.minor))
        };
        let found = self.devices.iter().find(numbered);
        found.map(|node| node.path.as_str())
    }

    /// Refuses a spec with which the container would be another one.
    ///
    /// # Errors
    /// What is different.
    pub(crate) fn check(&self, full: &Value, network: bool) -> Result<()> {
        let differs = |what: &str, now: bool| {
            let said = match now {
                true => format!(
                    "the spec has {what}, which the container did not have at the checkpoint"
                ),
                false => format!(
                    "the container had {what} at the checkpoint, which the spec does not have"
                ),
            };
            Error::Invalid(format!("{said}: it cannot be restored"))
        };
        let terminal = spec::flag(full, "/process/terminal");
        if terminal != self.terminal {
            return Err(differs("a terminal", terminal));
        }
        if network != self.network {
            return Err(differs("a network namespace of the engine's", network));
        }
        self.check_devices(&Node::all(full))
    }

    fn check_devices(&self, here: &[Node]) -> Result<()> {
        let other = |node: &Node, among: &[Node]| {
            let same = among.iter().find(|known| known.path == node.path);
            same.map(Node::numbers)
        };
        for node in &self.devices {
            match other(node, here) {
                Some(numbers) if numbers == node.numbers() => {}
                Some(numbers) => {
                    return Err(Error::Invalid(format!(
                        "device `{}` was {} at the checkpoint and is {numbers} here: the container cannot be restored with it; hint: device numbers may change when a driver is loaded anew",
                        node.path,
                        node.numbers()
                    )));
                }
                None => {
                    return Err(Error::Invalid(format!(
                        "device `{}` was there at the checkpoint and is not among the container's devices now: it cannot be restored without it",
                        node.path
                    )));
                }
            }
        }
        match here
            .iter()
            .find(|node| other(node, &self.devices).is_none())
        {
            Some(node) => Err(Error::Invalid(format!(
                "device `{}` was not there at the checkpoint: the container cannot be restored with it",
                node.path
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gpu(minor: u32) -> Value {
        json!({"path": format!("/dev/nvidia{minor}"), "type": "c", "major": 195, "minor": minor})
    }

    fn full(devices: &[Value]) -> Value {
        json!({"process": {"terminal": false}, "linux": {"devices": devices}})
    }

    fn streams() -> Vec<String> {
        ["file[2a:7]", "pipe:[12]", "pipe:[12]"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn it_is_kept_and_read_strictly() {
        let base = tempfile::tempdir().unwrap();
        let images = Directory::open("image directory", base.path()).unwrap();
        let err = Description::load(&images).unwrap_err().to_string();
        assert!(err.contains("holds no checkpoint"), "{err}");
        let kept = Description::new(&full(&[gpu(0)]), &streams(), true, Vec::new());
        kept.save(&images).unwrap();
        assert_eq!(Description::load(&images).unwrap(), kept);
        assert_eq!(kept.streams(), [("file[2a:7]", 0), ("pipe:[12]", 1)]);
        assert_eq!(kept.files().collect::<Vec<_>>(), ["file[2a:7]"]);
        let text = String::from_utf8(images.read(FILE, MOST).unwrap().unwrap()).unwrap();
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1", "\"version\":1,\"more\":1"),
            ("pipe:[12]", "/etc/shadow"),
            ("\"pipe:[12]\"", "\"\",\"\",\"\""),
            ("{", "["),
        ] {
            images.put(FILE, text.replace(from, to).as_bytes()).unwrap();
            let err = Description::load(&images).unwrap_err().to_string();
            assert!(err.contains("cannot be used"), "{to}: {err}");
        }
        Description::discard(&images);
        Description::load(&images).unwrap_err();
    }

    #[test]
    fn the_same_devices_and_only_those() {
        let kept = Description::new(&full(&[gpu(0), gpu(1)]), &streams(), false, Vec::new());
        kept.check(&full(&[gpu(1), gpu(0)]), false).unwrap();
        let fails = |devices: &[Value]| kept.check(&full(devices), false).unwrap_err().to_string();
        assert!(fails(&[gpu(0)]).contains("device `/dev/nvidia1` was there"));
        assert!(fails(&[gpu(0), gpu(1), gpu(2)]).contains("device `/dev/nvidia2` was not there"));
        let complaint = "Can't dump file 9 of that type [20666] (chr 195:1)";
        assert_eq!(kept.device_of(complaint), Some("/dev/nvidia1"));
        assert_eq!(kept.device_of("(chr 195:11)"), None);
        let mut moved = gpu(1);
        moved["major"] = json!(511);
        let err = fails(&[gpu(0), moved]);
        assert!(
            err.contains("was c 195:1 at the checkpoint and is c 511:1 here"),
            "{err}"
        );
    }

    #[test]
    fn another_kind_of_container_is_refused() {
        let kept = Description::new(&full(&[]), &streams(), false, Vec::new());
        let err = kept.check(&full(&[]), true).unwrap_err().to_string();
        assert!(err.contains("the spec has a network namespace"), "{err}");
        let mut other = full(&[]);
        other["process"]["terminal"] = json!(true);
        let err = kept.check(&other, false).unwrap_err().to_string();
        assert!(err.contains("the spec has a terminal, which"), "{err}");
        let terminal = Description::new(&other, &streams(), false, Vec::new());
        assert!(terminal.streams().is_empty());
    }
}
