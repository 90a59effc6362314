//! The few facts of an ELF file that a loader's cache and the compat decision need, read by offset.
//!
//! The files come from images: every offset is checked, sizes are bounded, and nothing is read twice as large.

use std::fs::File;

use crate::root::read_at;

/// Facts of a shared library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Library {
    /// `e_machine`.
    pub(crate) machine: u16,
    /// Whether it is a 64-bit file.
    pub(crate) wide: bool,
    /// `DT_SONAME`.
    pub(crate) soname: Option<String>,
}

/// Most program or section headers looked at; real files have about a dozen and some dozens.
const MAX_HEADERS: u64 = 256;
/// Most bytes of a dynamic section or string table that are read.
const MAX_TABLE: u64 = 4 * 1024 * 1024;
const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_SONAME: u64 = 14;

/// Little-endian reader over a slice.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.0.get(at..at + 2)?.try_into().ok()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
    }

    fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.0.get(at..at + 8)?.try_into().ok()?))
    }

    /// An address-sized number.
    fn word(&self, at: usize, wide: bool) -> Option<u64> {
        if wide {
            self.u64(at)
        } else {
            self.u32(at).map(u64::from)
        }
    }
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// Reads a shared library; nothing for any other file.
pub(crate) fn library(file: &File) -> Option<Library> {
    let head = read_at(file, 0, 52)?;
    let head = if head.get(4) == Some(&2) {
        read_at(file, 0, 64)?
    } else {
        head
    };
    let bytes = Bytes(&head);
    if head.get(..4)? != b"\x7fELF" || head.get(5) != Some(&1) {
        return None;
    }
    let wide = match head.get(4)? {
        1 => false,
        2 => true,
        _ => return None,
    };
    if bytes.u16(16)? != ET_DYN {
        return None;
    }
    let segments = segments(file, &bytes, wide)?;
    let soname = segments
        .iter()
        .find(|s| s.kind == PT_DYNAMIC)
        .and_then(|dynamic| soname(file, dynamic, &segments, wide));
    Some(Library {
        machine: bytes.u16(18)?,
        wide,
        soname,
    })
}

fn segments(file: &File, head: &Bytes<'_>, wide: bool) -> Option<Vec<Segment>> {
    let (offset, size, count) = if wide {
        (head.u64(32)?, head.u16(54)?, head.u16(56)?)
    } else {
        (u64::from(head.u32(28)?), head.u16(42)?, head.u16(44)?)
    };
    let least = if wide { 56 } else { 32 };
    if u64::from(count) > MAX_HEADERS || usize::from(size) < least {
        return None;
    }
    let table = read_at(file, offset, usize::from(size) * usize::from(count))?;
    table
        .chunks_exact(usize::from(size))
        .map(|chunk| segment(&Bytes(chunk), wide))
        .collect()
}

fn segment(bytes: &Bytes<'_>, wide: bool) -> Option<Segment> {
    let kind = bytes.u32(0)?;
    Some(if wide {
        Segment {
            kind,
            offset: bytes.u64(8)?,
            address: bytes.u64(16)?,
            size: bytes.u64(32)?,
        }
    } else {
        Segment {
            kind,
            offset: bytes.u32(4)?.into(),
            address: bytes.u32(8)?.into(),
            size: bytes.u32(16)?.into(),
        }
    })
}

fn soname(file: &File, dynamic: &Segment, segments: &[Segment], wide: bool) -> Option<String> {
    let entry = if wide { 16 } else { 8 };
    let table = read_at(
        file,
        dynamic.offset,
        usize::try_from(dynamic.size.min(MAX_TABLE)).ok()?,
    )?;
    let (mut name, mut strings, mut length) = (None, None, None);
    for chunk in table.chunks_exact(entry) {
        let bytes = Bytes(chunk);
        let (tag, value) = (bytes.word(0, wide)?, bytes.word(entry / 2, wide)?);
        match tag {
            0 => break,
            DT_SONAME => name = Some(value),
            DT_STRTAB => strings = Some(value),
            DT_STRSZ => length = Some(value),
            _ => {}
        }
    }
    let (name, strings) = (name?, strings?);
    let load = segments
        .iter()
        .find(|s| s.kind == PT_LOAD && s.address <= strings && strings - s.address < s.size)?;
    let start = (strings - load.address)
        .checked_add(load.offset)?
        .checked_add(name)?;
    // A name is short; the table's end bounds it, too.
    let left = length?.checked_sub(name)?.min(256);
    let text = read_at(file, start, usize::try_from(left).ok()?)?;
    let end = text.iter().position(|byte| *byte == 0)?;
    let soname = String::from_utf8(text[..end].to_vec()).ok()?;
    (!soname.is_empty() && !soname.contains('/')).then_some(soname)
}

