//! Writing a spec: validated, in one step, with a mode that engines of every user can read.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::emit;
use crate::model::Spec;
use crate::parse::Format;
use crate::shown::{shown, shown_path};
use crate::validate::InvalidSpec;

/// A spec that was not written; an older file is untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Nobody could read it.
    #[error("write CDI spec {}: {source}", shown_path(.path))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The broken rule.
        source: InvalidSpec,
    },
    /// Released CDI libraries up to 1.1.0 refuse a file with `permissions: none`.
    #[error(
        "write CDI spec {}: device \"{}\" has permissions \"none\", which engines of today refuse",
        shown_path(.path), shown(.device)
    )]
    NoPermissions {
        /// The file.
        path: PathBuf,
        /// The device node.
        device: String,
    },
    /// The content cannot be written as JSON.
    #[error("write CDI spec {}: {source}", shown_path(.path))]
    Encode {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The file could not be made.
    #[error("write CDI spec {}: {}", shown_path(.path), unwritable(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// As for reading: not in words that engines take for the container's own error.
fn unwritable(err: &io::Error) -> String {
    match err.raw_os_error() {
        Some(libc::EACCES) => "it cannot be written (EACCES)".to_owned(),
        Some(libc::EROFS) => "it cannot be written (EROFS: read-only file system)".to_owned(),
        Some(code) => format!("it cannot be written (errno {code})"),
        None => format!("it cannot be written ({})", err.kind()),
    }
}

/// Writes `spec` to `path`, making the directory when missing. A reader sees the old file or the new one, whole.
///
/// # Errors
/// [`WriteError`]; nothing half-written is left.
pub fn write_spec(spec: &Spec, path: &Path, format: Format) -> Result<(), WriteError> {
    let text = encode(spec, path, format)?;
    replace(path, text.as_bytes()).map_err(|source| WriteError::Io {
        path: path.to_path_buf(),
        source,
    })
}

/// The text that [`write_spec`] writes; errors name the file `-`.
///
/// # Errors
/// [`WriteError`], but none of a file.
pub fn encode_spec(spec: &Spec, format: Format) -> Result<String, WriteError> {
    encode(spec, Path::new("-"), format)
}

fn encode(spec: &Spec, path: &Path, format: Format) -> Result<String, WriteError> {
    let path = || path.to_path_buf();
    spec.validate().map_err(|source| WriteError::Invalid {
        path: path(),
        source,
    })?;
    let edits = spec.devices.iter().map(|device| &device.container_edits);
    let mut nodes = edits
        .chain([&spec.container_edits])
        .flat_map(|edits| &edits.device_nodes);
    if let Some(node) = nodes.find(|node| node.permissions.as_deref() == Some("none")) {
        return Err(WriteError::NoPermissions {
            path: path(),
            device: node.path.clone(),
        });
    }
    let failed = |source| WriteError::Encode {
        path: path(),
        source,
    };
    match format {
        Format::Json => serde_json::to_string_pretty(spec)
            .map(|text| text + "\n")
            .map_err(failed),
        Format::Yaml => serde_json::to_value(spec)
            .map(|value| emit::yaml(&value))
            .map_err(failed),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    let (mut file, temporary) = temporary(dir)?;
    let mut written = || -> io::Result<()> {
        file.write_all(bytes)?;
        // Whatever the umask: engines run as other users, too.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    written().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Tries before giving up on a free name.
const TRIES: u32 = 100;

/// A new file beside the target, by a name that no reader of the directory takes for a spec.
fn temporary(dir: &Path) -> io::Result<(fs::File, PathBuf)> {
    let mut taken = io::Error::from(ErrorKind::AlreadyExists);
    for number in 0..TRIES {
        let path = dir.join(format!("spec.{}-{number}.tmp", std::process::id()));
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match opened {
            Ok(file) => return Ok((file, path)),
            Err(err) if err.kind() == ErrorKind::AlreadyExists => taken = err,
            Err(err) => return Err(err),
        }
    }
    Err(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use crate::file::read_spec;
    use crate::model::DeviceNode;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir =
                std::env::temp_dir().join(format!("fleet-write-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&dir));
            Self(dir)
        }

        fn names(&self) -> Vec<std::ffi::OsString> {
            let mut names: Vec<_> = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = Dir::new("round");
        let spec = Dice::new(3).spec();
        for (name, format, start) in [
            ("x.json", Format::Json, "{"),
            ("x.yaml", Format::Yaml, "---\n"),
        ] {
            let path = dir.0.join("sub").join(name);
            write_spec(&Dice::new(4).spec(), &path, format).unwrap();
            write_spec(&spec, &path, format).unwrap();
            assert_eq!(read_spec(&path).unwrap(), spec);
            assert!(fs::read_to_string(&path).unwrap().starts_with(start));
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o644);
        }
        let names = Dir(dir.0.join("sub")).names();
        assert_eq!(names, ["x.json", "x.yaml"], "no temporary file stays");
    }

    #[test]
    fn a_link_is_replaced_not_followed() {
        let dir = Dir::new("link");
        fs::create_dir_all(&dir.0).unwrap();
        let (target, path) = (dir.0.join("target"), dir.0.join("x.json"));
        fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        write_spec(&Dice::new(5).spec(), &path, Format::Json).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn what_nobody_could_read_is_not_written() {
        let dir = Dir::new("refused");
        let path = dir.0.join("x.json");
        let good = Dice::new(6).spec();
        let node = DeviceNode {
            path: "/dev/x".to_owned(),
            permissions: Some("none".to_owned()),
            ..DeviceNode::default()
        };
        let mut none = good.clone();
        none.devices[0].container_edits.device_nodes.push(node);
        let low = Spec {
            cdi_version: "0.4.0".to_owned(),
            ..good.clone()
        };
        for (spec, word) in [
            (&low, "at least v"),
            (&none, "\"none\""),
            (&Spec::default(), "invalid version"),
        ] {
            let err = write_spec(spec, &path, Format::Json).unwrap_err();
            let err = err.to_string();
            assert!(err.contains(word) && err.contains("x.json"), "{err}");
        }
        assert!(!dir.0.exists());
        fs::create_dir_all(dir.0.join("x.json/full")).unwrap();
        let err = write_spec(&good, &path, Format::Json).unwrap_err();
        assert!(err.to_string().contains("errno 21"), "{err}");
        assert_eq!(dir.names(), ["x.json"], "no temporary file stays");
    }
}
