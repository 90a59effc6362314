//! Building the tree of a simulated node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fleet_sim_machine::{Machine, MachineError, Platform};

use crate::files::{Entry, copy, io_error, make_dir, socket, write};
use crate::installed::Installed;
use crate::libraries::LIBDIR;
use crate::nodes::{self, Numbers};
use crate::platform::{STORE, WSL_LIB};
use crate::{proc_files, sys_files};

/// A node that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// No such machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Too few devices to borrow.
    #[error(
        "{wanted} device nodes that open are needed, this kernel offers {found}; hint: nodes are made by root, with CAP_MKNOD; nodes that do not open need no offer"
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
    /// Not a tree of ours.
    #[error("`{0}` holds no simulated node; hint: give the directory that `create` was given")]
    NoTree(PathBuf),
    /// Not a PC with the driver.
    #[error(
        "`{0}` has no CDI spec to write; hint: --cdi is for nodes with the NVIDIA driver, not for WSL and Tegra"
    )]
    NoSpec(String),
    /// Not a driver.
    #[error(
        "no driver files are below `{0}`; hint: unpack its packages there, libraries in usr/lib/x86_64-linux-gnu"
    )]
    NoDriver(PathBuf),
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
/// Stands between the library's code and the description that it carries.
const MARK: &[u8] = b"\nfleet-sim-machine\n";
/// What the tree consists of, at its top.
const TOP: [&str; 9] = [
    "dev", "proc", "sys", "etc", "usr", "lib", "run", "devices", "enter",
];
/// Runs a command with the tree in the machine's place.
const ENTER: &str = include_str!("enter.sh");

/// How a tree is to be built.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Holds the simulated `nvidia-smi` and `libnvidia_ml.so`.
    pub programs: PathBuf,
    /// Numbers of the device nodes.
    pub numbers: Numbers,
    /// What the driver's packages install.
    pub installed: Installed,
}

/// Builds the driver tree and device nodes below `root`. Returns the machine with the device numbers that were taken.
///
/// # Errors
/// [`SimError`].
pub fn create(mut machine: Machine, root: &Path, plan: &Plan) -> Result<Machine, SimError> {
    let mut entries = proc_files(&machine);
    entries.extend(sys_files(&machine));
    make_dir(&root.join("dev"))?;
    if plan.numbers == Numbers::Borrowed {
        nodes::borrow(&mut machine, &root.join("dev/.probe"))?;
    }
    nodes::make_all(&machine, root, plan.numbers)?;
    let description = description(&machine)?;
    entries.push(Entry::installed(MACHINE_FILE, description.clone()));
    if machine.platform == Platform::Native {
        entries.push(Entry::File {
            path: "enter".to_owned(),
            content: ENTER.into(),
            mode: 0o755,
        });
    }
    let installed = plan.installed.entries.iter();
    entries
        .iter()
        .chain(installed)
        .try_for_each(|entry| entry.make(root))?;
    install_ours(&machine, root, plan, &description)?;
    for (wanted, name) in [
        (machine.persistenced, "run/nvidia-persistenced/socket"),
        (machine.fabricmanager, "run/nvidia-fabricmanager/socket"),
    ] {
        if wanted {
            socket(&root.join(name))?;
        }
    }
    Ok(machine)
}

/// Removes what [`create`] made, and nothing else that lies in the directory.
///
/// # Errors
/// The directory is no simulated node, or cannot be removed.
pub fn remove(root: &Path) -> Result<(), SimError> {
    if !root.join(MACHINE_FILE).is_file() || root == Path::new("/") {
        return Err(SimError::NoTree(root.to_path_buf()));
    }
    for name in TOP {
        let path = root.join(name);
        let done = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        match done {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(io_error(&path)(err)),
            _ => {}
        }
    }
    match fs::remove_dir(root) {
        Err(err) if err.kind() != io::ErrorKind::DirectoryNotEmpty => Err(io_error(root)(err)),
        _ => Ok(()),
    }
}

fn description(machine: &Machine) -> Result<Vec<u8>, SimError> {
    serde_json::to_vec_pretty(machine).map_err(|err| {
        SimError::Machine(MachineError {
            name: "description".to_owned(),
            why: err.to_string(),
        })
    })
}

