//! CDI specs, YAML and JSON: what is read can be written and read again.
#![no_main]

use fleet_cdi::{Format, encode_spec, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for format in [Format::Yaml, Format::Json] {
        if let Ok(spec) = parse(data, format)
            && let Ok(text) = encode_spec(&spec, format)
        {
            let again = parse(text.as_bytes(), format);
            assert!(again.as_ref() == Ok(&spec), "{again:?} is not {spec:?}");
        }
    }
});
