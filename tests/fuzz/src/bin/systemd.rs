//! What comes from the bus, and properties of annotations (`org.systemd.property.*`). The modules are taken from the
//! runtime, where they are private.
#![no_main]
#![allow(dead_code)]

#[path = "../../../../crates/fleet-lifecycle/src/cgroup/systemd/gvariant.rs"]
mod gvariant;
#[path = "../../../../crates/fleet-lifecycle/src/cgroup/systemd/message.rs"]
mod message;
#[path = "../../../../crates/fleet-lifecycle/src/cgroup/systemd/wire.rs"]
mod wire;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut buffer = data.to_vec();
    while let Ok(Some(message)) = message::Incoming::take(&mut buffer) {
        let _ = message.text();
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(value) = gvariant::parse(text)
    {
        let mut writer = wire::Writer::default();
        writer.value(&value);
        let _ = value.signature();
    }
});
