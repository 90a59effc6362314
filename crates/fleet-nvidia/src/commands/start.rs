//! `start`.

use fleet_lifecycle::Error;

use super::{Context, Done};

pub(super) fn start(context: &Context, id: &str) -> Result<Done, Error> {
    fleet_lifecycle::start::start(&context.container(id)?)?;
    Ok(Done::Silent)
}
