//! Device nodes that open.
//!
//! Without the driver, numbers of the driver open nothing. A simulated node therefore borrows numbers of devices that
//! this kernel has and that do nothing when opened: virtual consoles, which are many. Each node gets its own, so that the
//! device cgroup can tell them apart.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use fleet_sim_machine::{GpuFault, Machine, Node};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::build::SimError;
use crate::files::{io_error, make_dir, write};

/// Where the numbers of device nodes come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Numbers {
    /// From devices of this kernel that open without effect.
    #[default]
    Borrowed,
    /// From the driver: all is consistent with `/proc` and `/sys`, and nothing opens.
    Driver,
    /// Nothing is made; a file `devices` lists name, kind, numbers and mode. Needs no privilege.
    Listed,
}

/// Virtual consoles 20 to 63 and their screens (kernel `devices.txt`: 4 and 7), as text, in Unicode and with attributes;
/// some harmless ones where there are no consoles: fuse, loop-control, tun, autofs, btrfs-control.
fn candidates() -> impl Iterator<Item = (u32, u32)> {
    let consoles = (20..64).map(|minor| (4, minor));
    let screens = [0, 64, 128]
        .into_iter()
        .flat_map(|kind| (20..64).map(move |minor| (7, kind + minor)));
    consoles
        .chain(screens)
        .chain([(10, 229), (10, 237), (10, 200), (10, 235), (10, 234)])
}

/// Gives every node of the machine numbers that open here, in `probe`. A node with a fault keeps the driver's.
pub(crate) fn borrow(machine: &mut Machine, probe: &Path) -> Result<(), SimError> {
    let dead: Vec<String> = machine
        .gpus
        .iter()
        .filter(|gpu| gpu.fault == Some(GpuFault::DeadNode))
        .map(|gpu| gpu.node.name.clone())
        .collect();
    let nodes: Vec<&mut Node> = machine
        .nodes_mut()
        .filter(|node| !dead.contains(&node.name))
        .collect();
    let wanted = nodes.len();
    let numbers: Vec<(u32, u32)> = candidates()
        .filter(|number| opens(probe, *number))
        .take(wanted)
        .collect();
    if numbers.len() < wanted {
        return Err(SimError::Nodes {
            wanted,
            found: numbers.len(),
        });
    }
    for (node, (major, minor)) in nodes.into_iter().zip(numbers) {
        (node.major, node.minor) = (major, minor);
    }
    Ok(())
}

fn opens(probe: &Path, (major, minor): (u32, u32)) -> bool {
    drop(fs::remove_file(probe));
    let made = mknod(
        probe,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o600),
        makedev(major.into(), minor.into()),
    );
    let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
    let opened = made.is_ok()
        && OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(probe)
            .is_ok();
    drop(fs::remove_file(probe));
    opened
}

/// The nodes as they are to be made: faults applied.
fn wanted(machine: &Machine) -> Vec<Node> {
    let mut machine = machine.clone();
    let faults: Vec<(String, GpuFault)> = machine
        .gpus
        .iter()
        .filter_map(|gpu| Some((gpu.node.name.clone(), gpu.fault?)))
        .collect();
    let fault = |node: &Node| {
        faults
            .iter()
            .find(|(name, _)| *name == node.name)
            .map(|(_, fault)| *fault)
    };
    machine
        .nodes_mut()
        .filter_map(|node| match fault(node) {
            Some(GpuFault::MissingNode) => None,
            Some(GpuFault::UnreadableNode) => Some(node.clone().guarded(0, 0)),
            _ => Some(node.clone()),
        })
        .collect()
}

/// Makes every node below `root`.
pub(crate) fn make_all(machine: &Machine, root: &Path, numbers: Numbers) -> Result<(), SimError> {
    let nodes = wanted(machine);
    if numbers == Numbers::Listed {
        let mut text = String::new();
        for node in &nodes {
            let Node {
                name,
                major,
                minor,
                mode,
                gid,
            } = node;
            let _ = writeln!(text, "/dev/{name} c {major} {minor} {mode:o} {gid}");
        }
        return write(&root.join("devices"), text.as_bytes(), 0o644);
    }
    nodes.iter().try_for_each(|node| make(root, node))
}

/// Makes a node, replacing an older one.
fn make(root: &Path, node: &Node) -> Result<(), SimError> {
    let path = root.join("dev").join(&node.name);
    path.parent().map_or(Ok(()), make_dir)?;
    drop(fs::remove_file(&path));
    mknod(
        &path,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(node.mode),
        makedev(node.major.into(), node.minor.into()),
    )
    .map_err(|errno| io_error(&path)(errno.into()))?;
    chown(&path, Some(0), Some(node.gid)).map_err(io_error(&path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(node.mode)).map_err(io_error(&path))
}
