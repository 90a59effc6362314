//! Programs, firmware, sockets and configuration.

use std::collections::BTreeSet;

use super::libraries::literal;
use super::search::{followed, split};
use super::{DriverFiles, File, Places};
use crate::tree::Tree;

/// Programs of the driver.
const PROGRAMS: [&str; 7] = [
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-imex",
    "nvidia-imex-ctl",
];

/// Below `/usr/share` in a container, wherever the host has them.
const SHARED: [&str; 9] = [
    "glvnd/egl_vendor.d/10_nvidia.json",
    "egl/egl_external_platform.d/15_nvidia_gbm.json",
    "egl/egl_external_platform.d/10_nvidia_wayland.json",
    "egl/egl_external_platform.d/09_nvidia_wayland2.json",
    "egl/egl_external_platform.d/20_nvidia_xcb.json",
    "egl/egl_external_platform.d/20_nvidia_xlib.json",
    "nvidia/nvoptix.bin",
    "X11/xorg.conf.d/10-nvidia.conf",
    "X11/xorg.conf.d/nvidia-drm-outputclass.conf",
];

/// Below `/etc` in a container.
const OPENCL: &str = "OpenCL/vendors/nvidia.icd";

/// Below `/etc` in a container; at the root of some driver containers.
const VULKAN: [&str; 3] = [
    "vulkan/icd.d/nvidia_icd.json",
    "vulkan/icd.d/nvidia_layers.json",
    "vulkan/implicit_layer.d/nvidia_layers.json",
];

/// What some RPM packages call the first of these, by architecture.
const VULKAN_ICD: &str = match cfg!(target_arch = "aarch64") {
    true => "vulkan/icd.d/nvidia_icd.aarch64.json",
    false => "vulkan/icd.d/nvidia_icd.x86_64.json",
};

pub(super) fn find(places: &Places<'_>, files: &mut DriverFiles) {
    files.programs = programs(places, &PROGRAMS);
    files.graphics_programs = programs(places, &["nvidia-xconfig"]);
    files.firmware = firmware(places, &files.version);
    files.sockets = sockets(places.driver, &mut files.warnings);
    files.configs = configs(places);
}

fn programs(places: &Places<'_>, names: &[&str]) -> Vec<File> {
    let found = names.iter().filter_map(|name| {
        let paths = places
            .program_dirs
            .iter()
            .map(|dir| format!("{dir}/{name}"));
        let mut paths = paths.filter(|path| places.driver.is_program(path));
        followed(places.driver, &paths.next()?)
    });
    found.collect()
}

fn firmware(places: &Places<'_>, version: &str) -> Vec<File> {
    let mut found: Vec<File> = Vec::new();
    for dir in &places.firmware_dirs {
        let pattern = format!("{dir}/nvidia/{}/gsp*.bin", literal(version));
        for path in places.driver.glob(&pattern) {
            if places.driver.is_file(&path) {
                found.extend(followed(places.driver, &path));
            }
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|file| seen.insert(file.container.clone()));
    found
}

/// Of the persistence daemon, the fabric manager and MPS.
fn sockets(driver: &Tree, warnings: &mut Vec<String>) -> Vec<File> {
    let mut found = Vec::new();
    for name in ["nvidia-persistenced/socket", "nvidia-fabricmanager/socket"] {
        let paths = ["/run", "/var/run"].map(|dir| format!("{dir}/{name}"));
        let path = paths.into_iter().find(|path| driver.is_file(path));
        found.extend(path.and_then(|path| followed(driver, &path)));
    }
    if driver.exists(MPS) {
        match driver.is_roots_directory(MPS) {
            true => found.extend(followed(driver, MPS)),
            false => warnings.push(format!(
                "{} is left out: it is not a directory of root's, and anybody can make such a name in there",
                driver.host(MPS)
            )),
        }
    }
    found
}

/// Pipes of MPS. It is mounted writable, and `/tmp` is everybody's: a link to `/etc` would be mounted as well.
const MPS: &str = "/tmp/nvidia-mps";

fn configs(places: &Places<'_>) -> Vec<File> {
    let mut found: Vec<File> = Vec::new();
    let shared = SHARED.iter().map(|name| (*name, "/usr/share", false));
    let vulkan = VULKAN.iter().chain([&VULKAN_ICD]);
    let vulkan = vulkan.map(|name| (*name, "/etc", true));
    for (name, container, at_root) in shared.chain([(OPENCL, "/etc", false)]).chain(vulkan) {
        let Some(host) = config(places, name, at_root) else {
            continue;
        };
        // One file of the host goes to one place.
        if !found.iter().any(|known| known.host == host) {
            found.push(File {
                host,
                container: format!("{container}/{name}"),
            });
        }
    }
    found
}

fn config(places: &Places<'_>, name: &str, at_root: bool) -> Option<String> {
    let usual = || {
        let etc = ["/etc".to_owned()].into_iter();
        let dirs = etc.chain(places.data_dirs.iter().cloned());
        dirs.map(|dir| (places.driver, dir)).collect::<Vec<_>>()
    };
    let mut dirs = match places.config_dirs.as_slice() {
        [] => usual(),
        given => given.iter().map(|dir| split(places, dir)).collect(),
    };
    if at_root {
        dirs.push((places.driver, String::new()));
    }
    dirs.iter().find_map(|(tree, dir)| {
        let path = format!("{dir}/{name}");
        let found = tree.is_file(&path).then(|| followed(tree, &path))?;
        found.map(|file| file.host)
    })
}