/// The content of a section by name, at most `limit` bytes; 64-bit files only.
pub(crate) fn section(file: &File, name: &str, limit: u64) -> Option<Vec<u8>> {
    let head = read_at(file, 0, 64)?;
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let head = Bytes(&head);
    let (offset, size, count, names) = (head.u64(40)?, head.u16(58)?, head.u16(60)?, head.u16(62)?);
    if u64::from(count) > MAX_HEADERS || size < 64 {
        return None;
    }
    let table = read_at(file, offset, usize::from(size) * usize::from(count))?;
    let sections: Vec<Bytes<'_>> = table.chunks_exact(usize::from(size)).map(Bytes).collect();
    let extent = |section: &Bytes<'_>| Some((section.u64(24)?, section.u64(32)?));
    let (start, length) = extent(sections.get(usize::from(names))?)?;
    let texts = read_at(file, start, usize::try_from(length.min(MAX_TABLE)).ok()?)?;
    let wanted = sections.iter().find(|section| {
        let at = section
            .u32(0)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(usize::MAX);
        texts
            .get(at..)
            .is_some_and(|rest| rest.split(|b| *b == 0).next() == Some(name.as_bytes()))
    })?;
    let (start, length) = extent(wanted)?;
    (length <= limit)
        .then(|| read_at(file, start, usize::try_from(length).ok()?))
        .flatten()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::root::tests::Tree;

    /// A shared library with one name and no code.
    pub(crate) fn image(wide: bool, machine: u16, soname: &str) -> Vec<u8> {
        let mut strings = vec![0];
        strings.extend(soname.as_bytes());
        strings.push(0);
        let (head, program, entry) = if wide {
            (64_usize, 56_usize, 16_usize)
        } else {
            (52, 32, 8)
        };
        let dynamic_at = head + 2 * program;
        let strings_at = dynamic_at + 4 * entry;
        let total = strings_at + strings.len();
        let mut out = vec![0; total];
        let mut put = |at: usize, value: u64, width: usize| {
            out[at..at + width].copy_from_slice(&value.to_le_bytes()[..width])
        };
        let word = if wide { 8 } else { 4 };
        put(0, u64::from(u32::from_le_bytes(*b"\x7fELF")), 4);
        put(4, if wide { 2 } else { 1 }, 1);
        put(5, 1, 1);
        put(6, 1, 1);
        put(16, 3, 2);
        put(18, machine.into(), 2);
        if wide {
            put(32, 64, 8);
            put(54, 56, 2);
            put(56, 2, 2);
        } else {
            put(28, 52, 4);
            put(42, 32, 2);
            put(44, 2, 2);
        }
        for (n, kind, offset, size) in [(0, 1, 0, total), (1, 2, dynamic_at, 4 * entry)] {
            let at = head + n * program;
            put(at, kind, 4);
            if wide {
                put(at + 8, offset as u64, 8);
                put(at + 16, offset as u64, 8);
                put(at + 32, size as u64, 8);
            } else {
                put(at + 4, offset as u64, 4);
                put(at + 8, offset as u64, 4);
                put(at + 16, size as u64, 4);
            }
        }
        for (n, (tag, value)) in [(14, 1), (5, strings_at), (10, strings.len()), (0, 0)]
            .into_iter()
            .enumerate()
        {
            put(dynamic_at + n * entry, tag, word);
            put(dynamic_at + n * entry + entry / 2, value as u64, word);
        }
        out[strings_at..].copy_from_slice(&strings);
        out
    }

    fn parse(bytes: &[u8]) -> Option<Library> {
        let tree = Tree::new(&format!("elf-{:?}", std::thread::current().id()));
        tree.write("x", bytes);
        library(&tree.root().open_file("/x").unwrap())
    }

    #[test]
    fn both_classes() {
        let wide = parse(&image(true, 62, "libx.so.1")).unwrap();
        assert_eq!(
            wide,
            Library {
                machine: 62,
                wide: true,
                soname: Some("libx.so.1".into())
            }
        );
        let narrow = parse(&image(false, 3, "liby.so.2")).unwrap();
        assert_eq!(
            narrow,
            Library {
                machine: 3,
                wide: false,
                soname: Some("liby.so.2".into())
            }
        );
    }

    #[test]
    fn damaged_files_are_no_libraries() {
        let good = image(true, 62, "libx.so.1");
        for length in 0..good.len() {
            drop(parse(&good[..length]));
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = 0xff;
            drop(parse(&bad));
        }
        assert_eq!(parse(b"#!/bin/sh\n"), None);
        assert!(parse(&image(true, 62, "../x")).unwrap().soname.is_none());
    }

    #[test]
    fn a_real_library() {
        let file = File::open("/lib/x86_64-linux-gnu/libc.so.6");
        let Ok(file) = file else {
            println!("SKIP a_real_library: no /lib/x86_64-linux-gnu/libc.so.6");
            return;
        };
        assert_eq!(library(&file).unwrap().soname.as_deref(), Some("libc.so.6"));
        assert!(section(&file, ".note.gnu.build-id", 4096).is_some());
        assert!(section(&file, ".no.such.section", 4096).is_none());
    }
}
