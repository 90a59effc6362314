//! What was looked up in a tree, and what was found, so that one can tell later whether the same would be found again.
//!
//! Where files lie, a directory's inode and change time stand for the names in it, and looking at them costs one call
//! for hundreds of names. Proc and sysfs have no such times; there the content is compared.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleet_rootfs::root::{OFlags, Stat, clean};
use serde::{Deserialize, Serialize};

use super::{NodeStat, Tree};

/// What a path was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Query {
    /// Where it leads.
    #[serde(rename = "l")]
    Leads,
    /// Its type and execute bits, links followed.
    #[serde(rename = "k")]
    Kind,
    /// Whether it is a directory of root's.
    #[serde(rename = "r")]
    Roots,
    /// The text of a link.
    #[serde(rename = "t")]
    Link,
    /// The names in a directory, by its inode and change time.
    #[serde(rename = "d")]
    Directory,
    /// The names in a directory, by themselves.
    #[serde(rename = "n")]
    Names,
    /// The content of a file, by itself.
    #[serde(rename = "c")]
    Content,
    /// The content of a file, by its inode, size and change time.
    #[serde(rename = "f")]
    File,
    /// A device node.
    #[serde(rename = "v")]
    Node,
    /// Nothing: it is not there.
    #[serde(rename = "a")]
    Absent,
}

/// How a tree's content is told to be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// By inodes and change times.
    Times,
    /// By itself: proc and sysfs.
    Content,
}

/// What was found in one tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    found: Vec<(Query, String, u64)>,
    /// The latest change time among them.
    #[serde(skip)]
    newest: Duration,
}

impl Facts {
    /// Whether everything was at rest for `pause` before now. What changes within one tick of the file system's clock
    /// after it was looked at keeps its change time.
    #[must_use]
    pub fn at_rest(&self, pause: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.is_ok_and(|now| self.newest + pause < now)
    }
}

/// What is being found.
#[derive(Debug)]
pub(super) struct Journal {
    compare: Compare,
    found: RefCell<BTreeMap<(Query, String), u64>>,
    absent: RefCell<BTreeSet<String>>,
    newest: RefCell<Duration>,
}

/// Directories whose change time says little, since everybody makes names in them.
const BUSY: [&str; 5] = ["/", "/dev", "/run", "/var/run", "/tmp"];
/// So many missing names are cheaper told by the directory that lacks them.
const FEW: usize = 3;

impl Journal {
    pub(super) fn new(compare: Compare) -> Self {
        Self {
            compare,
            found: RefCell::default(),
            absent: RefCell::default(),
            newest: RefCell::default(),
        }
    }

    pub(super) fn is_by_content(&self) -> bool {
        self.compare == Compare::Content
    }

    /// The first finding counts: what has changed since is noticed.
    pub(super) fn note(&self, query: Query, path: &str, found: io::Result<u64>) {
        match found {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                self.absent.borrow_mut().insert(clean(path));
            }
            found => {
                let mut all = self.found.borrow_mut();
                all.entry((query, clean(path)))
                    .or_insert_with(|| value(found));
            }
        }
    }

    pub(super) fn note_time(&self, stat: &Stat) {
        let mut newest = self.newest.borrow_mut();
        *newest = (*newest).max(change_time(stat));
    }

    /// Whether the directory that holds the name is among the facts, and with it every name in it.
    pub(super) fn has_directory_of(&self, path: &str) -> bool {
        let path = clean(path);
        let dir = parent(&path).to_owned();
        self.found.borrow().contains_key(&(Query::Directory, dir))
    }
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((dir, _)) => dir,
    }
}

