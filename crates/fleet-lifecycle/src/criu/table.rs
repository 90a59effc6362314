//! The mounts of a container that runs, as the kernel lists them (`man 5 proc_pid_mountinfo`).

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;

use crate::error::{Context, Error, Result};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    /// `MAJOR:MINOR` of the file system.
    pub(crate) device: String,
    /// The part of the file system that it shows.
    pub(crate) root: String,
    /// Where, in the container.
    pub(crate) point: String,
    pub(crate) kind: String,
    /// Options of the file system.
    pub(crate) options: String,
}

/// All mounts of the process `pid`.
///
/// # Errors
/// As `man 2 open`; a line that cannot be understood.
pub(crate) fn of_process(pid: i32) -> Result<Vec<Mount>> {
    let path = format!("/proc/{pid}/mountinfo");
    let text = fs::read_to_string(&path).op(|| format!("read `{path}`"))?;
    text.lines()
        .map(|line| {
            parse(line).ok_or_else(|| {
                Error::Setup(format!(
                    "`{path}` has a line that cannot be understood: {line}"
                ))
            })
        })
        .collect()
}

fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ');
    let mut after = after.split(' ');
    Some(Mount {
        id: before.next()?.parse().ok()?,
        parent: before.next()?.parse().ok()?,
        device: before.next()?.to_owned(),
        root: plain(before.next()?)?,
        point: plain(before.next()?)?,
        kind: after.next()?.to_owned(),
        options: after.nth(1).unwrap_or_default().to_owned(),
    })
}

/// Without the escapes of the kernel, `\040` for a space.
fn plain(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(3)?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 8).ok()?);
        rest = after;
    }
    std::ffi::OsString::from_vec(bytes).into_string().ok()
}

/// The mount that `file` was opened on.
///
/// # Errors
/// As `man 2 open`.
pub(crate) fn mount_of(file: BorrowedFd<'_>) -> Result<u32> {
    mount_of_entry(&format!("/proc/self/fdinfo/{}", file.as_raw_fd()))
}

/// The same by its entry in a `fdinfo` directory.
///
/// # Errors
/// As `man 2 open`.
pub(crate) fn mount_of_entry(path: &str) -> Result<u32> {
    let text = fs::read_to_string(path).op(|| format!("read `{path}`"))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id.and_then(|id| id.trim().parse().ok())
        .ok_or_else(|| Error::Setup(format!("`{path}` names no mount")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let line = "36 35 98:0 /mnt1 /mnt2/a\\040b\\134 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.parent), (36, 35));
        assert_eq!(
            (mount.device.as_str(), mount.root.as_str()),
            ("98:0", "/mnt1")
        );
        assert_eq!(mount.point, "/mnt2/a b\\");
        assert_eq!(
            (mount.kind.as_str(), mount.options.as_str()),
            ("ext3", "rw,errors=continue")
        );
        for line in [
            "",
            "1 2 3",
            "1 2 8:0 / /x rw",
            "1 2 8:0 / /\\9 rw - a b c",
            "x 2 8:0 / / rw - a b c",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn own_mounts_are_understood() {
        let all = of_process(i32::try_from(std::process::id()).unwrap()).unwrap();
        let proc = fs::File::open("/proc/self/stat").unwrap();
        let id = mount_of(std::os::fd::AsFd::as_fd(&proc)).unwrap();
        let found = all.iter().find(|mount| mount.id == id).unwrap();
        assert_eq!(
            (found.kind.as_str(), found.point.as_str()),
            ("proc", "/proc")
        );
    }
}
