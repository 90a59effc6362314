//! Statistics in the schema of runc's `events --stats` (`opencontainers/runc types/events.go`).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::file;
use super::hierarchy::{Hierarchy, Version};

/// `USER_HZ` is 100 on every Linux this runs on (`man 7 time`): `cpuacct.stat` counts in it.
const NANOS_PER_TICK: u64 = 10_000_000;

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

    /// A number; absent files count as 0.
    fn number(&self, controller: &str, file: &str) -> u64 {
        self.dir(controller)
            .and_then(|dir| file::number(&dir.join(file)))
            .unwrap_or(0)
    }

    /// A limit; `max` is the largest number, as with runc.
    fn limit(&self, controller: &str, file: &str) -> u64 {
        let text = self.text(controller, file);
        if text.trim() == "max" {
            u64::MAX
        } else {
            text.trim().parse().unwrap_or(0)
        }
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

    /// Numbers in a line.
    fn row(&self, controller: &str, file: &str) -> Vec<u64> {
        numbers(&self.text(controller, file))
    }

    /// Sizes that this cgroup has a huge page limit for, from the file names.
    fn page_sizes(&self, suffix: &str) -> Vec<String> {
        let entries = self.dir("hugetlb").and_then(|dir| fs::read_dir(dir).ok());
        let names = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok());
        let size = |name: String| {
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
            (!size.contains('.')).then(|| size.to_owned())
        };
        names.filter_map(size).collect()
    }
}

pub(super) fn collect(version: Version, leaves: &[(Hierarchy, PathBuf)]) -> Value {
    let reader = Reader(leaves);
    let mut data = match version {
        Version::V1 => v1(&reader),
        Version::V2 => v2(&reader),
    };
    data["cpuset"] = cpuset(version, &reader);
    // No limit is 0 here, by runc's tradition.
    data["pids"] = json!({"current": reader.number("pids", "pids.current"), "limit": reader.number("pids", "pids.max")});
    data["hugetlb"] = huge_pages(version, &reader);
    data["intel_rdt"] = json!({});
    data["network_interfaces"] = Value::Null;
    data
}

fn of(table: &Map<String, Value>, key: &str) -> u64 {
    table.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn v1(reader: &Reader<'_>) -> Value {
    let throttling = reader.table("cpu", "cpu.stat");
    let times = reader.table("cpuacct", "cpuacct.stat");
    let (kernel, user) = per_cpu(&reader.text("cpuacct", "cpuacct.usage_all"));
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
                "total": reader.number("cpuacct", "cpuacct.usage"),
                "percpu": reader.row("cpuacct", "cpuacct.usage_percpu"),
                "percpu_kernel": kernel,
                "percpu_user": user,
                "kernel": of(&times, "system") * NANOS_PER_TICK,
                "user": of(&times, "user") * NANOS_PER_TICK,
            },
            "throttling": {
                "periods": of(&throttling, "nr_periods"),
                "throttledPeriods": of(&throttling, "nr_throttled"),
                "throttledTime": of(&throttling, "throttled_time"),
            },
        },
        "memory": {
            "cache": of(&raw, "cache"), "usage": usage("memory"), "swap": usage("memory.memsw"),
            "kernel": usage("memory.kmem"), "kernelTCP": usage("memory.kmem.tcp"), "raw": raw,
        },
        "blkio": block_v1(reader),
    })
}

/// `cpuacct.usage_all`: a heading, then `cpu user system` in nanoseconds.
fn per_cpu(text: &str) -> (Vec<u64>, Vec<u64>) {
    let rows = text.lines().skip(1).map(numbers);
    rows.filter_map(|row| Some((*row.get(2)?, *row.get(1)?)))
        .unzip()
}

fn v2(reader: &Reader<'_>) -> Value {
    let cpu = reader.table("cpu", "cpu.stat");
    let nanos = |key: &str| of(&cpu, key) * 1000;
    let mut data = json!({
        "cpu": {
            "usage": {"total": nanos("usage_usec"), "kernel": nanos("system_usec"), "user": nanos("user_usec")},
            "throttling": {
                "periods": of(&cpu, "nr_periods"),
                "throttledPeriods": of(&cpu, "nr_throttled"),
                "throttledTime": nanos("throttled_usec"),
            },
        },
        "memory": memory_v2(reader),
        "blkio": block_v2(&reader.text("io", "io.stat")),
    });
    for (part, file) in [
        ("cpu", "cpu.pressure"),
        ("memory", "memory.pressure"),
        ("blkio", "io.pressure"),
    ] {
        if let Some(pressure) = pressure(&reader.text("", file)) {
            data[part]["psi"] = pressure;
        }
    }
    data
}

