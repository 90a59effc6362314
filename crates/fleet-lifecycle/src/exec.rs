//! `exec`: one more process in a container.
//!
//! libcontainer 0.7: its own builder for this drops the seccomp profile (S1) and does not enter the container's
//! user namespace (S2); here every namespace of the container is joined by descriptor, and the tail is the same
//! as for the first process.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::{self, Launch, view};
use crate::error::{Context, Error, Result};
use crate::pidfd::PidFd;
use crate::rdt::Class;
use crate::record::{Container, Status};
use crate::root::{Identity, StateRoot};
use crate::surroundings;
use crate::sys::process::{self, SharedText};
use crate::tail::Tail;
use crate::usermap::Entrance;
use crate::{create, driver, oom, program_plan, spec};

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

/// Namespace type in the spec, and its file under `/proc/PID/ns`.
const NAMESPACE_FILES: [(&str, &str); 8] = [
    ("user", "user"),
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("time", "time"),
    ("mount", "mnt"),
];

/// Runs the process and returns its pid once its program was executed.
///
/// # Errors
/// [`Error::NotRunning`] or [`Error::WrongStatus`] by the container's state, else what failed. No pid file is
/// written on failure: conmon tells a failed runtime from a failed command by that.
pub fn exec(container: &Container, request: &ExecRequest<'_>) -> Result<i32> {
    check_status(container, request.ignore_paused)?;
    let full = container.spec()?;
    spec::check_process(&json!({"process": request.process}), "/process")?;
    let mut open = namespaces(container.record.pid, &full)?;
    let entrance = entrance(container.record.pid, &mut open)?;
    // Opened by number: they are the container's only if its process is still there.
    if !container.alive()? {
        return Err(Error::NotRunning(container.record.id.clone()));
    }
    let entries = open.iter().map(
        |(kind, fd)| json!({"type": kind, "path": format!("/proc/self/fd/{}", fd.as_raw_fd())}),
    );
    let mut view = view::join(&full, &request.process, entries.collect());
    if let Some(entrance) = &entrance {
        view["process"]["user"] = entrance.user();
    }
    let tail = Tail {
        report: Arc::new(SharedText::new().op(|| "map a shared page")?),
        init: None,
        console: request
            .console
            .as_ref()
            .map(|socket| create::console(socket, &request.process, false))
            .transpose()?,
        program: program_plan::from_spec(
            &full,
            &request.process,
            Some(&request.root.cache()),
            &container.state()?,
        )?,
        maker: None,
        leash: None,
        resolved: std::cell::RefCell::default(),
    };
    let pid = launch(container, request, view, tail, entrance)?;
    request
        .pid_file
        .as_deref()
        .map_or(Ok(()), |path: &Path| create::write_pid(path, pid))?;
    Ok(pid)
}

/// Makes the process and lets it run.
fn launch(
    container: &Container,
    request: &ExecRequest<'_>,
    view: Value,
    mut tail: Tail,
    entrance: Option<Entrance>,
) -> Result<i32> {
    let group = &container.record.cgroup;
    let below = group.below(&request.sub_cgroups)?;
    let below = below
        .into_iter()
        .map(|dir| (dir.join("cgroup.procs"), "--cgroup"));
    let class = container.record.rdt.iter().flat_map(Class::doors);
    let enter = below
        .chain(class.map(|file| (file, "linux.intelRdt")))
        .collect();
    let target = group.exec_target(container.record.pid);
    let doors = group.doors(&target)?;
    sweep(&container.dir);
    let socket = socket_name(std::process::id());
    let made = driver::run(doors.as_ref(), || {
        oom::set(&json!({"process": request.process}), request.who.rootless())?;
        let cgroup_path = match doors.as_ref().filter(|_| entrance.is_none()) {
            None => surroundings::hide_cgroups().map(|()| surroundings::HIDDEN_CGROUP)?,
            Some(doors) => surroundings::spare_the_move(doors).map(|()| target.as_str())?,
        };
        let own = nix::unistd::getpid().as_raw();
        // Where another process of ours goes into the user namespace, that one is its parent, and ends right away.
        if entrance.is_none() {
            tail.maker = Some(PidFd::open(own).op(|| "open the own process")?);
        }
        process::set_dumpable(false).op(|| "set PR_SET_DUMPABLE")?;
        engine::join(Launch {
            id: &container.record.id,
            bundle: &container.record.bundle,
            state_dir: &container.dir,
            view,
            rootfs: container.record.rootfs.clone(),
            cgroup_path,
            enter,
            entrance,
            socket: &socket,
            preserve_fds: i32::try_from(request.preserve_fds).unwrap_or(i32::MAX),
            no_pivot: false,
            tail: Rc::new(tail),
        })
    });
    // The process that made it may have been killed.
    made.inspect_err(|_| drop(fs::remove_file(container.dir.join(&socket))))
}

