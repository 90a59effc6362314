//! Device rules on cgroup v2: a `BPF_PROG_TYPE_CGROUP_DEVICE` program made from the rules.
//!
//! The kernel asks it for each mknod and open with the device's type and numbers and the access wanted
//! (`struct bpf_cgroup_dev_ctx` of `<linux/bpf.h>`). It has one part for each kind of device. In each, the rules are
//! tried from the last to the first: one that denies any of what is still wanted ends with no; one that allows takes
//! its bits off, and when none is left it ends with yes. Which bits can still be wanted at a rule is known when the
//! program is made, so that most rules end it at once: the verifier follows every way through, and refuses a program
//! that has too many.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use fleet_bpf::context::{ACCESS_TYPE, BLOCK as DEV_BLOCK, CHAR as DEV_CHAR, MAJOR, MINOR};
use fleet_bpf::{self as bpf, Instruction};

use super::devices::{ALL, Kind, Rule, Rules};

/// Registers: 1 is the context; then kind, access still wanted, major, minor.
const CTX: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJ: u8 = 4;
const MIN: u8 = 5;
const SCRATCH: u8 = 6;
const RESULT: u8 = 0;

/// The verifier gives up with EAGAIN when a signal is pending.
const LOAD_TRIES: usize = 5;

/// Opcodes on the low 32 bits, `<linux/bpf.h>` and `<linux/bpf_common.h>`. A 64-bit comparison would extend the sign
/// of a large number.
mod op {
    pub(super) const LOAD_WORD: u8 = 0x61;
    pub(super) const MOV_REG: u8 = 0xbc;
    pub(super) const MOV_IMM: u8 = 0xb4;
    pub(super) const AND_IMM: u8 = 0x54;
    pub(super) const RSH_IMM: u8 = 0x74;
    pub(super) const JNE_IMM: u8 = 0x56;
    pub(super) const JEQ_IMM: u8 = 0x16;
    pub(super) const EXIT: u8 = 0x95;
}

/// Makes the program; `None` for a list that is too long for the jump over a part.
fn program(rules: &Rules) -> Option<Vec<Instruction>> {
    let mut parts = [
        (DEV_BLOCK, part(rules, Kind::Block)),
        (DEV_CHAR, part(rules, Kind::Char)),
    ];
    parts.sort_by_key(|(_, code)| code.len());
    let mut code = vec![
        Instruction::new(op::LOAD_WORD, KIND, CTX, ACCESS_TYPE, 0),
        Instruction::new(op::MOV_REG, ACCESS, KIND, 0, 0),
        Instruction::new(op::AND_IMM, KIND, 0, 0, 0xffff),
        Instruction::new(op::RSH_IMM, ACCESS, 0, 0, 16),
        Instruction::new(op::AND_IMM, ACCESS, 0, 0, i32::from(ALL)),
        Instruction::new(op::LOAD_WORD, MAJ, CTX, MAJOR, 0),
        Instruction::new(op::LOAD_WORD, MIN, CTX, MINOR, 0),
    ];
    for (kind, part) in parts {
        let past = i16::try_from(part.len()).ok()?;
        code.push(Instruction::new(op::JNE_IMM, KIND, 0, past, kind));
        code.extend(part);
    }
    code.extend(verdict(false));
    Some(code)
}

