//! The safe repairs: each one adds what is missing and changes nothing that is there.

use std::path::{Path, PathBuf};

use clap::Parser;
use fleet_host::nodes::{self, CharLink, DeviceNode};

use crate::cli::Cli;
use crate::configure::{Engine, Site};
use crate::files::Files;

/// What `--fix` does about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// The link in `/dev/char` by which systemd finds a device by its number.
    CharLink(DeviceNode),
    /// A device node of the driver, 0666 as the driver's own tool makes it.
    Node(DeviceNode),
    /// The CDI spec of the node, as `cdi refresh` writes it: a good one is never lost.
    Spec,
    /// The entry in an engine's configuration: the system's, or that of the user whose configuration directory this is.
    Configure(Engine, Option<PathBuf>),
}

impl Repair {
    /// Does it, and says what was done.
    pub(crate) fn carry_out(&self, files: &Files) -> Result<String, String> {
        match self {
            Self::CharLink(node) => char_link(files, node),
            Self::Node(node) => device_node(files, node),
            Self::Spec => refresh(files),
            Self::Configure(engine, user) => configure(files, *engine, user.clone()),
        }
    }
}

fn char_link(files: &Files, node: &DeviceNode) -> Result<String, String> {
    let dev = files.tree().map_err(|err| err.to_string())?;
    let directory = files
        .place(Path::new("/dev/char"))
        .map_err(|err| err.to_string())?;
    let link = CharLink::new(&dev, node, &directory);
    link.make().map_err(|err| err.to_string())?;
    Ok(format!(
        "linked /dev/char/{}:{} to {}",
        node.major, node.minor, link.target
    ))
}

fn device_node(files: &Files, node: &DeviceNode) -> Result<String, String> {
    let dev = files.tree().map_err(|err| err.to_string())?;
    nodes::make(&dev, node).map_err(|err| err.to_string())?;
    Ok(format!(
        "made {} as {}:{}",
        node.path, node.major, node.minor
    ))
}

/// The same as if it was typed.
fn refresh(files: &Files) -> Result<String, String> {
    let root = files.root().display().to_string();
    let mut typed = vec!["fleet-nvidia-ctl"];
    if !files.is_this_machine() {
        typed.extend(["--root-dir", &root]);
    }
    typed.extend(["cdi", "refresh"]);
    let cli = Cli::try_parse_from(typed).map_err(|err| err.to_string())?;
    // What it prints is for those who type it.
    let (mut out, mut remarks) = (Vec::new(), Vec::new());
    match crate::run(&cli, &mut out, &mut remarks) {
        Ok(_) => Ok("cdi refresh".to_owned()),
        Err(err) => Err(err.to_string()),
    }
}

fn configure(files: &Files, engine: Engine, user: Option<PathBuf>) -> Result<String, String> {
    let site = Site {
        user,
        ..Site::of(files, engine)
    };
    let plan = engine.plan(&site);
    match plan.and_then(|plan| plan.carry_out(files).map(|()| plan)) {
        Ok(plan) => {
            let done: Vec<_> = plan.changes().iter().map(|change| change.done()).collect();
            Ok(done.join(", "))
        }
        Err(err) => Err(err.to_string()),
    }
}
