//! The safe repairs: each one adds what is missing and changes nothing that is there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::configure::{Engine, Site};
use crate::files::{Files, cause};

/// What `--fix` does about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// The link in `/dev/char` by which systemd finds a device by its number.
    CharLink {
        /// Device node.
        node: PathBuf,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A device node of the driver, 0666 as the driver's own tool makes it.
    Node {
        /// Path.
        path: PathBuf,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// The entry in an engine's configuration.
    Configure(Engine),
}

impl Repair {
    /// Does it, and says what was done.
    pub(crate) fn carry_out(&self, files: &Files) -> Result<String, String> {
        match self {
            Self::CharLink { node, major, minor } => char_link(files, node, *major, *minor),
            Self::Node { path, major, minor } => device_node(files, path, *major, *minor),
            Self::Configure(engine) => configure(files, *engine),
        }
    }
}

fn char_link(files: &Files, node: &Path, major: u32, minor: u32) -> Result<String, String> {
    let link = PathBuf::from(format!("/dev/char/{major}:{minor}"));
    let target = Path::new("..").join(node.strip_prefix("/dev").unwrap_or(node));
    let made = files.place(&link).and_then(|place| {
        if let Some(dir) = place.parent() {
            fs::create_dir_all(dir)?;
        }
        symlink(&target, place)
    });
    match made {
        Ok(()) => Ok(format!("linked {} to {}", link.display(), target.display())),
        Err(err) => Err(format!("link {}: {}", link.display(), cause(&err))),
    }
}

fn device_node(files: &Files, path: &Path, major: u32, minor: u32) -> Result<String, String> {
    let mode = Mode::from_bits_truncate(0o666);
    let made = files.place(path).and_then(|place| {
        mknod(
            &place,
            SFlag::S_IFCHR,
            mode,
            makedev(major.into(), minor.into()),
        )?;
        // The umask took bits away.
        fs::set_permissions(&place, fs::Permissions::from_mode(0o666))
    });
    match made {
        Ok(()) => Ok(format!("made {} as {major}:{minor}", path.display())),
        Err(err) => Err(format!("make {}: {}", path.display(), cause(&err))),
    }
}

fn configure(files: &Files, engine: Engine) -> Result<String, String> {
    let plan = engine.plan(&Site::of(files, engine));
    match plan.and_then(|plan| plan.carry_out(files).map(|()| plan)) {
        Ok(plan) => {
            let done: Vec<_> = plan.changes().iter().map(|change| change.done()).collect();
            Ok(done.join(", "))
        }
        Err(err) => Err(err.to_string()),
    }
}
