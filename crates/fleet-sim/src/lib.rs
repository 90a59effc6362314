//! A simulated NVIDIA GPU node, from a description: driver tree, device nodes that open, what the kernel shows in `/proc`
//! and `/sys`, and the CDI spec that `nvidia-ctk cdi generate` would write for it. Reports of users are reproduced with
//! it on any machine.

pub mod command;

mod build;

mod elf;
mod files;
mod installed;
mod libraries;
mod nodes;
mod platform;
mod proc;
mod spec;
mod sys;

pub use build::{Plan, SimError, create, remove, write_file};
pub use files::Entry;
pub use fleet_sim_machine::{Gpu, Machine, MachineError, Node, Platform, names};
pub use installed::{Installed, driver_version};
pub use nodes::Numbers;
pub use proc::proc_files;
pub use spec::cdi_spec;
pub use sys::sys_files;
