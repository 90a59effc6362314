//! systemd as the one who manages cgroups: a container's cgroup is that of a unit, which systemd makes on our call.
//!
//! The unit is a scope with `Delegate=yes`: what lies in its cgroup is ours, and everything else of this crate works
//! in it as in a cgroup that we made. What systemd could reset is told to it as properties, too.
//!
//! A D-Bus client of our own: the messages needed are six. `zbus` brings an async executor and some sixty crates into
//! a static binary that is started several times per container; `rustbus` a second copy of `nix` and no way to log in
//! by the kernel's word, which a user namespace needs; `dbus` links a C library; libcgroups' client polls, and does
//! not wait for jobs.

mod annotations;
mod connection;
mod devices;
mod gvariant;
mod job;
mod manager;
mod message;
mod occupant;
mod property;
#[cfg(test)]
mod tests;
mod wire;

use std::time::Duration;

use serde_json::Value as Json;

use super::devices::Rules;
use super::unit::Unit;
use super::{CgroupError, Result};
use wire::Value;

pub use manager::Session;
pub(super) use manager::{HINT, Manager, booted};
pub use occupant::Occupant;
pub(super) use property::{Property, from_files};

/// How long systemd may take over one job, as runc.
const PATIENCE: Duration = Duration::from_secs(30);
/// `CPUWeight=0`, and `cpu.idle` kept, since this release.
const IDLE_SINCE: u32 = 252;

/// What a unit is made from.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) id: &'a str,
    pub(super) unit: &'a Unit,
    /// v1 has `BlockIOAccounting`, v2 `IOAccounting`.
    pub(super) v1: bool,
    pub(super) limits: Vec<Property>,
    /// `None` where systemd has no say over devices.
    pub(super) devices: Option<&'a Rules>,
    pub(super) annotations: Option<&'a Json>,
}

/// Makes the unit. The process in it, none in a slice, is gone when the value returned is dropped.
///
/// # Errors
/// A property that systemd does not take, a unit in use, a job that fails; nothing is left then.
pub(super) fn start(manager: &Manager, plan: Plan<'_>) -> Result<Option<Occupant>> {
    let unit = plan.unit;
    let mut properties = fixed(&plan);
    let chosen = annotations::properties(plan.annotations)?;
    let mut systemd = manager.connect(PATIENCE)?;
    let limits = usable(&mut systemd, plan.limits)?;
    let devices = plan.devices.map(devices::properties).unwrap_or_default();
    properties.extend(limits.into_iter().chain(devices));
    properties.retain(|property| chosen.iter().all(|own| own.name != property.name));
    properties.extend(chosen);
    let occupant = if unit.is_slice() {
        None
    } else {
        Some(Occupant::new()?)
    };
    if let Some(occupant) = &occupant {
        let pid = Value::U32(u32::try_from(occupant.pid()).unwrap_or(0));
        properties.push(Property::new(
            "PIDs",
            Value::Array("u".to_owned(), vec![pid]),
        ));
    }
    systemd.start(&unit.name, properties)?;
    Ok(occupant)
}

/// What every unit of ours has, as runc's.
fn fixed(plan: &Plan<'_>) -> Vec<Property> {
    let on = |name: &str| Property::new(name, Value::Bool(true));
    let io = if plan.v1 {
        "BlockIOAccounting"
    } else {
        "IOAccounting"
    };
    let mut all = vec![
        Property::new("Description", Value::Text(format!("container {}", plan.id))),
        Property::new("DefaultDependencies", Value::Bool(false)),
        // A failed one is forgotten by itself, so that its name is free again.
        Property::new("CollectMode", Value::text("inactive-or-failed")),
        on("CPUAccounting"),
        on("MemoryAccounting"),
        on("TasksAccounting"),
        on(io),
    ];
    if plan.unit.is_slice() {
        let above = Value::Array("s".to_owned(), vec![Value::text(plan.unit.slice())]);
        all.push(Property::new("Wants", above));
    } else {
        all.push(Property::new("Slice", Value::text(plan.unit.slice())));
        all.push(on("Delegate"));
    }
    all
}

/// Without a property that this systemd is too old for; it keeps such a limit by not knowing of it.
fn usable(systemd: &mut job::Systemd, limits: Vec<Property>) -> Result<Vec<Property>> {
    let idle = |p: &Property| p.name == "CPUWeight" && p.value == Value::U64(0);
    if limits.iter().any(idle) && systemd.version()? < IDLE_SINCE {
        return Ok(limits.into_iter().filter(|p| !idle(p)).collect());
    }
    Ok(limits)
}

/// Tells systemd of changed limits.
///
/// # Errors
/// What systemd says against one.
pub(super) fn update(manager: &Manager, unit: &str, limits: Vec<Property>) -> Result<()> {
    let mut systemd = manager.connect(PATIENCE)?;
    let limits = usable(&mut systemd, limits)?;
    if limits.is_empty() {
        return Ok(());
    }
    systemd.set(unit, limits)
}

/// Ends the unit, with what is left in it, and waits until it is gone.
///
/// # Errors
/// What systemd says.
pub(super) fn stop(manager: &Manager, unit: &str) -> Result<()> {
    manager.connect(PATIENCE)?.stop(unit)
}

/// Has systemd move a process into the unit.
///
/// # Errors
/// What systemd says.
pub(super) fn attach(manager: &Manager, unit: &str, pid: i32) -> Result<()> {
    manager.connect(PATIENCE)?.attach(unit, pid)
}

/// The cgroup of a slice.
///
/// # Errors
/// As [`Manager::connect`].
pub(super) fn slice_cgroup(manager: &Manager, slice: &str) -> Result<String> {
    manager.connect(PATIENCE)?.slice_cgroup(slice)
}

/// A unit's name as systemd accepts it (`man 5 systemd.unit`).
///
/// # Errors
/// The name.
pub(super) fn check_name(name: &str) -> Result<()> {
    let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.len() < 256 && name.chars().all(valid) {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(CgroupError::Invalid(format!(
        "\"{}\" is not a valid name of a systemd unit; hint: letters, digits and :-_.\\@, below 256",
        shown.escape_debug()
    )))
}
