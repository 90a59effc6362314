//! The seam to libcontainer: the only module (with its children) that knows it.
//!
//! It is driven at its process-driver level: an in-memory spec goes in, a blocked first process comes out. What
//! the library is handed is a reduced [`view`] of the spec; the rest is done by [`crate::tail`] inside the
//! container, called through our [`executor`]. State, cgroups, hooks, identity, seccomp and cleanup are ours.
//! Every workaround here is tagged `libcontainer 0.7:` and listed in `docs/libcontainer-gaps.md`.

mod capture;
mod executor;
pub mod view;
mod words;

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use libcontainer::container::{Container, ContainerStatus};
use libcontainer::notify_socket::{NotifyListener, NotifyListenerError, NotifySocket};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::process::args::{ContainerArgs, ContainerType};
use libcontainer::process::container_main_process::container_main_process;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::user_ns::UserNamespaceConfig;
use libcontainer::workload::Executor;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::tail::Tail;
use crate::usermap::Entrance;

pub use executor::TailExecutor;

/// Everything the library needs to make one process.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Container id.
    pub id: &'a str,
    /// Absolute bundle path.
    pub bundle: &'a Path,
    /// `<root>/<id>`.
    pub state_dir: &'a Path,
    /// The reduced spec made by [`view`].
    pub view: Value,
    /// Absolute root file system.
    pub rootfs: PathBuf,
    /// Absolute path of the cgroup below every hierarchy's root; the process is moved there.
    pub cgroup_path: &'a str,
    /// A user namespace that is entered before the library begins.
    pub entrance: Option<Entrance>,
    /// File name of the socket on which the process waits for the start signal.
    pub socket: &'a str,
    /// Number of descriptors from 3 up that the program keeps.
    pub preserve_fds: i32,
    /// `MS_MOVE` instead of `pivot_root`.
    pub no_pivot: bool,
    /// What is done inside.
    pub tail: Rc<Tail>,
}

/// Makes the container's first process, which then waits for [`release`]. Returns its pid.
///
/// # Errors
/// [`Error::Setup`] with the innermost cause that any of the processes involved reported.
pub(crate) fn create(mut launch: Launch<'_>) -> Result<i32> {
    let spec = typed(&launch.view)?;
    // The processes to come have no use for two copies of the same.
    launch.view = Value::Null;
    // Only needed to hand hooks an OCI state; without hooks the library never looks at it.
    let container = Container::new(
        launch.id,
        ContainerStatus::Creating,
        None,
        launch.bundle,
        launch.state_dir,
    )
    .map_err(|err| Error::Setup(err.to_string()))?;
    let user_namespace = UserNamespaceConfig::new(&spec)
        .map_err(|err| Error::Invalid(format!("user namespace: {err}")))?;
    drive(launch, spec, container, user_namespace)
}

/// Lets the process that waits on `socket` go on; false when nobody waits there any more.
///
/// # Errors
/// [`Error::Setup`] when that cannot be told.
pub fn release(socket: &Path) -> Result<bool> {
    match NotifySocket::new(socket).notify_container_start() {
        Ok(()) => Ok(true),
        Err(NotifyListenerError::Connect { source, .. })
            if source.kind() == io::ErrorKind::ConnectionRefused =>
        {
            Ok(false)
        }
        Err(NotifyListenerError::SendStartContainer(source))
            if source.kind() == io::ErrorKind::BrokenPipe =>
        {
            Ok(false)
        }
        Err(err) => Err(Error::Setup(chain(&err))),
    }
}

/// An error with all its causes; the library's own text is the outermost alone.
fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        let words = words.split(" (os error").next().unwrap_or_default();
        if !text.contains(words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

fn typed(view: &Value) -> Result<Spec> {
    Spec::deserialize(view).map_err(|err| Error::Invalid(format!("the spec cannot be run: {err}")))
}

fn drive(
    launch: Launch<'_>,
    spec: Spec,
    container: Container,
    user_ns_config: Option<UserNamespaceConfig>,
) -> Result<i32> {
    let socket = launch.state_dir.join(launch.socket);
    let notify_listener = NotifyListener::new(&socket).map_err(|err| Error::Setup(chain(&err)))?;
    let _capture = capture::install(Arc::clone(&launch.tail.report));
    let executor: Box<dyn Executor> = Box::new(TailExecutor::new(Rc::clone(&launch.tail)));
    let args = ContainerArgs {
        container_type: ContainerType::InitContainer,
        syscall: SyscallType::Linux,
        spec: Rc::new(spec),
        rootfs: launch.rootfs,
        // libcontainer 0.7: its terminal keeps root as owner and no size; ours is made by the tail.
        console_socket: None,
        notify_listener,
        preserve_fds: launch.preserve_fds,
        container: Some(container),
        user_ns_config,
        cgroup_config: libcgroups::common::CgroupConfig {
            cgroup_path: PathBuf::from(launch.cgroup_path),
            // libcontainer 0.7: forced on by user namespaces in its builder; we always hand over a path.
            systemd_cgroup: false,
            container_name: launch.id.to_owned(),
        },
        detached: true,
        executor,
        no_pivot: launch.no_pivot,
        stdin: None,
        stdout: None,
        stderr: None,
        as_sibling: false,
        // libcontainer 0.7: writes it before the container is ready and not in one step.
        pid_file: None,
    };
    let make = || {
        let pid = container_main_process(&args).map_err(|err| {
            // libcontainer 0.7: errors lose their cause between its processes; the shared page has the first report.
            let text = launch.tail.report.load().unwrap_or_else(|| chain(&err));
            Error::Setup(words::plain(&text))
        });
        pid.map(nix::unistd::Pid::as_raw)
    };
    let pid = match &launch.entrance {
        // What is left to do here needs the rights of the host, so another process goes there.
        Some(entrance) => crate::driver::run(None, || entrance.enter().and_then(|()| make()))?,
        None => make()?,
    };
    if let Some(agent) = &launch.tail.program.agent {
        agent.announce(pid);
    }
    Ok(pid)
}
