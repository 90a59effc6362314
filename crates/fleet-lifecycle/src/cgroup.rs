//! The container's cgroup: chosen, made, limited, frozen, killed and removed by us, on v1, hybrid (treated as v1)
//! and v2.
//!
//! libcontainer 0.7: takes an empty path for the root and kills what it finds there (S5), joins a cgroup that others
//! use (S6), enforces no device rules on v2 (S3), cannot remove nested cgroups. Here a path is absolute and checked,
//! a cgroup with processes in it is refused, and nothing is ever killed or removed that we did not make, or that we
//! are in ourselves.

mod choose;
mod control;
mod devices;
mod ebpf;
mod enter;
mod error;
mod file;
mod freezer;
mod hierarchy;
mod limits;
mod list;
mod processes;
mod scope;
mod shown;
mod stats;
mod sub;
mod systemd;
#[cfg(test)]
mod tests;
mod unit;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use error::{denied, io_error};
use freezer::Freezer;
use hierarchy::{Hierarchy, Version};

pub use choose::Request;
pub(crate) use enter::{Doors, Way};
pub use error::CgroupError;
pub(crate) use error::Result;
pub use scope::Demand;
pub(crate) use shown::Shown;
pub use systemd::{Occupant, Session};

/// Who manages cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// We do, through the file system.
    Cgroupfs,
    /// systemd does.
    Systemd,
    /// Nobody: the container stays in its caller's cgroup.
    Disabled,
}

/// Every hierarchy with the container's directory in it.
type Leaves = Arc<[(Hierarchy, PathBuf)]>;

/// Found once per run: the mount table of a busy machine is long.
#[derive(Debug, Clone, Default)]
struct Found(OnceLock<Leaves>);

impl PartialEq for Found {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Found {}

/// Where a container's processes are accounted; stored in its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cgroup {
    /// Who manages it.
    pub driver: Driver,
    version: Version,
    /// Below every hierarchy's mount point, absolute; empty without one.
    path: String,
    /// The systemd unit that the path was written as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// The systemd that has the unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manager: Option<systemd::Manager>,
    /// The unit to be made.
    #[serde(skip)]
    unit: Option<unit::Unit>,
    /// We made it, so we may kill in it and remove it.
    #[serde(default)]
    made: bool,
    /// We were about to make it: it may be there, but without a process of ours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    announced: bool,
    #[serde(skip)]
    found: Found,
}

impl Cgroup {
    fn new(driver: Driver, version: Version, path: String, scope: Option<String>) -> Self {
        Self {
            driver,
            version,
            path,
            scope,
            manager: None,
            unit: None,
            made: false,
            announced: false,
            found: Found::default(),
        }
    }

    /// As it is written down before it is made.
    #[must_use]
    pub(crate) fn announced(&self) -> Self {
        Self {
            announced: self.driver != Driver::Disabled,
            ..self.clone()
        }
    }

    /// Decides where the cgroup is; touches nothing.
    ///
    /// # Errors
    /// A path that would reach processes other than the container's, or that the kernel would not take.
    pub fn choose(request: &Request<'_>) -> Result<Self> {
        choose::choose(request)
    }