/// NVML and the program that asks it. The library carries the description, so that it is at hand wherever a CDI spec
/// mounts the library.
fn install_ours(
    machine: &Machine,
    root: &Path,
    plan: &Plan,
    description: &[u8],
) -> Result<(), SimError> {
    let library = plan.programs.join("libnvidia_ml.so");
    let program = plan.programs.join("nvidia-smi");
    let carried = [MARK, description].concat();
    match machine.platform {
        Platform::Native => {
            let file = format!("{LIBDIR}/libnvidia-ml.so.{}", machine.driver_version);
            copy(&library, &root.join(file), &carried)?;
            if plan.installed.has_smi {
                return Ok(());
            }
            copy(&program, &root.join("usr/bin/nvidia-smi"), &[])
        }
        Platform::Wsl => [STORE, WSL_LIB].iter().try_for_each(|dir| {
            copy(
                &library,
                &root.join(dir).join("libnvidia-ml.so.1"),
                &carried,
            )?;
            copy(&program, &root.join(dir).join("nvidia-smi"), &[])
        }),
        Platform::Tegra => Ok(()),
    }
}

/// Writes text to a file outside the tree, such as a CDI spec.
///
/// # Errors
/// The file or its directory cannot be made.
pub fn write_file(path: &Path, text: &str) -> Result<(), SimError> {
    write(path, text.as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(dir: &Path) -> PathBuf {
        fs::write(dir.join("libnvidia_ml.so"), "code").unwrap();
        fs::write(dir.join("nvidia-smi"), "program").unwrap();
        dir.to_path_buf()
    }

    fn made(name: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::load(name, None).unwrap();
        let programs = programs(dir.path());
        let plan = Plan {
            programs,
            numbers: Numbers::Listed,
            installed: Installed::simulated(&machine),
        };
        create(machine, &dir.path().join("root"), &plan).unwrap();
        dir
    }

    fn text(dir: &tempfile::TempDir, path: &str) -> String {
        let path = dir.path().join("root").join(path);
        fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
    }

    #[test]
    fn a_tree_without_privileges_lists_its_nodes() {
        let dir = made("mig-mixed");
        let devices = text(&dir, "devices");
        for line in [
            "/dev/nvidia0 c 195 0 666 0\n",
            "/dev/nvidiactl c 195 255 666 0\n",
            "/dev/dri/renderD128 c 226 128 660 993\n",
            "/dev/nvidia-caps/nvidia-cap12 c 510 12 444 0\n",
            "/dev/nvidia-caps/nvidia-cap1 c 510 1 400 0\n",
        ] {
            assert!(devices.contains(line), "{line}: {devices}");
        }
        let library = text(&dir, "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.54.15");
        assert!(library.starts_with("code\nfleet-sim-machine\n{"));
        assert!(text(&dir, "proc/driver/nvidia/version").contains("550.54.15"));
    }

    #[test]
    fn faults_show_in_the_nodes() {
        let devices = text(&made("bad-nodes"), "devices");
        assert!(!devices.contains("/dev/nvidia1 "), "{devices}");
        assert!(devices.contains("/dev/nvidia2 c 195 2 666 0\n"));
        assert!(devices.contains("/dev/nvidia3 c 195 3 0 0\n"));
    }

    #[test]
    fn other_platforms_have_their_own_trees() {
        let wsl = made("wsl");
        assert_eq!(text(&wsl, "devices"), "/dev/dxg c 10 125 666 0\n");
        let store = wsl.path().join("root").join(STORE);
        for file in ["libcuda.so.1.1", "libnvidia-ml.so.1", "nvidia-smi"] {
            assert!(store.join(file).is_file(), "{file}");
        }
        let orin = made("orin");
        assert!(text(&orin, "etc/nv_tegra_release").starts_with("# R36"));
        assert!(text(&orin, "devices").contains("/dev/nvmap c 10 118"));
    }

    #[test]
    fn only_what_was_made_is_removed() {
        let dir = made("h100x1");
        let root = dir.path().join("root");
        fs::write(root.join("notes.txt"), "mine").unwrap();
        remove(&root).unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
        assert!(matches!(remove(&root), Err(SimError::NoTree(_))));
    }
}
