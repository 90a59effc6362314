//! `start`.

use fleet_host::EventKind;
use fleet_lifecycle::Error;
use fleet_lifecycle::notify::Proxy;
use fleet_lifecycle::record::Container;

use super::{Context, Done, audit};

pub(super) fn start(context: &Context, id: &str) -> Result<Done, Error> {
    start_and_wait(context, &context.container(id)?)?;
    Ok(Done::Silent)
}

/// Starts a container and, where a service manager started us, returns when its program is ready or has ended.
pub(super) fn start_and_wait(context: &Context, container: &Container) -> Result<(), Error> {
    let proxy = start_made(context, container)?;
    proxy.map_or(Ok(()), |proxy| proxy.wait(container))
}

/// Starts a container that is at hand; shared with `run`.
pub(super) fn start_made(context: &Context, container: &Container) -> Result<Option<Proxy>, Error> {
    // The address was checked when the container was made; one made without has nobody to tell.
    let manager = context.service_manager().unwrap_or_default();
    let proxy = fleet_lifecycle::start::start(container, manager.as_ref())?;
    audit::tell(context, container, EventKind::Start);
    Ok(proxy)
}
