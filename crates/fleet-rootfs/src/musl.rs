//! musl's loader has no cache: it reads the directories from a file (musl `ldso/dynlink.c`).

use crate::ApplyError;
use crate::root::Root;

/// Real path files have some lines.
const LIMIT: u64 = 256 * 1024;
/// What the loader searches when it has no file; with a file, that replaces them.
const DEFAULTS: &str = "/lib\n/usr/local/lib\n/usr/lib\n";

/// The path file of the image's musl loader, if it has one.
pub(crate) fn path_file(root: &Root<'_>) -> Option<String> {
    let names = root.directory("/lib").ok()?.entries().ok()?;
    let arch = names
        .iter()
        .find_map(|(name, _)| name.strip_prefix("ld-musl-")?.strip_suffix(".so.1"))?;
    Some(format!("/etc/ld-musl-{arch}.path"))
}

/// Adds the folders that the file lacks at its end; its text stays. Directories are separated by newlines or colons.
pub(crate) fn add(root: &Root<'_>, path: &str, folders: &[String]) -> Result<(), ApplyError> {
    let mut text = match root.read(path, LIMIT) {
        Ok(bytes) => bytes,
        Err(err) if err.raw_os_error() == Some(libc::ENOENT) => DEFAULTS.as_bytes().to_vec(),
        Err(err) => return Err(ApplyError::io("read", path, &err)),
    };
    for folder in folders {
        let mut known = text.split(|byte| matches!(byte, b':' | b'\n'));
        if known.any(|line| line == folder.as_bytes()) {
            continue;
        }
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend(folder.as_bytes());
        text.push(b'\n');
    }
    root.replace(path, &text, 0o644)
        .map_err(|err| ApplyError::io("write", path, &err))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::tests::Tree;

    #[test]
    fn the_file_is_kept_and_grows_once() {
        for (old, want) in [
            (None, "/lib\n/usr/local/lib\n/usr/lib\n/opt/nv\n"),
            (Some("/lib:/own"), "/lib:/own\n/usr/lib\n/opt/nv\n"),
            (Some("/opt/nv\n/lib\n"), "/opt/nv\n/lib\n/usr/lib\n"),
            (Some(""), "/usr/lib\n/opt/nv\n"),
        ] {
            let tree = Tree::new("musl");
            tree.write("lib/ld-musl-x86_64.so.1", "");
            let path = path_file(&tree.root()).unwrap();
            assert_eq!(path, "/etc/ld-musl-x86_64.path");
            if let Some(old) = old {
                tree.write(&path, old);
            }
            for root in tree.roots() {
                add(&root, &path, &["/usr/lib".into(), "/opt/nv".into()]).unwrap();
                assert_eq!(tree.read(&path), want, "{old:?}");
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_replaced() {
        let tree = Tree::new("musl-dir");
        std::fs::create_dir_all(tree.path.join("etc/ld-musl-x86_64.path")).unwrap();
        let err = add(
            &tree.root(),
            "/etc/ld-musl-x86_64.path",
            &["/opt/nv".into()],
        )
        .unwrap_err();
        assert!(
            err.to_string().contains("/etc/ld-musl-x86_64.path"),
            "{err}"
        );
    }
}
