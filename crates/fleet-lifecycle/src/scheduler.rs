//! `process.scheduler` (`runtime-spec config.md#linux-process`, `man 2 sched_setattr`).
//!
//! libcontainer 0.7: knows `SCHED_FLAG_RESET_ON_FORK` and `SCHED_FLAG_DL_OVERRUN` under other names than the
//! specification, which makes the whole spec unreadable, and tells a failure by its number alone (L33).

use serde_json::Value;

use crate::error::{Error, Result, errno_text};
use crate::spec;
use crate::sys::process::{SchedulingAttributes, set_scheduling};

/// `linux/sched.h`.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// `linux/sched.h`.
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// How a process is scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduler {
    policy: String,
    attributes: SchedulingAttributes,
}

impl Scheduler {
    /// Reads it from a `process` object; `None` where it says nothing of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field.
    pub fn from_process(process: &Value) -> Result<Option<Self>> {
        let Some(given) = process.get("scheduler").filter(|s| !s.is_null()) else {
            return Ok(None);
        };
        let policy = spec::text(given, "/policy").unwrap_or_default();
        let number = |list: &[(&str, u64)], kind: &str, name: &str| {
            let known = list.iter().find(|(known, _)| *known == name);
            known.map(|(_, number)| *number).ok_or_else(|| {
                let names: Vec<&str> = list.iter().map(|(name, _)| *name).collect();
                Error::Invalid(format!(
                    "`process.scheduler` has the unknown {kind} \"{name}\"; hint: there are {}",
                    names.join(", ")
                ))
            })
        };
        let policies = POLICIES.map(|(name, number)| (name, u64::from(number)));
        let mut flags = 0;
        for flag in spec::strings(given, "/flags") {
            flags |= number(&FLAGS, "flag", &flag)?;
        }
        let unsigned = |key: &str| match given.get(key).filter(|v| !v.is_null()) {
            None => Ok(0),
            Some(value) => value
                .as_u64()
                .ok_or_else(|| not_a_number(key, "not a number from 0 up", value)),
        };
        let small = |key: &str| match given.get(key).filter(|v| !v.is_null()) {
            None => Ok(0),
            Some(value) => value
                .as_i64()
                .and_then(|n| i32::try_from(n).ok())
                .ok_or_else(|| not_a_number(key, "not a small number", value)),
        };
        let priority = small("priority")?;
        let found = u32::try_from(number(&policies, "policy", policy)?).unwrap_or_default();
        Ok(Some(Self {
            policy: policy.to_owned(),
            attributes: SchedulingAttributes {
                policy: found,
                flags,
                nice: small("nice")?,
                priority: u32::try_from(priority)
                    .map_err(|_| not_a_number("priority", "negative", &priority.into()))?,
                runtime: unsigned("runtime")?,
                deadline: unsigned("deadline")?,
                period: unsigned("period")?,
            },
        }))
    }

    /// Sets it for the calling process.
    ///
    /// # Errors
    /// The policy, when the kernel refuses it.
    pub fn apply(&self) -> Result<()> {
        set_scheduling(&self.attributes).map_err(|err| {
            let hint = match err.raw_os_error() {
                Some(libc::EPERM) => {
                    "; hint: a realtime policy needs CAP_SYS_NICE, and on cgroup v1 a share of it, `linux.resources.cpu.realtimeRuntime`"
                }
                _ => "",
            };
            Error::Setup(format!(
                "set scheduling policy {} of `process.scheduler`: {}{hint}",
                self.policy,
                errno_text(&err).to_lowercase()
            ))
        })
    }
}

fn not_a_number(key: &str, what: &str, value: &Value) -> Error {
    Error::Invalid(format!("`process.scheduler.{key}` is {value}, {what}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(scheduler: Value) -> Result<Option<Scheduler>> {
        Scheduler::from_process(&json!({"scheduler": scheduler}))
    }

    #[test]
    fn every_field() {
        assert_eq!(read(json!(null)).unwrap(), None);
        let all = json!({"policy": "SCHED_DEADLINE", "nice": -3, "priority": 4, "runtime": 5, "deadline": 6, "period": 7,
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"]});
        let got = read(all).unwrap().unwrap();
        assert_eq!(
            got.attributes,
            SchedulingAttributes {
                policy: 6,
                flags: 5,
                nice: -3,
                priority: 4,
                runtime: 5,
                deadline: 6,
                period: 7
            }
        );
    }

    #[test]
    fn what_is_unknown_is_named() {
        for (given, word) in [
            (json!({}), "unknown policy \"\""),
            (json!({"policy": "SCHED_FUNNY"}), "SCHED_FUNNY"),
            (
                json!({"policy": "SCHED_OTHER", "flags": ["SCHED_RESET_ON_FORK"]}),
                "unknown flag \"SCHED_RESET_ON_FORK\"",
            ),
            (
                json!({"policy": "SCHED_RR", "priority": -1}),
                "priority` is -1",
            ),
            (json!({"policy": "SCHED_RR", "runtime": "x"}), "runtime` is"),
            (
                json!({"policy": "SCHED_RR", "nice": 1_u64 << 40}),
                "nice` is",
            ),
        ] {
            let err = read(given).unwrap_err().to_string();
            assert!(err.contains(word), "{err}");
        }
    }
}
