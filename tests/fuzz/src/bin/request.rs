//! `config.json`, from text to a plan and to the edited spec: applying it twice equals applying it once.
#![no_main]

use std::io;
use std::sync::OnceLock;

use fleet_cdi::Registry;
use fleet_inject::{
    DeviceKind, DeviceStat, HostProbe, Plan, Policy, Properties, Request, Requirements, concerns,
};
use libfuzzer_sys::fuzz_target;

struct Host;

impl HostProbe for Host {
    fn lstat_device(&self, path: &str) -> io::Result<DeviceStat> {
        if path.len() % 7 == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(DeviceStat {
            kind: DeviceKind::Char,
            major: 195,
            minor: u32::try_from(path.len()).unwrap_or(0),
            mode: 0o666,
        })
    }

    fn exists(&self, path: &str) -> bool {
        path.len() % 5 != 0
    }
}

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| Registry::scan(&[fleet_fuzz::cdi_dir()]))
}

fuzz_target!(|data: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<serde_json::Value>(data) else {
        return;
    };
    let policy = Policy::default();
    let _ = concerns(&spec);
    let _ = Requirements::of_spec(&spec, &policy).check(&Properties::of_driver(Some("580.65.06")));
    let Ok(outcome) = Request::from_spec(&spec, &policy) else {
        return;
    };
    let request = outcome.request;
    let Ok(resolved) = registry().resolve(&request.names()) else {
        return;
    };
    let Ok(plan) = Plan::build(&request, resolved, &spec, &Host) else {
        return;
    };
    let mut once = spec;
    if plan.apply(&mut once).is_ok() {
        let mut twice = once.clone();
        if plan.apply(&mut twice).is_ok() {
            assert_eq!(once, twice, "applied twice");
        }
    }
});
