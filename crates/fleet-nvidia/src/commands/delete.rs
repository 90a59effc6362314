//! `delete`.

use fleet_host::EventKind;
use fleet_lifecycle::Error;

use super::{Context, Done, audit, matching};
use crate::cli::Delete;

pub(super) fn delete(context: &Context, args: &Delete) -> Result<Done, Error> {
    if args.regex {
        matching::each(context, &args.id, |id| remove(context, id, args.force))?;
    } else {
        remove(context, &args.id, args.force)?;
    }
    Ok(Done::Silent)
}

/// Removes a container; shared with `run`.
pub(super) fn remove(context: &Context, id: &str, force: bool) -> Result<(), Error> {
    if let Some(container) = fleet_lifecycle::delete::delete(&context.root, id, force)? {
        audit::tell(context, &container, EventKind::Delete);
    }
    Ok(())
}
