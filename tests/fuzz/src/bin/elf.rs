//! Sonames and notes of libraries.
#![no_main]

use std::fs::File;
use std::io::{Seek, Write};

use libfuzzer_sys::fuzz_target;
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};

fuzz_target!(|data: &[u8]| {
    let Ok(memory) = memfd_create(c"library", MemFdCreateFlag::MFD_CLOEXEC) else {
        return;
    };
    let mut file = File::from(memory);
    if file.write_all(data).and_then(|()| file.rewind()).is_ok() {
        let _ = fleet_rootfs::elf::library(&file);
    }
});
