//! The smallest shared library that a loader loads: a name and no code. No compiler is needed on the user's machine.

/// Layout: header, two program headers, dynamic section, hash, symbol table, strings; then, for tools that read
/// libraries by their sections (Go's `debug/elf` does), names of sections and section headers.
const HEADER: usize = 64;
const PROGRAM: usize = 56;
const DYNAMIC: usize = HEADER + 2 * PROGRAM;
const DYNAMIC_ENTRIES: usize = 7;
const HASH: usize = DYNAMIC + 16 * DYNAMIC_ENTRIES;
/// One bucket, one chain entry: nbucket, nchain, bucket, chain.
const HASH_SIZE: usize = 16;
const SYMBOLS: usize = HASH + HASH_SIZE;
const SYMBOL: usize = 24;
const STRINGS: usize = SYMBOLS + SYMBOL;
const PAGE: u64 = 0x1000;
/// Section header, and the names of sections.
const SECTION: usize = 64;
const NAMES: &[u8] = b"\0.dynamic\0.dynstr\0.shstrtab\0";

/// x86-64 (`EM_X86_64`).
const MACHINE: u16 = 62;

/// The bytes of a library with this SONAME.
pub(crate) fn library(soname: &str) -> Vec<u8> {
    let strings: Vec<u8> = [&[0], soname.as_bytes(), &[0]].concat();
    let total = STRINGS + strings.len();
    let sections = (total + NAMES.len()).next_multiple_of(8);
    let mut out = vec![0_u8; sections + 4 * SECTION];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    let word = |n: usize| u64::try_from(n).unwrap_or(0).to_le_bytes();
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &3_u16.to_le_bytes());
    put(18, &MACHINE.to_le_bytes());
    put(20, &1_u32.to_le_bytes());
    put(32, &word(HEADER));
    put(40, &word(sections));
    for (at, n) in [
        (52, HEADER),
        (54, PROGRAM),
        (56, 2),
        (58, SECTION),
        (60, 4),
        (62, 3),
    ] {
        put(at, &u16::try_from(n).unwrap_or(0).to_le_bytes());
    }
    // PT_LOAD (readable and writable: the loader relocates the dynamic section in place), PT_DYNAMIC.
    for (n, kind, offset, size, align) in [
        (0, 1_u32, 0, total, PAGE),
        (1, 2, DYNAMIC, 16 * DYNAMIC_ENTRIES, 8),
    ] {
        let at = HEADER + n * PROGRAM;
        put(at, &kind.to_le_bytes());
        put(at + 4, &6_u32.to_le_bytes());
        for (field, value) in [
            (8, offset),
            (16, offset),
            (24, offset),
            (32, size),
            (40, size),
        ] {
            put(at + field, &word(value));
        }
        put(at + 48, &align.to_le_bytes());
    }
    // DT_SONAME, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_NULL.
    let entries = [
        (14, 1),
        (4, HASH),
        (5, STRINGS),
        (6, SYMBOLS),
        (10, strings.len()),
        (11, SYMBOL),
        (0, 0),
    ];
    for (n, (tag, value)) in entries.into_iter().enumerate() {
        put(DYNAMIC + 16 * n, &word(tag));
        put(DYNAMIC + 16 * n + 8, &word(value));
    }
    put(HASH, &1_u32.to_le_bytes());
    put(HASH + 4, &1_u32.to_le_bytes());
    put(STRINGS, &strings);
    put(total, NAMES);
    // Name, SHT_DYNAMIC or SHT_STRTAB, where, size, section that it refers to, size of an entry. The first is null.
    for (n, name, kind, offset, size, link, entry) in [
        (1, 1, 6_u32, DYNAMIC, 16 * DYNAMIC_ENTRIES, 2, 16),
        (2, 10, 3, STRINGS, strings.len(), 0, 0),
        (3, 18, 3, total, NAMES.len(), 0, 0),
    ] {
        let at = sections + n * SECTION;
        put(at, &u32::try_from(name).unwrap_or(0).to_le_bytes());
        put(at + 4, &kind.to_le_bytes());
        for (field, value) in [(16, offset), (24, offset), (32, size), (56, entry)] {
            put(at + field, &word(value));
        }
        put(at + 40, &u32::try_from(link).unwrap_or(0).to_le_bytes());
        put(at + 48, &1_u64.to_le_bytes());
    }
    out
}
