//! Trees that are no PC with the driver: WSL's driver store and a Tegra board.

use fleet_sim_machine::{SocFile, soc_files};

use crate::elf;
use crate::files::Entry;

/// The driver store's directory of this driver; the end of the name is a hash of the package.
pub(crate) const STORE: &str = "usr/lib/wsl/drivers/nv_dispi.inf_amd64_7e5fd280efaa5445";
/// What Windows puts on the loader's path.
pub(crate) const WSL_LIB: &str = "usr/lib/wsl/lib";

/// Files of the driver store: name, SONAME.
const STORE_LIBRARIES: [(&str, &str); 6] = [
    ("libcuda.so.1.1", "libcuda.so.1"),
    ("libcuda_loader.so", "libcuda_loader.so"),
    (
        "libnvidia-ptxjitcompiler.so.1",
        "libnvidia-ptxjitcompiler.so.1",
    ),
    ("libnvidia-ml_loader.so", "libnvidia-ml_loader.so"),
    ("libnvdxgdmal.so.1", "libnvdxgdmal.so.1"),
    ("libnvwgf2umx.so", "libnvwgf2umx.so"),
];

/// WSL, NVML left out.
pub(crate) fn wsl_files() -> Vec<Entry> {
    let mut out: Vec<Entry> = STORE_LIBRARIES
        .iter()
        .map(|(file, soname)| Entry::installed(format!("{STORE}/{file}"), elf::library(soname)))
        .collect();
    out.push(Entry::installed(
        format!("{STORE}/nvcubins.bin"),
        "simulated cubins\n",
    ));
    for (file, soname) in [
        ("libdxcore.so", "libdxcore.so"),
        ("libd3d12.so", "libd3d12.so"),
        ("libd3d12core.so", "libd3d12core.so"),
        ("libcuda.so.1", "libcuda.so.1"),
    ] {
        out.push(Entry::installed(
            format!("{WSL_LIB}/{file}"),
            elf::library(soname),
        ));
    }
    out
}

/// A Tegra board.
pub(crate) fn tegra_files() -> Vec<Entry> {
    soc_files()
        .into_iter()
        .map(|file| match file {
            SocFile::Text { path, text } => Entry::installed(path, text),
            SocFile::Library { path, soname } => Entry::installed(path, elf::library(&soname)),
            SocFile::Link { path, target } => Entry::link(path, target),
        })
        .collect()
}
