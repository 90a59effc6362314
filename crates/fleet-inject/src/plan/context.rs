//! What is the same for all edits that a device of a CDI spec brings: their origin, and words for messages.

use std::path::Path;

use fleet_cdi::{QualifiedName, SourcedEdits};

use super::{Origin, REBUILT};
use crate::host::HostProbe;
use crate::policy::HookPolicy;
use crate::request::{Request, Source};

/// Edits that no file states: they follow from what the host has.
fn is_in_memory(spec_path: &Path) -> bool {
    spec_path.as_os_str().is_empty()
}

/// The device that brings these edits. Those that a file's devices share stand before the device that was asked for
/// first.
fn device_of(resolved: &[SourcedEdits], index: usize) -> Option<&QualifiedName> {
    let file = &resolved[index].spec_path;
    let mut of_file = resolved[index..]
        .iter()
        .filter(|other| other.spec_path == *file);
    of_file.find_map(|other| other.device.as_ref())
}

pub(super) fn kind_of(request: &Request, resolved: &[SourcedEdits], index: usize) -> String {
    let device = device_of(resolved, index).map(|name| name.kind().to_owned());
    device
        .or_else(|| request.none_kind.as_ref().map(|none| none.kind.clone()))
        .unwrap_or_default()
}

/// What is the same for all edits of one device of one CDI spec.
pub(super) struct Context<'a> {
    pub(super) origin: Origin,
    /// For messages: the device and its file.
    pub(super) of: String,
    pub(super) kind: String,
    pub(super) spec_file: Option<&'a Path>,
    pub(super) hooks: &'a HookPolicy,
    /// Whether the container asks for limits of GPU memory.
    pub(super) limits_memory: bool,
    pub(super) probe: &'a dyn HostProbe,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        request: &'a Request,
        resolved: &'a [SourcedEdits],
        index: usize,
        sourced: &'a SourcedEdits,
        probe: &'a dyn HostProbe,
    ) -> Self {
        let device = device_of(resolved, index);
        let asked = |name: &QualifiedName| {
            let mut all = request.devices.iter().chain(&request.extras);
            all.find(|asked| asked.name == *name)
        };
        let source = device.and_then(asked).map(|asked| &asked.source);
        let source = source.or_else(|| request.none_kind.as_ref().map(|none| &none.source));
        let spec_file = Some(sourced.spec_path.as_path()).filter(|path| !is_in_memory(path));
        let of = match (&sourced.device, spec_file) {
            (Some(name), Some(file)) => format!("{name} ({})", file.display()),
            (Some(name), None) => name.to_string(),
            (None, _) => format!("the common edits of {}", sourced.spec_path.display()),
        };
        Self {
            origin: Origin {
                source: source.cloned().unwrap_or(Source::Engine),
                spec_file: spec_file.map(Path::to_path_buf),
                device: sourced.device.as_ref().map(ToString::to_string),
            },
            of,
            kind: kind_of(request, resolved, index),
            spec_file,
            hooks: &request.hooks,
            limits_memory: false,
            probe,
        }
    }

    /// What to do about a host file that is not as the CDI spec says.
    pub(super) fn hint(&self) -> String {
        let file = self.spec_file.filter(|file| *file != Path::new(REBUILT));
        let Some(file) = file.map(Path::display) else {
            return "; hint: is the driver's module loaded, and are its device nodes made?"
                .to_owned();
        };
        if !self.kind.starts_with("nvidia.com/") {
            return format!(
                "; hint: the CDI spec {file} is out of date, make it anew with its vendor's tool"
            );
        }
        let driver = self.probe.driver_version().map_or_else(
            || "no NVIDIA driver is loaded".to_owned(),
            |version| format!("the loaded driver is {version}"),
        );
        format!(
            "; hint: the CDI spec is out of date ({driver}), make it anew: fleet-nvidia-ctl cdi generate --output={file}"
        )
    }
}
