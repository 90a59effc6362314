//! Where containers and their state lie.

use std::path::{Path, PathBuf};

use crate::doctor::check::{Check, Finding, Node, Outcome, absent, outcome};
use crate::toml_file::TomlFile;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "state",
        run: state,
    },
    Check {
        name: "storage",
        run: storage,
    },
];

/// Bytes below which images of AI frameworks surely do not fit.
const LITTLE: u64 = 5 << 30;

/// State that survives a reboot would speak of processes that do not exist.
fn state(node: &Node<'_>) -> Outcome {
    let Some(mounts) = node.read("/proc/self/mountinfo")? else {
        return absent("nothing is mounted in this root");
    };
    let kind = file_system(&mounts, "/run");
    let findings = match kind {
        Some("tmpfs" | "ramfs") | None => Vec::new(),
        Some(other) => vec![Finding::warning(
            format!("/run is on {other}: the state of containers survives a reboot there"),
            "mount a tmpfs at /run",
        )],
    };
    outcome(findings, "/run is in memory")
}

/// Type of the file system that holds a path (`man 5 proc_pid_mountinfo`).
fn file_system<'m>(mounts: &'m str, path: &str) -> Option<&'m str> {
    let holds =
        |point: &str| point == "/" || path == point || path.starts_with(&format!("{point}/"));
    let all = mounts.lines().filter_map(|line| {
        let point = line.split(' ').nth(4)?;
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        holds(point).then_some((point.len(), kind))
    });
    // Of two mounts at one place the later one is seen.
    all.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

fn storage(node: &Node<'_>) -> Outcome {
    if !node.has_program("podman") {
        return absent("Podman is not installed");
    }
    let files = [
        "/usr/share/containers/storage.conf",
        "/etc/containers/storage.conf",
    ];
    let mut driver = None;
    let mut root = PathBuf::from("/var/lib/containers/storage");
    let mut place = String::new();
    for path in files {
        let file = match TomlFile::read(node.files, Path::new(path)) {
            Ok(file) => file,
            Err(err) => {
                let finding = Finding::error(
                    format!("{err}: no engine of this family starts"),
                    "repair that line",
                );
                return outcome(vec![finding], "");
            }
        };
        let Some(file) = file else { continue };
        if let Some(name) = file.text(&["storage", "driver"]) {
            place = file.at(&["storage", "driver"]);
            driver = Some(name.to_owned());
        }
        if let Some(dir) = file.text(&["storage", "graphroot"]) {
            root = PathBuf::from(dir);
        }
    }
    let mut findings = Vec::new();
    if driver.as_deref() == Some("vfs") {
        findings.push(Finding::warning(
            format!("{place} sets the driver vfs: each container copies its image"),
            "driver = \"overlay\"; existing containers are not carried over",
        ));
    }
    if let Some(free) = (node.space)(&root).filter(|free| *free < LITTLE) {
        findings.push(Finding::warning(
            format!(
                "{} has {} MiB left; GPU images are larger",
                root.display(),
                free >> 20
            ),
            "podman system prune, or a larger file system",
        ));
    }
    let driver = driver.unwrap_or_else(|| "overlay".to_owned());
    outcome(findings, format!("{driver} in {}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_holds_a_path() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:20 / /run rw shared:2 - tmpfs tmpfs rw\n3 1 0:21 / /runner rw - xfs x rw\n";
        assert_eq!(file_system(mounts, "/run/x"), Some("tmpfs"));
        assert_eq!(file_system(mounts, "/run"), Some("tmpfs"));
        assert_eq!(file_system(mounts, "/home"), Some("ext4"));
        assert_eq!(file_system("", "/run"), None);
    }
}
