//! `run`: create, start, and unless detached wait and remove.

use fleet_lifecycle::foreground::{self, Relay, Signals};
use fleet_lifecycle::record::Container;
use fleet_lifecycle::sys::process;
use fleet_lifecycle::{Error, spec};

use super::create::{self, Console, Maker};
use super::{Context, Done, delete, start};
use crate::cli::Run;

pub(super) fn run(context: &Context, args: &Run) -> Result<Done, Error> {
    let maker = Maker::choose(context, &args.common)?;
    if args.detach {
        let console = Console::of(&args.common);
        let (container, _) = create::make(context, maker, &args.common, &args.id, console)?;
        remove_on_failure(context, &container, start::start_and_wait)?;
        return Ok(Done::Silent);
    }
    let console = match Console::of(&args.common) {
        Console::None if wants_terminal(args)? => Console::Ours,
        other => other,
    };
    // Whoever makes the first process ends before it.
    process::set_subreaper(true).map_err(|source| Error::Io {
        op: "become the reaper of orphaned processes".to_owned(),
        source,
    })?;
    let signals = Signals::hold()?;
    let (container, terminal) = create::make(context, maker, &args.common, &args.id, console)?;
    let relay = terminal.as_ref().map(Relay::receive).transpose()?;
    let proxy = remove_on_failure(context, &container, start::start_made)?;
    let code = foreground::wait(container.record.pid, signals, relay, proxy);
    if !args.keep {
        delete::remove(context, &args.id, true)?;
    }
    Ok(Done::Code(code?))
}

fn remove_on_failure<T>(
    context: &Context,
    container: &Container,
    start: fn(&Context, &Container) -> Result<T, Error>,
) -> Result<T, Error> {
    start(context, container).inspect_err(|_| {
        drop(delete::remove(context, &container.record.id, true));
    })
}

/// Read ahead of the creation, since the terminal must exist by then.
fn wants_terminal(args: &Run) -> Result<bool, Error> {
    let spec = spec::load(&args.common.bundle.join(&args.common.config))?;
    Ok(spec::flag(&spec, "/process/terminal"))
}
