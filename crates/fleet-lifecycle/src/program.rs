//! Finding and executing the user's program, inside the container.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, eaccess, faccessat};

use crate::sys::tail;

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that cannot be run. Engines turn the words into exit codes 126 and 127.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Exit code 127 at the engine.
    #[error("executable file `{name}` not found{place}: no such file or directory", place = if .name.contains('/') { "" } else { " in $PATH" })]
    Missing {
        /// As in `process.args`.
        name: String,
    },
    /// Exit code 126 at the engine.
    #[error("open executable: `{0}` is a directory: permission denied")]
    Directory(String),
    /// Exit code 126 at the engine.
    #[error("open executable: `{name}`: permission denied{hint}", hint = .cause.hint())]
    Denied {
        /// As in `process.args`.
        name: String,
        /// What the user can change.
        cause: Denial,
    },
}

/// Why a program that is there cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The user may not, for the owner and mode of the file or of a directory above it.
    User,
    /// No one may: the file has no execute permission at all.
    Mode,
    /// No file of its mount may be executed (`man 8 mount`, `noexec`).
    Mount,
}

impl Denial {
    fn of(path: &Path, meta: &fs::Metadata) -> Self {
        let noexec = statvfs(path).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_NOEXEC));
        match meta.permissions().mode() & 0o111 {
            _ if noexec => Self::Mount,
            0 => Self::Mode,
            _ => Self::User,
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::User => "",
            Self::Mode => "; hint: the file has no execute permission, chmod +x it in the image",
            Self::Mount => {
                "; hint: its file system is mounted noexec, put the container's files on another one"
            }
        }
    }
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
            Err(err @ ProgramError::Denied { .. }) => denied = Some(err),
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
            return Err(ProgramError::Denied {
                name: shown(),
                cause: Denial::User,
            });
        }
        Err(_) => return Err(ProgramError::Missing { name: shown() }),
    };
    if meta.is_dir() {
        return Err(ProgramError::Directory(shown()));
    }
    // A file without any x bit is refused by the kernel even with CAP_DAC_OVERRIDE.
    let executable = meta.permissions().mode() & 0o111 != 0 && allowed(path);
    if executable {
        Ok(path.to_path_buf())
    } else {
        Err(ProgramError::Denied {
            name: shown(),
            cause: Denial::of(path, &meta),
        })
    }
}

/// With the effective capabilities. glibc's `eaccess` asks with none where real and effective user are the same, which is
/// enough where a system call filter around us does not know the newer call.
fn allowed(path: &Path) -> bool {
    let (mode, flags) = (AccessFlags::X_OK, AtFlags::AT_EACCESS);
    faccessat(None, path, mode, flags).is_ok() || eaccess(path, mode).is_ok()
}

/// Replaces this process; order and duplicates of the environment are kept. Returns only the cause of a failure.
#[must_use]
pub fn exec(path: &Path, args: &[String], env: &[String]) -> io::Error {
    let strings = |list: &[String]| -> Result<Vec<CString>, std::ffi::NulError> {
        list.iter().map(|s| CString::new(s.as_str())).collect()
    };
    let path = CString::new(path.as_os_str().as_bytes());
    match (path, strings(args), strings(env)) {
        (Ok(path), Ok(args), Ok(env)) => tail::exec(&path, &args, &env),
        // A string that ends early would be another string.
        _ => io::Error::from_raw_os_error(libc::EINVAL),
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
                .contains("executable file `nope` not found in $PATH: no such file or directory")
        );
        assert!(
            message("/no/such", "/bin")
                .contains("executable file `/no/such` not found: no such file or directory")
        );
        let directory = message("/tmp", "/bin");
        assert!(directory.contains("is a directory") && directory.contains("permission denied"));
        assert!(message("/etc/passwd", "/bin").contains("permission denied"));
        assert!(message("", "/bin").contains("not found"));
    }
    #[test]
    fn the_first_usable_entry_of_path_wins() {
        let base = std::env::temp_dir().join(format!("fleet-program-{}", std::process::id()));
        for (dir, mode) in [("plain", 0o644), ("good", 0o755), ("later", 0o755)] {
            fs::create_dir_all(base.join(dir)).unwrap();
            fs::write(base.join(dir).join("tool"), "#!/bin/sh\n").unwrap();
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(base.join(dir).join("tool"), mode).unwrap();
        }
        fs::create_dir_all(base.join("directory/tool")).unwrap();
        let path = |dirs: &[&str]| -> String {
            let dirs: Vec<String> = dirs
                .iter()
                .map(|d| base.join(d).display().to_string())
                .collect();
            format!("PATH={}", dirs.join(":"))
        };
        let all = path(&["none", "directory", "plain", "good", "later"]);
        assert_eq!(resolve("tool", &[all]).unwrap(), base.join("good/tool"));
        let twice = [path(&["good"]), path(&["later"])];
        assert_eq!(
            resolve("tool", &twice).unwrap(),
            base.join("good/tool"),
            "the first PATH"
        );
        let err = resolve("tool", &[path(&["none", "plain"])])
            .unwrap_err()
            .to_string();
        assert_eq!(
            err,
            "open executable: `tool`: permission denied; hint: the file has no execute permission, chmod +x it in the image"
        );
        let err = resolve("tool", &[path(&["directory"])])
            .unwrap_err()
            .to_string();
        assert!(err.contains("not found in $PATH: no such file"), "{err}");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn strings_with_nul_are_not_cut_short() {
        let list = |s: &str| vec![s.to_owned()];
        for (path, args, env) in [
            ("/bin/tr\0ue", list("true"), list("A=b")),
            ("/bin/true", list("tr\0ue"), list("A=b")),
            ("/bin/true", list("true"), list("A=\0b")),
        ] {
            let err = exec(Path::new(path), &args, &env);
            assert_eq!(err.raw_os_error(), Some(libc::EINVAL));
        }
    }

    #[test]
    fn environment_keeps_order_and_duplicates() {
        if crate::signal::alone::alone(module_path!(), "environment_keeps_order_and_duplicates") {
            let script =
                r#"[ "$(tr '\0' ' ' < /proc/$$/environ)" = 'B=1 A=2 B=3 ' ] && echo "1 passed""#;
            let args = ["sh", "-c", script].map(str::to_owned);
            let err = exec(
                Path::new("/bin/sh"),
                &args,
                &["B=1", "A=2", "B=3"].map(str::to_owned),
            );
            panic!("{err}");
        }
    }
}
