//! What can be typed after `node`. The other names are those of NVIDIA's installer.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::Cli;
use crate::files::Files;

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Copy the programs onto a node and tell its engines; done twice it changes nothing
    Install(Install),
    /// Take entries and programs away again
    Uninstall(Uninstall),
    /// Go back to the programs that were in force before the last install
    Rollback(Where),
    /// Say what is installed, and whether it is as it was installed
    Status(Status),
    /// Run a program of the node in the node's root
    #[command(hide = true)]
    InRoot(InRoot),
}

/// Which node, and where on it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Where {
    /// Directory that stands for the node's /
    #[arg(long, visible_alias = "host-root", value_name = "DIR")]
    root: Option<PathBuf>,
    /// Directory on the node (default: /opt/fleet-nvidia, or /var/lib/fleet-nvidia where that cannot be written or executed)
    #[arg(long, value_name = "DIR")]
    pub(super) install_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Install {
    #[command(flatten)]
    pub(super) at: Where,
    /// Directory of fleet-nvidia and fleet-nvidia-ctl to copy (default: that of this program)
    #[arg(long, value_name = "DIR")]
    pub(super) source: Option<PathBuf>,
    /// Engines to tell: crio, containerd, docker, podman; auto for those of CRI-O and containerd that are there, or none
    #[arg(
        long,
        value_name = "ENGINE,…",
        value_delimiter = ',',
        default_value = "auto"
    )]
    pub(super) runtime: Vec<Choice>,
    /// Name that pods give (default: nvidia; fleet-nvidia for Podman)
    #[arg(long, visible_alias = "name", value_name = "NAME")]
    pub(super) runtime_name: Option<String>,
    /// Make it the engines' default runtime
    #[arg(long, visible_alias = "default")]
    pub(super) set_as_default: bool,
    /// How an engine whose configuration has changed learns of it
    #[arg(long, visible_alias = "restart-mode", value_enum, default_value_t)]
    pub(super) restart: Restart,
    /// Stay, and look at the installation every minute, until SIGTERM
    #[arg(long)]
    pub(super) daemon: bool,
    /// With --daemon: take everything away again at the end, unless containers still need it
    #[arg(long, requires = "daemon")]
    pub(super) remove_on_exit: bool,
    /// With --daemon: file on the node that is there while the installation is as it should be
    #[arg(long, value_name = "FILE", requires = "daemon")]
    pub(super) health: Option<PathBuf>,
    /// With --daemon: seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) interval: u16,
}

#[derive(Args, Debug)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    pub(super) at: Where,
    /// How an engine whose configuration has changed learns of it
    #[arg(long, visible_alias = "restart-mode", value_enum, default_value_t)]
    pub(super) restart: Restart,
    /// Also while containers need the runtime: they can then neither be stopped nor removed
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(super) at: Where,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InRoot {
    pub(super) root: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(super) argv: Vec<String>,
}

/// An engine, or how to find some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    Auto,
    None,
    Crio,
    Containerd,
    Docker,
    Podman,
}

/// What is done about an engine that has to read its configuration again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Restart {
    /// Nothing; it is printed what to do
    #[default]
    None,
    /// Its unit is restarted by the node's systemctl; running containers go on
    Systemd,
}

impl Where {
    /// The node's files.
    pub(super) fn files(&self, cli: &Cli) -> Files {
        let root = self.root.as_deref().or(cli.root_dir.as_deref());
        Files::new(root.filter(|root| *root != std::path::Path::new("/")))
    }
}
