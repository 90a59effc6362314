//! `linux.resources` to cgroup files (`runtime-spec config-linux.md#control-groups`, kernel `cgroup-v1/*.rst`,
//! `cgroup-v2.rst`). What is absent is left alone; what cannot be set is an error with the file, the value and the
//! cause; what a version does not have is refused by name.

mod block;
mod cpu;
mod memory;
mod section;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::section::Section;
use super::file::put;
use super::hierarchy::{Hierarchy, Version};
use super::{CgroupError, Result, io_error};

/// One file to write: controller, name, value.
type Write = (&'static str, &'static str, String);

/// The cgroup's directories.
struct Target<'a> {
    version: Version,
    leaves: &'a [(Hierarchy, PathBuf)],
    /// Takes what would be written, in place of the files.
    planned: Option<&'a RefCell<Vec<(String, String)>>>,
}

impl Target<'_> {
    fn dir(&self, controller: &str) -> Option<&Path> {
        self.leaves
            .iter()
            .find(|(h, _)| h.has(controller))
            .map(|(_, leaf)| leaf.as_path())
    }

    fn try_write(&self, controller: &str, file: &str, value: &str) -> Result<io::Result<()>> {
        if let Some(planned) = self.planned {
            planned
                .borrow_mut()
                .push((file.to_owned(), value.to_owned()));
            return Ok(Ok(()));
        }
        let missing =
            |what: &str| CgroupError::Invalid(format!("cannot set `{file}` to {value}: {what}"));
        let Some(dir) = self.dir(controller) else {
            return Err(missing(&format!(
                "this machine has no {controller} cgroup controller"
            )));
        };
        let path = dir.join(file);
        match put(&path, value) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                Err(missing(&match self.version {
                    Version::V1 => {
                        format!("the {controller} controller of this kernel has no such limit")
                    }
                    Version::V2 => format!(
                        "the {controller} controller is not available in cgroup `{}`",
                        dir.display()
                    ),
                }))
            }
            other => Ok(other),
        }
    }

    fn write(&self, controller: &str, file: &str, value: &str) -> Result<()> {
        let path = self
            .dir(controller)
            .unwrap_or_else(|| Path::new(""))
            .join(file);
        self.try_write(controller, file, value)?
            .map_err(io_error(&format!("write \"{value}\" to"), &path))
    }

    /// Writes values of which one bounds another, and which bounds which depends on what is there: one that the
    /// kernel finds invalid is tried again after the others.
    fn settle(&self, writes: Vec<Write>) -> Result<()> {
        let mut left = writes;
        while !left.is_empty() {
            let before = left.len();
            let mut first = None;
            let mut refused = Vec::new();
            for (controller, file, value) in left {
                match self.try_write(controller, file, &value)? {
                    Ok(()) => continue,
                    Err(err) if err.raw_os_error() == Some(libc::EINVAL) => {}
                    Err(_) => self.write(controller, file, &value)?,
                }
                first.get_or_insert_with(|| (controller, file, value.clone()));
                refused.push((controller, file, value));
            }
            if let Some((controller, file, value)) = first.filter(|_| refused.len() == before) {
                return self.write(controller, file, &value);
            }
            left = refused;
        }
        Ok(())
    }

    fn read(&self, controller: &str, file: &str) -> Option<String> {
        std::fs::read_to_string(self.dir(controller)?.join(file)).ok()
    }

    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        super::file::number(&self.dir(controller)?.join(file))
    }

    fn has(&self, controller: &str, file: &str) -> bool {
        // BFQ's files stand in for others; every other one is taken to be there, or the plan would have a gap.
        if self.planned.is_some() {
            return !file.contains(".bfq.");
        }
        self.dir(controller)
            .is_some_and(|dir| dir.join(file).exists())
    }

    fn is_v2(&self) -> bool {
        self.version == Version::V2
    }
}

pub(super) fn apply(
    version: Version,
    leaves: &[(Hierarchy, PathBuf)],
    resources: &Value,
) -> Result<()> {
    let target = Target {
        version,
        leaves,
        planned: None,
    };
    apply_to(&target, resources)
}

/// What [`apply`] is about to write, as file names and values; the cgroup need not be there yet.
pub(super) fn plan(
    version: Version,
    leaves: &[(Hierarchy, PathBuf)],
    resources: &Value,
) -> Result<Vec<(String, String)>> {
    let planned = RefCell::default();
    let target = Target {
        version,
        leaves,
        planned: Some(&planned),
    };
    apply_to(&target, resources)?;
    Ok(planned.take())
}

fn apply_to(target: &Target<'_>, resources: &Value) -> Result<()> {
    let part = |name: &'static str| Section::of(resources, name);
    if let Some(memory) = part("memory")? {
        memory::apply(target, &memory)?;
    }
    if let Some(cpu) = part("cpu")? {
        cpu::apply(target, &cpu)?;
    }
    if let Some(pids) = part("pids")? {
        set_pids(target, &pids)?;
    }
    if let Some(block) = part("blockIO")? {
        block::apply(target, &block)?;
    }
    if let Some(network) = part("network")? {
        set_network(target, &network)?;
    }
    set_huge_pages(target, resources)?;
    if let Some(rdma) = part("rdma")? {
        set_rdma(target, &rdma)?;
    }
    // Last: it has higher precedence than the rest (`config-linux.md#unified`).
    part("unified")?.map_or(Ok(()), |unified| set_unified(target, &unified))
}

