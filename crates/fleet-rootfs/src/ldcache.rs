//! glibc's `ld.so.cache`: reading both formats, writing the new one (`glibc sysdeps/generic/dl-cache.h`).
//!
//! Little-endian files only, as on every machine that has these GPUs.

mod order;
mod read;
mod write;

pub(crate) use order::compare;
pub use order::{compare_names, sort};
pub use read::{CacheError, parse};
pub use write::serialise;

/// Header of the new format; 1.1 is its version.
const NEW_MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";
/// Header of the old format, which may have the new one behind it.
const OLD_MAGIC: &[u8; 12] = b"ld.so-1.7.0\0";
/// Magic, number of entries, length of the strings, flags (4), offset of the extension, unused (12).
const NEW_HEADER: usize = 48;
/// Flags, key, value, OS version, hwcap.
const NEW_ENTRY: usize = 24;
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
/// Low two bits of the flags: 0 not told (glibc before 2.32), 1 invalid, 2 little, 3 big.
const LITTLE_ENDIAN: u8 = 2;
const BIG_ENDIAN: u8 = 3;
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
const TAG_GENERATOR: u32 = 0;
const TAG_HWCAPS: u32 = 1;
/// Set in [`Entry::hwcap`] of an entry for a `glibc-hwcaps` directory; the low half is then an index into
/// [`Cache::hwcaps`].
pub const HWCAP_EXTENSION: u64 = 1 << 62;
/// Bits of [`Entry::hwcap`] for the instruction set level that such a library needs.
const ISA_LEVEL: u64 = 0x3ff << 32;

/// One library. Names are bytes, as file names are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `FLAG_ELF_LIBC6` and the architecture, such as 0x0303.
    pub flags: u32,
    /// What programs ask for, such as `libcuda.so.1`.
    pub key: Vec<u8>,
    /// Absolute path.
    pub path: Vec<u8>,
    /// Least kernel version; 0 in newer glibc.
    pub os_version: u32,
    /// Hardware capability bits of older glibc, or [`HWCAP_EXTENSION`] and an index.
    pub hwcap: u64,
}

impl Entry {
    /// Index into [`Cache::hwcaps`] of an entry for a `glibc-hwcaps` directory.
    #[must_use]
    pub fn hwcaps_index(&self) -> Option<usize> {
        let high = self.hwcap & !ISA_LEVEL & !u64::from(u32::MAX);
        let low = self.hwcap & u64::from(u32::MAX);
        (high == HWCAP_EXTENSION)
            .then(|| usize::try_from(low).ok())
            .flatten()
    }
}

/// A cache's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cache {
    /// In file order.
    pub entries: Vec<Entry>,
    /// Names of `glibc-hwcaps` directories, such as `x86-64-v3`, ascending by bytes: the loader compares them in this
    /// order.
    pub hwcaps: Vec<Vec<u8>>,
    /// What wrote it.
    pub generator: Option<Vec<u8>>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn entry(key: &str, path: &str) -> Entry {
        Entry {
            flags: 0x303,
            key: key.into(),
            path: path.into(),
            os_version: 0,
            hwcap: 0,
        }
    }

    pub(crate) fn sample() -> Cache {
        let mut fast = entry("libx.so.1", "/usr/lib/glibc-hwcaps/x86-64-v3/libx.so.1");
        fast.hwcap = HWCAP_EXTENSION | (7 << 32);
        Cache {
            entries: vec![
                entry("libz.so.1", "/lib/libz.so.1"),
                fast,
                entry("libx.so.1", "/lib/libx.so.1"),
            ],
            hwcaps: vec!["x86-64-v3".into()],
            generator: Some("test".into()),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(parse(&serialise(&sample())).unwrap(), sample());
        let mut bytes = sample();
        bytes.entries[0].path = b"/lib/libz\xff.so.1".to_vec();
        assert_eq!(parse(&serialise(&bytes)).unwrap(), bytes);
        assert_eq!(parse(&serialise(&Cache::default())).unwrap().entries, []);
    }

    #[test]
    fn an_index_is_told_from_bits() {
        assert_eq!(sample().entries[1].hwcaps_index(), Some(0));
        let mut old = entry("libx.so.1", "/lib/haswell/libx.so.1");
        old.hwcap = 1 << 50;
        assert_eq!(old.hwcaps_index(), None);
    }

    #[test]
    fn the_machines_own_cache() {
        let Ok(bytes) = std::fs::read("/etc/ld.so.cache") else {
            println!("SKIP the_machines_own_cache: no /etc/ld.so.cache");
            return;
        };
        let cache = parse(&bytes).unwrap();
        assert!(cache.entries.iter().any(|e| e.key == b"libc.so.6"));
        let mut sorted = cache.clone();
        sort(&mut sorted);
        assert_eq!(sorted, cache, "our order is ldconfig's");
        assert_eq!(parse(&serialise(&cache)).unwrap(), cache);
    }
}
