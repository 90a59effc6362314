//! `doctor`: what is wrong with this node, and how to mend it.

mod check;
mod checks;
mod programs;
mod repair;
mod report;

use std::io::Write;
use std::path::Path;

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
    let report = Report::new(examine(&node, args));
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
