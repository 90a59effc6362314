//! A Tegra board as its support package leaves it: lists of files for containers, the SoC's name, nodes and libraries.

use crate::node::Node;

/// Where libraries of the board lie.
const LIBRARIES: &str = "usr/lib/aarch64-linux-gnu/tegra";

/// A file of the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocFile {
    /// Text.
    Text {
        /// Path below the root.
        path: String,
        /// Content.
        text: String,
    },
    /// A library with this SONAME.
    Library {
        /// Path below the root.
        path: String,
        /// SONAME.
        soname: String,
    },
    /// A symbolic link.
    Link {
        /// Path below the root.
        path: String,
        /// Target.
        target: String,
    },
}

/// Nodes of an Orin: name, major, minor (dynamic on a board).
const NODES: [(&str, u32, u32); 9] = [
    ("nvhost-gpu", 505, 4),
    ("nvhost-ctrl-gpu", 505, 3),
    ("nvhost-as-gpu", 505, 1),
    ("nvhost-dbg-gpu", 505, 2),
    ("nvhost-prof-gpu", 505, 5),
    ("nvmap", 10, 118),
    ("nvidiactl", 195, 255),
    ("nvidia0", 195, 0),
    ("nvidia-modeset", 195, 254),
];

/// Libraries: file, SONAME.
const FILES: [(&str, &str); 5] = [
    ("libcuda.so.1.1", "libcuda.so.1"),
    ("libnvrm_gpu.so", "libnvrm_gpu.so"),
    ("libnvrm_mem.so", "libnvrm_mem.so"),
    ("libnvos.so", "libnvos.so"),
    (
        "libnvidia-ptxjitcompiler.so.36.3.0",
        "libnvidia-ptxjitcompiler.so.1",
    ),
];

/// The board's nodes, the GPU's own left out.
#[must_use]
pub fn soc_nodes() -> Vec<Node> {
    NODES
        .iter()
        .filter(|(name, ..)| *name != "nvidia0")
        .map(|(name, major, minor)| Node::new(*name, *major, *minor))
        .collect()
}

/// The board's files.
#[must_use]
pub fn soc_files() -> Vec<SocFile> {
    let text = |path: &str, text: String| SocFile::Text {
        path: path.to_owned(),
        text,
    };
    let lists = "etc/nvidia-container-runtime/host-files-for-container.d";
    let devices = NODES.iter().map(|(name, ..)| format!("dev, /dev/{name}\n"));
    let libraries = FILES
        .iter()
        .map(|(file, _)| format!("lib, /{LIBRARIES}/{file}\n"))
        .chain([
            format!("sym, /{LIBRARIES}/libcuda.so\n"),
            format!("sym, /{LIBRARIES}/libcuda.so.1\n"),
            "dir, /usr/share/nvidia-tegra\n".to_owned(),
        ]);
    let mut out = vec![
        text("etc/nv_tegra_release", "# R36 (release), REVISION: 3.0, GCID: 36191598, BOARD: generic, EABI: aarch64, DATE: Mon May  6 17:34:21 UTC 2024\n".to_owned()),
        text("sys/devices/soc0/family", "Tegra\n".to_owned()),
        text("sys/devices/soc0/machine", "NVIDIA Jetson AGX Orin Developer Kit\n".to_owned()),
        text("sys/devices/soc0/soc_id", "35\n".to_owned()),
        text("proc/device-tree/compatible", "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0".to_owned()),
        text("usr/share/nvidia-tegra/readme", "simulated board\n".to_owned()),
        text(&format!("{lists}/devices.csv"), devices.collect()),
        text(&format!("{lists}/drivers.csv"), libraries.collect()),
    ];
    out.extend(FILES.iter().map(|(file, soname)| SocFile::Library {
        path: format!("{LIBRARIES}/{file}"),
        soname: (*soname).to_owned(),
    }));
    for (link, target) in [
        ("libcuda.so.1", "libcuda.so.1.1"),
        ("libcuda.so", "libcuda.so.1.1"),
    ] {
        out.push(SocFile::Link {
            path: format!("{LIBRARIES}/{link}"),
            target: target.to_owned(),
        });
    }
    out
}
