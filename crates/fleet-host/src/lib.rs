//! What the machine has, and the one way from a container's spec to its devices.
//!
//! Not here: NVML or anything else that must be loaded. A container is made from files alone.
#![forbid(unsafe_code)]

mod audit;
mod check;
mod config;
mod container;
mod driver;
mod env;
mod heal;
mod inherent;
mod inject;
mod none;
mod partition;
mod precreate;
mod resolve;
mod root;
mod store;
mod supply;

// The machine itself, for whoever makes specs from it.
pub mod files;
pub mod gpu;
pub mod nodes;
pub mod proc;
mod tree;

pub use audit::{
    AUDIT_SCHEMA_VERSION, AuditError, EventKind, Granted, Subject, Trail, granted, labels,
};
pub use check::{SpecFault, check_spec};
pub use config::{
    ConfigError, RUNTIME_DIRECTORIES, config_path, is_toolkit, load_policy, runtimes, spec_dirs,
};
pub use container::{Container, StateError, read_object};
pub use driver::{DRIVER_VERSION_FILE, driver_version};
pub use env::{Env, in_user_namespace};
pub use fleet_inject::{Applied, Fault};
pub use inject::{
    Host, InjectError, Outcome, Prepared, Rebuilt, inject, inject_with, prepare, prepare_devices,
};
pub use partition::Partition;
pub use precreate::{PrecreateError, precreate};
pub use root::HostRoot;
pub use supply::{MissingNodes, Supplied, SupplyState, supply};

pub use fleet_rootfs::root::clean;
pub use store::Store;
pub use tree::{Compare, Facts, NodeStat, Tree};
