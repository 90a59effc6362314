//! `exec`: one more process in a container.
//!
//! libcontainer 0.7: its own builder for this drops the seccomp profile (S1) and does not enter the container's
//! user namespace (S2), and its process driver takes three processes, a socket and a view of the cgroups for what is one
//! fork here. So this is done without the library ([`crate::join`]); the tail is the same as for the first process.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::affinity::Affinity;
use crate::error::{Context, Error, Result};
use crate::join::{self, Newcomer};
use crate::namespaces::Namespaces;
use crate::rdt::Class;
use crate::record::{Container, Status};
use crate::root::{Identity, StateRoot};
use crate::sys::process::SharedText;
use crate::tail::Tail;
use crate::{create, program_plan, spec};

/// What `exec` is asked for.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// State root.
    pub root: &'a StateRoot,
    /// Who runs us.
    pub who: &'a Identity,
    /// A `process` object (`runtime-spec config.md#process`).
    pub process: Value,
    /// Where the pid is written.
    pub pid_file: Option<PathBuf>,
    /// Takes the terminal's master.
    pub console: Option<OwnedFd>,
    /// Descriptors from 3 up that the program keeps.
    pub preserve_fds: u32,
    /// Go on in a paused container.
    pub ignore_paused: bool,
    /// Cgroups below the container's own, `[CONTROLLERS:]PATH`.
    pub sub_cgroups: Vec<String>,
}

/// Runs the process and returns its pid once its program was executed.
///
/// # Errors
/// [`Error::NotRunning`] or [`Error::WrongStatus`] by the container's state, else what failed. No pid file is
/// written on failure: conmon tells a failed runtime from a failed command by that.
pub fn exec(container: &Container, request: &ExecRequest<'_>) -> Result<i32> {
    let status = usable(container, request.ignore_paused)?;
    let full = container.spec()?;
    spec::check_process(&json!({"process": request.process}), "/process")?;
    let namespaces = Namespaces::of(container.record.pid, &full)?;
    // Opened by number: they are the container's only if its process is still there.
    if !container.alive()? {
        return Err(Error::NotRunning(container.record.id.clone()));
    }
    let group = &container.record.cgroup;
    let doors = group.doors(&group.exec_target(container.record.pid))?;
    let made = join::start(Newcomer {
        namespaces,
        doors: doors.as_ref(),
        places: places(container, request)?,
        process: &request.process,
        rootless: request.who.rootless(),
        affinity: Affinity::from_process(&request.process)?,
        preserve_fds: request.preserve_fds,
        tail: tail(container, request, &full, status)?,
    });
    let pid = match made {
        // What it ended of when the container did is of no interest.
        Err(_) if !container.alive()? => {
            return Err(Error::NotRunning(container.record.id.clone()));
        }
        made => made?,
    };
    request
        .pid_file
        .as_deref()
        .map_or(Ok(()), |path: &Path| create::write_pid(path, pid))?;
    Ok(pid)
}

/// Where the process is put beside the container's cgroup.
fn places(
    container: &Container,
    request: &ExecRequest<'_>,
) -> Result<Vec<(PathBuf, &'static str)>> {
    let below = container.record.cgroup.below(&request.sub_cgroups)?;
    let below = below
        .into_iter()
        .map(|dir| (dir.join("cgroup.procs"), "--cgroup"));
    let class = container.record.rdt.iter().flat_map(Class::doors);
    Ok(below
        .chain(class.map(|file| (file, "linux.intelRdt")))
        .collect())
}

fn tail(
    container: &Container,
    request: &ExecRequest<'_>,
    full: &Value,
    status: Status,
) -> Result<Tail> {
    Ok(Tail {
        report: Arc::new(SharedText::new().op(|| "map a shared page")?),
        init: None,
        console: request
            .console
            .as_ref()
            .map(|socket| create::console(socket, &request.process, false))
            .transpose()?,
        program: program_plan::from_spec(
            full,
            &request.process,
            Some(&request.root.cache()),
            &container.state_as(status),
        )?,
        maker: None,
        leash: None,
        resolved: std::cell::RefCell::default(),
    })
}

fn usable(container: &Container, ignore_paused: bool) -> Result<Status> {
    match container.status()? {
        status @ (Status::Running | Status::Created) => Ok(status),
        Status::Paused if ignore_paused => Ok(Status::Paused),
        Status::Paused => Err(Error::Setup(format!(
            "cannot exec in a paused container: `{}`; hint: resume it first or use `--ignore-paused`",
            container.record.id
        ))),
        Status::Stopped | Status::Creating => Err(Error::NotRunning(container.record.id.clone())),
    }
}