    /// Path below every hierarchy's mount point.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name of the systemd unit, when `linux.cgroupsPath` was `slice:prefix:name`.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// Whether the container has a cgroup of its own.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.made
    }

    fn leaves(&self) -> Result<Leaves> {
        if let Some(known) = self.found.0.get() {
            return Ok(Arc::clone(known));
        }
        let all = hierarchy::of_leaf(self.version)?;
        let leaves: Leaves = all
            .into_iter()
            .chain(self.beside_v1())
            .map(|h| (h.clone(), h.leaf(&self.path)))
            .collect();
        Ok(Arc::clone(self.found.0.get_or_init(|| leaves)))
    }

    /// The unit's cgroup in systemd's own cgroup2 on a hybrid machine, where systemd has made one.
    fn beside_v1(&self) -> Option<Hierarchy> {
        let systemds = self.driver == Driver::Systemd && self.version == Version::V1;
        let beside = systemds.then(hierarchy::of_units)??;
        beside.leaf(&self.path).is_dir().then_some(beside)
    }

    /// The directories of a cgroup that we made; `None` without one.
    fn owned(&self) -> Result<Option<Leaves>> {
        match self.made {
            true => self.checked_leaves().map(Some),
            false => Ok(None),
        }
    }

    /// A record that names a whole hierarchy, or a way out of one, is damaged.
    fn checked_leaves(&self) -> Result<Leaves> {
        let whole = self.path.trim_matches('/').is_empty();
        if whole
            || !self.path.starts_with('/')
            || self.path.split('/').any(|part| part == ".." || part == ".")
        {
            return Err(CgroupError::Invalid(format!(
                "the recorded cgroup \"{}\" is not a container's",
                self.path.escape_debug()
            )));
        }
        self.leaves()
    }

    /// Makes the cgroup in every hierarchy. Where we may not, a rootless container goes without, which
    /// [`Cgroup::writable`] tells afterwards.
    ///
    /// # Errors
    /// [`CgroupError::Busy`], or what could not be made; nothing new is left then.
    pub fn create(&mut self, rootless: bool) -> Result<()> {
        if self.driver == Driver::Disabled {
            return Ok(());
        }
        let leaves = self.leaves()?;
        self.refuse_used(&leaves)?;
        let mut made = Vec::new();
        let result = leaves.iter().try_for_each(|(hierarchy, leaf)| {
            hierarchy
                .make(&self.path, &mut made)
                .map_err(|source| (leaf, source))
        });
        self.made = true;
        let result = match result {
            Ok(()) => self.refuse_threaded(&leaves),
            Err((_, err)) if rootless && denied(&err) => {
                self.made = false;
                Ok(())
            }
            Err((leaf, source)) => Err(io_error("create cgroup", leaf)(source)),
        };
        self.made &= result.is_ok();
        if !self.made {
            made.iter().rev().for_each(|dir| drop(fs::remove_dir(dir)));
        }
        result
    }

    /// An empty cgroup may be used again; not one with processes, or one in which ours would not run.
    fn refuse_used(&self, leaves: &Leaves) -> Result<()> {
        if !processes::of_all(leaves)?.is_empty() {
            return Err(CgroupError::Busy(self.path.clone()));
        }
        let frozen = Freezer::find(self.version, leaves)
            .is_some_and(|freezer| freezer.is_frozen().unwrap_or(false));
        if frozen {
            return Err(CgroupError::Invalid(format!(
                "container's cgroup unexpectedly frozen: `{}` exists already",
                self.path
            )));
        }
        Ok(())
    }

    fn refuse_threaded(&self, leaves: &Leaves) -> Result<()> {
        match leaves
            .iter()
            .find_map(|(hierarchy, _)| hierarchy.unusable(&self.path))
        {
            Some(kind) => Err(CgroupError::Invalid(format!(
                "cgroup `{}` takes no processes: its type is \"{kind}\", since one above it is threaded",
                self.path
            ))),
            None => Ok(()),
        }
    }

    /// Sets limits; absent ones are left alone. Device rules are not among them, see [`Cgroup::apply_devices`].
    ///
    /// # Errors
    /// The file, value and cause. Without a cgroup of its own, any limit is one.
    pub fn apply(&self, resources: &Value) -> Result<()> {
        match self.owned()? {
            Some(leaves) => limits::apply(self.version, &leaves, resources),
            None => limits::demanded(resources).map_or(Ok(()), |name| {
                Err(CgroupError::Invalid(format!(
                    "`linux.resources.{name}` cannot be set: the container has no cgroup of its own"
                )))
            }),
        }
    }

    /// Sets the device rules (`runtime-spec config-linux.md#allowed-device-list`) on top of the default devices, in
    /// place of earlier ones, in order: for each access the last rule that speaks of it decides.
    ///
    /// # Errors
    /// A rule that is none, a list that cgroup v1 cannot express, a machine that cannot enforce one, or a refusal by
    /// the kernel. Rootless, where only the owner of the machine may set device rules, they are left out, as with
    /// the peers: a rootless container has no devices that its user could not open anyway.
    pub fn apply_devices(&self, rules: &[Value], rootless: bool) -> Result<()> {
        let rules = devices::Rules::from_spec(rules)?;
        let Some(leaves) = self.owned()? else {
            return Ok(());
        };
        let result = match leaves.iter().find(|(h, _)| h.has("devices")) {
            Some((_, leaf)) if self.version == Version::V1 => list::write(leaf, &rules),
            Some((_, leaf)) => {
                ebpf::attach(leaf, &rules, self.driver == Driver::Systemd).map_err(|source| {
                    CgroupError::Devices {
                        path: self.path.clone(),
                        source,
                    }
                })
            }
            None if rules.is_open() || rootless => Ok(()),
            None => Err(CgroupError::Invalid(
                "this machine has no devices cgroup controller: device rules cannot be enforced"
                    .to_owned(),
            )),
        };
        match result {
            Err(CgroupError::Devices { .. }) if rootless => Ok(()),
            Err(CgroupError::Io { source, .. }) if rootless && denied(&source) => Ok(()),
            other => other,
        }
    }

    /// Changes limits of a running container. Device rules stay as they are even when a list is given, as with runc:
    /// engines send the list that they know, which lacks the devices that were added on the way here.
    ///
    /// # Errors
    /// As [`Cgroup::apply`].
    pub fn update(&self, resources: &Value) -> Result<()> {
        self.update_unit(resources)?;
        self.apply(resources)
    }
}
