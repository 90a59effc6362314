//! The few facts of an ELF file that a loader's cache and the compat decision need, read by offset.
//!
//! The files come from images: every offset is checked, sizes are bounded, and of a library of hundreds of megabytes
//! the headers, the dynamic section and one name are read.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Facts of a shared library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// `e_machine`.
    pub machine: u16,
    /// Whether it is a 64-bit file.
    pub wide: bool,
    /// `e_flags`, which hold the float ABI on 32-bit Arm.
    pub flags: u32,
    /// `DT_SONAME`, where it is a name that can lie beside the library.
    pub soname: Option<String>,
}

/// Most program or section headers looked at; real files have about a dozen and some dozens.
const MAX_HEADERS: u16 = 256;
/// Most bytes of a dynamic section or a table of section names that are read.
const MAX_TABLE: u64 = 64 * 1024;
/// Longest file name.
const MAX_NAME: u64 = 256;
/// Header and program headers of every real library fit in here, so that one read fetches both.
const START: usize = 1024;
const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_SONAME: u64 = 14;

/// Little-endian reader over a slice.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
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

/// Reads `length` bytes at `offset`, fewer at the end of the file.
fn read_at(file: &File, offset: u64, length: usize) -> Option<Vec<u8>> {
    // Offsets above the signed range are an error of the call, not an end of file.
    i64::try_from(offset).ok()?;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let at = offset.checked_add(u64::try_from(filled).ok()?)?;
        match file.read_at(&mut bytes[filled..], at).ok()? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Some(bytes)
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// Reads a shared library; nothing for any other file.
pub fn library(file: &File) -> Option<Library> {
    let start = read_at(file, 0, START)?;
    let bytes = Bytes(&start);
    // Little-endian, version 1.
    if start.get(..4)? != b"\x7fELF" || start.get(5..7)? != [1, 1] {
        return None;
    }
    let wide = match start.get(4)? {
        1 => false,
        2 => true,
        _ => return None,
    };
    if bytes.u16(16)? != ET_DYN {
        return None;
    }
    let segments = segments(file, &bytes, wide)?;
    // ldconfig refuses a file without segments to load.
    segments.iter().find(|segment| segment.kind == PT_LOAD)?;
    let dynamic = segments.iter().find(|segment| segment.kind == PT_DYNAMIC);
    let soname = match dynamic {
        Some(dynamic) => soname(file, dynamic, &segments, wide)?,
        None => None,
    };
    let flags = bytes.u32(if wide { 48 } else { 36 })?;
    let machine = bytes.u16(18)?;
    Some(Library {
        machine,
        wide,
        flags,
        soname,
    })
}

fn segments(file: &File, start: &Bytes<'_>, wide: bool) -> Option<Vec<Segment>> {
    let (offset, size, count) = if wide {
        (start.u64(32)?, start.u16(54)?, start.u16(56)?)
    } else {
        (start.u32(28)?.into(), start.u16(42)?, start.u16(44)?)
    };
    let least = if wide { 56 } else { 32 };
    if count > MAX_HEADERS || size < least || size > 256 {
        return None;
    }
    let (size, length) = (usize::from(size), usize::from(size) * usize::from(count));
    let near = usize::try_from(offset)
        .ok()
        .and_then(|at| start.0.get(at..at.checked_add(length)?));
    let far = match near {
        Some(_) => Vec::new(),
        None => read_at(file, offset, length)?,
    };
    let table = near.unwrap_or(&far);
    if table.len() < length {
        return None;
    }
    table
        .chunks_exact(size)
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

/// The outer nothing is a damaged file, the inner one a library without a usable name.
#[allow(clippy::option_option)]
fn soname(
    file: &File,
    dynamic: &Segment,
    segments: &[Segment],
    wide: bool,
) -> Option<Option<String>> {
    let entry = if wide { 16 } else { 8 };
    let length = usize::try_from(dynamic.size.min(MAX_TABLE)).ok()?;
    let table = read_at(file, dynamic.offset, length)?;
    if table.len() < length {
        return None;
    }
    let (mut name, mut strings, mut size) = (None, None, None);
    for chunk in table.chunks_exact(entry) {
        let bytes = Bytes(chunk);
        let (tag, value) = (bytes.word(0, wide)?, bytes.word(entry / 2, wide)?);
        match tag {
            0 => break,
            DT_SONAME => name = Some(value),
            DT_STRTAB => strings = Some(value),
            DT_STRSZ => size = Some(value),
            _ => {}
        }
    }
    let Some(name) = name else { return Some(None) };
    let strings = strings?;
    let load = segments.iter().find(|segment| {
        let holds = segment.address <= strings && strings - segment.address < segment.size;
        segment.kind == PT_LOAD && holds
    })?;
    let start = (strings - load.address)
        .checked_add(load.offset)?
        .checked_add(name)?;
    let left = size?.checked_sub(name)?.min(MAX_NAME);
    text(file, start, left).map(|soname| {
        let plain = !matches!(soname.as_str(), "" | "." | "..") && !soname.contains('/');
        plain.then_some(soname)
    })
}

/// A text that ends within `length` bytes; an empty one stands for what is not UTF-8.
fn text(file: &File, offset: u64, length: u64) -> Option<String> {
    let bytes = read_at(file, offset, usize::try_from(length).ok()?)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8(bytes[..end].to_vec()).unwrap_or_default())
}

/// A section's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) bytes: Vec<u8>,
    /// `sh_addralign`.
    pub(crate) alignment: usize,
}

