//! `linux.resources` to cgroup files (`runtime-spec config-linux.md#control-groups`, kernel `cgroup-v1/*.rst`,
//! `cgroup-v2.rst`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::hierarchy::{Hierarchy, Version};
use super::{CgroupError, Result, io_error};

/// Writes of one `apply`, in the order in which the kernel accepts them.
struct Writer<'a> {
    leaves: &'a [(Hierarchy, PathBuf)],
}

impl Writer<'_> {
    fn dir(&self, controller: &str) -> Option<&Path> {
        self.leaves
            .iter()
            .find(|(h, _)| h.has(controller))
            .map(|(_, leaf)| leaf.as_path())
    }

    fn write(&self, controller: &str, file: &str, value: &str) -> Result<()> {
        let Some(dir) = self.dir(controller) else {
            return Err(CgroupError::Invalid(format!(
                "cannot set `{file}` to {value}: this machine has no {controller} cgroup controller"
            )));
        };
        let path = dir.join(file);
        fs::write(&path, value).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CgroupError::Invalid(format!(
                "cannot set `{file}` to {value}: the {controller} controller is not available in this cgroup"
            )),
            _ => io_error(&format!("write \"{value}\" to"), &path)(source),
        })
    }

    fn read(&self, controller: &str, file: &str) -> Option<String> {
        fs::read_to_string(self.dir(controller)?.join(file)).ok()
    }

    fn has_file(&self, controller: &str, file: &str) -> bool {
        self.dir(controller)
            .is_some_and(|dir| dir.join(file).exists())
    }
}

pub(super) fn apply(
    version: Version,
    leaves: &[(Hierarchy, PathBuf)],
    resources: &Value,
) -> Result<()> {
    let writer = Writer { leaves };
    let all = |key: &str| resources.get(key).filter(|v| v.is_object());
    match version {
        Version::V1 => {
            memory_v1(&writer, all("memory"))?;
            cpu_v1(&writer, all("cpu"))?;
            pids(&writer, all("pids"))?;
            blkio_v1(&writer, all("blockIO"))?;
            network_v1(&writer, all("network"))?;
            if all("unified").is_some_and(|map| map.as_object().is_some_and(|m| !m.is_empty())) {
                return Err(CgroupError::Invalid(
                    "`linux.resources.unified` needs cgroup v2; this machine has v1".to_owned(),
                ));
            }
        }
        Version::V2 => {
            memory_v2(&writer, all("memory"))?;
            cpu_v2(&writer, all("cpu"))?;
            pids(&writer, all("pids"))?;
            io_v2(&writer, all("blockIO"))?;
            unified(&writer, all("unified"))?;
        }
    }
    huge_pages(version, &writer, resources)?;
    rdma(&writer, all("rdma"))
}

fn signed(at: Option<&Value>, key: &str) -> Option<i64> {
    let value = at?.get(key)?;
    // Engines write "unlimited" as the largest unsigned number, too.
    value.as_i64().or_else(|| value.as_u64().map(|_| -1))
}

/// v1: the limit may never be above memory and swap together, so the order depends on what is there.
fn memory_v1(writer: &Writer<'_>, memory: Option<&Value>) -> Result<()> {
    let Some(memory) = memory else { return Ok(()) };
    let limit = signed(Some(memory), "limit").filter(|n| *n != 0);
    let swap = signed(Some(memory), "swap").filter(|n| *n != 0);
    let swap = swap.filter(|_| writer.has_file("memory", "memory.memsw.limit_in_bytes"));
    let now = writer
        .read("memory", "memory.memsw.limit_in_bytes")
        .and_then(|text| text.trim().parse::<i64>().ok());
    let set_limit = || {
        limit.map_or(Ok(()), |n| {
            writer.write("memory", "memory.limit_in_bytes", &n.to_string())
        })
    };
    let set_swap = || {
        swap.map_or(Ok(()), |n| {
            writer.write("memory", "memory.memsw.limit_in_bytes", &n.to_string())
        })
    };
    let raising = limit == Some(-1)
        || swap == Some(-1)
        || matches!((limit, now), (Some(limit), Some(now)) if limit > now);
    if raising {
        set_swap()?;
        set_limit()?;
    } else {
        set_limit()?;
        set_swap()?;
    }
    for (key, file) in [
        ("reservation", "memory.soft_limit_in_bytes"),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
        ("swappiness", "memory.swappiness"),
    ] {
        if let Some(value) = signed(Some(memory), key).filter(|n| *n != 0 || key == "swappiness") {
            writer.write("memory", file, &value.to_string())?;
        }
    }
    if memory.get("disableOOMKiller").and_then(Value::as_bool) == Some(true) {
        writer.write("memory", "memory.oom_control", "1")?;
    }
    Ok(())
}

