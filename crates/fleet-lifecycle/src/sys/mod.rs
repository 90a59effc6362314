//! Raw system calls that no crate wraps. Nothing here decides anything.

pub mod mount;
pub mod process;
pub mod tail;
