//! From `linux.seccomp` (`runtime-spec config-linux.md#seccomp`) to a BPF program, by libseccomp.

use std::io::{Read, Seek};
use std::os::fd::AsFd;

use libseccomp::error::SeccompError as LibraryError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use serde_json::Value;

use super::{Filter, SeccompError, stub};

/// `errno` of an action that names none (`EPERM`).
const DEFAULT_ERRNO: i32 = libc::EPERM;

pub(super) fn compile(profile: &Value) -> Result<Filter, SeccompError> {
    let default = action(&profile["defaultAction"], &profile["defaultErrnoRet"])?;
    let mut filter = ScmpFilterContext::new(default).map_err(library("start a filter"))?;
    // The kernel is asked for no_new_privs by the tail, in its own order.
    filter
        .set_ctl_nnp(false)
        .map_err(library("set attributes"))?;
    for name in strings(profile, "architectures")? {
        filter
            .add_arch(architecture(name)?)
            .map_err(library(&format!("add architecture {name}")))?;
    }
    for rule in array(profile, "syscalls")? {
        add_rule(&mut filter, rule, default)?;
    }
    let mut bpf = stub::newer_calls(profile, &names(profile)?)?;
    bpf.extend(export(&filter)?);
    Ok(Filter {
        bpf,
        flags: flags(profile)?,
    })
}

/// Refuses a name that libseccomp does not know; [`compile`] passes over it.
pub(super) fn check_names(profile: &Value) -> Result<(), SeccompError> {
    match names(profile)?
        .into_iter()
        .find(|name| ScmpSyscall::from_name(name).is_err())
    {
        Some(name) => Err(SeccompError::Invalid(format!(
            "system call \"{name}\" is not known, and annotation `run.oci.seccomp_fail_unknown_syscall` asks for an error"
        ))),
        None => Ok(()),
    }
}

/// All names of the profile's rules.
fn names(profile: &Value) -> Result<Vec<&str>, SeccompError> {
    let mut all = Vec::new();
    for rule in array(profile, "syscalls")? {
        all.extend(strings(rule, "names")?);
    }
    Ok(all)
}

fn library(step: &str) -> impl Fn(LibraryError) -> SeccompError {
    move |err| SeccompError::Compile {
        step: step.to_owned(),
        why: err.to_string(),
    }
}

/// An array that may be absent; anything else in its place is an error, since a rule read as another would be worse.
fn array<'a>(at: &'a Value, key: &str) -> Result<&'a [Value], SeccompError> {
    match &at[key] {
        Value::Null => Ok(&[]),
        Value::Array(all) => Ok(all),
        _ => Err(SeccompError::Invalid(format!("`{key}` is not an array"))),
    }
}

fn strings<'a>(at: &'a Value, key: &str) -> Result<Vec<&'a str>, SeccompError> {
    let invalid = || SeccompError::Invalid(format!("`{key}` has an entry that is not a string"));
    array(at, key)?
        .iter()
        .map(|v| v.as_str().ok_or_else(invalid))
        .collect()
}

fn action(name: &Value, errno: &Value) -> Result<ScmpAction, SeccompError> {
    let number = match errno {
        Value::Null => DEFAULT_ERRNO,
        // The kernel keeps 16 bits of it (`SECCOMP_RET_DATA`).
        given => given
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .map(i32::from)
            .ok_or_else(|| SeccompError::Invalid(format!("{given} is no errno")))?,
    };
    Ok(match name.as_str().unwrap_or_default() {
        "SCMP_ACT_ALLOW" => ScmpAction::Allow,
        "SCMP_ACT_ERRNO" => ScmpAction::Errno(number),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => ScmpAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => ScmpAction::KillProcess,
        "SCMP_ACT_TRAP" => ScmpAction::Trap,
        "SCMP_ACT_TRACE" => ScmpAction::Trace(u16::try_from(number).unwrap_or(0)),
        "SCMP_ACT_LOG" => ScmpAction::Log,
        "SCMP_ACT_NOTIFY" => ScmpAction::Notify,
        other => return Err(SeccompError::Invalid(format!("unknown action \"{other}\""))),
    })
}

