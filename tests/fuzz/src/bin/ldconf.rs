//! `ld.so.conf` of an image, with the file that it includes: the first line of the input ends the first file.
#![no_main]

use std::fs;
use std::os::fd::AsFd;

use fleet_rootfs::RootfsEdit;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let root = fleet_fuzz::scratch("ldconf");
    for dir in ["etc/ld.so.conf.d", "usr/lib", "usr/lib/gpu"] {
        let _ = fs::create_dir_all(root.join(dir));
    }
    let mut parts = data.splitn(2, |byte| *byte == 0);
    for file in ["etc/ld.so.conf", "etc/ld.so.conf.d/a.conf"] {
        let _ = fs::write(root.join(file), parts.next().unwrap_or_default());
    }
    let Ok(dir) = fs::File::open(&root) else {
        return;
    };
    let edit = RootfsEdit::UpdateLdCache {
        folders: vec!["/usr/lib/gpu".to_owned()],
    };
    let _ = fleet_rootfs::apply_below(dir.as_fd(), &[edit]);
    let _ = fs::remove_dir_all(&root);
});
