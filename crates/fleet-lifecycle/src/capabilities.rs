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
    /// Nobody can give what he has not.
    #[error("`process.capabilities.{set}` has {}, which {lacking}", .names.join(", "))]
    Beyond {
        /// Which set.
        set: &'static str,
        /// The capabilities.
        names: Vec<String>,
        /// Who lacks them.
        lacking: &'static str,
    },
    /// The result is not what was asked for.
    #[error("{set} capabilities are {have:#x} after they were set to {want:#x}")]
    Mismatch {
        /// Which set.
        set: &'static str,
        /// Bits now.
        have: u64,
        /// Bits of the spec.
        want: u64,
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

/// Bits of the capabilities that this kernel knows, and of those in the bounding set (`PR_CAPBSET_READ`).
fn bounding_now() -> (u64, u64) {
    (0..64)
        .map_while(|number| Some((1_u64 << number, tail::bounding_has(number).ok()?)))
        .fold((0, 0), |(known, bounding), (bit, has)| {
            (known | bit, bounding | if has { bit } else { 0 })
        })
}

fn numbers(bits: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |number| bits & (1 << number) != 0)
}

/// Whether [`apply`] can succeed later, when the caller can be told no more. Asked before anything is dropped.
///
/// # Errors
/// [`CapabilityError::Beyond`] by the rules of `man 2 capset`; when it cannot be told.
pub fn check(sets: &Sets) -> Result<(), CapabilityError> {
    const CALLER: &str =
        "this runtime was started without; hint: take it out of the spec, or give it to the engine";
    let have = tail::capabilities().map_err(|source| CapabilityError::Refused {
        step: "read capabilities",
        source,
    })?;
    let beyond = sets.permitted & !have.permitted
        | sets.inheritable & !have.inheritable
        | sets.effective & !sets.permitted;
    if beyond == 0 {
        // Reading the bounding set takes a system call for each capability.
        return Ok(());
    }
    let (known, bounding) = bounding_now();
    let inheritable = have.inheritable | bounding & sets.bounding;
    for (set, want, within, lacking) in [
        ("permitted", sets.permitted, have.permitted, CALLER),
        (
            "inheritable",
            sets.inheritable,
            inheritable,
            "its bounding set lacks",
        ),
        (
            "effective",
            sets.effective,
            sets.permitted,
            "its permitted set lacks",
        ),
    ] {
        let names: Vec<String> = numbers(want & known & !within).map(name).collect();
        if !names.is_empty() {
            return Err(CapabilityError::Beyond {
                set,
                names,
                lacking,
            });
        }
    }
    Ok(())
}

/// As in a spec; the kernel may know more than this runtime.
fn name(number: u32) -> String {
    let known = usize::try_from(number).ok().and_then(|at| NAMES.get(at));
    known.map_or_else(|| number.to_string(), |name| format!("CAP_{name}"))
}

/// Limits what any later `execve` can gain. Needs `CAP_SETPCAP`, so it comes before the user changes.
///
/// # Errors
/// As `PR_CAPBSET_DROP`.
pub fn drop_bounding(sets: &Sets) -> io::Result<()> {
    let (_, bounding) = bounding_now();
    numbers(bounding & !sets.bounding).try_for_each(tail::bounding_drop)
}

