//! `spec`.

use std::io::Write;

use fleet_lifecycle::{Error, spec_template};

use super::Done;
use crate::cli::Spec;

pub(super) fn spec(args: &Spec) -> Result<Done, Error> {
    let path = args.bundle.join("config.json");
    let failed = |source| Error::Io {
        op: format!("create `{}`", path.display()),
        source,
    };
    let text = serde_json::to_string_pretty(&spec_template::spec(args.rootless))
        .map_err(|err| Error::Setup(err.to_string()))?;
    // An existing spec is somebody's work.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(failed)?;
    file.write_all(format!("{text}\n").as_bytes())
        .map_err(failed)?;
    Ok(Done::Silent)
}
