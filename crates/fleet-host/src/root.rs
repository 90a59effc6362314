//! The host's files, below a directory that stands for its `/`.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use fleet_cdi::{Registry, Wanted};
use fleet_inject::{DeviceKind, DeviceStat, HostProbe, OldMig};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{major, minor};
use nix::unistd::close;

use crate::driver::{DRIVER_VERSION_FILE, driver_version};
use crate::inject::Host;
use crate::partition::{self, Partition};
use crate::tree::Tree;

/// Each is asked for by another process's rename or mount in the same microsecond.
const RETRIES: usize = 128;

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoot {
    root: PathBuf,
}

impl Default for HostRoot {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }
}

impl HostRoot {
    /// A host whose files lie below `root`: another machine's disk, or a driver's root directory.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    /// Where a host path really lies. Below another root, links lead nowhere outside it (`man 2 openat2`,
    /// `RESOLVE_IN_ROOT`).
    ///
    /// # Errors
    /// A component is missing or cannot be searched.
    pub fn locate(&self, path: &Path) -> io::Result<PathBuf> {
        if self.root == Path::new("/") {
            return Ok(path.to_path_buf());
        }
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let root = fs::File::open(&self.root)?;
        let how = OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let look_up = || openat2(root.as_raw_fd(), path, how);
        // A rename or mount anywhere on the machine during a lookup with `..` asks for another one.
        let mut found = look_up();
        for _ in 0..RETRIES {
            match found {
                Err(Errno::EAGAIN | Errno::EINTR) => found = look_up(),
                _ => break,
            }
        }
        let found = found?;
        let link = fs::read_link(format!("/proc/self/fd/{found}"));
        // A descriptor of O_PATH has nothing to flush that could fail.
        let _ = close(found);
        link
    }

    /// A directory that is missing holds no specs.
    fn locate_all(&self, dirs: &[PathBuf]) -> Vec<PathBuf> {
        dirs.iter()
            .filter_map(|dir| self.locate(dir).ok())
            .collect()
    }

    /// The path itself, links not followed at its end.
    fn locate_last(&self, path: &Path) -> io::Result<PathBuf> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok(self.locate(parent)?.join(name)),
            _ => self.locate(path),
        }
    }
}

impl HostProbe for HostRoot {
    fn lstat_device(&self, path: &str) -> io::Result<DeviceStat> {
        let meta = fs::symlink_metadata(self.locate_last(Path::new(path))?)?;
        let kind = meta.file_type();
        let kind = match () {
            () if kind.is_char_device() => DeviceKind::Char,
            () if kind.is_block_device() => DeviceKind::Block,
            () if kind.is_fifo() => DeviceKind::Fifo,
            () if kind.is_symlink() => {
                return Err(io::Error::other("is a symbolic link, not a device node"));
            }
            () => return Err(io::Error::other("is not a device node")),
        };
        let number = |part: u64| {
            u32::try_from(part).map_err(|_| io::Error::other("has an absurd device number"))
        };
        let (major, minor) = match kind {
            DeviceKind::Fifo => (0, 0),
            _ => (number(major(meta.rdev()))?, number(minor(meta.rdev()))?),
        };
        Ok(DeviceStat {
            kind,
            major,
            minor,
            mode: meta.mode() & 0o7777,
        })
    }

    fn exists(&self, path: &str) -> bool {
        self.locate(Path::new(path)).is_ok_and(|path| path.exists())
    }

    fn without_partition<'p>(&self, paths: &[&'p str]) -> Vec<&'p str> {
        let tree = Tree::open(&self.root, "/").ok();
        tree.map_or_else(Vec::new, |tree| partition::without(&tree, paths))
    }

    fn driver_version(&self) -> Option<String> {
        let text = self.read(Path::new(DRIVER_VERSION_FILE)).ok()?;
        driver_version(&text).map(str::to_owned)
    }
}

impl Host for HostRoot {
    fn read(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(self.locate(path)?)
    }

    fn registry(&self, dirs: &[PathBuf]) -> Registry {
        Registry::scan(&self.locate_all(dirs))
    }

    fn registry_for(&self, dirs: &[PathBuf], wanted: &Wanted) -> Registry {
        Registry::scan_for(&self.locate_all(dirs), wanted)
    }

    fn partition(&self, old: &OldMig<'_>) -> Result<Partition, String> {
        let tree = Tree::open(&self.root, "/").map_err(|err| err.to_string())?;
        Partition::of(&tree, old)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.locate(dir)?)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn devices_of_the_machine_are_seen_as_they_are() {
        let host = HostRoot::default();
        let null = host.lstat_device("/dev/null").unwrap();
        assert_eq!(
            (null.kind, null.major, null.minor),
            (DeviceKind::Char, 1, 3)
        );
        assert_eq!(
            host.lstat_device("/dev/stdin").unwrap_err().to_string(),
            "is a symbolic link, not a device node"
        );
        assert_eq!(
            host.lstat_device("/").unwrap_err().to_string(),
            "is not a device node"
        );
        assert_eq!(
            host.lstat_device("/dev/no-such-node").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn links_stay_below_another_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("run/cdi")).unwrap();
        fs::create_dir(root.join("var")).unwrap();
        symlink("/run", root.join("var/run")).unwrap();
        symlink("/etc/passwd", root.join("run/passwd")).unwrap();
        fs::write(root.join("run/file"), "x").unwrap();
        symlink("../../../run/file", root.join("run/link")).unwrap();
        let host = HostRoot::new(root);
        assert_eq!(
            host.locate(Path::new("/var/run/cdi")).unwrap(),
            root.canonicalize().unwrap().join("run/cdi")
        );
        assert!(host.exists("/var/run/link"));
        assert!(
            !host.exists("/run/passwd"),
            "a link of the tree must not lead to the machine's own files"
        );
        assert!(
            host.lstat_device("/var/run/passwd")
                .unwrap_err()
                .to_string()
                .contains("symbolic link")
        );
        assert_eq!(host.read(Path::new("/var/run/link")).unwrap(), "x");
        assert_eq!(host.driver_version(), None);
    }

    #[test]
    fn the_driver_is_asked_for_its_version() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/driver/nvidia")).unwrap();
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n";
        fs::write(dir.path().join("proc/driver/nvidia/version"), text).unwrap();
        assert_eq!(
            HostRoot::new(dir.path()).driver_version().as_deref(),
            Some("550.54.15")
        );
    }
}