fn maximum(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

fn memory_v2(writer: &Writer<'_>, memory: Option<&Value>) -> Result<()> {
    let Some(memory) = memory else { return Ok(()) };
    let limit = signed(Some(memory), "limit").filter(|n| *n != 0);
    if let Some(swap) = signed(Some(memory), "swap").filter(|n| *n != 0) {
        // v2 counts swap alone, the spec memory and swap together.
        let alone = match (swap, limit) {
            (-1, _) => -1,
            (swap, Some(limit)) if limit > 0 && swap >= limit => swap - limit,
            (swap, Some(limit)) if limit > 0 => {
                return Err(CgroupError::Invalid(format!(
                    "memory and swap limit {swap} is below the memory limit {limit}"
                )));
            }
            _ => {
                return Err(CgroupError::Invalid(
                    "a swap limit needs a memory limit on cgroup v2".to_owned(),
                ));
            }
        };
        if writer.has_file("memory", "memory.swap.max") || alone > 0 {
            writer.write("memory", "memory.swap.max", &maximum(alone))?;
        }
    }
    if let Some(limit) = limit {
        writer.write("memory", "memory.max", &maximum(limit))?;
    }
    if let Some(reservation) = signed(Some(memory), "reservation").filter(|n| *n != 0) {
        writer.write("memory", "memory.low", &maximum(reservation))?;
    }
    Ok(())
}

fn text<'a>(at: &'a Value, key: &str) -> Option<&'a str> {
    at.get(key)
        .and_then(Value::as_str)
        .filter(|t| !t.is_empty())
}

fn cpu_v1(writer: &Writer<'_>, cpu: Option<&Value>) -> Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let number = |key: &str| signed(Some(cpu), key).filter(|n| *n != 0);
    if let Some(shares) = number("shares") {
        writer.write("cpu", "cpu.shares", &shares.to_string())?;
    }
    let period = number("period");
    let set_period = || {
        period.map_or(Ok(()), |n| {
            writer.write("cpu", "cpu.cfs_period_us", &n.to_string())
        })
    };
    // A quota and a period that are only valid together are refused one by one: try again after the other.
    let first = set_period();
    if let Some(quota) = number("quota") {
        writer.write("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
        if first.is_err() {
            set_period()?;
        }
    } else {
        first?;
    }
    for (key, file) in [
        ("burst", "cpu.cfs_burst_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
        ("idle", "cpu.idle"),
    ] {
        if let Some(value) = number(key) {
            writer.write("cpu", file, &value.to_string())?;
        }
    }
    cpuset(writer, cpu)
}

fn cpuset(writer: &Writer<'_>, cpu: &Value) -> Result<()> {
    for (key, file) in [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")] {
        if let Some(value) = text(cpu, key) {
            writer.write("cpuset", file, value)?;
        }
    }
    Ok(())
}

/// Shares 2 to 262144 onto weights 1 to 10000, as runc and crun.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn cpu_v2(writer: &Writer<'_>, cpu: Option<&Value>) -> Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let number = |key: &str| signed(Some(cpu), key).filter(|n| *n != 0);
    if let Some(idle) = number("idle") {
        writer.write("cpu", "cpu.idle", &idle.to_string())?;
    } else if let Some(shares) = number("shares").and_then(|n| u64::try_from(n).ok()) {
        writer.write("cpu", "cpu.weight", &weight(shares).to_string())?;
    }
    if let Some(burst) = number("burst") {
        writer.write("cpu", "cpu.max.burst", &burst.to_string())?;
    }
    let (quota, period) = (number("quota"), number("period"));
    if quota.is_some() || period.is_some() {
        let quota = quota.map_or_else(|| "max".to_owned(), maximum);
        let value = period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}"));
        writer.write("cpu", "cpu.max", &value)?;
    }
    if number("realtimePeriod")
        .or_else(|| number("realtimeRuntime"))
        .is_some()
    {
        return Err(CgroupError::Invalid(
            "realtime CPU limits need cgroup v1; this machine has v2".to_owned(),
        ));
    }
    cpuset(writer, cpu)
}

