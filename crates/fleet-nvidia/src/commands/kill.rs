//! `kill`.

use fleet_lifecycle::{Error, signal};

use super::{Context, Done, matching};
use crate::cli::Kill;

pub(super) fn kill(context: &Context, args: &Kill) -> Result<Done, Error> {
    let signal = signal::parse(&args.signal).map_err(|err| Error::Invalid(err.to_string()))?;
    let send = |id: &str| fleet_lifecycle::kill::kill(&context.container(id)?, signal, args.all);
    if args.regex {
        matching::each(context, &args.id, send)?;
    } else {
        send(&args.id)?;
    }
    Ok(Done::Silent)
}
