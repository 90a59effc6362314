//! Directories that libraries are looked for in.

use std::rc::Rc;

use fleet_rootfs::ldcache;
use glob::Pattern;

use super::{File, Places};
use crate::tree::Tree;

/// The usual directories in the order in which they are searched.
const USUAL: [&str; 11] = [
    "/",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/lib/x86_64-linux-gnu/nvidia/current",
    "/lib/aarch64-linux-gnu/nvidia/current",
];

/// The same for 32-bit libraries.
const USUAL32: [&str; 6] = [
    "/usr/lib32",
    "/usr/lib/i386-linux-gnu",
    "/usr/lib/i386-linux-gnu/nvidia/current",
    "/usr/lib",
    "/lib32",
    "/lib/i386-linux-gnu",
];

/// More than any loader's cache.
const CACHE_LIMIT: u64 = 64 * 1024 * 1024;
/// The architecture's part of a cache entry's flags (`glibc ldconfig.h`): x86-64 and AArch64; none is i386.
const ARCHITECTURE: u32 = 0xff00;
const WIDE: [u32; 2] = [0x0300, 0x0a00];
const I386: u32 = 0;

/// A directory and the names in it, read once.
#[derive(Clone, Debug)]
pub(super) struct Dir<'a> {
    pub(super) tree: &'a Tree,
    /// Without a slash at its end; empty for `/`.
    pub(super) path: String,
    pub(super) names: Rc<[String]>,
    id: (u64, u64),
}

impl<'a> Dir<'a> {
    pub(super) fn open(tree: &'a Tree, path: &str) -> Option<Self> {
        let (names, id) = tree.directory(path).ok()?;
        Some(Self {
            tree,
            path: path.trim_end_matches('/').to_owned(),
            names: names.into(),
            id,
        })
    }

    /// Paths of the names that match.
    pub(super) fn matching<'d>(
        &'d self,
        pattern: &'d Pattern,
    ) -> impl Iterator<Item = String> + 'd {
        let names = self.names.iter().filter(|name| pattern.matches(name));
        names.map(|name| format!("{}/{name}", self.path))
    }

    /// As [`found`].
    pub(super) fn library(&self, path: &str, warnings: &mut Vec<String>) -> Option<File> {
        found(self.tree, path, warnings)
    }
}

/// The file that a path leads to; nothing for a name that leads nowhere useful, which is said in `warnings`.
pub(super) fn found(tree: &Tree, path: &str, warnings: &mut Vec<String>) -> Option<File> {
    let why = match tree.look(path) {
        Err(err) => err.to_string(),
        Ok(found) if found.is_dir => "it is a directory".to_owned(),
        Ok(found) => {
            return Some(File {
                host: tree.host(&found.path),
                container: found.path,
            });
        }
    };
    let text = format!("{} is left out: {why}", tree.host(path));
    if !warnings.contains(&text) {
        warnings.push(text);
    }
    None
}

/// A path that may be a link. The reader follows it from its own root, which is right for `/` alone: below another root
/// the place it leads to is written.
pub(super) fn followed(tree: &Tree, path: &str) -> Option<File> {
    let target = match tree.is_root() {
        true => path.to_owned(),
        false => tree.resolve(path).ok()?,
    };
    Some(File {
        host: tree.host(&target),
        container: path.to_owned(),
    })
}

/// The tree that an absolute path of the machine lies in, and the path there.
pub(super) fn split<'a>(places: &Places<'a>, path: &str) -> (&'a Tree, String) {
    let below = path.strip_prefix(places.driver.prefix());
    match below.filter(|below| !places.driver.is_root() && below.starts_with('/')) {
        Some(below) => (places.driver, below.to_owned()),
        None => (places.host, path.to_owned()),
    }
}

/// Directories to search, each once whatever paths lead to it.
pub(super) fn directories<'a>(places: &Places<'a>) -> Vec<Dir<'a>> {
    let mut found: Vec<Dir<'a>> = Vec::new();
    if !places.library_dirs.is_empty() {
        for dir in &places.library_dirs {
            let (tree, path) = split(places, dir);
            add(&mut found, tree, &path);
        }
        return found;
    }
    for dir in USUAL {
        add(&mut found, places.driver, dir);
    }
    for dir in cached(places.driver, &WIDE) {
        add(&mut found, places.driver, &dir);
    }
    found
}

/// Directories of 32-bit libraries.
pub(super) fn directories32<'a>(places: &Places<'a>) -> Vec<Dir<'a>> {
    let mut found = Vec::new();
    for dir in USUAL32 {
        add(&mut found, places.driver, dir);
    }
    for dir in cached(places.driver, &[I386]) {
        add(&mut found, places.driver, &dir);
    }
    found
}

fn add<'a>(found: &mut Vec<Dir<'a>>, tree: &'a Tree, path: &str) {
    let Some(dir) = Dir::open(tree, path) else {
        return;
    };
    if !found.iter().any(|known| known.id == dir.id) {
        found.push(dir);
    }
}

/// Directories that the loader's cache names for libraries of the driver, links followed.
fn cached(tree: &Tree, architectures: &[u32]) -> Vec<String> {
    let Ok(bytes) = tree.bytes("/etc/ld.so.cache", CACHE_LIMIT) else {
        return Vec::new();
    };
    let Ok(cache) = ldcache::parse(&bytes) else {
        return Vec::new();
    };
    let ours = |key: &[u8]| {
        [
            &b"libcuda.so"[..],
            b"libnvidia-",
            b"libGLX_nvidia",
            b"libEGL_nvidia",
        ]
        .iter()
        .any(|start| key.starts_with(start))
    };
    let mut dirs: Vec<String> = Vec::new();
    for entry in cache.entries {
        if !ours(&entry.key) || !architectures.contains(&(entry.flags & ARCHITECTURE)) {
            continue;
        }
        let path = String::from_utf8(entry.path).ok();
        let path = path.and_then(|path| tree.resolve(&path).ok());
        let dir = path.and_then(|path| Some(path.rsplit_once('/')?.0.to_owned()));
        dirs.extend(dir.filter(|dir| !dirs.contains(dir)));
    }
    dirs
}
