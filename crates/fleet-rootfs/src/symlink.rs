//! `create-symlinks`.

use std::collections::HashSet;
use std::io;

use crate::ApplyError;
use crate::root::{Directory, Root, clean};

/// A link that is as an edit wants it: device and inode of its directory, and its name.
pub(crate) type Made = ((u64, u64), String);

/// Makes links, many of which share a directory: it is resolved once.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) made: HashSet<Made>,
    last: Option<(String, Directory, (u64, u64))>,
}

impl Links {
    /// Makes `link` point at `target`. An equal link is left; another file gives way; a directory does not. Targets are
    /// not checked: they are resolved inside the container.
    pub(crate) fn make(
        &mut self,
        root: &Root<'_>,
        target: &str,
        link: &str,
    ) -> Result<(), ApplyError> {
        let refused = |why| ApplyError::Link {
            link: link.to_owned(),
            target: target.to_owned(),
            why,
        };
        if target.is_empty() || target.contains('\0') {
            return Err(refused("the target is not a path"));
        }
        let path = clean(link);
        let (parent, name) = path.rsplit_once('/').unwrap_or_default();
        if name.is_empty() || link.contains('\0') {
            return Err(refused("the link has no name"));
        }
        let failed = |err: io::Error| match err.raw_os_error() {
            Some(libc::EISDIR) => refused("a directory is in its place (EISDIR)"),
            _ => ApplyError::io("make link", link, &err),
        };
        let (directory, id) = self.directory(root, parent).map_err(failed)?;
        put(directory, target, name).map_err(failed)?;
        self.made.insert((id, name.to_owned()));
        Ok(())
    }

    fn directory(&mut self, root: &Root<'_>, path: &str) -> io::Result<(&Directory, (u64, u64))> {
        let last = match self.last.take() {
            Some(last) if last.0 == path => last,
            _ => {
                let directory =
                    root.make_directory(if path.is_empty() { "/" } else { path }, 0o755)?;
                let id = directory.id()?;
                (path.to_owned(), directory, id)
            }
        };
        let (_, directory, id) = self.last.insert(last);
        Ok((directory, *id))
    }
}

fn put(directory: &Directory, target: &str, name: &str) -> io::Result<()> {
    match directory.make_link(target, name) {
        Err(err) if err.raw_os_error() == Some(libc::EEXIST) => {}
        other => return other,
    }
    if directory.read_link(name)?.as_deref() == Some(target) {
        return Ok(());
    }
    directory.replace_link(target, name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::root::tests::Tree;

    fn make(root: &Root<'_>, target: &str, link: &str) -> Result<(), ApplyError> {
        Links::default().make(root, target, link)
    }

    #[test]
    fn new_equal_and_different() {
        let tree = Tree::new("symlink");
        for root in tree.roots() {
            for target in ["libcuda.so.1", "libcuda.so.1", "other"] {
                make(&root, target, "/usr/lib/x/libcuda.so").unwrap();
                let link = tree.path.join("usr/lib/x/libcuda.so");
                assert_eq!(fs::read_link(link).unwrap(), Path::new(target));
            }
            assert_eq!(
                fs::metadata(tree.path.join("usr"))
                    .unwrap()
                    .permissions()
                    .mode()
                    & 0o7777,
                0o755
            );
            drop(fs::remove_file(tree.path.join("file")));
            tree.write("file", "x");
            make(&root, "t", "/file").unwrap();
            assert_eq!(
                fs::read_link(tree.path.join("file")).unwrap(),
                Path::new("t")
            );
            make(&root, "t", "relative/../name").unwrap();
            assert!(
                tree.path.join("name").is_symlink(),
                "cleaned, it is absolute"
            );
        }
        assert_eq!(
            fs::read_dir(tree.path.join("usr/lib/x")).unwrap().count(),
            1,
            "nothing temporary is left"
        );
    }

    #[test]
    fn a_directory_is_resolved_once_and_links_are_remembered() {
        let tree = Tree::new("symlink-many");
        let mut links = Links::default();
        for (target, link) in [
            ("a", "/x/1"),
            ("a", "/x/2"),
            ("a", "/y/1"),
            ("a", "/x/../1"),
        ] {
            links.make(&tree.root(), target, link).unwrap();
            assert!(
                tree.path
                    .join(clean(link).trim_start_matches('/'))
                    .is_symlink(),
                "{link}"
            );
        }
        let id = |path: &str| tree.root().directory(path).unwrap().id().unwrap();
        let want = [("/x", "1"), ("/x", "2"), ("/y", "1"), ("/", "1")]
            .map(|(path, name)| (id(path), name.to_owned()));
        assert_eq!(links.made, HashSet::from(want));
    }

    #[test]
    fn an_equal_link_is_not_touched() {
        let tree = Tree::new("symlink-equal");
        make(&tree.root(), "t", "/link").unwrap();
        let inode = || {
            std::os::unix::fs::MetadataExt::ino(
                &fs::symlink_metadata(tree.path.join("link")).unwrap(),
            )
        };
        let before = inode();
        make(&tree.root(), "t", "/link").unwrap();
        assert_eq!(inode(), before);
    }

    #[test]
    fn refused() {
        let tree = Tree::new("symlink-bad");
        fs::create_dir(tree.path.join("dir")).unwrap();
        tree.write("file", "x");
        for root in tree.roots() {
            for (target, link) in [
                ("", "/x"),
                ("t", "/"),
                ("t", "/a/.."),
                ("t", "/dir"),
                ("t", "/file/x"),
                ("t", "/a\0b"),
            ] {
                let err = make(&root, target, link).unwrap_err().to_string();
                assert!(err.starts_with("make link `"), "{err}");
            }
        }
        assert!(tree.path.join("dir").is_dir());
    }

    #[test]
    fn a_hostile_parent_does_not_lead_out() {
        let tree = Tree::new("symlink-out");
        let outside = tree.path.parent().unwrap().join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, tree.path.join("usr")).unwrap();
        symlink("../outside", tree.path.join("up")).unwrap();
        symlink("loop", tree.path.join("loop")).unwrap();
        for root in tree.roots() {
            make(&root, "t", "/usr/link").unwrap_err();
            make(&root, "t", "/up/link").unwrap_err();
            make(&root, "t", "/loop/link").unwrap_err();
        }
        make(&tree.root(), "t", "/../outside/link").unwrap();
        assert!(
            tree.path.join("outside/link").is_symlink(),
            "inside the root, `..` of the root is the root"
        );
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
