//! `state`: called often by engines, so it reads one file and asks the kernel twice.

use fleet_lifecycle::{Error, delegate};

use super::{Context, Done};

pub(super) fn state(context: &Context, id: &str) -> Result<Done, Error> {
    let container = context.container(id)?;
    let state = delegate::state_of(&container)?;
    Ok(Done::Text(format!("{state:#}\n")))
}