fn architecture(name: &str) -> Result<ScmpArch, SeccompError> {
    Ok(match name {
        "SCMP_ARCH_NATIVE" => ScmpArch::Native,
        "SCMP_ARCH_X86" => ScmpArch::X86,
        "SCMP_ARCH_X86_64" => ScmpArch::X8664,
        "SCMP_ARCH_X32" => ScmpArch::X32,
        "SCMP_ARCH_ARM" => ScmpArch::Arm,
        "SCMP_ARCH_AARCH64" => ScmpArch::Aarch64,
        "SCMP_ARCH_MIPS" => ScmpArch::Mips,
        "SCMP_ARCH_MIPS64" => ScmpArch::Mips64,
        "SCMP_ARCH_MIPS64N32" => ScmpArch::Mips64N32,
        "SCMP_ARCH_MIPSEL" => ScmpArch::Mipsel,
        "SCMP_ARCH_MIPSEL64" => ScmpArch::Mipsel64,
        "SCMP_ARCH_MIPSEL64N32" => ScmpArch::Mipsel64N32,
        "SCMP_ARCH_PPC" => ScmpArch::Ppc,
        "SCMP_ARCH_PPC64" => ScmpArch::Ppc64,
        "SCMP_ARCH_PPC64LE" => ScmpArch::Ppc64Le,
        "SCMP_ARCH_S390" => ScmpArch::S390,
        "SCMP_ARCH_S390X" => ScmpArch::S390X,
        "SCMP_ARCH_RISCV64" => ScmpArch::Riscv64,
        other => {
            return Err(SeccompError::Invalid(format!(
                "unknown architecture \"{other}\""
            )));
        }
    })
}

fn add_rule(
    filter: &mut ScmpFilterContext,
    rule: &Value,
    default: ScmpAction,
) -> Result<(), SeccompError> {
    let wanted = action(&rule["action"], &rule["errnoRet"])?;
    if wanted == default {
        // libseccomp refuses a rule that says what happens anyway.
        return Ok(());
    }
    let compares = arguments(rule)?;
    if rule["names"].is_null() {
        return Err(SeccompError::Invalid(format!(
            "a rule without `names`: {rule}"
        )));
    }
    for name in strings(rule, "names")? {
        // Profiles name system calls of every kernel; those that this libseccomp does not know are skipped, as
        // the peers do.
        let Ok(call) = ScmpSyscall::from_name(name) else {
            continue;
        };
        add_calls(filter, wanted, call, &compares)
            .map_err(library(&format!("add a rule for {name}")))?;
    }
    Ok(())
}

/// Comparisons of one argument with several values mean any of them; of several arguments, all (as runc reads it).
fn add_calls(
    filter: &mut ScmpFilterContext,
    action: ScmpAction,
    call: ScmpSyscall,
    compares: &[(u32, ScmpArgCompare)],
) -> Result<(), LibraryError> {
    let mut seen = std::collections::HashSet::new();
    let repeated = compares.iter().any(|(index, _)| !seen.insert(*index));
    let groups: Vec<Vec<ScmpArgCompare>> = if repeated {
        compares.iter().map(|(_, compare)| vec![*compare]).collect()
    } else {
        vec![compares.iter().map(|(_, compare)| *compare).collect()]
    };
    for group in groups {
        match filter.add_rule_conditional(action, call, &group) {
            // The same rule twice.
            Err(err) if err.errno() == Some(libseccomp::error::SeccompErrno::EEXIST) => {}
            other => drop(other?),
        }
    }
    Ok(())
}

fn arguments(rule: &Value) -> Result<Vec<(u32, ScmpArgCompare)>, SeccompError> {
    array(rule, "args")?.iter().map(argument).collect()
}

fn argument(arg: &Value) -> Result<(u32, ScmpArgCompare), SeccompError> {
    let invalid = || SeccompError::Invalid(format!("unusable argument comparison {arg}"));
    let index = arg["index"]
        .as_u64()
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| *n < 6)
        .ok_or_else(invalid)?;
    let value = arg["value"].as_u64().ok_or_else(invalid)?;
    let second = match &arg["valueTwo"] {
        Value::Null => 0,
        given => given.as_u64().ok_or_else(invalid)?,
    };
    let (operator, datum) = match arg["op"].as_str().unwrap_or_default() {
        "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, value),
        "SCMP_CMP_LT" => (ScmpCompareOp::Less, value),
        "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, value),
        "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, value),
        "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, value),
        "SCMP_CMP_GT" => (ScmpCompareOp::Greater, value),
        "SCMP_CMP_MASKED_EQ" => (ScmpCompareOp::MaskedEqual(value), second),
        other => {
            return Err(SeccompError::Invalid(format!(
                "unknown operator \"{other}\""
            )));
        }
    };
    Ok((index, ScmpArgCompare::new(index, operator, datum)))
}

