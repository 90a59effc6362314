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
    let store = store(&machine.driver, &mut found.warnings)?;
    let dxcore = [DXCORE.to_owned()].into_iter();
    let needed = dxcore.chain(NEEDED.iter().map(|name| format!("{store}/{name}")));
    let needed: Vec<File> = needed
        .filter_map(|path| file(&machine.driver, &path))
        .collect();
    let further = FURTHER
        .iter()
        .flat_map(|pattern| machine.driver.glob(&format!("{store}/{pattern}")));
    let further: Vec<File> = further
        .filter_map(|path| file(&machine.driver, &path))
        .filter(|file| !needed.contains(file))
        .collect();
    add_files(&mut found.common, needed.iter().chain(&further));
    let smi = needed
        .iter()
        .find(|file| file.name() == SMI)
        .map(|file| Link {
            target: file.container.clone(),
            link: format!("/usr/bin/{SMI}"),
        });
    found.common.hooks.extend(hooks.create_symlinks(smi.iter()));
    found
        .common
        .hooks
        .extend(hooks.update_ldcache(&folders(&needed)));
    Ok(found)
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
