//! `process.ioPriority` (`runtime-spec config.md#linux-process`, `man 2 ioprio_set`).

use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::spec;
use crate::sys::process::set_io_priority;

/// `linux/ioprio.h`.
const CLASSES: [(&str, u16); 3] = [
    ("IOPRIO_CLASS_RT", 1),
    ("IOPRIO_CLASS_BE", 2),
    ("IOPRIO_CLASS_IDLE", 3),
];
const LEVELS: std::ops::RangeInclusive<u16> = 0..=7;

/// How a process's input and output is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriority {
    class: u16,
    level: u16,
}

impl IoPriority {
    /// Reads it from a `process` object; `None` where it says nothing of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field.
    pub(crate) fn from_process(process: &Value) -> Result<Option<Self>> {
        let Some(given) = process.get("ioPriority").filter(|p| !p.is_null()) else {
            return Ok(None);
        };
        let name = spec::text(given, "/class").unwrap_or_default();
        let class = CLASSES.iter().find(|(known, _)| *known == name);
        let Some((_, class)) = class else {
            return Err(Error::Invalid(format!(
                "`process.ioPriority` has the unknown class \"{name}\"; hint: there are {}",
                CLASSES.map(|(name, _)| name).join(", ")
            )));
        };
        let level = match given.get("priority").filter(|p| !p.is_null()) {
            None => Some(0),
            Some(level) => level.as_u64().and_then(|n| u16::try_from(n).ok()),
        };
        let level = level.filter(|level| LEVELS.contains(level));
        let level = level.ok_or_else(|| {
            Error::Invalid(format!(
                "`process.ioPriority.priority` is {}, not a number from 0 to 7",
                given["priority"]
            ))
        })?;
        Ok(Some(Self {
            class: *class,
            level,
        }))
    }

    /// Sets it for the calling process.
    ///
    /// # Errors
    /// As `man 2 ioprio_set`.
    pub(crate) fn apply(self) -> Result<()> {
        set_io_priority(self.class, self.level).op(|| "set `process.ioPriority`")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_and_levels() {
        let read = |given: Value| IoPriority::from_process(&json!({"ioPriority": given}));
        assert_eq!(read(json!(null)).unwrap(), None);
        let idle = read(json!({"class": "IOPRIO_CLASS_IDLE"})).unwrap();
        assert_eq!(idle, Some(IoPriority { class: 3, level: 0 }));
        for (given, word) in [
            (json!({"class": "IOPRIO_FUNNY"}), "IOPRIO_FUNNY"),
            (json!({}), "unknown class \"\""),
            (json!({"class": "IOPRIO_CLASS_BE", "priority": 8}), "is 8,"),
            (
                json!({"class": "IOPRIO_CLASS_BE", "priority": -1}),
                "is -1,",
            ),
        ] {
            let err = read(given).unwrap_err().to_string();
            assert!(err.contains(word), "{err}");
        }
    }
}
