//! The files of a driver installation that a container gets: libraries, programs, firmware, sockets, configuration.
//!
//! Which names these are is NVIDIA's toolkit's choice (`docs/cdi-generate.md` lists where this differs). A file that is
//! not there is passed over; one that is there and cannot be used is left out with a warning.

mod graphics;
mod libraries;
mod links;
mod others;
mod search;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use crate::tree::Tree;

/// Where things of the driver are looked for.
#[derive(Debug)]
pub struct Places<'a> {
    /// Root of the driver installation.
    pub driver: &'a Tree,
    /// The machine's own `/`: directories that a user names are absolute there.
    pub host: &'a Tree,
    /// Directories of libraries that take the place of the usual ones, absolute on the machine.
    pub library_dirs: Vec<String>,
    /// Directories of configuration files that take the place of the usual ones, absolute on the machine.
    pub config_dirs: Vec<String>,
    /// Directories of programs, in the driver's root.
    pub program_dirs: Vec<String>,
    /// Directories of shared data (`$XDG_DATA_DIRS`), in the driver's root.
    pub data_dirs: Vec<String>,
    /// Directories of firmware, in the driver's root.
    pub firmware_dirs: Vec<String>,
}

/// `man 7 environ`: what a shell looks in without `PATH`.
const PROGRAM_DIRS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

impl<'a> Places<'a> {
    /// The usual places; `system` is where proc and sysfs are.
    #[must_use]
    pub fn usual(driver: &'a Tree, host: &'a Tree, system: &Tree) -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let (path, data_dirs) = (variable("PATH"), variable("XDG_DATA_DIRS"));
        Self::by_variables(driver, host, system, &path, &data_dirs)
    }

    /// The same for these values of `PATH` and `XDG_DATA_DIRS`.
    fn by_variables(
        driver: &'a Tree,
        host: &'a Tree,
        system: &Tree,
        path: &str,
        data_dirs: &str,
    ) -> Self {
        let list = |text: &str| -> Vec<String> {
            let parts = text.split(':').filter(|part| part.starts_with('/'));
            parts.map(str::to_owned).collect()
        };
        let mut program_dirs = list(path);
        for dir in PROGRAM_DIRS {
            if !program_dirs.iter().any(|known| known == dir) {
                program_dirs.push(dir.to_owned());
            }
        }
        let mut data_dirs = list(data_dirs);
        if data_dirs.is_empty() {
            data_dirs = list("/usr/local/share:/usr/share");
        }
        Self {
            driver,
            host,
            library_dirs: Vec::new(),
            config_dirs: Vec::new(),
            program_dirs,
            data_dirs,
            firmware_dirs: firmware_dirs(system),
        }
    }
}

/// The kernel's own search path (`Documentation/driver-api/firmware/fw_search_path.rst`).
fn firmware_dirs(system: &Tree) -> Vec<String> {
    let custom = system.text("/sys/module/firmware_class/parameters/path");
    let custom = custom.unwrap_or_default().trim().to_owned();
    let release = system
        .text("/proc/sys/kernel/osrelease")
        .unwrap_or_default();
    let release = release.trim();
    let mut dirs = Vec::new();
    if custom.starts_with('/') {
        dirs.push(custom);
    }
    for base in ["/lib/firmware/updates", "/lib/firmware"] {
        if !release.is_empty() && !release.contains('/') {
            dirs.push(format!("{base}/{release}"));
        }
        dirs.push(base.to_owned());
    }
    dirs
}

/// A file or directory and where a container sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    /// Absolute path on the machine.
    pub host: String,
    /// Absolute path in a container.
    pub container: String,
}

impl File {
    /// The last part of its path in a container.
    #[must_use]
    pub fn name(&self) -> &str {
        self.container.rsplit('/').next().unwrap_or_default()
    }

    /// The directory in a container.
    #[must_use]
    pub fn dir(&self) -> &str {
        match self.container.rsplit_once('/') {
            Some(("", _)) | None => "/",
            Some((dir, _)) => dir,
        }
    }
}

/// A link to make in a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Its text.
    pub target: String,
    /// Where it is, absolute.
    pub link: String,
}

/// A library and the links that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// The file.
    pub file: File,
    /// Links beside it, in the order to make them.
    pub links: Vec<Link>,
}

