//! `configure`: tells an engine about the runtime, and takes it back.
//!
//! What is written is planned as a whole before a file is touched, so `--dry-run` prints the same plan. Engines are
//! not restarted here: containers run under them.

mod chain;
pub(crate) mod containerd;
pub(crate) mod crio;
mod docker;
mod entries;
pub(crate) mod json_file;
pub(crate) mod made;
mod plan;
pub(crate) mod podman;
pub(crate) mod toolkit;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::Cli;
use crate::files::{FileError, Files};
use crate::toml_file::{BadFile, TomlError};
use crate::{CtlError, Verdict};

pub(crate) use chain::Chain;
pub(crate) use plan::{Plan, Remark};

/// Where packages put the runtime, then where people and `node install` do.
const PROGRAMS: [&str; 4] = [
    "/usr/bin/fleet-nvidia",
    "/usr/local/bin/fleet-nvidia",
    "/opt/fleet-nvidia/current/fleet-nvidia",
    "/var/lib/fleet-nvidia/current/fleet-nvidia",
];
/// File name of the runtime, by which its own entries are told from others'.
const BINARY: &str = "fleet-nvidia";

/// Arguments of `configure`.
#[derive(Args, Debug)]
pub(crate) struct Configure {
    /// Engine to tell about the runtime
    pub(crate) engine: Engine,
    /// Name that users and pods give (default: fleet-nvidia for Podman, nvidia for the others; with --remove all of ours)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The runtime's binary (default: where it is installed)
    #[arg(long, value_name = "FILE")]
    pub(crate) runtime_path: Option<PathBuf>,
    /// Make it the engine's default runtime
    #[arg(long)]
    pub(crate) default: bool,
    /// Configure the calling user's rootless engine
    #[arg(long)]
    pub(crate) user: bool,
    /// Take the entries back
    #[arg(long, conflicts_with = "default")]
    pub(crate) remove: bool,
    /// Write below this directory, which stands for `/`: for the build of an image
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// Podman and Buildah: containers.conf.d
    Podman,
    /// CRI-O: crio.conf.d
    Crio,
    /// containerd: conf.d and `imports`
    Containerd,
    /// Docker: daemon.json
    Docker,
}

/// A configuration that cannot be written. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigureError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}; hint: repair it first, nothing was written")]
    Bad(#[from] BadFile),
    #[error(
        "{at}: {what} is somebody else's; hint: choose another `--name`, or remove that entry first; nothing was written"
    )]
    Foreign { at: String, what: String },
    #[error(
        "{at} makes `{name}` the default runtime: without it {loss}; hint: change that line first; nothing was written"
    )]
    StillDefault {
        at: String,
        name: String,
        loss: &'static str,
    },
    #[error("runtime name {name:?} {problem}")]
    Name { name: String, problem: &'static str },
    #[error("{0}")]
    Asked(String),
}

impl From<TomlError> for ConfigureError {
    fn from(err: TomlError) -> Self {
        match err {
            TomlError::File(err) => Self::File(err),
            TomlError::Bad(err) => Self::Bad(err),
        }
    }
}

/// What an engine's module works on.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) files: Files,
    /// The name users give.
    pub(crate) name: String,
    /// The binary.
    pub(crate) program: String,
    pub(crate) default: bool,
    pub(crate) remove: bool,
    /// The user's configuration directory in place of `/etc`.
    pub(crate) user: Option<PathBuf>,
}

impl Site {
    /// The system's own engine, with the defaults.
    pub(crate) fn of(files: &Files, engine: Engine) -> Self {
        Self {
            program: installed_program(files),
            name: engine.default_name().to_owned(),
            default: false,
            remove: false,
            user: None,
            files: files.clone(),
        }
    }

    /// A directory below `/etc`, or the user's own of the same name.
    fn dir(&self, name: &str) -> PathBuf {
        self.user
            .as_deref()
            .unwrap_or_else(|| Path::new("/etc"))
            .join(name)
    }

    /// Whether a program is this runtime, here or where it was installed before.
    fn is_ours(&self, program: &str) -> bool {
        program == self.program
            || Path::new(program)
                .file_name()
                .is_some_and(|name| name == BINARY)
    }
}

impl Engine {
    pub(crate) const ALL: [Self; 4] = [Self::Crio, Self::Containerd, Self::Docker, Self::Podman];

