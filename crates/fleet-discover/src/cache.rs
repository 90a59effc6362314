//! The last spec that was made in memory, and what it was made from.
//!
//! It is taken again only if every file, directory and node that was looked at then is the same now: the text of
//! `/proc/driver/nvidia/version`, of each GPU's `information` and of the boot id, the partitions in proc, the numbers of
//! nodes, inode and change time of the directories of libraries, and whatever else the rules have asked for. So no list of
//! what matters can fall behind the rules.

use std::time::Duration;

use fleet_cdi::Spec;
use fleet_host::{Facts, Rebuilt, Store};
use serde::{Deserialize, Serialize};

/// In the store.
const NAME: &str = "nvidia.com-gpu.json";
/// Changes with the form of the file.
const FORMAT: u32 = 1;
/// Longer than a tick of any file system's clock.
const PAUSE: Duration = Duration::from_secs(1);

/// Where it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Cache(Store);

/// A look at the machine with its driver in one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Looked {
    pub(crate) driver: String,
    pub(crate) dev: String,
    pub(crate) facts: Vec<Facts>,
}

/// What decides beside the machine.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Key {
    format: u32,
    version: String,
    /// Whether nodes that are missing were to be made.
    supply: bool,
    /// Programs and shared data are looked for where these say.
    path: Option<String>,
    data_dirs: Option<String>,
}

impl Key {
    fn own(supply: bool) -> Self {
        let variable = |name| std::env::var(name).ok();
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            supply,
            path: variable("PATH"),
            data_dirs: variable("XDG_DATA_DIRS"),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Kept {
    key: Key,
    looked: Vec<Looked>,
    warnings: Vec<String>,
    left_out: Vec<String>,
    spec: Spec,
}

impl From<Kept> for Rebuilt {
    fn from(kept: Kept) -> Self {
        Self {
            spec: kept.spec,
            warnings: kept.warnings,
            left_out: kept.left_out,
            // None was missing when it was kept, or none was to be made.
            supplied: Vec::new(),
        }
    }
}

#[derive(Serialize)]
struct Written<'a> {
    key: Key,
    looked: &'a [Looked],
    warnings: &'a [String],
    left_out: &'a [String],
    spec: &'a Spec,
}

impl Cache {
    pub(crate) fn new(store: Store) -> Self {
        Self(store)
    }

    /// The spec, if all that it was made from is the same. What cannot be read counts as nothing.
    pub(crate) fn read(&self, supply: bool, is_same: impl Fn(&Looked) -> bool) -> Option<Kept> {
        let bytes = self.0.read(NAME)?;
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        let holds = kept.key == Key::own(supply) && !kept.looked.is_empty();
        let holds = holds && kept.looked.iter().all(is_same) && kept.spec.validate().is_ok();
        holds.then_some(kept)
    }

    /// Keeps a spec. What fails costs the next container two milliseconds and is not told.
    pub(crate) fn write(&self, supply: bool, looked: &[Looked], made: &Rebuilt) {
        let mut facts = looked.iter().flat_map(|looked| &looked.facts);
        if !facts.all(|facts| facts.at_rest(PAUSE)) {
            return;
        }
        let written = Written {
            key: Key::own(supply),
            looked,
            warnings: &made.warnings,
            left_out: &made.left_out,
            spec: &made.spec,
        };
        if let Ok(bytes) = serde_json::to_vec(&written) {
            drop(self.0.write(NAME, &bytes));
        }
    }
}
