//! CDI (Container Device Interface): specs, names, directories and conflicts.
//!
//! Behaves as the Go reference library where a user can see it: a bad file never affects another one, a later
//! directory wins, two files of one directory that define the same device make it unresolvable. Knows no vendor.
//! Applying the edits to an OCI spec is `fleet-inject`'s.
#![forbid(unsafe_code)]

mod annotations;
mod decode;
mod model;
mod name;
mod parse;
mod registry;
mod tree;
mod validate;
mod version;
mod write;

pub use annotations::{AnnotationError, devices_from_annotations};
pub use model::{ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec};
pub use name::{NameError, QualifiedName, is_qualified};
pub use parse::{Format, ParseError, SpecError, parse, read_spec};
pub use registry::{LoadedSpec, Registry, RegistryError, SourcedEdits, Unresolvable};
pub use version::Version;
pub use write::{WriteError, write_spec};
