//! Finding and executing the user's program, inside the container.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess};

use crate::sys::tail;

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that cannot be run. Engines turn the words into exit codes 126 and 127.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Exit code 127 at the engine.
    #[error("executable file `{name}` not found{place}: No such file or directory", place = if .name.contains('/') { "" } else { " in $PATH" })]
    Missing {
        /// As in `process.args`.
        name: String,
    },
    /// Exit code 126 at the engine.
    #[error("open executable: `{0}` is a directory: permission denied")]
    Directory(String),
    /// Exit code 126 at the engine.
    #[error("open executable: `{0}`: permission denied")]
    Denied(String),
}

/// Looks `name` up as `execvp` does, with the `PATH` of the program's own environment.
///
/// # Errors
/// [`ProgramError`].
pub fn resolve(name: &str, env: &[String]) -> Result<PathBuf, ProgramError> {
    if name.is_empty() {
        return Err(ProgramError::Missing {
            name: String::new(),
        });
    }
    if name.contains('/') {
        return usable(Path::new(name), name);
    }
    let path = env
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let mut denied = None;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        match usable(&Path::new(dir).join(name), name) {
            Ok(found) => return Ok(found),
            Err(err @ ProgramError::Denied(_)) => denied = Some(err),
            Err(_) => {}
        }
    }
    Err(denied.unwrap_or_else(|| ProgramError::Missing {
        name: name.to_owned(),
    }))
}

fn usable(path: &Path, name: &str) -> Result<PathBuf, ProgramError> {
    let shown = || name.to_owned();
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
            return Err(ProgramError::Denied(shown()));
        }
        Err(_) => return Err(ProgramError::Missing { name: shown() }),
    };
    if meta.is_dir() {
        return Err(ProgramError::Directory(shown()));
    }
    // A file without any x bit is refused by the kernel even with CAP_DAC_OVERRIDE.
    let executable =
        meta.permissions().mode() & 0o111 != 0 && eaccess(path, AccessFlags::X_OK).is_ok();
    if executable {
        Ok(path.to_path_buf())
    } else {
        Err(ProgramError::Denied(shown()))
    }
}

/// Replaces this process; order and duplicates of the environment are kept. Returns only the cause of a failure.
#[must_use]
pub fn exec(path: &Path, args: &[String], env: &[String]) -> io::Error {
    let strings = |list: &[String]| -> Vec<CString> {
        list.iter()
            .filter_map(|s| CString::new(s.as_str()).ok())
            .collect()
    };
    match CString::new(path.as_os_str().as_bytes()) {
        Ok(path) => tail::exec(&path, &strings(args), &strings(env)),
        Err(_) => io::Error::from_raw_os_error(libc::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, path: &str) -> String {
        resolve(name, &[format!("PATH={path}")])
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn finds_by_path_variable() {
        assert_eq!(
            resolve("sh", &["PATH=/nowhere:/bin".into()]).unwrap(),
            Path::new("/bin/sh")
        );
        assert!(resolve("sh", &[]).is_ok(), "default PATH");
        assert_eq!(resolve("/bin/sh", &[]).unwrap(), Path::new("/bin/sh"));
    }

    #[test]
    fn words_that_engines_look_for() {
        assert!(
            message("nope", "/bin")
                .contains("executable file `nope` not found in $PATH: No such file or directory")
        );
        assert!(
            message("/no/such", "/bin")
                .contains("executable file `/no/such` not found: No such file or directory")
        );
        let directory = message("/tmp", "/bin");
        assert!(directory.contains("is a directory") && directory.contains("permission denied"));
        assert!(message("/etc/passwd", "/bin").contains("permission denied"));
        assert!(message("", "/bin").contains("not found"));
    }
}
