//! Tegra: files and nodes from lists that the platform's packages install.

mod lists;

use fleet_cdi::{ContainerEdits, Device};
use fleet_host::Tree;
use fleet_host::files::{File, Library, Link, file_at, library_at};
use fleet_host::gpu::{Gpu, Inventory};

use super::nothing;
use crate::common::CONTROL;
use crate::device::Maker;
use crate::edits::{add_files, add_node, append};
use crate::error::DiscoverError;
use crate::hooks::Hooks;
use crate::machine::Machine;
use crate::options::{Mode, Naming, Options};
use crate::selection::{Selected, Selection, select};
use crate::{Found, common};
use lists::Lists;

const RELEASE: &str = "/etc/nv_tegra_release";

pub(super) fn find(
    machine: &Machine,
    inventory: Option<&Inventory>,
    options: &Options,
) -> Result<Found, DiscoverError> {
    let hooks = Hooks::new(&options.hooks, &[]);
    let mut found = Found::default();
    let lists = Lists::read(machine, &options.csv, &mut found.warnings);
    if lists.is_empty() {
        let why = format!("there is nothing in {}", options.csv.files.join(", "));
        return Err(nothing(
            Mode::Csv,
            why,
            Some("--csv.file names other lists"),
        ));
    }
    let several = inventory.filter(|told| told.gpus.len() > 1 && !options.features.one_csv_device);
    found.devices = match several {
        Some(inventory) => several_devices(machine, inventory, options, &lists)?,
        None => one_device(machine, inventory, options, &lists)?,
    };
    add_lists(&mut found, machine, &lists, &hooks);
    let compat = inventory.and_then(|told| compat_args(told, options));
    found
        .common
        .hooks
        .extend(compat.and_then(|args| hooks.enable_cuda_compat(args)));
    // Last, so that the loader is told of the links, too.
    let folders = folders(&found.common);
    found.common.hooks.extend(hooks.update_ldcache(&folders));
    Ok(found)
}

/// The whole system is the device.
fn one_device(
    machine: &Machine,
    inventory: Option<&Inventory>,
    options: &Options,
    lists: &Lists,
) -> Result<Vec<Device>, DiscoverError> {
    if let Some(id) = options
        .ids
        .iter()
        .find(|id| !matches!(id.as_str(), "all" | "0"))
    {
        return Err(DiscoverError::UnknownDevice {
            id: id.clone(),
            why: "this system has one device, 0".to_owned(),
        });
    }
    let gids = !options.features.no_additional_gids;
    let edits = nodes(machine, &listed(machine, lists), gids);
    let unknown = integrated(None);
    let gpu = inventory
        .and_then(|told| told.gpus.first())
        .unwrap_or(&unknown);
    let gpu = Gpu {
        index: 0,
        mig: None,
        ..gpu.clone()
    };
    named(&gpu, edits, &options.naming)
}

/// Stands for the GPU that no source tells of.
fn integrated(uuid: Option<String>) -> Gpu {
    Gpu {
        index: 0,
        minor: 0,
        uuid,
        bus_id: None,
        name: String::new(),
        mig: None,
        coherent: None,
        arch: None,
        brand: None,
    }
}

fn named(
    gpu: &Gpu,
    edits: ContainerEdits,
    naming: &[Naming],
) -> Result<Vec<Device>, DiscoverError> {
    let names = Selected { gpu, part: None }.names(naming);
    if names.is_empty() || edits.is_empty() {
        let why = match names.is_empty() {
            true => "the device has no name by the chosen --device-name-strategy",
            false => "none of the listed nodes is there",
        };
        return Err(nothing(Mode::Csv, why, None));
    }
    let device = |name| Device {
        name,
        container_edits: edits.clone(),
        ..Device::default()
    };
    Ok(names.into_iter().map(device).collect())
}

/// An integrated and a discrete GPU, in this order (Jetson AGX Thor and its like with a card).
fn several_devices(
    machine: &Machine,
    inventory: &Inventory,
    options: &Options,
    lists: &Lists,
) -> Result<Vec<Device>, DiscoverError> {
    let selected = match select(inventory, &options.ids)? {
        Selection::Nothing => {
            return Err(nothing(
                Mode::Csv,
                "the id `none` has no meaning here",
                None,
            ));
        }
        Selection::Devices(selected) => selected,
    };
    let maker = Maker::new(machine, options, Hooks::new(&options.hooks, &[]));
    let mut devices = Vec::new();
    for one in selected {
        let unknown = |why: String| DiscoverError::UnknownDevice {
            id: one.gpu.index.to_string(),
            why,
        };
        let edits = match (one.gpu.index, is_integrated(one.gpu)) {
            (0, true) => integrated_edits(&maker, lists),
            (1, false) => card_edits(&maker, one.gpu, lists).map_err(unknown)?,
            (index, _) => {
                let why = format!("a GPU of its kind is not expected at index {index} on Tegra");
                return Err(unknown(why));
            }
        };
        devices.extend(named(one.gpu, edits, &options.naming)?);
    }
    Ok(devices)
}

