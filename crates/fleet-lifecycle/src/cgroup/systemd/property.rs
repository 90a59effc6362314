//! Properties of a unit (`man 5 org.freedesktop.systemd1`), and limits as such.
//!
//! systemd sets its own values again whenever it likes (`daemon-reload`, a neighbour's change), so that a limit that
//! only the cgroup's file knows would be lost. Each file that the runtime is about to write is translated here; what
//! has no property is not systemd's to reset.

use super::wire::Value;
use crate::cgroup::{CgroupError, Result};

/// A property and its value.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cgroup) struct Property {
    pub(super) name: String,
    pub(super) value: Value,
}

impl Property {
    pub(super) fn new(name: &str, value: Value) -> Self {
        Self {
            name: name.to_owned(),
            value,
        }
    }

    /// `(sv)` of a call.
    pub(super) fn into_argument(self) -> Value {
        Value::Struct(vec![
            Value::Text(self.name),
            Value::Variant(Box::new(self.value)),
        ])
    }
}

/// Files that hold one number, and their property.
const NUMBERS: [(&str, &str); 13] = [
    ("memory.max", "MemoryMax"),
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.min", "MemoryMin"),
    ("memory.swap.max", "MemorySwapMax"),
    ("pids.max", "TasksMax"),
    ("cpu.weight", "CPUWeight"),
    ("memory.limit_in_bytes", "MemoryLimit"),
    ("cpu.shares", "CPUShares"),
    ("blkio.weight", "BlockIOWeight"),
    ("cpu.cfs_quota_us", QUOTA),
    ("cpu.cfs_period_us", PERIOD),
    ("io.weight", "IOWeight"),
];

const QUOTA: &str = "CPUQuotaPerSecUSec";
const PERIOD: &str = "CPUQuotaPeriodUSec";
/// `CGROUP_LIMIT_MAX`, `USEC_INFINITY`.
const INFINITY: u64 = u64::MAX;
/// The kernel's default period, microseconds (`cgroup-v2.rst`, `cpu.max`).
const DEFAULT_PERIOD: u64 = 100_000;

/// Properties for files that are about to be written, later ones winning.
///
/// # Errors
/// A list of CPUs or memory nodes that is none.
pub(in crate::cgroup) fn from_files(files: &[(String, String)]) -> Result<Vec<Property>> {
    let mut all: Vec<Property> = Vec::new();
    let mut put = |property: Property| {
        all.retain(|known| known.name != property.name);
        all.push(property);
    };
    for (file, text) in files {
        match file.as_str() {
            "cpu.max" => quota_and_period(text).into_iter().for_each(&mut put),
            "cpuset.cpus" => put(Property::new("AllowedCPUs", mask(file, text)?)),
            "cpuset.mems" => put(Property::new("AllowedMemoryNodes", mask(file, text)?)),
            // 0 is how systemd says idle (since 252).
            "cpu.idle" if text == "1" => put(Property::new("CPUWeight", Value::U64(0))),
            file => {
                if let Some((_, name)) = NUMBERS.iter().find(|(known, _)| *known == file)
                    && let Some(number) = number(text)
                {
                    put(Property::new(name, Value::U64(number)));
                }
            }
        }
    }
    per_second(&mut all);
    Ok(all)
}

/// `default 100` of `io.weight`, `max`, or -1 of v1; `None` for a value of one device.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("default ").unwrap_or(text) {
        "max" | "-1" => Some(INFINITY),
        digits => digits.parse().ok(),
    }
}

/// `QUOTA PERIOD`, either of which `max` may stand for.
fn quota_and_period(text: &str) -> Vec<Property> {
    let mut words = text.split_whitespace();
    let mut property = |name: &str| {
        let number = number(words.next()?)?;
        Some(Property::new(name, Value::U64(number)))
    };
    [property(QUOTA), property(PERIOD)]
        .into_iter()
        .flatten()
        .collect()
}

/// The kernel counts the quota per period, systemd per second, and keeps whole percents of a CPU when it is reloaded:
/// rounded up to that, so that systemd's value is never below the one asked for.
fn per_second(all: &mut [Property]) {
    let find = |name: &str| {
        all.iter().find_map(|p| match (&p.value, p.name == name) {
            (Value::U64(n), true) => Some(*n),
            _ => None,
        })
    };
    let period = find(PERIOD).filter(|n| *n != 0).unwrap_or(DEFAULT_PERIOD);
    let Some(quota) = find(QUOTA).filter(|n| *n != INFINITY) else {
        return;
    };
    let exact = u128::from(quota) * 1_000_000 / u128::from(period);
    let rounded = u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(INFINITY);
    if let Some(property) = all.iter_mut().find(|p| p.name == QUOTA) {
        property.value = Value::U64(rounded);
    }
}

