//! Libraries that carry the driver's version in their names.

use std::collections::BTreeSet;
use std::io::Read;

use glob::Pattern;

use super::search::{Dir, directories32};
use super::{DriverFiles, FilesError, Library, Places, Wanted, links};

/// By which a driver's version is told, in this order.
const TELLING: [&str; 2] = ["libcuda.so.", "libnvidia-ml.so."];

/// Libraries of the vendor-neutral family, by their plain names.
const EXPLICIT: [&str; 11] = [
    "libEGL.so",
    "libGL.so",
    "libGLESv1_CM.so",
    "libGLESv2.so",
    "libGLX.so",
    "libGLdispatch.so",
    "libOpenCL.so",
    "libOpenGL.so",
    "libnvidia-api.so",
    "libnvidia-egl-xcb.so",
    "libnvidia-egl-xlib.so",
];

/// A pattern whose special parts are ours and whose version is literal.
pub(super) fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap_or_default()
}

/// A version in a pattern, as text and not as part of the pattern.
pub(super) fn literal(version: &str) -> String {
    Pattern::escape(version)
}

/// Versions that a library's files state, the first found first.
fn versions(dirs: &[Dir<'_>], library: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for dir in dirs {
        for name in dir.names.iter() {
            let Some(version) = name.strip_prefix(library).filter(|text| is_version(text)) else {
                continue;
            };
            let usable = dir.library(&format!("{}/{name}", dir.path), &mut Vec::new());
            if usable.is_some() && !found.iter().any(|known| known == version) {
                found.push(version.to_owned());
            }
        }
    }
    found
}

/// `550.54.15`, `535.104`; the number of an interface, `1`, is none.
fn is_version(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.len() < 64 && text.contains('.') && text.split('.').all(number)
}

