//! `start`.

use fleet_host::EventKind;
use fleet_lifecycle::Error;
use fleet_lifecycle::record::Container;

use super::{Context, Done, audit};

pub(super) fn start(context: &Context, id: &str) -> Result<Done, Error> {
    start_made(context, &context.container(id)?)?;
    Ok(Done::Silent)
}

/// Starts a container that is at hand; shared with `run`.
pub(super) fn start_made(context: &Context, container: &Container) -> Result<(), Error> {
    fleet_lifecycle::start::start(container)?;
    audit::tell(context, container, EventKind::Start);
    Ok(())
}
