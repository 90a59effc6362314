//! The language of `NVIDIA_REQUIRE_*`.
#![no_main]

use fleet_inject::{Policy, Properties, Requirements};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|text: &str| {
    let env = json!([
        "NVIDIA_VISIBLE_DEVICES=all",
        format!("NVIDIA_REQUIRE_CUDA={text}")
    ]);
    let spec = json!({"process": {"env": env}});
    let requirements = Requirements::of_spec(&spec, &Policy::default());
    for version in [None, Some("580.65.06"), Some("1"), Some("9999.9999.9999")] {
        if let Err(err) = requirements.check(&Properties::of_driver(version)) {
            let message = err.to_string();
            assert!(
                message.len() < 8192,
                "conmon reads 8 KiB: {}",
                message.len()
            );
        }
    }
});
