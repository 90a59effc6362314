//! CPU limits.

use super::section::Section;
use super::{Result, Target, Write, or_max};

/// The kernel's default period, microseconds (`cgroup-v2.rst`, `cpu.max`).
const PERIOD: &str = "100000";

pub(super) fn apply(target: &Target<'_>, cpu: &Section<'_>) -> Result<()> {
    if target.is_v2() {
        v2(target, cpu)?;
    } else {
        v1(target, cpu)?;
    }
    for (key, file) in [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")] {
        if let Some(value) = cpu.text(key)? {
            target.write("cpuset", file, value)?;
        }
    }
    Ok(())
}

/// Whether the group is idle; one that is takes no weight.
fn set_idle(target: &Target<'_>, cpu: &Section<'_>) -> Result<bool> {
    let Some(idle) = cpu.number("idle")? else {
        return Ok(false);
    };
    // A kernel without the file has no idle groups: 0 is what there is.
    if idle != 0 || target.has("cpu", "cpu.idle") {
        target.write("cpu", "cpu.idle", &idle.to_string())?;
    }
    Ok(idle != 0)
}

/// 0 is "not set", and any negative number "unlimited".
fn quota(cpu: &Section<'_>) -> Result<Option<i64>> {
    Ok(cpu.number("quota")?.filter(|n| *n != 0).map(|n| n.max(-1)))
}

fn v1(target: &Target<'_>, cpu: &Section<'_>) -> Result<()> {
    let idle = set_idle(target, cpu)?;
    if let Some(shares) = cpu.unsigned("shares")?.filter(|n| *n != 0 && !idle) {
        target.write("cpu", "cpu.shares", &shares.to_string())?;
    }
    let mut fair: Vec<Write> = Vec::new();
    fair.extend(
        cpu.unsigned("period")?
            .filter(|n| *n != 0)
            .map(|n| ("cpu", "cpu.cfs_period_us", n.to_string())),
    );
    fair.extend(quota(cpu)?.map(|n| ("cpu", "cpu.cfs_quota_us", n.to_string())));
    let burst = cpu
        .unsigned("burst")?
        .filter(|n| *n != 0 || target.has("cpu", "cpu.cfs_burst_us"));
    fair.extend(burst.map(|n| ("cpu", "cpu.cfs_burst_us", n.to_string())));
    target.settle(fair)?;
    let mut realtime: Vec<Write> = Vec::new();
    for (key, file) in [
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    ] {
        realtime.extend(
            cpu.number(key)?
                .filter(|n| *n != 0)
                .map(|n| ("cpu", file, n.to_string())),
        );
    }
    target.settle(realtime)
}

fn v2(target: &Target<'_>, cpu: &Section<'_>) -> Result<()> {
    for key in ["realtimePeriod", "realtimeRuntime"] {
        if cpu.number(key)?.is_some_and(|n| n != 0) {
            return Err(cpu.refused(&format!("`{key}` needs cgroup v1; this machine has v2")));
        }
    }
    let idle = set_idle(target, cpu)?;
    if let Some(shares) = cpu.unsigned("shares")?.filter(|n| *n != 0 && !idle) {
        target.write("cpu", "cpu.weight", &weight(shares).to_string())?;
    }
    let mut writes: Vec<Write> = Vec::new();
    let burst = cpu
        .unsigned("burst")?
        .filter(|n| *n != 0 || target.has("cpu", "cpu.max.burst"));
    writes.extend(burst.map(|n| ("cpu", "cpu.max.burst", n.to_string())));
    let (quota, period) = (quota(cpu)?, cpu.unsigned("period")?.filter(|n| *n != 0));
    if quota.is_some() || period.is_some() {
        // One of both alone leaves the other as it is.
        let now = target.read("cpu", "cpu.max").unwrap_or_default();
        let mut now = now.split_whitespace();
        let (now_quota, now_period) = (now.next().unwrap_or("max"), now.next().unwrap_or(PERIOD));
        let quota = quota.map_or_else(|| now_quota.to_owned(), or_max);
        let period = period.map_or_else(|| now_period.to_owned(), |n| n.to_string());
        writes.push(("cpu", "cpu.max", format!("{quota} {period}")));
    }
    target.settle(writes)
}

/// Shares 2 to 262144 onto weights 1 to 10000 so that the defaults, 1024 and 100, meet: the quadratic on logarithms
/// that crun and runc have used since 2025 (`opencontainers/cgroups` pull request 20).
fn weight(shares: u64) -> u32 {
    let shares = f64::from(u32::try_from(shares).unwrap_or(u32::MAX).clamp(2, 262_144));
    let log = shares.log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    let weight = 10_f64.powf(exponent).ceil().clamp(1.0, 10_000.0);
    // In range by the clamp above, and whole by `ceil`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let weight = weight as u32;
    if shares <= 2.0 { 1 } else { weight }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_to_weights() {
        for (shares, want) in [
            (0, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), want, "{shares}");
        }
        let weights: Vec<u32> = (1..=18).map(|power| weight(1 << power)).collect();
        assert!(
            weights.is_sorted() && weights.iter().all(|w| (1..=10_000).contains(w)),
            "{weights:?}"
        );
    }
}
