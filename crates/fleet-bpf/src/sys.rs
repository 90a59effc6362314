//! `man 2 bpf` for device programs: load, attach, list, detach.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction, `struct bpf_insn` of `<linux/bpf.h>`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Opcode.
    pub code: u8,
    /// Destination in the low, source in the high four bits.
    pub registers: u8,
    /// Jump distance or offset.
    pub offset: i16,
    /// Immediate value.
    pub immediate: i32,
}

impl Instruction {
    /// Puts one together.
    #[must_use]
    pub const fn new(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Self {
        Self {
            code,
            registers: to | (from << 4),
            offset,
            immediate,
        }
    }
}

/// Commands of `enum bpf_cmd`.
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE` of `enum bpf_attach_type`.
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`.
const ALLOW_MULTI: u32 = 2;
/// `BPF_F_QUERY_EFFECTIVE`.
const EFFECTIVE: u32 = 1;
/// Instructions of a program that may be loaded (`BPF_COMPLEXITY_LIMIT_INSNS`).
const MAX_INSTRUCTIONS: usize = 1_000_000;
/// Programs that may be attached to one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// `union bpf_attr`, padded: the members used here fit into its first 128 bytes.
#[repr(C, align(8))]
struct Attribute([u8; 128]);

impl Attribute {
    fn new() -> Self {
        Self([0; 128])
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn put_fd(&mut self, at: usize, fd: BorrowedFd<'_>) {
        self.0[at..at + 4].copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
    }

    fn put_pointer<T>(&mut self, at: usize, pointer: *const T) {
        self.0[at..at + 8].copy_from_slice(&(pointer as usize as u64).to_ne_bytes());
    }

    fn read32(&self, at: usize) -> u32 {
        u32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn call(&mut self, command: libc::c_long) -> io::Result<i32> {
        // SAFETY: the attribute is larger than the part the kernel reads, and pointers put into it are valid for the
        // call: their owners outlive it.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                std::ptr::from_mut(self),
                std::mem::size_of::<Self>(),
            )
        };
        if ret < 0 {
            return Err(io::Error::last_os_error());
        }
        i32::try_from(ret).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just returned this descriptor to us; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Loads a device program.
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` or `CAP_SYS_ADMIN`; `EINVAL` for a program the verifier refuses.
pub fn load_device_program(code: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attribute = Attribute::new();
    attribute.put32(0, TYPE_CGROUP_DEVICE);
    attribute.put32(
        4,
        u32::try_from(code.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
    );
    attribute.put_pointer(8, code.as_ptr());
    attribute.put_pointer(16, license.as_ptr());
    attribute.call(PROG_LOAD).map(owned)
}

/// Attaches it beside those that are there.
///
/// # Errors
/// As the system call.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = Attribute::new();
    attribute.put_fd(0, cgroup);
    attribute.put_fd(4, program);
    attribute.put32(8, ATTACH_CGROUP_DEVICE);
    attribute.put32(12, ALLOW_MULTI);
    attribute.call(PROG_ATTACH).map(drop)
}

/// Detaches one program.
///
/// # Errors
/// As the system call.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = Attribute::new();
    attribute.put_fd(0, cgroup);
    attribute.put_fd(4, program);
    attribute.put32(8, ATTACH_CGROUP_DEVICE);
    attribute.call(PROG_DETACH).map(drop)
}

/// The device programs attached to this very cgroup.
///
/// # Errors
/// As the system call.
pub fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    query(cgroup, 0)
}

/// The device programs that hold for this cgroup, those of the cgroups above included: all of them must allow.
///
/// # Errors
/// As the system call.
pub fn in_force(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    query(cgroup, EFFECTIVE)
}

fn query(cgroup: BorrowedFd<'_>, flags: u32) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut attribute = Attribute::new();
    attribute.put_fd(0, cgroup);
    attribute.put32(4, ATTACH_CGROUP_DEVICE);
    attribute.put32(8, flags);
    attribute.put_pointer(16, ids.as_mut_ptr());
    attribute.put32(24, u32::try_from(MAX_PROGRAMS).unwrap_or(0));
    attribute.call(PROG_QUERY)?;
    let count = usize::try_from(attribute.read32(24))
        .unwrap_or(0)
        .min(MAX_PROGRAMS);
    ids[..count].iter().map(|id| by_id(*id)).collect()
}

fn by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attribute = Attribute::new();
    attribute.put32(0, id);
    attribute.call(PROG_GET_FD_BY_ID).map(owned)
}

/// `struct bpf_prog_info`, as far as the instructions of the verified program; the kernel takes any prefix.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    native_length: u32,
    length: u32,
    native_code: u64,
    code: u64,
}

/// The instructions of a program, as the verifier has left them.
///
/// # Errors
/// As the system call; `EPERM` where the kernel shows them to nobody (`kernel.kptr_restrict`, `man 5 proc_sys_kernel`) or not
/// to this user.
pub fn code(program: BorrowedFd<'_>) -> io::Result<Vec<Instruction>> {
    let mut info = ProgramInfo::default();
    ask(program, &mut info)?;
    let size = std::mem::size_of::<Instruction>();
    let count = usize::try_from(info.length).unwrap_or(usize::MAX) / size;
    if count > MAX_INSTRUCTIONS {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut code = vec![Instruction::new(0, 0, 0, 0, 0); count];
    info = ProgramInfo {
        length: info.length,
        code: code.as_mut_ptr() as usize as u64,
        ..ProgramInfo::default()
    };
    ask(program, &mut info)?;
    // Where it may not be seen, no error tells.
    if info.length == 0 || info.code == 0 {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(code)
}

fn ask(program: BorrowedFd<'_>, info: &mut ProgramInfo) -> io::Result<()> {
    let size = u32::try_from(std::mem::size_of::<ProgramInfo>()).unwrap_or_default();
    let mut attribute = Attribute::new();
    attribute.put_fd(0, program);
    attribute.put32(4, size);
    attribute.put_pointer(8, std::ptr::from_mut(info));
    attribute.call(OBJ_GET_INFO_BY_FD).map(drop)
}
