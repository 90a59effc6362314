//! What the driver's packages install: a stand-in for every file, or the files of real packages.

use std::fs;
use std::path::{Path, PathBuf};

use fleet_sim_machine::{Machine, Platform};

use crate::build::{MACHINE_FILE, SimError};
use crate::elf;
use crate::files::{Entry, io_error};
use crate::libraries::{DRIVER, FILES, LIBDIR, OTHER, PROGRAMS};
use crate::platform::{tegra_files, wsl_files};

/// Directories of an unpacked driver that hold libraries, Debian's own one first.
const LIBRARIES: [&str; 4] = [
    "usr/lib/x86_64-linux-gnu/nvidia/current",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib64",
    "usr/lib",
];
/// Directories that hold programs.
const BINARIES: [&str; 2] = ["usr/lib/nvidia/current", "usr/bin"];
/// Largest number of entries of a directory that are looked at.
const MOST_ENTRIES: usize = 10_000;

/// Files of a driver, as far as a container is given them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    /// Made in the tree, NVML and the simulated `nvidia-smi` left out.
    pub(crate) entries: Vec<Entry>,
    /// Mounted into containers, relative to the root.
    pub(crate) mounts: Vec<String>,
    /// Links that containers need: target, name in the library directory.
    pub(crate) links: Vec<(String, String)>,
    /// Whether a real `nvidia-smi` is among them.
    pub(crate) has_smi: bool,
}

impl Installed {
    /// Stand-ins of what a full installation has.
    #[must_use]
    pub fn simulated(machine: &Machine) -> Self {
        match machine.platform {
            Platform::Native => native(&machine.driver_version),
            Platform::Wsl => Self {
                entries: wsl_files(),
                ..Self::default()
            },
            Platform::Tegra => Self {
                entries: tegra_files(),
                ..Self::default()
            },
        }
    }

    /// The files of unpacked driver packages below `dir`, put where a running system has them.
    ///
    /// # Errors
    /// No library of that version is there, or a directory cannot be read.
    pub fn found(dir: &Path, version: &str) -> Result<Self, SimError> {
        let mut out = Self::default();
        for name in LIBRARIES {
            for (file, path) in listing(&dir.join(name))? {
                out.library(version, &file, &path)?;
            }
        }
        for name in BINARIES {
            for (file, path) in listing(&dir.join(name))? {
                out.program(&file, &path);
            }
        }
        if !out.mounts.iter().any(|path| path.ends_with(version)) {
            return Err(SimError::NoDriver(dir.to_path_buf()));
        }
        out.mounts.push(MACHINE_FILE.to_owned());
        Ok(out)
    }

    /// A library of this version, or a link to one.
    fn library(&mut self, version: &str, file: &str, path: &Path) -> Result<(), SimError> {
        let at = format!("{LIBDIR}/{file}");
        if !file.starts_with("lib") || self.entries.iter().any(|entry| entry.path() == at) {
            return Ok(());
        }
        if path.is_symlink() {
            let target = fs::read_link(path).map_err(io_error(path))?;
            let target = target.file_name().unwrap_or_default().to_string_lossy();
            if target.contains(".so.") {
                self.links
                    .push((target.clone().into_owned(), file.to_owned()));
                self.entries.push(Entry::link(at, target));
            }
        } else if file.ends_with(&format!(".so.{version}")) {
            self.mounts.push(at.clone());
            // NVML is ours.
            if !file.starts_with("libnvidia-ml.") {
                self.entries.push(Entry::copied(at, path));
            }
        }
        Ok(())
    }

    fn program(&mut self, file: &str, path: &Path) {
        let at = format!("usr/bin/{file}");
        let ours = PROGRAMS.contains(&file) || file == "nvidia-smi";
        if ours && path.is_file() && !self.mounts.contains(&at) {
            self.has_smi |= file == "nvidia-smi";
            self.mounts.push(at.clone());
            self.entries.push(Entry::copied(at, path));
        }
    }
}

/// The version of the driver that was unpacked below `dir`.
///
/// # Errors
/// There is none, or the directory cannot be read.
pub fn driver_version(dir: &Path) -> Result<String, SimError> {
    for name in LIBRARIES {
        for (file, _) in listing(&dir.join(name))? {
            let version = ["libnvidia-ml.so.", "libcuda.so."]
                .iter()
                .find_map(|prefix| file.strip_prefix(prefix));
            if let Some(version) = version.filter(|version| version.contains('.')) {
                return Ok(version.to_owned());
            }
        }
    }
    Err(SimError::NoDriver(dir.to_path_buf()))
}

/// Names and paths in a directory, sorted; nothing where there is none.
fn listing(dir: &Path) -> Result<Vec<(String, PathBuf)>, SimError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error(dir))?.take(MOST_ENTRIES) {
        let entry = entry.map_err(io_error(dir))?;
        out.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    out.sort();
    Ok(out)
}

