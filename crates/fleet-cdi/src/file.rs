//! Reading spec files: which names count, which files are safe to open.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::model::Spec;
use crate::parse::{Format, MAX_SIZE, parse};
use crate::shown::shown_path;

/// A file that is no valid spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CDI spec {} {why}", shown_path(.path))]
pub struct SpecError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub why: String,
}

impl SpecError {
    pub(crate) fn new(path: &Path, why: impl Into<String>) -> Self {
        Self {
            path: path.to_path_buf(),
            why: why.into(),
        }
    }
}

/// Reads a spec file; a symbolic link to a regular file is followed.
///
/// # Errors
/// [`SpecError`] with path and cause.
pub fn read_spec(path: &Path) -> Result<Spec, SpecError> {
    let format = path.file_name().and_then(format_of).ok_or_else(|| {
        SpecError::new(
            path,
            "is not named .json or .yaml, so nobody reads it as one",
        )
    })?;
    let mut bytes = Vec::new();
    read_into(path, &mut bytes, false)?;
    parse_file(path, &bytes, format)
}

pub(crate) fn parse_file(path: &Path, bytes: &[u8], format: Format) -> Result<Spec, SpecError> {
    parse(bytes, format).map_err(|err| SpecError::new(path, format!("is invalid: {err}")))
}

/// The format by the file's name; other names are no specs.
pub(crate) fn format_of(name: &OsStr) -> Option<Format> {
    let name = name.as_bytes();
    match () {
        () if name.ends_with(b".json") => Some(Format::Json),
        () if name.ends_with(b".yaml") => Some(Format::Yaml),
        () => None,
    }
}

/// Replaces `bytes` by the file's content, of which at most one byte more is read than [`parse`] takes.
/// `known_regular`: its directory says that it is one.
pub(crate) fn read_into(
    path: &Path,
    bytes: &mut Vec<u8>,
    known_regular: bool,
) -> Result<(), SpecError> {
    let unreadable = |err: std::io::Error| SpecError::new(path, unreadable(&err));
    // To open a device may already do something.
    if !known_regular && !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(SpecError::new(path, "is not a regular file"));
    }
    let file = open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(SpecError::new(path, "is not a regular file"));
    }
    bytes.clear();
    let limit = u64::try_from(MAX_SIZE)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    read_all(file, meta.len(), limit, bytes).map_err(unreadable)
}

/// Where the first read brings as much as the file has, no second one asks for its end: that is a call in five.
fn read_all(mut file: File, size: u64, limit: u64, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    let size = usize::try_from(size.min(limit)).unwrap_or(MAX_SIZE);
    bytes.resize(size, 0);
    let first = match file.read(bytes) {
        Err(err) if err.kind() == ErrorKind::Interrupted => 0,
        other => other?,
    };
    bytes.truncate(first);
    if first < size || size == 0 {
        let rest = limit.saturating_sub(u64::try_from(first).unwrap_or(limit));
        file.take(rest).read_to_end(bytes)?;
    }
    Ok(())
}

/// A FIFO that takes the file's place meanwhile must not block us, nor a terminal become ours (`man 2 open`).
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// By kind, not in the C library's words: engines would read those as the container's own error.
pub(crate) fn unreadable(err: &std::io::Error) -> String {
    match (err.kind(), err.raw_os_error()) {
        (ErrorKind::NotFound, _) => "is missing".to_owned(),
        (ErrorKind::PermissionDenied, _) => "cannot be read (EACCES)".to_owned(),
        (_, Some(libc::ELOOP)) => "cannot be read (ELOOP: a circle of symbolic links)".to_owned(),
        (_, Some(code)) => format!("cannot be read (errno {code})"),
        (kind, None) => format!("cannot be read ({kind})"),
    }
}
