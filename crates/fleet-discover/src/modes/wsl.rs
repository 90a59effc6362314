//! The Windows Subsystem for Linux: one node for all GPUs, and the driver in a store of Windows.

use fleet_host::Tree;
use fleet_host::files::{File, Link};

use super::{device_of, nothing};
use crate::Found;
use crate::edits::add_files;
use crate::error::DiscoverError;
use crate::hooks::Hooks;
use crate::machine::Machine;
use crate::options::{Mode, Options};

const NODE: &str = "/dev/dxg";
const DXCORE: &str = "/usr/lib/wsl/lib/libdxcore.so";
/// One directory per driver package that Windows has installed.
const STORES: &str = "/usr/lib/wsl/drivers/*/libcuda.so.1.1";
const SMI: &str = "nvidia-smi";

/// What CUDA needs of a store; the loader is told of these.
const NEEDED: [&str; 8] = [
    "libcuda.so.1.1",
    "libcuda_loader.so",
    "libnvidia-ptxjitcompiler.so.1",
    "libnvidia-ml.so.1",
    "libnvidia-ml_loader.so",
    "libnvdxgdmal.so.1",
    "nvcubins.bin",
    SMI,
];

/// Whatever else new drivers put there.
const FURTHER: [&str; 3] = ["*.so*", "*.bin", "*.dll"];

pub(super) fn is_wsl(machine: &Machine) -> bool {
    machine.driver.is_file(DXCORE) && machine.dev.exists(NODE)
}

pub(super) fn find(machine: &Machine, options: &Options) -> Result<Found, DiscoverError> {
    let hooks = Hooks::new(&options.hooks, &[]);
    let device = device_of(machine, &[NODE], options).ok_or_else(|| {
        nothing(
            Mode::Wsl,
            format!("there is no {}", machine.dev.host(NODE)),
            None,
        )
    })?;
    let mut found = Found {
        devices: vec![device],
        ..Found::default()
    };
    let (needed, further) = files(&machine.driver, &mut found.warnings)?;
    add_files(&mut found.common, needed.iter().chain(&further));
    let smi = needed.iter().find(|file| file.name() == SMI);
    let smi = smi.map(|file| Link {
        target: file.container.clone(),
        link: format!("/usr/bin/{SMI}"),
    });
    let links = hooks.create_symlinks(smi.iter());
    let loader = hooks.update_ldcache(&folders(&needed));
    found.common.hooks.extend(links.into_iter().chain(loader));
    Ok(found)
}

/// What is needed, and what else the store has.
fn files(tree: &Tree, warnings: &mut Vec<String>) -> Result<(Vec<File>, Vec<File>), DiscoverError> {
    let store = store(tree, warnings)?;
    let dxcore = [DXCORE.to_owned()].into_iter();
    let needed = dxcore.chain(NEEDED.iter().map(|name| format!("{store}/{name}")));
    let needed: Vec<File> = needed.filter_map(|path| file(tree, &path)).collect();
    let further = FURTHER.iter();
    let further = further.flat_map(|pattern| tree.glob(&format!("{store}/{pattern}")));
    let further = further.filter_map(|path| file(tree, &path));
    let further = further.filter(|file| !needed.contains(file)).collect();
    Ok((needed, further))
}

/// As it is named: the store's path is the same in a container, and what lies there has no links.
fn file(tree: &Tree, path: &str) -> Option<File> {
    tree.is_file(path).then(|| File {
        host: tree.host(path),
        container: path.to_owned(),
    })
}

fn folders(files: &[File]) -> Vec<String> {
    let libraries = files.iter().filter(|file| file.name().starts_with("lib"));
    // The store's libraries are found before those of the system.
    let (system, store): (Vec<_>, Vec<_>) = libraries.partition(|file| file.container == DXCORE);
    let libraries = store.into_iter().chain(system);
    let mut folders: Vec<String> = Vec::new();
    for file in libraries {
        if !folders.iter().any(|folder| folder == file.dir()) {
            folders.push(file.dir().to_owned());
        }
    }
    folders
}

/// The newest store with a CUDA library: Windows keeps those of replaced drivers.
fn store(tree: &Tree, warnings: &mut Vec<String>) -> Result<String, DiscoverError> {
    let mut found: Vec<_> = tree
        .glob(STORES)
        .into_iter()
        .filter(|path| tree.is_file(path))
        .collect();
    found.sort_by_key(|path| {
        tree.file(path)
            .and_then(|file| file.metadata()?.modified())
            .ok()
    });
    let dir = |path: &String| path.rsplit_once('/').map_or("/", |(dir, _)| dir).to_owned();
    let newest = found.pop().ok_or_else(|| {
        let why = format!("there is no {}", tree.host(STORES));
        nothing(
            Mode::Wsl,
            why,
            Some("install NVIDIA's driver for WSL on Windows"),
        )
    })?;
    if !found.is_empty() {
        let others: Vec<_> = found.iter().map(|path| tree.host(&dir(path))).collect();
        warnings.push(format!(
            "the newest driver store, {}, is taken; there are others: {}",
            tree.host(&dir(&newest)),
            others.join(", ")
        ));
    }
    Ok(dir(&newest))
}
