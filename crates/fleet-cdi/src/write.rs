//! Writing a spec: validated, in one step, with a mode that engines of every user can read.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::model::Spec;

/// A spec that was not written; an older file is untouched.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It would not be read again.
    #[error("CDI spec is invalid: {0}")]
    Invalid(String),
    /// The file could not be made.
    #[error("write {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Writes `spec` as JSON to `path`, making the directory when missing.
///
/// # Errors
/// [`WriteError`]; nothing half-written is left.
pub fn write_spec(spec: &Spec, path: &Path) -> Result<(), WriteError> {
    spec.validate().map_err(WriteError::Invalid)?;
    let failed = |source| WriteError::Io {
        path: path.to_path_buf(),
        source,
    };
    let text =
        serde_json::to_string_pretty(spec).map_err(|err| WriteError::Invalid(err.to_string()))?;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    // Not named .json: a reader of the directory must not see half of it.
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Format, parse, read_spec};

    #[test]
    fn what_is_written_is_read() {
        let text = r#"{"cdiVersion":"1.1.0","kind":"v/c","annotations":{"a":"b"},"containerEdits":{"env":["A=1"],"additionalGids":[4]},
            "devices":[{"name":"d","containerEdits":{"deviceNodes":[{"path":"/dev/x","hostPath":"/h/x","type":"c","major":1,"minor":2,"fileMode":438,"permissions":"rw","uid":1,"gid":2}],
            "mounts":[{"hostPath":"/a","containerPath":"/b","type":"bind","options":["ro"]}],"hooks":[{"hookName":"prestart","path":"/p","args":["p"],"env":["E=f"],"timeout":3}],
            "intelRdt":{"closID":"x","schemata":["s"],"enableMonitoring":true},"netDevices":[{"hostInterfaceName":"a","name":"b"}]}}]}"#;
        let spec = parse(text.as_bytes(), Format::Json).unwrap();
        let path = std::env::temp_dir().join(format!("fleet-write-{}/x.json", std::process::id()));
        write_spec(&spec, &path).unwrap();
        assert_eq!(read_spec(&path).unwrap(), spec);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert!(write_spec(&Spec::default(), &path).is_err() && !path.exists());
    }
}
