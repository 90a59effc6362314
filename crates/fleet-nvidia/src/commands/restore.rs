//! `restore`: revive a container, and unless detached wait and remove.

use std::os::fd::OwnedFd;

use fleet_host::EventKind;
use fleet_lifecycle::foreground::{self, Relay, Signals};
use fleet_lifecycle::record::Container;
use fleet_lifecycle::restore::RestoreRequest;
use fleet_lifecycle::{Error, spec};

use super::{Context, Done, audit, checkpoint, create, delegated, delete};
use crate::cli::Restore;

pub(super) fn restore(context: &Context, args: &Restore) -> Result<Done, Error> {
    checkpoint::refuse("restore", &args.refused, &args.saved)?;
    if args.common.preserve_fds != 0 {
        return Err(Error::Invalid(
            "`--preserve-fds` of `restore` is not supported: the program has the descriptors that it had".to_owned(),
        ));
    }
    if let Some(other) = delegated::chosen(context)? {
        return Err(Error::Invalid(format!(
            "restore is not passed on to {}, which the configuration names; hint: `--config` names another one",
            other.name()
        )));
    }
    let socket = args.common.console_socket.as_deref();
    if args.detach {
        bring(context, args, create::connect(socket)?)?;
        return Ok(Done::Silent);
    }
    let (ours, theirs) = match socket {
        None if wants_terminal(args)? => {
            foreground::console_pair().map(|(ours, theirs)| (Some(ours), Some(theirs)))?
        }
        other => (None, create::connect(other)?),
    };
    let signals = Signals::hold()?;
    let container = bring(context, args, theirs)?;
    let relay = ours.as_ref().map(Relay::receive).transpose()?;
    let code = foreground::wait(container.record.pid, signals, relay, None);
    delete::remove(context, &args.id, true)?;
    Ok(Done::Code(code?))
}

fn wants_terminal(args: &Restore) -> Result<bool, Error> {
    let spec = spec::load(&args.common.bundle.join(&args.common.config))?;
    Ok(spec::flag(&spec, "/process/terminal"))
}

fn bring(context: &Context, args: &Restore, console: Option<OwnedFd>) -> Result<Container, Error> {
    let container = create::make_ourselves(context, &args.common, &args.id, console, |create| {
        fleet_lifecycle::restore::restore(RestoreRequest {
            create,
            images: &args.saved.image_path,
            work: args.saved.work_path.as_deref(),
            tcp_close: args.tcp_close,
            options: checkpoint::options(&args.saved),
        })
    })?;
    audit::tell(context, &container, EventKind::Start);
    Ok(container)
}
