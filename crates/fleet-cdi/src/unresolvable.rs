//! Why a device cannot be had, in one line that says what to do.

use crate::file::{format_of, read_into};
use crate::name::QualifiedName;
use crate::parse::outline;
use crate::registry::Registry;
use crate::scan::RegistryError;
use crate::shown::{bounded, listed, shown_path};

/// Names listed in one error line.
const SHOWN: usize = 16;
/// Longest message, in bytes: engines put it into events and logs.
const LONGEST: usize = 4096;

/// Devices that cannot be had. The text begins as the Go library's, which engines and people search for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unresolvable {
    message: String,
    /// The devices.
    pub names: Vec<QualifiedName>,
}

impl Unresolvable {
    pub(crate) fn new(registry: &Registry, missing: &[&QualifiedName]) -> Self {
        let mut causes: Vec<String> = Vec::new();
        for name in missing.iter().take(SHOWN) {
            for cause in causes_of(registry, name) {
                if !causes.contains(&cause) {
                    causes.push(cause);
                }
            }
        }
        let message = format!(
            "unresolvable CDI devices {}: {}",
            listed(missing, SHOWN),
            causes.join("; ")
        );
        Self {
            message: bounded(message, LONGEST),
            names: missing.iter().map(|name| (*name).clone()).collect(),
        }
    }
}

fn causes_of(registry: &Registry, name: &QualifiedName) -> Vec<String> {
    let is_conflict = |err: &&RegistryError| matches!(err, RegistryError::Conflict { name: other, .. } if other == name);
    if let Some(conflict) = registry.errors().iter().find(is_conflict) {
        return vec![conflict.to_string()];
    }
    let known: Vec<&str> = registry
        .entries()
        .filter(|(other, _)| other.kind() == name.kind())
        .map(|(other, _)| other.name())
        .collect();
    let dirs: Vec<String> = registry.dirs().iter().map(|dir| shown_path(dir)).collect();
    let dirs = match dirs.is_empty() {
        true => "no directory".to_owned(),
        false => dirs.join(", "),
    };
    let mut causes = vec![match known.is_empty() {
        true => format!(
            "no CDI spec of kind {} in {dirs}",
            listed(&[name.kind()], 1)
        ),
        false => format!(
            "known devices of {} are {}; searched {dirs}",
            listed(&[name.kind()], 1),
            listed(&known, SHOWN)
        ),
    }];
    match suspect(registry, name) {
        Some(broken) => causes.push(broken),
        None if known.is_empty() => causes.push(
            "hint: make one with its vendor's generator, such as `fleet-nvidia-ctl cdi generate` for NVIDIA's"
                .to_owned(),
        ),
        None => {}
    }
    causes
}

/// How much a file that cannot be used looks like the one that has the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Suspicion {
    /// It may be anything.
    Unknown,
    /// The kind is in it.
    Kind,
    /// It defines the device.
    Device,
}

fn suspect(registry: &Registry, name: &QualifiedName) -> Option<String> {
    let mut best: Option<(Suspicion, &RegistryError)> = None;
    for err in registry.errors() {
        let suspicion = match err {
            RegistryError::Conflict { .. } => continue,
            RegistryError::Directory { .. } => Suspicion::Unknown,
            RegistryError::Spec(err) => suspicion(&err.path, name),
        };
        if best.is_none_or(|(other, _)| suspicion > other) {
            best = Some((suspicion, err));
        }
    }
    match best? {
        (Suspicion::Device, RegistryError::Spec(err)) => Some(format!(
            "CDI device {} is defined only in {}, which {}",
            listed(&[name], 1),
            shown_path(&err.path),
            err.why
        )),
        (_, err) => Some(err.to_string()),
    }
}

/// Reads the file again: only a request that fails pays for it.
fn suspicion(path: &std::path::Path, name: &QualifiedName) -> Suspicion {
    let mut bytes = Vec::new();
    let format = path.file_name().and_then(format_of);
    let (Some(format), Ok(())) = (format, read_into(path, &mut bytes, false)) else {
        return Suspicion::Unknown;
    };
    match outline(&bytes, format) {
        Some((kind, devices)) if kind == name.kind() => {
            if devices.iter().any(|device| device == name.name()) {
                Suspicion::Device
            } else {
                Suspicion::Kind
            }
        }
        None if memchr::memmem::find(&bytes, name.kind().as_bytes()).is_some() => Suspicion::Kind,
        _ => Suspicion::Unknown,
    }
}
