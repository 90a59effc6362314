//! `disable-device-node-modification`: the driver's parameters read `ModifyDeviceFiles: 0` in the container, so that
//! `nvidia-smi` and others do not try to make nodes that the device rules deny.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use nix::fcntl::OFlag;

use crate::root::Root;
use crate::sys::{bind_read_only, detached_tmpfs, open_in_root};
use crate::{Applied, ApplyError};

const PATH: &str = "/proc/driver/nvidia/params";
/// The file has a few lines.
const LIMIT: u64 = 64 * 1024;

/// Puts a changed copy over the parameters; without a driver there is nothing to do.
pub(crate) fn disable(root: &Root<'_>, done: &mut Applied) -> Result<(), ApplyError> {
    let Ok(target) = root.open(PATH, OFlag::O_PATH) else {
        return Ok(());
    };
    let Ok(bytes) = root.read(PATH, LIMIT) else {
        done.notes
            .push(format!("{PATH} cannot be read: left as it is"));
        return Ok(());
    };
    let Some(changed) = changed(&String::from_utf8_lossy(&bytes)) else {
        return Ok(());
    };
    let failed = |err: std::io::Error| ApplyError::new("replace", PATH, &err);
    let memory = detached_tmpfs().map_err(failed)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let mut file =
        File::from(open_in_root(memory.as_fd(), c"params", flags.bits(), 0o444).map_err(failed)?);
    file.write_all(changed.as_bytes()).map_err(failed)?;
    match bind_read_only(file.as_fd(), target.as_fd()) {
        // Kernels before 6.15 do not clone a part of a detached mount. Device rules deny foreign nodes all the same, so
        // the container starts.
        Err(err) if err.raw_os_error() == Some(libc::EINVAL) => {
            done.notes.push(format!(
                "{PATH} cannot be covered on this kernel: left as it is"
            ));
            Ok(())
        }
        other => other.map_err(failed),
    }
}

/// The text with the setting off, or nothing when it is off already.
fn changed(text: &str) -> Option<String> {
    const ON: &str = "ModifyDeviceFiles: 1";
    let lines = text.lines().map(|line| {
        if line == ON {
            "ModifyDeviceFiles: 0"
        } else {
            line
        }
    });
    text.lines()
        .any(|line| line == ON)
        .then(|| lines.map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_changes() {
        assert_eq!(
            changed("A: 1\nModifyDeviceFiles: 1\nB: 2\n").unwrap(),
            "A: 1\nModifyDeviceFiles: 0\nB: 2\n"
        );
        assert_eq!(changed("ModifyDeviceFiles: 0\n"), None);
        assert_eq!(changed("XModifyDeviceFiles: 1\n"), None);
    }
}
