//! `gpus`: which container holds which GPU, by the runtime's records and by the processes that have it open; and
//! `explain ID` for a container that exists.

mod gpu;
mod metrics;
mod process;
mod programs;
pub(crate) mod record;
mod rules;
mod table;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::cli::Cli;
use crate::{CtlError, Verdict, write_json};

use gpu::Gpu;
use process::Process;
pub(crate) use record::{Record, find};
use rules::Rules;
pub(crate) use table::plan;

/// Version of the JSON form. It grows when a field changes its meaning or goes, not when one is added.
const SCHEMA_VERSION: u32 = 1;

/// Arguments of `gpus`.
#[derive(Args, Debug)]
pub(crate) struct Gpus {
    /// Print JSON
    #[arg(long, conflicts_with = "prometheus")]
    json: bool,
    /// Print metrics for the textfile collector of Prometheus' node exporter
    #[arg(long)]
    prometheus: bool,
    /// Directory of the runtime's records, in place of those of the known engines
    #[arg(long, value_name = "DIR")]
    state_root: Vec<PathBuf>,
}

/// All GPUs of the node and who holds them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    schema_version: u32,
    gpus: Vec<Held>,
}

/// One GPU.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    #[serde(flatten)]
    gpu: Gpu,
    /// Containers whose record has it, and those whose live cgroup lets them open it.
    containers: Vec<Holder>,
    /// Processes that have it open and belong to none of these containers.
    others: Vec<Process>,
}

/// A container that was given a GPU.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    id: String,
    status: &'static str,
    created: String,
    /// Pod, image and engine, as far as the engine says.
    labels: std::collections::BTreeMap<String, String>,
    /// CDI device that brought it; absent where the engine had put it into the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// CDI spec that states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    spec_file: Option<String>,
    /// Who asked, in the form of a plan's origin; `{"from": "cgroup"}` where nobody did and the live cgroup allows it.
    source: serde_json::Value,
    /// Whether the container's cgroup lets it open the GPU now; absent where that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_allows: Option<bool>,
    /// Its processes that have the GPU open now.
    open: Vec<Process>,
}

impl Holder {
    /// Whether its cgroup allows the GPU though nobody asked, as in a privileged container.
    fn is_unasked(&self) -> bool {
        self.source.get("from").and_then(serde_json::Value::as_str) == Some("cgroup")
    }
}

impl Held {
    /// Containers that were given the GPU.
    fn given(&self) -> impl Iterator<Item = &Holder> {
        self.containers.iter().filter(|holder| !holder.is_unasked())
    }
}

pub(crate) fn run(
    cli: &Cli,
    args: &Gpus,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    let files = cli.files();
    let (records, damaged) = record::all(&files, &args.state_root, &cli.env());
    for text in damaged {
        writeln!(remarks, "fleet-nvidia-ctl: {text}")?;
    }
    let gpus = gpu::all(&files, &registry(cli)?)?;
    let processes = match files.is_this_machine() {
        true => process::with_open(&gpus),
        false => Vec::new(),
    };
    let rules: Vec<_> = records.iter().map(|record| record.rules(&files)).collect();
    let known: Vec<_> = records.iter().zip(rules).collect();
    let report = report(gpus, &known, processes);
    match (args.json, args.prometheus) {
        (true, _) => write_json(out, &serde_json::to_value(&report)?)?,
        (_, true) => write!(out, "{}", metrics::text(&report))?,
        _ => write!(out, "{}", table::text(&report))?,
    }
    Ok(Verdict::Fine)
}

fn registry(cli: &Cli) -> Result<fleet_cdi::Registry, CtlError> {
    use fleet_host::Host;
    let (env, host) = (cli.env(), cli.host());
    let (file, _) = fleet_host::load_policy(&env, &host)?;
    Ok(host.registry(&fleet_host::spec_dirs(&file.policy, &env)))
}

fn report(
    gpus: Vec<Gpu>,
    records: &[(&Record, Option<Rules>)],
    mut processes: Vec<Process>,
) -> Report {
    let mut held: Vec<Held> = Vec::new();
    for gpu in gpus {
        let (here, rest): (Vec<_>, Vec<_>) = processes
            .into_iter()
            .partition(|process| process.device == gpu.device);
        processes = rest;
        let (mut containers, mut others) = (Vec::new(), here);
        for (record, rules) in records {
            let allows = rules.as_ref().and_then(|rules| rules.allow(gpu.device));
            let unasked = || (allows == Some(true)).then(record::Granted::by_cgroup);
            let Some(granted) = record.granted(gpu.device).or_else(unasked) else {
                continue;
            };
            let (open, rest) = others
                .into_iter()
                .partition(|process| record.owns(&process.cgroup));
            others = rest;
            containers.push(Holder {
                id: record.id.clone(),
                status: record.status,
                created: record.created.clone(),
                labels: record.labels.clone(),
                device: granted.device.clone(),
                spec_file: granted.spec_file.clone(),
                source: granted.source.clone(),
                cgroup_allows: allows,
                open,
            });
        }
        held.push(Held {
            gpu,
            containers,
            others,
        });
    }
    Report {
        schema_version: SCHEMA_VERSION,
        gpus: held,
    }
}

#[cfg(test)]
mod tests;
