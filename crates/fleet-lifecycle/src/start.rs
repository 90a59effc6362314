//! `start`: lets the first process go on to the user's program.

use std::fs;
use std::io;

use crate::engine;
use crate::error::{Error, Result};
use crate::hooks::{self, HookEnv};
use crate::record::{Container, NOTIFY_SOCKET, Status};
use crate::{delete, spec};

/// The socket while a `start` is under way: the rename decides which of two callers won.
const TAKEN: &str = "notify.taken";

/// Starts a created container and runs its poststart hooks.
///
/// # Errors
/// [`Error::WrongStatus`] unless it is created; a failing poststart hook stops the container
/// (`runtime-spec runtime.md#lifecycle`).
pub fn start(container: &Container) -> Result<()> {
    let taken = container.dir.join(TAKEN);
    let status = container.status();
    if status != Status::Created {
        return Err(wrong(container, status));
    }
    match fs::rename(container.dir.join(NOTIFY_SOCKET), &taken) {
        Ok(()) => {}
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            return Err(wrong(container, Status::Running));
        }
        Err(source) => {
            return Err(Error::Io {
                op: format!("start container `{}`", container.record.id),
                source,
            });
        }
    }
    let released = engine::release(&taken);
    drop(fs::remove_file(&taken));
    released?;
    poststart(container)
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
