//! Which systemd a container belongs to, the machine's or a user's, and where it listens.
//!
//! Kept in the container's record: later calls may come with another environment, or with none.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::job::Systemd;
use crate::cgroup::error::cause;
use crate::cgroup::{CgroupError, Result};

/// What a user's session says about itself, read before the runtime drops its environment.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<String>,
    /// `DBUS_SESSION_BUS_ADDRESS`.
    pub session_bus: Option<String>,
    /// `DBUS_SYSTEM_BUS_ADDRESS`.
    pub system_bus: Option<String>,
}

impl Session {
    /// Reads the environment.
    #[must_use]
    pub fn current() -> Self {
        let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            runtime_dir: value("XDG_RUNTIME_DIR").filter(|dir| dir.starts_with('/')),
            session_bus: value("DBUS_SESSION_BUS_ADDRESS"),
            system_bus: value("DBUS_SYSTEM_BUS_ADDRESS"),
        }
    }
}

/// A place where systemd can be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Door {
    /// D-Bus address.
    address: String,
    /// A message bus stands between; else it is systemd's own socket, which `systemctl` uses, too.
    bus: bool,
}

/// A systemd and the ways to it, best first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cgroup) struct Manager {
    /// A user's; it has no say over devices.
    pub(in crate::cgroup) user: bool,
    doors: Vec<Door>,
}

/// The machine's systemd owns these; who owns them, too, is its root.
const MARKS: [&str; 2] = ["/run/systemd/private", "/run/systemd/system"];

pub(in crate::cgroup) const HINT: &str = "hint: use --cgroup-manager=cgroupfs (podman: --cgroup-manager=cgroupfs; \
     CRI-O: cgroup_manager = \"cgroupfs\")";

impl Manager {
    /// The machine's systemd for its root, else the user's own. In a user namespace root is somebody else outside, to
    /// whom the machine's systemd does not belong.
    pub(in crate::cgroup) fn find(session: &Session) -> Self {
        let euid = nix::unistd::geteuid().as_raw();
        let owner = MARKS
            .iter()
            .find_map(|mark| fs::metadata(mark).ok())
            .map(|meta| meta.uid());
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Self::choose(session, euid, owner, outer_uid(&map, euid))
    }

    fn choose(session: &Session, euid: u32, owner: Option<u32>, outer: u32) -> Self {
        let user = euid != 0 || owner.unwrap_or(outer) != 0;
        let (dir, bus, socket) = if user {
            let runtime = session.runtime_dir.clone();
            let runtime = runtime.unwrap_or_else(|| format!("/run/user/{outer}"));
            (
                runtime.clone(),
                &session.session_bus,
                format!("{runtime}/bus"),
            )
        } else {
            let socket = "/run/dbus/system_bus_socket";
            ("/run".to_owned(), &session.system_bus, socket.to_owned())
        };
        let private = Door {
            address: format!("unix:path={dir}/systemd/private"),
            bus: false,
        };
        let bus = bus.clone().unwrap_or_else(|| format!("unix:path={socket}"));
        let buses = bus.split(';').map(|address| Door {
            address: address.to_owned(),
            bus: true,
        });
        Self {
            user,
            doors: [private].into_iter().chain(buses).collect(),
        }
    }

    /// Connects; each wait on the connection ends after `patience`.
    ///
    /// # Errors
    /// Every way that was tried, with a hint.
    pub(in crate::cgroup) fn connect(&self, patience: Duration) -> Result<Systemd> {
        let mut tried = Vec::new();
        for door in &self.doors {
            match open(door, Instant::now() + patience) {
                Ok(systemd) => return Ok(systemd),
                Err(err) => tried.push(format!("`{}`: {}", door.address, cause(&err))),
            }
        }
        let whose = if self.user { "the user's " } else { "" };
        Err(CgroupError::Invalid(format!(
            "{whose}systemd cannot be reached at {}; {HINT}",
            tried.join(" or ")
        )))
    }

    /// For tests: one door.
    #[cfg(test)]
    pub(in crate::cgroup) fn at(socket: &Path, bus: bool) -> Self {
        Self {
            user: false,
            doors: vec![Door {
                address: format!("unix:path={}", socket.display()),
                bus,
            }],
        }
    }
}

fn open(door: &Door, end: Instant) -> io::Result<Systemd> {
    let connection = Connection::open(&door.address, end)?;
    Systemd::new(connection, door.bus)
}

/// The number of a user outside of our user namespace (`man 7 user_namespaces`: inside, outside, length).
fn outer_uid(map: &str, uid: u32) -> u32 {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        Some((next()?, next()?, next()?))
    };
    map.lines()
        .filter_map(range)
        .find_map(|(inside, outside, length)| {
            let distance = uid.checked_sub(inside).filter(|n| *n < length)?;
            outside.checked_add(distance)
        })
        .unwrap_or(uid)
}

/// Whether the machine was booted with systemd (`man 3 sd_booted`).
pub(in crate::cgroup) fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(manager: &Manager) -> Vec<&str> {
        manager
            .doors
            .iter()
            .map(|door| door.address.as_str())
            .collect()
    }

    #[test]
    fn whose_systemd() {
        let session = Session {
            runtime_dir: Some("/run/user/1000".to_owned()),
            ..Session::default()
        };
        let system = Manager::choose(&session, 0, Some(0), 0);
        assert!(!system.user);
        assert_eq!(
            addresses(&system),
            [
                "unix:path=/run/systemd/private",
                "unix:path=/run/dbus/system_bus_socket"
            ]
        );
        // Podman's user namespace: root inside, and the machine's root is nobody there.
        let inside = Manager::choose(&session, 0, Some(65534), 1000);
        assert!(inside.user);
        assert_eq!(
            addresses(&inside),
            [
                "unix:path=/run/user/1000/systemd/private",
                "unix:path=/run/user/1000/bus"
            ]
        );
        assert!(Manager::choose(&session, 1000, Some(0), 1000).user);
        // Without the variable, as on Podman's direct calls.
        let bare = Manager::choose(&Session::default(), 0, Some(65534), 1234);
        assert_eq!(
            addresses(&bare)[0],
            "unix:path=/run/user/1234/systemd/private"
        );
        let given = Session {
            session_bus: Some("unix:path=/a;unix:abstract=/b".to_owned()),
            ..session
        };
        let given = Manager::choose(&given, 1000, None, 1000);
        assert_eq!(addresses(&given)[1..], ["unix:path=/a", "unix:abstract=/b"]);
    }

    #[test]
    fn outer_numbers() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(outer_uid(map, 0), 1000);
        assert_eq!(outer_uid(map, 5), 100_004);
        assert_eq!(outer_uid(map, 70_000), 70_000);
        assert_eq!(outer_uid("0 0 4294967295\n", 7), 7);
    }

    #[test]
    fn unreachable_in_one_line_with_the_way_out() {
        let text = Manager::at(Path::new("/nonexistent/bus"), true)
            .connect(Duration::from_secs(1))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("/nonexistent/bus") && text.contains("--cgroup-manager=cgroupfs"),
            "{text}"
        );
        assert!(
            !text.contains('\n') && !text.contains("No such file"),
            "{text}"
        );
    }
}
