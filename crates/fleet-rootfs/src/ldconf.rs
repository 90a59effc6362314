//! `ld.so.conf` of the image: which directories its loader's cache is made from, and in which order.

use std::collections::HashSet;

use crate::root::{FileType, Root, clean};

/// Main configuration file.
pub(crate) const CONF: &str = "/etc/ld.so.conf";
/// Our directories. The name sorts first, as upstream's does.
pub(crate) const DROP_IN: &str = "/etc/ld.so.conf.d/00-fleet-nvidia.conf";
/// The image's CUDA compatibility libraries; sorts before [`DROP_IN`].
pub(crate) const COMPAT_DROP_IN: &str = "/etc/ld.so.conf.d/00-compat-fleet-nvidia.conf";
/// What [`CONF`] holds when an image has none.
pub(crate) const INCLUDE: &str = "include /etc/ld.so.conf.d/*.conf\n";

/// Real configuration files have some lines.
const LIMIT: u64 = 256 * 1024;
const MAX_FILES: usize = 256;
const MAX_DIRECTORIES: usize = 4096;
const MAX_DEPTH: usize = 8;

/// A directory and who named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configured {
    pub(crate) path: String,
    /// Named by a drop-in of ours and by no file before it.
    pub(crate) ours: bool,
}

/// Directories named by the configuration, in order, `include` patterns followed.
pub(crate) fn directories(root: &Root<'_>) -> Vec<Configured> {
    let mut reader = Reader {
        root,
        found: Vec::new(),
        known: HashSet::new(),
        files: 0,
    };
    reader.read(CONF, 0);
    reader.found
}

/// Directories of one of our own drop-ins.
pub(crate) fn lines(root: &Root<'_>, path: &str) -> Vec<String> {
    let bytes = root.read(path, LIMIT).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .lines()
        .map(str::to_owned)
        .collect()
}

struct Reader<'a> {
    root: &'a Root<'a>,
    found: Vec<Configured>,
    known: HashSet<(String, bool)>,
    files: usize,
}

impl Reader<'_> {
    fn read(&mut self, path: &str, depth: usize) {
        self.files += 1;
        if depth > MAX_DEPTH || self.files > MAX_FILES {
            return;
        }
        let Ok(bytes) = self.root.read(path, LIMIT) else {
            return;
        };
        for line in String::from_utf8_lossy(&bytes).lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let include = line
                .strip_prefix("include")
                .filter(|rest| rest.starts_with(char::is_whitespace));
            if let Some(patterns) = include {
                for pattern in patterns.split_whitespace() {
                    for file in matching(self.root, path, pattern) {
                        self.read(&file, depth + 1);
                    }
                }
            } else if line.starts_with('/') {
                // `=libc5` and the like are suffixes of old.
                self.add(line.split('=').next().unwrap_or_default().trim_end(), path);
            }
        }
    }

    fn add(&mut self, directory: &str, file: &str) {
        let path = clean(directory);
        let ours = file == DROP_IN || file == COMPAT_DROP_IN;
        // One of ours that the image names later, too, is needed twice: it keeps its place without us.
        if self.found.len() < MAX_DIRECTORIES && self.known.insert((path.clone(), ours)) {
            self.found.push(Configured { path, ours });
        }
    }
}

/// Files that match a pattern whose parts may hold `*` and `?`, sorted as glob(3) sorts.
fn matching(root: &Root<'_>, from: &str, pattern: &str) -> Vec<String> {
    let base = from.rsplit_once('/').map_or("", |(directory, _)| directory);
    let pattern = if pattern.starts_with('/') {
        clean(pattern)
    } else {
        clean(&format!("{base}/{pattern}"))
    };
    let mut found = vec![String::new()];
    let mut parts = pattern.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        let next = found
            .iter()
            .flat_map(|directory| expand(root, directory, part, last));
        found = next.take(MAX_FILES).collect();
    }
    found
}

fn expand(root: &Root<'_>, directory: &str, part: &str, last: bool) -> Vec<String> {
    if !part.contains(['*', '?']) {
        return vec![format!("{directory}/{part}")];
    }
    let here = if directory.is_empty() { "/" } else { directory };
    let entries = root
        .directory(here)
        .and_then(|directory| directory.entries());
    let kind = if last {
        FileType::RegularFile
    } else {
        FileType::Directory
    };
    let names = entries
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, of)| {
            (*of == kind || *of == FileType::Symlink)
                && (!name.starts_with('.') || part.starts_with('.'))
                && glob(part.as_bytes(), name.as_bytes())
        });
    names
        .map(|(name, _)| format!("{directory}/{name}"))
        .collect()
}

