//! `delete`.

use fleet_lifecycle::Error;

use super::{Context, Done};
use crate::cli::Delete;

pub(super) fn delete(context: &Context, args: &Delete) -> Result<Done, Error> {
    fleet_lifecycle::delete::delete(&context.root, &args.id, args.force)?;
    Ok(Done::Silent)
}