/// What of the driver a container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverFiles {
    /// Version of the user-space files.
    pub version: String,
    /// Directories in a container that hold libraries of this version.
    pub library_dirs: Vec<String>,
    /// Libraries of this version, and the few with numbers of their own.
    pub libraries: Vec<Library>,
    /// Libraries of the graphics stack with numbers of their own.
    pub graphics: Vec<File>,
    /// Modules of the X server.
    pub xorg: Vec<File>,
    /// Links of the graphics stack that no library has beside it.
    pub graphics_links: Vec<Link>,
    /// 32-bit libraries, when asked for.
    pub compat32: Vec<Library>,
    /// Programs.
    pub programs: Vec<File>,
    /// Programs of the graphics stack.
    pub graphics_programs: Vec<File>,
    /// Firmware of the GPU's system processor.
    pub firmware: Vec<File>,
    /// Sockets and directories of the driver's daemons.
    pub sockets: Vec<File>,
    /// Configuration of the graphics stack and of OpenCL.
    pub configs: Vec<File>,
    /// What was left out, one sentence each.
    pub warnings: Vec<String>,
}

/// What to look for beyond the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The vendor-neutral OpenGL and OpenCL libraries, too.
    pub explicit: bool,
    /// 32-bit libraries, too.
    pub compat32: bool,
}

/// A driver installation that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilesError {
    /// No library of a driver.
    #[error(
        "find the driver's libraries below {root}: there is no libcuda.so.<version> or libnvidia-ml.so.<version> in {searched}; hint: name the directory by --library-search-path, or the installation by --driver-root"
    )]
    NoLibrary {
        /// Root of the installation.
        root: String,
        /// Directories looked into.
        searched: String,
    },
    /// Libraries of another version than the loaded driver's.
    #[error(
        "find libraries of driver version {wanted}, which is loaded: those below {root} are of version {found}; hint: reboot after an update of the driver, or load the matching module"
    )]
    OtherVersion {
        /// Version of the loaded driver.
        wanted: String,
        /// Root of the installation.
        root: String,
        /// Versions found.
        found: String,
    },
    /// Several versions and nothing that tells which counts.
    #[error(
        "choose a driver version below {root}: libraries of versions {found} lie side by side and no driver is loaded; hint: remove the old one, or name the directory by --library-search-path"
    )]
    Ambiguous {
        /// Root of the installation.
        root: String,
        /// Versions found.
        found: String,
    },
}

/// Looks for everything. `version` is the loaded driver's, where it is known.
///
/// # Errors
/// [`FilesError`]: no usable set of libraries.
pub fn driver_files(
    places: &Places<'_>,
    version: Option<&str>,
    wanted: Wanted,
) -> Result<DriverFiles, FilesError> {
    let mut files = DriverFiles::default();
    let dirs = search::directories(places);
    files.version = libraries::version(places, &dirs, version, &mut files.warnings)?;
    libraries::find(&dirs, wanted, &mut files);
    if wanted.compat32 {
        libraries::find_compat32(places, &mut files);
    }
    graphics::find(places, &dirs, &mut files);
    others::find(places, &mut files);
    Ok(files)
}

/// Where this process finds the management library, for loading it.
#[must_use]
pub fn management_library(places: &Places<'_>) -> Option<PathBuf> {
    const NAME: &str = "libnvidia-ml.so.1";
    let dirs = search::directories(places);
    dirs.iter().find_map(|dir| {
        let path = format!("{}/{NAME}", dir.path);
        let path = dir.tree.resolve(&path).ok()?;
        dir.tree.is_file(&path).then(|| dir.tree.real(&path))
    })
}

/// The library that a path of a tree leads to, with its links; nothing and a warning where it leads to none.
#[must_use]
pub fn library_at(tree: &Tree, path: &str, warnings: &mut Vec<String>) -> Option<Library> {
    let file = search::found(tree, path, warnings)?;
    let links = links::of(tree, &file, warnings);
    Some(Library { file, links })
}

/// A path of a tree as a reader from outside must name it: links of another root than `/` are followed here.
#[must_use]
pub fn file_at(tree: &Tree, path: &str) -> Option<File> {
    search::followed(tree, path)
}
