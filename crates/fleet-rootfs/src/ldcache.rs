//! glibc's `ld.so.cache`: reading both formats, writing the new one (`glibc sysdeps/generic/dl-cache.h`).

use std::cmp::Ordering;

/// Header of the new format.
const NEW_MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";
/// Header of the old format, which may have the new one behind it.
const OLD_MAGIC: &[u8; 12] = b"ld.so-1.7.0\0";
const NEW_HEADER: usize = 48;
const NEW_ENTRY: usize = 24;
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
/// `cache_file_new_flags_endian_*`: the low two bits; 2 is little, 3 big, 0 unknown (older glibc).
const LITTLE_ENDIAN: u8 = 2;
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
const TAG_GENERATOR: u32 = 0;
const TAG_HWCAPS: u32 = 1;
/// An entry for a `glibc-hwcaps` directory; the low half is an index into the extension's names.
pub const HWCAP_EXTENSION: u64 = 1 << 62;
/// More entries than any image has.
const MAX_ENTRIES: usize = 200_000;

/// One library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `FLAG_ELF_LIBC6` and the architecture, such as 0x0303.
    pub flags: u32,
    /// What programs ask for, such as `libcuda.so.1`.
    pub key: String,
    /// Absolute path.
    pub path: String,
    /// Least kernel version; 0 in newer glibc.
    pub os_version: u32,
    /// Hardware capability, or [`HWCAP_EXTENSION`] and an index.
    pub hwcap: u64,
}

/// A cache's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cache {
    /// In file order.
    pub entries: Vec<Entry>,
    /// Names of `glibc-hwcaps` directories, such as `x86-64-v3`.
    pub hwcaps: Vec<String>,
    /// What wrote it.
    pub generator: Option<String>,
}

/// A file that is no cache that can be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CacheError {
    /// Another file, or a damaged one.
    #[error("it is not an ld.so.cache")]
    NotACache,
    /// Written on a machine of the other byte order.
    #[error("it has the other byte order")]
    ForeignByteOrder,
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, CacheError> {
    let slice = bytes
        .get(at..at.saturating_add(4))
        .ok_or(CacheError::NotACache)?;
    Ok(u32::from_le_bytes(
        slice.try_into().map_err(|_| CacheError::NotACache)?,
    ))
}

fn index(bytes: &[u8], at: usize) -> Result<usize, CacheError> {
    usize::try_from(u32_at(bytes, at)?).map_err(|_| CacheError::NotACache)
}

fn text_at(bytes: &[u8], at: usize) -> Result<String, CacheError> {
    let rest = bytes.get(at..).ok_or(CacheError::NotACache)?;
    let end = rest
        .iter()
        .take(4096)
        .position(|byte| *byte == 0)
        .ok_or(CacheError::NotACache)?;
    String::from_utf8(rest[..end].to_vec()).map_err(|_| CacheError::NotACache)
}

/// Reads a cache of either format.
///
/// # Errors
/// [`CacheError`]; never a panic, whatever the bytes.
pub fn parse(bytes: &[u8]) -> Result<Cache, CacheError> {
    if bytes.starts_with(NEW_MAGIC) {
        return parse_new(bytes);
    }
    if !bytes.starts_with(OLD_MAGIC) {
        return Err(CacheError::NotACache);
    }
    let count = index(bytes, 12)?;
    if count > MAX_ENTRIES {
        return Err(CacheError::NotACache);
    }
    let end = OLD_HEADER + count * OLD_ENTRY;
    let aligned = end.next_multiple_of(8);
    if bytes
        .get(aligned..)
        .is_some_and(|rest| rest.starts_with(NEW_MAGIC))
    {
        return parse_new(&bytes[aligned..]);
    }
    let entries = (0..count).map(|n| {
        let at = OLD_HEADER + n * OLD_ENTRY;
        // Offsets count from the end of the entries.
        let text = |offset: usize| text_at(bytes, end.saturating_add(offset));
        Ok(Entry {
            flags: u32_at(bytes, at)?,
            key: text(index(bytes, at + 4)?)?,
            path: text(index(bytes, at + 8)?)?,
            os_version: 0,
            hwcap: 0,
        })
    });
    Ok(Cache {
        entries: entries.collect::<Result<_, _>>()?,
        ..Cache::default()
    })
}

