//! `explain`: the plan that `create` would apply.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::Value;

use crate::cli::{Cli, Explain};
use crate::{CtlError, Verdict, write_json};

pub(crate) fn explain(cli: &Cli, args: &Explain, out: &mut dyn Write) -> Result<Verdict, CtlError> {
    let spec = load(&args.bundle)?;
    let prepared = fleet_host::prepare(&spec, &cli.env(), &cli.host())?;
    match args.json {
        true => write_json(out, &prepared.explanation().json())?,
        false => write!(out, "{}", prepared.explanation().text())?,
    }
    Ok(Verdict::Fine)
}

pub(crate) fn load(bundle: &Path) -> Result<Value, CtlError> {
    let path = if bundle.is_dir() {
        bundle.join("config.json")
    } else {
        bundle.to_path_buf()
    };
    let failed = |cause: String| CtlError::Read {
        path: path.display().to_string(),
        cause,
    };
    let mut text = String::new();
    match path == Path::new("-") {
        true => io::stdin().lock().read_to_string(&mut text).map(drop),
        false => fs::read_to_string(&path).map(|read| text = read),
    }
    .map_err(|err| failed(err.to_string()))?;
    serde_json::from_str(&text).map_err(|err| failed(err.to_string()))
}
