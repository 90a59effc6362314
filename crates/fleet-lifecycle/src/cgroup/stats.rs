//! Statistics in the schema of runc's `events --stats`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::hierarchy::{Hierarchy, Version};

struct Reader<'a>(&'a [(Hierarchy, PathBuf)]);

impl Reader<'_> {
    fn dir(&self, controller: &str) -> Option<&Path> {
        self.0
            .iter()
            .find(|(h, _)| h.has(controller))
            .map(|(_, leaf)| leaf.as_path())
    }

    fn text(&self, controller: &str, file: &str) -> String {
        self.dir(controller)
            .and_then(|dir| fs::read_to_string(dir.join(file)).ok())
            .unwrap_or_default()
    }

    /// A number; `max` and absent files count as 0.
    fn number(&self, controller: &str, file: &str) -> u64 {
        self.text(controller, file).trim().parse().unwrap_or(0)
    }

    /// `key value` lines.
    fn table(&self, controller: &str, file: &str) -> Map<String, Value> {
        let text = self.text(controller, file);
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), json!(value.trim().parse::<u64>().ok()?)))
        };
        text.lines().filter_map(pair).collect()
    }
}

pub(super) fn collect(version: Version, leaves: &[(Hierarchy, PathBuf)]) -> Value {
    let reader = Reader(leaves);
    match version {
        Version::V1 => v1(&reader),
        Version::V2 => v2(&reader),
    }
}

fn of(table: &Map<String, Value>, key: &str) -> u64 {
    table.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// `USER_HZ` is 100 on every Linux this runs on (`man 7 time`): `cpuacct.stat` counts in it.
const NANOS_PER_TICK: u64 = 10_000_000;

fn v1(reader: &Reader<'_>) -> Value {
    let throttling = reader.table("cpu", "cpu.stat");
    let times = reader.table("cpuacct", "cpuacct.stat");
    let percpu: Vec<u64> = reader
        .text("cpuacct", "cpuacct.usage_percpu")
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    let raw = reader.table("memory", "memory.stat");
    let usage = |prefix: &str| {
        json!({
            "limit": reader.number("memory", &format!("{prefix}.limit_in_bytes")),
            "usage": reader.number("memory", &format!("{prefix}.usage_in_bytes")),
            "max": reader.number("memory", &format!("{prefix}.max_usage_in_bytes")),
            "failcnt": reader.number("memory", &format!("{prefix}.failcnt")),
        })
    };
    json!({
        "cpu": {
            "usage": {
                "total": reader.number("cpuacct", "cpuacct.usage"), "percpu": percpu,
                "kernel": of(&times, "system") * NANOS_PER_TICK, "user": of(&times, "user") * NANOS_PER_TICK,
            },
            "throttling": {"periods": of(&throttling, "nr_periods"), "throttledPeriods": of(&throttling, "nr_throttled"), "throttledTime": of(&throttling, "throttled_time")},
        },
        "memory": {
            "cache": of(&raw, "cache"), "usage": usage("memory"), "swap": usage("memory.memsw"),
            "kernel": usage("memory.kmem"), "kernelTCP": usage("memory.kmem.tcp"), "raw": raw,
        },
        "pids": pids(reader),
        "blkio": {"ioServiceBytesRecursive": blkio_v1(&reader.text("blkio", "blkio.throttle.io_service_bytes")), "ioServicedRecursive": blkio_v1(&reader.text("blkio", "blkio.throttle.io_serviced"))},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn v2(reader: &Reader<'_>) -> Value {
    let cpu = reader.table("cpu", "cpu.stat");
    let raw = reader.table("memory", "memory.stat");
    let events = reader.table("memory", "memory.events");
    json!({
        "cpu": {
            "usage": {"total": of(&cpu, "usage_usec") * 1000, "kernel": of(&cpu, "system_usec") * 1000, "user": of(&cpu, "user_usec") * 1000},
            "throttling": {"periods": of(&cpu, "nr_periods"), "throttledPeriods": of(&cpu, "nr_throttled"), "throttledTime": of(&cpu, "throttled_usec") * 1000},
        },
        "memory": {
            "cache": of(&raw, "file"),
            "usage": {"limit": reader.number("memory", "memory.max"), "usage": reader.number("memory", "memory.current"), "max": reader.number("memory", "memory.peak"), "failcnt": of(&events, "max")},
            "swap": {"limit": reader.number("memory", "memory.swap.max"), "usage": reader.number("memory", "memory.swap.current"), "failcnt": 0},
            "kernel": {"failcnt": 0}, "kernelTCP": {"failcnt": 0}, "raw": raw,
        },
        "pids": pids(reader),
        "blkio": io_v2(&reader.text("io", "io.stat")),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn pids(reader: &Reader<'_>) -> Value {
    json!({"current": reader.number("pids", "pids.current"), "limit": reader.number("pids", "pids.max")})
}

/// Lines `8:0 Read 123`.
fn blkio_v1(text: &str) -> Vec<Value> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (op, value) = (words.next()?, words.next()?.parse::<u64>().ok()?);
        Some(
            json!({"major": major.parse::<u64>().ok()?, "minor": minor.parse::<u64>().ok()?, "op": op, "value": value}),
        )
    };
    text.lines().filter_map(entry).collect()
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4`.
fn io_v2(text: &str) -> Value {
    let (mut bytes, mut count) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|w| w.split_once(':')) else {
            continue;
        };
        for (name, value) in words.filter_map(|w| w.split_once('=')) {
            let entry = |op: &str| json!({"major": major.parse::<u64>().unwrap_or(0), "minor": minor.parse::<u64>().unwrap_or(0), "op": op, "value": value.parse::<u64>().unwrap_or(0)});
            match name {
                "rbytes" => bytes.push(entry("Read")),
                "wbytes" => bytes.push(entry("Write")),
                "rios" => count.push(entry("Read")),
                "wios" => count.push(entry("Write")),
                _ => {}
            }
        }
    }
    json!({"ioServiceBytesRecursive": bytes, "ioServicedRecursive": count})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_lines() {
        assert_eq!(
            blkio_v1("8:0 Read 5\nTotal 5\n"),
            [json!({"major": 8, "minor": 0, "op": "Read", "value": 5})]
        );
        let v2 = io_v2("8:16 rbytes=1 wbytes=2 rios=3 wios=4\n");
        assert_eq!(v2["ioServicedRecursive"][1]["value"], 4);
    }
}