/// Makes effective what the program will have effective, of what is permitted now: files are then reached, and
/// programs found, with the rights under which they will be opened and executed.
///
/// # Errors
/// As `man 2 capset`.
pub fn preview(sets: &Sets) -> io::Result<()> {
    let have = tail::capabilities()?;
    tail::set_capabilities(CapabilitySets {
        effective: have.permitted & sets.effective,
        ..have
    })
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

/// Sets effective, permitted, inheritable and ambient, and reads all five sets back.
///
/// # Errors
/// The step that was refused, or a mismatch.
pub fn apply(sets: &Sets) -> Result<(), CapabilityError> {
    let refused = |step: &'static str| move |source| CapabilityError::Refused { step, source };
    let (known, bounding) = bounding_now();
    let want = CapabilitySets {
        effective: sets.effective & known,
        permitted: sets.permitted & known,
        inheritable: sets.inheritable & known,
    };
    // One call for all: step by step, valid combinations would be refused.
    tail::set_capabilities(want).map_err(refused("set capabilities"))?;
    tail::ambient_clear().map_err(refused("clear ambient capabilities"))?;
    for number in numbers(sets.ambient & known) {
        match tail::ambient_raise(number) {
            // One that is not permitted and inheritable cannot be ambient; the peers go on without it, too.
            Err(err) if matches!(err.raw_os_error(), Some(libc::EPERM | libc::EINVAL)) => {}
            raised => raised.map_err(refused("raise ambient capabilities"))?,
        }
    }
    let have = tail::capabilities().map_err(refused("read capabilities"))?;
    same("effective", have.effective, want.effective)?;
    same("permitted", have.permitted, want.permitted)?;
    same("inheritable", have.inheritable, want.inheritable)?;
    // These two may be smaller, never larger: the runtime itself may have less than the spec grants.
    let ambient = numbers(known)
        .filter(|number| tail::ambient_has(*number).unwrap_or(true))
        .fold(0, |bits, number| bits | (1_u64 << number));
    same("ambient", ambient, ambient & sets.ambient)?;
    same("bounding", bounding, bounding & sets.bounding)
}

fn same(set: &'static str, have: u64, want: u64) -> Result<(), CapabilityError> {
    if have == want {
        Ok(())
    } else {
        Err(CapabilityError::Mismatch { set, have, want })
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
        let (known, bounding) = bounding_now();
        assert!(known.count_ones() >= 38 && known.trailing_ones() == known.count_ones());
        assert_eq!(bounding & !known, 0);
    }
    /// Capabilities belong to a thread: each case gets one, and the test goes on with what it had.
    fn on_a_thread(case: impl FnOnce() + Send + 'static) {
        const SETPCAP: u64 = 1 << 8;
        if tail::capabilities().unwrap().effective & SETPCAP == 0 {
            println!("SKIP: capabilities cannot be dropped without CAP_SETPCAP");
            return;
        }
        std::thread::spawn(case).join().unwrap();
    }

    fn status(name: &str) -> u64 {
        let all = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = all.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    }

    #[test]
    fn sets_are_what_the_spec_says() {
        let chown = 1;
        let kill = 1 << 5;
        for (spec, want) in [
            (json!({}), [0, 0, 0, 0, 0]),
            (
                // Less permitted than was effective, and ambient: refused when done step by step (L6).
                json!({"bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
                       "inheritable": ["CAP_KILL"], "effective": ["CAP_CHOWN"], "ambient": ["CAP_KILL"]}),
                [chown | kill, chown | kill, chown, kill, kill],
            ),
            (
                // Ambient without inheritable cannot be had.
                json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"], "ambient": ["CAP_KILL"]}),
                [kill, kill, kill, 0, 0],
            ),
        ] {
            on_a_thread(move || {
                let sets = Sets::from_spec(Some(&spec)).unwrap();
                drop_bounding(&sets).unwrap();
                apply(&sets).unwrap();
                let have = ["CapBnd:", "CapPrm:", "CapEff:", "CapInh:", "CapAmb:"].map(status);
                assert_eq!(have, want, "{spec}");
            });
        }
    }

    #[test]
    fn a_bounding_set_that_was_not_dropped_is_found() {
        on_a_thread(|| {
            let err = apply(&Sets::default()).unwrap_err().to_string();
            assert!(err.starts_with("bounding capabilities are 0x"), "{err}");
        });
    }

    #[test]
    fn what_is_not_permitted_is_refused() {
        on_a_thread(|| {
            let kill = json!({"permitted": ["CAP_KILL"], "bounding": []});
            drop_bounding(&Sets::default()).unwrap();
            apply(&Sets::default()).unwrap();
            let err = apply(&Sets::from_spec(Some(&kill)).unwrap())
                .unwrap_err()
                .to_string();
            assert!(
                err.starts_with("set capabilities: Operation not permitted"),
                "{err}"
            );
        });
    }

    #[test]
    fn what_cannot_be_given_is_known_beforehand() {
        let told = |spec: Value| {
            let told = check(&Sets::from_spec(Some(&spec)).unwrap());
            told.map_err(|err| err.to_string())
        };
        on_a_thread(move || {
            let few = json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "effective": ["CAP_KILL"]});
            assert_eq!(told(few.clone()), Ok(()));
            let beyond = json!({"permitted": ["CAP_KILL"], "effective": ["CAP_KILL", "CAP_CHOWN"]});
            assert_eq!(
                told(beyond).unwrap_err(),
                "`process.capabilities.effective` has CAP_CHOWN, which its permitted set lacks"
            );
            let unbound = json!({"bounding": ["CAP_KILL"], "inheritable": ["CAP_KILL", "CAP_BPF"]});
            let err = told(unbound).unwrap_err();
            assert!(
                err.starts_with("`process.capabilities.inheritable` has CAP_BPF"),
                "{err}"
            );
            let have = Sets::from_spec(Some(&few)).unwrap();
            drop_bounding(&have).unwrap();
            apply(&have).unwrap();
            let more = json!({"permitted": ["CAP_KILL", "CAP_CHOWN", "CAP_BPF"]});
            let err = told(more).unwrap_err();
            let text = "`process.capabilities.permitted` has CAP_CHOWN, CAP_BPF, which this runtime was started without; hint: ";
            assert!(err.starts_with(text), "{err}");
        });
    }

    #[test]
    fn preview_and_raise_touch_the_effective_set_alone() {
        on_a_thread(|| {
            let before = tail::capabilities().unwrap();
            let sets = Sets::from_spec(Some(&json!({"effective": ["CAP_KILL"]}))).unwrap();
            preview(&sets).unwrap();
            let now = tail::capabilities().unwrap();
            assert_eq!(
                now,
                CapabilitySets {
                    effective: 1 << 5,
                    ..before
                }
            );
            raise_effective().unwrap();
            assert_eq!(tail::capabilities().unwrap().effective, before.permitted);
        });
    }
}
