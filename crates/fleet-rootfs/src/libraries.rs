//! The libraries of one directory, as ldconfig sees them (`search_dir` of glibc's `elf/ldconfig.c`).
//!
//! For each soname the best file counts: a file before a link, then the higher version. Its entry in the cache names
//! the soname's link in the same directory, so that the file may change; a missing or outdated link is made where
//! the directory is the container's own.
//!
//! What the image's cache tells of the directory already is believed, not read again: a directory of a thousand
//! libraries gets fifty, and only those are opened.

mod rules;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use crate::elf;
use crate::ldcache::compare_names;
use crate::libraries::rules::{flags, is_library};
use crate::root::{Directory, FileType, Root};

/// Links to links that are followed by name.
const MAX_LINKS: usize = 8;
/// Where a directory keeps builds for newer processors.
const HWCAPS: &str = "glibc-hwcaps";

/// What may be done to soname links.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Links<'a> {
    /// They are left as they are.
    Leave,
    /// Missing ones are made, outdated ones are changed, but not these names, which an edit has set.
    Make(&'a HashSet<String>),
    /// The cache names files themselves (`glibc-hwcaps` directories).
    Unused,
}

/// An entry to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) flags: u32,
    pub(crate) key: String,
    pub(crate) path: String,
    /// Name of the `glibc-hwcaps` directory.
    pub(crate) hwcaps: Option<String>,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// Entries that the cache lacks, or that were looked at again.
    pub(crate) found: Vec<Found>,
    names: HashMap<String, Name>,
    /// Why soname links could not be made, if so.
    pub(crate) unlinked: Option<io::Error>,
}

impl Scanned {
    /// Whether an entry of this name leads to something.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names
            .get(name)
            .is_some_and(|name| !matches!(name.state, State::Dead))
    }
}

/// Reads a directory, of whose names `known` are in the cache with these flags.
///
/// # Errors
/// The directory cannot be listed.
pub(crate) fn scan(
    root: &Root<'_>,
    path: &str,
    known: &HashMap<&str, u32>,
    links: Links<'_>,
) -> io::Result<Scanned> {
    let (mut scan, has_hwcaps) = Scan::new(root, path)?;
    scan.trust(known);
    let mut done = scan.finish(links);
    if has_hwcaps && known.is_empty() {
        add_hwcaps(root, path, &mut done)?;
    }
    Ok(done)
}

fn add_hwcaps(root: &Root<'_>, path: &str, done: &mut Scanned) -> io::Result<()> {
    let base = format!("{path}/{HWCAPS}");
    let Ok(directory) = root.directory(&base) else {
        return Ok(());
    };
    for (name, kind) in directory.entries()? {
        if !matches!(kind, FileType::Directory | FileType::Symlink) || name.starts_with('.') {
            continue;
        }
        let below = format!("{base}/{name}");
        let Ok((scan, _)) = Scan::new(root, &below) else {
            continue;
        };
        for mut found in scan.finish(Links::Unused).found {
            found.hwcaps = Some(name.clone());
            done.found.push(found);
        }
    }
    Ok(())
}

/// A name that may be a library.
#[derive(Debug)]
struct Name {
    kind: FileType,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// To be looked at.
    New,
    /// In the cache with these flags, and there.
    Known(u32),
    /// The file behind a known link.
    Behind,
    /// No library, or a link that leads nowhere.
    Dead,
}

/// A file or link that may stand for a soname.
#[derive(Debug, Clone)]
struct Candidate {
    name: String,
    flags: u32,
    /// The link for compilers or the soname's own link: it gives way to a file.
    link: bool,
    /// In the cache already.
    old: bool,
}

struct Scan<'a> {
    root: &'a Root<'a>,
    path: &'a str,
    directory: Directory,
    names: HashMap<String, Name>,
    best: BTreeMap<String, Candidate>,
    parsed: HashMap<String, Option<(Option<String>, u32)>>,
}

impl<'a> Scan<'a> {
    fn new(root: &'a Root<'a>, path: &'a str) -> io::Result<(Self, bool)> {
        let directory = root.directory(path)?;
        let mut has_hwcaps = false;
        let mut names = HashMap::new();
        directory.each(|name, kind| {
            has_hwcaps |= name == HWCAPS;
            if is_library(name) && matches!(kind, FileType::RegularFile | FileType::Symlink) {
                let state = State::New;
                names.insert(name.to_owned(), Name { kind, state });
            }
        })?;
        let scan = Self {
            root,
            path,
            directory,
            names,
            best: BTreeMap::new(),
            parsed: HashMap::new(),
        };
        Ok((scan, has_hwcaps))
    }

