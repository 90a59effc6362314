//! Connecting to `--console-socket`, whose path may be longer than a socket address holds.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::error::{Context, Error, Result};

/// Bytes of `sun_path` (`man 7 unix`), less the final NUL.
const MAX: usize = 107;

/// Connects to the engine's socket.
///
/// # Errors
/// The path, when nobody listens there.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    connect_to("console socket", path)
}

/// [`connect`] for another socket of the engine's; `what` names it in errors.
///
/// # Errors
/// The path, when nobody listens there.
pub fn connect_to(what: &str, path: &Path) -> Result<OwnedFd> {
    let failed = || format!("connect to {what} `{}`", path.display());
    if path.as_os_str().len() <= MAX {
        return Ok(UnixStream::connect(path).op(failed)?.into());
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::Invalid(format!(
            "{what} `{}` is not a path of a socket",
            path.display()
        )));
    };
    let directory = File::open(parent).op(failed)?;
    let short = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    Ok(UnixStream::connect(short).op(failed)?.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn long_paths_connect() {
        let base = std::env::temp_dir().join(format!("fleet-console-{}", std::process::id()));
        let dir = base.join("x".repeat(120));
        std::fs::create_dir_all(&dir).unwrap();
        let handle = File::open(&dir).unwrap();
        let short = format!("/proc/self/fd/{}/s", handle.as_raw_fd());
        let _listener = UnixListener::bind(short).unwrap();
        connect(&dir.join("s")).unwrap();
        assert!(
            connect(&dir.join("none"))
                .unwrap_err()
                .to_string()
                .contains("console socket")
        );
        std::fs::remove_dir_all(base).unwrap();
    }
}
