//! Where this library lies: the machine that it carries behind its code, and the device nodes that belong to it.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use fleet_sim_machine::Machine;

/// Largest description, in bytes.
const LIMIT: u64 = 1024 * 1024;
/// Where a simulated node's CDI spec puts the description in a container.
const IN_CONTAINER: &str = "/usr/share/nvidia/fleet-sim-machine.json";
/// Stands between code and description.
const MARK: &[u8] = b"\nfleet-sim-machine\n{";

/// The file that the loader took this library from.
fn library() -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let here: *const () = (library as fn() -> Option<PathBuf>) as *const ();
    // SAFETY: the address is one of our own code; `info` has room for the answer.
    let found = unsafe { libc::dladdr(here.cast(), info.as_mut_ptr()) };
    if found == 0 {
        return None;
    }
    // SAFETY: dladdr said that it filled the struct; the name lives as long as the library is loaded.
    let name = unsafe {
        let info = info.assume_init();
        (!info.dli_fname.is_null()).then(|| CStr::from_ptr(info.dli_fname))?
    };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// Reads the description; nothing when there is none or it is broken.
pub(crate) fn machine() -> Option<Machine> {
    let bytes = match std::env::var_os("FLEET_SIM_MACHINE") {
        Some(path) => small_file(Path::new(&path))?,
        None => library()
            .and_then(|file| carried(&file).ok().flatten())
            .or_else(|| small_file(Path::new(IN_CONTAINER)))?,
    };
    serde_json::from_slice(&bytes).ok()
}

fn small_file(path: &Path) -> Option<Vec<u8>> {
    let meta = fs::metadata(path).ok()?;
    (meta.is_file() && meta.len() <= LIMIT).then(|| fs::read(path).ok())?
}

/// What lies behind the last mark of a file.
fn carried(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(LIMIT)))?;
    let mut end = Vec::new();
    file.take(LIMIT).read_to_end(&mut end)?;
    let mark = end.windows(MARK.len()).rposition(|window| window == MARK);
    Ok(mark.map(|at| end.split_off(at + MARK.len() - 1)))
}

/// Device nodes: those of the tree that this library lies in, else the machine's.
#[derive(Debug)]
pub(crate) enum Nodes {
    /// In a directory.
    Dir(PathBuf),
    /// In a list of a tree that was made without privileges: `/dev/nvidia0 c 195 0 666 0`.
    Listed(String),
}

impl Nodes {
    pub(crate) fn find() -> Self {
        if let Some(dir) = std::env::var_os("FLEET_SIM_DEV") {
            return Self::Dir(dir.into());
        }
        let library = library().unwrap_or_default();
        let tree = library
            .to_str()
            .and_then(|path| path.rsplit_once("/usr/lib/"))
            .map(|(root, _)| PathBuf::from(root))
            .filter(|root| {
                root.join("usr/share/nvidia/fleet-sim-machine.json")
                    .exists()
            });
        match tree {
            Some(root) if !root.as_os_str().is_empty() => fs::read_to_string(root.join("devices"))
                .map_or_else(|_| Self::Dir(root.join("dev")), Self::Listed),
            _ => Self::Dir("/dev".into()),
        }
    }

    /// Opens a node, as the driver's library does.
    pub(crate) fn open(&self, node: &str) -> io::Result<()> {
        match self {
            Self::Dir(dir) => OpenOptions::new()
                .read(true)
                .write(!node.starts_with("nvidia-caps/"))
                .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
                .open(dir.join(node))
                .map(drop),
            Self::Listed(list) => {
                let wanted = format!("/dev/{node} ");
                let line = list.lines().find(|line| line.starts_with(&wanted));
                let denied = line.and_then(|line| line.split(' ').nth(4)) == Some("0");
                match line {
                    None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
                    Some(_) if denied => Err(io::Error::from_raw_os_error(libc::EACCES)),
                    Some(_) => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_behind_the_code_is_found() {
        let path = std::env::temp_dir().join(format!("fleet-carried-{}", std::process::id()));
        fs::write(
            &path,
            b"code\nfleet-sim-machine\n{1}\nfleet-sim-machine\n{2}",
        )
        .unwrap();
        assert_eq!(carried(&path).unwrap().unwrap(), b"{2}");
        fs::write(&path, b"code alone").unwrap();
        assert_eq!(carried(&path).unwrap(), None);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn listed_nodes_open_by_their_mode() {
        let nodes = Nodes::Listed("/dev/nvidia0 c 195 0 666 0\n/dev/nvidia1 c 195 1 0 0\n".into());
        assert!(nodes.open("nvidia0").is_ok());
        let code = |node| nodes.open(node).unwrap_err().raw_os_error();
        assert_eq!(code("nvidia1"), Some(libc::EACCES));
        assert_eq!(code("nvidia"), Some(libc::ENOENT));
    }
}
