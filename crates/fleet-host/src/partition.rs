//! Partitions by the names that drivers before 470 gave them.
//!
//! CDI specs have other names for them. Which device is meant follows from its nodes: those that `mig-minors` states for
//! GPU instance and compute instance open this partition and no other.

use std::borrow::Cow;
use std::collections::BTreeSet;

use fleet_cdi::{ContainerEdits, Device, QualifiedName, Registry, SourcedEdits};
use fleet_inject::{HostProbe, OldMig, Request};

use crate::gpu::Gpu;
use crate::inject::{Host, InjectError};
use crate::proc::{self, MigMinors};
use crate::tree::Tree;

const CAPABILITY: &str = "/dev/nvidia-caps/nvidia-cap";

/// A partition that this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its usual name in specs, `1:0`.
    pub name: String,
    /// The nodes that open it beside its GPU's.
    pub nodes: [String; 2],
}

impl Partition {
    /// As proc states it.
    ///
    /// # Errors
    /// What the machine lacks.
    pub fn of(system: &Tree, old: &OldMig<'_>) -> Result<Self, String> {
        let OldMig {
            gpu,
            gpu_instance,
            compute_instance,
        } = old;
        let told = proc::inventory(system);
        let is_it = |uuid: &String| uuid.eq_ignore_ascii_case(gpu);
        let mut gpus = told.gpus.iter();
        let found = gpus.find(|found| found.uuid.as_ref().is_some_and(is_it));
        let found = found.ok_or_else(|| format!("no GPU of this machine has the UUID {gpu}"))?;
        let mut parts = found.mig.iter().flatten();
        let part = parts.find(|part| {
            (part.gpu_instance, part.compute_instance) == (*gpu_instance, *compute_instance)
        });
        let minors = MigMinors::of(system);
        let nodes = minors.and_then(|minors| {
            let both = [
                minors.gpu_instance(found.minor, *gpu_instance)?,
                minors.compute_instance(found.minor, *gpu_instance, *compute_instance)?,
            ];
            Some(both.map(|minor| format!("{CAPABILITY}{minor}")))
        });
        let (Some(part), Some(nodes)) = (part, nodes) else {
            return Err(format!(
                "GPU {} has no compute instance {compute_instance} in a GPU instance {gpu_instance}; hint: {}",
                found.index,
                listed(found)
            ));
        };
        Ok(Self {
            name: format!("{}:{}", found.index, part.index),
            nodes,
        })
    }

    /// The device of these specs that is this partition, by its usual name where it has several.
    fn device(&self, registry: &Registry, kind: &str) -> Option<QualifiedName> {
        let of_kind = registry.entries().filter(|(name, _)| name.kind() == kind);
        let devices = of_kind.filter(|(name, loaded)| {
            let mut devices = loaded.spec.devices.iter();
            let device = devices.find(|device| device.name == name.name());
            device.is_some_and(|device| self.is(device))
        });
        let names = devices.map(|(name, _)| name);
        names.min_by_key(|name| name.name() != self.name).cloned()
    }

    /// One with more nodes is several partitions.
    fn is(&self, device: &Device) -> bool {
        let nodes = device.container_edits.device_nodes.iter();
        let paths = nodes.map(|node| node.path.as_str());
        let paths: BTreeSet<&str> = paths.filter(|path| path.starts_with(CAPABILITY)).collect();
        paths == self.nodes.iter().map(String::as_str).collect()
    }
}

fn listed(gpu: &Gpu) -> String {
    let parts = gpu.mig.iter().flatten();
    let parts: Vec<_> = parts
        .map(|part| format!("{}/{}", part.gpu_instance, part.compute_instance))
        .collect();
    match parts.is_empty() {
        true => "it has no partition".to_owned(),
        false => format!("it has {}", parts.join(", ")),
    }
}

/// Devices of other kinds are every node that there is, whatever it opens.
const KIND: &str = "nvidia.com/gpu";

/// The nodes of a device whose partitions are gone.
pub(crate) fn gone<'e>(
    kind: &str,
    edits: &'e ContainerEdits,
    host: &dyn HostProbe,
) -> Vec<&'e str> {
    let nodes = edits.device_nodes.iter().filter(|_| kind == KIND);
    let paths = nodes.map(|node| node.host_path.as_ref().unwrap_or(&node.path).as_str());
    let paths: Vec<&str> = paths.filter(|path| path.contains(CAPABILITY)).collect();
    match paths.is_empty() {
        true => paths,
        false => host.without_partition(&paths),
    }
}

/// Nodes stay when a partition goes, and a container that is given them sees no GPU.
pub(crate) fn check(resolved: &[SourcedEdits], host: &dyn HostProbe) -> Result<(), InjectError> {
    for sourced in resolved {
        let kind = sourced.device.as_ref().map_or("", QualifiedName::kind);
        if let Some(node) = gone(kind, &sourced.edits, host).first() {
            return Err(InjectError::Gone {
                file: sourced.spec_path.clone(),
                node: (*node).to_owned(),
            });
        }
    }
    Ok(())
}

/// As proc states it.
pub(crate) fn without<'p>(system: &Tree, paths: &[&'p str]) -> Vec<&'p str> {
    let Some(minors) = MigMinors::of(system) else {
        return Vec::new();
    };
    let is_gone = |path: &&&str| {
        let number = path.rsplit_once(CAPABILITY);
        let minor = number.and_then(|(_, number)| number.parse().ok());
        minor.is_some_and(|minor| minors.opens(system, minor) == Some(false))
    };
    paths.iter().filter(is_gone).copied().collect()
}

/// The request with names that are in these specs. One that is in none is left, so that it is not resolved.
pub(crate) fn named<'r>(
    request: &'r Request,
    registry: &Registry,
    host: &dyn Host,
) -> Result<Cow<'r, Request>, InjectError> {
    let is_old = |name: &QualifiedName| OldMig::of(name).is_some();
    if !request.devices.iter().any(|asked| is_old(&asked.name)) {
        return Ok(Cow::Borrowed(request));
    }
    let mut named = request.clone();
    named.devices.clear();
    for asked in &request.devices {
        let mut asked = asked.clone();
        if let Some(old) = OldMig::of(&asked.name) {
            let partition = host.partition(&old).map_err(|why| InjectError::Absent {
                name: asked.name.to_string(),
                origin: asked.source.clone(),
                why,
            })?;
            let device = partition.device(registry, asked.name.kind());
            asked.name = device.unwrap_or(asked.name);
        }
        let mut known = named.devices.iter();
        if !known.any(|known| known.name == asked.name) {
            named.devices.push(asked);
        }
    }
    Ok(Cow::Owned(named))
}
