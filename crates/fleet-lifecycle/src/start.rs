//! `start`: lets the first process go on to the user's program.

use std::fs;
use std::io;

use crate::annotations::HookOutput;
use crate::engine;
use crate::error::{Error, Result};
use crate::hooks::{self, HookEnv};
use crate::notify::{Proxy, ServiceManager};
use crate::record::{Container, NOTIFY_SOCKET, Status, TAKEN_SOCKET};
use crate::{delegate, delete, spec};

/// Starts a created container and runs its poststart hooks. With a service manager there may be somebody to wait for.
///
/// # Errors
/// [`Error::WrongStatus`] unless it is created; a failing poststart hook stops the container
/// (`runtime-spec runtime.md#lifecycle`).
pub fn start(container: &Container, manager: Option<&ServiceManager>) -> Result<Option<Proxy>> {
    if container.record.delegate.is_some() {
        let proxy = Proxy::open(container, manager)?;
        return delegate::simply("start", container).map(|()| proxy);
    }
    let proxy = release(container, manager)?;
    poststart(container)?;
    Ok(proxy)
}

/// The lock decides which of two callers wins. The socket has another name from here on, so that the container does
/// not look created any more; a `start` that was killed in between leaves it by that name to the next one.
fn release(container: &Container, manager: Option<&ServiceManager>) -> Result<Option<Proxy>> {
    let _lock = container.lock()?;
    let status = container.status()?;
    if status != Status::Created {
        return Err(wrong(container, status));
    }
    // It must be there before the program looks for it.
    let proxy = Proxy::open(container, manager)?;
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
        true => Ok(proxy),
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
    let env = HookEnv::outside(&container.record.bundle, HookOutput::open(&spec)?);
    for hook in all {
        if let Err(err) = hooks::run("poststart", hook, state.as_bytes(), &env) {
            delete::discard(container);
            return Err(err.into());
        }
    }
    Ok(())
}