/// Whether `text` is what `pattern` says; a later `*` makes earlier ones final, so the time is bounded by the product
/// of the lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The loader's built-in directories, in the order in which ldconfig takes them (glibc's `add_system_dir`, Debian's
/// own for its triplets).
pub(crate) fn defaults(root: &Root<'_>) -> Vec<String> {
    let (triplet, third) = match std::env::consts::ARCH {
        "aarch64" => ("aarch64-linux-gnu", "libilp32"),
        _ => ("x86_64-linux-gnu", "libx32"),
    };
    let debian = root.exists("/etc/debian_version") || root.exists(&format!("/usr/lib/{triplet}"));
    if debian {
        let multiarch = [format!("/lib/{triplet}"), format!("/usr/lib/{triplet}")];
        return multiarch
            .into_iter()
            .chain(["/lib".to_owned(), "/usr/lib".to_owned()])
            .collect();
    }
    let below = |base: &str| ["lib", "lib64", third].map(|name| format!("{base}/{name}"));
    [below(""), below("/usr")].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::tests::Tree;

    fn paths(tree: &Tree) -> Vec<String> {
        directories(&tree.root())
            .into_iter()
            .map(|found| found.path)
            .collect()
    }

    #[test]
    fn includes_comments_and_order() {
        let tree = Tree::new("ldconf");
        tree.write(
            "etc/ld.so.conf",
            "/first # comment\ninclude /etc/ld.so.conf.d/*.conf\n/last=libc6\nhwcap 0 x\n",
        );
        tree.write("etc/ld.so.conf.d/b.conf", "/b\n/first\n");
        tree.write(
            "etc/ld.so.conf.d/a.conf",
            "/a/\nrelative\ninclude ../ld.so.conf\n",
        );
        tree.write("etc/ld.so.conf.d/.hidden.conf", "/no\n");
        tree.write("etc/ld.so.conf.d/c.txt", "/no\n");
        assert_eq!(paths(&tree), ["/first", "/a", "/last", "/b"]);
    }

    #[test]
    fn relative_and_deep_patterns() {
        let tree = Tree::new("ldconf-deep");
        tree.write(
            "etc/ld.so.conf",
            "include ld.so.conf.d/*.conf /opt/*/ld/?.conf\n",
        );
        tree.write("etc/ld.so.conf.d/x.conf", "/x\n");
        tree.write("opt/one/ld/1.conf", "/one\n");
        tree.write("opt/two/ld/2.conf", "/two\n");
        tree.write("opt/two/ld/22.conf", "/no\n");
        assert_eq!(paths(&tree), ["/x", "/one", "/two"]);
    }

    #[test]
    fn ours_are_told_from_the_images() {
        let tree = Tree::new("ldconf-ours");
        tree.write("etc/ld.so.conf", INCLUDE);
        tree.write(DROP_IN, "/opt/nv\n/own\n");
        tree.write("etc/ld.so.conf.d/image.conf", "/own\n");
        let of = |path: &str, ours| Configured {
            path: path.into(),
            ours,
        };
        assert_eq!(
            directories(&tree.root()),
            [of("/opt/nv", true), of("/own", true), of("/own", false)]
        );
    }

    #[test]
    fn hostile_configuration_ends() {
        let tree = Tree::new("ldconf-hostile");
        let many: String = (0..20_000).map(|n| format!("/{n}\n")).collect();
        tree.write(
            "etc/ld.so.conf",
            format!("include *\ninclude /etc/*/*/*/*\n{many}"),
        );
        nix::unistd::mkfifo(&tree.path.join("etc/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("loop", tree.path.join("etc/loop")).unwrap();
        assert_eq!(paths(&tree).len(), MAX_DIRECTORIES);
    }

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.txt", false),
            ("?b*", "ab", true),
            ("", "a", false),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyyd", false),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), text.as_bytes()),
                want,
                "{pattern} {text}"
            );
        }
        // Seconds to centuries for a matcher that tries every split.
        assert!(!glob(
            &[b"*a".repeat(40), b"b".to_vec()].concat(),
            &b"a".repeat(200)
        ));
    }
}
