//! `create`.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fleet_lifecycle::cgroup::Driver;
use fleet_lifecycle::create::CreateRequest;
use fleet_lifecycle::record::Container;
use fleet_lifecycle::sys::process;
use fleet_lifecycle::{Error, console_socket, selfexe, spec};

use super::{Context, Done, audit, inject};
use crate::cli::{Create, Making};

pub(super) fn create(context: &Context, args: &Create) -> Result<Done, Error> {
    protect()?;
    let console = connect(args.common.console_socket.as_deref())?;
    make(context, &args.common, &args.id, console)?;
    Ok(Done::Silent)
}

/// Makes the container; shared with `run`.
pub(super) fn make(
    context: &Context,
    args: &Making,
    id: &str,
    console: Option<OwnedFd>,
) -> Result<Container, Error> {
    let bundle = bundle(&args.bundle)?;
    let mut spec = spec::load(&bundle.join(&args.config))?;
    // Before any file of ours is read: a spec that cannot run is refused for that reason.
    spec::check(&spec)?;
    let mut injected = inject::inject(context, id, &bundle, &mut spec)?;
    let trail = audit::trail(context, id, &bundle, &spec, &injected);
    let applied = std::mem::take(&mut injected.applied);
    let listen = listen_fds(&mut spec);
    process::clear_environment();
    let container = fleet_lifecycle::create::create(CreateRequest {
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
        preserve_fds: args.preserve_fds.saturating_add(listen),
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
        cgroup_driver: driver(context),
    })?;
    audit::created(context, &container, trail.as_ref(), &injected)?;
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

fn bundle(given: &Path) -> Result<PathBuf, Error> {
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

/// Sockets passed by systemd (`man 3 sd_listen_fds`): honoured only when meant for this very process. Podman sets
/// the variables in the container itself and passes `--preserve-fds` as well.
pub(super) fn listen_fds(spec: &mut serde_json::Value) -> u32 {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u32>().ok())
    };
    let (Some(count), Some(pid)) = (number("LISTEN_FDS"), number("LISTEN_PID")) else {
        return 0;
    };
    if pid != std::process::id() || count == 0 {
        return 0;
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
    count
}
