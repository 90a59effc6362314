//! Containers that another runtime runs for us, where the configuration names one or did when they were made.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use fleet_discover::Live;
use fleet_host::{PrecreateError, RUNTIME_DIRECTORIES, runtimes};
use fleet_lifecycle::delegate::{self, Delegate, DelegateRequest, Terminal};
use fleet_lifecycle::pidfd_socket::PidfdSocket;
use fleet_lifecycle::record::Container;
use fleet_lifecycle::{Error, spec};

use super::create::{self, Console};
use super::{Context, audit, inject};
use crate::cli::Making;

/// Global options that take a value (see `cli::Global`).
const VALUED: [&str; 6] = [
    "--root",
    "--log",
    "--log-format",
    "--log-level",
    "--cgroup-manager",
    "--config",
];

/// The runtime that new containers are given to, if the configuration names one.
pub(super) fn chosen(context: &Context) -> Result<Option<Delegate>, Error> {
    let names = runtimes(&inject::env(context), &Live::default())
        .map_err(|err| Error::Invalid(err.to_string()))?;
    match names.is_empty() {
        true => Ok(None),
        false => Delegate::find(&names, &RUNTIME_DIRECTORIES, &context.root).map(Some),
    }
}

/// Has `delegate` make the container. What we would do in its root file system becomes a hook, which runs this program.
pub(super) fn make(
    context: &Context,
    delegate: Delegate,
    args: &Making,
    id: &str,
    console: Console,
) -> Result<(Container, Option<OwnedFd>), Error> {
    let pidfd = create::pidfd_socket(args.pidfd_socket.as_deref())?;
    let bundle = create::bundle(&args.bundle)?;
    let mut spec = spec::load(&bundle.join(&args.config))?;
    let program = std::env::current_exe().map_err(|source| Error::Io {
        op: "read our own path".to_owned(),
        source,
    })?;
    let env = inject::env(context);
    let host = Live::default();
    let outcome = fleet_host::precreate(&mut spec, &env, &host, &program.to_string_lossy())
        .map_err(|err| {
            if let PrecreateError::Inject(cause) = &err {
                audit::refused(context, id, &bundle, &spec, cause);
            }
            Error::Invalid(err.to_string())
        });
    let mut outcome = outcome?;
    for warning in &outcome.warnings {
        context.log.warn(warning);
    }
    context.log.debug(&format!(
        "container `{id}` is given to `{}`",
        delegate.program.display()
    ));
    let trail = audit::trail(context, id, &bundle, &spec, &outcome);
    create::name_listen_fds(&mut spec);
    let (container, listener) = delegate::create(
        delegate,
        DelegateRequest {
            root: &context.root,
            who: &context.who,
            id,
            bundle: &bundle,
            config: &args.config,
            spec,
            pid_file: args.pid_file.clone(),
            plan: outcome.record.take(),
            audit: trail.as_ref().map(|trail| serde_json::json!(trail)),
            terminal: match console {
                Console::None => Terminal::None,
                Console::Engine(socket) => Terminal::Engine(socket),
                Console::Ours => Terminal::Ours,
            },
            preserve_fds: create::kept(args.preserve_fds),
            no_pivot: args.no_pivot,
            no_new_keyring: args.no_new_keyring,
            cgroup_driver: create::driver(context),
            service_manager: context.service_manager()?,
        },
    )?;
    audit::created(context, &container, trail.as_ref(), &outcome)?;
    let arrived = finish(&container, pidfd, listener).inspect_err(|_| {
        // Nobody would learn of a container whose creation is reported as failed.
        drop(delegate::remove(&container, true));
    })?;
    Ok((container, arrived))
}

fn finish(
    container: &Container,
    pidfd: Option<PidfdSocket>,
    listener: Option<UnixListener>,
) -> Result<Option<OwnedFd>, Error> {
    pidfd.map_or(Ok(()), |socket| socket.send(container.record.pid))?;
    let accept = |listener: UnixListener| {
        // The other runtime has connected by now, or has failed.
        let (socket, _) = listener.accept().map_err(|source| Error::Io {
            op: "take the terminal".to_owned(),
            source,
        })?;
        Ok(socket.into())
    };
    listener.map(accept).transpose()
}

/// A verb as it was typed goes to the runtime that made the container; `None` where that is this one.
pub(super) fn pass(container: &Container, lacks: &[&str]) -> Result<Option<()>, Error> {
    let Some(delegate) = &container.record.delegate else {
        return Ok(None);
    };
    let typed = typed(std::env::args_os().collect());
    let verb = typed.first().map(|verb| verb.to_string_lossy());
    if let Some(verb) = verb.filter(|_| lacks.contains(&delegate.name().as_str())) {
        return Err(Error::Invalid(format!(
            "container `{}` was made by {}, which has no `{verb}`",
            container.record.id,
            delegate.name()
        )));
    }
    delegate.pass(container, &typed).map(Some)
}

/// `exec` becomes one of the runtime that made the container: terminal, signals and exit code are its business.
pub(super) fn become_exec(context: &Context, container: &Container) -> Result<(), Error> {
    let Some(delegate) = &container.record.delegate else {
        return Ok(());
    };
    let mut options: Vec<OsString> = Vec::new();
    if let Some(log) = context.global.log.as_ref().filter(|log| !log.is_empty()) {
        options.extend(["--log".into(), log.into()]);
        options.extend([
            "--log-format".into(),
            context.global.log_format.clone().into(),
        ]);
    }
    if context.global.debug {
        options.push("--debug".into());
    }
    Err(delegate.become_it(&options, &typed(std::env::args_os().collect())))
}

/// The verb and what follows it.
fn typed(args: Vec<OsString>) -> Vec<OsString> {
    let mut args = args.into_iter().skip(1).peekable();
    while let Some(next) = args.next_if(|arg| arg.as_encoded_bytes().starts_with(b"-")) {
        if VALUED.iter().any(|option| next == *option) {
            args.next();
        }
    }
    args.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_without_our_own_options() {
        let words =
            |line: &str| -> Vec<OsString> { line.split_whitespace().map(OsString::from).collect() };
        for (line, want) in [
            ("fleet-nvidia state x", "state x"),
            (
                "fleet-nvidia --root /r --log=/l --log-format json --debug exec -d --process /p x",
                "exec -d --process /p x",
            ),
            (
                "fleet-nvidia --rootless=true --systemd-cgroup --cgroup-manager systemd update --resources - x",
                "update --resources - x",
            ),
            ("fleet-nvidia", ""),
        ] {
            assert_eq!(typed(words(line)), words(want), "{line}");
        }
    }

    /// What `cli` calls global, `typed` must know.
    #[test]
    fn no_option_with_a_value_is_forgotten() {
        use clap::CommandFactory;
        let command = crate::cli::Command::command();
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long() else { continue };
            let valued = arg.get_action().takes_values() && !arg.is_require_equals_set();
            assert_eq!(
                VALUED.contains(&format!("--{long}").as_str()),
                valued,
                "{long}"
            );
        }
    }
}
