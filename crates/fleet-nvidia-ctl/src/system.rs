//! `system`: device nodes of the driver, and links by their numbers.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, Subcommand};
use fleet_host::nodes::{self, CharLink, DeviceNode, Majors, NodesError, Stated};
use fleet_host::{Tree, proc};

use crate::cli::Cli;
use crate::{CtlError, Verdict};

#[derive(Debug, Subcommand)]
pub(crate) enum System {
    /// Make device nodes of the driver that are missing
    CreateDeviceNodes(CreateDeviceNodes),
    /// Make links /dev/char/MAJOR:MINOR, by which systemd finds devices that a unit may use
    CreateDevCharSymlinks(CreateDevCharSymlinks),
}

#[derive(Args, Debug)]
pub(crate) struct CreateDeviceNodes {
    /// Root to load kernel modules from (default: $DRIVER_ROOT, else /)
    #[arg(
        long,
        visible_alias = "root",
        value_name = "DIR",
        env = "NVIDIA_DRIVER_ROOT"
    )]
    driver_root: Option<String>,
    /// Root of /dev (default: $DEV_ROOT, else the driver root)
    #[arg(long, value_name = "DIR", env = "NVIDIA_DEV_ROOT")]
    dev_root: Option<String>,
    /// nvidiactl, nvidia-modeset, nvidia-uvm and nvidia-uvm-tools
    #[arg(long)]
    control_devices: bool,
    /// A node for each GPU that the driver states in proc, and those of its MIG instances
    #[arg(long)]
    gpu_devices: bool,
    /// Load the driver's modules first
    #[arg(long)]
    load_kernel_modules: bool,
    /// Say only what was made
    #[arg(long, short)]
    quiet: bool,
    /// Say what would be done and do nothing
    #[arg(long, env = "DRY_RUN", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CreateDevCharSymlinks {
    /// Directory of the links
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/dev/char",
        env = "DEV_CHAR_PATH"
    )]
    dev_char_path: String,
    /// Root to load kernel modules from (default: $DRIVER_ROOT, else /)
    #[arg(long, value_name = "DIR", env = "NVIDIA_DRIVER_ROOT")]
    driver_root: Option<String>,
    /// For every node that the machine's GPUs may need, whether it is there or not
    #[arg(long, env = "CREATE_ALL", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    create_all: bool,
    /// Load the driver's modules first; with --create-all
    #[arg(long, env = "LOAD_KERNEL_MODULES", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    load_kernel_modules: bool,
    /// Make control nodes that are missing; with --create-all
    #[arg(long, env = "CREATE_DEVICE_NODES", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    create_device_nodes: bool,
    /// Say only what was made
    #[arg(long, short)]
    quiet: bool,
    /// Say what would be done and do nothing
    #[arg(long, env = "DRY_RUN", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    dry_run: bool,
}

