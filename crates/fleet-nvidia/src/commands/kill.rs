//! `kill`.

use fleet_lifecycle::{Error, signal};

use super::{Context, Done};
use crate::cli::Kill;

pub(super) fn kill(context: &Context, args: &Kill) -> Result<Done, Error> {
    let signal = signal::parse(&args.signal).map_err(|err| Error::Invalid(err.to_string()))?;
    fleet_lifecycle::kill::kill(&context.container(&args.id)?, signal, args.all)?;
    Ok(Done::Silent)
}
