//! Where on the node the installation lies. A marker tells that the directory is ours, and which directories above it
//! were made for it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::{Value, json};

use super::{At, NodeError};
use crate::files::Files;

const MARKER: &str = ".fleet-nvidia-node";
const CANDIDATES: [&str; 2] = ["/opt/fleet-nvidia", "/var/lib/fleet-nvidia"];

/// The directory, as the node sees it and as we do.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) files: Files,
    pub(super) path: PathBuf,
    pub(super) real: PathBuf,
}

/// Keeps other installers away from the node. The lock is on the root directory itself, so that no file is left.
pub(super) fn lock(files: &Files) -> Result<Flock<File>, NodeError> {
    let root = files.root();
    let dir = File::open(root).at("open", root)?;
    Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, err)| NodeError::Io {
        op: "lock",
        path: root.to_path_buf(),
        source: err.into(),
    })
}

impl Place {
    fn at(files: &Files, path: &Path) -> Result<Self, NodeError> {
        Ok(Self {
            real: files.place(path).at("find", path)?,
            files: files.clone(),
            path: path.to_path_buf(),
        })
    }

    /// The installation of the node, where there is one.
    pub(super) fn find(files: &Files, given: Option<&Path>) -> Result<Option<Self>, NodeError> {
        for path in candidates(given)? {
            let place = Self::at(files, &path)?;
            if place.is_marked() {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// A directory to install into. Nothing is written.
    pub(super) fn choose(files: &Files, given: Option<&Path>) -> Result<Self, NodeError> {
        if let Some(found) = Self::find(files, given)? {
            return Ok(found);
        }
        let mut problems = Vec::new();
        for path in candidates(given)? {
            let place = Self::at(files, &path)?;
            match place.unfit() {
                None => return Ok(place),
                Some(problem) => problems.push(format!("{} {problem}", path.display())),
            }
        }
        Err(NodeError::Asked(format!(
            "nowhere to install to: {}; hint: name a directory of its own by `--install-dir`",
            problems.join(", ")
        )))
    }

    fn is_marked(&self) -> bool {
        self.real.join(MARKER).is_file()
    }

    fn unfit(&self) -> Option<String> {
        if self.real.symlink_metadata().is_ok() {
            match fs::read_dir(&self.real).map(|mut all| all.next().is_some()) {
                Ok(false) => {}
                Ok(true) => return Some("holds files that are not of an installation".to_owned()),
                Err(err) => return Some(crate::files::cause(&err)),
            }
        }
        let existing = self.real.ancestors().find(|dir| dir.is_dir())?;
        let flags = match statvfs(existing) {
            Ok(stat) => stat.flags(),
            Err(err) => return Some(err.desc().to_lowercase()),
        };
        match () {
            () if flags.contains(FsFlags::ST_RDONLY) => {
                Some("is on a read-only file system".to_owned())
            }
            () if flags.contains(FsFlags::ST_NOEXEC) => {
                Some("is on a file system mounted noexec".to_owned())
            }
            () => None,
        }
    }

    /// Makes the directory, with its marker in it from the first moment.
    pub(super) fn claim(&self) -> Result<(), NodeError> {
        if self.is_marked() {
            return Ok(());
        }
        let marker = self.path.join(MARKER);
        let made = self.files.missing_above(&marker);
        let text = json!({"schemaVersion": 1, "made": made}).to_string();
        Ok(self.files.replace(&marker, &text)?)
    }

    /// Takes the marker and the directories made for it away: the last step.
    pub(super) fn give_up(&self) -> Result<(), NodeError> {
        let marker = self.path.join(MARKER);
        let text = self.files.read(&marker)?.unwrap_or_default();
        let marked: Value = serde_json::from_str(&text).unwrap_or_default();
        let made = marked.get("made").and_then(Value::as_array);
        let made: Vec<_> = made
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(PathBuf::from)
            .collect();
        Ok(self.files.remove_with(&marker, &made)?)
    }
}

/// Takes away what a killed run has left where no installation is.
pub(super) fn sweep(files: &Files, given: Option<&Path>) -> Result<(), NodeError> {
    for path in candidates(given)? {
        files.sweep(&path.join(MARKER))?;
    }
    Ok(())
}

fn candidates(given: Option<&Path>) -> Result<Vec<PathBuf>, NodeError> {
    let Some(given) = given else {
        return Ok(CANDIDATES.map(PathBuf::from).to_vec());
    };
    let plain = given
        .to_str()
        .is_some_and(|text| !text.contains(|c: char| c.is_control() || c.is_whitespace()));
    match given.is_absolute() && given.parent().is_some() && plain {
        true => Ok(vec![given.components().collect()]),
        false => Err(NodeError::Asked(format!(
            "--install-dir {} is not an absolute directory below / without spaces; hint: engines store it for a container's whole life",
            given.display()
        ))),
    }
}