fn memory_v2(reader: &Reader<'_>) -> Value {
    let raw = reader.table("memory", "memory.stat");
    let events = reader.table("memory", "memory.events");
    let (usage, limit) = (
        reader.number("memory", "memory.current"),
        reader.limit("memory", "memory.max"),
    );
    let (swap, swap_limit) = (
        reader.number("memory", "memory.swap.current"),
        reader.limit("memory", "memory.swap.max"),
    );
    let peak = reader.number("memory", "memory.peak");
    json!({
        "cache": of(&raw, "file"),
        "usage": {"limit": limit, "usage": usage, "max": peak, "failcnt": of(&events, "max")},
        // v2 counts swap alone; the schema is v1's, which counts both together.
        "swap": {"limit": limit.saturating_add(swap_limit), "usage": usage.saturating_add(swap), "failcnt": 0},
        "kernel": {"limit": 0, "usage": of(&raw, "kernel"), "failcnt": 0},
        "kernelTCP": {"limit": 0, "usage": of(&raw, "sock"), "failcnt": 0},
        "raw": raw,
    })
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the same with `full` (kernel `accounting/psi.rst`).
fn pressure(text: &str) -> Option<Value> {
    let line = |line: &str| {
        let (name, words) = line.split_once(' ')?;
        let pair = |word: &str| {
            let (key, value) = word.split_once('=')?;
            let value = if key == "total" {
                json!(value.parse::<u64>().ok()?)
            } else {
                json!(value.parse::<f64>().ok()?)
            };
            Some((key.to_owned(), value))
        };
        Some((
            name.to_owned(),
            Value::Object(words.split(' ').filter_map(pair).collect()),
        ))
    };
    let lines: Map<String, Value> = text.lines().filter_map(line).collect();
    (!lines.is_empty()).then_some(Value::Object(lines))
}

fn cpuset(version: Version, reader: &Reader<'_>) -> Value {
    let list = |file: &str| json!(ranges(&reader.text("cpuset", file)));
    if version == Version::V2 {
        return json!({"cpus": list("cpuset.cpus.effective"), "mems": list("cpuset.mems.effective")});
    }
    let mut data = json!({"cpus": list("cpuset.cpus"), "mems": list("cpuset.mems")});
    for key in [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
    ] {
        data[key] = json!(reader.number("cpuset", &format!("cpuset.{key}")));
    }
    let level = reader.text("cpuset", "cpuset.sched_relax_domain_level");
    data["sched_relax_domain_level"] = json!(level.trim().parse::<i64>().unwrap_or(0));
    data
}

/// `0-2,7` to its numbers.
fn ranges(text: &str) -> Vec<u16> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(part).flatten().collect()
}

fn huge_pages(version: Version, reader: &Reader<'_>) -> Value {
    let suffix = if version == Version::V1 {
        ".limit_in_bytes"
    } else {
        ".max"
    };
    let size = |size: String| {
        let number = |file: &str| reader.number("hugetlb", &format!("hugetlb.{size}.{file}"));
        let data = match version {
            Version::V1 => {
                json!({"usage": number("usage_in_bytes"), "max": number("max_usage_in_bytes"), "failcnt": number("failcnt")})
            }
            Version::V2 => {
                let events = reader.table("hugetlb", &format!("hugetlb.{size}.events"));
                json!({"usage": number("current"), "failcnt": of(&events, "max")})
            }
        };
        (size.clone(), data)
    };
    Value::Object(reader.page_sizes(suffix).into_iter().map(size).collect())
}

