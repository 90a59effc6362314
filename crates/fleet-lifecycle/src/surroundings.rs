//! What the process that drives the library changes about itself, so that the library's processes inherit it.
//!
//! Namespaces of the host that a container joins by path are entered here, before the library makes a user
//! namespace from which they could not be opened (libcontainer 0.7: row 12, L11); the cgroup file system is
//! hidden where the library must not (or may not, or need not) move processes itself.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

use crate::cgroup::Doors;
use crate::error::{Context, Error, Result, errno_text};
use crate::spec::{self, Namespace};
use crate::sys::mount::{Attributes, attach_tree, attr, clone_tree, mount_flags, set_attributes};

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

/// Where every engine and the library expect cgroups.
pub(crate) const POINT: &str = "/sys/fs/cgroup";

/// Hides `/sys/fs/cgroup` in a private mount namespace.
///
/// libcontainer 0.7: insists on moving its process into a cgroup. Where we may not write (rootless on v1), none is
/// wanted (`--cgroup-manager disabled`) or the process is there already, it is shown a tmpfs: without v1 mounts it
/// does nothing, and for each v1 mount point still listed there is a plain file that takes its write.
///
/// # Errors
/// The step that failed.
pub(crate) fn hide_cgroups() -> Result<()> {
    private_mounts()?;
    let points = mount_points();
    mount(
        Some("tmpfs"),
        POINT,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=755"),
    )
    .op(|| "hide the cgroup file system")?;
    points.iter().try_for_each(|dir| stand_in(dir))
}

/// Files that take what the library writes when it moves a process on v1; it reads a cpuset's parents, too.
fn stand_in(dir: &str) -> Result<()> {
    let leaf = format!("{dir}{HIDDEN_CGROUP}");
    fs::create_dir_all(&leaf).op(|| format!("make `{leaf}`"))?;
    for place in [dir, leaf.as_str()] {
        for (file, content) in [
            ("cgroup.procs", ""),
            ("cpuset.cpus", "0"),
            ("cpuset.mems", "0"),
        ] {
            let path = format!("{place}/{file}");
            fs::write(&path, content)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o666)))
                .op(|| format!("make `{path}`"))?;
        }
    }
    Ok(())
}

/// Makes the library's own move a write to nowhere, for a process that is in the cgroup already: the move would wait
/// for milliseconds all the same.
///
/// # Errors
/// The step that failed.
pub(crate) fn spare_the_move(doors: &Doors) -> Result<()> {
    private_mounts()?;
    doors.leaves().iter().try_for_each(|leaf| {
        let procs = leaf.join("cgroup.procs");
        mount(
            Some("/dev/null"),
            &procs,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .op(|| format!("cover `{}`", procs.display()))
    })
}

/// libcontainer 0.7: makes default links and devices by joined paths on the host's root (S8), so that who changes the
/// root file system meanwhile leads it elsewhere. On a mount that follows no links a path with one is an error; the
/// tail takes that back inside the container's root. False where it cannot be had: before Linux 5.14, or not wanted:
/// the mount has it already.
///
/// In a private mount namespace only.
///
/// # Errors
/// The step that failed.
pub(crate) fn follow_no_links(rootfs: &Path) -> Result<bool> {
    let failed = || format!("bind root file system `{}`", rootfs.display());
    let dir = File::open(rootfs).op(failed)?;
    if follows_no_links(&dir) {
        return Ok(false);
    }
    let path = std::ffi::CString::new(rootfs.as_os_str().as_bytes()).map_err(|_| {
        crate::Error::Invalid("the path of the root file system has a NUL".to_owned())
    })?;
    let tree = clone_tree(&path, true).op(failed)?;
    let what = Attributes {
        set: attr::NOSYMFOLLOW,
        ..Attributes::default()
    };
    match set_attributes(tree.as_fd(), what) {
        Err(err) if err.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        other => other
            .and_then(|()| attach_tree(tree.as_fd(), dir.as_fd()))
            .op(failed)
            .map(|()| true),
    }
}

/// Takes [`follow_no_links`] back for the mount at `path`, if it is in force there.
///
/// # Errors
/// As `man 2 mount_setattr`, with the path.
pub(crate) fn follow_links(path: &Path) -> Result<()> {
    let failed = || format!("let links be followed in `{}`", path.display());
    let mount = File::open(path).op(failed)?;
    if !follows_no_links(&mount) {
        return Ok(());
    }
    let what = Attributes {
        clear: attr::NOSYMFOLLOW,
        ..Attributes::default()
    };
    set_attributes(mount.as_fd(), what).op(failed)
}

/// `ST_NOSYMFOLLOW` of `man 2 statfs`.
fn follows_no_links(mount: &File) -> bool {
    const ST_NOSYMFOLLOW: libc::c_ulong = 0x2000;
    mount_flags(mount.as_fd()).is_ok_and(|flags| flags & ST_NOSYMFOLLOW != 0)
}

const NO_RIGHT: &str = "make a private mount namespace: operation not permitted; hint: a user without an engine needs a cgroup that he \
    may write to, such as that of `systemd-run --user --scope --property Delegate=yes`, named by linux.cgroupsPath; or use Podman";

/// Makes a mount namespace of our own, whose changes do not reach the host.
///
/// # Errors
/// The step that failed.
pub(crate) fn private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|err| match err {
        // Of root, and of an engine's users in their user namespace, it is not refused.
        Errno::EPERM => Error::Setup(NO_RIGHT.to_owned()),
        err => Error::Setup(format!(
            "make a private mount namespace: {}",
            errno_text(&err.into())
        )),
    })?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .op(|| "make mounts private")
}

/// Whether the container is to see the host's cgroup mounts, as a cgroup mount or in a bind mount: then the library
/// must see them, too.
#[must_use]
pub(crate) fn shows_cgroups(view: &Value) -> bool {
    let own = unified() && spec::namespace(view, "cgroup") == Namespace::New;
    spec::list(view, "/mounts").iter().any(|mount| {
        let source = mount["source"].as_str().unwrap_or_default();
        let source = Path::new(source);
        match mount["type"].as_str() {
            Some("cgroup") => !own,
            _ => {
                source.is_absolute()
                    && (Path::new(POINT).starts_with(source) || source.starts_with(POINT))
            }
        }
    })
}

/// Enters the namespace at `path`.
///
/// # Errors
/// The path, when it cannot be opened or joined.
pub(crate) fn join(path: &str, kind: CloneFlags) -> Result<()> {
    let target = File::open(path).op(|| format!("open namespace `{path}`"))?;
    setns(target.as_fd(), kind).op(|| format!("join namespace `{path}`"))
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
    is_cgroup2(POINT)
}

/// Whether this is a cgroup2 file system.
pub(crate) fn is_cgroup2(place: &str) -> bool {
    nix::sys::statfs::statfs(place)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn specs_that_show_the_hosts_cgroups() {
        let with = |mount: Value| json!({"mounts": [{"type": "proc", "source": "proc"}, mount], "linux": {"namespaces": []}});
        for source in ["/", "/sys", "/sys/fs/cgroup", "/sys/fs/cgroup/memory/x"] {
            assert!(
                shows_cgroups(&with(json!({"type": "bind", "source": source}))),
                "{source}"
            );
        }
        assert!(shows_cgroups(&with(
            json!({"type": "cgroup", "source": "cgroup"})
        )));
        for source in ["/srv", "/sys/fs/cgroups", "sysfs"] {
            assert!(
                !shows_cgroups(&with(json!({"type": "bind", "source": source}))),
                "{source}"
            );
        }
    }

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