/// Flags of `<linux/seccomp.h>`.
const TSYNC: u32 = 1;
const LOG: u32 = 2;
const SPEC_ALLOW: u32 = 4;
/// Has a meaning with an agent only; left out without one.
const WAIT_KILLABLE_RECV: u32 = 32;

fn flags(profile: &Value) -> Result<u32, SeccompError> {
    if profile["flags"].is_null() {
        // As the peers: otherwise kernels before 5.16 slow the program down by a mitigation nobody asked for.
        return Ok(SPEC_ALLOW);
    }
    strings(profile, "flags")?
        .into_iter()
        .try_fold(0, |bits, name| match name {
            // Means nothing for a single-threaded process but does no harm.
            "SECCOMP_FILTER_FLAG_TSYNC" => Ok(bits | TSYNC),
            "SECCOMP_FILTER_FLAG_LOG" => Ok(bits | LOG),
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(bits | SPEC_ALLOW),
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Ok(bits | WAIT_KILLABLE_RECV),
            other => Err(SeccompError::Invalid(format!("unknown flag \"{other}\""))),
        })
}

fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, SeccompError> {
    let failed = |why: String| SeccompError::Compile {
        step: "export the program".to_owned(),
        why,
    };
    let memory = memfd_create(c"fleet-seccomp", MemFdCreateFlag::MFD_CLOEXEC)
        .map_err(|err| failed(err.to_string()))?;
    filter
        .export_bpf(memory.as_fd())
        .map_err(|err| failed(err.to_string()))?;
    let mut file = std::fs::File::from(memory);
    let mut bpf = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bpf))
        .map_err(|err| failed(err.to_string()))?;
    Ok(bpf)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn profile() -> Value {
        json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {"names": ["read", "write", "no_such_call_ever"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2_114_060_288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["ptrace"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            ],
        })
    }

    #[test]
    fn a_profile_becomes_a_program() {
        let filter = compile(&profile()).unwrap();
        assert_eq!(filter.flags, 2);
        assert!(filter.bpf.len() > 80 && filter.bpf.len().is_multiple_of(8));
    }

    #[test]
    fn unknown_words_are_named() {
        for (pointer, value) in [
            ("/defaultAction", json!("SCMP_ACT_MOON")),
            ("/architectures/0", json!("SCMP_ARCH_MOON")),
            ("/flags/0", json!("MOON")),
            ("/syscalls/2/args/0/op", json!("MOON")),
            ("/syscalls/0/names", json!("MOON")),
            ("/syscalls/0/names", json!(null)),
            ("/syscalls/2/args", json!({"MOON names": 1})),
            ("/syscalls", json!({"MOON": 1})),
            ("/syscalls/0/action", json!("MOON")),
        ] {
            let mut profile = profile();
            *profile.pointer_mut(pointer).unwrap() = value;
            let err = compile(&profile).unwrap_err().to_string();
            assert!(
                ["MOON", "`names`", "`args`", "`syscalls`"]
                    .iter()
                    .any(|word| err.contains(word)),
                "{pointer}: {err}"
            );
        }
    }

    #[test]
    fn notify_is_refused_where_it_would_hang() {
        let rule = |name: &str| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [name], "action": "SCMP_ACT_NOTIFY"}]});
        for bad in [
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            rule("write"),
            rule("sendmsg"),
        ] {
            let err = super::super::load(&bad, None).unwrap_err().to_string();
            assert!(err.contains("SCMP_ACT_NOTIFY cannot be used"), "{err}");
        }
        assert!(super::super::load(&rule("mkdir"), None).is_ok());
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for (pointer, value) in [
            ("/defaultErrnoRet", json!(-1)),
            ("/defaultErrnoRet", json!(65536)),
            ("/syscalls/4/errnoRet", json!("38")),
            ("/syscalls/2/args/0/index", json!(6)),
            ("/syscalls/2/args/0/value", json!(-1)),
            ("/syscalls/3/args/0/valueTwo", json!("0")),
        ] {
            let mut profile = profile();
            *profile.pointer_mut(pointer).unwrap() = value;
            assert!(compile(&profile).is_err(), "{pointer}");
        }
    }

    #[test]
    fn flags_by_name() {
        for (given, want) in [
            (json!(null), SPEC_ALLOW),
            (json!([]), 0),
            (
                json!([
                    "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_SPEC_ALLOW"
                ]),
                TSYNC | SPEC_ALLOW,
            ),
        ] {
            assert_eq!(flags(&json!({"flags": given})).unwrap(), want);
        }
    }
}