/// `0-2,7` as a bit mask, lowest byte first.
fn mask(file: &str, list: &str) -> Result<Value> {
    /// Numbers beyond this are no CPUs (`CONFIG_NR_CPUS` is 8192 at most).
    const LARGEST: usize = 8192;
    let bad = || {
        CgroupError::Invalid(format!(
            "\"{}\" for `{file}` is not a list of numbers",
            list.escape_debug()
        ))
    };
    let number = |text: &str| {
        let number: Option<usize> = text.trim().parse().ok();
        number.filter(|n| *n < LARGEST).ok_or_else(bad)
    };
    let mut bytes: Vec<u8> = Vec::new();
    for part in list.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        for n in number(first)?..=number(last)? {
            if bytes.len() <= n / 8 {
                bytes.resize(n / 8 + 1, 0);
            }
            if let Some(byte) = bytes.get_mut(n / 8) {
                *byte |= 1 << (n % 8);
            }
        }
    }
    let items = bytes.into_iter().map(Value::Byte).collect();
    Ok(Value::Array("y".to_owned(), items))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(files: &[(&str, &str)]) -> String {
        let files: Vec<(String, String)> = files
            .iter()
            .map(|(file, text)| ((*file).to_owned(), (*text).to_owned()))
            .collect();
        let show = |p: &Property| match &p.value {
            Value::U64(INFINITY) => format!("{}=infinity", p.name),
            Value::U64(n) => format!("{}={n}", p.name),
            Value::Array(_, bytes) => format!(
                "{}={}",
                p.name,
                bytes.iter().map(|b| format!("{b:?}")).collect::<String>()
            ),
            other => format!("{}={other:?}", p.name),
        };
        from_files(&files)
            .unwrap()
            .iter()
            .map(show)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn files_as_properties() {
        for (files, want) in [
            (
                &[("memory.max", "1024"), ("memory.swap.max", "0")][..],
                "MemoryMax=1024 MemorySwapMax=0",
            ),
            (
                &[("memory.max", "max"), ("pids.max", "5")],
                "MemoryMax=infinity TasksMax=5",
            ),
            (
                &[("cpu.max", "50000 100000")],
                "CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=100000",
            ),
            (
                &[("cpu.max", "33333 100000")],
                "CPUQuotaPerSecUSec=340000 CPUQuotaPeriodUSec=100000",
            ),
            (
                &[("cpu.max", "max 50000")],
                "CPUQuotaPerSecUSec=infinity CPUQuotaPeriodUSec=50000",
            ),
            (&[("cpu.max", "20000")], "CPUQuotaPerSecUSec=200000"),
            (&[("cpu.weight", "79"), ("cpu.idle", "1")], "CPUWeight=0"),
            (&[("cpu.idle", "0")], ""),
            (
                &[("io.weight", "default 200"), ("io.weight", "8:0 50")],
                "IOWeight=200",
            ),
            (&[("cpuset.cpus", "0-1,8")], "AllowedCPUs=Byte(3)Byte(1)"),
            (&[("cpuset.mems", "")], "AllowedMemoryNodes="),
            (&[("memory.max", "1"), ("memory.max", "2")], "MemoryMax=2"),
            (
                &[("cpu.cfs_quota_us", "-1"), ("cpu.shares", "512")],
                "CPUQuotaPerSecUSec=infinity CPUShares=512",
            ),
            (
                &[
                    ("hugetlb.2MB.max", "1"),
                    ("io.max", "8:0 rbps=1"),
                    ("memory.oom.group", "1"),
                ],
                "",
            ),
        ] {
            assert_eq!(shown(files), want, "{files:?}");
        }
    }

    #[test]
    fn lists_that_are_none() {
        for bad in ["a", "1-", "-1", "99999", "1-99999"] {
            let files = [("cpuset.cpus".to_owned(), bad.to_owned())];
            assert!(from_files(&files).is_err(), "{bad}");
        }
    }
}