/// The integrated GPU of a Thor has this place on the bus.
fn is_integrated(gpu: &Gpu) -> bool {
    let place = gpu.bus_id.as_ref().map(|bus| bus.as_str());
    gpu.is_integrated() || place == Some("0000:01:00.0")
}

fn is_gpu_node(path: &str) -> bool {
    path.strip_prefix("/dev/nvidia").is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Nodes that the lists name and that are there.
fn listed(machine: &Machine, lists: &Lists) -> Vec<String> {
    let paths = lists.dev.iter().flat_map(|path| machine.dev.glob(path));
    paths.collect()
}

fn nodes(machine: &Machine, paths: &[String], gids: bool) -> ContainerEdits {
    let mut edits = ContainerEdits::default();
    for path in paths {
        add_node(&mut edits, &machine.dev, path, gids);
    }
    edits
}

/// Everything but the card's node, and the node of the display.
fn integrated_edits(maker: &Maker<'_>, lists: &Lists) -> ContainerEdits {
    let mut paths = listed(maker.machine, lists);
    paths.retain(|path| path != "/dev/nvidia1");
    paths.push("/dev/nvidia2".to_owned());
    nodes(
        maker.machine,
        &paths,
        !maker.options.features.no_additional_gids,
    )
}

/// The card with the driver's own nodes, and what the lists name beside GPUs.
fn card_edits(maker: &Maker<'_>, gpu: &Gpu, lists: &Lists) -> Result<ContainerEdits, String> {
    let mut edits = maker.gpu(gpu)?;
    let mut paths: Vec<String> = CONTROL.map(str::to_owned).to_vec();
    paths.extend(listed(maker.machine, lists));
    paths.retain(|path| !is_gpu_node(path));
    let gids = !maker.options.features.no_additional_gids;
    append(&mut edits, nodes(maker.machine, &paths, gids));
    Ok(edits)
}

/// Directories, libraries and links of the lists.
fn add_lists(found: &mut Found, machine: &Machine, lists: &Lists, hooks: &Hooks<'_>) {
    let tree = &machine.driver;
    let dirs = lists.dir.iter().flat_map(|path| tree.glob(path));
    let dirs = dirs.filter(|path| tree.is_dir(path));
    let dirs: Vec<File> = dirs.filter_map(|path| file_at(tree, &path)).collect();
    let mut library = |path: String| library_at(tree, &path, &mut found.warnings);
    let libraries = lists.lib.iter().flat_map(|path| tree.glob(path));
    let libraries: Vec<Library> = libraries.filter_map(&mut library).collect();
    let targets = lists.sym.iter().flat_map(|path| tree.glob(path));
    let targets: Vec<Library> = targets.filter_map(&mut library).collect();
    let chains = lists.sym.iter().flat_map(|path| tree.glob(path));
    let links: Vec<Link> = chains.flat_map(|path| chain(tree, &path)).collect();

    add_files(&mut found.common, dirs.iter());
    let files = libraries.iter().chain(&targets);
    add_files(&mut found.common, files.map(|library| &library.file));
    let own = libraries.iter().flat_map(|library| &library.links);
    found.common.hooks.extend(hooks.create_symlinks(own));
    found
        .common
        .hooks
        .extend(hooks.create_symlinks(links.iter()));
    if machine.host.is_file(RELEASE) {
        let release = file_at(&machine.host, RELEASE);
        add_files(&mut found.common, release.iter());
    }
}

/// A link, the link that it leads to, and so on.
fn chain(tree: &Tree, path: &str) -> Vec<Link> {
    /// As many as the kernel follows (`man 7 path_resolution`).
    const LONGEST: usize = 40;
    let mut links: Vec<Link> = Vec::new();
    let mut at = path.to_owned();
    while let Ok(target) = tree.read_link(&at) {
        if links.len() == LONGEST {
            return Vec::new();
        }
        let dir = at.rsplit_once('/').map_or("", |(dir, _)| dir);
        let next = match target.starts_with('/') {
            true => target.clone(),
            false => format!("{dir}/{target}"),
        };
        links.push(Link { target, link: at });
        at = fleet_host::clean(&next);
    }
    links
}

/// What NVML tells decides on the image's own CUDA libraries; without it there is no such hook.
fn compat_args(inventory: &Inventory, options: &Options) -> Option<Vec<String>> {
    let cuda = inventory.cuda_version.as_ref()?;
    let mut args = vec![format!("--host-cuda-version={cuda}")];
    if inventory
        .gpus
        .iter()
        .any(|gpu| gpu.name.contains("Orin (nvgpu)"))
    {
        args.push(format!(
            "--cuda-compat-container-root={}",
            options.csv.compat_root
        ));
    }
    Some(args)
}

fn folders(edits: &ContainerEdits) -> Vec<String> {
    let mut folders: Vec<String> = Vec::new();
    for mount in &edits.mounts {
        let Some((dir, name)) = mount.container_path.rsplit_once('/') else {
            continue;
        };
        if common::is_loaded_by_name(name) && !folders.iter().any(|folder| folder == dir) {
            folders.push(dir.to_owned());
        }
    }
    folders
}