/// The version whose files count.
pub(super) fn version(
    places: &Places<'_>,
    dirs: &[Dir<'_>],
    loaded: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<String, FilesError> {
    let mut found: Vec<String> = Vec::new();
    for library in TELLING {
        for version in versions(dirs, library) {
            if !found.contains(&version) {
                found.push(version);
            }
        }
    }
    let root = places.driver.host("/");
    if found.is_empty() {
        let searched = searched(dirs);
        return Err(FilesError::NoLibrary { root, searched });
    }
    match loaded {
        Some(wanted) => of_loaded(wanted, &found, root, warnings),
        None => of_files(dirs, &found, root, warnings),
    }
}

/// The loaded driver's, whatever else lies there.
fn of_loaded(
    wanted: &str,
    found: &[String],
    root: String,
    warnings: &mut Vec<String>,
) -> Result<String, FilesError> {
    let others = found.iter().filter(|version| *version != wanted);
    let others = others.cloned().collect::<Vec<_>>().join(" and ");
    if !found.iter().any(|version| version == wanted) {
        return Err(FilesError::OtherVersion {
            wanted: wanted.to_owned(),
            root,
            found: others,
        });
    }
    if !others.is_empty() {
        warnings.push(format!(
            "libraries of driver version {others} lie beside those of {wanted}, which is loaded; they are left out"
        ));
    }
    Ok(wanted.to_owned())
}

/// The only one, or the one that the loader would take.
fn of_files(
    dirs: &[Dir<'_>],
    found: &[String],
    root: String,
    warnings: &mut Vec<String>,
) -> Result<String, FilesError> {
    if let [only] = found {
        return Ok(only.clone());
    }
    let listed = found.join(" and ");
    match linked(dirs).filter(|version| found.contains(version)) {
        Some(version) => {
            warnings.push(format!(
                "libraries of driver versions {listed} lie side by side; libcuda.so.1 leads to {version}, which is taken"
            ));
            Ok(version)
        }
        None => Err(FilesError::Ambiguous {
            root,
            found: listed,
        }),
    }
}

fn searched(dirs: &[Dir<'_>]) -> String {
    let dirs: Vec<_> = dirs.iter().map(|dir| dir.tree.host(&dir.path)).collect();
    if dirs.is_empty() {
        return "any directory of libraries".to_owned();
    }
    dirs.join(", ")
}

/// The version that the loader would take.
fn linked(dirs: &[Dir<'_>]) -> Option<String> {
    dirs.iter().find_map(|dir| {
        let path = dir
            .tree
            .resolve(&format!("{}/libcuda.so.1", dir.path))
            .ok()?;
        let version = path
            .rsplit('/')
            .next()?
            .strip_prefix(TELLING[0])?
            .to_owned();
        is_version(&version).then_some(version)
    })
}

/// Directories, links followed, that hold a library of this version.
fn of_version<'a>(dirs: &[Dir<'a>], version: &str, warnings: &mut Vec<String>) -> Vec<Dir<'a>> {
    let pattern = pattern(&format!("lib*.so.{}", literal(version)));
    let mut found: Vec<Dir<'a>> = Vec::new();
    for dir in dirs {
        for path in dir.matching(&pattern) {
            let Some(file) = dir.library(&path, warnings) else {
                continue;
            };
            if found.iter().any(|known| dir_name(known) == file.dir()) {
                continue;
            }
            // One that was searched was read already, unless it is a link.
            let known = dirs
                .iter()
                .find(|known| std::ptr::eq(known.tree, dir.tree) && dir_name(known) == file.dir());
            found.extend(known.cloned().or_else(|| Dir::open(dir.tree, file.dir())));
        }
    }
    found
}

/// As [`super::File::dir`] spells it.
fn dir_name<'d>(dir: &'d Dir<'_>) -> &'d str {
    if dir.path.is_empty() { "/" } else { &dir.path }
}

pub(super) fn find(dirs: &[Dir<'_>], wanted: Wanted, files: &mut DriverFiles) {
    let driver = of_version(dirs, &files.version, &mut files.warnings);
    let mut names = driver.iter().map(dir_name);
    files.library_dirs.extend(names.by_ref().map(str::to_owned));
    let vdpau: Vec<_> = driver
        .iter()
        .filter_map(|dir| Dir::open(dir.tree, &format!("{}/vdpau", dir.path)))
        .collect();
    let versioned = pattern(&format!("*.so.{}", literal(&files.version)));
    let mut seen = BTreeSet::new();
    for dir in driver.iter().chain(&vdpau) {
        add(dir, &versioned, &mut seen, files);
    }
    let own = ["libnvidia-nvvm70.so.*"].into_iter();
    let explicit = EXPLICIT.into_iter().filter(|_| wanted.explicit);
    for name in own.chain(explicit).map(pattern) {
        for dir in &driver {
            add(dir, &name, &mut seen, files);
        }
    }
}

fn add(dir: &Dir<'_>, pattern: &Pattern, seen: &mut BTreeSet<String>, files: &mut DriverFiles) {
    for path in dir.matching(pattern) {
        let Some(file) = dir.library(&path, &mut files.warnings) else {
            continue;
        };
        if seen.insert(file.host.clone()) {
            let links = links::of(dir.tree, &file, &mut files.warnings);
            files.libraries.push(Library { file, links });
        }
    }
}

/// The 32-bit builds of the same version.
pub(super) fn find_compat32(places: &Places<'_>, files: &mut DriverFiles) {
    let dirs = directories32(places);
    let driver = of_version(&dirs, &files.version, &mut files.warnings);
    let versioned = pattern(&format!("*.so.{}", literal(&files.version)));
    let mut seen = BTreeSet::new();
    for dir in &driver {
        for path in dir.matching(&versioned) {
            let Some(file) = dir.library(&path, &mut files.warnings) else {
                continue;
            };
            if is_32_bit(dir, &file.container) && seen.insert(file.host.clone()) {
                let links = links::of(dir.tree, &file, &mut files.warnings);
                files.compat32.push(Library { file, links });
            }
        }
    }
}

/// `EI_CLASS` of an ELF file (`man 5 elf`): `/usr/lib` holds either kind, by distribution.
fn is_32_bit(dir: &Dir<'_>, path: &str) -> bool {
    let mut start = [0_u8; 5];
    let file = dir.tree.file(path);
    let read = file.and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"\x7fELF\x01"
}
