//! Device nodes that open.
//!
//! Without the driver, numbers of the driver open nothing. A simulated node therefore borrows numbers of devices that
//! this kernel has and that do nothing when opened: virtual consoles, which are many. Each GPU gets its own, so that the
//! device cgroup can tell them apart.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::build::SimError;
use crate::machine::{Machine, Node};

/// Virtual consoles 20 to 63 and their screens (kernel `devices.txt`: 4 and 7); some harmless ones where there are no
/// consoles: fuse, loop-control, tun, autofs, btrfs-control.
fn candidates() -> impl Iterator<Item = (u32, u32)> {
    let consoles = (20..64).map(|minor| (4, minor));
    let screens = (20..64).map(|minor| (7, minor));
    consoles
        .chain(screens)
        .chain([(10, 229), (10, 237), (10, 200), (10, 235), (10, 234)])
}

/// Gives every node of the machine numbers that open here, in `probe`.
pub(crate) fn borrow(machine: &mut Machine, probe: &Path) -> Result<(), SimError> {
    let wanted = machine.gpus.len() + machine.control.len();
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
    let nodes = machine
        .gpus
        .iter_mut()
        .map(|gpu| &mut gpu.node)
        .chain(machine.control.iter_mut());
    for (node, (major, minor)) in nodes.zip(numbers) {
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

/// Makes a node, replacing an older one.
pub(crate) fn make(dir: &Path, node: &Node) -> Result<(), SimError> {
    let path = dir.join(&node.name);
    drop(fs::remove_file(&path));
    let failed = |err: std::io::Error| SimError::Io {
        path: path.clone(),
        source: err,
    };
    mknod(
        &path,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        makedev(node.major.into(), node.minor.into()),
    )
    .map_err(|errno| failed(errno.into()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(failed)
}
