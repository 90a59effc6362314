//! Files of the node, below the directory that stands for its `/`. A file is replaced as a whole or not at all.
//!
//! Not here: what the files mean.

mod step;

use std::fs;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fleet_host::{Host, HostRoot, Tree};
use nix::errno::Errno;

/// An operation on a file that failed.
#[derive(Debug, thiserror::Error)]
#[error("{op} {}: {}{}", .path.display(), cause(.source), hint(.source))]
pub(crate) struct FileError {
    op: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The node's files.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    root: PathBuf,
    host: HostRoot,
}

impl Files {
    /// Below `root`; `None` is this machine.
    pub(crate) fn new(root: Option<&Path>) -> Self {
        Self {
            root: root.unwrap_or_else(|| Path::new("/")).to_path_buf(),
            host: root.map_or_else(HostRoot::default, HostRoot::new),
        }
    }

    /// Whether this is the machine that we run on, so that its programs may be asked.
    pub(crate) fn is_this_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The same directory as the machine's facts are read from.
    pub(crate) fn tree(&self) -> io::Result<Tree> {
        Tree::open(&self.root, "")
    }

    pub(crate) fn host(&self) -> &HostRoot {
        &self.host
    }

    /// The last bytes of a file, as text.
    pub(crate) fn tail(&self, path: &Path, bytes: u64) -> io::Result<String> {
        let mut file = fs::File::open(self.host.locate(path)?)?;
        let length = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut text = Vec::new();
        file.take(bytes).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Bytes that a user may still write at a path, or at what exists above it.
    pub(crate) fn free_space(&self, path: &Path) -> Option<u64> {
        let place = path
            .ancestors()
            .find_map(|path| self.host.locate(path).ok().filter(|place| place.exists()))?;
        let stat = nix::sys::statvfs::statvfs(&place).ok()?;
        Some(stat.blocks_available() * stat.fragment_size())
    }

    /// Whether something lies at a path, a link included.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return true;
        };
        let place = self.host.locate(parent).map(|parent| parent.join(name));
        place.is_ok_and(|place| fs::symlink_metadata(place).is_ok())
    }

    /// The text of a file, if it is there.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<String>, FileError> {
        match self.host.read(path) {
            Ok(text) => Ok(Some(text)),
            Err(err) if is_absent(&err) => Ok(None),
            Err(source) => Err(failed("read", path, source)),
        }
    }

    /// The regular files of a directory in byte order of their paths, links followed; empty if it is missing.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, FileError> {
        let mut found = self.entries(dir)?;
        found.retain(|path| self.place(path).is_ok_and(|place| place.is_file()));
        Ok(found)
    }

    /// The same with all directories below.
    pub(crate) fn list_deep(&self, dir: &Path) -> Result<Vec<PathBuf>, FileError> {
        let mut all = Vec::new();
        for path in self.entries(dir)? {
            let place = self
                .place(&path)
                .map_err(|err| failed("read", &path, err))?;
            match place.is_dir() {
                true if place.is_symlink() => {}
                true => all.extend(self.list_deep(&path)?),
                false if place.is_file() => all.push(path),
                false => {}
            }
        }
        Ok(all)
    }

    /// Everything in a directory, sorted.
    pub(crate) fn entries(&self, dir: &Path) -> Result<Vec<PathBuf>, FileError> {
        let read = self.host.locate(dir).and_then(fs::read_dir);
        let entries = match read {
            Ok(entries) => entries,
            Err(err) if is_absent(&err) => return Ok(Vec::new()),
            Err(source) => return Err(failed("list", dir, source)),
        };
        let mut paths = entries
            .map(|entry| Ok(dir.join(entry?.file_name())))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|source| failed("list", dir, source))?;
        paths.sort();
        Ok(paths)
    }

    /// Whether a regular file lies here that somebody may execute.
    pub(crate) fn is_program(&self, path: &Path) -> bool {
        let meta = self.host.locate(path).and_then(fs::metadata);
        meta.is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
    }

    /// Writes a file in one step; its mode and owner stay as they are, and a link stays a link.
    pub(crate) fn replace(&self, path: &Path, text: &str) -> Result<(), FileError> {
        self.try_replace(path, text)
            .map_err(|source| failed("write", path, source))
    }

    fn try_replace(&self, path: &Path, text: &str) -> io::Result<()> {
        let place = self.place(path)?;
        let (Some(dir), Some(name)) = (place.parent(), place.file_name()) else {
            return Err(Errno::EISDIR.into());
        };
        if !dir.exists() {
            return step::put_with_directories(&place, text);
        }
        let new = step::new_name(dir, name);
        let old = fs::metadata(&place).ok();
        step::write(&new, text, old.as_ref())
            .and_then(|()| fs::rename(&new, &place))
            .inspect_err(|_| drop(fs::remove_file(&new)))?;
        fs::File::open(dir)?.sync_all()
    }

    /// Removes a file; a missing one is no error.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), FileError> {
        self.remove_with(path, &[])
    }

    /// Removes a file, and those of `made`, directories above it, that hold nothing else. What a killed run left half
    /// done goes as well.
    pub(crate) fn remove_with(&self, path: &Path, made: &[PathBuf]) -> Result<(), FileError> {
        let removed = self.place(path).and_then(|place| {
            let made = made.iter().filter(|dir| path.starts_with(dir));
            let made = made
                .map(|dir| self.place(dir))
                .collect::<io::Result<Vec<_>>>()?;
            step::take(&place, &made)
        });
        match removed {
            Err(err) if !is_absent(&err) => Err(failed("remove", path, err)),
            _ => Ok(()),
        }
    }

    /// Removes what a killed run has left beside a file.
    pub(crate) fn sweep(&self, path: &Path) -> Result<(), FileError> {
        let swept = self.place(path).and_then(|place| step::sweep(&place));
        swept.map_err(|source| failed("clear", path, source))
    }

    /// The directories above a path that do not exist, outermost first.
    pub(crate) fn missing_above(&self, path: &Path) -> Vec<PathBuf> {
        let above = path.ancestors().skip(1);
        let missing = above.take_while(|dir| !self.exists(dir));
        let mut missing: Vec<_> = missing.map(Path::to_path_buf).collect();
        missing.reverse();
        missing
    }

    /// Where a path really lies, or would lie.
    pub(crate) fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let found = match self.is_this_machine() {
            true => path.canonicalize(),
            false => self.host.locate(path),
        };
        match (found, path.parent(), path.file_name()) {
            (Err(err), Some(parent), Some(name)) if err.kind() == io::ErrorKind::NotFound => {
                Ok(self.place(parent)?.join(name))
            }
            (found, ..) => found,
        }
    }
}

