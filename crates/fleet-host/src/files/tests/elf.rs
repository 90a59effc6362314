//! The smallest shared library that tells its name.

/// Little-endian x86-64 with one loadable segment and a dynamic section; without a SONAME when it is empty.
pub(crate) fn library(soname: &str) -> Vec<u8> {
    let strings: Vec<u8> = [b"\0", soname.as_bytes(), b"\0"].concat();
    let (dynamic, entries) = (64 + 2 * 56, 4_usize);
    let at = dynamic + entries * 16;
    let total = u64::try_from(at + strings.len()).unwrap();
    let word = |n: usize| u64::try_from(n).unwrap();
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    // Type ET_DYN, machine, version, entry; program headers; section headers; flags; sizes and counts.
    bytes.extend(3_u16.to_le_bytes());
    bytes.extend(62_u16.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    for n in [0, 64, 0] {
        bytes.extend(word(n).to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    for n in [64_u16, 56, 2, 0, 0, 0] {
        bytes.extend(n.to_le_bytes());
    }
    let size = word(entries * 16);
    for (kind, offset, size) in [(1_u32, 0, total), (2, word(dynamic), size)] {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(4_u32.to_le_bytes());
        for n in [offset, offset, offset, size, size, 8] {
            bytes.extend(n.to_le_bytes());
        }
    }
    // DT_SONAME, DT_STRTAB, DT_STRSZ, DT_NULL; a library without a name has none at the start either.
    let name = if soname.is_empty() { (0, 0) } else { (14, 1) };
    for (tag, value) in [name, (5, word(at)), (10, word(strings.len())), (0, 0)] {
        bytes.extend(u64::to_le_bytes(tag));
        bytes.extend(u64::to_le_bytes(value));
    }
    bytes.extend(strings);
    bytes
}
