//! `ld.so.conf` of the image: which directories its loader's cache is made from.

use nix::sys::stat::SFlag;

use crate::root::{Root, clean};

/// Real configuration files have some lines.
const LIMIT: u64 = 1024 * 1024;
const MAX_FILES: usize = 256;

/// Directories named by the configuration, in order, `include` patterns followed.
pub(crate) fn directories(root: &Root<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut files = 0;
    read(root, "/etc/ld.so.conf", &mut found, &mut files, 0);
    found
}

fn read(root: &Root<'_>, path: &str, found: &mut Vec<String>, files: &mut usize, depth: usize) {
    *files += 1;
    if depth > 8 || *files > MAX_FILES {
        return;
    }
    let Ok(bytes) = root.read(path, LIMIT) else {
        return;
    };
    for line in String::from_utf8_lossy(&bytes).lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(patterns) = line
            .strip_prefix("include")
            .filter(|rest| rest.starts_with(char::is_whitespace))
        {
            for pattern in patterns.split_whitespace() {
                for file in matching(root, path, pattern) {
                    read(root, &file, found, files, depth + 1);
                }
            }
        } else if line.starts_with('/') {
            // `=libc5` and the like are suffixes of old.
            let directory = clean(line.split('=').next().unwrap_or_default());
            if !found.contains(&directory) {
                found.push(directory);
            }
        }
    }
}

/// Files that match a pattern whose last part may hold `*` and `?`, sorted as glob(3) sorts.
fn matching(root: &Root<'_>, from: &str, pattern: &str) -> Vec<String> {
    let base = from.rsplit_once('/').map_or("", |(dir, _)| dir);
    let pattern = if pattern.starts_with('/') {
        clean(pattern)
    } else {
        clean(&format!("{base}/{pattern}"))
    };
    let (dir, name) = pattern.rsplit_once('/').unwrap_or(("", &pattern));
    let entries = root
        .list(if dir.is_empty() { "/" } else { dir })
        .unwrap_or_default();
    let wanted = entries.into_iter().filter(|(file, kind)| {
        matches!(*kind, SFlag::S_IFREG | SFlag::S_IFLNK)
            && (!file.starts_with('.') || name.starts_with('.'))
            && glob(name.as_bytes(), file.as_bytes())
    });
    wanted.map(|(file, _)| format!("{dir}/{file}")).collect()
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            glob(&pattern[1..], text) || (!text.is_empty() && glob(pattern, &text[1..]))
        }
        (Some(b'?'), Some(_)) => glob(&pattern[1..], &text[1..]),
        (Some(a), Some(b)) if a == b => glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

/// The loader's built-in directories, in the order in which ldconfig takes them.
pub(crate) fn defaults(root: &Root<'_>) -> Vec<String> {
    let triplet = match std::env::consts::ARCH {
        "aarch64" => "aarch64-linux-gnu",
        _ => "x86_64-linux-gnu",
    };
    let list: Vec<String> =
        if root.exists("/etc/debian_version") || root.exists(&format!("/usr/lib/{triplet}")) {
            vec![
                format!("/lib/{triplet}"),
                format!("/usr/lib/{triplet}"),
                "/lib".into(),
                "/usr/lib".into(),
            ]
        } else {
            ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]
                .map(str::to_owned)
                .to_vec()
        };
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::tests::Tree;

    #[test]
    fn includes_comments_and_order() {
        let tree = Tree::new("ldconf");
        tree.write(
            "etc/ld.so.conf",
            "/first # comment\ninclude /etc/ld.so.conf.d/*.conf\n/last=libc6\n",
        );
        tree.write("etc/ld.so.conf.d/b.conf", "/b\n/first\n");
        tree.write(
            "etc/ld.so.conf.d/a.conf",
            "/a/\nrelative\ninclude ../ld.so.conf\n",
        );
        tree.write("etc/ld.so.conf.d/c.txt", "/no\n");
        assert_eq!(directories(&tree.root()), ["/first", "/a", "/last", "/b"]);
    }

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.txt", false),
            ("?b*", "ab", true),
            ("", "a", false),
            ("a*b*c", "axxbyyc", true),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), text.as_bytes()),
                want,
                "{pattern} {text}"
            );
        }
    }
}
