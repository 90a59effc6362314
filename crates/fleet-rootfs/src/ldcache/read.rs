//! Reading a cache that the image's author may have written.

use super::{
    BIG_ENDIAN, Cache, EXTENSION_MAGIC, Entry, NEW_ENTRY, NEW_HEADER, NEW_MAGIC, OLD_ENTRY,
    OLD_HEADER, OLD_MAGIC, TAG_GENERATOR, TAG_HWCAPS,
};

/// More entries than any image has.
const MAX_ENTRIES: usize = 200_000;
/// Longest path (`PATH_MAX`).
const MAX_TEXT: usize = 4096;
/// Most bytes of all texts together: entries may share one, so a small file could ask for much memory.
const MAX_TEXTS: usize = 64 * 1024 * 1024;
/// Most `glibc-hwcaps` names; the loader's own table has three.
const MAX_HWCAPS: usize = 256;

/// A file that is no cache that can be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheError {
    /// Another file.
    #[error("it is not an ld.so.cache")]
    NotACache,
    /// A number in it points outside the file or is out of all proportion.
    #[error("it is damaged at byte {0}")]
    Damaged(usize),
    /// Written on a machine of the other byte order.
    #[error("it has the other byte order")]
    ForeignByteOrder,
}

type Result<T> = std::result::Result<T, CacheError>;

/// A file and what may still be read out of it.
struct Source<'a> {
    bytes: &'a [u8],
    texts: usize,
}

impl Source<'_> {
    fn u32(&self, at: usize) -> Result<u32> {
        let word = at.checked_add(4).and_then(|end| self.bytes.get(at..end));
        let word = word.and_then(|word| word.try_into().ok());
        word.map(u32::from_le_bytes).ok_or(CacheError::Damaged(at))
    }

    fn index(&self, at: usize) -> Result<usize> {
        usize::try_from(self.u32(at)?).map_err(|_| CacheError::Damaged(at))
    }

    fn text(&mut self, at: usize) -> Result<Vec<u8>> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let end = rest.iter().take(MAX_TEXT).position(|byte| *byte == 0);
        let end = end.ok_or(CacheError::Damaged(at))?;
        self.texts += end;
        if self.texts > MAX_TEXTS {
            return Err(CacheError::Damaged(at));
        }
        Ok(rest[..end].to_vec())
    }

    /// The number of entries, which must fit the file.
    fn count(&self, at: usize, header: usize, entry: usize) -> Result<usize> {
        let fits = |count: usize| {
            let end = count
                .checked_mul(entry)
                .and_then(|all| all.checked_add(header));
            count <= MAX_ENTRIES && end.is_some_and(|end| end <= self.bytes.len())
        };
        let count = self.index(at)?;
        if fits(count) {
            return Ok(count);
        }
        // A small number read backwards is a huge one.
        let swapped = usize::try_from(self.u32(at)?.swap_bytes()).unwrap_or(usize::MAX);
        Err(if fits(swapped) {
            CacheError::ForeignByteOrder
        } else {
            CacheError::Damaged(at)
        })
    }
}

/// Reads a cache of either format.
///
/// # Errors
/// [`CacheError`]; never a panic, whatever the bytes.
pub fn parse(bytes: &[u8]) -> Result<Cache> {
    let mut source = Source { bytes, texts: 0 };
    if bytes.starts_with(NEW_MAGIC) {
        return new_format(&mut source);
    }
    if !bytes.starts_with(OLD_MAGIC) {
        return Err(CacheError::NotACache);
    }
    let count = source.count(12, OLD_HEADER, OLD_ENTRY)?;
    let end = OLD_HEADER + count * OLD_ENTRY;
    if let Some(rest) = bytes
        .get(end.next_multiple_of(8)..)
        .filter(|rest| rest.starts_with(NEW_MAGIC))
    {
        return new_format(&mut Source {
            bytes: rest,
            texts: 0,
        });
    }
    let mut cache = Cache::default();
    for at in (OLD_HEADER..end).step_by(OLD_ENTRY) {
        // Offsets count from the end of the entries.
        let (key, path) = (source.index(at + 4)?, source.index(at + 8)?);
        cache.entries.push(Entry {
            flags: source.u32(at)?,
            key: source.text(end.saturating_add(key))?,
            path: source.text(end.saturating_add(path))?,
            os_version: 0,
            hwcap: 0,
        });
    }
    Ok(cache)
}

fn new_format(source: &mut Source<'_>) -> Result<Cache> {
    if source
        .bytes
        .get(28)
        .is_some_and(|flags| flags & 3 == BIG_ENDIAN)
    {
        return Err(CacheError::ForeignByteOrder);
    }
    let count = source.count(20, NEW_HEADER, NEW_ENTRY)?;
    let mut cache = Cache::default();
    for at in (NEW_HEADER..NEW_HEADER + count * NEW_ENTRY).step_by(NEW_ENTRY) {
        let (key, path) = (source.index(at + 4)?, source.index(at + 8)?);
        cache.entries.push(Entry {
            flags: source.u32(at)?,
            key: source.text(key)?,
            path: source.text(path)?,
            os_version: source.u32(at + 12)?,
            hwcap: u64::from(source.u32(at + 16)?) | (u64::from(source.u32(at + 20)?) << 32),
        });
    }
    match source.index(32)? {
        0 => {}
        extension => read_extension(source, extension, &mut cache)?,
    }
    Ok(cache)
}

