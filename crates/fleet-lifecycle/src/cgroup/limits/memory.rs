//! Memory limits.

use super::section::Section;
use super::{CgroupError, Result, Target, Write, or_max};

pub(super) fn apply(target: &Target<'_>, memory: &Section<'_>) -> Result<()> {
    // Memory is accounted by hierarchy on v2 and, since 5.11, on v1.
    if memory.flag("useHierarchy")? == Some(false) {
        return Err(memory.refused("`useHierarchy` cannot be false on this kernel"));
    }
    if target.is_v2() {
        v2(target, memory)
    } else {
        v1(target, memory)
    }
}

/// v1: the limit may never be above that of memory and swap together.
fn v1(target: &Target<'_>, memory: &Section<'_>) -> Result<()> {
    let both = "memory.memsw.limit_in_bytes";
    let limit = memory.limit("limit")?;
    // Unlimited memory below limited swap is impossible; without swap accounting there is nothing to limit.
    let swap = memory.limit("swap")?.or_else(|| limit.filter(|n| *n == -1));
    let swap = swap.filter(|_| target.has("memory", both));
    let mut writes: Vec<Write> = Vec::new();
    writes.extend(limit.map(|n| ("memory", "memory.limit_in_bytes", n.to_string())));
    writes.extend(swap.map(|n| ("memory", both, n.to_string())));
    target
        .settle(writes)
        .map_err(|err| in_use(target, err, "memory.usage_in_bytes"))?;
    for (key, file) in [
        ("reservation", "memory.soft_limit_in_bytes"),
        ("kernel", "memory.kmem.limit_in_bytes"),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
    ] {
        if let Some(value) = memory.limit(key)? {
            target.write("memory", file, &value.to_string())?;
        }
    }
    // -1 is Docker's "not set".
    if let Some(value) = memory.number("swappiness")?.filter(|n| *n != -1) {
        target.write("memory", "memory.swappiness", &value.to_string())?;
    }
    set_oom_killer(target, memory.flag("disableOOMKiller")?)
}

fn set_oom_killer(target: &Target<'_>, disable: Option<bool>) -> Result<()> {
    let file = "memory.oom_control";
    let disabled = || {
        target
            .read("memory", file)
            .is_some_and(|text| text.contains("oom_kill_disable 1"))
    };
    match disable {
        Some(true) => target.write("memory", file, "1"),
        Some(false) if disabled() => target.write("memory", file, "0"),
        _ => Ok(()),
    }
}

fn v2(target: &Target<'_>, memory: &Section<'_>) -> Result<()> {
    refuse_v1_only(memory)?;
    let limit = memory.limit("limit")?;
    let swap = swap_alone(memory, limit, || target.number("memory", "memory.max"))?;
    if memory.flag("checkBeforeUpdate")? == Some(true) {
        check_usage(target, memory, limit, swap)?;
    }
    if let Some(swap) = swap {
        // Without swap accounting nothing is swapped for long, so "none" and "unlimited" are as good as set.
        if target.has("memory", "memory.swap.max") || swap > 0 {
            target.write("memory", "memory.swap.max", &or_max(swap))?;
        }
    }
    if let Some(limit) = limit {
        target.write("memory", "memory.max", &or_max(limit))?;
    }
    match memory.limit("reservation")? {
        Some(reservation) => target.write("memory", "memory.low", &or_max(reservation)),
        None => Ok(()),
    }
}

fn refuse_v1_only(memory: &Section<'_>) -> Result<()> {
    let asked = memory.limit("kernel")?.map(|_| "kernel");
    let asked = asked.or(memory.limit("kernelTCP")?.map(|_| "kernelTCP"));
    let asked = asked.or(memory
        .number("swappiness")?
        .filter(|n| *n != -1)
        .map(|_| "swappiness"));
    let asked = asked.or(memory
        .flag("disableOOMKiller")?
        .filter(|on| *on)
        .map(|_| "disableOOMKiller"));
    asked.map_or(Ok(()), |key| {
        Err(memory.refused(&format!("`{key}` needs cgroup v1; this machine has v2")))
    })
}

/// v2 counts swap alone, the spec memory and swap together. Without a memory limit here, the one in force counts.
fn swap_alone(
    memory: &Section<'_>,
    limit: Option<i64>,
    present: impl Fn() -> Option<u64>,
) -> Result<Option<i64>> {
    let present = || present().and_then(|n| i64::try_from(n).ok());
    match (memory.limit("swap")?, limit) {
        // As on v1, where unlimited memory below limited swap is impossible.
        (None, Some(-1)) | (Some(-1), _) => Ok(Some(-1)),
        (None, _) => Ok(None),
        (Some(both), Some(-1)) => Ok(Some(both)),
        (Some(both), limit) => match limit.or_else(present) {
            Some(limit) if both >= limit => Ok(Some(both - limit)),
            Some(limit) => Err(memory.refused(&format!(
                "`swap` {both}, which counts memory, too, is below the memory limit {limit}"
            ))),
            None => Err(memory.refused(&format!("`swap` {both} needs a memory limit"))),
        },
    }
}

/// `config-linux.md#memory`: `checkBeforeUpdate` refuses what would start the OOM killer at once.
fn check_usage(
    target: &Target<'_>,
    memory: &Section<'_>,
    limit: Option<i64>,
    swap: Option<i64>,
) -> Result<()> {
    for (limit, file) in [(limit, "memory.current"), (swap, "memory.swap.current")] {
        let limit = limit.and_then(|n| u64::try_from(n).ok());
        if let (Some(limit), Some(used)) = (limit, target.number("memory", file))
            && limit < used
        {
            return Err(memory.refused(&format!(
                "the limit {limit} is below what is in use (`{file}` is {used})"
            )));
        }
    }
    Ok(())
}

/// `EBUSY` means that the kernel could not reclaim that much.
fn in_use(target: &Target<'_>, err: CgroupError, file: &str) -> CgroupError {
    match (&err, target.number("memory", file)) {
        (CgroupError::Io { source, .. }, Some(used))
            if source.raw_os_error() == Some(libc::EBUSY) =>
        {
            CgroupError::Invalid(format!("{err}: the container uses {used} bytes"))
        }
        _ => err,
    }
}
