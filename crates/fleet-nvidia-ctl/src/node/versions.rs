//! The programs, in a directory per version, and the link by which engines reach the one in force.
//!
//! ```text
//! current -> versions/0.2.0       what engines' configuration names, through the link
//! previous -> versions/0.1.0      what `rollback` exchanges it with
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{RenameFlags, renameat2};

use super::{At, NodeError};

const PROGRAMS: [&str; 2] = ["fleet-nvidia", "fleet-nvidia-ctl"];
const VERSIONS: &str = "versions";
pub(super) const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
/// A version that is being copied.
const NEW: &str = ".new";

/// The programs below an installation's directory.
#[derive(Clone, Debug)]
pub(super) struct Versions {
    dir: PathBuf,
}

impl Versions {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
        }
    }

    /// The version in force.
    pub(super) fn current(&self) -> Option<String> {
        self.link(CURRENT)
    }

    /// The one before.
    pub(super) fn previous(&self) -> Option<String> {
        self.link(PREVIOUS)
    }

    fn link(&self, name: &str) -> Option<String> {
        let target = fs::read_link(self.dir.join(name)).ok()?;
        let name = target.strip_prefix(VERSIONS).ok()?.to_str()?.to_owned();
        self.version(&name).is_dir().then_some(name)
    }

    fn version(&self, name: &str) -> PathBuf {
        self.dir.join(VERSIONS).join(name)
    }

    /// Programs of the version in force that are missing.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let dir = self.dir.join(CURRENT);
        let there = |name: &&str| {
            fs::metadata(dir.join(name))
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        PROGRAMS.into_iter().filter(|name| !there(name)).collect()
    }

    /// Copies the programs of `source`, unless a version has the same; returns its name.
    pub(super) fn add(&self, source: &Path) -> Result<String, NodeError> {
        let wanted = version_of(source)?;
        let mut number = 1;
        let name = loop {
            let name = match number {
                1 => wanted.clone(),
                number => format!("{wanted}-{number}"),
            };
            let dir = self.version(&name);
            match dir.is_dir() {
                true if same_programs(source, &dir)? => return Ok(name),
                true => number += 1,
                false => break name,
            }
        };
        let new = self.version(NEW);
        remove_tree(&new)?;
        fs::create_dir_all(&new).at("make", &new)?;
        for program in PROGRAMS {
            copy(&source.join(program), &new.join(program))?;
        }
        sync(&new)?;
        let place = self.version(&name);
        fs::rename(&new, &place).at("rename", &new)?;
        sync(&self.dir.join(VERSIONS))?;
        Ok(name)
    }

    /// Puts a version into force; the one before is remembered.
    pub(super) fn switch(&self, name: &str) -> Result<(), NodeError> {
        let current = self.current();
        if current.as_deref() == Some(name) {
            return Ok(());
        }
        if let Some(current) = current {
            self.set(PREVIOUS, &current)?;
        }
        self.set(CURRENT, name)
    }

    fn set(&self, link: &str, name: &str) -> Result<(), NodeError> {
        let new = self.dir.join(format!(".{link}.new"));
        remove_file(&new)?;
        symlink(Path::new(VERSIONS).join(name), &new).at("make", &new)?;
        fs::rename(&new, self.dir.join(link)).at("rename", &new)?;
        sync(&self.dir)
    }

    /// Exchanges the version in force with the one before, in one step (`man 2 renameat2`, RENAME_EXCHANGE).
    pub(super) fn exchange(&self) -> Result<(String, String), NodeError> {
        let (Some(current), Some(previous)) = (self.current(), self.previous()) else {
            return Err(NodeError::Asked(
                "there is no earlier version to go back to; hint: install the one that you want"
                    .to_owned(),
            ));
        };
        if current == previous {
            return Err(NodeError::Asked(format!(
                "the version before is the one in force, {current}; hint: an install was cut off, repeat it"
            )));
        }
        let links = [CURRENT, PREVIOUS].map(|link| self.dir.join(link));
        renameat2(
            None,
            &links[0],
            None,
            &links[1],
            RenameFlags::RENAME_EXCHANGE,
        )
        .at("exchange", &links[0])?;
        sync(&self.dir)?;
        Ok((current, previous))
    }

    /// Removes versions that no link leads to.
    pub(super) fn prune(&self) -> Result<(), NodeError> {
        let kept = [self.current(), self.previous()];
        let dir = self.dir.join(VERSIONS);
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let entry = entry.at("list", &dir)?;
            let name = entry.file_name();
            if !kept.iter().flatten().any(|kept| name == kept.as_str()) {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes all of them, the links first.
    pub(super) fn clear(&self) -> Result<(), NodeError> {
        for link in [CURRENT, PREVIOUS] {
            remove_file(&self.dir.join(link))?;
            remove_file(&self.dir.join(format!(".{link}.new")))?;
        }
        remove_tree(&self.dir.join(VERSIONS))
    }
}

/// What the runtime says of itself; that it runs at all is the best check of it.
fn version_of(source: &Path) -> Result<String, NodeError> {
    let program = source.join(PROGRAMS[0]);
    let said = Command::new(&program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .output();
    let said = said.at("run", &program)?;
    let text = String::from_utf8_lossy(&said.stdout);
    let version = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("fleet-nvidia version "));
    let plain = |version: &&str| {
        !version.is_empty()
            && version
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-+~".contains(c))
            && !version.starts_with('.')
    };
    version.filter(plain).map(str::to_owned).ok_or_else(|| {
        NodeError::Asked(format!(
            "{} --version does not tell a version of fleet-nvidia",
            program.display()
        ))
    })
}

fn same_programs(a: &Path, b: &Path) -> Result<bool, NodeError> {
    for program in PROGRAMS {
        let (a, b) = (a.join(program), b.join(program));
        if !same(&a, &b).at("compare", &a)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let b = match File::open(b) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let a = File::open(a)?;
    if a.metadata()?.len() != b.metadata()?.len()
        || b.metadata()?.permissions().mode() & 0o777 != 0o755
    {
        return Ok(false);
    }
    let (mut left, mut right) = (Vec::new(), Vec::new());
    io::BufReader::new(a).read_to_end(&mut left)?;
    io::BufReader::new(b).read_to_end(&mut right)?;
    Ok(left == right)
}

fn copy(from: &Path, to: &Path) -> Result<(), NodeError> {
    let mut source = File::open(from).at("open", from)?;
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(to)
        .at("write", to)?;
    io::copy(&mut source, &mut file).at("write", to)?;
    file.set_permissions(fs::Permissions::from_mode(0o755))
        .at("write", to)?;
    file.sync_all().at("write", to)
}

fn sync(dir: &Path) -> Result<(), NodeError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .at("sync", dir)
}

fn remove_file(path: &Path) -> Result<(), NodeError> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err).at("remove", path),
        _ => Ok(()),
    }
}

fn remove_tree(path: &Path) -> Result<(), NodeError> {
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err).at("remove", path),
        _ => Ok(()),
    }
}
