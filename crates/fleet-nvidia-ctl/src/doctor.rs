//! `doctor`: what is wrong with this node, and how to mend it.

mod check;
mod checks;
pub(crate) mod programs;
mod repair;
mod report;
mod services;
mod smoke;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::Cli;
use crate::{CtlError, Verdict, write_json};

use check::{Broken, Finding, Node, Severity};
use programs::{Machine, Nobody, Programs};
use report::{Checked, Report};

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Carry out the safe repairs: they add what is missing and change nothing else
    #[arg(long)]
    fix: bool,
    /// Only these checks, by name
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Run a container by Podman, and report each step
    #[arg(long)]
    smoke_podman: bool,
    /// The same by CRI-O, through crictl
    #[arg(long)]
    smoke_crio: bool,
    /// The same by containerd, through ctr
    #[arg(long)]
    smoke_containerd: bool,
    /// Image to run, with nvidia-smi in it (default: a root file system with the runtime's own binary)
    #[arg(long, value_name = "IMAGE")]
    smoke_image: Option<String>,
    /// Name by which the engine knows the runtime (default: fleet-nvidia for Podman, nvidia for CRI-O)
    #[arg(long, value_name = "NAME")]
    smoke_runtime: Option<String>,
    /// The runtime's binary for the smoke tests (default: where it is installed)
    #[arg(long, value_name = "FILE")]
    smoke_path: Option<PathBuf>,
    /// Ask the services beside the containers: vLLM, Redis, Neo4j (HTTP and Bolt), NATS
    #[arg(long)]
    check_services: bool,
    /// A service to ask: vllm, redis, neo4j, bolt or nats, and its address (default: all five on this machine)
    #[arg(long, value_name = "KIND=ADDRESS", requires = "check_services")]
    service: Vec<String>,
    /// File with the services to ask (default: /etc/fleet-nvidia/services.toml)
    #[arg(long, value_name = "FILE", requires = "check_services")]
    services: Option<PathBuf>,
}

/// Where programs of the system lie.
const PROGRAM_DIRS: [&str; 6] = [
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/bin",
    "/sbin",
];

impl Node<'_> {
    /// The text of a file, if it is there.
    fn read(&self, path: &str) -> Result<Option<String>, Broken> {
        Ok(self.files.read(Path::new(path))?)
    }

    /// Whether something lies there.
    fn is(&self, path: &str) -> bool {
        self.files.exists(Path::new(path))
    }

    fn has_program(&self, name: &str) -> bool {
        let mut dirs = PROGRAM_DIRS.iter();
        dirs.any(|dir| self.files.is_program(&Path::new(dir).join(name)))
    }
}

pub(crate) fn run(cli: &Cli, args: &Doctor, out: &mut dyn Write) -> Result<Verdict, CtlError> {
    let (files, env) = (cli.files(), cli.env());
    let programs: &dyn Programs = match files.is_this_machine() {
        true => &Machine,
        false => &Nobody,
    };
    let node = Node {
        files: &files,
        env: &env,
        devices: files.host(),
        programs,
        space: &|path| files.free_space(path),
    };
    unknown_names(&args.only)?;
    let mut checked = Vec::new();
    // What was asked for by name is not hidden among the rest.
    if !args.only.is_empty() || !(args.smokes() || args.check_services) {
        checked.extend(examine(&node, args));
    }
    checked.extend(smoke_all(&node, args));
    checked.extend(services_all(&node, args)?);
    let report = Report::new(checked);
    match args.json {
        true => write_json(out, &serde_json::to_value(&report)?)?,
        false => report.print(out)?,
    }
    Ok(match report.worst() {
        Some(Severity::Error) => Verdict::Faulty,
        Some(_) => Verdict::Warned,
        None => Verdict::Fine,
    })
}

impl Doctor {
    fn smokes(&self) -> bool {
        self.smoke_podman || self.smoke_crio || self.smoke_containerd
    }
}

/// The containers that were asked for. They are this machine's: another root has no engines.
fn smoke_all(node: &Node<'_>, args: &Doctor) -> Vec<Checked> {
    let engines = [
        (args.smoke_podman, smoke::Engine::Podman),
        (args.smoke_crio, smoke::Engine::Crio),
        (args.smoke_containerd, smoke::Engine::Containerd),
    ];
    let program = args.smoke_path.as_ref().map_or_else(
        || crate::configure::installed_program(node.files),
        |path| path.display().to_string(),
    );
    let plan = smoke::Plan {
        name: args.smoke_runtime.clone(),
        image: args.smoke_image.clone(),
        program,
        device: checks::any_device(node),
    };
    engines
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .flat_map(|(_, engine)| smoke::run(engine, node, &plan))
        .map(|(name, outcome)| Checked::new(&name, outcome, &|_| None))
        .collect()
}

fn services_all(node: &Node<'_>, args: &Doctor) -> Result<Vec<Checked>, CtlError> {
    if !args.check_services {
        return Ok(Vec::new());
    }
    let password = std::env::var("REDIS_PASSWORD").ok();
    let services = services::all(
        node.files,
        &args.service,
        args.services.as_deref(),
        password,
    )
    .map_err(CtlError::Asked)?;
    let asked = services.iter().map(|service| {
        let name = format!("service-{}", service.kind);
        Checked::new(&name, services::ask(service), &|_| None)
    });
    Ok(asked.collect())
}

fn unknown_names(names: &[String]) -> Result<(), CtlError> {
    let known: Vec<_> = checks::all().map(|check| check.name).collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(CtlError::Asked(format!(
            "no check is named {name:?}; hint: there are {}",
            known.join(", ")
        ))),
    }
}

/// Each check, and its repairs before the next one looks.
fn examine(node: &Node<'_>, args: &Doctor) -> Vec<Checked> {
    let repair = |finding: &Finding| {
        let repair = finding.repair.as_ref().filter(|_| args.fix)?;
        Some(repair.carry_out(node.files))
    };
    checks::all()
        .filter(|check| args.only.is_empty() || args.only.iter().any(|name| name == check.name))
        .map(|check| Checked::new(check.name, (check.run)(node), &repair))
        .collect()
}
