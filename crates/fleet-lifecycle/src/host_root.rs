//! `--no-pivot`: the host's root stays in the mount namespace, so its whole `/proc` and `/sys` are taken out of it. They
//! would show what is masked in the container's, and would let a user namespace mount them anew.
//!
//! libcontainer 0.7: unmounts `/proc` and `/sys` once each, not what lies below them or elsewhere. So all but one are
//! taken out here, in the container's mount namespace before its root is changed.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Context, Result};
use crate::sys::mount::{attach_tree, clone_tree};

/// The library reads it until the very end, and takes it out itself.
const LAST: &str = "/proc";

/// Leaves `/proc` alone of the kernel file systems that are not below `rootfs`.
///
/// # Errors
/// The one that can neither be unmounted nor covered.
pub(crate) fn bare(rootfs: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").op(|| "read /proc/self/mountinfo")?;
    let last = clone_tree(c"/proc", false).op(|| "keep the host's /proc")?;
    let mut places: Vec<PathBuf> = table
        .lines()
        .filter_map(kernel_mount)
        .filter(|place| !place.starts_with(rootfs) && place != Path::new("/"))
        .collect();
    // The innermost first.
    places.sort_by(|a, b| b.cmp(a));
    places.dedup();
    for place in places {
        remove(&place).op(|| format!("unmount the host's `{}`", place.display()))?;
    }
    let target = File::open(LAST).op(|| "keep the host's /proc")?;
    attach_tree(last.as_fd(), target.as_fd()).op(|| "keep the host's /proc")
}

fn remove(place: &Path) -> nix::Result<()> {
    loop {
        match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there any more.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            // The mount belongs to the host's user namespace.
            Err(_) => {
                let flags = MsFlags::MS_RDONLY;
                return mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some("size=0k"));
            }
        }
    }
}

/// The mount point of a line of `/proc/PID/mountinfo`, when it is of a kernel file system.
fn kernel_mount(line: &str) -> Option<PathBuf> {
    let (before, after) = line.split_once(" - ")?;
    let kind = after.split(' ').next()?;
    let place = before.split(' ').nth(4)?;
    matches!(kind, "proc" | "sysfs").then(|| PathBuf::from(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_mounts() {
        let line =
            |kind: &str| format!("25 30 0:24 / /a/proc rw,nosuid shared:13 - {kind} {kind} rw");
        assert_eq!(kernel_mount(&line("proc")), Some("/a/proc".into()));
        assert_eq!(kernel_mount(&line("sysfs")), Some("/a/proc".into()));
        assert_eq!(kernel_mount(&line("tmpfs")), None);
        assert_eq!(kernel_mount("nonsense"), None);
    }
}
