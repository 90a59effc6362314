//! `create`.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fleet_lifecycle::cgroup::Driver;
use fleet_lifecycle::create::CreateRequest;
use fleet_lifecycle::delegate::Delegate;
use fleet_lifecycle::pidfd_socket::PidfdSocket;
use fleet_lifecycle::record::Container;
use fleet_lifecycle::sys::process;
use fleet_lifecycle::{
    Error, annotations, console_socket, foreground, hooks, preserve, selfexe, spec,
};

use super::{Context, Done, audit, delegated, inject};
use crate::cli::{Create, Making};

pub(super) fn create(context: &Context, args: &Create) -> Result<Done, Error> {
    let maker = Maker::choose(context, &args.common)?;
    let console = Console::of(&args.common);
    make(context, maker, &args.common, &args.id, console)?;
    Ok(Done::Silent)
}

/// Who makes a container.
#[derive(Debug)]
pub(super) enum Maker {
    /// This runtime.
    Ourselves,
    /// The one that the configuration names.
    Other(Delegate),
}

impl Maker {
    /// Decides, and makes this process fit for the work: it goes on from a protected view of the binary, with the numbers
    /// of the descriptors taken that the program is to keep.
    pub(super) fn choose(context: &Context, args: &Making) -> Result<Self, Error> {
        if let Some(delegate) = delegated::chosen(context)? {
            return Ok(Self::Other(delegate));
        }
        protect()?;
        preserve::take_range(kept(args.preserve_fds))?;
        Ok(Self::Ourselves)
    }
}

/// Who takes the container's terminal.
#[derive(Debug)]
pub(super) enum Console {
    /// There is none.
    None,
    /// The engine, at this socket.
    Engine(PathBuf),
    /// We do.
    Ours,
}

impl Console {
    /// What the options say.
    pub(super) fn of(args: &Making) -> Self {
        args.console_socket.clone().map_or(Self::None, Self::Engine)
    }
}

/// Makes the container; shared with `run`. With [`Console::Ours`] its terminal comes over the socket that is returned.
pub(super) fn make(
    context: &Context,
    maker: Maker,
    args: &Making,
    id: &str,
    console: Console,
) -> Result<(Container, Option<OwnedFd>), Error> {
    if let Maker::Other(delegate) = maker {
        return delegated::make(context, delegate, args, id, console);
    }
    let (ours, theirs) = match console {
        Console::None => (None, None),
        Console::Engine(socket) => (None, connect(Some(&socket))?),
        Console::Ours => {
            foreground::console_pair().map(|(ours, theirs)| (Some(ours), Some(theirs)))?
        }
    };
    let container = make_ourselves(context, args, id, theirs, fleet_lifecycle::create::create)?;
    Ok((container, ours))
}

/// Has `bring` make the container of a bundle, with the devices that it is to have; shared with `restore`.
pub(super) fn make_ourselves(
    context: &Context,
    args: &Making,
    id: &str,
    console: Option<OwnedFd>,
    bring: impl FnOnce(CreateRequest<'_>) -> Result<Container, Error>,
) -> Result<Container, Error> {
    let pidfd = pidfd_socket(args.pidfd_socket.as_deref())?;
    let bundle = bundle(&args.bundle)?;
    let mut spec = spec::load(&bundle.join(&args.config))?;
    // Before any file of ours is read: a spec that cannot run is refused for that reason.
    spec::check(&spec)?;
    let mut injected = inject::inject(context, id, &bundle, &mut spec)?;
    let trail = audit::trail(context, id, &bundle, &spec, &injected);
    let receiver = annotations::pidfd_receiver(&spec);
    let receiver = pidfd_socket(receiver.as_deref())?;
    let applied = std::mem::take(&mut injected.applied);
    name_listen_fds(&mut spec);
    let hook_environment = hooks::own_environment();
    let preserve_fds = kept(args.preserve_fds);
    process::clear_environment();
    let container = bring(CreateRequest {
        root: &context.root,
        who: &context.who,
        id,
        bundle: &bundle,
        spec,
        edits: applied.rootfs,
        host_paths: applied.host_paths.into_iter().collect::<BTreeMap<_, _>>(),
        plan: injected.record.take(),
        audit: trail.as_ref().map(|trail| serde_json::json!(trail)),
        pid_file: args.pid_file.clone(),
        console,
        preserve_fds,
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
        cgroup_driver: driver(context),
        hook_environment,
        service_manager: context.service_manager()?,
    })?;
    audit::created(context, &container, trail.as_ref(), &injected)?;
    for socket in pidfd.into_iter().chain(receiver) {
        // Nobody would learn of a container whose creation is reported as failed.
        socket.send(container.record.pid).inspect_err(|_| {
            drop(fleet_lifecycle::delete::delete(&context.root, id, true));
        })?;
    }
    Ok(container)
}

/// Runs on from a protected view of the binary; only verbs that enter a container pay for it.
pub(super) fn protect() -> Result<(), Error> {
    let env = std::env::vars_os().filter_map(|(name, value)| {
        use std::os::unix::ffi::OsStrExt;
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    });
    selfexe::protect(std::env::args_os().collect(), env.collect())
}

pub(super) fn connect(path: Option<&Path>) -> Result<Option<OwnedFd>, Error> {
    path.map(console_socket::connect).transpose()
}

pub(super) fn pidfd_socket(path: Option<&Path>) -> Result<Option<PidfdSocket>, Error> {
    path.map(PidfdSocket::connect).transpose()
}

pub(super) fn bundle(given: &Path) -> Result<PathBuf, Error> {
    given.canonicalize().map_err(|source| Error::Io {
        op: format!("bundle `{}`", given.display()),
        source,
    })
}

pub(super) fn driver(context: &Context) -> Driver {
    match context.global.cgroup_manager.as_deref() {
        Some("disabled") => Driver::Disabled,
        Some("systemd") => Driver::Systemd,
        Some(_) => Driver::Cgroupfs,
        None if context.global.systemd_cgroup => Driver::Systemd,
        None => Driver::Cgroupfs,
    }
}

/// Descriptors from 3 up that the program keeps: those of systemd's first, then those of `--preserve-fds`.
pub(super) fn kept(preserved: u32) -> u32 {
    preserved.saturating_add(listen_fds())
}

/// Sockets passed by systemd (`man 3 sd_listen_fds`), unless they are meant for another process. Podman sets the
/// variables in the container itself and passes `--preserve-fds` as well; its `LISTEN_PID` is not ours.
fn listen_fds() -> u32 {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|value| value.parse::<u32>().unwrap_or(0))
    };
    match (number("LISTEN_FDS"), number("LISTEN_PID")) {
        (Some(count), None) => count,
        (Some(count), Some(pid)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// Tells the program about the sockets that are passed on to it.
pub(super) fn name_listen_fds(spec: &mut serde_json::Value) {
    let count = listen_fds();
    if count == 0 {
        return;
    }
    if let Some(env) = spec
        .pointer_mut("/process/env")
        .and_then(serde_json::Value::as_array_mut)
    {
        env.retain(|entry| {
            !entry
                .as_str()
                .is_some_and(|e| e.starts_with("LISTEN_FDS=") || e.starts_with("LISTEN_PID="))
        });
        env.push(format!("LISTEN_FDS={count}").into());
        env.push("LISTEN_PID=1".into());
    }
}
