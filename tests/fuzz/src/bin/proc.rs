//! Files of the driver below `/proc`.
#![no_main]

use fleet_host::gpu::BusId;
use fleet_host::proc::{MigMinors, character_majors, information};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = information(text);
    let _ = character_majors(text);
    let minors = MigMinors::parse(text);
    let _ = (
        minors.gpu_instance(0, 1),
        minors.of_gpu(0),
        minors.control("config"),
    );
    if let Some(id) = BusId::parse(text) {
        assert_eq!(BusId::parse(id.as_str()).as_ref(), Some(&id));
    }
});
