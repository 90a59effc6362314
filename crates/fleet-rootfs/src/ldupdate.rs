//! `update-ldcache`: the image's own loader finds the injected libraries, without running any `ldconfig`.
//!
//! glibc: the cache gets entries for the folders, as the image's ldconfig would have written them, and a drop-in keeps
//! the folders for a later run of it. musl: the folders join its path file. Applying twice changes nothing.

use std::collections::BTreeMap;

use nix::sys::stat::SFlag;

use crate::ldcache::{self, Cache, Entry, compare_names};
use crate::root::{Root, clean};
use crate::{Applied, ApplyError, elf, ldconf};

const CACHE: &str = "/etc/ld.so.cache";
const CONF: &str = "/etc/ld.so.conf";
const DROP_IN: &str = "/etc/ld.so.conf.d/00-fleet-nvidia.conf";
const INCLUDE: &str = "include /etc/ld.so.conf.d/*.conf\n";
/// Largest cache or path file read from an image.
const LIMIT: u64 = 64 * 1024 * 1024;

/// `FLAG_ELF_LIBC6` with the architecture bits of glibc's `ldconfig.h`, by `e_machine` and class.
fn flags(machine: u16, wide: bool) -> Option<u32> {
    match (machine, wide) {
        (62, true) => Some(0x0303),  // x86-64
        (62, false) => Some(0x0803), // x32
        (3, false) => Some(0x0003),  // i386
        (183, true) => Some(0x0a03), // AArch64
        _ => None,
    }
}

pub(crate) fn update(
    root: &Root<'_>,
    folders: &[String],
    done: &mut Applied,
) -> Result<(), ApplyError> {
    let mut present = Vec::new();
    for folder in folders.iter().map(|folder| clean(folder)) {
        match root.stat(&folder) {
            Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => present.push(folder),
            _ => done.notes.push(format!(
                "`{folder}` is not a directory in the container: its libraries are left out"
            )),
        }
    }
    let musl = musl_path(root);
    let glibc = root.exists(CACHE) || glibc_loader(root);
    if let Some(path) = &musl {
        add_to_musl(root, path, &present)?;
    }
    if glibc {
        add_to_cache(root, &present, done)?;
    } else if musl.is_none() {
        done.notes
            .push("the image has no dynamic loader: nothing to tell about libraries".to_owned());
    }
    Ok(())
}

fn glibc_loader(root: &Root<'_>) -> bool {
    [
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/ld-linux-aarch64.so.1",
        "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        "/lib/ld-linux.so.2",
    ]
    .iter()
    .any(|path| root.exists(path))
}

/// The path file of the image's musl loader, if it has one.
fn musl_path(root: &Root<'_>) -> Option<String> {
    let names = root.list("/lib").ok()?;
    let arch = names
        .iter()
        .find_map(|(name, _)| name.strip_prefix("ld-musl-")?.strip_suffix(".so.1"))?;
    Some(format!("/etc/ld-musl-{arch}.path"))
}

/// musl reads directories separated by newlines or colons, instead of its built-in ones.
fn add_to_musl(root: &Root<'_>, path: &str, folders: &[String]) -> Result<(), ApplyError> {
    let old = root
        .read(path, LIMIT)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let mut all: Vec<String> = match old.as_deref().filter(|text| !text.trim().is_empty()) {
        Some(text) => text
            .split([':', '\n'])
            .map(str::trim)
            .filter(|p| !p.is_empty())
            .map(str::to_owned)
            .collect(),
        None => ["/lib", "/usr/local/lib", "/usr/lib"]
            .map(str::to_owned)
            .to_vec(),
    };
    let before = all.len();
    for folder in folders {
        if !all.contains(folder) {
            all.push(folder.clone());
        }
    }
    if all.len() == before && old.is_some() {
        return Ok(());
    }
    let text: String = all.iter().map(|dir| format!("{dir}\n")).collect();
    root.replace(path, text.as_bytes(), 0o644)
        .map_err(|err| ApplyError::new("write", path, &err))
}