fn pids(writer: &Writer<'_>, pids: Option<&Value>) -> Result<()> {
    match signed(pids, "limit") {
        // 0 and below mean no limit; a new cgroup has none.
        Some(limit) if limit <= 0 && writer.has_file("pids", "pids.max") => {
            writer.write("pids", "pids.max", "max")
        }
        Some(limit) if limit > 0 => writer.write("pids", "pids.max", &limit.to_string()),
        _ => Ok(()),
    }
}

fn device_lines(block: &Value, key: &str, field: &str) -> Vec<String> {
    let entries = block
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    entries
        .iter()
        .map(|e| format!("{}:{} {}", e["major"], e["minor"], e[field]))
        .collect()
}

const THROTTLES: [(&str, &str, &str); 4] = [
    (
        "throttleReadBpsDevice",
        "blkio.throttle.read_bps_device",
        "rbps",
    ),
    (
        "throttleWriteBpsDevice",
        "blkio.throttle.write_bps_device",
        "wbps",
    ),
    (
        "throttleReadIOPSDevice",
        "blkio.throttle.read_iops_device",
        "riops",
    ),
    (
        "throttleWriteIOPSDevice",
        "blkio.throttle.write_iops_device",
        "wiops",
    ),
];

fn blkio_v1(writer: &Writer<'_>, block: Option<&Value>) -> Result<()> {
    let Some(block) = block else { return Ok(()) };
    for (key, file, fallback) in [
        ("weight", "blkio.weight", "blkio.bfq.weight"),
        ("leafWeight", "blkio.leaf_weight", "blkio.leaf_weight"),
    ] {
        if let Some(value) = signed(Some(block), key).filter(|n| *n != 0) {
            let file = if writer.has_file("blkio", file) {
                file
            } else {
                fallback
            };
            writer.write("blkio", file, &value.to_string())?;
        }
    }
    for line in device_lines(block, "weightDevice", "weight") {
        let file = if writer.has_file("blkio", "blkio.weight_device") {
            "blkio.weight_device"
        } else {
            "blkio.bfq.weight_device"
        };
        writer.write("blkio", file, &line)?;
    }
    for (key, file, _) in THROTTLES {
        for line in device_lines(block, key, "rate") {
            writer.write("blkio", file, &line)?;
        }
    }
    Ok(())
}

fn io_v2(writer: &Writer<'_>, block: Option<&Value>) -> Result<()> {
    let Some(block) = block else { return Ok(()) };
    if let Some(value) = signed(Some(block), "weight").filter(|n| *n != 0) {
        if writer.has_file("io", "io.bfq.weight") {
            writer.write("io", "io.bfq.weight", &value.to_string())?;
        } else {
            // blkio weights 10 to 1000 onto io weights 1 to 10000, as runc and crun.
            writer.write(
                "io",
                "io.weight",
                &(1 + (value.clamp(10, 1000) - 10) * 9999 / 990).to_string(),
            )?;
        }
    }
    for (key, _, word) in THROTTLES {
        for line in device_lines(block, key, "rate") {
            let line = line.replacen(' ', &format!(" {word}="), 1);
            writer.write("io", "io.max", &line)?;
        }
    }
    Ok(())
}

fn network_v1(writer: &Writer<'_>, network: Option<&Value>) -> Result<()> {
    let Some(network) = network else {
        return Ok(());
    };
    if let Some(class) = signed(Some(network), "classID").filter(|n| *n != 0) {
        writer.write("net_cls", "net_cls.classid", &class.to_string())?;
    }
    let priorities = network
        .get("priorities")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    for entry in priorities {
        let line = format!(
            "{} {}",
            entry["name"].as_str().unwrap_or_default(),
            entry["priority"]
        );
        writer.write("net_prio", "net_prio.ifpriomap", &line)?;
    }
    Ok(())
}

