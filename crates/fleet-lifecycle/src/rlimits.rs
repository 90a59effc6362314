//! `process.rlimits` (`runtime-spec config.md#posix-process`).

use std::io;

use serde_json::Value;

use crate::sys::tail::set_limit;

const NAMES: [(&str, u32); 16] = [
    ("RLIMIT_CPU", 0),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_STACK", 3),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_AS", 9),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
];

/// A limit that cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// Not a limit of Linux, or one without numbers.
    #[error("`process.rlimits` has the unusable entry {0}")]
    Invalid(String),
    /// Two entries of one type, which the spec forbids.
    #[error("`process.rlimits` has {0} twice")]
    Twice(String),
    /// The kernel refused it.
    #[error("set {name} to soft {soft}, hard {hard}: {}{}", crate::error::errno_text(.source), hint(.source))]
    Refused {
        /// Name in the spec.
        name: String,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
        /// The cause.
        source: io::Error,
    },
}

fn hint(source: &io::Error) -> &'static str {
    if source.raw_os_error() == Some(libc::EPERM) {
        "; hint: raising a hard limit needs CAP_SYS_RESOURCE"
    } else {
        ""
    }
}

/// Sets all limits on this process.
///
/// # Errors
/// The first that cannot be set.
pub fn apply(limits: &[Value]) -> Result<(), LimitError> {
    for limit in limits {
        let invalid = || LimitError::Invalid(limit.to_string());
        let name = limit["type"].as_str().ok_or_else(invalid)?;
        let (_, resource) = NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(invalid)?;
        let soft = limit["soft"].as_u64().ok_or_else(invalid)?;
        let hard = limit["hard"].as_u64().ok_or_else(invalid)?;
        if limits.iter().filter(|other| other["type"] == name).count() > 1 {
            return Err(LimitError::Twice(name.to_owned()));
        }
        set_limit(*resource, soft, hard).map_err(|source| LimitError::Refused {
            name: name.to_owned(),
            soft,
            hard,
            source,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bad_entries_are_named() {
        for bad in [
            json!({"type": "RLIMIT_MOON", "soft": 1, "hard": 1}),
            json!({"type": "RLIMIT_CORE", "soft": -1, "hard": 1}),
            json!({"type": "RLIMIT_CORE", "soft": 1}),
            json!({}),
        ] {
            assert!(apply(std::slice::from_ref(&bad)).is_err(), "{bad}");
        }
        let core = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
        let err = apply(&[core.clone(), core]).unwrap_err().to_string();
        assert_eq!(err, "`process.rlimits` has RLIMIT_CORE twice");
        apply(&[]).unwrap();
    }

    #[test]
    fn a_soft_limit_above_the_hard_one_is_refused_by_name() {
        let err = apply(&[json!({"type": "RLIMIT_CORE", "soft": 2, "hard": 1})])
            .unwrap_err()
            .to_string();
        assert!(
            err.contains("RLIMIT_CORE") && err.contains("Invalid argument"),
            "{err}"
        );
    }
    #[test]
    fn limits_are_those_of_the_process() {
        if !crate::signal::alone::alone(module_path!(), "limits_are_those_of_the_process") {
            return;
        }
        let line = |name: &str| -> Vec<String> {
            let all = std::fs::read_to_string("/proc/self/limits").unwrap();
            let line = all.lines().find_map(|l| l.strip_prefix(name)).unwrap();
            line.split_whitespace().take(2).map(str::to_owned).collect()
        };
        apply(&[
            json!({"type": "RLIMIT_CORE", "soft": 1, "hard": 4096}),
            json!({"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 1 << 30}),
            json!({"type": "RLIMIT_LOCKS", "soft": 5, "hard": u64::from(u32::MAX)}),
        ])
        .unwrap();
        assert_eq!(line("Max core file size"), ["1", "4096"]);
        assert_eq!(line("Max stack size"), ["1048576", "1073741824"]);
        assert_eq!(line("Max file locks"), ["5", "4294967295"]);
        crate::sys::tail::set_capabilities(crate::sys::tail::CapabilitySets::default()).unwrap();
        let more = json!({"type": "RLIMIT_CORE", "soft": 1, "hard": u64::MAX});
        let err = apply(&[more]).unwrap_err().to_string();
        assert!(
            err.contains("RLIMIT_CORE") && err.contains("CAP_SYS_RESOURCE"),
            "{err}"
        );
    }
}
