//! `explain`: the plan that `create` would apply, or the one that it did apply to a container that exists.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fleet_host::RUNTIME_DIRECTORIES;
use fleet_inject::{Explanation, Plan};
use serde_json::Value;

use crate::cli::{Cli, Explain};
use crate::files::Files;
use crate::gpus::Record;
use crate::{CtlError, Verdict, write_json};

pub(crate) fn explain(cli: &Cli, args: &Explain, out: &mut dyn Write) -> Result<Verdict, CtlError> {
    if let Some(record) = container(cli, &args.bundle)? {
        let plan = record.plan.clone().unwrap_or_else(|| NOTHING.json());
        match args.json {
            true => write_json(out, &with_runtime(plan, record.runtime.as_deref()))?,
            false => {
                tell_runtime(out, record.runtime.as_deref())?;
                write!(out, "{}", crate::gpus::plan(&record))?;
            }
        }
        return Ok(Verdict::Fine);
    }
    let spec = load(&args.bundle)?;
    let names = fleet_host::runtimes(&cli.env(), &cli.live())?;
    let runtime = (!names.is_empty())
        .then(|| other_runtime(&cli.files(), &names).unwrap_or_else(|| names.join(" or ")));
    let prepared = fleet_host::prepare(&spec, &cli.env(), &cli.live())?;
    match args.json {
        true => write_json(
            out,
            &with_runtime(prepared.explanation().json(), runtime.as_deref()),
        )?,
        false => {
            tell_runtime(out, runtime.as_deref())?;
            write!(out, "{}", prepared.explanation().text())?;
        }
    }
    Ok(Verdict::Fine)
}

/// The program that containers are given to: the first of `names` that is installed.
pub(crate) fn other_runtime(files: &Files, names: &[String]) -> Option<String> {
    let places = |name: &String| -> Vec<PathBuf> {
        match name.starts_with('/') {
            true => vec![PathBuf::from(name)],
            false => RUNTIME_DIRECTORIES
                .iter()
                .map(|dir| Path::new(dir).join(name))
                .collect(),
        }
    };
    let mut all = names.iter().flat_map(places);
    all.find(|path| files.is_program(path))
        .map(|path| path.display().to_string())
}

/// Another runtime is worth a word; this one is not.
fn tell_runtime(out: &mut dyn Write, runtime: Option<&str>) -> io::Result<()> {
    match runtime {
        Some(program) => writeln!(out, "run by {program}"),
        None => Ok(()),
    }
}

fn with_runtime(mut plan: Value, runtime: Option<&str>) -> Value {
    if let Some(program) = runtime {
        plan["runtime"] = Value::from(program);
    }
    plan
}

/// The plan of a container that nothing was injected into.
const NOTHING: Explanation<'static> = Explanation {
    plan: &EMPTY,
    refused: &[],
    warnings: &[],
};
static EMPTY: Plan = Plan {
    edits: Vec::new(),
    left_out: Vec::new(),
    warnings: Vec::new(),
};

/// A word that names no file is the id of a container, or the start of one.
fn container(cli: &Cli, given: &Path) -> Result<Option<Record>, CtlError> {
    let word = given.to_string_lossy();
    if word == "-" || word.contains('/') || given.exists() {
        return Ok(None);
    }
    match crate::gpus::find(&cli.files(), &word, &cli.env()).map_err(CtlError::Asked)? {
        Some(record) => Ok(Some(record)),
        None => Err(CtlError::Asked(format!(
            "there is neither a file nor a container of the runtime named {word}; hint: give the id, since names such as Podman's are the engine's alone"
        ))),
    }
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
