//! `create-symlinks`.

use nix::sys::stat::SFlag;

use crate::ApplyError;
use crate::root::{Root, clean};

/// Makes `link` point at `target`. An equal link is left; another file gives way; a directory does not.
pub(crate) fn make(root: &Root<'_>, target: &str, link: &str) -> Result<(), ApplyError> {
    if !link.starts_with('/') || target.is_empty() || clean(link) == "/" {
        let why = "it is not an absolute path with a target".to_owned();
        return Err(ApplyError {
            what: "make link".to_owned(),
            path: link.to_owned(),
            why,
        });
    }
    let failed = |err: std::io::Error| ApplyError::new("make link", link, &err);
    let place = root.place(link).map_err(failed)?;
    if place.link_text().as_deref() == Some(target) {
        return Ok(());
    }
    if place.kind() == Some(SFlag::S_IFDIR) {
        let why = "a directory of the image is in its place".to_owned();
        return Err(ApplyError {
            what: "make link".to_owned(),
            path: link.to_owned(),
            why,
        });
    }
    place.replace_link(target).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::root::tests::Tree;

    #[test]
    fn new_equal_and_different() {
        let tree = Tree::new("symlink");
        for target in ["libcuda.so.1", "libcuda.so.1", "other"] {
            make(&tree.root(), target, "/usr/lib/x/libcuda.so").unwrap();
            assert_eq!(
                fs::read_link(tree.path.join("usr/lib/x/libcuda.so")).unwrap(),
                Path::new(target)
            );
        }
        tree.write("file", "x");
        make(&tree.root(), "t", "/file").unwrap();
        assert_eq!(
            fs::read_link(tree.path.join("file")).unwrap(),
            Path::new("t")
        );
    }

    #[test]
    fn refused() {
        let tree = Tree::new("symlink-bad");
        fs::create_dir(tree.path.join("dir")).unwrap();
        for (target, link) in [
            ("t", "relative"),
            ("", "/x"),
            ("t", "/"),
            ("t", "/a/.."),
            ("t", "/dir"),
        ] {
            assert!(make(&tree.root(), target, link).is_err(), "{target} {link}");
        }
    }

    #[test]
    fn a_hostile_parent_does_not_lead_out() {
        let tree = Tree::new("symlink-out");
        let outside = tree.path.parent().unwrap().join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, tree.path.join("usr")).unwrap();
        drop(make(&tree.root(), "t", "/usr/link"));
        drop(make(&tree.root(), "t", "/../outside/link"));
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn a_racing_parent_does_not_lead_out() {
        let tree = Tree::new("symlink-race");
        let outside = tree.path.parent().unwrap().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::create_dir(tree.path.join("real")).unwrap();
        symlink(&outside, tree.path.join("evil")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (base, flag) = (tree.path.clone(), Arc::clone(&stop));
        let swapper = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                for name in ["real", "evil"] {
                    drop(fs::remove_file(base.join("dir")));
                    drop(symlink(name, base.join("dir")));
                }
            }
        });
        for number in 0..3000 {
            drop(make(&tree.root(), "t", &format!("/dir/link{}", number % 7)));
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
