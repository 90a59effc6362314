//! `--regex` of crun: one call for several containers.

use fleet_lifecycle::Error;
use regex::Regex;

use super::Context;

/// Calls `act` for every container whose id `pattern` matches somewhere. All are tried; the first failure is told.
pub(super) fn each(
    context: &Context,
    pattern: &str,
    act: impl Fn(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    let pattern = Regex::new(pattern).map_err(|err| {
        let cause = err.to_string();
        let cause = cause.lines().last().unwrap_or_default().trim();
        Error::Invalid(format!("regular expression `{pattern}`: {cause}"))
    })?;
    let ids = context.root.ids()?;
    let matching = ids.iter().filter(|id| pattern.is_match(id));
    let done: Vec<Result<(), Error>> = matching.map(|id| act(id)).collect();
    done.into_iter().collect()
}