    fn below(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    fn kind(&self, name: &str) -> Option<FileType> {
        self.names.get(name).map(|name| name.kind)
    }

    /// Takes over what the cache knows, where it still holds: a name that is there and leads somewhere. The file
    /// behind it is known with it.
    fn trust(&mut self, known: &HashMap<&str, u32>) {
        for (name, flags) in known {
            match self.kind(name) {
                None => continue,
                Some(FileType::Symlink) => {
                    let text = self
                        .directory
                        .read_link(name)
                        .ok()
                        .flatten()
                        .unwrap_or_default();
                    match self.kind(&text) {
                        Some(FileType::RegularFile) => self.set_behind(&text),
                        // Judged by its own text.
                        Some(_) if known.contains_key(text.as_str()) => {}
                        _ if self.root.exists(&self.below(name)) => {}
                        _ => continue,
                    }
                }
                Some(_) => {}
            }
            self.set(name, State::Known(*flags));
        }
    }

    fn set(&mut self, name: &str, state: State) {
        if let Some(name) = self.names.get_mut(name) {
            name.state = state;
        }
    }

    fn set_behind(&mut self, file: &str) {
        if let Some(file) = self.names.get_mut(file)
            && matches!(file.state, State::New)
        {
            file.state = State::Behind;
        }
    }

    fn finish(mut self, links: Links<'_>) -> Scanned {
        let new = self
            .names
            .iter()
            .filter(|(_, name)| matches!(name.state, State::New));
        let mut new: Vec<String> = new.map(|(name, _)| name.clone()).collect();
        new.sort_unstable();
        for name in &new {
            match self.facts(name) {
                Some((soname, flags)) => self.weigh(name, soname, flags),
                None => self.set(name, State::Dead),
            }
        }
        let mut done = Scanned::default();
        let best = std::mem::take(&mut self.best);
        for (soname, candidate) in best.into_iter().filter(|(_, candidate)| !candidate.old) {
            let name = match links {
                Links::Unused => candidate.name.clone(),
                _ if candidate.link || candidate.name == soname => soname.clone(),
                _ => self.linked(&soname, &candidate.name, links, &mut done.unlinked),
            };
            done.found.push(self.entry(soname, &name, candidate.flags));
        }
        self.look_again(&new, &mut done.found);
        done.names = self.names;
        done
    }

    /// The link for compilers, which programs that load a library without a version use, too, may lead to a soname's
    /// link that was only made now.
    fn look_again(&mut self, new: &[String], found: &mut Vec<Found>) {
        for name in new.iter().filter(|name| name.ends_with(".so")) {
            let dangling = self.names.get(name).is_some_and(|name| {
                name.kind == FileType::Symlink && matches!(name.state, State::Dead)
            });
            if !dangling {
                continue;
            }
            self.parsed.remove(name);
            if let Some((Some(soname), flags)) = self.facts(name)
                && soname.starts_with(name.as_str())
            {
                found.push(self.entry(name.clone(), name, flags));
                self.set(name, State::New);
            }
        }
    }

    fn entry(&self, key: String, name: &str, flags: u32) -> Found {
        Found {
            flags,
            key,
            path: self.below(name),
            hwcaps: None,
        }
    }

    /// Soname and flags of the library that a name leads to.
    fn facts(&mut self, name: &str) -> Option<(Option<String>, u32)> {
        let mut last = name.to_owned();
        for _ in 0..MAX_LINKS {
            if self.kind(&last) != Some(FileType::Symlink) {
                break;
            }
            match self.directory.read_link(&last).ok().flatten() {
                Some(text) if self.names.contains_key(&text) => last = text,
                _ => break,
            }
        }
        if let Some(facts) = self.parsed.get(&last) {
            return facts.clone();
        }
        let file = match self.kind(&last) {
            Some(FileType::RegularFile) => self.directory.open(&last),
            _ => self.root.open_file(&self.below(&last)),
        };
        let library = file.ok().and_then(|file| elf::library(&file));
        let facts = library.and_then(|library| Some((library.soname.clone(), flags(&library)?)));
        self.parsed.insert(last, facts.clone());
        facts
    }

    /// Lets a name compete for its soname.
    fn weigh(&mut self, name: &str, soname: Option<String>, flags: u32) {
        let soname = soname.unwrap_or_else(|| name.to_owned());
        let for_compilers = name.ends_with(".so") && soname.starts_with(name);
        let link = self.kind(name) == Some(FileType::Symlink) && (name == soname || for_compilers);
        let key = if link { name.to_owned() } else { soname };
        if !self.best.contains_key(&key)
            && let Some(old) = self.old(&key)
        {
            self.best.insert(key.clone(), old);
        }
        let better = self
            .best
            .get(&key)
            .is_none_or(|best| match (link, best.link) {
                (false, true) => true,
                (true, false) => false,
                _ => compare_names(best.name.as_bytes(), name.as_bytes()).is_lt(),
            });
        if better {
            let candidate = Candidate {
                name: name.to_owned(),
                flags,
                link,
                old: false,
            };
            self.best.insert(key, candidate);
        }
    }

    /// What stands for a soname that the cache knows.
    fn old(&self, soname: &str) -> Option<Candidate> {
        let name = self.names.get(soname)?;
        let State::Known(flags) = name.state else {
            return None;
        };
        let text = match name.kind {
            FileType::Symlink => self.directory.read_link(soname).ok().flatten(),
            _ => None,
        };
        let file = text.filter(|text| self.kind(text) == Some(FileType::RegularFile));
        let link = name.kind == FileType::Symlink && file.is_none();
        let name = file.unwrap_or_else(|| soname.to_owned());
        Some(Candidate {
            name,
            flags,
            link,
            old: true,
        })
    }

    /// The name that stands for the soname in the cache: its link, made or changed where that may be, or the file.
    fn linked(
        &mut self,
        soname: &str,
        name: &str,
        links: Links<'_>,
        failed: &mut Option<io::Error>,
    ) -> String {
        let there = self.kind(soname);
        let settled = match (there, links) {
            (Some(FileType::Symlink), Links::Make(kept)) => {
                kept.contains(soname) || self.same(soname, name)
            }
            (Some(FileType::Symlink), _) => self.root.exists(&self.below(soname)),
            (there, _) => there.is_some(),
        };
        if settled {
            return soname.to_owned();
        }
        let Links::Make(_) = links else {
            return name.to_owned();
        };
        let made = match there {
            Some(_) => self.directory.replace_link(name, soname),
            None => self.directory.make_link(name, soname),
        };
        let made = match made {
            // Made since the directory was listed, by another container that starts in the same tree.
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => self.met(soname, name),
            made => made,
        };
        match made {
            Ok(()) => {
                let (kind, state) = (FileType::Symlink, State::New);
                self.names.insert(soname.to_owned(), Name { kind, state });
                soname.to_owned()
            }
            Err(err) => {
                failed.get_or_insert(err);
                name.to_owned()
            }
        }
    }

    /// Takes over a link that appeared beside us, or sets it right; a file of that name stays.
    fn met(&self, soname: &str, name: &str) -> io::Result<()> {
        if self.same(soname, name) || self.directory.kind(soname)? != Some(FileType::Symlink) {
            return Ok(());
        }
        self.directory.replace_link(name, soname)
    }

    fn same(&self, soname: &str, name: &str) -> bool {
        if self.directory.read_link(soname).ok().flatten().as_deref() == Some(name) {
            return true;
        }
        match (
            self.root.stat(&self.below(soname)),
            self.root.stat(&self.below(name)),
        ) {
            (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::elf::tests::image;
    use crate::root::tests::Tree;

    /// Two containers that start in one tree: a link that the other made after our listing is as good as our own.
    #[test]
    fn a_link_that_appears_beside_the_scan() {
        for (met, left) in [
            ("libcuda.so.550.1", "libcuda.so.550.1"),
            ("libcuda.so.470.1", "libcuda.so.550.1"),
        ] {
            let tree = Tree::new("scan-race");
            tree.write("lib/libcuda.so.550.1", image(true, 62, "libcuda.so.1"));
            let root = tree.root();
            let (scan, _) = Scan::new(&root, "/lib").unwrap();
            symlink(met, tree.path.join("lib/libcuda.so.1")).unwrap();
            let done = scan.finish(Links::Make(&HashSet::new()));
            assert!(done.unlinked.is_none(), "{:?}", done.unlinked);
            let paths: Vec<_> = done.found.iter().map(|found| &found.path).collect();
            assert_eq!(paths, ["/lib/libcuda.so.1"]);
            let text = std::fs::read_link(tree.path.join("lib/libcuda.so.1")).unwrap();
            assert_eq!(text.to_str(), Some(left));
        }
    }

    /// A file in the link's place is the image's or another container's: nothing tells that it may go.
    #[test]
    fn a_file_that_appears_beside_the_scan_stays() {
        let tree = Tree::new("scan-race-file");
        tree.write("lib/libcuda.so.550.1", image(true, 62, "libcuda.so.1"));
        let root = tree.root();
        let (scan, _) = Scan::new(&root, "/lib").unwrap();
        tree.write("lib/libcuda.so.1", b"theirs");
        let done = scan.finish(Links::Make(&HashSet::new()));
        assert!(done.unlinked.is_none(), "{:?}", done.unlinked);
        let text = std::fs::read(tree.path.join("lib/libcuda.so.1")).unwrap();
        assert_eq!(text, b"theirs");
    }
}
