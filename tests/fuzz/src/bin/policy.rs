//! The configuration, our own and the toolkit's.
#![no_main]

use fleet_inject::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Policy::parse(text, "config.toml");
    let _ = Policy::parse_toolkit(text, "config.toml");
});
