//! New entries among those of the image's cache, in the order that ldconfig would give them.

use std::collections::{HashMap, HashSet};

use crate::ldcache::{self, Cache, Entry, HWCAP_EXTENSION};
use crate::libraries::{Found, Scanned};

/// What is known of the directories.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    /// In search order.
    pub(crate) order: Vec<String>,
    /// Those that an earlier start had added and that are not searched any more.
    pub(crate) gone: HashSet<String>,
    /// Those that were looked at.
    pub(crate) scanned: HashMap<String, Scanned>,
}

fn split(path: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(path).ok()?.rsplit_once('/')
}

/// By directory, the names that the cache has there and their flags.
pub(crate) fn known<'a>(
    cache: &'a Cache,
    directories: &'a [String],
) -> HashMap<&'a str, HashMap<&'a str, u32>> {
    let empty = directories
        .iter()
        .map(|path| (path.as_str(), HashMap::new()));
    let mut known: HashMap<&str, HashMap<&str, u32>> = empty.collect();
    for entry in &cache.entries {
        if let Some((directory, name)) = split(&entry.path)
            && let Some(names) = known.get_mut(directory)
        {
            names.insert(name, entry.flags);
        }
    }
    known
}

/// The cache to write; nothing when the old one says all.
pub(crate) fn merge(mut cache: Cache, mut directories: Directories) -> Option<Cache> {
    let ranks: HashMap<String, usize> = directories
        .order
        .drain(..)
        .enumerate()
        .map(|(rank, path)| (path, rank))
        .collect();
    let mut found: Vec<(usize, Found)> = Vec::new();
    for (path, scanned) in &mut directories.scanned {
        let rank = ranks.get(path).copied().unwrap_or(0);
        found.extend(scanned.found.drain(..).map(|found| (rank, found)));
    }
    let before = cache.entries.len();
    drop_outdated(&mut cache, &directories, &found);
    if found.is_empty() && cache.entries.len() == before {
        return None;
    }
    // Directories are in no order here; the names of one are.
    found.sort_by(|a, b| (a.0, &a.1.path).cmp(&(b.0, &b.1.path)));
    add_hwcaps(
        &mut cache,
        found
            .iter()
            .filter_map(|(_, found)| found.hwcaps.as_deref()),
    );
    let new = found
        .into_iter()
        .map(|(rank, found)| (rank, entry(found, &cache.hwcaps)));
    let new: Vec<(usize, Entry)> = new.collect();
    ldcache::sort(&mut cache);
    cache.entries = ranked(
        new,
        std::mem::take(&mut cache.entries),
        &cache.hwcaps,
        &ranks,
    );
    Some(cache)
}

/// Entries of the image stay, but not those of directories that went with an earlier start, of files that went, and
/// those that were found again.
fn drop_outdated(cache: &mut Cache, directories: &Directories, found: &[(usize, Found)]) {
    let again: HashSet<(u32, &[u8], &[u8])> = found
        .iter()
        .map(|(_, found)| (found.flags, found.key.as_bytes(), found.path.as_bytes()))
        .collect();
    cache.entries.retain(|entry| {
        if again.contains(&(entry.flags, entry.key.as_slice(), entry.path.as_slice())) {
            return false;
        }
        let Some((directory, name)) = split(&entry.path) else {
            return true;
        };
        let scanned = directories.scanned.get(directory);
        !directories.gone.contains(directory) && scanned.is_none_or(|scanned| scanned.has(name))
    });
}

/// Puts names of hardware capabilities among the cache's, which moves the indices of its entries.
fn add_hwcaps<'a>(cache: &mut Cache, new: impl Iterator<Item = &'a str>) {
    let before = cache.hwcaps.clone();
    cache
        .hwcaps
        .extend(new.map(|name| name.as_bytes().to_vec()));
    cache.hwcaps.sort();
    cache.hwcaps.dedup();
    // An index beyond the table names nothing: the loader skips such an entry.
    cache
        .entries
        .retain(|entry| entry.hwcaps_index().is_none_or(|at| at < before.len()));
    for entry in &mut cache.entries {
        if let Some(name) = entry.hwcaps_index().and_then(|at| before.get(at)) {
            entry.hwcap = entry.hwcap & !u64::from(u32::MAX) | index(&cache.hwcaps, name);
        }
    }
}

fn index(hwcaps: &[Vec<u8>], name: &[u8]) -> u64 {
    hwcaps
        .iter()
        .position(|known| known == name)
        .unwrap_or_default() as u64
}

fn entry(found: Found, hwcaps: &[Vec<u8>]) -> Entry {
    let named = |name: &String| HWCAP_EXTENSION | index(hwcaps, name.as_bytes());
    Entry {
        flags: found.flags,
        key: found.key.into_bytes(),
        path: found.path.into_bytes(),
        os_version: 0,
        hwcap: found.hwcaps.as_ref().map_or(0, named),
    }
}

/// Among entries of one name, those of the image stay in its order, and a new one goes before the first whose
/// directory is searched later.
fn ranked(
    new: Vec<(usize, Entry)>,
    old: Vec<Entry>,
    hwcaps: &[Vec<u8>],
    ranks: &HashMap<String, usize>,
) -> Vec<Entry> {
    let mut all = new;
    let first = all.len();
    for entry in old {
        let own = split(&entry.path).and_then(|(directory, _)| ranks.get(directory));
        let least = match all[first..].last() {
            Some((rank, before)) if ldcache::compare(before, &entry, hwcaps).is_eq() => *rank,
            _ => 0,
        };
        all.push((own.copied().unwrap_or(least).max(least), entry));
    }
    all.sort_by(|(a_rank, a), (b_rank, b)| ldcache::compare(a, b, hwcaps).then(a_rank.cmp(b_rank)));
    all.into_iter().map(|(_, entry)| entry).collect()
}
