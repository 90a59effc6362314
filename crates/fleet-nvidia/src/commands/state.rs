//! `state`: called often by engines, so it reads one file and asks the kernel twice.

use fleet_lifecycle::Error;

use super::{Context, Done};

pub(super) fn state(context: &Context, id: &str) -> Result<Done, Error> {
    let container = context.container(id)?;
    Ok(Done::Text(format!("{:#}\n", container.state()?)))
}
