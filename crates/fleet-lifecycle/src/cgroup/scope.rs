//! A container's cgroup that systemd makes: found once it is there, told of limits, ended with its unit.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::choose::refuse_dangerous;
use super::devices::Rules;
use super::hierarchy::{self, Hierarchy, Version};
use super::systemd::{self, Occupant, Plan};
use super::{Cgroup, CgroupError, Driver, Leaves, Result, io_error, limits};

/// The hierarchy in which systemd keeps its units on v1.
const OWN_V1: &str = "name=systemd";

/// What is asked of a new cgroup.
#[derive(Debug)]
pub struct Demand<'a> {
    /// Container id.
    pub id: &'a str,
    /// `linux.resources`.
    pub resources: &'a Value,
    /// `annotations`.
    pub annotations: Option<&'a Value>,
    /// Not the machine's root.
    pub rootless: bool,
}

impl Cgroup {
    /// Makes the cgroup, itself or through systemd. A process may be in it then, until the value returned is dropped:
    /// not before the container has its own.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; with systemd what it has against the unit.
    pub fn make(&mut self, demand: &Demand<'_>) -> Result<Option<Occupant>> {
        if self.driver == Driver::Systemd {
            self.make_unit(demand)
        } else {
            self.create(demand.rootless).map(|()| None)
        }
    }

    fn make_unit(&mut self, demand: &Demand<'_>) -> Result<Option<Occupant>> {
        let (Some(unit), Some(manager)) = (self.unit.clone(), self.manager.clone()) else {
            return Err(CgroupError::Invalid(
                "the unit to be made is not known".to_owned(),
            ));
        };
        let given = demand.resources.get("devices").and_then(Value::as_array);
        let rules = Rules::from_spec(given.map_or(&[], Vec::as_slice))?;
        let files = limits::plan(self.version, &[], demand.resources)?;
        let occupant = systemd::start(
            &manager,
            Plan {
                id: demand.id,
                unit: &unit,
                v1: self.version == Version::V1,
                limits: systemd::from_files(&files)?,
                devices: (!manager.user).then_some(&rules),
                annotations: demand.annotations,
            },
        )?;
        let found = match &occupant {
            Some(occupant) => self.place_of(occupant.pid()),
            None => systemd::slice_cgroup(&manager, &unit.name),
        };
        if let Err(err) = found.and_then(|path| self.settle(&path, &unit.name)) {
            drop(occupant);
            self.made = false;
            drop(systemd::stop(&manager, &unit.name));
            return Err(err);
        }
        Ok(occupant)
    }

    /// Where a process is in systemd's own hierarchy.
    fn place_of(&self, pid: i32) -> Result<String> {
        let file = format!("/proc/{pid}/cgroup");
        let table = fs::read_to_string(&file).map_err(io_error("read", Path::new(&file)))?;
        let all = hierarchy::of_leaf(self.version)?;
        all.iter()
            .find(|h| self.is_systemds(h))
            .and_then(|h| h.place(&table))
            .ok_or_else(|| {
                CgroupError::Invalid("systemd's cgroup hierarchy is not mounted".to_owned())
            })
    }

    fn is_systemds(&self, hierarchy: &Hierarchy) -> bool {
        self.version == Version::V2 || hierarchy.has(OWN_V1)
    }

    /// Takes over the unit's cgroup, and makes it in the hierarchies that systemd has no use for.
    fn settle(&mut self, path: &str, unit: &str) -> Result<()> {
        let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let all = hierarchy::of_leaf(self.version)?;
        refuse_dangerous(path, path, all.iter().filter_map(|h| h.place(&table)))?;
        if path.rsplit('/').next() != Some(unit) || path.starts_with("/..") {
            return Err(CgroupError::Invalid(format!(
                "systemd put unit `{unit}` into cgroup `{path}`, which is not seen as the unit's own here; {}",
                systemd::HINT
            )));
        }
        path.clone_into(&mut self.path);
        self.found = super::Found::default();
        self.made = true;
        let leaves = self.leaves()?;
        let mut made = Vec::new();
        leaves.iter().try_for_each(|(hierarchy, leaf)| {
            hierarchy
                .make(path, &mut made)
                .map_err(|source| io_error("create cgroup", leaf)(source))
        })
    }

    /// On v1 the library knows nothing of systemd's own hierarchy: without a process there the unit ends.
    ///
    /// # Errors
    /// The hierarchy that refused the process.
    pub fn hold(&self, pid: i32) -> Result<()> {
        if self.driver == Driver::Systemd && self.version == Version::V1 {
            self.add_process(pid)?;
        }
        Ok(())
    }

    /// Tells systemd of changed limits, ahead of the files, which keep the exact values.
    pub(super) fn update_unit(&self, resources: &Value) -> Result<()> {
        let (Some(manager), Some(unit), Some(leaves)) = (&self.manager, &self.scope, self.owned()?)
        else {
            return Ok(());
        };
        let files = limits::plan(self.version, &leaves, resources)?;
        let properties = systemd::from_files(&files)?;
        if properties.is_empty() {
            return Ok(());
        }
        systemd::update(manager, unit, properties)
    }

    /// Ends the unit. One whose cgroup is gone has ended; what systemd does not do, the removal of the cgroup does.
    pub(super) fn end_unit(&self, leaves: &Leaves) {
        let (Some(manager), Some(unit)) = (&self.manager, &self.scope) else {
            return;
        };
        let there = |(h, leaf): &(Hierarchy, PathBuf)| self.is_systemds(h) && leaf.exists();
        if leaves.iter().any(there)
            && let Err(err) = systemd::stop(manager, unit)
        {
            tracing::warn!("{err}");
        }
    }
}
