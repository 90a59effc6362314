//! CDI (Container Device Interface): specs, names, directories and conflicts.
//!
//! Behaves as the Go reference library where a user can see it: a bad file never affects another one, a later
//! directory wins, two files of one directory that define the same device make it unresolvable. Knows no vendor.
//! Applying the edits to an OCI spec is `fleet-inject`'s.
#![forbid(unsafe_code)]

mod annotations;
mod block;
mod decode;
mod diff;
mod emit;
mod fields;
mod file;
mod json;
mod model;
mod name;
mod needs;
mod node;
mod parse;
mod registry;
mod scalar;
mod scan;
mod shown;
mod skim;
mod transform;
mod unresolvable;
mod validate;
mod version;
mod write;
mod yaml;

#[cfg(test)]
mod dice;

pub use annotations::{AnnotationError, devices_from_annotations};
pub use diff::Difference;
pub use file::{SpecError, read_spec};
pub use model::{ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec};
pub use name::{NameError, QualifiedName, is_qualified};
pub use needs::Need;
pub use parse::{Format, ParseError, parse};
pub use registry::{LoadedSpec, Registry, SourcedEdits};
pub use scan::RegistryError;
pub use skim::Wanted;
pub use transform::{RootTransform, Side};
pub use unresolvable::Unresolvable;
pub use validate::InvalidSpec;
pub use version::Version;
pub use write::{WriteError, encode_spec, write_spec};
