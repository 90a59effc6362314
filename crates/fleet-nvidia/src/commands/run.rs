//! `run`: create, start, and unless detached wait and remove.

use fleet_lifecycle::foreground::{self, Relay, Signals};
use fleet_lifecycle::{Error, preserve, spec};

use super::{Context, Done, create, delete, start};
use crate::cli::Run;

pub(super) fn run(context: &Context, args: &Run) -> Result<Done, Error> {
    create::protect()?;
    preserve::take_range(create::kept(args.common.preserve_fds))?;
    if args.detach {
        let console = create::connect(args.common.console_socket.as_deref())?;
        let container = create::make(context, &args.common, &args.id, console)?;
        start_or_remove(context, &container)?;
        return Ok(Done::Silent);
    }
    let terminal = wants_terminal(args)? && args.common.console_socket.is_none();
    let (ours, theirs) = match terminal {
        true => foreground::console_pair().map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
        false => (
            None,
            create::connect(args.common.console_socket.as_deref())?,
        ),
    };
    let signals = Signals::hold()?;
    let container = create::make(context, &args.common, &args.id, theirs)?;
    let relay = ours.as_ref().map(Relay::receive).transpose()?;
    start_or_remove(context, &container)?;
    let code = foreground::wait(container.record.pid, signals, relay);
    if !args.keep {
        delete::remove(context, &args.id, true)?;
    }
    Ok(Done::Code(code?))
}

fn start_or_remove(
    context: &Context,
    container: &fleet_lifecycle::record::Container,
) -> Result<(), Error> {
    start::start_made(context, container).inspect_err(|_| {
        drop(delete::remove(context, &container.record.id, true));
    })
}

/// Read ahead of the creation, since the terminal must exist by then.
fn wants_terminal(args: &Run) -> Result<bool, Error> {
    let spec = spec::load(&args.common.bundle.join(&args.common.config))?;
    Ok(spec::flag(&spec, "/process/terminal"))
}
