//! Arguments of NVIDIA's hooks, one a line, and annotations that ask for devices.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let args: Vec<String> = text.lines().map(str::to_owned).collect();
    for program in ["/usr/bin/nvidia-cdi-hook", "/usr/bin/nvidia-ctk"] {
        let _ = fleet_rootfs::recognise(program, &args);
    }
    let annotation = [("cdi.k8s.io/x", text)];
    let _ = fleet_cdi::devices_from_annotations(annotation.into_iter(), &["cdi.k8s.io/"]);
});