/// The CFQ files have more to tell where they are; the throttle files are there always.
fn block_v1(reader: &Reader<'_>) -> Value {
    let entries = |files: &[&str]| {
        let texts = files.iter().map(|file| reader.text("blkio", file));
        texts
            .map(|text| block_lines(&text))
            .find(|entries| !entries.is_empty())
            .unwrap_or_default()
    };
    let mut data = json!({
        "ioServiceBytesRecursive": entries(&[
            "blkio.io_service_bytes_recursive", "blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ]),
        "ioServicedRecursive": entries(&[
            "blkio.io_serviced_recursive", "blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive",
            "blkio.throttle.io_serviced",
        ]),
    });
    for (key, name) in [
        ("ioQueueRecursive", "io_queued_recursive"),
        ("ioServiceTimeRecursive", "io_service_time_recursive"),
        ("ioWaitTimeRecursive", "io_wait_time_recursive"),
        ("ioMergedRecursive", "io_merged_recursive"),
        ("ioTimeRecursive", "time_recursive"),
        ("sectorsRecursive", "sectors_recursive"),
    ] {
        let found = entries(&[&format!("blkio.{name}"), &format!("blkio.bfq.{name}")]);
        if !found.is_empty() {
            data[key] = json!(found);
        }
    }
    data
}

/// Lines `8:0 Read 123`, or `8:0 123` where there is one kind only.
fn block_lines(text: &str) -> Vec<Value> {
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (device, op, value) = match words.as_slice() {
            [device, op, value] => (device, *op, value),
            [device, value] => (device, "", value),
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        let number = |word: &str| word.parse::<u64>().ok();
        Some(
            json!({"major": number(major)?, "minor": number(minor)?, "op": op, "value": number(value)?}),
        )
    };
    text.lines().filter_map(entry).collect()
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4`.
fn block_v2(text: &str) -> Value {
    let (mut bytes, mut count) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|w| w.split_once(':')) else {
            continue;
        };
        let number = |word: &str| word.parse::<u64>().unwrap_or(0);
        for (name, value) in words.filter_map(|w| w.split_once('=')) {
            let (list, op) = match name {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut count, "Read"),
                "wios" => (&mut count, "Write"),
                _ => continue,
            };
            list.push(json!({"major": number(major), "minor": number(minor), "op": op, "value": number(value)}));
        }
    }
    json!({"ioServiceBytesRecursive": bytes, "ioServicedRecursive": count})
}

#[cfg(test)]
mod tests {
    use super::super::hierarchy::at;
    use super::*;

    #[test]
    fn block_files() {
        let want = [
            json!({"major": 8, "minor": 0, "op": "Read", "value": 5}),
            json!({"major": 8, "minor": 1, "op": "", "value": 7}),
        ];
        assert_eq!(block_lines("8:0 Read 5\n8:1 7\nTotal 5\n"), want);
        let v2 = block_v2("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n");
        assert_eq!(
            v2["ioServicedRecursive"][1],
            json!({"major": 8, "minor": 16, "op": "Write", "value": 4})
        );
        assert_eq!(v2["ioServiceBytesRecursive"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn ranges_of_cpus() {
        assert_eq!(ranges("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(ranges("\n"), Vec::<u16>::new());
    }

    #[test]
    fn pressure_lines() {
        let psi = pressure("some avg10=0.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").unwrap();
        assert_eq!(
            (&psi["some"]["avg10"], &psi["some"]["total"]),
            (&json!(0.5), &json!(12))
        );
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn per_cpu_times() {
        assert_eq!(
            per_cpu("cpu user system\n0 1 2\n1 3 4\n"),
            (vec![2, 4], vec![1, 3])
        );
        assert_eq!(per_cpu(""), (vec![], vec![]));
    }

    #[test]
    fn unified_files() {
        let dir = std::env::temp_dir().join(format!("fleet-stats-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (file, text) in [
            ("memory.current", "100\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "5\n"),
            ("memory.swap.max", "50\n"),
            ("memory.stat", "anon 1\nfile 42\n"),
            ("memory.events", "max 3\n"),
            ("cpu.stat", "usage_usec 7\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            ("hugetlb.2MB.max", "0\n"),
            ("hugetlb.2MB.rsvd.max", "0\n"),
            ("hugetlb.2MB.current", "9\n"),
            ("hugetlb.2MB.events", "max 1\n"),
            ("cpuset.cpus.effective", "0-1\n"),
        ] {
            fs::write(dir.join(file), text).unwrap();
        }
        let data = collect(Version::V2, &[(at(&dir, &[]), dir.clone())]);
        fs::remove_dir_all(&dir).unwrap();
        for (pointer, want) in [
            ("/memory/usage/limit", json!(u64::MAX)),
            ("/memory/usage/usage", json!(100)),
            ("/memory/usage/failcnt", json!(3)),
            ("/memory/swap/usage", json!(105)),
            ("/memory/swap/limit", json!(u64::MAX)),
            ("/memory/cache", json!(42)),
            ("/memory/raw/anon", json!(1)),
            ("/cpu/usage/total", json!(7000)),
            ("/pids/current", json!(2)),
            ("/pids/limit", json!(0)),
            ("/hugetlb", json!({"2MB": {"usage": 9, "failcnt": 1}})),
            ("/cpuset/cpus", json!([0, 1])),
        ] {
            assert_eq!(data.pointer(pointer), Some(&want), "{pointer}");
        }
    }
}
