//! What every container with a device of a spec gets.

use fleet_cdi::ContainerEdits;
use fleet_host::files::{DriverFiles, File, Library};

use crate::edits::{add_files, add_node, add_sockets};
use crate::hooks::Hooks;
use crate::machine::Machine;
use crate::options::Features;

/// Keeps a legacy hook, or a runtime inside the container, from injecting once more.
pub(crate) const VOID: &str = "NVIDIA_VISIBLE_DEVICES=void";

/// Nodes of the driver that belong to no GPU.
pub(crate) const CONTROL: [&str; 4] = [
    "/dev/nvidia-modeset",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-uvm",
    "/dev/nvidiactl",
];

/// Adds the control nodes that are there; says which are not.
pub(crate) fn add_control(
    edits: &mut ContainerEdits,
    machine: &Machine,
    gids: bool,
) -> Vec<&'static str> {
    let missing = CONTROL.into_iter();
    missing
        .filter(|path| !add_node(edits, &machine.dev, path, gids))
        .collect()
}

/// Directories that the loader is told of: those of the libraries, but not of modules that only the X server loads.
fn folders(files: &DriverFiles) -> Vec<String> {
    let libraries = files.libraries.iter().chain(&files.compat32);
    let libraries = libraries.map(|library| &library.file);
    let mut folders: Vec<String> = Vec::new();
    for file in libraries.chain(&files.graphics) {
        let folder = file.dir().to_owned();
        if is_loaded_by_name(file.name()) && !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// `lib*.so`, with a number or without.
pub(crate) fn is_loaded_by_name(name: &str) -> bool {
    let end = name.rsplit_once(".so").map(|(_, end)| end);
    name.starts_with("lib") && end.is_some_and(|end| end.is_empty() || end.starts_with('.'))
}

fn library_files(libraries: &[Library]) -> impl Iterator<Item = &File> {
    libraries.iter().map(|library| &library.file)
}

/// Files of the driver with the hooks that make them usable, without the graphics stack.
pub(crate) fn add_driver(
    edits: &mut ContainerEdits,
    files: &DriverFiles,
    hooks: &Hooks<'_>,
    features: Features,
) {
    add_files(edits, library_files(&files.libraries));
    add_files(edits, library_files(&files.compat32));
    add_files(edits, files.programs.iter().chain(&files.firmware));
    if !features.no_sockets {
        add_sockets(edits, &files.sockets);
    }
    let libraries = files.libraries.iter().chain(&files.compat32);
    let links = libraries.flat_map(|library| &library.links);
    let version = format!("--host-driver-version={}", files.version);
    let written = [
        hooks.create_symlinks(links),
        hooks.enable_cuda_compat(vec![version]),
        hooks.update_ldcache(&folders(files)),
        hooks.plain("disable-device-node-modification"),
    ];
    edits.hooks.extend(written.into_iter().flatten());
    // Tells NVIDIA's hooks where the driver's CUDA library is.
    let dirs = files.library_dirs.join(":");
    edits.env.push(format!("NVIDIA_CTK_LIBCUDA_DIR={dirs}"));
}

/// The graphics stack.
pub(crate) fn add_graphics(edits: &mut ContainerEdits, files: &DriverFiles, hooks: &Hooks<'_>) {
    add_files(edits, files.graphics.iter().chain(&files.xorg));
    add_files(edits, files.graphics_programs.iter().chain(&files.configs));
    edits
        .hooks
        .extend(hooks.create_symlinks(files.graphics_links.iter()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_is_told_of_every_directory_with_libraries_once() {
        let file = |path: &str| File {
            host: path.to_owned(),
            container: path.to_owned(),
        };
        let library = |path: &str| Library {
            file: file(path),
            links: Vec::new(),
        };
        let files = DriverFiles {
            libraries: ["/a/libx.so.1.2", "/a/liby.so.1.2", "/b/nvidia_drv.so.1.2"]
                .map(library)
                .to_vec(),
            compat32: vec![library("/c/libx.so.1.2")],
            graphics: vec![file("/d/libnvidia-egl-gbm.so.1.1")],
            xorg: vec![file("/e/libglxserver_nvidia.so.1.2")],
            library_dirs: vec!["/a".to_owned(), "/b".to_owned()],
            ..DriverFiles::default()
        };
        assert_eq!(folders(&files), ["/a", "/c", "/d"]);
        let mut edits = ContainerEdits::default();
        let options = crate::HookOptions::default();
        let hooks = Hooks::new(&options, &[]);
        add_driver(&mut edits, &files, &hooks, Features::default());
        assert_eq!(edits.env, ["NVIDIA_CTK_LIBCUDA_DIR=/a:/b"]);
    }

    #[test]
    fn the_loader_is_told_of_libraries() {
        for (name, want) in [
            ("libcuda.so.550.54.15", true),
            ("libcuda.so", true),
            ("libx.so1", false),
            ("nvidia_drv.so", false),
            ("libcuda", false),
        ] {
            assert_eq!(is_loaded_by_name(name), want, "{name}");
        }
    }
}
