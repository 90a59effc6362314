//! A file comes and goes in one step, together with the directories that are there for it alone: whoever is killed
//! half-way leaves what was there before, or what was wanted.
//!
//! Engines read whole directories (CRI-O also what looks like a backup), so a name in one only ever stands for a
//! complete file.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::unistd::linkat;

/// What something is called while it is made or taken down. Always the same name, so that the next run finds it.
pub(super) fn new_name(dir: &Path, name: &OsStr) -> PathBuf {
    dir.join(format!(".{}.new", name.to_string_lossy()))
}

/// Writes a complete file under a name; the old one's mode and owner are kept.
pub(super) fn write(path: &Path, text: &str, old: Option<&fs::Metadata>) -> io::Result<()> {
    remove_file(path)?;
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    let mode = old.map_or(0o644, |old| old.mode() & 0o7777);
    let mut options = fs::OpenOptions::new();
    options.write(true).mode(mode);
    // No name until it is complete (`man 2 open`, O_TMPFILE).
    let unnamed = options
        .clone()
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(dir);
    match unnamed {
        Ok(file) => {
            fill(&file, text, mode, old)?;
            let own = format!("/proc/self/fd/{}", file.as_raw_fd());
            linkat(
                None,
                Path::new(&own),
                None,
                path,
                AtFlags::AT_SYMLINK_FOLLOW,
            )?;
            Ok(())
        }
        // Network and older overlay file systems have no unnamed files.
        Err(err)
            if matches!(
                errno(&err),
                Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL)
            ) =>
        {
            fill(&options.create_new(true).open(path)?, text, mode, old)
        }
        Err(err) => Err(err),
    }
}

fn fill(mut file: &fs::File, text: &str, mode: u32, old: Option<&fs::Metadata>) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    if let Some(old) = old {
        std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    file.sync_all()
}

/// Writes a file whose directory is missing: the directories are made beside the place, with the file in them, and
/// appear in one step.
pub(super) fn put_with_directories(place: &Path, text: &str) -> io::Result<()> {
    let top = outermost_missing(place);
    let staged = staged(top)?;
    clear(&staged, top, place)?;
    let inside = under(&staged, top, place);
    let dir = inside.parent().unwrap_or(&staged);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)?;
    write(&inside, text, None)?;
    fs::rename(&staged, top).inspect_err(|_| drop(clear(&staged, top, place)))?;
    top.parent()
        .map_or(Ok(()), |above| fs::File::open(above)?.sync_all())
}

/// The directory nearest to the root that has to be made for a path.
fn outermost_missing(place: &Path) -> &Path {
    let missing = place.ancestors().skip(1).take_while(|dir| !dir.exists());
    missing.last().unwrap_or(place)
}

/// Removes what a killed run has left: a file, or directories with it, that never came into place or no longer are.
pub(super) fn sweep(place: &Path) -> io::Result<()> {
    for top in place.ancestors().skip(1) {
        if let Ok(staged) = staged(top) {
            clear(&staged, top, place)?;
        }
    }
    match (place.parent(), place.file_name()) {
        (Some(dir), Some(name)) => remove_file(&new_name(dir, name)),
        _ => Ok(()),
    }
}

/// Removes a file; of the directories `made` for it, outermost first, those go that hold nothing else.
pub(super) fn take(place: &Path, made: &[PathBuf]) -> io::Result<()> {
    sweep(place)?;
    let alone = made.iter().find(|top| holds_only(top, place));
    let Some(top) = alone else {
        return fs::remove_file(place);
    };
    let staged = staged(top)?;
    fs::rename(top, &staged)?;
    clear(&staged, top, place)?;
    match staged.exists() {
        // Something came in the meantime: it stays where it was put.
        true => fs::rename(&staged, top),
        false => Ok(()),
    }
}

/// Whether a directory leads to this file and to nothing else.
fn holds_only(top: &Path, place: &Path) -> bool {
    let dirs = place
        .ancestors()
        .skip(1)
        .take_while(|dir| dir.starts_with(top));
    let single = |dir: &Path| fs::read_dir(dir).is_ok_and(|all| all.take(2).count() == 1);
    place.exists() && dirs.into_iter().all(single)
}

/// Where the tree below `top` stands while it is made or taken down.
fn staged(top: &Path) -> io::Result<PathBuf> {
    match (top.parent(), top.file_name()) {
        (Some(above), Some(name)) => Ok(new_name(above, name)),
        _ => Err(Errno::EISDIR.into()),
    }
}

fn under(staged: &Path, top: &Path, place: &Path) -> PathBuf {
    staged.join(place.strip_prefix(top).unwrap_or(place))
}

/// Removes the file from a staged tree, and the directories that are then empty. Anything else in it stays.
fn clear(staged: &Path, top: &Path, place: &Path) -> io::Result<()> {
    if !staged.is_dir() || staged.is_symlink() {
        return Ok(());
    }
    let inside = under(staged, top, place);
    if let (Some(dir), Some(name)) = (inside.parent(), inside.file_name()) {
        remove_file(&new_name(dir, name))?;
    }
    remove_file(&inside)?;
    for dir in inside
        .ancestors()
        .skip(1)
        .take_while(|dir| dir.starts_with(staged))
    {
        match fs::remove_dir(dir) {
            Err(err)
                if !matches!(
                    errno(&err),
                    Some(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST)
                ) =>
            {
                return Err(err);
            }
            _ => {}
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if !super::is_absent(&err) => Err(err),
        _ => Ok(()),
    }
}

fn errno(err: &io::Error) -> Option<Errno> {
    err.raw_os_error().map(Errno::from_raw)
}
