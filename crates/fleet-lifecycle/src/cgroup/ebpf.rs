//! Device rules on cgroup v2: a `BPF_PROG_TYPE_CGROUP_DEVICE` program made from the rules.
//!
//! The kernel asks it for each mknod and open with the device's type and numbers and the access wanted
//! (`struct bpf_cgroup_dev_ctx` of `<linux/bpf.h>`). The rules are tried from the last to the first; the first that
//! covers the device and any of the access decides, as v1 lists end up doing for the lists that engines write.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::devices::{Kind, Rule, Rules};
use crate::sys::bpf::{self, Instruction};

/// Offsets in `struct bpf_cgroup_dev_ctx`.
const ACCESS_TYPE: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;
/// `BPF_DEVCG_DEV_*`: the low half of `access_type`.
const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;

/// Registers: 1 is the context; then kind, access, major, minor.
const CTX: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJ: u8 = 4;
const MIN: u8 = 5;
const SCRATCH: u8 = 6;
const RESULT: u8 = 0;

/// Opcodes, `<linux/bpf.h>` and `<linux/bpf_common.h>`.
mod op {
    pub(super) const LOAD_WORD: u8 = 0x61;
    pub(super) const MOV_REG: u8 = 0xbc;
    pub(super) const MOV_IMM: u8 = 0xb4;
    pub(super) const AND_IMM: u8 = 0x54;
    pub(super) const RSH_IMM: u8 = 0x74;
    pub(super) const JNE_IMM: u8 = 0x55;
    pub(super) const JEQ_IMM: u8 = 0x15;
    pub(super) const EXIT: u8 = 0x95;
}

/// Makes the program.
pub(super) fn program(rules: &Rules) -> Vec<Instruction> {
    let mut code = vec![
        Instruction::new(op::LOAD_WORD, KIND, CTX, ACCESS_TYPE, 0),
        Instruction::new(op::MOV_REG, ACCESS, KIND, 0, 0),
        Instruction::new(op::AND_IMM, KIND, 0, 0, 0xffff),
        Instruction::new(op::RSH_IMM, ACCESS, 0, 0, 16),
        Instruction::new(op::LOAD_WORD, MAJ, CTX, MAJOR, 0),
        Instruction::new(op::LOAD_WORD, MIN, CTX, MINOR, 0),
    ];
    for rule in rules.0.iter().rev() {
        code.extend(block(rule));
    }
    code.extend(verdict(false));
    code
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [
        Instruction::new(op::MOV_IMM, RESULT, 0, 0, i32::from(allow)),
        Instruction::new(op::EXIT, 0, 0, 0, 0),
    ]
}

/// One rule: a chain of tests that jump past it, then its verdict.
fn block(rule: &Rule) -> Vec<Instruction> {
    let mut tests: Vec<(u8, u8, i32)> = Vec::new();
    match rule.kind {
        Kind::All => {}
        Kind::Block => tests.push((op::JNE_IMM, KIND, DEV_BLOCK)),
        Kind::Char => tests.push((op::JNE_IMM, KIND, DEV_CHAR)),
    }
    for (register, number) in [(MAJ, rule.major), (MIN, rule.minor)] {
        if let Some(number) = number {
            tests.push((
                op::JNE_IMM,
                register,
                i32::from_ne_bytes(number.to_ne_bytes()),
            ));
        }
    }
    let access = i32::from(rule.access);
    // An allow rule covers a request when nothing beyond its access is wanted; a deny rule when any of it is.
    let (mask, jump) = if rule.allow {
        (!access & 0xff, op::JNE_IMM)
    } else {
        (access, op::JEQ_IMM)
    };
    let masked = [
        Instruction::new(op::MOV_REG, SCRATCH, ACCESS, 0, 0),
        Instruction::new(op::AND_IMM, SCRATCH, 0, 0, mask),
    ];
    let end = verdict(rule.allow);
    let length = tests.len() + masked.len() + 1 + end.len();
    let skip = |at: usize| i16::try_from(length - at - 1).unwrap_or(i16::MAX);
    let mut code: Vec<Instruction> = tests
        .iter()
        .enumerate()
        .map(|(at, (jump, register, value))| {
            Instruction::new(*jump, *register, 0, skip(at), *value)
        })
        .collect();
    code.extend(masked);
    code.push(Instruction::new(jump, SCRATCH, 0, skip(code.len()), 0));
    code.extend(end);
    code
}

