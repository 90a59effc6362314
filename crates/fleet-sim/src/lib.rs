//! A simulated NVIDIA GPU node, from a description: driver tree, device nodes that open, and the CDI spec that
//! `nvidia-ctk cdi generate` would write for it. Reports of users are reproduced with it on any machine.

mod build;
mod elf;
mod libraries;
mod machine;
mod nodes;
mod spec;

pub use build::{SimError, create};
pub use machine::{Gpu, Machine, Node};
pub use spec::cdi_spec;
