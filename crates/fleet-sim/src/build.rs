//! Building the tree of a simulated node.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::libraries::{DRIVER, FILES, LIBDIR, OTHER, PROGRAMS};
use crate::machine::Machine;
use crate::{elf, nodes};

/// A node that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// No such machine.
    #[error("machine `{name}`: {why}")]
    Machine {
        /// Preset or file.
        name: String,
        /// The cause.
        why: String,
    },
    /// Too few devices to borrow.
    #[error(
        "{wanted} device nodes that open are needed, this kernel offers {found}; hint: nodes are made by root, with CAP_MKNOD"
    )]
    Nodes {
        /// Nodes needed.
        wanted: usize,
        /// Nodes found.
        found: usize,
    },
    /// A file of ours is missing.
    #[error("`{0}` is missing; hint: build it with `cargo build -p fleet-sim -p fleet-sim-nvml`")]
    Missing(PathBuf),
    /// A file could not be made.
    #[error("make `{}`: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Where the machine description lies, in the tree and in a container.
pub(crate) const MACHINE_FILE: &str = "usr/share/nvidia/fleet-sim-machine.json";

/// Builds the driver tree and device nodes below `root`; `programs` holds `nvidia-smi` and `libnvidia_ml.so`.
/// Returns the machine with the device numbers that were taken.
///
/// # Errors
/// [`SimError`].
pub fn create(mut machine: Machine, root: &Path, programs: &Path) -> Result<Machine, SimError> {
    let dev = root.join("dev");
    make_dir(&dev)?;
    nodes::borrow(&mut machine, &dev.join(".probe"))?;
    for node in machine
        .gpus
        .iter()
        .map(|gpu| &gpu.node)
        .chain(&machine.control)
    {
        nodes::make(&dev, node)?;
    }
    make_libraries(&machine, root, programs)?;
    for name in PROGRAMS {
        write(
            root,
            &format!("usr/bin/{name}"),
            b"#!/bin/sh\necho \"$0: simulated node\"\n",
            0o755,
        )?;
    }
    copy(
        &programs.join("nvidia-smi"),
        &root.join("usr/bin/nvidia-smi"),
    )?;
    for (path, content) in FILES {
        write(root, path, content.as_bytes(), 0o644)?;
    }
    for name in ["gsp_ga10x.bin", "gsp_tu10x.bin"] {
        write(
            root,
            &format!("lib/firmware/nvidia/{}/{name}", machine.driver_version),
            b"simulated firmware\n",
            0o644,
        )?;
    }
    make_proc(&machine, root)?;
    let description = serde_json::to_vec_pretty(&machine).map_err(|err| SimError::Machine {
        name: "description".to_owned(),
        why: err.to_string(),
    })?;
    write(root, MACHINE_FILE, &description, 0o644)?;
    Ok(machine)
}

fn make_libraries(machine: &Machine, root: &Path, programs: &Path) -> Result<(), SimError> {
    let version = &machine.driver_version;
    for library in DRIVER {
        let file = format!("{}.so.{version}", library.name);
        let soname = if library.soname.is_empty() {
            file.clone()
        } else {
            format!("{}.so.{}", library.name, library.soname)
        };
        if library.name == "libnvidia-ml" {
            copy(
                &programs.join("libnvidia_ml.so"),
                &root.join(LIBDIR).join(&file),
            )?;
        } else {
            write(
                root,
                &format!("{LIBDIR}/{file}"),
                &elf::library(&soname),
                0o644,
            )?;
        }
        if !library.soname.is_empty() {
            link(root, &format!("{LIBDIR}/{soname}"), &file)?;
        }
        if library.plain {
            link(root, &format!("{LIBDIR}/{}.so", library.name), &soname)?;
        }
    }
    write(
        root,
        &format!("{LIBDIR}/vdpau/libvdpau_nvidia.so.{version}"),
        &elf::library("libvdpau_nvidia.so.1"),
        0o644,
    )?;
    link(
        root,
        &format!("{LIBDIR}/vdpau/libvdpau_nvidia.so.1"),
        &format!("libvdpau_nvidia.so.{version}"),
    )?;
    for (file, soname) in OTHER {
        write(
            root,
            &format!("{LIBDIR}/{file}"),
            &elf::library(soname),
            0o644,
        )?;
        link(root, &format!("{LIBDIR}/{soname}"), file)?;
    }
    Ok(())
}

fn make_proc(machine: &Machine, root: &Path) -> Result<(), SimError> {
    let version = format!(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n",
        machine.driver_version
    );
    write(
        root,
        "proc/driver/nvidia/version",
        version.as_bytes(),
        0o444,
    )?;
    write(
        root,
        "proc/driver/nvidia/params",
        b"ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n",
        0o444,
    )?;
    for gpu in &machine.gpus {
        let text = format!(
            "Model: \t\t {}\nIRQ:   \t\t 16\nGPU UUID: \t {}\nBus Location: \t {}\nDevice Minor: \t {}\n",
            gpu.name, gpu.uuid, gpu.bus_id, gpu.minor
        );
        write(
            root,
            &format!("proc/driver/nvidia/gpus/{}/information", gpu.bus_id),
            text.as_bytes(),
            0o444,
        )?;
    }
    Ok(())
}

fn make_dir(path: &Path) -> Result<(), SimError> {
    fs::create_dir_all(path).map_err(|source| SimError::Io {
        path: path.to_path_buf(),
        source,
    })
}

fn write(root: &Path, path: &str, content: &[u8], mode: u32) -> Result<(), SimError> {
    let path = root.join(path);
    path.parent().map_or(Ok(()), make_dir)?;
    drop(fs::remove_file(&path));
    let failed = |source| SimError::Io {
        path: path.clone(),
        source,
    };
    fs::write(&path, content).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed)
}

fn copy(from: &Path, to: &Path) -> Result<(), SimError> {
    if !from.is_file() {
        return Err(SimError::Missing(from.to_path_buf()));
    }
    to.parent().map_or(Ok(()), make_dir)?;
    drop(fs::remove_file(to));
    fs::copy(from, to).map(drop).map_err(|source| SimError::Io {
        path: to.to_path_buf(),
        source,
    })
}

fn link(root: &Path, path: &str, target: &str) -> Result<(), SimError> {
    let path = root.join(path);
    drop(fs::remove_file(&path));
    symlink(target, &path).map_err(|source| SimError::Io {
        path: path.clone(),
        source,
    })
}
