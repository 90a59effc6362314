//! `update-ldcache`: the image's own loader finds the injected libraries, without running any `ldconfig`.
//!
//! glibc: the cache gets the entries that the image's ldconfig would add, in its order, and a drop-in keeps the folders
//! for a later run of it. musl: the folders join its path file. Applying twice changes nothing; folders of an earlier
//! start that are not asked for any more go.

use std::collections::{HashMap, HashSet};

use crate::ldcache::{self, Cache};
use crate::ldconf::{self, COMPAT_DROP_IN, CONF, DROP_IN, INCLUDE};
use crate::libraries::{self, Links, Scanned};
use crate::merge::{self, Directories};
use crate::root::{Root, clean};
use crate::symlink::Made;
use crate::{Applied, ApplyError, musl};

const CACHE: &str = "/etc/ld.so.cache";
/// Largest cache read from an image.
const LIMIT: u64 = 64 * 1024 * 1024;
/// Where glibc's loaders lie, whatever else the image has.
const LOADERS: [&str; 5] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux.so.2",
    "/lib/ld-linux-armhf.so.3",
    "/libx32/ld-linux-x32.so.2",
];

/// What the loader is to know.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Directories of injected libraries; nothing when no edit asks for an update.
    pub(crate) folders: Option<Vec<String>>,
    /// Whether the image's CUDA compatibility libraries are used, and from where; nothing when no edit decides it.
    pub(crate) compat: Option<Option<String>>,
    /// Links that edits of the same run have set.
    pub(crate) links: HashSet<Made>,
}

/// A directory by the name under which it is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: String,
    /// Device and inode, where it exists.
    id: Option<(u64, u64)>,
}

pub(crate) fn update(
    root: &Root<'_>,
    wanted: &Wanted,
    done: &mut Applied,
) -> Result<(), ApplyError> {
    let present = present(root, wanted.folders.iter().flatten(), done);
    let musl = wanted.folders.as_ref().and_then(|_| musl::path_file(root));
    if let Some(path) = &musl {
        let folders: Vec<String> = present.iter().map(|place| place.path.clone()).collect();
        musl::add(root, path, &folders)?;
    }
    if root.exists(CACHE) || LOADERS.iter().any(|path| root.exists(path)) {
        return glibc(root, wanted, &present, done);
    }
    if musl.is_none() {
        done.notes
            .push("the image has no dynamic loader: nothing to tell about libraries".to_owned());
        return Ok(());
    }
    for folder in &present {
        scan_target(root, folder, &HashMap::new(), &wanted.links, done)?;
    }
    Ok(())
}

/// `create-soname-symlinks`: the links alone, as `ldconfig -n -N` makes them.
pub(crate) fn link_sonames(
    root: &Root<'_>,
    folders: &[String],
    links: &HashSet<Made>,
    done: &mut Applied,
) -> Result<(), ApplyError> {
    for folder in present(root, folders.iter(), done) {
        scan_target(root, &folder, &HashMap::new(), links, done)?;
    }
    Ok(())
}

/// Those of the folders that the container has.
fn present<'a>(
    root: &Root<'_>,
    folders: impl Iterator<Item = &'a String>,
    done: &mut Applied,
) -> Vec<Place> {
    let mut present = Vec::new();
    for folder in folders.map(|folder| clean(folder)) {
        match place(root, &folder) {
            Some(place) => present.push(place),
            None => done.notes.push(format!(
                "`{folder}` is not a directory in the container: its libraries are left out"
            )),
        }
    }
    present
}

fn place(root: &Root<'_>, path: &str) -> Option<Place> {
    let stat = root.stat(path).ok()?;
    (stat.st_mode & libc::S_IFMT == libc::S_IFDIR).then(|| Place {
        path: path.to_owned(),
        id: Some((stat.st_dev, stat.st_ino)),
    })
}

