//! Device nodes that are missing although the driver that they belong to is loaded: after an early boot, or where udev
//! makes none. A container that needs one gets it made, as NVIDIA's own tools do it, where root of the machine is asked.

use std::fmt;
use std::fs;

use crate::env::Env;
use crate::nodes::{self, DeviceNode};
use crate::tree::Tree;

/// The command that does the same.
const COMMAND: &str = "fleet-nvidia-ctl system create-device-nodes --control-devices --gpu-devices";

/// What is done about a node that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingNodes {
    /// Nothing, for this reason.
    Stay(&'static str),
    /// It is said that it would be made, and the plan goes on as if it were.
    Told,
    /// It is made.
    Made,
    /// It is made, or told, if `/dev` is the machine's own; looked at when a node is missing and not before.
    InOwnDev {
        /// Only told.
        told: bool,
    },
}

impl Default for MissingNodes {
    fn default() -> Self {
        Self::Stay("nobody has asked for it")
    }
}

impl MissingNodes {
    /// For a runtime: only root of the machine may make nodes, and only the machine's own `/dev` is a place for them.
    #[must_use]
    pub fn at_create(env: &Env) -> Self {
        match env.rootless() {
            true => Self::Stay("that takes root outside of user namespaces"),
            false => Self::InOwnDev { told: false },
        }
    }

    /// The same, for one who only asks what would happen.
    #[must_use]
    pub fn told(self) -> Self {
        match self {
            Self::Made => Self::Told,
            Self::InOwnDev { .. } => Self::InOwnDev { told: true },
            other => other,
        }
    }

    fn settled(self, is_machines_dev: impl FnOnce() -> bool) -> Self {
        match self {
            Self::InOwnDev { told } => match (is_machines_dev(), told) {
                (false, _) => Self::Stay("/dev is not the machine's own (no devtmpfs)"),
                (true, true) => Self::Told,
                (true, false) => Self::Made,
            },
            other => other,
        }
    }
}

/// Whether `/dev` is where the kernel itself makes nodes. In a container it is another file system, and a node that is
/// made there is nobody else's.
fn is_machines_dev() -> bool {
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|text| has_devtmpfs(&text))
}

/// `man 5 proc_pid_mountinfo`: the last line of a mount point is the one on top.
fn has_devtmpfs(mountinfo: &str) -> bool {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (front, end) = line.split_once(" - ")?;
        let at = front.split(' ').nth(4)?;
        (at == "/dev").then(|| end.starts_with("devtmpfs "))
    });
    let mut from_top = mounts.rev();
    from_top.next().unwrap_or(false)
}

/// A node that was missing, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supplied {
    /// The node.
    pub node: DeviceNode,
    /// What became of it.
    pub state: SupplyState,
}

/// What became of a node that was missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupplyState {
    /// It was made.
    Made,
    /// It would be made.
    Promised,
    /// It is missing still, for this reason.
    Missing(String),
}

impl Supplied {
    /// Whether a plan may count on it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !matches!(self.state, SupplyState::Missing(_))
    }
}

impl fmt::Display for Supplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeviceNode { path, major, minor } = &self.node;
        let node = format_args!("device node {path} ({major}:{minor})");
        match &self.state {
            SupplyState::Made => write!(f, "{node} was missing and has been made"),
            SupplyState::Promised => write!(f, "{node} is missing and would be made"),
            SupplyState::Missing(why) => {
                write!(f, "{node} is missing and not made: {why}; hint: {COMMAND}")
            }
        }
    }
}

/// Does it for those of the nodes that are missing.
pub fn supply(dev: &Tree, wanted: &[DeviceNode], missing: MissingNodes) -> Vec<Supplied> {
    // Another node in its place is for the plan to complain of.
    let is_missing = |node: &&DeviceNode| nodes::is_missing(dev, node).is_ok_and(|missing| missing);
    let wanted: Vec<_> = wanted.iter().filter(is_missing).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let missing = missing.settled(is_machines_dev);
    let supplied = wanted.into_iter().filter_map(|node| {
        let state = match missing {
            MissingNodes::Stay(why) => SupplyState::Missing(why.to_owned()),
            MissingNodes::Told => SupplyState::Promised,
            MissingNodes::Made | MissingNodes::InOwnDev { .. } => match nodes::make(dev, node) {
                Ok(()) => SupplyState::Made,
                // Another container's start was faster.
                Err(_) if !is_missing(&node) => return None,
                Err(err) => SupplyState::Missing(err.to_string()),
            },
        };
        Some(Supplied {
            node: node.clone(),
            state,
        })
    });
    supplied.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_dev_is_told_by_its_file_system() {
        let host = "22 1 0:5 / /proc rw - proc proc rw\n23 1 0:6 / /dev rw,nosuid shared:2 - devtmpfs udev rw\n\
                    24 23 0:7 / /dev/pts rw - devpts devpts rw\n";
        assert!(has_devtmpfs(host));
        let container = format!("{host}30 1 0:9 / /dev rw - tmpfs tmpfs rw\n");
        assert!(!has_devtmpfs(&container));
        for other in ["", "23 1 0:6 / /devices rw - devtmpfs udev rw\n", "garbage"] {
            assert!(!has_devtmpfs(other));
        }
    }

    #[test]
    fn a_rootless_user_makes_none() {
        let env = |euid, in_userns| Env {
            euid,
            in_userns,
            ..Env::default()
        };
        for env in [env(1000, false), env(0, true)] {
            let MissingNodes::Stay(why) = MissingNodes::at_create(&env) else {
                panic!("{env:?}")
            };
            assert!(why.contains("root"), "{why}");
        }
    }

    #[test]
    fn nothing_is_made_in_the_dev_of_a_container() {
        let settled = |told, own| MissingNodes::InOwnDev { told }.settled(|| own);
        assert_eq!(settled(false, true), MissingNodes::Made);
        assert_eq!(settled(true, true), MissingNodes::Told);
        for told in [false, true] {
            let MissingNodes::Stay(why) = settled(told, false) else {
                panic!("{told}")
            };
            assert!(why.contains("devtmpfs"), "{why}");
        }
    }

    #[test]
    fn what_became_of_it_is_one_sentence() {
        let said = |state| {
            let node = DeviceNode {
                path: "/dev/nvidia0".to_owned(),
                major: 195,
                minor: 0,
            };
            Supplied { node, state }.to_string()
        };
        assert_eq!(
            said(SupplyState::Made),
            "device node /dev/nvidia0 (195:0) was missing and has been made"
        );
        assert_eq!(
            said(SupplyState::Missing("x".to_owned())),
            "device node /dev/nvidia0 (195:0) is missing and not made: x; hint: fleet-nvidia-ctl system \
             create-device-nodes --control-devices --gpu-devices"
        );
    }
}
