//! Changes to the runtime's own process that a container's processes inherit, undone afterwards.
//!
//! Namespaces of the host that a container joins by path are entered here, before the library makes a user
//! namespace from which they could not be opened (libcontainer 0.7: row 12, L11); the cgroup file system is
//! hidden where the library must not (or may not) move processes itself.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Context, Result};

/// The namespaces and directory to return to.
#[derive(Debug)]
pub(crate) struct Surroundings {
    mounts: Option<(OwnedFd, OwnedFd)>,
    joined: Vec<(OwnedFd, CloneFlags)>,
}

/// v1 controllers that libcgroups writes to (`libcgroups v1/controller_type.rs`).
const CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "hugetlb",
    "memory",
    "pids",
    "perf_event",
    "blkio",
    "net_prio",
    "net_cls",
    "freezer",
];

/// The path handed to the library while the cgroup file system is hidden.
pub(crate) const HIDDEN_CGROUP: &str = "/hidden";

impl Surroundings {
    /// Nothing changed yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            mounts: None,
            joined: Vec::new(),
        }
    }

    /// Hides `/sys/fs/cgroup` in a private mount namespace.
    ///
    /// libcontainer 0.7: insists on moving its process into a cgroup. Where we may not write (rootless on v1) or
    /// none is wanted (`--cgroup-manager disabled`), it is shown a tmpfs: without v1 mounts it does nothing, and
    /// for each v1 mount point still listed there is a plain file that takes its write.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn hide_cgroups(&mut self) -> Result<()> {
        let here = File::open("/proc/self/ns/mnt").op(|| "open the mount namespace")?;
        let directory = File::open(".").op(|| "open the working directory")?;
        unshare(CloneFlags::CLONE_NEWNS).op(|| "make a private mount namespace")?;
        self.mounts = Some((here.into(), directory.into()));
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_SLAVE,
            None::<&str>,
        )
        .op(|| "make mounts private")?;
        let point = "/sys/fs/cgroup";
        let points = mount_points();
        mount(
            Some("tmpfs"),
            point,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("mode=755"),
        )
        .op(|| "hide the cgroup file system")?;
        for dir in points {
            let leaf = format!("{dir}{HIDDEN_CGROUP}");
            fs::create_dir_all(&leaf).op(|| format!("make `{leaf}`"))?;
            // libcgroups reads a cpuset's parents, too.
            for place in [&dir, &leaf] {
                for (file, content) in [
                    ("cgroup.procs", ""),
                    ("cpuset.cpus", "0"),
                    ("cpuset.mems", "0"),
                ] {
                    fs::write(format!("{place}/{file}"), content)
                        .op(|| format!("make `{place}/{file}`"))?;
                }
            }
        }
        Ok(())
    }

    /// Enters the namespace at `path`; it is left again by [`Surroundings::restore`].
    ///
    /// # Errors
    /// The path, when it cannot be opened or joined.
    pub(crate) fn join(&mut self, path: &str, kind: CloneFlags, own: &str) -> Result<()> {
        let target = File::open(path).op(|| format!("open namespace `{path}`"))?;
        let back = File::open(format!("/proc/self/ns/{own}"))
            .op(|| format!("open own {own} namespace"))?;
        setns(target.as_fd(), kind).op(|| format!("join namespace `{path}`"))?;
        self.joined.push((back.into(), kind));
        Ok(())
    }

    /// Goes back to where the caller was.
    ///
    /// # Errors
    /// The namespace that could not be re-entered.
    pub(crate) fn restore(&mut self) -> Result<()> {
        for (back, kind) in self.joined.drain(..).rev() {
            setns(back.as_fd(), kind).op(|| "return to the own namespace")?;
        }
        if let Some((namespace, directory)) = self.mounts.take() {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNS)
                .op(|| "return to the own mount namespace")?;
            nix::unistd::fchdir(std::os::fd::AsRawFd::as_raw_fd(&directory))
                .op(|| "return to the working directory")?;
        }
        Ok(())
    }
}

impl Default for Surroundings {
    fn default() -> Self {
        Self::new()
    }
}

/// Where v1 hierarchies are mounted below `/sys/fs/cgroup`.
fn mount_points() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(v1_mount_point).collect()
}

fn v1_mount_point(line: &str) -> Option<String> {
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?;
    let names = Path::new(point).file_name()?.to_str()?;
    let v1 =
        after.starts_with("cgroup ") && names.split(',').any(|name| CONTROLLERS.contains(&name));
    (v1 && point.starts_with("/sys/fs/cgroup/")).then(|| point.to_owned())
}

/// Whether `/sys/fs/cgroup` is a cgroup2 file system.
#[must_use]
pub(crate) fn unified() -> bool {
    nix::sys::statfs::statfs("/sys/fs/cgroup")
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_lines() {
        let line = "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(
            v1_mount_point(line).as_deref(),
            Some("/sys/fs/cgroup/cpu,cpuacct")
        );
        let unified = "26 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(v1_mount_point(unified), None);
        let named = "26 25 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd";
        assert_eq!(v1_mount_point(named), None);
    }
}
