//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use fleet_discover::Live;
use fleet_host::{Env, HostRoot, MissingNodes};

use crate::cdi;
use crate::configure::Configure;
use crate::doctor::Doctor;
use crate::files::Files;
use crate::gpus::Gpus;
use crate::node::Node;

/// Show and check what fleet-nvidia does with CDI devices.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 done, 1 failed or faults were found, 2 wrong arguments, 3 warnings only (doctor)."
)]
pub(crate) struct Cli {
    /// Configuration file (default: /etc/fleet-nvidia/config.toml)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory that stands for the host's /
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print what would be injected into a container, or what was, and who wants it, without running it
    Explain(Explain),
    /// Look at CDI specs, or make them
    #[command(subcommand)]
    Cdi(Cdi),
    /// Look at the configuration
    #[command(subcommand)]
    Config(Config),
    /// Build a GPU node without GPUs, to reproduce reports on any machine
    #[command(subcommand)]
    Simulate(fleet_sim::command::Simulate),
    /// Show which container holds which GPU, who asked for it, and which processes use it
    Gpus(Gpus),
    /// Say what is wrong with this node, and repair what can be repaired safely
    Doctor(Doctor),
    /// Tell an engine about the runtime, or take that back
    Configure(Configure),
    /// Put the runtime onto a node of a cluster, from a container that sees the node's files, or take it away
    #[command(subcommand)]
    Node(Node),
    /// Make device nodes and links of the driver
    #[command(subcommand)]
    System(crate::system::System),
}

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// A bundle directory, a config.json, - for one on standard input, or the id of a container that exists
    #[arg(value_name = "BUNDLE|FILE|ID")]
    pub(crate) bundle: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cdi {
    /// Make the spec of this machine
    Generate(Box<crate::generate::Generate>),
    /// Bring the node's own spec up to date; a good one is never replaced by a poorer one while the driver starts
    Refresh(Box<crate::generate::Refresh>),
    /// List the devices that can be asked for
    List {
        /// Directories to look in, the last one wins (default: those of the configuration)
        #[arg(
            long,
            value_name = "DIR",
            value_delimiter = ',',
            env = "NVIDIA_CTK_CDI_SPEC_DIRS"
        )]
        spec_dir: Vec<String>,
        /// Print JSON, with what each device brings
        #[arg(long)]
        json: bool,
    },
    /// Check spec files, or all of the CDI directories: rules, older readers, and this host
    Validate(cdi::validate::Validate),
    /// Inject devices into a container's spec and print it, hooks as programs
    Inject(cdi::devices::Inject),
    /// Print what devices bring, compared with this host
    Resolve(cdi::devices::Resolve),
    /// Print in what two spec files differ for a container
    Diff(cdi::diff::Diff),
    /// Change a spec file
    #[command(subcommand)]
    Transform(cdi::transform::Transform),
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Config {
    /// Print the configuration file as shipped, with explanations
    Default,
    /// Print the settings in force
    Show,
    /// Print which file counts
    Path,
    /// Change settings in the file that counts, and keep its comments
    Set {
        /// Such as profile=crio, hooks.native=false, spec-dirs=/etc/cdi,/opt/cdi
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Let the defaults count again
    Unset {
        /// Such as profile, hooks.native
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Print the file as it would be, and leave it as it is
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Cli {
    pub(crate) fn env(&self) -> Env {
        Env {
            config: self.config.clone(),
            ..Env::current()
        }
    }

    /// The node's files, for what writes them too.
    pub(crate) fn files(&self) -> Files {
        Files::new(self.root_dir.as_deref())
    }

    /// The node as a container finds it, specs made anew included. Nodes that a container would get made are told.
    pub(crate) fn live(&self) -> Live {
        match self.root_dir.as_deref() {
            Some(root) => Live::new(root).with_missing_nodes(MissingNodes::Told),
            None => {
                let missing = MissingNodes::at_create(&self.env()).told();
                Live::default().with_missing_nodes(missing)
            }
        }
    }

    pub(crate) fn host(&self) -> HostRoot {
        self.root_dir
            .as_deref()
            .map_or_else(HostRoot::default, HostRoot::new)
    }
}