    /// The word by which it is typed.
    pub(crate) fn word(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) fn default_name(self) -> &'static str {
        match self {
            Self::Podman => BINARY,
            _ => "nvidia",
        }
    }

    /// The files that an engine needs, and what its user should know.
    pub(crate) fn plan(self, site: &Site) -> Result<Plan, ConfigureError> {
        self.check_name(&site.name)?;
        let mut plan = match self {
            Self::Podman => podman::plan(site),
            Self::Crio => crio::plan(site),
            Self::Containerd => containerd::plan(site),
            Self::Docker => docker::plan(site),
        }?;
        if !site.remove {
            plan.remarks.extend(missing_program(site));
            plan.remarks.extend(toolkit::remark(site));
        }
        Ok(plan)
    }

    /// Names of this runtime's entries in the engine's file that `configure` writes.
    pub(crate) fn names(self, site: &Site) -> Result<Vec<String>, ConfigureError> {
        let mut names = match self {
            Self::Podman => podman::names_of_ours(site),
            Self::Crio => crio::names_of_ours(site),
            Self::Docker => docker::names_of_ours(site),
            Self::Containerd => containerd::names_of_ours(site),
        }?;
        if names.is_empty() {
            names.push(site.name.clone());
        }
        Ok(names)
    }

    /// The program that the file written by `configure` gives the site's name.
    pub(crate) fn program(self, site: &Site) -> Result<Option<String>, ConfigureError> {
        match self {
            Self::Podman => podman::program(site),
            Self::Crio => crio::program(site),
            Self::Containerd => containerd::program(site),
            Self::Docker => docker::program(site),
        }
    }

    fn check_name(self, name: &str) -> Result<(), ConfigureError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let problem = match self {
            _ if !name.starts_with(|c: char| c.is_ascii_alphanumeric())
                || !name.chars().all(plain)
                || name.len() > 63 =>
            {
                "is not made of at most 63 letters, digits, `-`, `_` and `.`"
            }
            Self::Crio | Self::Containerd if !name.chars().all(label) => {
                "is no RuntimeClass handler: those have lower-case letters, digits and `-` only"
            }
            Self::Docker if matches!(name, "runc" | "io.containerd.runc.v2") => {
                "is reserved by Docker"
            }
            _ => return Ok(()),
        };
        Err(ConfigureError::Name {
            name: name.to_owned(),
            problem,
        })
    }

    /// What makes the engine read its files again.
    pub(crate) fn next_step(self, user: bool, plan: &Plan) -> &'static str {
        match (self, user) {
            (Self::Podman, _) => "Podman reads it at its next command",
            // It keeps no handler of a pod that names none: after its restart it asks the new default for what the old one
            // made.
            (Self::Crio, _) if plan.touches("default_runtime") => {
                "next: drain the node, daemon sets included, then systemctl restart crio: under another default runtime pods without a RuntimeClass that run now could be neither stopped nor removed"
            }
            // A reload shows a new handler in its status, and no pod can use it (cri-o#10202).
            (Self::Crio, _) => "next: systemctl restart crio; running containers go on",
            (Self::Containerd, false) => {
                "next: systemctl restart containerd; running containers go on"
            }
            (Self::Docker, false) => "next: systemctl reload docker; running containers go on",
            (Self::Containerd, true) => "next: systemctl --user restart containerd",
            (Self::Docker, true) => "next: systemctl --user reload docker",
        }
    }
}

pub(crate) fn run(
    cli: &Cli,
    args: &Configure,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    let site = site(cli, args)?;
    let names = match args.remove && args.name.is_none() {
        true => args.engine.names(&site)?,
        false => vec![site.name.clone()],
    };
    let mut verdict = Verdict::Fine;
    for name in names {
        let site = Site {
            name,
            ..site.clone()
        };
        if !one(args, &site, out, remarks)? {
            verdict = Verdict::Faulty;
        }
    }
    Ok(verdict)
}

/// Writes, or only shows, the entry of one name; whether it comes into force.
fn one(
    args: &Configure,
    site: &Site,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<bool, CtlError> {
    let plan = args.engine.plan(site)?;
    for remark in &plan.remarks {
        writeln!(remarks, "fleet-nvidia-ctl: {}", remark.text())?;
    }
    let changes = plan.changes();
    match args.dry_run {
        true => write!(out, "{}", plan.account())?,
        false => {
            plan.carry_out(&site.files)?;
            for change in &changes {
                writeln!(out, "{}", change.done())?;
            }
        }
    }
    match (changes.is_empty(), args.dry_run) {
        (true, _) => writeln!(out, "nothing to do: {}", plan.state())?,
        (false, true) => writeln!(out, "nothing was written")?,
        (false, false) => writeln!(out, "{}", args.engine.next_step(args.user, &plan))?,
    }
    Ok(plan.works())
}

fn site(cli: &Cli, args: &Configure) -> Result<Site, ConfigureError> {
    let files = Files::new(args.root.as_deref().or(cli.root_dir.as_deref()));
    let program = program(&files, args.runtime_path.as_deref())?;
    Ok(Site {
        program,
        name: args
            .name
            .clone()
            .unwrap_or_else(|| args.engine.default_name().to_owned()),
        default: args.default,
        remove: args.remove,
        user: user_dir(cli, args)?,
        files,
    })
}

fn user_dir(cli: &Cli, args: &Configure) -> Result<Option<PathBuf>, ConfigureError> {
    if !args.user {
        return Ok(None);
    }
    if args.engine == Engine::Crio {
        return Err(ConfigureError::Asked(
            "CRI-O runs as root only; hint: leave out `--user`".to_owned(),
        ));
    }
    let home = cli.env().config_home().ok_or_else(|| {
        ConfigureError::Asked(
            "neither XDG_CONFIG_HOME nor HOME is set; hint: run it as that user".to_owned(),
        )
    })?;
    Ok(Some(home))
}

/// Where the runtime is installed, or would be.
pub(crate) fn installed_program(files: &Files) -> String {
    let found = PROGRAMS
        .iter()
        .find(|program| files.is_program(Path::new(program)));
    (*found.unwrap_or(&PROGRAMS[0])).to_owned()
}

fn program(files: &Files, given: Option<&Path>) -> Result<String, ConfigureError> {
    let Some(given) = given else {
        return Ok(installed_program(files));
    };
    match given.to_str() {
        Some(path) if path.starts_with('/') && !path.contains(char::is_control) => {
            Ok(path.to_owned())
        }
        _ => Err(ConfigureError::Asked(format!(
            "runtime path {} is not absolute; hint: engines store it for a container's whole life",
            given.display()
        ))),
    }
}

fn missing_program(site: &Site) -> Option<Remark> {
    let missing = !site.files.is_program(Path::new(&site.program));
    missing.then(|| {
        Remark::Note(format!(
            "{} is not an executable file; the entry has no effect until it is",
            site.program
        ))
    })
}

#[cfg(test)]
mod tests;