/// `sh_type` of notes.
const SHT_NOTE: u32 = 7;

/// A section of notes by name, at most `limit` bytes; 64-bit files only.
pub(crate) fn section(file: &File, name: &str, limit: u64) -> Option<Section> {
    let head = read_at(file, 0, 64)?;
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let head = Bytes(&head);
    let (offset, size, count) = (head.u64(40)?, head.u16(58)?, head.u16(60)?);
    if count > MAX_HEADERS || !(64..=256).contains(&size) {
        return None;
    }
    let table = read_at(file, offset, usize::from(size) * usize::from(count))?;
    let sections: Vec<Bytes<'_>> = table.chunks_exact(usize::from(size)).map(Bytes).collect();
    let extent = |section: &Bytes<'_>| Some((section.u64(24)?, section.u64(32)?));
    let (start, length) = extent(sections.get(usize::from(head.u16(62)?))?)?;
    let texts = read_at(file, start, usize::try_from(length.min(MAX_TABLE)).ok()?)?;
    let wanted = sections.iter().find(|section| {
        let at = section.u32(0).and_then(|at| usize::try_from(at).ok());
        let rest = at.and_then(|at| texts.get(at..)).unwrap_or_default();
        section.u32(4) == Some(SHT_NOTE)
            && rest.split(|byte| *byte == 0).next() == Some(name.as_bytes())
    })?;
    let (start, length) = extent(wanted)?;
    if length > limit {
        return None;
    }
    let bytes = read_at(file, start, usize::try_from(length).ok()?)?;
    let alignment = usize::try_from(wanted.u64(48)?).ok()?;
    (u64::try_from(bytes.len()) == Ok(length)).then_some(Section { bytes, alignment })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::noise::Noise;
    use crate::root::tests::Tree;

    /// A shared library with one name, or none, and no code.
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
        for (n, (tag, value)) in [
            (if soname.is_empty() { 0x7fff_0000 } else { 14 }, 1),
            (5, strings_at),
            (10, strings.len()),
            (0, 0),
        ]
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
                flags: 0,
                soname: Some("libx.so.1".into())
            }
        );
        let narrow = parse(&image(false, 3, "liby.so.2")).unwrap();
        assert_eq!(
            narrow,
            Library {
                machine: 3,
                wide: false,
                flags: 0,
                soname: Some("liby.so.2".into())
            }
        );
    }

    #[test]
    fn damaged_files_are_no_libraries() {
        let good = image(true, 62, "libx.so.1");
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length]), None, "cut at {length}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = 0xff;
            drop(parse(&bad));
        }
        assert_eq!(parse(b"#!/bin/sh\n"), None);
        // Offsets of the program headers, the dynamic section and its address, far outside.
        for (at, length) in [(32, 8), (120 + 8, 8), (64 + 16, 8), (64 + 8, 8)] {
            for value in [0xff, 0x7f] {
                let mut bad = good.clone();
                bad[at..at + length].fill(value);
                assert_eq!(parse(&bad), None, "{at} {value}");
            }
        }
        let mut foreign = good.clone();
        foreign[5] = 2;
        assert_eq!(parse(&foreign), None, "the other byte order");
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

    #[test]
    fn noise_does_no_harm() {
        use std::io::Write;
        use std::os::fd::OwnedFd;
        let own = std::fs::read("/lib/x86_64-linux-gnu/libdl.so.2").unwrap_or_default();
        let mut noise = Noise::new();
        for good in [
            image(true, 62, "libx.so.1"),
            image(false, 3, "liby.so.2"),
            own,
        ] {
            for _ in 0..2000 {
                let name = c"elf";
                let flags = nix::sys::memfd::MemFdCreateFlag::empty();
                let memory: OwnedFd = nix::sys::memfd::memfd_create(name, flags).unwrap();
                let mut file = File::from(memory);
                file.write_all(&noise.damaged(&good)).unwrap();
                if let Some(Library {
                    soname: Some(soname),
                    ..
                }) = library(&file)
                {
                    assert!(!soname.contains(['/', '\0']) && soname.len() as u64 <= MAX_NAME);
                }
                if let Some(section) = section(&file, ".note.gnu.build-id", 64) {
                    assert!(section.bytes.len() <= 64);
                }
            }
        }
    }
}
