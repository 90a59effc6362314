//! Device programs of cgroup v2: what they allow is seen by running them, whoever made them.
//!
//! Programs of this type call nothing and keep nothing, so one gives the same answer here as in the kernel
//! (`BPF_PROG_TYPE_CGROUP_DEVICE` of `<linux/bpf.h>`).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use fleet_bpf::{Instruction, context};
use rbpf::EbpfVmRaw;

use super::gpu::DevNum;

/// The programs that hold for a cgroup; all of them must allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs(Vec<Vec<u8>>);

impl Programs {
    /// Those of the cgroup with this directory.
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let cgroup = File::open(dir)?;
        let programs = fleet_bpf::in_force(cgroup.as_fd())?;
        let codes = programs
            .iter()
            .map(|program| Ok(bytes(&fleet_bpf::code(program.as_fd())?)));
        codes.collect::<io::Result<_>>().map(Self)
    }

    /// Whether a character device may be read or written; `None` for a program that cannot be run here.
    pub(super) fn allow(&self, device: DevNum) -> Option<bool> {
        let any = |access: u8| -> Option<bool> {
            let mut all = true;
            for program in &self.0 {
                all &= answer(program, access, device)?;
            }
            Some(all)
        };
        Some(any(context::READ)? || any(context::WRITE)?)
    }
}

fn answer(program: &[u8], access: u8, device: DevNum) -> Option<bool> {
    let (major, minor) = (
        u32::try_from(device.major).ok()?,
        u32::try_from(device.minor).ok()?,
    );
    let kind = u32::try_from(context::CHAR).ok()? | u32::from(access) << 16;
    let mut asked: Vec<u8> = [kind, major, minor]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let vm = EbpfVmRaw::new(Some(program)).ok()?;
    Some(vm.execute_program(&mut asked).ok()? != 0)
}

/// `struct bpf_insn` in the order of its bytes.
fn bytes(code: &[Instruction]) -> Vec<u8> {
    let bytes = code.iter().flat_map(|instruction| {
        let mut bytes = [0; 8];
        bytes[0] = instruction.code;
        bytes[1] = instruction.registers;
        bytes[2..4].copy_from_slice(&instruction.offset.to_le_bytes());
        bytes[4..].copy_from_slice(&instruction.immediate.to_le_bytes());
        bytes
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: Instruction = Instruction::new(0x95, 0, 0, 0, 0);

    fn verdict(allow: i32) -> [Instruction; 2] {
        [Instruction::new(0xb7, 0, 0, 0, allow), EXIT]
    }

    /// In the words of other runtimes: 64-bit moves and jumps.
    fn only(major: i32, minor: i32) -> Vec<Instruction> {
        let load = |to, offset| Instruction::new(0x61, to, 1, offset, 0);
        let unless = |register, number, past| Instruction::new(0x55, register, 0, past, number);
        let mut code = vec![load(4, context::MAJOR), load(5, context::MINOR)];
        code.extend([unless(4, major, 3), unless(5, minor, 2)]);
        code.extend(verdict(1));
        code.extend(verdict(0));
        code
    }

    /// Reading alone is allowed.
    fn only_reading() -> Vec<Instruction> {
        let mut code = vec![
            Instruction::new(0x61, 2, 1, context::ACCESS_TYPE, 0),
            Instruction::new(0x77, 2, 0, 0, 16),
            Instruction::new(0x15, 2, 0, 2, i32::from(context::READ)),
        ];
        code.extend(verdict(0));
        code.extend(verdict(1));
        code
    }

    #[test]
    fn all_programs_must_allow() {
        let asked = |programs: &[&[Instruction]], minor| {
            let programs = Programs(programs.iter().map(|code| bytes(code)).collect());
            programs.allow(DevNum { major: 195, minor })
        };
        let gpu = only(195, 1);
        let reading = only_reading();
        assert_eq!(asked(&[], 0), Some(true), "nothing holds it back");
        assert_eq!(
            (asked(&[&gpu], 1), asked(&[&gpu], 0)),
            (Some(true), Some(false))
        );
        assert_eq!(asked(&[&gpu, &reading], 1), Some(true));
        assert_eq!(asked(&[&gpu, &verdict(0)], 1), Some(false));
        // A call, and code that ends nowhere: no such program is the kernel's.
        let call = Instruction::new(0x85, 0, 0, 0, 1);
        assert_eq!(asked(&[&[call, EXIT]], 1), None);
        assert_eq!(asked(&[&[]], 1), None);
    }
}