/// Loads the program and attaches it to the cgroup, in place of an earlier one of ours.
///
/// `BPF_F_ALLOW_MULTI` keeps programs of others (systemd) in force beside ours: all must allow.
pub(super) fn attach(leaf: &Path, rules: &Rules) -> io::Result<()> {
    let cgroup = File::open(leaf)?;
    let earlier = bpf::attached(cgroup.as_fd())?;
    let program = bpf::load_device_program(&program(rules))?;
    bpf::attach_device_program(cgroup.as_fd(), program.as_fd())?;
    earlier
        .into_iter()
        .try_for_each(|old| bpf::detach_device_program(cgroup.as_fd(), old.as_fd()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::devices::{MKNOD, READ, WRITE};
    use super::*;

    /// Runs a program of the instructions used here.
    fn run(code: &[Instruction], kind: i32, access: u8, major: u32, minor: u32) -> bool {
        let mut registers = [0_u32; 11];
        let context = [
            u32::try_from(kind).unwrap() | (u32::from(access) << 16),
            major,
            minor,
        ];
        let mut at = 0_usize;
        loop {
            let i = code[at];
            let (to, from) = (
                usize::from(i.registers & 0xf),
                usize::from(i.registers >> 4),
            );
            let immediate = u32::from_ne_bytes(i.immediate.to_ne_bytes());
            at += 1;
            match i.code {
                op::LOAD_WORD => registers[to] = context[usize::try_from(i.offset).unwrap() / 4],
                op::MOV_REG => registers[to] = registers[from],
                op::MOV_IMM => registers[to] = immediate,
                op::AND_IMM => registers[to] &= immediate,
                op::RSH_IMM => registers[to] >>= immediate,
                op::JNE_IMM if registers[to] != immediate => {
                    at += usize::try_from(i.offset).unwrap()
                }
                op::JEQ_IMM if registers[to] == immediate => {
                    at += usize::try_from(i.offset).unwrap()
                }
                op::JNE_IMM | op::JEQ_IMM => {}
                op::EXIT => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    /// The same question answered from the rules.
    fn model(rules: &Rules, kind: i32, access: u8, major: u32, minor: u32) -> bool {
        let covers = |rule: &&Rule| {
            let kinds = match rule.kind {
                Kind::All => true,
                Kind::Block => kind == DEV_BLOCK,
                Kind::Char => kind == DEV_CHAR,
            };
            let numbers =
                rule.major.is_none_or(|n| n == major) && rule.minor.is_none_or(|n| n == minor);
            let wanted = if rule.allow {
                access & !rule.access == 0
            } else {
                access & rule.access != 0
            };
            kinds && numbers && wanted
        };
        rules
            .0
            .iter()
            .rev()
            .find(covers)
            .is_some_and(|rule| rule.allow)
    }

    #[test]
    fn gpu_zero_and_not_one() {
        let rules = Rules::from_spec(&[
            json!({"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"}),
        ])
        .unwrap();
        let code = program(&rules);
        assert!(run(&code, DEV_CHAR, READ | WRITE, 195, 0));
        assert!(!run(&code, DEV_CHAR, READ, 195, 1));
        assert!(
            run(&code, DEV_CHAR, MKNOD, 195, 1),
            "a node may be made, not opened"
        );
        assert!(!run(&code, DEV_BLOCK, READ, 8, 0));
        assert!(run(&code, DEV_CHAR, READ | WRITE, 1, 3));
    }

    #[test]
    fn program_and_model_agree() {
        // A small linear generator (Knuth's constants) instead of a dependency.
        let mut seed = 42_u64;
        let mut next = |bound: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        for _ in 0..500 {
            let given: Vec<_> = (0..next(6))
                .map(|_| {
                    let kind = ["a", "b", "c"][usize::try_from(next(3)).unwrap()];
                    let access = ["r", "w", "m", "rw", "rwm", ""][usize::try_from(next(6)).unwrap()];
                    let (major, minor) = (i64::try_from(next(4)).unwrap() - 1, i64::try_from(next(4)).unwrap() - 1);
                    json!({"allow": next(2) == 0, "type": kind, "access": access, "major": major, "minor": minor})
                })
                .collect();
            let rules = Rules::from_spec(&given).unwrap();
            let code = program(&rules);
            for _ in 0..40 {
                let kind = 1 + i32::try_from(next(2)).unwrap();
                let access = 1 + u8::try_from(next(7)).unwrap();
                let (major, minor) = (
                    u32::try_from(next(3)).unwrap(),
                    u32::try_from(next(3)).unwrap(),
                );
                let want = model(&rules, kind, access, major, minor);
                assert_eq!(
                    run(&code, kind, access, major, minor),
                    want,
                    "{given:?} {kind} {access} {major}:{minor}"
                );
            }
        }
    }
}
