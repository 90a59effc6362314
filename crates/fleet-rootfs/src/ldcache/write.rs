//! Writing the new format, as glibc 2.32 and newer do; older loaders read it, too, and skip what they do not know.

use std::collections::HashMap;

use super::{
    Cache, EXTENSION_MAGIC, LITTLE_ENDIAN, NEW_ENTRY, NEW_HEADER, NEW_MAGIC, TAG_GENERATOR,
    TAG_HWCAPS,
};

/// Written when the image's cache names no generator.
const GENERATOR: &[u8] = b"ldconfig (fleet-nvidia)";

/// Writes the new format, little-endian. The entries are taken as they are: [`super::sort`] comes before.
#[must_use]
pub fn serialise(cache: &Cache) -> Vec<u8> {
    let mut strings = Strings {
        base: NEW_HEADER + cache.entries.len() * NEW_ENTRY,
        bytes: Vec::with_capacity(cache.entries.len() * 48),
        known: HashMap::with_capacity(cache.entries.len()),
    };
    let mut table = Vec::with_capacity(cache.entries.len() * NEW_ENTRY);
    for entry in &cache.entries {
        let (key, path) = strings.library(&entry.key, &entry.path);
        for word in [entry.flags, key, path, entry.os_version] {
            table.extend(word.to_le_bytes());
        }
        table.extend(entry.hwcap.to_le_bytes());
    }
    let hwcaps: Vec<u32> = cache.hwcaps.iter().map(|name| strings.add(name)).collect();
    let extension_at = (strings.base + strings.bytes.len()).next_multiple_of(4);
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
    let generator = cache.generator.as_deref().unwrap_or(GENERATOR);
    out.extend(extension(extension_at, generator, &hwcaps));
    out
}

fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Magic and number of sections, a header for each (tag, flags, offset, size), and their content.
fn extension(at: usize, generator: &[u8], hwcaps: &[u32]) -> Vec<u8> {
    let sections = if hwcaps.is_empty() { 1 } else { 2 };
    let hwcaps_at = at + 8 + 16 * sections;
    let generator_at = hwcaps_at + hwcaps.len() * 4;
    let mut out = Vec::new();
    let mut put = |n: u32| out.extend(n.to_le_bytes());
    put(EXTENSION_MAGIC);
    put(word(sections));
    for n in [TAG_GENERATOR, 0, word(generator_at), word(generator.len())] {
        put(n);
    }
    if !hwcaps.is_empty() {
        for n in [TAG_HWCAPS, 0, word(hwcaps_at), word(hwcaps.len() * 4)] {
            put(n);
        }
    }
    hwcaps.iter().copied().for_each(put);
    out.extend(generator);
    out
}

/// Texts, each once.
struct Strings<'a> {
    base: usize,
    bytes: Vec<u8>,
    known: HashMap<&'a [u8], u32>,
}

impl<'a> Strings<'a> {
    fn add(&mut self, text: &'a [u8]) -> u32 {
        if let Some(at) = self.known.get(text) {
            return *at;
        }
        let at = word(self.base + self.bytes.len());
        self.bytes.extend(text);
        self.bytes.push(0);
        self.known.insert(text, at);
        at
    }

    /// A key is nearly always the end of its path, and then needs no text of its own.
    fn library(&mut self, key: &'a [u8], path: &'a [u8]) -> (u32, u32) {
        let path_at = self.add(path);
        if path.ends_with(key) {
            return (path_at + word(path.len() - key.len()), path_at);
        }
        (self.add(key), path_at)
    }
}