fn read_extension(source: &mut Source<'_>, at: usize, cache: &mut Cache) -> Result<()> {
    if source.u32(at)? != EXTENSION_MAGIC {
        return Err(CacheError::Damaged(at));
    }
    let count = source.index(at.saturating_add(4))?;
    // Newer glibc may add sections; the two that matter come first.
    for section in (0..count.min(64)).map(|n| at.saturating_add(8 + n * 16)) {
        let tag = source.u32(section)?;
        let (offset, size) = (source.index(section + 8)?, source.index(section + 12)?);
        let body = offset
            .checked_add(size)
            .and_then(|end| source.bytes.get(offset..end));
        let body = body.ok_or(CacheError::Damaged(section))?;
        match tag {
            TAG_GENERATOR if size <= MAX_TEXT => cache.generator = Some(body.to_vec()),
            TAG_HWCAPS if size / 4 <= MAX_HWCAPS => {
                for at in (offset..offset + size / 4 * 4).step_by(4) {
                    let name = source.text(source.index(at)?)?;
                    cache.hwcaps.push(name);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ldcache::tests::sample;
    use crate::ldcache::{serialise, sort};
    use crate::noise::Noise;

    #[test]
    fn the_old_format() {
        let mut bytes = OLD_MAGIC.to_vec();
        bytes.extend(1_u32.to_le_bytes());
        for n in [3_u32, 0, 5] {
            bytes.extend(n.to_le_bytes());
        }
        bytes.extend(b"liba\0/x/liba\0");
        assert_eq!(parse(&bytes).unwrap().entries[0].path, b"/x/liba");
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_err(), "cut at {length}");
        }
        let new = serialise(&sample());
        let mut both = OLD_MAGIC.to_vec();
        both.extend(0_u32.to_le_bytes());
        both.extend(&new);
        assert_eq!(parse(&both).unwrap(), sample());
        // One entry makes 28 bytes: the new format starts at 32.
        let mut both = OLD_MAGIC.to_vec();
        both.extend(1_u32.to_le_bytes());
        both.extend([0; 16]);
        both.extend(&new);
        assert_eq!(parse(&both).unwrap(), sample());
    }

    #[test]
    fn the_other_byte_order() {
        let mut foreign = serialise(&sample());
        foreign[28] = 3;
        assert_eq!(parse(&foreign), Err(CacheError::ForeignByteOrder));
        // Before glibc 2.32 only the numbers tell.
        foreign[28] = 0;
        foreign[20..24].copy_from_slice(&3_u32.to_be_bytes());
        assert_eq!(parse(&foreign), Err(CacheError::ForeignByteOrder));
        let mut old = OLD_MAGIC.to_vec();
        old.extend(1_u32.to_be_bytes());
        old.extend([0; 64]);
        assert_eq!(parse(&old), Err(CacheError::ForeignByteOrder));
    }

    #[test]
    fn hostile_bytes_do_no_harm() {
        let good = serialise(&sample());
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_err(), "cut at {length}");
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                if let Ok(cache) = parse(&bad) {
                    drop(serialise(&cache));
                }
            }
        }
        assert_eq!(parse(b"x"), Err(CacheError::NotACache));
    }

    #[test]
    fn shared_texts_do_not_multiply() {
        // 100 000 entries that name one text of 4000 bytes twice: 800 MB if each got its own.
        let count = 100_000_usize;
        let mut bytes = NEW_MAGIC.to_vec();
        bytes.extend(u32::try_from(count).unwrap().to_le_bytes());
        bytes.resize(NEW_HEADER, 0);
        bytes[28] = 2;
        let text = u32::try_from(NEW_HEADER + count * NEW_ENTRY).unwrap();
        for _ in 0..count {
            bytes.extend(0x303_u32.to_le_bytes());
            bytes.extend(text.to_le_bytes());
            bytes.extend(text.to_le_bytes());
            bytes.extend([0; 12]);
        }
        bytes.extend([b'x'; 4000]);
        bytes.push(0);
        assert!(matches!(parse(&bytes), Err(CacheError::Damaged(_))));
    }

    /// What can be read is bounded, and is read again when it was written.
    #[test]
    fn damaged_files_of_every_format() {
        let new = serialise(&sample());
        let mut old = OLD_MAGIC.to_vec();
        old.extend(2_u32.to_le_bytes());
        for n in [0x303_u32, 0, 5, 3, 5, 0] {
            old.extend(n.to_le_bytes());
        }
        old.extend(b"liba\0/x/liba\0");
        let mut both = OLD_MAGIC.to_vec();
        both.extend(0_u32.to_le_bytes());
        both.extend(&new);
        let own = std::fs::read("/etc/ld.so.cache").unwrap_or_default();
        let mut noise = Noise::new();
        let mut read = 0;
        for (good, rounds) in [(&new, 5000), (&old, 5000), (&both, 5000), (&own, 20)] {
            for _ in 0..rounds {
                let bytes = noise.damaged(good);
                let Ok(mut cache) = parse(&bytes) else {
                    continue;
                };
                read += 1;
                let texts = cache
                    .entries
                    .iter()
                    .map(|entry| entry.key.len() + entry.path.len());
                assert!(texts.sum::<usize>() <= MAX_TEXTS && cache.entries.len() <= MAX_ENTRIES);
                assert!(cache.hwcaps.len() <= MAX_HWCAPS * 64);
                sort(&mut cache);
                cache.generator.get_or_insert_default();
                assert_eq!(parse(&serialise(&cache)).as_ref(), Ok(&cache));
            }
        }
        assert!(read > 500, "{read}");
    }
}
