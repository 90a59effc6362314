//! `delete`: takes away all that `create` made.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::hooks::{self, HookEnv};
use crate::pidfd::PidFd;
use crate::record::{Container, Status};
use crate::root::StateRoot;
use crate::spec;

/// How long a killed process may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes a container and gives back what was known of it. With `force`, a running one is killed and an unknown one is no error.
///
/// # Errors
/// [`Error::WrongStatus`] for a running container without `force`; what could not be removed.
pub fn delete(root: &StateRoot, id: &str, force: bool) -> Result<Option<Container>> {
    let container = match Container::load(root, id) {
        Ok(container) => container,
        Err(Error::Unknown(_) | Error::Setup(_)) if force => {
            return remove_unfinished(root, id).map(|()| None);
        }
        Err(err) => return Err(err),
    };
    let status = container.status();
    if !force && matches!(status, Status::Running | Status::Paused) {
        return Err(Error::WrongStatus {
            verb: "delete",
            id: id.to_owned(),
            status: status.as_str().to_owned(),
            hint: "; hint: stop it first or use `--force`",
        });
    }
    end(&container);
    container.record.cgroup.remove()?;
    poststop(&container);
    remove_dir(&container)?;
    Ok(Some(container))
}

/// Undoes a creation that failed: nothing is left, and no error hides the one that caused it.
pub(crate) fn discard(container: &Container) {
    end(container);
    reap_children();
    drop(container.record.cgroup.remove());
    drop(remove_dir(container));
}

/// libcontainer 0.7: leaves its intermediate process behind when a creation fails; a caller that is no reaper would
/// keep it as a zombie.
fn reap_children() {
    let end = Instant::now() + Duration::from_secs(2);
    let any = nix::unistd::Pid::from_raw(-1);
    while Instant::now() < end {
        match nix::sys::wait::waitpid(any, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            Ok(nix::sys::wait::WaitStatus::StillAlive) => {
                std::thread::sleep(Duration::from_millis(1))
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Kills the first process and everything in the cgroup, and waits for the former.
fn end(container: &Container) {
    let process = container
        .alive()
        .then(|| PidFd::open(container.record.pid).ok())
        .flatten();
    if container.record.cgroup.writable() {
        drop(container.record.cgroup.kill_all(libc::SIGKILL));
    }
    if let Some(process) = process {
        drop(process.send(libc::SIGKILL));
        drop(process.wait_exit(Some(PATIENCE)));
        // When it is our own child, nobody else reaps it.
        let pid = nix::unistd::Pid::from_raw(container.record.pid);
        let _ = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
    }
}

/// A failing poststop hook is a warning (`runtime-spec runtime.md#lifecycle` step 13), so it never blocks the id.
fn poststop(container: &Container) {
    let Ok(spec) = container.spec() else { return };
    let state = container.state_as(Status::Stopped).to_string();
    for hook in spec::list(&spec, "/hooks/poststop") {
        let env = HookEnv::outside(&container.record.bundle);
        if let Err(err) = hooks::run("poststop", hook, state.as_bytes(), &env) {
            tracing::warn!("{err}");
        }
    }
}

fn remove_dir(container: &Container) -> Result<()> {
    match fs::remove_dir_all(&container.dir) {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Io {
            op: format!("remove `{}`", container.dir.display()),
            source,
        }),
    }
}

/// A directory whose record is missing or damaged: its maker died. There is nothing to kill by; what lies there goes.
fn remove_unfinished(root: &StateRoot, id: &str) -> Result<()> {
    let dir = root.container(id)?;
    match fs::remove_dir_all(&dir) {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Io {
            op: format!("remove `{}`", dir.display()),
            source,
        }),
    }
}
