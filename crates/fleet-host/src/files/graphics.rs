//! The graphics stack's libraries with numbers of their own, and modules of the X server.

use std::collections::BTreeSet;

use fleet_rootfs::root::clean;

use super::libraries::pattern;
use super::search::{Dir, followed};
use super::{DriverFiles, File, Link, Places};

/// Platform libraries of EGL.
const EGL: [&str; 5] = [
    "libnvidia-egl-gbm.so.*.*",
    "libnvidia-egl-wayland.so.*.*",
    "libnvidia-egl-wayland2.so.*.*",
    "libnvidia-egl-xcb.so.*.*",
    "libnvidia-egl-xlib.so.*.*",
];

pub(super) fn find(places: &Places<'_>, dirs: &[Dir<'_>], files: &mut DriverFiles) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for library in &files.libraries {
        seen.insert(library.file.host.clone());
    }
    for name in EGL.map(pattern) {
        for dir in dirs {
            for path in dir.matching(&name) {
                let file = dir.library(&path, &mut files.warnings);
                files
                    .graphics
                    .extend(file.filter(|file| seen.insert(file.host.clone())));
            }
        }
    }
    files.xorg = xorg(places, &files.library_dirs, &files.version);
    let libraries = files.libraries.iter().map(|library| &library.file);
    let links = libraries.chain(&files.xorg);
    files.graphics_links = links
        .filter_map(|file| link(file, &files.version))
        .collect();
}

/// The link elsewhere than beside a library, or that no SONAME tells.
fn link(file: &File, version: &str) -> Option<Link> {
    let name = file.name();
    let (target, link) = match name.strip_suffix(version)? {
        "libnvidia-allocator.so." => ("../libnvidia-allocator.so.1", "gbm/nvidia-drm_gbm.so"),
        "libnvidia-vulkan-producer.so." => (name, "libnvidia-vulkan-producer.so"),
        "libglxserver_nvidia.so." => (name, "libglxserver_nvidia.so"),
        _ => return None,
    };
    Some(Link {
        target: target.to_owned(),
        link: format!("{}/{link}", file.dir().trim_end_matches('/')),
    })
}

/// Below a directory of libraries.
const NEAR: [&str; 5] = [
    "nvidia/xorg",
    "xorg/modules/drivers",
    "xorg/modules/extensions",
    "xorg/modules/updates/drivers",
    "xorg/modules/updates/extensions",
];

/// Where distributions put modules.
const USUAL: [&str; 4] = [
    "/usr/lib/xorg/modules",
    "/usr/lib64/xorg/modules",
    "/usr/X11R6/lib/modules",
    "/usr/X11R6/lib64/modules",
];

/// The first of each module, beside the libraries rather than where distributions put modules.
fn xorg(places: &Places<'_>, library_dirs: &[String], version: &str) -> Vec<File> {
    let near = library_dirs
        .iter()
        .flat_map(|dir| NEAR.map(|below| format!("{dir}/{below}")));
    let usual = USUAL.iter().flat_map(|dir| {
        [
            "drivers",
            "extensions",
            "updates/drivers",
            "updates/extensions",
        ]
        .map(|below| format!("{dir}/{below}"))
    });
    let dirs: Vec<String> = near.chain(usual).collect();
    let glx = format!("libglxserver_nvidia.so.{version}");
    let found = ["nvidia_drv.so", &glx].into_iter().filter_map(|name| {
        let paths = dirs.iter().map(|dir| clean(&format!("{dir}/{name}")));
        let mut paths = paths.filter(|path| places.driver.is_file(path));
        followed(places.driver, &paths.next()?)
    });
    found.collect()
}