fn huge_pages(version: Version, writer: &Writer<'_>, resources: &Value) -> Result<()> {
    let limits = resources
        .get("hugepageLimits")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    for limit in limits {
        let size = text(limit, "pageSize").filter(|s| s.chars().all(|c| c.is_ascii_alphanumeric()));
        let size = size.ok_or_else(|| {
            CgroupError::Invalid(format!("`hugepageLimits` has the unusable entry {limit}"))
        })?;
        let file = if version == Version::V1 {
            format!("hugetlb.{size}.limit_in_bytes")
        } else {
            format!("hugetlb.{size}.max")
        };
        writer.write("hugetlb", &file, &limit["limit"].to_string())?;
    }
    Ok(())
}

fn rdma(writer: &Writer<'_>, rdma: Option<&Value>) -> Result<()> {
    for (device, limits) in rdma.and_then(Value::as_object).into_iter().flatten() {
        let word = |key: &str, name: &str| {
            limits
                .get(key)
                .and_then(Value::as_u64)
                .map(|n| format!(" {name}={n}"))
                .unwrap_or_default()
        };
        let line = format!(
            "{device}{}{}",
            word("hcaHandles", "hca_handle"),
            word("hcaObjects", "hca_object")
        );
        writer.write("rdma", "rdma.max", &line)?;
    }
    Ok(())
}

/// Raw v2 files by name; a name is one file of the container's own cgroup.
fn unified(writer: &Writer<'_>, map: Option<&Value>) -> Result<()> {
    for (file, value) in map.and_then(Value::as_object).into_iter().flatten() {
        if file.contains('/')
            || file.starts_with('.')
            || !file.contains('.')
            || file.starts_with("cgroup.")
        {
            return Err(CgroupError::Invalid(format!(
                "`linux.resources.unified` names the unusable file \"{}\"",
                file.escape_debug()
            )));
        }
        let value = value.as_str().ok_or_else(|| {
            CgroupError::Invalid(format!(
                "`linux.resources.unified` \"{file}\" is not a string"
            ))
        })?;
        let controller = file.split('.').next().unwrap_or_default();
        for line in value.lines() {
            writer.write(controller, file, line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shares_to_weights() {
        for (shares, want) in [
            (2, 1),
            (1024, 39),
            (262_144, 10_000),
            (0, 1),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), want, "{shares}");
        }
    }

    #[test]
    fn unlimited_in_both_spellings() {
        assert_eq!(signed(Some(&json!({"limit": -1})), "limit"), Some(-1));
        assert_eq!(signed(Some(&json!({"limit": u64::MAX})), "limit"), Some(-1));
        assert_eq!(maximum(-1), "max");
    }

    #[test]
    fn v2_files() {
        let dir = std::env::temp_dir().join(format!("fleet-limits-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for file in [
            "memory.max",
            "memory.swap.max",
            "memory.low",
            "cpu.weight",
            "cpu.max",
            "pids.max",
            "io.max",
            "memory.high",
        ] {
            fs::write(dir.join(file), "").unwrap();
        }
        let leaves = vec![(super::super::hierarchy::Hierarchy::for_test(), dir.clone())];
        let resources = json!({
            "memory": {"limit": 100, "swap": 150, "reservation": 50},
            "cpu": {"shares": 1024, "quota": 5000, "period": 10000},
            "pids": {"limit": 7},
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]},
            "unified": {"memory.high": "90"},
        });
        apply(Version::V2, &leaves, &resources).unwrap();
        for (file, want) in [
            ("memory.max", "100"),
            ("memory.swap.max", "50"),
            ("memory.low", "50"),
            ("cpu.weight", "39"),
            ("cpu.max", "5000 10000"),
            ("pids.max", "7"),
            ("io.max", "8:0 rbps=9"),
            ("memory.high", "90"),
        ] {
            assert_eq!(fs::read_to_string(dir.join(file)).unwrap(), want, "{file}");
        }
        for bad in [
            json!({"unified": {"../x.y": "1"}}),
            json!({"unified": {"cgroup.procs": "1"}}),
            json!({"memory": {"limit": 9, "swap": 5}}),
        ] {
            assert!(apply(Version::V2, &leaves, &bad).is_err(), "{bad}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