fn add_to_cache(root: &Root<'_>, folders: &[String], done: &mut Applied) -> Result<(), ApplyError> {
    let configured = ldconf::directories(root);
    let defaults = ldconf::defaults(root);
    let ours: Vec<String> = root
        .read(DROP_IN, LIMIT)
        .map(|b| {
            String::from_utf8_lossy(&b)
                .lines()
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    // A folder of the image's own keeps its place among its directories; a new one comes first, as its drop-in does.
    let known = |folder: &String| {
        (configured.contains(folder) && !ours.contains(folder)) || defaults.contains(folder)
    };
    let (known, new): (Vec<String>, Vec<String>) = folders.iter().cloned().partition(known);
    write_drop_in(root, &new)?;
    let mut cache = existing(root, &configured, &defaults, done);
    let mut first = Vec::new();
    for folder in &new {
        first.extend(scan(root, folder, true)?);
    }
    let mut last = Vec::new();
    for folder in &known {
        last.extend(scan(root, folder, true)?);
    }
    let replaced = |entry: &Entry| {
        first
            .iter()
            .chain(&last)
            .any(|new| new.path == entry.path && new.key == entry.key && new.flags == entry.flags)
    };
    cache
        .entries
        .retain(|entry| !replaced(entry) || entry.hwcap != 0);
    cache.entries = [first, cache.entries, last].concat();
    ldcache::sort(&mut cache.entries);
    root.replace(CACHE, &ldcache::serialise(&cache), 0o644)
        .map_err(|err| ApplyError::new("write", CACHE, &err))
}

/// The image's cache, or one made from its directories as its ldconfig would.
fn existing(
    root: &Root<'_>,
    configured: &[String],
    defaults: &[String],
    done: &mut Applied,
) -> Cache {
    let read = root
        .read(CACHE, LIMIT)
        .map_err(|err| err.to_string())
        .and_then(|bytes| ldcache::parse(&bytes).map_err(|err| err.to_string()));
    let why = match read {
        Ok(cache) => return cache,
        Err(why) => why,
    };
    if root.exists(CACHE) {
        done.notes.push(format!(
            "{CACHE} of the image is not usable ({why}): it is made anew"
        ));
    }
    let mut cache = Cache::default();
    let mut seen = Vec::new();
    for dir in configured.iter().chain(defaults) {
        let Ok(stat) = root.stat(dir) else { continue };
        // `/lib` may be a link to `/usr/lib`.
        if !seen.contains(&(stat.st_dev, stat.st_ino)) {
            seen.push((stat.st_dev, stat.st_ino));
            cache
                .entries
                .extend(scan(root, dir, false).unwrap_or_default());
        }
    }
    cache
}

fn write_drop_in(root: &Root<'_>, folders: &[String]) -> Result<(), ApplyError> {
    if folders.is_empty() {
        return Ok(());
    }
    if !root.exists(CONF) {
        root.replace(CONF, INCLUDE.as_bytes(), 0o644)
            .map_err(|err| ApplyError::new("write", CONF, &err))?;
    }
    let text: String = folders.iter().map(|folder| format!("{folder}\n")).collect();
    root.replace(DROP_IN, text.as_bytes(), 0o644)
        .map_err(|err| ApplyError::new("write", DROP_IN, &err))
}

/// The entries that ldconfig makes for a directory; with `link`, missing soname links are made as it makes them.
fn scan(root: &Root<'_>, folder: &str, link: bool) -> Result<Vec<Entry>, ApplyError> {
    let names = root
        .list(folder)
        .map_err(|err| ApplyError::new("list", folder, &err))?;
    // By soname, the file with the highest version: several drivers side by side.
    let mut best: BTreeMap<(String, u32), (String, bool)> = BTreeMap::new();
    let mut entries = Vec::new();
    let mut links = Vec::new();
    for (name, kind) in &names {
        if !library_name(name) || !matches!(*kind, SFlag::S_IFREG | SFlag::S_IFLNK) {
            continue;
        }
        if *kind == SFlag::S_IFLNK && name.ends_with(".so") {
            // The link for compilers, which programs that dlopen without a version use, too. What it points at may
            // be a link that is only made below.
            links.push(name);
            continue;
        }
        let Ok(file) = root.open_file(&format!("{folder}/{name}")) else {
            continue;
        };
        let Some(library) = elf::library(&file) else {
            continue;
        };
        let Some(flags) = flags(library.machine, library.wide) else {
            continue;
        };
        let soname = library.soname.unwrap_or_else(|| name.clone());
        let better = best
            .get(&(soname.clone(), flags))
            .is_none_or(|(other, _)| compare_names(name, other).is_gt() && *name != soname);
        let regular = *kind == SFlag::S_IFREG;
        if better || *name == soname && !best.contains_key(&(soname.clone(), flags)) {
            best.insert((soname, flags), (name.clone(), regular));
        }
    }
    for ((soname, flags), (name, regular)) in best {
        let there = names.iter().any(|(known, _)| *known == soname);
        if there {
            entries.push(entry(folder, &soname, flags));
        } else if link && regular {
            make_soname_link(root, folder, &soname, &name)?;
            entries.push(entry(folder, &soname, flags));
        } else {
            entries.push(Entry {
                key: soname,
                ..entry(folder, &name, flags)
            });
        }
    }
    for name in links {
        let library = root
            .open_file(&format!("{folder}/{name}"))
            .ok()
            .and_then(|file| elf::library(&file));
        if let Some(flags) = library.and_then(|library| flags(library.machine, library.wide)) {
            entries.push(entry(folder, name, flags));
        }
    }
    Ok(entries)
}

fn entry(folder: &str, name: &str, flags: u32) -> Entry {
    Entry {
        flags,
        key: name.to_owned(),
        path: format!("{folder}/{name}"),
        os_version: 0,
        hwcap: 0,
    }
}

fn make_soname_link(
    root: &Root<'_>,
    folder: &str,
    soname: &str,
    name: &str,
) -> Result<(), ApplyError> {
    let path = format!("{folder}/{soname}");
    let made = root.place(&path).and_then(|place| place.replace_link(name));
    made.map_err(|err| ApplyError::new("make link", &path, &err))
}

/// `lib*.so*` and `ld-*.so*`, as ldconfig looks for.
fn library_name(name: &str) -> bool {
    (name.starts_with("lib") || name.starts_with("ld-")) && name.contains(".so")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::elf::tests::image;
    use crate::root::tests::Tree;

    fn glibc(name: &str) -> Tree {
        let tree = Tree::new(name);
        tree.write("lib64/ld-linux-x86-64.so.2", "");
        tree.write(
            "usr/lib/x86_64-linux-gnu/libz.so.1",
            image(true, 62, "libz.so.1"),
        );
        tree.write("opt/nv/libcuda.so.550.1", image(true, 62, "libcuda.so.1"));
        tree.write("opt/nv/libcuda.so.470.1", image(true, 62, "libcuda.so.1"));
        tree.write("opt/nv/lib32.so.1", image(false, 3, "lib32.so.1"));
        tree.write("opt/nv/notes.txt", "x");
        nix::unistd::mkfifo(
            &tree.path.join("opt/nv/libfifo.so.1"),
            nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
        symlink("libcuda.so.1", tree.path.join("opt/nv/libcuda.so")).unwrap();
        tree
    }

    fn run(tree: &Tree, folders: &[&str]) -> Applied {
        let mut done = Applied::default();
        update(
            &tree.root(),
            &folders.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>(),
            &mut done,
        )
        .unwrap();
        done
    }

    fn lookup(tree: &Tree, key: &str) -> Vec<String> {
        let cache = ldcache::parse(&fs::read(tree.path.join("etc/ld.so.cache")).unwrap()).unwrap();
        cache
            .entries
            .into_iter()
            .filter(|e| e.key == key)
            .map(|e| e.path)
            .collect()
    }

    #[test]
    fn an_image_without_cache() {
        let tree = glibc("ld-none");
        run(&tree, &["/opt/nv"]);
        assert_eq!(lookup(&tree, "libcuda.so.1"), ["/opt/nv/libcuda.so.1"]);
        assert_eq!(
            lookup(&tree, "libz.so.1"),
            ["/usr/lib/x86_64-linux-gnu/libz.so.1"],
            "the image's own stay known"
        );
        assert_eq!(lookup(&tree, "lib32.so.1"), ["/opt/nv/lib32.so.1"]);
        assert_eq!(
            fs::read_link(tree.path.join("opt/nv/libcuda.so.1")).unwrap(),
            Path::new("libcuda.so.550.1")
        );
        assert_eq!(
            tree.read("etc/ld.so.conf.d/00-fleet-nvidia.conf"),
            "/opt/nv\n"
        );
        assert_eq!(tree.read("etc/ld.so.conf"), INCLUDE);
    }

    #[test]
    fn twice_is_once() {
        let tree = glibc("ld-twice");
        run(&tree, &["/opt/nv", "/missing"]);
        let first = fs::read(tree.path.join("etc/ld.so.cache")).unwrap();
        let done = run(&tree, &["/opt/nv", "/missing"]);
        assert_eq!(fs::read(tree.path.join("etc/ld.so.cache")).unwrap(), first);
        assert!(done.notes[0].contains("/missing"), "{done:?}");
    }

    #[test]
    fn entries_of_the_image_are_kept_and_ours_come_first() {
        let tree = glibc("ld-keep");
        let mut old = Cache {
            generator: Some("ldconfig (x)".into()),
            ..Cache::default()
        };
        old.entries.push(Entry {
            flags: 0x303,
            key: "libcuda.so.1".into(),
            path: "/usr/local/lib/libcuda.so.1".into(),
            os_version: 0,
            hwcap: 0,
        });
        tree.write("etc/ld.so.cache", ldcache::serialise(&old));
        run(&tree, &["/opt/nv"]);
        assert_eq!(
            lookup(&tree, "libcuda.so.1"),
            ["/opt/nv/libcuda.so.1", "/usr/local/lib/libcuda.so.1"]
        );
    }

    #[test]
    fn a_damaged_cache_is_made_anew() {
        let tree = glibc("ld-bad");
        tree.write("etc/ld.so.cache", "garbage");
        let done = run(&tree, &["/opt/nv"]);
        assert!(done.notes[0].contains("made anew"), "{done:?}");
        assert_eq!(lookup(&tree, "libz.so.1").len(), 1);
    }

    #[test]
    fn musl_gets_its_path_file() {
        let tree = Tree::new("ld-musl");
        tree.write("lib/ld-musl-x86_64.so.1", "");
        tree.write("usr/lib64/libcuda.so.1", image(true, 62, "libcuda.so.1"));
        run(&tree, &["/usr/lib64"]);
        run(&tree, &["/usr/lib64"]);
        assert_eq!(
            tree.read("etc/ld-musl-x86_64.path"),
            "/lib\n/usr/local/lib\n/usr/lib\n/usr/lib64\n"
        );
        assert!(!tree.path.join("etc/ld.so.cache").exists());
    }

    #[test]
    fn a_static_image_is_left_alone() {
        let tree = Tree::new("ld-static");
        fs::create_dir_all(tree.path.join("opt/nv")).unwrap();
        assert!(run(&tree, &["/opt/nv"]).notes[0].contains("no dynamic loader"));
        assert!(!tree.path.join("etc").exists());
    }

    /// The machine's own ldconfig must read our file, and find what it finds itself.
    #[test]
    fn ldconfig_agrees() {
        let ldconfig = ["/sbin/ldconfig", "/usr/sbin/ldconfig"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let Some(ldconfig) = ldconfig else {
            println!("SKIP ldconfig_agrees: no ldconfig");
            return;
        };
        let tree = glibc("ld-agree");
        run(&tree, &["/opt/nv"]);
        let cache = tree.path.join("etc/ld.so.cache");
        let output = Command::new(ldconfig)
            .arg("-p")
            .arg("-C")
            .arg(&cache)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success()
                && text.contains("libcuda.so.1 (libc6,x86-64) => /opt/nv/libcuda.so.1"),
            "{text}"
        );
        let theirs = tree.path.join("theirs");
        let made = Command::new(ldconfig)
            .args(["-X", "-C", "/theirs", "-f", "/etc/ld.so.conf", "-r"])
            .arg(&tree.path)
            .output()
            .unwrap();
        if !made.status.success() {
            println!(
                "SKIP the comparison: ldconfig -r needs root: {}",
                String::from_utf8_lossy(&made.stderr).trim()
            );
            return;
        }
        let keys = |path: &Path| {
            let cache = ldcache::parse(&fs::read(path).unwrap()).unwrap();
            let mut all: Vec<_> = cache
                .entries
                .into_iter()
                .filter(|e| e.path.starts_with("/opt/nv"))
                .map(|e| e.key)
                .collect();
            all.sort();
            all
        };
        assert_eq!(keys(&cache), keys(&theirs));
    }
}
