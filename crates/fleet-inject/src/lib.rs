//! From an OCI spec and a policy to a plan of edits, and from the plan to the edited spec.
//!
//! Pure: nothing here opens a file. The host is seen through [`HostProbe`], CDI specs through `fleet_cdi`.
//!
//! ```text
//! spec ── Request::from_spec ──▶ Request ── Plan::build ──▶ Plan ── Plan::apply ──▶ spec
//!                                                            └──── Explanation ──▶ text, JSON
//! ```
#![forbid(unsafe_code)]

mod apply;
mod capabilities;
mod explain;
mod host;
mod image;
mod plan;
mod policy;
mod request;
mod requirements;
mod spec;

pub use apply::{Applied, ApplyError};
pub use capabilities::{Capabilities, CapabilityError, Limit, limit};
pub use explain::{Explanation, SCHEMA_VERSION};
pub use host::{DeviceKind, DeviceStat, HostProbe, io_cause};
pub use plan::{
    Change, DeviceEdit, Edit, Fault, HookEdit, LeftOut, MountEdit, Origin, Plan, PlanError,
    REBUILT, Stage, faults,
};
pub use policy::{
    Allow, AuditPolicy, CapabilityPolicy, DEFAULT_CONFIG, HookPolicy, Policy, PolicyError,
    PolicyFile, Profile, Rule, Sources,
};
pub use request::{
    Asked, OldMig, Refusal, Request, RequestError, RequestOutcome, Source, concerns,
};
pub use requirements::{GPU_ARCH, GPU_BRAND, Properties, RequirementError, Requirements};