fn change_time(stat: &Stat) -> Duration {
    let seconds = u64::try_from(stat.st_ctime).unwrap_or_default();
    let nanos = u32::try_from(stat.st_ctime_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn value(found: io::Result<u64>) -> u64 {
    found.unwrap_or_else(|err| hash(("error", err.raw_os_error(), err.kind())))
}

pub(super) fn of_target(path: &str, is_dir: bool) -> u64 {
    hash((path, is_dir))
}

pub(super) fn of_kind(stat: &Stat) -> u64 {
    const TYPE: u32 = 0o170_000;
    hash(stat.st_mode & (TYPE | 0o111))
}

pub(super) fn of_text(text: impl Hash) -> u64 {
    hash(text)
}

pub(super) fn of_identity(stat: &Stat) -> u64 {
    let time = (stat.st_ctime, stat.st_ctime_nsec);
    hash((stat.st_dev, stat.st_ino, stat.st_size, time))
}

pub(super) fn of_node(node: Option<NodeStat>) -> u64 {
    hash(node.map(|node| (node.major, node.minor, node.mode, node.gid)))
}

impl Tree {
    /// Remembers from now on what is looked up, for [`Tree::facts`].
    #[must_use]
    pub fn remembering(mut self, compare: Compare) -> Self {
        self.journal = Some(Journal::new(compare));
        self
    }

    /// What was looked up so far, in few words: of a directory that is not there, nothing below it is told.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let Some(journal) = &self.journal else {
            return Facts::default();
        };
        let mut missing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for path in journal.absent.borrow().iter() {
            let (dir, name) = self.first_missing(path);
            missing.entry(dir).or_default().insert(name);
        }
        for (dir, names) in missing {
            self.note_missing(journal, &dir, names);
        }
        let found = journal.found.borrow();
        let found = found
            .iter()
            .map(|((query, path), value)| (*query, path.clone(), *value));
        Facts {
            found: found.collect(),
            newest: *journal.newest.borrow(),
        }
    }

    /// The deepest directory that is there, and the path of what is missing in it.
    fn first_missing(&self, path: &str) -> (String, String) {
        let mut name = path.to_owned();
        while !parent(&name).is_empty() && parent(&name) != "/" {
            let dir = parent(&name).to_owned();
            if self.root().exists(&dir) {
                break;
            }
            name = dir;
        }
        (parent(&name).to_owned(), name)
    }

    fn note_missing(&self, journal: &Journal, dir: &str, mut names: BTreeSet<String>) {
        let is_there = |name: &str| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            self.root().open(name, flags).is_ok()
        };
        // Links that lead nowhere: the directory does not change when their target appears.
        let dangling: BTreeSet<String> = names
            .iter()
            .filter(|name| is_there(name))
            .cloned()
            .collect();
        names.retain(|name| !dangling.contains(name));
        let listed = journal
            .found
            .borrow()
            .contains_key(&(Query::Directory, dir.to_owned()));
        let mut alone = dangling;
        let is_busy = BUSY.contains(&dir) || journal.is_by_content();
        if !listed && names.len() >= FEW && !is_busy {
            let found = self.root().directory(dir).and_then(|dir| dir.stat());
            if let Ok(stat) = &found {
                journal.note_time(stat);
            }
            journal.note(Query::Directory, dir, found.map(|stat| of_identity(&stat)));
            // One that has appeared meanwhile.
            alone.extend(names.into_iter().filter(|name| is_there(name)));
        } else if !listed {
            alone.append(&mut names);
        }
        let mut found = journal.found.borrow_mut();
        for name in alone {
            found.insert((Query::Absent, name), 0);
        }
    }

    /// Whether all that was found would be found again.
    #[must_use]
    pub fn still_has(&self, facts: &Facts) -> bool {
        let same = |(query, path, found): &(Query, String, u64)| self.value(*query, path) == *found;
        facts.found.iter().all(same)
    }

    fn value(&self, query: Query, path: &str) -> u64 {
        let root = self.root();
        let found = match query {
            Query::Leads => self
                .look(path)
                .map(|found| of_target(&found.path, found.is_dir)),
            Query::Kind => root.stat(path).map(|stat| of_kind(&stat)),
            Query::Roots => Ok(of_text(self.is_roots_directory(path))),
            Query::Link => self.read_link(path).map(of_text),
            Query::Directory => root
                .directory(path)
                .and_then(|dir| dir.stat())
                .map(|stat| of_identity(&stat)),
            Query::Names => self.names(path).map(of_text),
            Query::Content => self.bytes(path, super::TEXT_LIMIT).map(of_text),
            Query::File => root.stat(path).map(|stat| of_identity(&stat)),
            Query::Node => self.node(path).map(of_node),
            Query::Absent => match root.exists(path) {
                true => Ok(1),
                false => Ok(0),
            },
        };
        value(found)
    }
}
