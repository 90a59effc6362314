//! `mounts`: replaced by destination, parents before children.

use serde_json::Value;

use crate::plan::MountEdit;
use crate::spec;

pub(super) fn add(mounts: &mut Vec<Value>, mount: &MountEdit) {
    mounts.retain(|other| spec::text(other, "destination") != mount.container_path);
    mounts.push(mount.json());
}

/// Stable, so that mounts of one depth keep the engine's order: a tmpfs over `/run` must stay before what lies in it.
pub(super) fn sort(mounts: &mut [Value]) {
    mounts.sort_by_cached_key(|mount| depth(spec::text(mount, "destination")));
}

/// Slashes of the path in its shortest form, so that `/` and `/proc` count the same.
fn depth(path: &str) -> usize {
    let mut names: usize = 0;
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => names = names.saturating_sub(1),
            _ => names += 1,
        }
    }
    match path.starts_with('/') {
        true => names.max(1),
        false => names.saturating_sub(1),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn depth_counts_the_slashes_of_the_clean_path() {
        let cases = [
            ("/", 1),
            ("/proc", 1),
            ("/proc/", 1),
            ("//a//b", 2),
            ("/a/./b", 2),
            ("/a/../b/c", 2),
            ("/..", 1),
            ("a/b", 1),
            ("", 0),
        ];
        for (path, want) in cases {
            assert_eq!(depth(path), want, "{path}");
        }
    }

    #[test]
    fn mounts_of_one_depth_keep_their_order() {
        let mut mounts: Vec<Value> = ["/b/x", "/proc", "/", "/a/y", "/dev"]
            .iter()
            .map(|path| json!({ "destination": path }))
            .collect();
        sort(&mut mounts);
        let order: Vec<_> = mounts
            .iter()
            .map(|mount| spec::text(mount, "destination"))
            .collect();
        assert_eq!(order, ["/proc", "/", "/dev", "/b/x", "/a/y"]);
    }
}
