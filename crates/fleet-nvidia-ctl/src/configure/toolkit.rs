//! NVIDIA's own toolkit on the same node.

use std::path::{Path, PathBuf};

use super::{Remark, Site};
use crate::files::Files;

/// Programs by which it is known: packages, then the GPU operator's installer.
const PROGRAMS: [&str; 5] = [
    "/usr/bin/nvidia-container-runtime",
    "/usr/bin/nvidia-container-runtime-hook",
    "/usr/bin/nvidia-ctk",
    "/usr/local/nvidia/toolkit/nvidia-container-runtime",
    "/usr/local/bin/nvidia-container-runtime",
];

/// Its runtime or tool, if it is installed.
pub(crate) fn installed(files: &Files) -> Option<PathBuf> {
    PROGRAMS
        .iter()
        .map(PathBuf::from)
        .find(|path| files.is_program(path))
}

/// Two toolkits are no fault, but their user should know which one serves whom.
pub(super) fn remark(site: &Site) -> Option<Remark> {
    let theirs = installed(&site.files)?;
    let ours = Path::new(&site.program);
    Some(Remark::Note(format!(
        "two toolkits are installed: {} (NVIDIA's) and {}; a container is served by the one that its runtime name belongs to, `{}` is this one's",
        theirs.display(),
        ours.display(),
        site.name
    )))
}
