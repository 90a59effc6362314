//! Device programs of cgroup v2: `man 2 bpf`, `BPF_PROG_TYPE_CGROUP_DEVICE`. The runtime puts them in force, and the admin
//! tool reads those that are, whoever made them.

mod sys;

pub use sys::{
    Instruction, attach_device_program, attached, code, detach_device_program, in_force,
    load_device_program,
};

/// Offsets in `struct bpf_cgroup_dev_ctx` of `<linux/bpf.h>`, which is what such a program is called with.
pub mod context {
    /// What kind of device it is in the low half, the access in the high one.
    pub const ACCESS_TYPE: i16 = 0;
    /// Major number.
    pub const MAJOR: i16 = 4;
    /// Minor number.
    pub const MINOR: i16 = 8;
    /// `BPF_DEVCG_DEV_BLOCK`.
    pub const BLOCK: i32 = 1;
    /// `BPF_DEVCG_DEV_CHAR`.
    pub const CHAR: i32 = 2;
    /// `BPF_DEVCG_ACC_MKNOD`.
    pub const MKNOD: u8 = 1;
    /// `BPF_DEVCG_ACC_READ`.
    pub const READ: u8 = 2;
    /// `BPF_DEVCG_ACC_WRITE`.
    pub const WRITE: u8 = 4;
}