fn parse_new(bytes: &[u8]) -> Result<Cache, CacheError> {
    let count = index(bytes, 20)?;
    let order = bytes.get(28).copied().ok_or(CacheError::NotACache)? & 3;
    if order == 3 {
        return Err(CacheError::ForeignByteOrder);
    }
    if count > MAX_ENTRIES {
        return Err(CacheError::NotACache);
    }
    let mut cache = Cache::default();
    for n in 0..count {
        let at = NEW_HEADER + n * NEW_ENTRY;
        cache.entries.push(Entry {
            flags: u32_at(bytes, at)?,
            key: text_at(bytes, index(bytes, at + 4)?)?,
            path: text_at(bytes, index(bytes, at + 8)?)?,
            os_version: u32_at(bytes, at + 12)?,
            hwcap: u64::from(u32_at(bytes, at + 16)?) | (u64::from(u32_at(bytes, at + 20)?) << 32),
        });
    }
    let extension = index(bytes, 32)?;
    if extension != 0 {
        read_extension(bytes, extension, &mut cache)?;
    }
    Ok(cache)
}

fn read_extension(bytes: &[u8], at: usize, cache: &mut Cache) -> Result<(), CacheError> {
    if u32_at(bytes, at)? != EXTENSION_MAGIC {
        return Err(CacheError::NotACache);
    }
    let count = index(bytes, at.saturating_add(4))?.min(64);
    for n in 0..count {
        let section = at + 8 + n * 16;
        let (tag, offset, size) = (
            u32_at(bytes, section)?,
            index(bytes, section + 8)?,
            index(bytes, section + 12)?,
        );
        let body = bytes
            .get(offset..offset.saturating_add(size))
            .ok_or(CacheError::NotACache)?;
        match tag {
            TAG_GENERATOR => cache.generator = String::from_utf8(body.to_vec()).ok(),
            TAG_HWCAPS => {
                for at in (0..body.len() / 4).map(|n| n * 4) {
                    cache.hwcaps.push(text_at(bytes, index(body, at)?)?);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The order of names in a cache: digits compare as numbers (`_dl_cache_libcmp`).
#[must_use]
pub fn compare_names(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let (mut l, mut r) = (0, 0);
    let number = |text: &[u8], at: &mut usize| {
        let mut value = 0_u64;
        while let Some(digit) = text.get(*at).filter(|b| b.is_ascii_digit()) {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            *at += 1;
        }
        value
    };
    while l < left.len() {
        let (a, b) = (left[l], right.get(r).copied().unwrap_or(0));
        match (a.is_ascii_digit(), b.is_ascii_digit()) {
            (true, true) => match number(left, &mut l).cmp(&number(right, &mut r)) {
                Ordering::Equal => {}
                other => return other,
            },
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) if a != b => return a.cmp(&b),
            (false, false) => {
                l += 1;
                r += 1;
            }
        }
    }
    if r < right.len() {
        Ordering::Less
    } else {
        Ordering::Equal
    }
}

/// Puts entries into the order that the loader's binary search needs: names descending, and among equal names the
/// more special first. Entries that are equal in all that keep their order, which is the order of directories.
pub fn sort(entries: &mut [Entry]) {
    entries.sort_by(|a, b| {
        compare_names(&b.key, &a.key)
            .then_with(|| b.flags.cmp(&a.flags))
            .then_with(|| (b.hwcap & HWCAP_EXTENSION != 0).cmp(&(a.hwcap & HWCAP_EXTENSION != 0)))
            .then_with(|| b.hwcap.cmp(&a.hwcap))
    });
}

/// Writes the new format, little-endian.
#[must_use]
pub fn serialise(cache: &Cache) -> Vec<u8> {
    let mut strings = Strings {
        base: NEW_HEADER + cache.entries.len() * NEW_ENTRY,
        ..Strings::default()
    };
    let mut table = Vec::with_capacity(cache.entries.len() * NEW_ENTRY);
    for entry in &cache.entries {
        let (key, path) = (strings.add(&entry.key), strings.add(&entry.path));
        for word in [entry.flags, key, path, entry.os_version] {
            table.extend(word.to_le_bytes());
        }
        table.extend(entry.hwcap.to_le_bytes());
    }
    let hwcaps: Vec<u32> = cache.hwcaps.iter().map(|name| strings.add(name)).collect();
    let body = strings.base + strings.bytes.len();
    let extension_at = body.next_multiple_of(4);
    let mut out = Vec::with_capacity(extension_at + 256);
    out.extend(NEW_MAGIC);
    out.extend(word(cache.entries.len()).to_le_bytes());
    out.extend(word(strings.bytes.len()).to_le_bytes());
    out.extend([LITTLE_ENDIAN, 0, 0, 0]);
    out.extend(word(extension_at).to_le_bytes());
    out.extend([0; 12]);
    out.extend(table);
    out.extend(strings.bytes);
    out.resize(extension_at, 0);
    out.extend(extension(
        extension_at,
        cache.generator.as_deref().unwrap_or(GENERATOR),
        &hwcaps,
    ));
    out
}

/// Written when the image's cache names no generator.
const GENERATOR: &str = "ldconfig (fleet-nvidia)";

fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn extension(at: usize, generator: &str, hwcaps: &[u32]) -> Vec<u8> {
    let sections: u32 = if hwcaps.is_empty() { 1 } else { 2 };
    let hwcaps_at = at + 8 + 16 * usize::try_from(sections).unwrap_or(2);
    let generator_at = hwcaps_at + hwcaps.len() * 4;
    let mut out = Vec::new();
    let mut put = |n: u32| out.extend(n.to_le_bytes());
    put(EXTENSION_MAGIC);
    put(sections);
    for n in [TAG_GENERATOR, 0, word(generator_at), word(generator.len())] {
        put(n);
    }
    if !hwcaps.is_empty() {
        for n in [TAG_HWCAPS, 0, word(hwcaps_at), word(hwcaps.len() * 4)] {
            put(n);
        }
    }
    hwcaps.iter().copied().for_each(put);
    out.extend(generator.as_bytes());
    out
}

#[derive(Default)]
struct Strings {
    base: usize,
    bytes: Vec<u8>,
    known: std::collections::HashMap<String, u32>,
}

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        if let Some(at) = self.known.get(text) {
            return *at;
        }
        let at = word(self.base + self.bytes.len());
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self.known.insert(text.to_owned(), at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, path: &str) -> Entry {
        Entry {
            flags: 0x303,
            key: key.into(),
            path: path.into(),
            os_version: 0,
            hwcap: 0,
        }
    }

    fn sample() -> Cache {
        let mut fast = entry("libx.so.1", "/usr/lib/glibc-hwcaps/x86-64-v3/libx.so.1");
        fast.hwcap = HWCAP_EXTENSION;
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
    }

    #[test]
    fn names_order_as_the_loader_has_it() {
        for (less, more) in [
            ("liba.so", "libb.so"),
            ("libx.so.2", "libx.so.10"),
            ("libx.so", "libx.so.1"),
            ("lib.so", "lib1.so"),
        ] {
            assert_eq!(compare_names(less, more), Ordering::Less, "{less} {more}");
            assert_eq!(
                compare_names(more, less),
                Ordering::Greater,
                "{less} {more}"
            );
        }
        assert_eq!(compare_names("a1", "a1"), Ordering::Equal);
    }

    #[test]
    fn the_old_format() {
        let mut bytes = OLD_MAGIC.to_vec();
        bytes.extend(1_u32.to_le_bytes());
        for n in [3_u32, 0, 5] {
            bytes.extend(n.to_le_bytes());
        }
        bytes.extend(b"liba\0/x/liba\0");
        assert_eq!(parse(&bytes).unwrap().entries[0].path, "/x/liba");
        let new = serialise(&sample());
        let mut both = OLD_MAGIC.to_vec();
        both.extend(0_u32.to_le_bytes());
        both.extend(&new);
        assert_eq!(parse(&both).unwrap(), sample());
    }

    #[test]
    fn hostile_bytes_do_no_harm() {
        let good = serialise(&sample());
        for length in 0..good.len() {
            drop(parse(&good[..length]));
        }
        for at in 0..good.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                drop(parse(&bad));
            }
        }
        assert_eq!(parse(b"x"), Err(CacheError::NotACache));
        let mut foreign = good.clone();
        foreign[28] = 3;
        assert_eq!(parse(&foreign), Err(CacheError::ForeignByteOrder));
    }

    #[test]
    fn the_machines_own_cache() {
        let Ok(bytes) = std::fs::read("/etc/ld.so.cache") else {
            println!("SKIP the_machines_own_cache: no /etc/ld.so.cache");
            return;
        };
        let cache = parse(&bytes).unwrap();
        assert!(cache.entries.iter().any(|e| e.key == "libc.so.6"));
        let mut sorted = cache.entries.clone();
        sort(&mut sorted);
        let keys = |entries: &[Entry]| entries.iter().map(|e| e.key.clone()).collect::<Vec<_>>();
        assert_eq!(
            keys(&sorted),
            keys(&cache.entries),
            "our order is ldconfig's"
        );
        assert_eq!(parse(&serialise(&cache)).unwrap(), cache);
    }
}
