//! `update-application-profile`: EGL and Vulkan enumerate the GPUs of a mask; here, those that the container has.

use nix::sys::stat::SFlag;

use crate::root::Root;
use crate::{Applied, ApplyError};

const PATH: &str = "/etc/nvidia/nvidia-application-profiles-rc.d/10-container.conf";

/// Writes the profile for the `nvidia<N>` nodes of the container's `/dev`.
pub(crate) fn update(root: &Root<'_>, done: &mut Applied) -> Result<(), ApplyError> {
    let Ok(entries) = root.list("/dev") else {
        return Ok(());
    };
    let mask = entries
        .iter()
        .filter(|(_, kind)| *kind == SFlag::S_IFCHR || *kind == SFlag::S_IFREG)
        .filter_map(|(name, _)| minor(name))
        .fold(0_u64, |mask, minor| mask | (1 << minor));
    if mask == 0 {
        done.notes
            .push("no GPU node in /dev: the application profile is left as it is".to_owned());
        return Ok(());
    }
    root.replace(PATH, text(mask).as_bytes(), 0o444)
        .map_err(|err| ApplyError::new("write", PATH, &err))
}

/// `nvidia3` is 3; control nodes have no number of their own.
fn minor(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("nvidia")?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
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
    use super::*;
    use crate::root::tests::Tree;

    #[test]
    fn nodes_become_a_mask() {
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
        let tree = Tree::new("profile");
        tree.write("dev/nvidia1", "");
        tree.write("dev/nvidia3", "");
        let mut done = Applied::default();
        update(&tree.root(), &mut done).unwrap();
        assert!(tree.read(PATH).contains("0xa"));
    }

    #[test]
    fn without_nodes_nothing_is_written() {
        let tree = Tree::new("profile-none");
        tree.write("dev/null", "");
        let mut done = Applied::default();
        update(&tree.root(), &mut done).unwrap();
        assert!(!tree.root().exists(PATH) && done.notes.len() == 1);
    }
}
