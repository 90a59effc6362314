//! What a simulated GPU node is: GPU models, MIG profiles, and the description a user writes.
//!
//! Two readers share it: the builder of the tree, which must show what the driver shows in `/dev`, `/proc` and `/sys`,
//! and the simulated NVML, which must tell the same story. Nothing here touches the machine it runs on.
#![forbid(unsafe_code)]

mod description;
mod machine;
mod mig;
mod model;
mod node;
mod presets;
mod tegra;

pub use description::Description;
pub use machine::{Drm, Gpu, GpuFault, Machine, MachineError, Platform, Switch};
pub use mig::{
    ComputeInstance, Family, GpuInstance, PROFILES, Profile, cap_minor, compute_profile, layout,
};
pub use model::{MODELS, Model, model};
pub use node::{Node, major};
pub use presets::names;
pub use tegra::{SocFile, soc_files, soc_nodes};
