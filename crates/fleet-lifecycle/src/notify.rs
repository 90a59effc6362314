//! `NOTIFY_SOCKET`: a service manager waits to be told that the program inside is ready (`man 3 sd_notify`).
//!
//! The manager's own socket is never given to the container. As with crun, the container sees a directory at the path
//! of that socket, in which `start` opens a socket of its own; of what arrives there only `READY=1` is passed on, and
//! with it who the main process is.

use std::fs::{self, DirBuilder, File};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use fleet_rootfs::root::clean;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{Mode, umask};
use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use crate::pidfd::PidFd;
use crate::record::Container;
use crate::spec;
use crate::sys::tail::set_path_attribute;

/// The variable, for us as for the program.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// Directory of a container's state that it sees.
const DIRECTORY: &str = "notify";
/// The socket in it.
const SOCKET: &str = "notify";
/// Where the container sees it when the manager's socket has no path.
const USUAL_PLACE: &str = "/run/notify";
/// Longest message that is looked at; systemd takes 4096 bytes.
const MESSAGE: usize = 4096;
/// How long the manager may take to answer, as with both peers.
const BARRIER: u16 = 30_000;

/// The manager that started us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceManager(String);

impl ServiceManager {
    /// From the value of `NOTIFY_SOCKET`; `None` when it is unset or empty.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an address of another family.
    pub fn named(value: Option<&str>) -> Result<Option<Self>> {
        match value {
            None | Some("") => Ok(None),
            Some(path) if path.starts_with('@') || clean(path) != "/" && path.starts_with('/') => {
                Ok(Some(Self(path.to_owned())))
            }
            Some(other) => Err(Error::Invalid(format!(
                "{VARIABLE} `{other}` is neither the absolute path of a socket nor an abstract one"
            ))),
        }
    }

    /// Shows the container a directory for its socket, and tells its program of it.
    ///
    /// # Errors
    /// The directory, when it cannot be made.
    pub fn offer(&self, state_dir: &Path, spec: &mut Value) -> Result<()> {
        let directory = state_dir.join(DIRECTORY);
        // The container's user enters it; what is above keeps everybody else out.
        DirBuilder::new()
            .mode(0o755)
            .create(&directory)
            .op(|| format!("make `{}`", directory.display()))?;
        let place = self.place();
        if !spec["mounts"].is_array() {
            spec["mounts"] = json!([]);
        }
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.push(json!({
                "destination": place, "type": "bind", "source": directory,
                "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
            }));
        }
        let process = &mut spec["process"];
        if !process["env"].is_array() {
            process["env"] = json!([]);
        }
        if let Some(env) = process["env"].as_array_mut() {
            let old = format!("{VARIABLE}=");
            env.retain(|entry| !entry.as_str().is_some_and(|e| e.starts_with(&old)));
            env.push(json!(format!("{VARIABLE}={place}/{SOCKET}")));
        }
        Ok(())
    }

    fn place(&self) -> String {
        match self.0.starts_with('/') {
            true => clean(&self.0),
            false => USUAL_PLACE.to_owned(),
        }
    }

    fn connect(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        match self.0.strip_prefix('@') {
            Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
            None => socket.connect(&self.0)?,
        }
        Ok(socket)
    }

    /// In this order and apart: once the main process is another one, systemd listens to that one only.
    fn tell_ready(&self, main: i32) -> io::Result<()> {
        let socket = self.connect()?;
        socket.send(b"READY=1")?;
        socket.send(format!("MAINPID={main}").as_bytes())?;
        barrier(&socket)
    }
}

/// Waits until the manager has read what was sent: it closes the descriptor that comes with the message (`man 3
/// sd_notify_barrier`). One that does not is left alone after a while.
fn barrier(socket: &UnixDatagram) -> io::Result<()> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let fds = [writer.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let text = [IoSlice::new(b"BARRIER=1")];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &text, &rights, flags, None)?;
    drop(writer);
    let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(BARRIER)) {
        Ok(0) => tracing::warn!("the service manager did not answer in time"),
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(())
}

/// The container's socket, from `start` until its program is ready.
#[derive(Debug)]
pub struct Proxy {
    socket: UnixDatagram,
    manager: ServiceManager,
}

impl Proxy {
    /// Opens the container's socket; `None` for a container that was made without a service manager.
    ///
    /// # Errors
    /// The socket, when it cannot be made.
    pub fn open(container: &Container, manager: Option<&ServiceManager>) -> Result<Option<Self>> {
        let directory = container.dir.join(DIRECTORY);
        let Some(manager) = manager.filter(|_| directory.is_dir()) else {
            return Ok(None);
        };
        let path = directory.join(SOCKET);
        let socket = bind(&directory).op(|| format!("make socket `{}`", path.display()))?;
        let label = container.spec()?;
        if let Some(label) = spec::text(&label, "/linux/mountLabel").filter(|l| !l.is_empty()) {
            // The worst that comes of it is a program that cannot say that it is ready, as with crun.
            drop(set_path_attribute(
                &path,
                c"security.selinux",
                label.as_bytes(),
            ));
        }
        Ok(Some(Self {
            socket,
            manager: manager.clone(),
        }))
    }

