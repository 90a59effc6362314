//! System calls that are newer than a profile.
//!
//! A profile that denies by default denies them with `EPERM`, which a C library takes for a refusal and not for an old
//! kernel, so that programs break that would have gone another way. As runc does, a call with a number above all that the
//! profile names is answered with `ENOSYS`, by a few instructions before the compiled filter.

use libseccomp::{ScmpArch, ScmpSyscall};
use serde_json::Value;

use super::SeccompError;

/// `AUDIT_ARCH_*` of `<linux/audit.h>` by profile name and libseccomp's architecture.
const ARCHITECTURES: [(&str, ScmpArch, u32); 4] = [
    ("SCMP_ARCH_X86_64", ScmpArch::X8664, 0xC000_003E),
    ("SCMP_ARCH_X86", ScmpArch::X86, 0x4000_0003),
    ("SCMP_ARCH_AARCH64", ScmpArch::Aarch64, 0xC000_00B7),
    ("SCMP_ARCH_ARM", ScmpArch::Arm, 0x4000_0028),
];

/// `__X32_SYSCALL_BIT`: x32 shares its `AUDIT_ARCH` with `x86_64`; its calls are left to the filter.
const X32_BIT: u32 = 0x4000_0000;

// Instructions of classic BPF (`<linux/bpf_common.h>`) and offsets of `struct seccomp_data`.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// `SECCOMP_RET_ERRNO | ENOSYS`.
const NO_SUCH_CALL: u32 = 0x0005_0000 | 38;

/// The instructions; none for a profile that allows by default, or says itself what it answers.
pub(super) fn newer_calls(profile: &Value, names: &[&str]) -> Result<Vec<u8>, SeccompError> {
    let denies = matches!(
        profile["defaultAction"].as_str(),
        Some(
            "SCMP_ACT_ERRNO"
                | "SCMP_ACT_KILL"
                | "SCMP_ACT_KILL_THREAD"
                | "SCMP_ACT_KILL_PROCESS"
                | "SCMP_ACT_TRAP"
        )
    );
    if !denies {
        return Ok(Vec::new());
    }
    let asked = crate::spec::strings(profile, "/architectures");
    let mut program = Vec::new();
    for (name, arch, token) in ARCHITECTURES {
        let native = ScmpArch::native() == arch;
        if !native && !asked.iter().any(|a| a == name) {
            continue;
        }
        if let Some(last) = last_call(names, arch) {
            program.extend(part(token, last));
        }
    }
    Ok(program
        .into_iter()
        .flat_map(|(code, yes, no, value): (u16, u8, u8, u32)| encode(code, yes, no, value))
        .collect())
}

fn last_call(names: &[&str], arch: ScmpArch) -> Option<u32> {
    names
        .iter()
        .filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok())
        .filter_map(|call| u32::try_from(i32::from(call)).ok())
        .max()
}

/// `if arch == token && nr < x32 && nr > last { return ENOSYS }`
fn part(token: u32, last: u32) -> [(u16, u8, u8, u32); 6] {
    [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 0, 4, token),
        (LOAD, 0, 0, NUMBER),
        (JUMP_GREATER_EQUAL, 2, 0, X32_BIT),
        (JUMP_GREATER, 0, 1, last),
        (RETURN, 0, 0, NO_SUCH_CALL),
    ]
}

fn encode(code: u16, yes: u8, no: u8, value: u32) -> [u8; 8] {
    let (code, value) = (code.to_ne_bytes(), value.to_ne_bytes());
    [
        code[0], code[1], yes, no, value[0], value[1], value[2], value[3],
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_where_the_default_denies() {
        let count = |action: &str, arch: Value| {
            let profile = json!({"defaultAction": action, "architectures": arch});
            newer_calls(&profile, &["read", "write"]).unwrap().len() / 8
        };
        assert_eq!(count("SCMP_ACT_ALLOW", json!([])), 0);
        assert_eq!(count("SCMP_ACT_LOG", json!([])), 0);
        assert_eq!(count("SCMP_ACT_ERRNO", json!([])), 6);
        assert_eq!(
            count(
                "SCMP_ACT_KILL",
                json!(["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"])
            ) % 6,
            0
        );
        let nothing = json!({"defaultAction": "SCMP_ACT_ERRNO"});
        assert_eq!(newer_calls(&nothing, &[]).unwrap().len(), 0);
    }
}
