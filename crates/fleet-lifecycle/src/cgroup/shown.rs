//! What a container sees of its cgroups on v1: a directory for each hierarchy.

use std::path::PathBuf;

use super::hierarchy::Version;
use super::{Cgroup, Result};

/// One hierarchy below a container's cgroup mount.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Names of its directory: `cpu,cpuacct`, and `cpu` and `cpuacct`, too, as programs look for either.
    pub(crate) names: Vec<String>,
    /// The container's own cgroup on the host.
    pub(crate) leaf: PathBuf,
    /// Option that mounts the hierarchy: `cpu,cpuacct`, `name=systemd`.
    pub(crate) data: String,
}

impl Cgroup {
    /// All hierarchies of v1 that the container has a cgroup in.
    ///
    /// # Errors
    /// The file that cannot be read.
    pub(crate) fn shown(&self) -> Result<Vec<Shown>> {
        let leaves = self.owned()?.unwrap_or_default();
        Ok(leaves
            .iter()
            .filter(|(hierarchy, _)| !hierarchy.is_beside_v1())
            .filter_map(|(hierarchy, _)| {
                let directory = hierarchy.name()?.to_owned();
                let parts = directory.split(',').map(str::to_owned);
                let mut names = vec![directory.clone()];
                names.extend(parts.filter(|part| *part != directory));
                Some(Shown {
                    names,
                    leaf: hierarchy.leaf(self.path()),
                    data: hierarchy.controllers.join(","),
                })
            })
            .collect())
    }

    /// The container's directory in the hierarchy of these controllers, as [`Shown::data`] names them; on v2 in the
    /// one that there is, whose name is empty.
    ///
    /// # Errors
    /// As [`Cgroup::shown`].
    pub(crate) fn leaf_of(&self, data: &str) -> Result<Option<PathBuf>> {
        let leaves = self.owned()?.unwrap_or_default();
        let found = leaves.iter().find(|(hierarchy, _)| match self.version {
            Version::V1 => hierarchy.name().is_some() && hierarchy.controllers.join(",") == data,
            Version::V2 => data.is_empty(),
        });
        Ok(found.map(|(_, leaf)| leaf.clone()))
    }
}
