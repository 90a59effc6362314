//! Writes inside a container's root by descriptor: what `nvidia-cdi-hook` and `ldconfig` do today, as our own code.
//!
//! The root is given as a descriptor; every lookup stays below it ([`root`]), since the image decides what lies there.
//! No program is run, and no path of the host is opened.

mod chmod;
mod compat;
pub mod elf;
mod error;
mod hook;
pub mod ldcache;
mod ldconf;
mod ldupdate;
mod libraries;
mod merge;
mod musl;
#[cfg(test)]
mod noise;
mod params;
mod profile;
pub mod root;
mod symlink;
mod sys;
mod view;

use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};

pub use error::ApplyError;
pub use hook::{
    HookArgsError, HookProgram, NO_MEMORY_LIMITS, STATE_FLAGS, asks_for_memory_limits, hook_args,
    recognise,
};
pub use params::covered_parameters;
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
    /// `create-soname-symlinks`: the links by which programs ask for the libraries of these directories.
    SonameLinks {
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

/// Makes all changes, in order; what the loader is told comes last and once, so that it sees the links and the compat
/// decision. Changes that are there already are left: a container may be started again with the same edits.
///
/// # Errors
/// The first change that failed; those before it stay.
pub fn apply(root: BorrowedFd<'_>, edits: &[RootfsEdit]) -> Result<Applied, ApplyError> {
    apply_in(&Root::new(root), edits)
}

/// As [`apply`], for the root of another runtime's container, which that runtime may have made read-only already: the
/// files are then changed through a view of the same mounts that is ours alone.
///
/// # Errors
/// As [`apply`].
pub fn apply_below(root: BorrowedFd<'_>, edits: &[RootfsEdit]) -> Result<Applied, ApplyError> {
    let Some(view) = view::writable(root) else {
        return apply(root, edits);
    };
    // A mount made in the view would be seen by nobody.
    let (mounts, files): (Vec<_>, Vec<_>) = edits
        .iter()
        .cloned()
        .partition(|edit| *edit == RootfsEdit::DisableDeviceNodeModification);
    let mut done = apply(view.as_fd(), &files)?;
    done.notes.extend(apply(root, &mounts)?.notes);
    Ok(done)
}

/// As [`apply`], for a root that is looked up in a chosen way.
///
/// # Errors
/// As [`apply`].
#[doc(hidden)]
pub fn apply_in(root: &Root<'_>, edits: &[RootfsEdit]) -> Result<Applied, ApplyError> {
    let mut done = Applied::default();
    let mut loader = ldupdate::Wanted::default();
    let mut links = symlink::Links::default();
    for edit in edits {
        match edit {
            RootfsEdit::Symlink { target, link } => {
                links.make(root, target, link)?;
            }
            RootfsEdit::UpdateLdCache { folders } => {
                loader
                    .folders
                    .get_or_insert_default()
                    .extend(folders.iter().cloned());
            }
            RootfsEdit::SonameLinks { folders } => {
                ldupdate::link_sonames(root, folders, &links.made, &mut done)?;
            }
            RootfsEdit::CudaCompat {
                host_driver_version,
                host_cuda_version,
                container_root,
            } => {
                let host = compat::Host {
                    driver: host_driver_version.as_deref(),
                    cuda: host_cuda_version.as_deref(),
                };
                let directory = compat::decide(root, &host, container_root.as_deref(), &mut done);
                // One that says yes is enough, as with several hooks upstream.
                let decided = loader.compat.take().flatten().or(directory);
                loader.compat = Some(decided);
            }
            RootfsEdit::DisableDeviceNodeModification => params::disable(root, &mut done)?,
            RootfsEdit::UpdateApplicationProfile => profile::update(root, &mut done)?,
            RootfsEdit::Chmod { mode, paths } => chmod::change(root, *mode, paths, &mut done)?,
        }
    }
    if loader.folders.is_some() || loader.compat.is_some() {
        loader.links = links.made;
        ldupdate::update(root, &loader, &mut done)?;
    }
    Ok(done)
}
