//! `org.systemd.property.NAME` annotations: properties of the unit that the user sets, as with crun and runc
//! (`runc docs/systemd.md`).

use serde_json::Value as Json;

use super::gvariant;
use super::property::Property;
use super::wire::Value;
use crate::cgroup::{CgroupError, Result};

const PREFIX: &str = "org.systemd.property.";

/// Properties that say which processes are in the unit, where it is and what it may reach. In a cluster, who writes
/// annotations is not who owns the node: these stay with the runtime.
const RESERVED: [&str; 9] = [
    "PIDs",
    "PIDFDs",
    "Slice",
    "Delegate",
    "DelegateControllers",
    "DelegateSubgroup",
    "DevicePolicy",
    "DeviceAllow",
    "DisableControllers",
];

/// Reads the annotations of a spec.
///
/// # Errors
/// The annotation, and what is wrong with its name or value.
pub(super) fn properties(annotations: Option<&Json>) -> Result<Vec<Property>> {
    let entries = annotations.and_then(Json::as_object).into_iter().flatten();
    let named = entries.filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    named
        .map(|(name, value)| {
            property(name, value.as_str().unwrap_or_default()).map_err(|why| {
                let name: String = name.chars().take(80).collect();
                CgroupError::Invalid(format!(
                    "annotation `{PREFIX}{}` cannot be used: {why}",
                    name.escape_debug()
                ))
            })
        })
        .collect()
}

fn property(name: &str, text: &str) -> std::result::Result<Property, String> {
    if name.len() < 3 || !name.chars().all(|c| c.is_ascii_alphabetic()) {
        return Err("the name is not one of a systemd property".to_owned());
    }
    let value = gvariant::parse(text)?;
    // `TimeoutStopSec` in unit files is `TimeoutStopUSec` on the bus.
    let seconds = name
        .strip_suffix("Sec")
        .filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    let (name, value) = match seconds {
        Some(stem) => (format!("{stem}USec"), microseconds(&value)?),
        None => (name.to_owned(), value),
    };
    if RESERVED.contains(&name.as_str()) {
        return Err("the runtime sets this property itself".to_owned());
    }
    Ok(Property { name, value })
}

fn microseconds(seconds: &Value) -> std::result::Result<Value, String> {
    let whole = match seconds {
        Value::Double(seconds) => {
            let duration = std::time::Duration::try_from_secs_f64(*seconds).ok();
            return duration
                .and_then(|d| u64::try_from(d.as_micros()).ok())
                .map(Value::U64)
                .ok_or_else(|| "that many seconds cannot be expressed".to_owned());
        }
        Value::Byte(n) => i128::from(*n),
        Value::I16(n) => i128::from(*n),
        Value::U16(n) => i128::from(*n),
        Value::I32(n) => i128::from(*n),
        Value::U32(n) => i128::from(*n),
        Value::I64(n) => i128::from(*n),
        Value::U64(n) => i128::from(*n),
        _ => return Err("it is not a number of seconds".to_owned()),
    };
    u64::try_from(whole * 1_000_000)
        .map(Value::U64)
        .map_err(|_| "that many seconds cannot be expressed".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(name: &str, text: &str) -> Result<Property> {
        let annotations = json!({"other": "x", format!("{PREFIX}{name}"): text});
        properties(Some(&annotations)).map(|all| all.into_iter().next().unwrap())
    }

    #[test]
    fn engines_annotations() {
        for (name, text, want, value) in [
            (
                "TimeoutStopUSec",
                "uint64 10000000",
                "TimeoutStopUSec",
                Value::U64(10_000_000),
            ),
            (
                "TimeoutStopSec",
                "10",
                "TimeoutStopUSec",
                Value::U64(10_000_000),
            ),
            (
                "TimeoutStopSec",
                "1.5",
                "TimeoutStopUSec",
                Value::U64(1_500_000),
            ),
            ("KillSignal", "37", "KillSignal", Value::I32(37)),
            (
                "CollectMode",
                "'inactive-or-failed'",
                "CollectMode",
                Value::text("inactive-or-failed"),
            ),
            (
                "CPUQuotaPerSecUSec",
                "uint64 5",
                "CPUQuotaPerSecUSec",
                Value::U64(5),
            ),
        ] {
            let got = one(name, text).unwrap();
            assert_eq!(
                (got.name.as_str(), &got.value),
                (want, &value),
                "{name}={text}"
            );
        }
        assert!(properties(Some(&json!({"a": "b"}))).unwrap().is_empty());
        assert!(properties(None).unwrap().is_empty());
    }

    #[test]
    fn refused_ones_are_named() {
        for (name, text) in [
            ("TimeoutStopUSec", "soon"),
            ("TimeoutStopSec", "'10'"),
            ("TimeoutStopSec", "-1"),
            ("a", "1"),
            ("Bad-Name", "1"),
            ("PIDs", "[uint32 1]"),
            ("Slice", "'system.slice'"),
            ("DeviceAllow", "@a(ss) [('char-*', 'rwm')]"),
        ] {
            let err = one(name, text).unwrap_err().to_string();
            assert!(
                err.contains(&format!("org.systemd.property.{name}")),
                "{err}"
            );
        }
    }
}
