//! Containers over libcontainer: create, start, exec, kill, delete, state, cgroup, devices, seccomp, console.
//!
//! One module per verb, one per gap of the library. Nothing here knows what a GPU is.

pub mod annotations;
pub mod capabilities;
pub mod cgroup;
pub mod console_socket;
pub mod copyup;
pub mod create;
pub mod delegate;
pub mod delete;
mod driver;
pub mod engine;
pub mod error;
pub mod exec;
pub mod features;
pub mod foreground;
pub mod hookpoint;
pub mod hooks;
mod host_root;
pub mod id;
mod idmap;
mod keyring;
pub mod kill;
pub mod labels;
mod leash;
mod mount_options;
pub mod notify;
mod oom;
pub mod panics;
pub mod pause;
pub mod pidfd;
pub mod pidfd_socket;
pub mod preserve;
pub mod program;
mod program_plan;
pub mod rdt;
pub mod record;
pub mod rlimits;
pub mod root;
pub mod scheduler;
pub mod seccomp;
pub mod selfexe;
pub mod signal;
pub mod spec;
pub mod spec_template;
pub mod start;
mod surroundings;
pub mod sys;
mod sysctl;
pub mod tail;
mod usermap;

pub use error::{Error, Result};
