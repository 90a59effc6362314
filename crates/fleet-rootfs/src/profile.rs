//! `update-application-profile`: EGL and Vulkan enumerate the GPUs of a mask; here, those that the container has.

use std::io;

use crate::root::{FileType, Root};
use crate::{Applied, ApplyError};

const DIRECTORY: &str = "/etc/nvidia/nvidia-application-profiles-rc.d";
const NAME: &str = "10-container.conf";

/// Writes the profile for the `nvidia<N>` nodes of the container's `/dev`.
pub(crate) fn update(root: &Root<'_>, done: &mut Applied) -> Result<(), ApplyError> {
    let Ok(entries) = root.directory("/dev").and_then(|dev| dev.entries()) else {
        return Ok(());
    };
    let minors = entries
        .iter()
        .filter_map(|(name, _)| minor(name).filter(|_| is_node(root, name)));
    let mask = minors.fold(0_u64, |mask, minor| mask | (1 << minor));
    if mask == 0 {
        done.notes
            .push("no GPU node in /dev: the application profile is left as it is".to_owned());
        return Ok(());
    }
    write(root, mask).map_err(|err| ApplyError::io("write", &format!("{DIRECTORY}/{NAME}"), &err))
}

/// In a user namespace nodes are bound over empty files, which is what the directory tells of them.
fn is_node(root: &Root<'_>, name: &str) -> bool {
    let stat = root.stat(&format!("/dev/{name}"));
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice)
}

fn write(root: &Root<'_>, mask: u64) -> io::Result<()> {
    root.make_directory("/etc/nvidia", 0o755)?;
    root.make_directory(DIRECTORY, 0o555)?;
    root.replace(&format!("{DIRECTORY}/{NAME}"), text(mask).as_bytes(), 0o444)
}

/// `nvidia3` is 3; control nodes have no number of their own.
fn minor(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("nvidia")?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|minor| plain && *minor < 64)
}

fn text(mask: u64) -> String {
    format!(
        "{{\n    \"profiles\": [{{\"name\": \"_container_\", \"settings\": [\"EGLVisibleDGPUDevices\", {mask:#x}]}}],\n    \
         \"rules\": [{{\"pattern\": [], \"profile\": \"_container_\"}}]\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use nix::sys::stat::{Mode, SFlag, makedev, mknod};

    use super::*;
    use crate::root::tests::Tree;

    #[test]
    fn only_numbered_nodes_count() {
        for (name, want) in [
            ("nvidia0", Some(0)),
            ("nvidia63", Some(63)),
            ("nvidia64", None),
            ("nvidiactl", None),
            ("nvidia-uvm", None),
            ("nvidia", None),
            ("nvidia+1", None),
        ] {
            assert_eq!(minor(name), want, "{name}");
        }
    }

    #[test]
    fn nodes_become_a_mask() {
        let tree = Tree::new("profile");
        tree.write("dev/nvidia2", "not a node");
        for name in ["nvidia1", "nvidia3", "nvidiactl"] {
            let path = tree.path.join("dev").join(name);
            if let Err(err) = mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)) {
                println!("SKIP nodes_become_a_mask: {err}");
                return;
            }
        }
        for root in tree.roots() {
            update(&root, &mut Applied::default()).unwrap();
            let path = format!("{DIRECTORY}/{NAME}");
            let profile: serde_json::Value =
                serde_json::from_str(&tree.read(&path).replace("0xa", "10")).unwrap();
            assert_eq!(profile["profiles"][0]["settings"][1], 10);
            for (path, want) in [(path.as_str(), 0o444), (DIRECTORY, 0o555)] {
                let meta = std::fs::metadata(tree.path.join(path.trim_start_matches('/'))).unwrap();
                assert_eq!(meta.permissions().mode() & 0o7777, want, "{path}");
            }
        }
    }

    #[test]
    fn without_nodes_nothing_is_written() {
        let tree = Tree::new("profile-none");
        tree.write("dev/nvidia0", "not a node");
        let mut done = Applied::default();
        update(&tree.root(), &mut done).unwrap();
        assert!(!tree.root().exists("/etc") && done.notes.len() == 1);
    }
}
