//! `delete`: takes away all that `create` made.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::annotations::HookOutput;
use crate::cgroup;
use crate::delegate;
use crate::engine;
use crate::error::{Context, Error, Result};
use crate::hooks::{self, HookEnv};
use crate::pidfd::PidFd;
use crate::rdt::Class;
use crate::record::{Container, NOTIFY_SOCKET, STATE_FILE, Status};
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
        Err(err @ (Error::Unknown(_) | Error::Unfinished(_) | Error::Setup(_))) if force => {
            match Container::load_origin(root, id).filter(|_| matches!(err, Error::Setup(_))) {
                Some(container) => container,
                // There is nothing to kill by; what lies there goes.
                None => return remove_dir(&root.container(id)?).map(|()| None),
            }
        }
        Err(err) => return Err(err),
    };
    if container.record.delegate.is_some() {
        delegate::remove(&container, force)?;
        return Ok(Some(container));
    }
    let status = container.status()?;
    if !force && matches!(status, Status::Running | Status::Paused) {
        return Err(Error::WrongStatus {
            verb: "delete",
            id: id.to_owned(),
            status: status.as_str().to_owned(),
            hint: "; hint: stop it first or use `--force`",
        });
    }
    let killed = end(&container)?;
    // Where something could not be killed, that is why the cgroup stays.
    container
        .record
        .cgroup
        .remove()
        .map_err(|err| killed.err().unwrap_or(err))?;
    if let Some(class) = &container.record.rdt {
        class.remove()?;
    }
    poststop(&container);
    remove_dir(&container.dir)?;
    Ok(Some(container))
}

/// Undoes a creation that failed: nothing is left, and no error hides the one that caused it.
pub(crate) fn discard(container: &Container) {
    drop(end(container));
    reap_children();
    drop(container.record.cgroup.remove());
    drop(container.record.rdt.as_ref().map(Class::remove));
    drop(remove_dir(&container.dir));
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
///
/// # Errors
/// When it cannot be told whether the process lives. What the cgroup has against being killed is given back.
fn end(container: &Container) -> Result<cgroup::Result<()>> {
    // Held first and looked at then: the pid may be a stranger's by now.
    let process = held(container);
    let killed = container.record.cgroup.kill_all(libc::SIGKILL);
    let process = process?;
    // Made by a process that was killed before it wrote down whom it had made.
    if process.is_none()
        && !container.record.cgroup.writable()
        && !container.dir.join(STATE_FILE).exists()
    {
        release(&container.dir.join(NOTIFY_SOCKET));
    }
    if let Some(process) = process {
        drop(process.send(libc::SIGKILL));
        drop(process.wait_exit(Some(PATIENCE)));
        // When it is our own child, nobody else reaps it.
        let pid = nix::unistd::Pid::from_raw(container.record.pid);
        let _ = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
    }
    Ok(killed)
}

/// The first process by descriptor, if it lives.
fn held(container: &Container) -> Result<Option<PidFd>> {
    let pid = container.record.pid;
    if pid <= 0 {
        return Ok(None);
    }
    match PidFd::open(pid) {
        Ok(process) => Ok(container.alive()?.then_some(process)),
        Err(err) if err.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(err) => Err(err).op(|| format!("open process {pid}")),
    }
}

/// Lets a process go that will find its maker gone (see [`crate::leash`]), and waits until it does.
fn release(socket: &Path) {
    let end = Instant::now() + PATIENCE;
    while matches!(engine::release(socket), Ok(true)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A failing poststop hook is a warning (`runtime-spec runtime.md#lifecycle` step 13), so it never blocks the id.
fn poststop(container: &Container) {
    let Ok(spec) = container.spec() else { return };
    let state = container.state_as(Status::Stopped).to_string();
    let hooks = spec::list(&spec, "/hooks/poststop");
    if hooks.is_empty() {
        return;
    }
    // A file that has become unusable must not keep them from running.
    let output = HookOutput::open(&spec).unwrap_or_default();
    let env = HookEnv::outside(&container.record.bundle, output);
    for hook in hooks {
        if let Err(err) = hooks::run("poststop", hook, state.as_bytes(), &env) {
            tracing::warn!("{err}");
        }
    }
}

/// The record of a container goes last, so that a removal that is interrupted can be taken up again.
fn remove_dir(path: &Path) -> Result<()> {
    match take_away(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(err).op(|| format!("remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// Never through a link: what it leads to is not ours.
fn take_away(path: &Path) -> io::Result<()> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut dir = match Dir::open(path, flags, Mode::empty()) {
        Err(Errno::ENOTDIR | Errno::ELOOP) => return fs::remove_file(path),
        other => other?,
    };
    let fd = dir.as_raw_fd();
    for entry in dir.iter() {
        let name = entry?.file_name().to_owned();
        if name.to_bytes() != STATE_FILE.as_bytes() {
            // Directories, and what could not be removed, are left to what follows, which tells why.
            let _ = unlinkat(Some(fd), name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
    fs::remove_dir_all(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_leads_to_stays() {
        let dir = std::env::temp_dir().join(format!("fleet-delete-{}", std::process::id()));
        fs::create_dir_all(dir.join("id/sub/sub")).unwrap();
        fs::create_dir(dir.join("other")).unwrap();
        fs::write(dir.join("other/file"), "").unwrap();
        fs::write(dir.join("id/state.json"), "").unwrap();
        std::os::unix::fs::symlink(dir.join("other"), dir.join("id/link")).unwrap();
        std::os::unix::fs::symlink(dir.join("other"), dir.join("link")).unwrap();
        for name in ["id", "link", "missing"] {
            remove_dir(&dir.join(name)).unwrap();
        }
        assert!(dir.join("other/file").exists());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }
}
