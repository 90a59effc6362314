//! `cdi inject` and `cdi resolve`: what devices bring, into a container's spec or by themselves.

use std::io::Write;
use std::path::PathBuf;

use fleet_cdi::QualifiedName;
use fleet_inject::HookPolicy;
use serde_json::Value;

use super::registry;
use crate::cli::Cli;
use crate::{CtlError, Verdict, explain, write_json};

#[derive(Debug, clap::Args)]
pub(crate) struct Inject {
    /// A bundle directory, a config.json, or - for one on standard input
    #[arg(value_name = "BUNDLE|FILE")]
    bundle: PathBuf,
    /// Devices such as nvidia.com/gpu=0
    #[arg(value_name = "DEVICE", required = true)]
    devices: Vec<String>,
    /// Print the edits beside the spec
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Resolve {
    /// Devices such as nvidia.com/gpu=0
    #[arg(value_name = "DEVICE", required = true)]
    devices: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The hooks stay programs, so that any runtime can take the printed spec.
pub(super) fn inject(cli: &Cli, args: &Inject, out: &mut dyn Write) -> Result<Verdict, CtlError> {
    let mut spec = explain::load(&args.bundle)?;
    let names = names(&args.devices)?;
    let hooks = HookPolicy {
        native: false,
        ..hooks(cli)?
    };
    let host = cli.live();
    let prepared = fleet_host::prepare_devices(&spec, &names, hooks, &registry(cli)?, &host)?;
    let applied = prepared.plan.apply(&mut spec);
    applied.map_err(fleet_host::InjectError::from)?;
    match args.json {
        false => write_json(out, &spec)?,
        true => {
            let mut document = prepared.explanation().json();
            if let Some(fields) = document.as_object_mut() {
                fields.insert("spec".to_owned(), spec);
            }
            write_json(out, &document)?;
        }
    }
    Ok(Verdict::Fine)
}

pub(super) fn resolve(cli: &Cli, args: &Resolve, out: &mut dyn Write) -> Result<Verdict, CtlError> {
    let names = names(&args.devices)?;
    let empty = Value::Object(serde_json::Map::new());
    let host = cli.live();
    let prepared =
        fleet_host::prepare_devices(&empty, &names, hooks(cli)?, &registry(cli)?, &host)?;
    match args.json {
        true => write_json(out, &prepared.explanation().json())?,
        false => write!(out, "{}", prepared.explanation().text())?,
    }
    Ok(Verdict::Fine)
}

fn hooks(cli: &Cli) -> Result<HookPolicy, CtlError> {
    let (file, _) = fleet_host::load_policy(&cli.env(), &cli.host())?;
    Ok(file.policy.hooks)
}

fn names(texts: &[String]) -> Result<Vec<QualifiedName>, CtlError> {
    texts.iter().map(|text| Ok(text.parse()?)).collect()
}
