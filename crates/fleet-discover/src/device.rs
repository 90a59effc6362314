//! A GPU, or a part of one, as a device of a CDI spec.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use fleet_cdi::{ContainerEdits, Device};
use fleet_host::Tree;
use fleet_host::files::Link;
use fleet_host::gpu::{BusId, Gpu, MigDevice};
use fleet_host::proc::{MigMinors, drm_names};
use fleet_inject::io_cause;

use crate::edits::add_node;
use crate::hooks::Hooks;
use crate::machine::Machine;
use crate::options::Options;
use crate::selection::Selected;

/// What devices are made with.
pub(crate) struct Maker<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) options: &'a Options,
    pub(crate) hooks: Hooks<'a>,
    minors: OnceCell<Option<MigMinors>>,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(machine: &'a Machine, options: &'a Options, hooks: Hooks<'a>) -> Self {
        Self {
            machine,
            options,
            hooks,
            minors: OnceCell::new(),
        }
    }

    fn gids(&self) -> bool {
        !self.options.features.no_additional_gids
    }

    /// The device under each of its names.
    ///
    /// An error is the sentence why it is left out; the others are not affected.
    pub(crate) fn devices(&self, of: &Selected<'_>) -> Result<Vec<Device>, String> {
        let names = of.names(&self.options.naming);
        if names.is_empty() {
            return Err("it has no name by the chosen --device-name-strategy".to_owned());
        }
        let edits = match of.part {
            None => self.gpu(of.gpu)?,
            Some(part) => self.part(of.gpu, part)?,
        };
        let mut annotations = BTreeMap::new();
        if let (true, Some(coherent)) = (self.options.features.coherent, of.gpu.coherent) {
            annotations.insert(COHERENT.to_owned(), coherent.to_string());
        }
        let device = |name| Device {
            name,
            annotations: annotations.clone(),
            container_edits: edits.clone(),
        };
        Ok(names.into_iter().map(device).collect())
    }

    pub(crate) fn gpu(&self, gpu: &Gpu) -> Result<ContainerEdits, String> {
        let mut edits = ContainerEdits::default();
        self.require(&mut edits, &format!("/dev/nvidia{}", gpu.minor))?;
        self.drm(&mut edits, gpu.bus_id.as_ref());
        let paths = edits.device_nodes.iter().map(|node| node.path.as_str());
        let chmod = self.hooks.chmod(paths);
        edits.hooks.extend(chmod);
        Ok(edits)
    }

    fn part(&self, gpu: &Gpu, part: &MigDevice) -> Result<ContainerEdits, String> {
        // Thousands of lines, which a machine without partitions is spared.
        let minors = self
            .minors
            .get_or_init(|| MigMinors::of(&self.machine.system))
            .as_ref()
            .ok_or("/proc/driver/nvidia-caps/mig-minors cannot be read")?;
        let (instance, compute) = (part.gpu_instance, part.compute_instance);
        let caps = [
            minors.gpu_instance(gpu.minor, instance),
            minors.compute_instance(gpu.minor, instance, compute),
        ];
        let mut edits = ContainerEdits::default();
        self.require(&mut edits, &format!("/dev/nvidia{}", gpu.minor))?;
        for cap in caps {
            let cap = cap.ok_or_else(|| {
                format!(
                    "/proc/driver/nvidia-caps/mig-minors has no number for gpu{}/gi{instance}/ci{compute}",
                    gpu.minor
                )
            })?;
            self.require(&mut edits, &format!("/dev/nvidia-caps/nvidia-cap{cap}"))?;
        }
        if part.graphics {
            self.drm(&mut edits, gpu.bus_id.as_ref());
        }
        Ok(edits)
    }

    fn require(&self, edits: &mut ContainerEdits, path: &str) -> Result<(), String> {
        let dev = &self.machine.dev;
        if add_node(edits, dev, path, self.gids()) {
            return Ok(());
        }
        let why = match dev.node(path) {
            Ok(_) => "is no character device".to_owned(),
            Err(err) => io_cause(&err),
        };
        Err(format!("its node {} {why}", dev.host(path)))
    }

    /// Nodes for rendering and display, and the links by which udev names them.
    fn drm(&self, edits: &mut ContainerEdits, bus_id: Option<&BusId>) {
        let Some(bus_id) = bus_id else { return };
        let dev = &self.machine.dev;
        let mut added = Vec::new();
        for name in drm_names(&self.machine.system, bus_id) {
            let path = format!("/dev/dri/{name}");
            if add_node(edits, dev, &path, self.gids()) {
                added.push(path);
            }
        }
        let links = by_path(dev, bus_id, &added);
        edits.hooks.extend(self.hooks.create_symlinks(links.iter()));
    }
}

/// Key of the annotation that tells GPUs with the processor's page tables.
pub(crate) const COHERENT: &str = "gpu.nvidia.com/coherent";

/// Links below `/dev/dri/by-path` that lead to one of the nodes. The link is the container's: it has no other root.
fn by_path(dev: &Tree, bus_id: &BusId, nodes: &[String]) -> Vec<Link> {
    let links = ["card", "render"].into_iter().filter_map(|kind| {
        let link = format!("/dev/dri/by-path/pci-{bus_id}-{kind}");
        let target = dev.read_link(&link).ok()?;
        let leads_to = match target.strip_prefix("../") {
            Some(name) => format!("/dev/dri/{name}"),
            None => target.clone(),
        };
        nodes.contains(&leads_to).then_some(Link { target, link })
    });
    links.collect()
}
