//! Compiled filters by what they were compiled from.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Filter;
use crate::error::{Context, Result};
use crate::record::place_file;

/// First bytes of a cache file. The last one changes with what a profile is compiled to.
const MAGIC: &[u8; 8] = b"FLEETBP2";
/// Kernels take at most 4096 instructions of 8 bytes (`BPF_MAXINSNS`).
const MAX_BPF: usize = 4096 * 8;
const DIGEST: usize = 32;

/// Everything the compiled form depends on.
pub(super) fn key(profile: &Value) -> [u8; DIGEST] {
    let library = libseccomp::ScmpVersion::current()
        .map(|v| format!("{}.{}.{}", v.major, v.minor, v.micro))
        .unwrap_or_default();
    let kernel = nix::sys::utsname::uname()
        .map(|name| name.release().to_os_string())
        .unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [
        env!("CARGO_PKG_VERSION"),
        &library,
        &kernel.to_string_lossy(),
        std::env::consts::ARCH,
        // What is put before libseccomp's program, and which flags are kept.
        "stub 1, notify",
    ] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(profile.to_string().as_bytes());
    hash.finalize().into()
}

fn name(key: &[u8; DIGEST]) -> String {
    key.iter()
        .take(16)
        .fold("seccomp-".to_owned(), |name, byte| {
            format!("{name}{byte:02x}")
        })
}

/// A filter of ours, or nothing.
pub(super) fn read(directory: &Path, key: &[u8; DIGEST]) -> Option<Filter> {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(directory.join(name(key)))
        .ok()?;
    let meta = file.metadata().ok()?;
    // Whoever could write it could make us install a filter that allows all.
    let ours =
        meta.is_file() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o077 == 0;
    let most = MAGIC.len() + 2 * DIGEST + 4 + MAX_BPF;
    if !ours || meta.len() > u64::try_from(most).ok()? {
        return None;
    }
    let mut bytes = Vec::with_capacity(most);
    Read::take(&mut file, meta.len())
        .read_to_end(&mut bytes)
        .ok()?;
    decode(&bytes, key)
}

fn decode(bytes: &[u8], key: &[u8; DIGEST]) -> Option<Filter> {
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(key)?;
    let (sum, body) = rest.split_at_checked(DIGEST)?;
    let (flags, bpf) = body.split_at_checked(4)?;
    let sound = Sha256::digest(body).as_slice() == sum
        && !bpf.is_empty()
        && bpf.len() % 8 == 0
        && bpf.len() <= MAX_BPF;
    sound.then(|| Filter {
        bpf: bpf.to_vec(),
        flags: u32::from_le_bytes([flags[0], flags[1], flags[2], flags[3]]),
    })
}

fn encode(key: &[u8; DIGEST], filter: &Filter) -> Vec<u8> {
    let mut body = filter.flags.to_le_bytes().to_vec();
    body.extend_from_slice(&filter.bpf);
    [
        MAGIC.as_slice(),
        key,
        Sha256::digest(&body).as_slice(),
        &body,
    ]
    .concat()
}

/// Best effort: without a cache the filter is compiled again.
pub(super) fn write(directory: &Path, key: &[u8; DIGEST], filter: &Filter) {
    let save = || -> Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .op(|| "make the cache")?;
        place_file(&directory.join(name(key)), &encode(key, filter), 0o600)
    };
    drop(save());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_read_is_what_was_written() {
        let dir = std::env::temp_dir().join(format!("fleet-seccomp-{}", std::process::id()));
        let key = key(&serde_json::json!({"a": 1}));
        let filter = Filter {
            bpf: vec![7; 16],
            flags: 2,
        };
        assert!(read(&dir, &key).is_none());
        write(&dir, &key, &filter);
        assert_eq!(read(&dir, &key), Some(filter.clone()));
        let path = dir.join(name(&key));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(read(&dir, &key).is_none(), "writable by others");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(read(&dir, &key).is_none(), "damaged");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(read(&dir, &key).is_none(), "a link");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn keys_differ_by_profile() {
        assert_ne!(
            key(&serde_json::json!({"a": 1})),
            key(&serde_json::json!({"a": 2}))
        );
    }
}
