//! The directories that a machine's parts lie in.

use std::path::Path;

use fleet_host::files::Places;
use fleet_host::{Compare, Facts, Tree};

use crate::error::DiscoverError;
use crate::options::Options;

/// A machine's roots.
#[derive(Debug)]
pub struct Machine {
    /// Its own `/`.
    pub host: Tree,
    /// Of the driver installation.
    pub driver: Tree,
    /// Of `/dev`.
    pub dev: Tree,
    /// Of proc and sysfs.
    pub system: Tree,
}

impl Machine {
    /// A machine whose `/` is the directory `root` here. Driver and devices may have roots of their own on it, as where
    /// the driver comes in a container.
    ///
    /// # Errors
    /// A directory is missing.
    pub fn open(
        root: &Path,
        driver: &str,
        dev: &str,
        system: &Path,
    ) -> Result<Self, DiscoverError> {
        let open = |what, at: &Path, prefix: &str| {
            Tree::open(at, prefix).map_err(|source| DiscoverError::Root {
                what,
                path: at.display().to_string(),
                source,
            })
        };
        let below = |path: &str| root.join(path.trim_start_matches('/'));
        Ok(Self {
            host: open("the machine's root", root, "/")?,
            driver: open("the driver root", &below(driver), driver)?,
            dev: open("the root of /dev", &below(dev), dev)?,
            system: open("the root of proc", system, "/")?,
        })
    }

    /// The machine, from now on remembering what is looked up.
    #[must_use]
    pub fn remembering(self) -> Self {
        Self {
            host: self.host.remembering(Compare::Times),
            driver: self.driver.remembering(Compare::Times),
            dev: self.dev.remembering(Compare::Times),
            system: self.system.remembering(Compare::Content),
        }
    }

    /// What was looked up since, in each root.
    #[must_use]
    pub fn facts(&self) -> Vec<Facts> {
        self.trees().map(Tree::facts).to_vec()
    }

    /// Whether all of it would be found again.
    #[must_use]
    pub fn still_has(&self, facts: &[Facts]) -> bool {
        let mut trees = self.trees().into_iter().zip(facts);
        facts.len() == self.trees().len() && trees.all(|(tree, facts)| tree.still_has(facts))
    }

    /// What changes most comes first.
    fn trees(&self) -> [&Tree; 4] {
        [&self.system, &self.dev, &self.driver, &self.host]
    }

    /// Where the driver's files are looked for.
    #[must_use]
    pub fn places(&self, options: &Options) -> Places<'_> {
        Places {
            library_dirs: options.library_dirs.clone(),
            config_dirs: options.config_dirs.clone(),
            ..Places::usual(&self.driver, &self.host, &self.system)
        }
    }
}
