//! The directories that a machine's parts lie in.

use std::path::Path;

use fleet_host::Tree;
use fleet_host::files::Places;

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
