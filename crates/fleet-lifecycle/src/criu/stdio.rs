//! What a container's standard streams were when it was made, in the words by which CRIU knows open files.
//!
//! The container may have given its streams to another process since, and opened others in their place.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::table;

/// Streams of the process with this name below `/proc`: `pipe:[INODE]`, `file[MOUNT:INODE]` for what has a name,
/// otherwise empty. Those that cannot be told are empty as well: CRIU then says what it cannot save.
pub(crate) fn of(process: &str) -> Vec<String> {
    (0..=2)
        .map(|fd| key(process, fd).unwrap_or_default())
        .collect()
}

fn key(process: &str, fd: u32) -> Option<String> {
    let link = format!("/proc/{process}/fd/{fd}");
    let target = fs::read_link(&link)
        .ok()?
        .into_os_string()
        .into_string()
        .ok()?;
    if target.starts_with("pipe:[") {
        return Some(target);
    }
    let meta = fs::metadata(&link).ok()?;
    if !target.starts_with('/') {
        return None;
    }
    let mount = table::mount_of_entry(&format!("/proc/{process}/fdinfo/{fd}")).ok()?;
    Some(format!("file[{mount:x}:{:x}]", meta.ino()))
}

/// Whether a stream is a file outside of the container, which CRIU must be told of.
pub(crate) fn is_file(key: &str) -> bool {
    parts(key, "file[").is_some_and(|inner| {
        inner.split_once(':').is_some_and(|(mount, inode)| {
            u32::from_str_radix(mount, 16).is_ok() && u64::from_str_radix(inode, 16).is_ok()
        })
    })
}

/// Whether a text is one that [`of`] gives.
pub(crate) fn is_key(key: &str) -> bool {
    let pipe = parts(key, "pipe:[").is_some_and(|inode| inode.parse::<u64>().is_ok());
    key.is_empty() || pipe || is_file(key)
}

fn parts<'a>(key: &'a str, kind: &str) -> Option<&'a str> {
    key.strip_prefix(kind)?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_criu() {
        for key in ["", "pipe:[123]", "file[1a:2b]"] {
            assert!(is_key(key), "{key}");
        }
        for key in [
            "pipe:[x]",
            "pipe:[1",
            "file[1a]",
            "file[1:z]",
            "socket:[1]",
            "/etc/shadow",
            "pipe:[1]\nx",
        ] {
            assert!(!is_key(key), "{key}");
        }
        assert!(is_file("file[1a:2b]") && !is_file("pipe:[1]"));
        let own = of("self");
        assert_eq!(own.len(), 3);
        assert!(own.iter().all(|key| is_key(key)), "{own:?}");
        assert_eq!(of("0"), ["", "", ""]);
    }
}
