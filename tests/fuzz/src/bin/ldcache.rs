//! `ld.so.cache` of an image: what is read can be written and read again.
#![no_main]

use fleet_rootfs::ldcache::{parse, serialise};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(cache) = parse(data) {
        let bytes = serialise(&cache);
        assert!(
            parse(&bytes).is_ok(),
            "what was written cannot be read: {cache:?}"
        );
    }
});
