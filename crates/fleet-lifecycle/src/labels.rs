//! Labels of security modules for the program to be executed.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// A label that cannot be set. Podman recognises the class by the path in back quotes.
#[derive(Debug, thiserror::Error)]
#[error("write label `{label}` to `{path}`: {}", crate::error::errno_text(.source))]
pub struct LabelError {
    label: String,
    path: &'static str,
    source: io::Error,
}

const SELINUX: &str = "/proc/thread-self/attr/exec";
const APPARMOR: &str = "/proc/thread-self/attr/apparmor/exec";

/// Sets the labels for the next `execve`. A module that the kernel lacks is skipped, as with the peers: engines
/// write labels for a whole fleet.
///
/// # Errors
/// [`LabelError`] when an active module refuses the label.
pub fn apply(selinux: Option<&str>, apparmor: Option<&str>) -> Result<(), LabelError> {
    if let Some(label) = selinux.filter(|_| selinux_active()) {
        write(SELINUX, label, label)?;
    }
    if let Some(profile) = apparmor.filter(|profile| *profile != "unconfined" && apparmor_active())
    {
        let path = if Path::new(APPARMOR).exists() {
            APPARMOR
        } else {
            SELINUX
        };
        write(path, &format!("exec {profile}"), profile)?;
    }
    Ok(())
}

/// `attr/current` of a kernel with SELinux holds a context with colons; without a module it cannot be read.
fn selinux_active() -> bool {
    std::fs::read_to_string("/proc/thread-self/attr/current")
        .is_ok_and(|label| label.matches(':').count() >= 2)
}

fn apparmor_active() -> bool {
    Path::new(APPARMOR).exists()
        || std::fs::read_to_string("/proc/thread-self/attr/current")
            .is_ok_and(|label| label.trim_end().ends_with(')') || label.trim_end() == "unconfined")
}

fn write(path: &'static str, text: &str, label: &str) -> Result<(), LabelError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| LabelError {
            label: label.to_owned(),
            path,
            source,
        })
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_asked_nothing_done() {
        super::apply(None, None).unwrap();
        super::apply(None, Some("unconfined")).unwrap();
    }
}
