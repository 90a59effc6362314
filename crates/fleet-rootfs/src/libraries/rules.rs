//! Which files are libraries, and of what kind.

use crate::elf::Library;

/// `FLAG_ELF_LIBC6` with the architecture bits of glibc's `ldconfig.h`.
pub(super) fn flags(library: &Library) -> Option<u32> {
    const ARM_HARD_FLOAT: u32 = 0x400;
    match (library.machine, library.wide) {
        (62, true) => Some(0x0303),  // x86-64
        (62, false) => Some(0x0803), // x32
        (3, false) => Some(0x0003),  // i386
        (183, true) => Some(0x0a03), // AArch64
        (40, false) if library.flags & ARM_HARD_FLOAT != 0 => Some(0x0903), // Arm, hard float
        (40, false) => Some(0x0b03), // Arm, soft float
        _ => None,
    }
}

/// `lib*.so*` and `ld-*.so*`, but not what a package manager or prelink leaves while it works.
pub(super) fn is_library(name: &str) -> bool {
    let prelink = name.ends_with(".#prelink#")
        || name.len() > 17 && name.rfind(".#prelink#.") == Some(name.len() - 17);
    let passing = name.contains(';') || name.ends_with(".dpkg-new") || name.ends_with(".dpkg-tmp");
    (name.starts_with("lib") || name.starts_with("ld-"))
        && name.contains(".so")
        && !name.ends_with("-gdb.py")
        && !prelink
        && !passing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, want) in [
            ("libcuda.so.1", true),
            ("libcuda.so", true),
            ("libnvidia-ml.so.550.54.15", true),
            ("ld-linux-x86-64.so.2", true),
            ("ld-2.31.so", true),
            ("nvidia_drv.so", false),
            ("libfoo.a", false),
            ("libfoo.so.1.dpkg-new", false),
            ("libfoo.so.1.dpkg-tmp", false),
            ("libfoo.so.1;6123abcd", false),
            ("libfoo.so.1.#prelink#", false),
            ("libfoo.so.1.#prelink#.Ab12Cd", false),
            ("libstdc++.so.6.0.30-gdb.py", false),
            ("", false),
        ] {
            assert_eq!(is_library(name), want, "{name}");
        }
    }

    #[test]
    fn kinds() {
        for (machine, wide, of, want) in [
            (62, true, 0, Some(0x303)),
            (62, false, 0, Some(0x803)),
            (3, false, 0, Some(3)),
            (3, true, 0, None),
            (183, true, 0, Some(0xa03)),
            (40, false, 0x0500_0400, Some(0x903)),
            (40, false, 0x0500_0200, Some(0xb03)),
            (243, true, 0, None),
        ] {
            let library = Library {
                machine,
                wide,
                flags: of,
                soname: None,
            };
            assert_eq!(flags(&library), want, "{machine} {wide}");
        }
    }
}
