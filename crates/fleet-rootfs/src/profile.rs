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
        .filter(|(name, _)| is_gpu(name))
        .filter_map(|(name, _)| minor(root, name));
    let mask = minors.fold(0_u64, |mask, minor| mask | (1 << minor));
    if mask == 0 {
        done.notes
            .push("no GPU node in /dev: the application profile is left as it is".to_owned());
        return Ok(());
    }
    write(root, mask).map_err(|err| ApplyError::io("write", &format!("{DIRECTORY}/{NAME}"), &err))
}

/// The node's own number, since a CDI spec may give it another name in the container. In a user namespace nodes are
/// bound over empty files, which is what the directory tells of them.
fn minor(root: &Root<'_>, name: &str) -> Option<u32> {
    let stat = root.stat(&format!("/dev/{name}")).ok()?;
    let is_node = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Some(rustix::fs::minor(stat.st_rdev)).filter(|minor| is_node && *minor < 64)
}

fn write(root: &Root<'_>, mask: u64) -> io::Result<()> {
    root.make_directory("/etc/nvidia", 0o755)?;
    root.make_directory(DIRECTORY, 0o555)?;
    root.replace(&format!("{DIRECTORY}/{NAME}"), text(mask).as_bytes(), 0o444)
}

/// `nvidia3` is; control nodes have no number of their own.
fn is_gpu(name: &str) -> bool {
    let digits = name.strip_prefix("nvidia").unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The driver's reader takes hexadecimal numbers; this is the toolkit's text to the byte.
fn text(mask: u64) -> String {
    format!(
        r#"{{"profiles":[{{"name":"_container_","settings":["EGLVisibleDGPUDevices",{mask:#x}]}}],"rules":[{{"pattern":[],"profile":"_container_"}}]}}"#
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
            ("nvidia0", true),
            ("nvidia64", true),
            ("nvidiactl", false),
            ("nvidia-uvm", false),
            ("nvidia", false),
            ("nvidia+1", false),
        ] {
            assert_eq!(is_gpu(name), want, "{name}");
        }
    }

    #[test]
    fn nodes_become_a_mask() {
        let tree = Tree::new("profile");
        tree.write("dev/nvidia2", "not a node");
        // The second is the host's fourth GPU by another name; no driver has numbers as high as the third's.
        for (name, minor) in [
            ("nvidia1", 1),
            ("nvidia0", 3),
            ("nvidia5", 64),
            ("nvidiactl", 255),
        ] {
            let path = tree.path.join("dev").join(name);
            if let Err(err) = mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(195, minor)) {
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
