//! `start`: lets the first process go on to the user's program.

use std::fs;
use std::io;

use crate::engine;
use crate::error::{Error, Result};
use crate::hooks::{self, HookEnv};
use crate::record::{Container, NOTIFY_SOCKET, Status, TAKEN_SOCKET};
use crate::{delete, spec};

/// Starts a created container and runs its poststart hooks.
///
/// # Errors
/// [`Error::WrongStatus`] unless it is created; a failing poststart hook stops the container
/// (`runtime-spec runtime.md#lifecycle`).
pub fn start(container: &Container) -> Result<()> {
    release(container)?;
    poststart(container)
}

/// The lock decides which of two callers wins. The socket has another name from here on, so that the container does
/// not look created any more; a `start` that was killed in between leaves it by that name to the next one.
fn release(container: &Container) -> Result<()> {
    let _lock = container.lock()?;
    let status = container.status()?;
    if status != Status::Created {
        return Err(wrong(container, status));
    }
    let taken = container.dir.join(TAKEN_SOCKET);
    match fs::rename(container.dir.join(NOTIFY_SOCKET), &taken) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            return Err(Error::Io {
                op: format!("start container `{}`", container.record.id),
                source: err,
            });
        }
        _ => {}
    }
    // One that failed can be tried again.
    let released = engine::release(&taken)?;
    drop(fs::remove_file(&taken));
    match released {
        true => Ok(()),
        // Let go by the one that was killed, it has yet to execute its program; or it is gone.
        false if container.alive()? => Err(wrong(container, Status::Running)),
        false => Err(wrong(container, Status::Stopped)),
    }
}

fn wrong(container: &Container, status: Status) -> Error {
    Error::WrongStatus {
        verb: "start",
        id: container.record.id.clone(),
        status: status.as_str().to_owned(),
        hint: "",
    }
}

fn poststart(container: &Container) -> Result<()> {
    let spec = container.spec()?;
    let all = spec::list(&spec, "/hooks/poststart");
    if all.is_empty() {
        return Ok(());
    }
    let state = container.state_as(Status::Running).to_string();
    for hook in all {
        let env = HookEnv::outside(&container.record.bundle);
        if let Err(err) = hooks::run("poststart", hook, state.as_bytes(), &env) {
            delete::discard(container);
            return Err(err.into());
        }
    }
    Ok(())
}