/// The rules for one kind; always ends with a verdict.
fn part(rules: &Rules, kind: Kind) -> Vec<Instruction> {
    let mut code = Vec::new();
    let mut wanted = ALL;
    for rule in rules
        .0
        .iter()
        .rev()
        .filter(|rule| rule.kind == Kind::All || rule.kind == kind)
    {
        let decides = rule.access & wanted;
        if decides == 0 {
            continue;
        }
        code.extend(block(rule, wanted));
        if rule.major.is_none() && rule.minor.is_none() {
            wanted &= !decides;
            // What lies before is never reached, and the verifier refuses such code.
            if wanted == 0 {
                return code;
            }
        }
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

/// One rule: tests that jump past it, what it does to the access, its verdict.
fn block(rule: &Rule, wanted: u8) -> Vec<Instruction> {
    // Jumps past the verdict, which is all that follows.
    let past_verdict = 2;
    let effect = match (wanted & !rule.access == 0, rule.allow) {
        (true, _) => Vec::new(),
        (false, true) => vec![
            Instruction::new(op::AND_IMM, ACCESS, 0, 0, i32::from(wanted & !rule.access)),
            Instruction::new(op::JNE_IMM, ACCESS, 0, past_verdict, 0),
        ],
        (false, false) => vec![
            Instruction::new(op::MOV_REG, SCRATCH, ACCESS, 0, 0),
            Instruction::new(op::AND_IMM, SCRATCH, 0, 0, i32::from(rule.access)),
            Instruction::new(op::JEQ_IMM, SCRATCH, 0, past_verdict, 0),
        ],
    };
    let mut rest = effect;
    rest.extend(verdict(rule.allow));
    let mut code = Vec::new();
    for (register, number) in [(MIN, rule.minor), (MAJ, rule.major)] {
        if let Some(number) = number {
            // At most six instructions: the distance always fits.
            let past = i16::try_from(code.len() + rest.len()).unwrap_or(i16::MAX);
            let number = i32::from_ne_bytes(number.to_ne_bytes());
            code.insert(0, Instruction::new(op::JNE_IMM, register, 0, past, number));
        }
    }
    code.extend(rest);
    code
}

/// Puts the rules in force, in place of earlier ones of this very cgroup. Those of the cgroups above stay in force
/// beside them (`BPF_F_ALLOW_MULTI`): all must allow. The new program is there before the old one goes. With `beside`
/// none goes: systemd's would come back.
pub(super) fn attach(leaf: &Path, rules: &Rules, beside: bool) -> io::Result<()> {
    let cgroup = File::open(leaf)?;
    let earlier = match bpf::attached(cgroup.as_fd()) {
        Ok(_) if beside => Vec::new(),
        Ok(earlier) => earlier,
        // Nothing to deny and no right to ask: a privileged container inside of another.
        Err(_) if rules.is_open() => return Ok(()),
        Err(err) => return Err(err),
    };
    if !rules.is_open() {
        let code = program(rules).ok_or_else(|| io::Error::from_raw_os_error(libc::E2BIG))?;
        let program = load(&code)?;
        bpf::attach_device_program(cgroup.as_fd(), program.as_fd())?;
    }
    for old in earlier {
        match bpf::detach_device_program(cgroup.as_fd(), old.as_fd()) {
            Err(err) if err.raw_os_error() != Some(libc::ENOENT) => return Err(err),
            _ => {}
        }
    }
    Ok(())
}

fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    let mut tries = LOAD_TRIES;
    loop {
        tries -= 1;
        match bpf::load_device_program(code) {
            Err(err) if tries > 0 && err.raw_os_error() == Some(libc::EAGAIN) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::devices::model::{Dice, permits};
    use super::super::devices::{MKNOD, READ, WRITE};
    use super::*;

    /// Runs a program of the instructions used here, with registers as wide and zero-extended as the kernel's, and
    /// without any that was not written before it is read.
    fn run(code: &[Instruction], kind: i32, access: u8, major: u32, minor: u32) -> bool {
        let mut registers: [Option<u64>; 11] = [None; 11];
        registers[1] = Some(u64::MAX);
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
            let word = |register: usize| {
                u32::try_from(registers[register].unwrap() & 0xffff_ffff).unwrap()
            };
            at += 1;
            match i.code {
                op::LOAD_WORD => {
                    assert_eq!(from, 1, "only the context is read");
                    registers[to] = Some(context[usize::try_from(i.offset).unwrap() / 4].into());
                }
                op::MOV_REG => registers[to] = Some(word(from).into()),
                op::MOV_IMM => registers[to] = Some(immediate.into()),
                op::AND_IMM => registers[to] = Some((word(to) & immediate).into()),
                op::RSH_IMM => registers[to] = Some((word(to) >> immediate).into()),
                op::JNE_IMM if word(to) != immediate => at += usize::try_from(i.offset).unwrap(),
                op::JEQ_IMM if word(to) == immediate => at += usize::try_from(i.offset).unwrap(),
                op::JNE_IMM | op::JEQ_IMM => {}
                op::EXIT => return registers[0] == Some(1),
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    /// Instructions that can be reached: the verifier refuses a program with others.
    fn reachable(code: &[Instruction]) -> usize {
        let mut seen = vec![false; code.len()];
        let mut open = vec![0_usize];
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            match code[at].code {
                op::EXIT => {}
                op::JNE_IMM | op::JEQ_IMM => {
                    open.extend([at + 1, at + 1 + usize::try_from(code[at].offset).unwrap()]);
                }
                _ => open.push(at + 1),
            }
        }
        seen.iter().filter(|seen| **seen).count()
    }

    #[test]
    fn gpu_zero_and_not_one() {
        let rules = Rules::from_spec(&[
            json!({"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"}),
        ])
        .unwrap();
        let code = program(&rules).unwrap();
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
    fn accesses_of_several_rules_add_up() {
        let rule = |allow: bool, access: &str| json!({"allow": allow, "type": "c", "major": 195, "minor": 0, "access": access});
        let code =
            program(&Rules::from_spec(&[rule(true, "r"), rule(true, "w")]).unwrap()).unwrap();
        assert!(run(&code, DEV_CHAR, READ | WRITE, 195, 0));
        let code =
            program(&Rules::from_spec(&[rule(true, "rw"), rule(false, "w")]).unwrap()).unwrap();
        assert!(!run(&code, DEV_CHAR, READ | WRITE, 195, 0));
        assert!(run(&code, DEV_CHAR, READ, 195, 0));
    }

    #[test]
    fn large_numbers_are_compared_whole() {
        let rules = Rules::from_spec(&[
            json!({"allow": true, "type": "b", "major": 4_000_000_000_u32, "access": "r"}),
        ])
        .unwrap();
        let code = program(&rules).unwrap();
        assert!(run(&code, DEV_BLOCK, READ, 4_000_000_000, 9));
        assert!(!run(&code, DEV_BLOCK, READ, 4_000_000_001, 9));
    }

    #[test]
    fn program_and_model_agree() {
        let mut dice = Dice(42);
        for _ in 0..3000 {
            let given = dice.spec();
            let rules = Rules::from_spec(&given).unwrap();
            let code = program(&rules).unwrap();
            assert_eq!(reachable(&code), code.len(), "{given:?}");
            for _ in 0..40 {
                let (kind, number) =
                    *dice.pick(&[(Kind::Block, DEV_BLOCK), (Kind::Char, DEV_CHAR)]);
                let access = u8::try_from(1 + dice.below(7)).unwrap();
                let (major, minor) = (
                    *dice.pick(&[1, 3, 5, 10, 195]),
                    *dice.pick(&[1, 3, 7, 195, 200]),
                );
                let want = permits(&rules, kind, access, major, minor);
                assert_eq!(
                    run(&code, number, access, major, minor),
                    want,
                    "{given:?} {kind:?} {access} {major}:{minor}"
                );
            }
        }
    }
}
