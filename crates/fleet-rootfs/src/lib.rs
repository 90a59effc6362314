//! Writes inside a container's root by descriptor: what `nvidia-cdi-hook` and `ldconfig` do today, as our own code.
//!
//! The root is given as a descriptor; every lookup stays below it (`openat2` with `RESOLVE_IN_ROOT`), since the image
//! decides what lies there. No program is run and no path of the host is opened but the kernel's own
//! `/proc/driver/nvidia/params`.

mod chmod;
mod compat;
mod elf;
mod hook;
pub mod ldcache;
mod ldconf;
mod ldupdate;
mod params;
mod profile;
pub mod root;
mod symlink;
mod sys;

use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

pub use hook::{HookArgsError, HookProgram, recognise};
use root::Root;

/// One change inside a container's root file system, done by our own code in place of a hook program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "edit")]
#[non_exhaustive]
pub enum RootfsEdit {
    /// `create-symlinks`: `link` (absolute in the container) points at `target` (literal text).
    Symlink {
        /// Text of the link.
        target: String,
        /// Where the link is made, absolute in the container.
        link: String,
    },
    /// `update-ldcache`: the loader finds the libraries of these directories.
    UpdateLdCache {
        /// Directories, absolute in the container.
        folders: Vec<String>,
    },
    /// `enable-cuda-compat`: the image's own newer `libcuda` is preferred where NVIDIA's rules allow it.
    CudaCompat {
        /// Driver version of the host, such as `550.54.15`.
        #[serde(default)]
        host_driver_version: Option<String>,
        /// CUDA version of the host, such as `12.4`.
        #[serde(default)]
        host_cuda_version: Option<String>,
        /// Directory in the container; `/usr/local/cuda/compat` when absent.
        #[serde(default)]
        container_root: Option<String>,
    },
    /// `disable-device-node-modification`: tools in the container make no device nodes.
    DisableDeviceNodeModification,
    /// `update-application-profile`: EGL and Vulkan see the container's GPUs only.
    UpdateApplicationProfile,
    /// `chmod`.
    Chmod {
        /// Permission bits.
        mode: u32,
        /// Paths, absolute in the container.
        paths: Vec<String>,
    },
}

/// What was done that a user may want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Decisions and things left undone, one sentence each.
    pub notes: Vec<String>,
}

/// A change that failed.
#[derive(Debug, thiserror::Error)]
#[error("{what} `{path}` in the container: {why}")]
pub struct ApplyError {
    /// What was tried, such as `make link`.
    pub what: String,
    /// Path in the container.
    pub path: String,
    /// The cause, by its errno name: its words would be read by engines as the container's own.
    pub why: String,
}

impl ApplyError {
    fn new(what: &str, path: &str, cause: &std::io::Error) -> Self {
        Self {
            what: what.to_owned(),
            path: path.to_owned(),
            why: errno_name(cause),
        }
    }
}

fn errno_name(err: &std::io::Error) -> String {
    let name = err
        .raw_os_error()
        .map(|code| format!("{:?}", nix::errno::Errno::from_raw(code)));
    match name.as_deref() {
        Some("EROFS") => {
            "the file system is read-only (EROFS); hint: mount a tmpfs there".to_owned()
        }
        Some("ENOSPC") => "no space is left (ENOSPC)".to_owned(),
        Some(name) => name.to_owned(),
        None => err.to_string().to_lowercase(),
    }
}

/// Makes all changes, in order; the loader's cache comes last, so that it sees the links made before it.
///
/// # Errors
/// The first change that failed.
pub fn apply(root: BorrowedFd<'_>, edits: &[RootfsEdit]) -> Result<Applied, ApplyError> {
    let root = Root::new(root);
    let mut done = Applied::default();
    let mut folders: Vec<String> = Vec::new();
    let mut update_cache = false;
    for edit in edits {
        match edit {
            RootfsEdit::Symlink { target, link } => symlink::make(&root, target, link)?,
            RootfsEdit::UpdateLdCache { folders: more } => {
                update_cache = true;
                for folder in more {
                    if !folders.contains(folder) {
                        folders.push(folder.clone());
                    }
                }
            }
            RootfsEdit::CudaCompat {
                host_driver_version,
                host_cuda_version,
                container_root,
            } => {
                let versions = compat::Host {
                    driver: host_driver_version.as_deref(),
                    cuda: host_cuda_version.as_deref(),
                };
                compat::enable(&root, &versions, container_root.as_deref(), &mut done)?;
            }
            RootfsEdit::DisableDeviceNodeModification => params::disable(&root, &mut done)?,
            RootfsEdit::UpdateApplicationProfile => profile::update(&root, &mut done)?,
            RootfsEdit::Chmod { mode, paths } => chmod::change(&root, *mode, paths)?,
        }
    }
    if update_cache {
        ldupdate::update(&root, &folders, &mut done)?;
    }
    Ok(done)
}
