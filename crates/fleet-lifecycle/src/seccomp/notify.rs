//! `SCMP_ACT_NOTIFY`: the agent that answers for some system calls gets the filter's descriptor
//! (`runtime-spec config-linux.md#seccomp`, `man 2 seccomp_unotify`).
//!
//! The agent's socket is connected by the caller, while the host is visible; the descriptor is sent by the container's
//! process itself, in the one system call after the filter is installed.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

use super::SeccompError;
use crate::sys::process::SharedText;
use crate::{annotations, spec, sys};

/// A connected agent, and what it is told beside the descriptor.
#[derive(Debug)]
pub struct Receiver {
    socket: OwnedFd,
    /// `containerProcessState` without the pid.
    message: Value,
    /// The pid on the host, which the process itself cannot know.
    pid: Arc<SharedText>,
}

impl Receiver {
    /// Connects the agent that the spec names; `None` when the profile has nothing for one. `state` is the OCI state of
    /// the container.
    ///
    /// # Errors
    /// A profile that needs an agent and names none, or one that cannot be reached.
    pub(crate) fn from_spec(full: &Value, state: &Value) -> Result<Option<Self>, SeccompError> {
        let Some(profile) = full.pointer("/linux/seccomp").filter(|s| s.is_object()) else {
            return Ok(None);
        };
        let path = spec::text(profile, "/listenerPath").filter(|p| !p.is_empty());
        let path = path.or_else(|| spec::annotation(full, annotations::SECCOMP_RECEIVER));
        let Some(path) = path else {
            return match super::uses_notify(profile) {
                false => Ok(None),
                true => Err(SeccompError::Invalid(
                    "SCMP_ACT_NOTIFY needs `listenerPath`, the socket of an agent".to_owned(),
                )),
            };
        };
        if !path.starts_with('/') {
            return Err(SeccompError::Invalid(format!(
                "`listenerPath` \"{path}\" is not an absolute path"
            )));
        }
        let failed = |err: &io::Error| SeccompError::Compile {
            step: format!("failed to connect with seccomp agent `{path}`"),
            why: crate::error::errno_text(err).to_lowercase(),
        };
        let socket = UnixStream::connect(path).map_err(|err| failed(&err))?;
        let mut message = json!({"ociVersion": full["ociVersion"], "fds": ["seccompFd"], "pid": 0, "state": state});
        if let Some(metadata) = spec::text(profile, "/listenerMetadata") {
            message["metadata"] = json!(metadata);
        }
        Ok(Some(Self {
            socket: socket.into(),
            message,
            pid: Arc::new(SharedText::new().map_err(|err| failed(&err))?),
        }))
    }

    /// Tells the waiting process its number on the host.
    pub(crate) fn announce(&self, pid: i32) {
        self.pid.store_first(&pid.to_string());
    }

    /// Installs `filter` and hands its descriptor over.
    ///
    /// # Errors
    /// As the system calls.
    pub(super) fn install(&self, filter: &super::Filter) -> io::Result<()> {
        let mut message = self.message.clone();
        let pid = self.pid.load().and_then(|text| text.parse::<i32>().ok());
        message["pid"] = json!(pid.unwrap_or(0));
        if message["state"]["pid"].as_i64().unwrap_or(0) == 0 {
            message["state"]["pid"] = message["pid"].clone();
        }
        let text = message.to_string();
        let listener = sys::tail::install_listener(&filter.bpf, filter.flags)?;
        // Nothing but this call between the filter and the agent: it may be the filter's subject.
        let fds = [listener.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let body = [IoSlice::new(text.as_bytes())];
        let socket = self.socket.as_raw_fd();
        sendmsg::<()>(socket, &body, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }
}