/// The name of a limit in `resources`, for a container that has no cgroup to set one in. Device rules do not count:
/// engines send them always.
pub(super) fn demanded(resources: &Value) -> Option<String> {
    let asks = |value: &Value| match value {
        Value::Null => false,
        Value::Object(map) => map.values().any(|v| !v.is_null()),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    let all = resources.as_object()?;
    all.iter()
        .find(|(key, value)| key.as_str() != "devices" && asks(value))
        .map(|(key, _)| key.clone())
}

/// As the kernel writes "no limit" on v2.
fn or_max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// 0 and below mean no limit, which a new cgroup has.
fn set_pids(target: &Target<'_>, pids: &Section<'_>) -> Result<()> {
    match pids.number("limit")? {
        Some(limit) if limit > 0 => target.write("pids", "pids.max", &limit.to_string()),
        Some(_) if target.has("pids", "pids.max") => target.write("pids", "pids.max", "max"),
        _ => Ok(()),
    }
}

fn set_network(target: &Target<'_>, network: &Section<'_>) -> Result<()> {
    let class = network.number("classID")?.filter(|n| *n != 0);
    let priorities = network.list("priorities")?;
    if target.is_v2() {
        let asked = class.is_some() || !priorities.is_empty();
        return if asked {
            Err(network.refused("classID and priorities need cgroup v1"))
        } else {
            Ok(())
        };
    }
    if let Some(class) = class {
        target.write("net_cls", "net_cls.classid", &class.to_string())?;
    }
    for entry in priorities {
        let name = entry
            .text("name")?
            .ok_or_else(|| entry.refused("an entry has no name"))?;
        let priority = entry
            .number("priority")?
            .ok_or_else(|| entry.refused("an entry has no priority"))?;
        target.write(
            "net_prio",
            "net_prio.ifpriomap",
            &format!("{name} {priority}"),
        )?;
    }
    Ok(())
}

/// Reservations are limited, too, as runc does: what is reserved cannot be used by others.
fn set_huge_pages(target: &Target<'_>, resources: &Value) -> Result<()> {
    for entry in Section::list_of(resources, "hugepageLimits")? {
        let plain = |size: &&str| size.chars().all(|c| c.is_ascii_alphanumeric());
        let size = entry.text("pageSize")?.filter(plain);
        let size = size.ok_or_else(|| entry.refused("an entry has no usable pageSize"))?;
        let limit = entry
            .unsigned("limit")?
            .ok_or_else(|| entry.refused("an entry has no limit"))?;
        let suffix = if target.is_v2() {
            "max"
        } else {
            "limit_in_bytes"
        };
        target.write(
            "hugetlb",
            &format!("hugetlb.{size}.{suffix}"),
            &limit.to_string(),
        )?;
        let reserved = format!("hugetlb.{size}.rsvd.{suffix}");
        if target.has("hugetlb", &reserved) {
            target.write("hugetlb", &reserved, &limit.to_string())?;
        }
    }
    Ok(())
}

fn set_rdma(target: &Target<'_>, rdma: &Section<'_>) -> Result<()> {
    for (device, limits) in rdma.sections()? {
        let word = |key: &str, name: &str| {
            limits
                .unsigned(key)
                .map(|n| n.map(|n| format!(" {name}={n}")).unwrap_or_default())
        };
        let words = format!(
            "{}{}",
            word("hcaHandles", "hca_handle")?,
            word("hcaObjects", "hca_object")?
        );
        if !words.is_empty() {
            target.write("rdma", "rdma.max", &format!("{device}{words}"))?;
        }
    }
    Ok(())
}

/// Files of `cgroup.` that are limits; the others move, kill or freeze.
const CORE_LIMITS: [&str; 3] = [
    "cgroup.max.descendants",
    "cgroup.max.depth",
    "cgroup.pressure",
];

/// Raw v2 files by name; a name is one file of the container's own cgroup.
fn set_unified(target: &Target<'_>, unified: &Section<'_>) -> Result<()> {
    let entries = unified.texts()?;
    if let (false, Some((file, _))) = (target.is_v2(), entries.first()) {
        return Err(unified.refused(&format!(
            "invalid configuration: \"{}\" needs cgroup v2; this machine has v1",
            file.escape_debug()
        )));
    }
    for (file, value) in entries {
        let controller = file.split('.').next().unwrap_or_default();
        let plain = file
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        let core = controller == "cgroup" && !CORE_LIMITS.contains(&file);
        if !plain || core || controller.is_empty() || controller == file {
            return Err(unified.refused(&format!("\"{}\" is no limit", file.escape_debug())));
        }
        for line in value.lines().filter(|line| !line.trim().is_empty()) {
            target.write(controller, file, line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
