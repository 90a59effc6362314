//! A directory for what is worth keeping until the next boot, which nobody but its owner can write.
//!
//! What is read from it decides which files of the host a container sees. So nothing in it counts unless it, the
//! directory and the directory above belong to the user who runs us, and no other user may write to them. Root's is never
//! where a variable says, and a rootless user's is nobody else's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fleet_rootfs::root::{Directory, FileType, Root};
use nix::fcntl::OFlag;

use crate::env::Env;

/// Emptied at each boot (`man 7 file-hierarchy`).
const RUN: &str = "/run";
/// Below it, or below a user's own.
const NAME: &str = "fleet-nvidia-cache";
/// Write bits of the group and of everybody.
const OTHERS_WRITE: u32 = 0o022;
/// More than anything that is kept.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Such a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    above: PathBuf,
    owner: u32,
}

impl Store {
    /// The caller's; `None` for a rootless user who has none.
    #[must_use]
    pub fn of(env: &Env) -> Option<Self> {
        let above = match env.rootless() {
            false => PathBuf::from(RUN),
            true => env.runtime_dir()?,
        };
        Some(Self::below(&above, env.euid))
    }

    /// In any directory that belongs to `owner`.
    #[must_use]
    pub fn below(above: &Path, owner: u32) -> Self {
        Self {
            above: above.to_path_buf(),
            owner,
        }
    }

    /// What was kept under a name; nothing if it could be another user's.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.directory(false).ok()?.open(name).ok()?;
        let meta = file.metadata().ok()?;
        // A second name may lie where another user writes.
        if !meta.is_file() || meta.nlink() != 1 || !self.is_own(meta.uid(), meta.mode()) {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.size().min(LIMIT)).ok()?);
        file.take(LIMIT).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Keeps something under a name, in one step.
    ///
    /// # Errors
    /// The directory is another user's, or cannot be made or written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.directory(true)?.replace_file(name, bytes, 0o600)
    }

    fn directory(&self, make: bool) -> io::Result<Directory> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let above: File = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(&self.above)?;
        let meta = above.metadata()?;
        let own = |is_own: bool| match is_own {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
        };
        own(self.is_own(meta.uid(), meta.mode()))?;
        let root = Root::new(above.as_fd());
        let found = match root.directory(NAME) {
            Err(err) if make && err.kind() == io::ErrorKind::NotFound => {
                root.make_directory(NAME, 0o700)
            }
            other => other,
        }?;
        let stat = found.stat()?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        own(is_dir && self.is_own(stat.st_uid, stat.st_mode))?;
        Ok(found)
    }

    fn is_own(&self, uid: u32, mode: u32) -> bool {
        uid == self.owner && mode & OTHERS_WRITE == 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn own(above: &Path) -> Store {
        Store::below(above, nix::unistd::geteuid().as_raw())
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_kept_is_read_again_and_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = own(dir.path());
        assert_eq!(store.read("x"), None);
        store.write("x", b"one").unwrap();
        store.write("x", b"two").unwrap();
        assert_eq!(store.read("x").as_deref(), Some(&b"two"[..]));
        let kept = dir.path().join(NAME);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&kept), mode(&kept.join("x"))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
    }

    #[test]
    fn what_another_could_have_written_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join(NAME);
        let file = kept.join("x");
        own(dir.path()).write("x", b"x").unwrap();
        for path in [dir.path(), &kept, &file] {
            let before = fs::metadata(path).unwrap().mode();
            for mode in [0o777, 0o770, 0o602] {
                chmod(path, mode);
                assert_eq!(
                    own(dir.path()).read("x"),
                    None,
                    "{} {mode:o}",
                    path.display()
                );
            }
            chmod(path, before);
        }
        assert!(own(dir.path()).read("x").is_some());
        // Another owner's.
        let other = Store::below(dir.path(), 12345);
        assert_eq!(other.read("x"), None);
        assert!(other.write("x", b"y").is_err());
        // By another name, or by a link.
        fs::hard_link(&file, kept.join("y")).unwrap();
        assert_eq!(own(dir.path()).read("x"), None);
        fs::remove_file(&file).unwrap();
        symlink("y", &file).unwrap();
        assert_eq!(own(dir.path()).read("x"), None);
        chmod(dir.path(), 0o1777);
        assert!(own(dir.path()).write("x", b"y").is_err());
    }

    #[test]
    fn whose_it_is_is_never_root_s_environment_to_say() {
        let env = |euid, in_userns, dir: Option<&str>| Env {
            euid,
            in_userns,
            xdg_runtime_dir: dir.map(str::to_owned),
            ..Env::default()
        };
        let at = |env: &Env| Store::of(env).map(|store| store.above);
        assert_eq!(at(&env(0, false, Some("/home/u"))), Some(RUN.into()));
        assert_eq!(
            at(&env(1000, false, Some("/run/user/1000"))),
            Some("/run/user/1000".into())
        );
        assert_eq!(
            at(&env(0, true, Some("/run/user/1000"))),
            Some("/run/user/1000".into())
        );
        for dir in [None, Some("relative"), Some("")] {
            assert_eq!(at(&env(1000, false, dir)), None);
        }
    }
}
