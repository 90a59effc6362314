//! `cdi diff`: in what two spec files differ for a container.

use std::io::Write;
use std::path::PathBuf;

use fleet_cdi::{Difference, read_spec};
use serde_json::{Value, json};

use super::SCHEMA_VERSION;
use crate::{CtlError, Verdict, write_json};

#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// A file named .json or .yaml
    first: PathBuf,
    /// Another one
    second: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// As `diff`: nothing is printed, and nothing is faulty, where there is no difference.
pub(super) fn run(args: &Diff, out: &mut dyn Write) -> Result<Verdict, CtlError> {
    let (first, second) = (read_spec(&args.first)?, read_spec(&args.second)?);
    let differences = first.differences(&second);
    match args.json {
        true => {
            let document = json!({ "schemaVersion": SCHEMA_VERSION, "differences": differences });
            write_json(out, &document)?;
        }
        false => differences.iter().try_for_each(|one| write(one, out))?,
    }
    match differences.is_empty() {
        true => Ok(Verdict::Fine),
        false => Ok(Verdict::Faulty),
    }
}

/// `- ` for what only the first has, `+ ` for what only the second has, both for what has changed.
fn write(difference: &Difference, out: &mut dyn Write) -> Result<(), CtlError> {
    let Difference {
        of, what, which, ..
    } = difference;
    let name = format!("{of}: {what} {which}");
    for (sign, value) in [('-', &difference.first), ('+', &difference.second)] {
        match value {
            Value::Null => {}
            Value::Bool(_) => writeln!(out, "{sign} {}", name.trim_end())?,
            Value::String(text) => writeln!(out, "{sign} {} {text}", name.trim_end())?,
            other => writeln!(out, "{sign} {} {other}", name.trim_end())?,
        }
    }
    Ok(())
}
