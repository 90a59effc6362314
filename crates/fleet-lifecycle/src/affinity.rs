//! `process.execCPUAffinity` (`runtime-spec config.md#linux-process`), and the CPUs of a process that names none.

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::spec;

/// The CPUs on which one more process of a container runs; by default all that its cgroup allows, and so its first.
#[derive(Debug, Default)]
pub(crate) struct Affinity(Vec<(&'static str, CpuSet)>);

impl Affinity {
    /// Reads it from a `process` object.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field.
    pub(crate) fn from_process(process: &Value) -> Result<Self> {
        let mut steps = Vec::new();
        for name in ["initial", "final"] {
            let text = spec::text(process, &format!("/execCPUAffinity/{name}"));
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                steps.push((name, cpus(text, name)?));
            }
        }
        Ok(Self(steps))
    }

    /// Sets it for the calling process, which is in the container's cgroup.
    ///
    /// # Errors
    /// As `man 2 sched_setaffinity`, with the field.
    pub(crate) fn apply(&self) -> Result<()> {
        let own = Pid::from_raw(0);
        if self.0.is_empty() {
            // Not the caller's: what the container's cpuset does not allow is taken out by the kernel. A system call
            // filter around us may forbid the call, and then the caller's stays indeed.
            let _ = sched_setaffinity(own, &all());
        }
        for (name, set) in &self.0 {
            sched_setaffinity(own, set)
                .op(|| format!("set the CPUs of `process.execCPUAffinity.{name}`"))?;
        }
        Ok(())
    }
}

fn all() -> CpuSet {
    let mut all = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        let _ = all.set(cpu);
    }
    all
}

/// Numbers and ranges, as in `man 7 cpuset` ("List Format").
fn cpus(text: &str, name: &str) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    let mut add = |part: &str| -> Option<()> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CpuSet::count() {
            return None;
        }
        let added: nix::Result<()> = (first..=last).try_for_each(|cpu: usize| set.set(cpu));
        added.map_err(|_: Errno| ()).ok()
    };
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    for part in parts {
        add(part).ok_or_else(|| {
            Error::Invalid(format!(
                "`process.execCPUAffinity.{name}` has \"{part}\", which is no CPU or range of them"
            ))
        })?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_of_cpus() {
        let given = json!({"execCPUAffinity": {"initial": "0-2, 5,", "final": "1"}});
        let Affinity(steps) = Affinity::from_process(&given).unwrap();
        let have: Vec<Vec<usize>> = steps
            .iter()
            .map(|(_, set)| (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap()))
            .map(Iterator::collect)
            .collect();
        assert_eq!(have, [vec![0, 1, 2, 5], vec![1]]);
        for none in [json!({}), json!({"execCPUAffinity": null})] {
            assert!(Affinity::from_process(&none).unwrap().0.is_empty());
        }
        for bad in ["x", "3-1", "1-", "-1", "99999", "0-99999", "1-2-3"] {
            let given = json!({"execCPUAffinity": {"final": bad}});
            let err = Affinity::from_process(&given).unwrap_err().to_string();
            assert!(
                err.contains("execCPUAffinity.final") && err.contains(bad),
                "{err}"
            );
        }
    }
}