const SOCKET: (&str, &str) = ("exec-", ".sock");

/// Where the new process waits for its release.
fn socket_name(pid: u32) -> String {
    format!("{}{pid}{}", SOCKET.0, SOCKET.1)
}

/// A process that makes another takes far less.
const OLD: Duration = Duration::from_secs(60);

/// Takes away what earlier ones that were killed have left. Not by the pid alone: one in another pid namespace is not
/// seen from here.
fn sweep(dir: &Path) {
    let maker = |name: &str| -> Option<u32> {
        name.strip_prefix(SOCKET.0)?
            .strip_suffix(SOCKET.1)?
            .parse()
            .ok()
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let gone = entry
            .file_name()
            .to_str()
            .and_then(maker)
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if gone && age().is_some_and(|age| age > OLD) {
            drop(fs::remove_file(entry.path()));
        }
    }
}

fn check_status(container: &Container, ignore_paused: bool) -> Result<()> {
    match container.status()? {
        Status::Running | Status::Created => Ok(()),
        Status::Paused if ignore_paused => Ok(()),
        Status::Paused => Err(Error::Setup(format!(
            "cannot exec in a paused container: `{}`; hint: resume it first or use `--ignore-paused`",
            container.record.id
        ))),
        Status::Stopped | Status::Creating => Err(Error::NotRunning(container.record.id.clone())),
    }
}

/// Takes a user namespace without a root user or group out of those that the library joins.
fn entrance(pid: i32, open: &mut Vec<(&'static str, File)>) -> Result<Option<Entrance>> {
    let Some(at) = open.iter().position(|(kind, _)| *kind == "user") else {
        return Ok(None);
    };
    let map = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).op(|| format!("read `{path}`"))
    };
    let (uids, gids) = (map("uid_map")?, map("gid_map")?);
    let namespace = open[at]
        .1
        .try_clone()
        .op(|| "duplicate a namespace descriptor")?;
    let entrance = Entrance::needed(namespace, &uids, &gids);
    if entrance.is_some() {
        open.remove(at);
    }
    Ok(entrance)
}

/// Opens the namespaces of the container that are not our own.
fn namespaces(pid: i32, full: &Value) -> Result<Vec<(&'static str, File)>> {
    let mut open = Vec::new();
    for (kind, file) in NAMESPACE_FILES {
        if spec::namespace(full, kind) == spec::Namespace::Inherited {
            continue;
        }
        let path = format!("/proc/{pid}/ns/{file}");
        let theirs = File::open(&path).op(|| format!("open namespace `{path}`"))?;
        let ours = std::fs::metadata(format!("/proc/self/ns/{file}"))
            .op(|| format!("stat own {kind} namespace"))?;
        let meta = theirs
            .metadata()
            .op(|| format!("stat namespace `{path}`"))?;
        // Joining the user namespace one is in already is an error (`man 2 setns`).
        if (meta.st_dev(), meta.st_ino()) != (ours.st_dev(), ours.st_ino()) {
            open.push((kind, theirs));
        }
    }
    Ok(open)
}