    /// Waits until the program is ready, and passes it on; or until it has ended.
    ///
    /// # Errors
    /// When the service manager cannot be told.
    pub fn wait(&self, container: &Container) -> Result<()> {
        let pid = container.record.pid;
        let Ok(process) = PidFd::open(pid) else {
            return Ok(());
        };
        while container.alive()? {
            let mut fds = [
                PollFd::new(self.as_fd(), PollFlags::POLLIN),
                PollFd::new(process.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other.op(|| "wait for the container to be ready")?,
            };
            let said = fds[0].any().unwrap_or(false);
            if said && self.ready() {
                return self.pass_on(pid);
            }
            if !said && fds[1].any().unwrap_or(false) {
                break;
            }
        }
        Ok(())
    }

    /// Whether the message that has arrived says `READY=1`.
    pub(crate) fn ready(&self) -> bool {
        let mut bytes = [0; MESSAGE];
        let length = self.socket.recv(&mut bytes).unwrap_or(0);
        says_ready(&bytes[..length])
    }

    /// Tells the service manager, and that `main` is the process to watch.
    ///
    /// # Errors
    /// When it cannot be told.
    pub(crate) fn pass_on(&self, main: i32) -> Result<()> {
        let told = self.manager.tell_ready(main);
        told.map_err(|err| {
            // Not in the words of the C library: engines take those for a missing program.
            Error::Setup(format!(
                "the service manager at {VARIABLE} `{}` cannot be told that the container is ready: {}",
                self.manager.0,
                err.raw_os_error().map_or_else(
                    || err.to_string(),
                    |code| format!("{:?}", nix::errno::Errno::from_raw(code))
                )
            ))
        })
    }
}

impl AsFd for Proxy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Any user of the container may write to it. The path may be longer than an address, so it is bound by descriptor.
fn bind(directory: &Path) -> io::Result<UnixDatagram> {
    let place = File::open(directory)?;
    let path: PathBuf = ["/proc/self/fd", &place.as_raw_fd().to_string(), SOCKET]
        .iter()
        .collect();
    match fs::remove_file(&path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    // Not chmod afterwards: that would follow what a privileged container may have put in its place.
    let before = umask(Mode::empty());
    let bound = UnixDatagram::bind(&path);
    umask(before);
    bound
}

fn says_ready(message: &[u8]) -> bool {
    message
        .split(|byte| *byte == b'\n')
        .any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How long a test waits for a message.
    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn which_sockets_are_understood() {
        let named = |value| ServiceManager::named(value).map(|m| m.map(|m| m.place()));
        assert_eq!(named(None).unwrap(), None);
        assert_eq!(named(Some("")).unwrap(), None);
        for (socket, place) in [
            ("/run/systemd/notify", "/run/systemd/notify"),
            ("/run//x/../notify", "/run/notify"),
            ("@/org/abstract", "/run/notify"),
        ] {
            assert_eq!(named(Some(socket)).unwrap().as_deref(), Some(place));
        }
        for bad in ["vsock:2:9", "notify", "/", "/.."] {
            let err = named(Some(bad)).unwrap_err().to_string();
            assert!(err.contains(bad), "{err}");
        }
    }

    #[test]
    fn the_spec_gets_a_mount_and_the_variable_once() {
        let dir = tempfile::tempdir().unwrap();
        let manager = ServiceManager::named(Some("/run/n")).unwrap().unwrap();
        let mut spec = json!({"process": {"env": ["A=b", "NOTIFY_SOCKET=/old"]}});
        manager.offer(dir.path(), &mut spec).unwrap();
        assert_eq!(
            spec["process"]["env"],
            json!(["A=b", "NOTIFY_SOCKET=/run/n/notify"])
        );
        assert_eq!(spec["mounts"][0]["destination"], "/run/n");
        assert!(dir.path().join("notify").is_dir());
    }

    #[test]
    fn ready_is_a_line_of_its_own() {
        for (message, want) in [
            (&b"READY=1"[..], true),
            (b"STATUS=up\nREADY=1\n", true),
            (b"STATUS=READY=1", false),
            (b"READY=10", false),
            (b"READY=0", false),
            (b"", false),
            (b"\xff\nREADY=1", true),
        ] {
            assert_eq!(says_ready(message), want, "{message:?}");
        }
    }

    #[test]
    fn a_manager_hears_ready_then_the_main_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manager");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(SOON)).unwrap();
        let reader = std::thread::spawn(move || {
            let mut said = Vec::new();
            let mut bytes = [0; 64];
            while said.len() < 3 {
                // A descriptor that nobody asks for is closed by the kernel, which is the answer to the barrier.
                let length = manager.recv(&mut bytes).unwrap();
                said.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
            said
        });
        let named = ServiceManager::named(path.to_str()).unwrap().unwrap();
        named.tell_ready(77).unwrap();
        assert_eq!(
            reader.join().unwrap(),
            ["READY=1", "MAINPID=77", "BARRIER=1"]
        );
        let gone = ServiceManager::named(Some("/nonexistent/socket")).unwrap();
        assert!(gone.unwrap().tell_ready(1).is_err());
    }
}