fn failed(op: &'static str, path: &Path, source: io::Error) -> FileError {
    FileError {
        op,
        path: path.to_path_buf(),
        source,
    }
}

fn is_absent(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The C library's words, without Rust's `(os error N)`.
pub(crate) fn cause(err: &io::Error) -> String {
    err.raw_os_error().map_or_else(
        || err.to_string(),
        |code| Errno::from_raw(code).desc().to_lowercase(),
    )
}

fn hint(err: &io::Error) -> &'static str {
    match err.kind() {
        io::ErrorKind::PermissionDenied => "; hint: run it as root",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; hint: this system's files are fixed when its image is built: use `--root DIR` there, or `--user`"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(Some(dir.path()));
        (dir, files)
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let (dir, files) = tree();
        let path = Path::new("/etc/x/y.conf");
        files.replace(path, "one").unwrap();
        let real = dir.path().join("etc/x/y.conf");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        files.replace(path, "two").unwrap();
        assert_eq!(files.read(path).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o640);
        assert_eq!(files.list(Path::new("/etc/x")).unwrap(), [path]);
        files.remove(path).unwrap();
        files.remove(path).unwrap();
        assert_eq!(files.read(path).unwrap(), None);
    }

    #[test]
    fn links_stay_links_and_do_not_leave_the_root() {
        let (dir, files) = tree();
        files.replace(Path::new("/opt/real.conf"), "old").unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("/opt/real.conf", dir.path().join("etc/link.conf")).unwrap();
        files.replace(Path::new("/etc/link.conf"), "new").unwrap();
        assert!(dir.path().join("etc/link.conf").is_symlink());
        assert_eq!(
            fs::read_to_string(dir.path().join("opt/real.conf")).unwrap(),
            "new"
        );
    }

    #[test]
    fn a_failure_names_operation_path_and_cause() {
        let (dir, files) = tree();
        fs::write(dir.path().join("etc"), "a file").unwrap();
        let err = files
            .replace(Path::new("/etc/x.conf"), "")
            .unwrap_err()
            .to_string();
        assert_eq!(err, "write /etc/x.conf: not a directory");
        let err = failed("write", Path::new("/etc/x"), io::Error::from(Errno::EROFS));
        assert!(
            err.to_string()
                .starts_with("write /etc/x: read-only file system; hint: "),
            "{err}"
        );
    }
}
