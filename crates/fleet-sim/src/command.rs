//! What `fleet-nvidia-ctl simulate` and `fleet-simulate` do.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use fleet_sim_machine::{Machine, MachineError, Platform, names};

use crate::build::{Plan, SimError, create, remove, write_file};
use crate::files::{io_error, make_dir};
use crate::installed::{Installed, driver_version};
use crate::libraries::LIBDIR;
use crate::nodes::Numbers;
use crate::platform::WSL_LIB;
use crate::spec::cdi_spec;

/// Verbs.
#[derive(Subcommand, Debug)]
pub enum Simulate {
    /// List the built-in machines
    List,
    /// Print a machine's description, to start from
    Describe {
        /// A name that `list` prints
        #[arg(default_value = "h100x2")]
        machine: String,
    },
    /// Build driver tree, device nodes, /proc and /sys below a directory
    Create(Create),
    /// Remove what `create` built
    Remove {
        /// Directory that was built in
        root: PathBuf,
    },
}

/// `create`.
#[derive(Args, Debug)]
pub struct Create {
    /// A name that `list` prints, or a description file
    #[arg(long, default_value = "h100x2")]
    machine: String,
    /// Version of the driver, instead of the description's
    #[arg(long, value_name = "VERSION")]
    driver: Option<String>,
    /// Directory to build in
    #[arg(long)]
    root: PathBuf,
    /// Directory of nvidia-smi and libnvidia_ml.so (default: beside this program)
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Use the files of real driver packages that are unpacked in DIR, all but NVML
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Numbers of the device nodes
    #[arg(long, value_enum, default_value_t = NodeNumbers::Borrowed)]
    nodes: NodeNumbers,
    /// Also write the CDI spec to FILE
    #[arg(long, value_name = "FILE")]
    cdi: Option<PathBuf>,
    /// Do not print how to use the node
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum NodeNumbers {
    /// Of devices that open without effect (as root)
    Borrowed,
    /// Of the driver: consistent with /proc and /sys, but nothing opens (as root)
    Driver,
    /// No nodes; a file `devices` lists them
    Listed,
}

impl From<NodeNumbers> for Numbers {
    fn from(numbers: NodeNumbers) -> Self {
        match numbers {
            NodeNumbers::Borrowed => Self::Borrowed,
            NodeNumbers::Driver => Self::Driver,
            NodeNumbers::Listed => Self::Listed,
        }
    }
}

/// Carries out a verb; what it has to say goes to `out`.
///
/// # Errors
/// [`SimError`].
pub fn run(verb: &Simulate, out: &mut dyn Write) -> Result<(), SimError> {
    let text = match verb {
        Simulate::List => listing(),
        Simulate::Describe { machine } => {
            Machine::preset_text(machine).ok_or_else(|| MachineError {
                name: machine.clone(),
                why: "is not built in; hint: `list` prints the names".to_owned(),
            })?
        }
        Simulate::Remove { root } => return remove(root),
        Simulate::Create(args) => built(args)?,
    };
    match out.write_all(text.as_bytes()) {
        // The reader has seen enough.
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => {
            Err(io_error(Path::new("standard output"))(err))
        }
        _ => Ok(()),
    }
}

fn listing() -> String {
    names()
        .into_iter()
        .map(|(name, what)| format!("{name:<18}  {what}\n"))
        .collect()
}

fn built(args: &Create) -> Result<String, SimError> {
    make_dir(&args.root)?;
    let root = args.root.canonicalize().map_err(io_error(&args.root))?;
    let programs = args.programs.clone().unwrap_or_else(beside);
    let driver = match (&args.driver, &args.files) {
        (None, Some(dir)) => Some(driver_version(dir)?),
        (driver, _) => driver.clone(),
    };
    let machine = Machine::load(&args.machine, driver.as_deref())?;
    let plan = Plan {
        programs,
        numbers: args.nodes.into(),
        installed: match &args.files {
            Some(dir) => Installed::found(dir, &machine.driver_version)?,
            None => Installed::simulated(&machine),
        },
    };
    if args.cdi.is_some() && machine.platform != Platform::Native {
        return Err(SimError::NoSpec(args.machine.clone()));
    }
    let machine = create(machine, &root, &plan)?;
    if let Some(file) = &args.cdi {
        write_file(
            file,
            &cdi_spec(&machine, &plan.installed, &root.display().to_string()),
        )?;
    }
    Ok(if args.quiet {
        String::new()
    } else {
        usage(&root, machine.platform)
    })
}

fn beside() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(PathBuf::from))
        .unwrap_or_default()
}

/// How to use the node.
fn usage(root: &Path, platform: Platform) -> String {
    let root = root.display();
    let look = match platform {
        Platform::Native => format!(
            "look at it:   LD_LIBRARY_PATH={root}/{LIBDIR} {root}/usr/bin/nvidia-smi\n\
             live in it:   {root}/enter COMMAND…\n"
        ),
        Platform::Wsl => {
            format!("look at it:   LD_LIBRARY_PATH={root}/{WSL_LIB} {root}/{WSL_LIB}/nvidia-smi\n")
        }
        Platform::Tegra => String::new(),
    };
    format!(
        "the node is below {root}\n{look}\
         as a host:    fleet-nvidia-ctl --root-dir {root} …\n\
         as drivers:   fleet-nvidia-ctl cdi generate --driver-root {root}\n\
         remove it:    fleet-nvidia-ctl simulate remove {root}\n"
    )
}
