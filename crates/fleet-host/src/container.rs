//! The container that another runtime runs a hook for (`runtime-spec runtime.md#state`).

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fleet_inject::io_cause;
use nix::fcntl::OFlag;
use serde_json::Value;

/// Largest state or spec that is read, bytes; annotations of a pod may take some hundred kilobytes.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Why a hook has no container to work on.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// What was handed over is no state.
    #[error("the container's state cannot be read: {0}")]
    State(String),
    /// The bundle's spec is needed and cannot be had.
    #[error(
        "spec {path} {cause}; hint: the runtime's state names no root, and its bundle must be readable by the user of the hook"
    )]
    Spec {
        /// The file.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The root directory cannot be opened.
    #[error("root of the container {path} {cause}")]
    Root {
        /// The directory, as the runtime names it.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// A container whose mounts are made and whose root is not changed yet.
#[derive(Debug)]
pub struct Container {
    state: Value,
}

impl Container {
    /// Reads the OCI state that the runtime hands over, usually on stdin.
    ///
    /// # Errors
    /// It is too large or no JSON object.
    pub fn read(state: impl Read) -> Result<Self, StateError> {
        let state = read_object(state).map_err(StateError::State)?;
        Ok(Self { state })
    }

    /// The root directory, as this process sees it: its path is the runtime's, not the container's.
    ///
    /// # Errors
    /// The state and the spec name none, or it is the host's.
    pub fn root(&self) -> Result<File, StateError> {
        let path = self.root_path()?;
        let failed = |cause: String| StateError::Root {
            path: path.display().to_string(),
            cause,
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let root = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(&path);
        let root = root.map_err(|err| failed(io_cause(&err)))?;
        let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let ours = fs::metadata("/").map(id);
        match (root.metadata().map(id), ours) {
            (Ok(theirs), Ok(ours)) if theirs != ours => Ok(root),
            _ => Err(failed("is that of the host".to_owned())),
        }
    }

    /// The state's own `root`, which crun sends, or that of the spec.
    fn root_path(&self) -> Result<PathBuf, StateError> {
        let bundle = self.bundle()?;
        let named = self
            .state
            .get("root")
            .and_then(Value::as_str)
            .filter(|path| !path.is_empty());
        if let Some(path) = named {
            return Ok(bundle.join(path));
        }
        let spec = self.spec()?;
        let path = spec
            .pointer("/root/path")
            .and_then(Value::as_str)
            .filter(|path| !path.is_empty());
        path.map(|path| bundle.join(path))
            .ok_or_else(|| StateError::Spec {
                path: bundle.join("config.json").display().to_string(),
                cause: "has no root".to_owned(),
            })
    }

    /// The environment of the container's process, as the bundle's spec has it.
    ///
    /// # Errors
    /// The spec cannot be read.
    pub fn env(&self) -> Result<Vec<String>, StateError> {
        let spec = self.spec()?;
        let env = spec.pointer("/process/env").and_then(Value::as_array);
        let texts = env.into_iter().flatten().filter_map(Value::as_str);
        Ok(texts.map(str::to_owned).collect())
    }

    fn bundle(&self) -> Result<&Path, StateError> {
        let bundle = self
            .state
            .get("bundle")
            .and_then(Value::as_str)
            .map(Path::new);
        let bundle = bundle.filter(|bundle| bundle.is_absolute());
        bundle.ok_or_else(|| StateError::State("it names no bundle by an absolute path".to_owned()))
    }

    fn spec(&self) -> Result<Value, StateError> {
        let path = self.bundle()?.join("config.json");
        let spec = File::open(&path)
            .map_err(|err| io_cause(&err))
            .and_then(read_object);
        spec.map_err(|cause| StateError::Spec {
            path: path.display().to_string(),
            cause,
        })
    }
}

/// Reads one JSON object of at most 16 MiB: a state or a spec.
///
/// # Errors
/// The cause, in words that no engine takes for a missing command.
pub fn read_object(source: impl Read) -> Result<Value, String> {
    let mut bytes = Vec::new();
    let read = source.take(LIMIT + 1).read_to_end(&mut bytes);
    if read.map_err(|err| io_cause(&err))? as u64 > LIMIT {
        return Err(format!("is larger than {LIMIT} bytes"));
    }
    match serde_json::from_slice(&bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("is not a JSON object".to_owned()),
        Err(err) => Err(format!("is not JSON: {err}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(state: &Value) -> Container {
        Container::read(state.to_string().as_bytes()).unwrap()
    }

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn the_states_root_goes_before_the_specs() {
        let bundle = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir(bundle.path().join(name)).unwrap();
        }
        let spec = json!({"root": {"path": "a"}, "process": {"env": ["A=1", 5]}});
        fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
        let absolute = bundle.path().join("b").display().to_string();
        for (root, want) in [
            (json!(null), "a"),
            (json!(""), "a"),
            (json!("b"), "b"),
            (json!(absolute), "b"),
        ] {
            let found = container(&json!({"bundle": bundle.path(), "root": root}));
            let root = found.root().unwrap().metadata().unwrap().ino();
            assert_eq!(root, inode(&bundle.path().join(want)), "{found:?}");
            assert_eq!(found.env().unwrap(), ["A=1"]);
        }
    }

    #[test]
    fn refused() {
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join("file"), "").unwrap();
        let here = bundle.path();
        for (state, word) in [
            (json!({}), "no bundle"),
            (json!({"bundle": "relative"}), "no bundle"),
            (json!({"bundle": here}), "is missing; hint:"),
            (json!({"bundle": here, "root": "/"}), "that of the host"),
            (
                json!({"bundle": here, "root": "../../../../../../.."}),
                "that of the host",
            ),
            (json!({"bundle": here, "root": "file"}), "errno 20"),
            (json!({"bundle": here, "root": "none"}), "is missing"),
        ] {
            let err = container(&state).root().unwrap_err().to_string();
            assert!(err.contains(word), "{state}: {err}");
        }
        for (text, word) in [
            ("", "is not JSON"),
            ("[]", "is not a JSON object"),
            ("{", "is not JSON"),
        ] {
            let err = Container::read(text.as_bytes()).unwrap_err().to_string();
            assert!(err.contains(word), "{text}: {err}");
        }
        let endless = std::io::repeat(b' ');
        assert!(
            Container::read(endless)
                .unwrap_err()
                .to_string()
                .contains("larger")
        );
    }

    #[test]
    fn a_spec_without_root_is_named() {
        let bundle = tempfile::tempdir().unwrap();
        for text in ["{}", r#"{"root": {"path": ""}}"#] {
            fs::write(bundle.path().join("config.json"), text).unwrap();
            let err = container(&json!({"bundle": bundle.path()}))
                .root()
                .unwrap_err();
            assert!(err.to_string().contains("config.json has no root"), "{err}");
        }
    }
}