fn glibc(
    root: &Root<'_>,
    wanted: &Wanted,
    present: &[Place],
    done: &mut Applied,
) -> Result<(), ApplyError> {
    let defaults = ldconf::defaults(root);
    let configured = ldconf::directories(root);
    let own = configured
        .iter()
        .filter(|found| !found.ours)
        .map(|found| found.path.as_str());
    let image = places(root, own.chain(defaults.iter().map(String::as_str)));
    let (mut targets, new) = targets(&image, present);
    let earlier = write_drop_ins(root, wanted, &new)?;
    let compat = wanted.compat.iter().flatten().next();
    let order = search_order(root, compat, &new, &defaults, done);
    if let Some(compat) = compat.and_then(|path| place(root, path)) {
        targets.retain(|target| target.id != compat.id);
        targets.insert(0, compat);
    }
    let gone = earlier
        .into_iter()
        .filter(|path| !order.iter().any(|place| place.path == *path))
        .collect();
    if targets.is_empty() && HashSet::is_empty(&gone) {
        return Ok(());
    }
    write_cache(root, &targets, &order, gone, &wanted.links, done)
}

/// The directories to look at, each once, and those of them that the image does not search itself. A folder of the
/// image's own keeps its name and place among its directories; a new one comes first.
fn targets(image: &[Place], present: &[Place]) -> (Vec<Place>, Vec<String>) {
    let mut targets: Vec<Place> = Vec::new();
    let mut new = Vec::new();
    for folder in present {
        let known = image.iter().find(|place| place.id == folder.id);
        if targets.iter().any(|other| other.id == folder.id) {
            continue;
        }
        if known.is_none() {
            new.push(folder.path.clone());
        }
        targets.push(known.unwrap_or(folder).clone());
    }
    (targets, new)
}

/// The paths, each directory once: `/lib` may be a link to `/usr/lib`, and the first name counts. One that is missing
/// keeps its place, since the cache may have entries of it.
fn places<'a>(root: &Root<'_>, paths: impl Iterator<Item = &'a str>) -> Vec<Place> {
    let mut found: Vec<Place> = Vec::new();
    for path in paths {
        let new = place(root, path).unwrap_or_else(|| Place {
            path: path.to_owned(),
            id: None,
        });
        let known = |old: &Place| old.path == new.path || new.id.is_some() && old.id == new.id;
        if !found.iter().any(known) {
            found.push(new);
        }
    }
    found
}

/// Writes or removes our drop-ins, and returns the directories that they named before.
fn write_drop_ins(
    root: &Root<'_>,
    wanted: &Wanted,
    new: &[String],
) -> Result<Vec<String>, ApplyError> {
    let folders = wanted.folders.as_ref().map(|_| (DROP_IN, new));
    let compat = wanted
        .compat
        .as_ref()
        .map(|compat| (COMPAT_DROP_IN, compat.as_slice()));
    let mut earlier = Vec::new();
    for (path, directories) in folders.into_iter().chain(compat) {
        earlier.extend(ldconf::lines(root, path));
        if directories.is_empty() {
            match root.remove(path) {
                Err(err) if !matches!(err.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                    return Err(ApplyError::io("remove", path, &err));
                }
                _ => continue,
            }
        }
        if !root.exists(CONF) {
            root.replace(CONF, INCLUDE.as_bytes(), 0o644)
                .map_err(|err| ApplyError::io("write", CONF, &err))?;
        }
        let text: String = directories
            .iter()
            .map(|directory| format!("{directory}\n"))
            .collect();
        root.replace(path, text.as_bytes(), 0o644)
            .map_err(|err| ApplyError::io("write", path, &err))?;
    }
    Ok(earlier)
}

/// All directories in the order in which the image's ldconfig would take them from now on.
fn search_order(
    root: &Root<'_>,
    compat: Option<&String>,
    new: &[String],
    defaults: &[String],
    done: &mut Applied,
) -> Vec<Place> {
    let configured = ldconf::directories(root);
    let ours: Vec<&str> = compat.into_iter().chain(new).map(String::as_str).collect();
    let forgotten = ours
        .iter()
        .any(|path| !configured.iter().any(|found| found.path == **path));
    if forgotten {
        done.notes.push(format!(
            "`{CONF}` of the image does not include `/etc/ld.so.conf.d/*.conf`: a later ldconfig in the container \
             forgets the injected libraries"
        ));
    }
    let first = if forgotten { ours } else { Vec::new() };
    let configured = configured.iter().map(|found| found.path.as_str());
    let all = first
        .into_iter()
        .chain(configured)
        .chain(defaults.iter().map(String::as_str));
    places(root, all)
}