/// Links of a generated spec that belong to no one library.
fn first_links(version: &str) -> Vec<(String, String)> {
    [
        ("libcuda.so.1".to_owned(), "libcuda.so"),
        (
            format!("libGLX_nvidia.so.{version}"),
            "libGLX_indirect.so.0",
        ),
        (
            "libnvidia-opticalflow.so.1".to_owned(),
            "libnvidia-opticalflow.so",
        ),
    ]
    .map(|(target, name)| (target, name.to_owned()))
    .to_vec()
}

/// What a full package of the 550 series installs.
fn native(version: &str) -> Installed {
    let mut out = Installed {
        links: first_links(version),
        ..Installed::default()
    };
    for library in DRIVER {
        let file = format!("{}.so.{version}", library.name);
        let soname = match library.soname {
            "" => file.clone(),
            suffix => format!("{}.so.{suffix}", library.name),
        };
        let plain = format!("{}.so", library.name);
        if library.name != "libnvidia-ml" {
            out.put(format!("{LIBDIR}/{file}"), elf::library(&soname));
        }
        out.mounts.push(format!("{LIBDIR}/{file}"));
        if soname != file {
            out.links.push((file.clone(), soname.clone()));
            out.entries
                .push(Entry::link(format!("{LIBDIR}/{soname}"), file));
        }
        if library.plain {
            if !out.links.iter().any(|(_, name)| *name == plain) {
                out.links.push((soname.clone(), plain.clone()));
            }
            out.entries
                .push(Entry::link(format!("{LIBDIR}/{plain}"), soname));
        }
    }
    out.others(version);
    out
}

impl Installed {
    fn put(&mut self, path: String, content: impl Into<Vec<u8>>) {
        self.entries.push(Entry::installed(path, content));
    }

    /// Libraries with other versions or places, programs, firmware and configuration.
    fn others(&mut self, version: &str) {
        let vdpau = format!("libvdpau_nvidia.so.{version}");
        self.mounts.push(format!("{LIBDIR}/vdpau/{vdpau}"));
        self.put(
            format!("{LIBDIR}/vdpau/{vdpau}"),
            elf::library("libvdpau_nvidia.so.1"),
        );
        let link = format!("{LIBDIR}/vdpau/libvdpau_nvidia.so.1");
        self.entries.push(Entry::link(link, vdpau));
        for (file, soname) in OTHER {
            self.mounts.push(format!("{LIBDIR}/{file}"));
            self.put(format!("{LIBDIR}/{file}"), elf::library(soname));
            self.entries
                .push(Entry::link(format!("{LIBDIR}/{soname}"), file));
        }
        for name in PROGRAMS {
            self.mounts.push(format!("usr/bin/{name}"));
            self.entries.push(Entry::program(format!("usr/bin/{name}")));
        }
        self.mounts.push("usr/bin/nvidia-smi".to_owned());
        for name in ["gsp_ga10x.bin", "gsp_tu10x.bin"] {
            let path = format!("lib/firmware/nvidia/{version}/{name}");
            self.mounts.push(path.clone());
            self.put(path, "simulated firmware\n");
        }
        for (path, text) in FILES {
            self.mounts.push(path.to_owned());
            self.put(path.to_owned(), text);
        }
        // What a real node does not have: the description for a library that was mounted without it.
        self.mounts.push(MACHINE_FILE.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_of_packages_are_put_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let libraries = dir.path().join(LIBRARIES[0]);
        let programs = dir.path().join(BINARIES[0]);
        fs::create_dir_all(&libraries).unwrap();
        fs::create_dir_all(&programs).unwrap();
        for file in [
            "libcuda.so.550.1.2",
            "libnvidia-ml.so.550.1.2",
            "libother.so.7",
        ] {
            fs::write(libraries.join(file), "x").unwrap();
        }
        symlink("libcuda.so.550.1.2", libraries.join("libcuda.so.1")).unwrap();
        fs::write(programs.join("nvidia-smi"), "x").unwrap();
        fs::write(programs.join("nvidia-smi.1.gz"), "x").unwrap();
        assert_eq!(driver_version(dir.path()).unwrap(), "550.1.2");

        let found = Installed::found(dir.path(), "550.1.2").unwrap();
        assert!(found.has_smi);
        assert_eq!(
            found.links,
            [("libcuda.so.550.1.2".to_owned(), "libcuda.so.1".to_owned())]
        );
        let at: Vec<&str> = found.entries.iter().map(Entry::path).collect();
        assert_eq!(
            at,
            [
                "usr/lib/x86_64-linux-gnu/libcuda.so.1",
                "usr/lib/x86_64-linux-gnu/libcuda.so.550.1.2",
                "usr/bin/nvidia-smi"
            ]
        );
        assert!(
            found
                .mounts
                .iter()
                .any(|path| path.ends_with("libnvidia-ml.so.550.1.2"))
        );
        assert!(Installed::found(dir.path(), "535.1").is_err());
        assert!(driver_version(Path::new("/nonexistent")).is_err());
    }
}
