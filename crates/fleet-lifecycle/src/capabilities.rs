//! Capability sets of a process (`man 7 capabilities`, `runtime-spec config.md#linux-process`).
//!
//! A missing `capabilities` object means none (crun's reading), never all. What was set is read back: a process that
//! would run with more than the spec says is not run.

use std::io;

use serde_json::Value;

use crate::sys::tail::{self, CapabilitySets};

/// Names by number, `<linux/capability.h>`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The five sets, as bits by capability number.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sets {
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
    /// Names that this runtime does not know; the peers ignore them, too.
    pub unknown: Vec<String>,
}

/// Capabilities that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// Not a list of strings.
    #[error("`process.capabilities.{0}` is not an array of strings")]
    Invalid(&'static str),
    /// The kernel refused a step.
    #[error("{step}: {}", crate::error::errno_text(.source))]
    Refused {
        /// What was tried.
        step: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The result is not what was asked for.
    #[error("capabilities read back differ from the spec: have {have:?}, want {want:?}")]
    Mismatch {
        /// Sets now.
        have: CapabilitySets,
        /// Sets of the spec.
        want: CapabilitySets,
    },
}

impl Sets {
    /// Reads `process.capabilities`; absent sets are empty.
    ///
    /// # Errors
    /// [`CapabilityError::Invalid`].
    pub fn from_spec(spec: Option<&Value>) -> Result<Self, CapabilityError> {
        let mut sets = Self::default();
        let Some(spec) = spec else { return Ok(sets) };
        let mut unknown = Vec::new();
        let mut read = |name: &'static str| bits(spec.get(name), name, &mut unknown);
        sets.bounding = read("bounding")?;
        sets.effective = read("effective")?;
        sets.permitted = read("permitted")?;
        sets.inheritable = read("inheritable")?;
        sets.ambient = read("ambient")?;
        unknown.sort();
        unknown.dedup();
        sets.unknown = unknown;
        Ok(sets)
    }

    fn process_sets(&self) -> CapabilitySets {
        CapabilitySets {
            effective: self.effective,
            permitted: self.permitted,
            inheritable: self.inheritable,
        }
    }
}

fn bits(
    list: Option<&Value>,
    set: &'static str,
    unknown: &mut Vec<String>,
) -> Result<u64, CapabilityError> {
    let entries = match list {
        None | Some(Value::Null) => return Ok(0),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(CapabilityError::Invalid(set)),
    };
    let mut all = 0;
    for entry in entries {
        let name = entry
            .as_str()
            .ok_or(CapabilityError::Invalid(set))?
            .to_ascii_uppercase();
        match NAMES
            .iter()
            .position(|known| *known == name.strip_prefix("CAP_").unwrap_or(&name))
        {
            Some(number) => all |= 1 << number,
            None => unknown.push(name),
        }
    }
    Ok(all)
}

/// Capability numbers that this kernel knows.
fn known() -> impl Iterator<Item = u32> {
    (0..64).take_while(|number| tail::bounding_has(*number).is_ok())
}

/// Limits what any later `execve` can gain. Needs `CAP_SETPCAP`, so it comes before the user changes.
///
/// # Errors
/// As `PR_CAPBSET_DROP`.
pub fn drop_bounding(sets: &Sets) -> io::Result<()> {
    for number in known() {
        if sets.bounding & (1 << number) == 0 && tail::bounding_has(number)? {
            tail::bounding_drop(number)?;
        }
    }
    Ok(())
}

/// Makes every permitted capability effective again: the change to a user other than root took that away.
///
/// # Errors
/// As `man 2 capset`.
pub fn raise_effective() -> io::Result<()> {
    let have = tail::capabilities()?;
    tail::set_capabilities(CapabilitySets {
        effective: have.permitted,
        ..have
    })
}

/// Sets effective, permitted, inheritable and ambient, and reads them back.
///
/// # Errors
/// The step that was refused, or a mismatch.
pub fn apply(sets: &Sets) -> Result<(), CapabilityError> {
    let refused = |step: &'static str| move |source| CapabilityError::Refused { step, source };
    let kernel = known().fold(0, |bits, number| bits | (1_u64 << number));
    let want = sets.process_sets();
    let want = CapabilitySets {
        effective: want.effective & kernel,
        permitted: want.permitted & kernel,
        inheritable: want.inheritable & kernel,
    };
    tail::set_capabilities(want).map_err(refused("set capabilities"))?;
    tail::ambient_clear().map_err(refused("clear ambient capabilities"))?;
    for number in known().filter(|number| sets.ambient & (1 << number) != 0) {
        // One that is not permitted and inheritable cannot be ambient; the peers go on, too.
        drop(tail::ambient_raise(number));
    }
    let have = tail::capabilities().map_err(refused("read capabilities"))?;
    if have == want {
        Ok(())
    } else {
        Err(CapabilityError::Mismatch { have, want })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_means_none() {
        assert_eq!(Sets::from_spec(None).unwrap(), Sets::default());
        assert_eq!(
            Sets::from_spec(Some(&json!({"bounding": null}))).unwrap(),
            Sets::default()
        );
    }

    #[test]
    fn names_in_every_spelling() {
        let sets = Sets::from_spec(Some(&json!({"effective": ["CAP_CHOWN", "kill", "CAP_BPF", "CAP_MOON"], "ambient": ["CAP_KILL"]}))).unwrap();
        assert_eq!(sets.effective, 1 | (1 << 5) | (1 << 39));
        assert_eq!(sets.ambient, 1 << 5);
        assert_eq!(sets.unknown, ["CAP_MOON"]);
        for bad in [json!({"bounding": "CAP_KILL"}), json!({"bounding": [1]})] {
            assert!(Sets::from_spec(Some(&bad)).is_err());
        }
    }

    #[test]
    fn own_sets_can_be_read() {
        let have = tail::capabilities().unwrap();
        assert_eq!(have.effective & !have.permitted, 0);
        assert!(known().count() >= 38);
    }
}