/// Nodes or links could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SystemError {
    #[error(transparent)]
    Nodes(#[from] NodesError),
    #[error("open {path}: {cause}")]
    Root { path: String, cause: std::io::Error },
    #[error("load kernel module {module}: {cause}")]
    Module { module: &'static str, cause: String },
}

/// In the order of their dependencies.
const MODULES: [&str; 3] = ["nvidia", "nvidia-uvm", "nvidia-modeset"];

pub(crate) fn run(cli: &Cli, command: &System, out: &mut dyn Write) -> Result<Verdict, CtlError> {
    let root = cli.root_dir.as_deref().unwrap_or_else(|| Path::new("/"));
    match command {
        System::CreateDeviceNodes(args) => create_nodes(root, args, out),
        System::CreateDevCharSymlinks(args) => create_links(root, args, out),
    }
}

/// As typed, or by the second of the variables that the toolkit knows; empty means unset.
fn named(typed: Option<&String>, variable: &str) -> Option<String> {
    let typed = typed.filter(|text| !text.is_empty()).cloned();
    let set = || std::env::var(variable).ok().filter(|text| !text.is_empty());
    typed.or_else(set)
}

fn tree(root: &Path, below: &str) -> Result<Tree, SystemError> {
    let at = root.join(below.trim_start_matches('/'));
    Tree::open(&at, below).map_err(|cause| SystemError::Root {
        path: at.display().to_string(),
        cause,
    })
}

fn create_nodes(
    root: &Path,
    args: &CreateDeviceNodes,
    out: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    let driver = named(args.driver_root.as_ref(), "DRIVER_ROOT").unwrap_or_else(|| "/".to_owned());
    let mut sink = std::io::sink();
    if args.load_kernel_modules {
        let out: &mut dyn Write = if args.quiet { &mut sink } else { &mut *out };
        load_modules(root, &driver, args.dry_run, out)?;
    }
    let dev = named(args.dev_root.as_ref(), "DEV_ROOT");
    let dev = tree(root, dev.as_deref().unwrap_or(&driver))?;
    let system = tree(root, "/")?;
    if !args.control_devices && !args.gpu_devices {
        writeln!(
            out,
            "nothing to make; hint: --control-devices, --gpu-devices"
        )?;
        return Ok(Verdict::Fine);
    }
    let majors = Majors::of(&system).map_err(SystemError::from)?;
    let mut wanted = Vec::new();
    if args.control_devices {
        wanted.extend(majors.control());
    }
    if args.gpu_devices {
        let gpus = proc::inventory(&system).gpus;
        wanted.extend(gpus.iter().map(|gpu| majors.gpu(gpu.minor)));
        wanted.extend(partitions(&system));
    }
    if args.quiet {
        wanted.retain(|node| nodes::is_missing(&dev, node).unwrap_or(true));
    }
    make_missing(&dev, &wanted, args.dry_run, out)?;
    Ok(Verdict::Fine)
}

/// Nodes of MIG's instances, which no other tool of ours makes.
fn partitions(system: &Tree) -> Vec<DeviceNode> {
    let needed = Stated::of(system).map(|stated| stated.needed());
    let needed = needed.unwrap_or_default().into_iter();
    needed.filter(DeviceNode::is_capability).collect()
}

fn make_missing(
    dev: &Tree,
    wanted: &[DeviceNode],
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<(), CtlError> {
    for node in wanted {
        let path = dev.host(&node.path);
        let state = match nodes::is_missing(dev, node).map_err(SystemError::from)? {
            false => "is there",
            true if dry_run => "would be made",
            true => {
                nodes::make(dev, node).map_err(SystemError::from)?;
                "made"
            }
        };
        writeln!(out, "{path} {}:{} {state}", node.major, node.minor)?;
    }
    Ok(())
}

fn create_links(
    root: &Path,
    args: &CreateDevCharSymlinks,
    out: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    let dev = tree(root, "/")?;
    let all = args.create_all;
    if all && args.load_kernel_modules {
        let driver = named(args.driver_root.as_ref(), "DRIVER_ROOT");
        let mut sink = std::io::sink();
        let out: &mut dyn Write = if args.quiet { &mut sink } else { &mut *out };
        load_modules(root, driver.as_deref().unwrap_or("/"), args.dry_run, out)?;
    }
    let wanted = match all {
        true => {
            let majors = Majors::of(&dev).map_err(SystemError::from)?;
            if args.create_device_nodes {
                let mut control = majors.control();
                if args.quiet {
                    control.retain(|node| nodes::is_missing(&dev, node).unwrap_or(true));
                }
                make_missing(&dev, &control, args.dry_run, out)?;
            }
            majors.all(&dev)
        }
        false => nodes::existing(&dev),
    };
    if !all && (args.load_kernel_modules || args.create_device_nodes) {
        writeln!(
            out,
            "--load-kernel-modules and --create-device-nodes count with --create-all only"
        )?;
    }
    if wanted.is_empty() && !args.quiet {
        writeln!(out, "there is no device of the driver")?;
    }
    let directory: PathBuf = root.join(args.dev_char_path.trim_start_matches('/'));
    for node in &wanted {
        let link = CharLink::new(&dev, node, &directory);
        if !args.quiet || !link.is_there() {
            make_link(&link, args.dry_run, out)?;
        }
    }
    Ok(Verdict::Fine)
}

fn make_link(link: &CharLink, dry_run: bool, out: &mut dyn Write) -> Result<(), CtlError> {
    let state = match (link.is_there(), dry_run) {
        (true, _) => "is there",
        (false, true) => "would be made",
        (false, false) => {
            link.make().map_err(SystemError::from)?;
            "made"
        }
    };
    writeln!(out, "{} -> {} {state}", link.link.display(), link.target)?;
    Ok(())
}

/// Runs the host's own `modprobe`, in the driver's root where that is another.
fn load_modules(
    root: &Path,
    driver_root: &str,
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<(), CtlError> {
    let at = root.join(driver_root.trim_start_matches('/'));
    for module in MODULES {
        if dry_run {
            writeln!(out, "module {module} would be loaded")?;
            continue;
        }
        modprobe(&at, module).map_err(|cause| SystemError::Module { module, cause })?;
        writeln!(out, "module {module} is loaded")?;
    }
    Ok(())
}

fn modprobe(root: &Path, module: &str) -> Result<(), String> {
    const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
    let mut command = match root == Path::new("/") {
        true => Command::new("modprobe"),
        false => {
            let mut command = Command::new("chroot");
            command.arg(root).arg("modprobe");
            command
        }
    };
    command.arg(module).env_clear().env("PATH", PATH);
    let done = command.current_dir("/").stdin(Stdio::null()).output();
    let done = done.map_err(|err| format!("run modprobe: {err}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&done.stderr)
            .trim()
            .replace('\n', "; ")),
    }
}