fn write_cache(
    root: &Root<'_>,
    targets: &[Place],
    order: &[Place],
    gone: HashSet<String>,
    links: &HashSet<Made>,
    done: &mut Applied,
) -> Result<(), ApplyError> {
    let old = existing(root, done);
    let made_anew = old.is_none();
    let cache = old.unwrap_or_default();
    let mut scanned = scan_targets(root, targets, &cache, links, done)?;
    if made_anew {
        // There is nothing to add to: it is made from all directories, as ldconfig makes it.
        for other in order
            .iter()
            .filter(|other| !targets.iter().any(|target| target.id == other.id))
        {
            if let Ok(found) = libraries::scan(root, &other.path, &HashMap::new(), Links::Leave) {
                scanned.insert(other.path.clone(), found);
            }
        }
    }
    let order = order.iter().map(|place| place.path.clone()).collect();
    let merged = match merge::merge(
        cache,
        Directories {
            order,
            gone,
            scanned,
        },
    ) {
        None if made_anew => Cache::default(),
        None => return Ok(()),
        Some(merged) => merged,
    };
    root.replace(CACHE, &ldcache::serialise(&merged), 0o644)
        .map_err(|err| ApplyError::io("write", CACHE, &err))
}

fn scan_targets(
    root: &Root<'_>,
    targets: &[Place],
    cache: &Cache,
    links: &HashSet<Made>,
    done: &mut Applied,
) -> Result<HashMap<String, Scanned>, ApplyError> {
    let paths: Vec<String> = targets.iter().map(|place| place.path.clone()).collect();
    let (known, nothing) = (merge::known(cache, &paths), HashMap::new());
    let mut scanned = HashMap::new();
    for target in targets {
        let known = known.get(target.path.as_str()).unwrap_or(&nothing);
        let found = scan_target(root, target, known, links, done)?;
        scanned.insert(target.path.clone(), found);
    }
    Ok(scanned)
}

/// Links are made in the container's own directories only: below a volume they would be made on the host.
fn scan_target(
    root: &Root<'_>,
    target: &Place,
    known: &HashMap<&str, u32>,
    links: &HashSet<Made>,
    done: &mut Applied,
) -> Result<Scanned, ApplyError> {
    let here = links
        .iter()
        .filter(|(directory, _)| Some(*directory) == target.id);
    let kept = here.map(|(_, name)| name.clone()).collect();
    let links = if root.on_own_mount(&target.path) {
        Links::Make(&kept)
    } else {
        Links::Leave
    };
    let scanned = libraries::scan(root, &target.path, known, links);
    let scanned = scanned.map_err(|err| ApplyError::io("list", &target.path, &err))?;
    if let Some(err) = &scanned.unlinked {
        let why = crate::error::reason(err);
        done.notes.push(format!(
            "links for the libraries of `{}` are not made: {why}",
            target.path
        ));
    }
    Ok(scanned)
}

/// The image's cache, if it has one that can be used.
fn existing(root: &Root<'_>, done: &mut Applied) -> Option<Cache> {
    let why = match root.read(CACHE, LIMIT) {
        Ok(bytes) => match ldcache::parse(&bytes) {
            Ok(cache) => return Some(cache),
            Err(err) => err.to_string(),
        },
        Err(err) if err.raw_os_error() == Some(libc::ENOENT) => return None,
        Err(err) => crate::error::reason(&err),
    };
    done.notes.push(format!(
        "`{CACHE}` of the image is not usable ({why}): it is made anew"
    ));
    None
}

#[cfg(test)]
mod tests;
