//! Power and heat.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::nvmlViolationTime_st;

use super::{Device, export, put, put_two, version, whole};
use crate::session::code;

/// Degrees: shutdown, slowdown, memory, GPU (`nvmlTemperatureThresholds_t` 0 to 3).
const THRESHOLDS: [c_uint; 4] = [92, 89, 95, 87];
/// What memory is warmer than the chip.
pub(super) const MEMORY_WARMER: c_uint = 9;

/// The lowest limit that can be set, in milliwatts.
pub(super) fn lowest_limit(limit: c_uint) -> c_uint {
    limit / 7 * 2
}

export! {
    nvmlDeviceGetTemperature(device: Device, sensor: c_uint, out: *mut c_uint) {
        put(out, whole(device, |g, _| (sensor == 0).then_some(g.temperature)))
    }
    nvmlDeviceGetTemperatureV(device: Device, out: *mut Temperature) {
        let Some(version) = version(out) else {
            return code::INVALID_ARGUMENT;
        };
        put(out, whole(device, |g, _| Some(Temperature {
            version,
            sensor: 0,
            temperature: c_int::try_from(g.temperature).unwrap_or(0),
        })))
    }
    nvmlDeviceGetTemperatureThreshold(device: Device, kind: c_uint, out: *mut c_uint) {
        put(out, whole(device, |_, m| {
            let kind = usize::try_from(kind).ok()?;
            // Memory on the same package tells its own temperature.
            if kind == 2 && !m.ecc { None } else { THRESHOLDS.get(kind).copied() }
        }))
    }
    nvmlDeviceGetPowerUsage(device: Device, out: *mut c_uint) { put(out, whole(device, |g, _| Some(g.power_milliwatts))) }
    nvmlDeviceGetTotalEnergyConsumption(device: Device, out: *mut c_ulonglong) {
        // A day of idling, in millijoules.
        put(out, whole(device, |g, _| Some(c_ulonglong::from(g.power_milliwatts) * 86_400)))
    }
    nvmlDeviceGetEnforcedPowerLimit(device: Device, out: *mut c_uint) { put(out, whole(device, |g, _| Some(g.power_limit_milliwatts))) }
    nvmlDeviceGetPowerManagementMode(device: Device, out: *mut c_uint) { put(out, whole(device, |_, _| Some(1))) }
    nvmlDeviceGetPowerManagementLimit(device: Device, out: *mut c_uint) { put(out, whole(device, |g, _| Some(g.power_limit_milliwatts))) }
    nvmlDeviceGetPowerManagementDefaultLimit(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| Some(1000 * m.power_limit))) }
    nvmlDeviceGetPowerManagementLimitConstraints(device: Device, low: *mut c_uint, high: *mut c_uint) {
        put_two(low, high, whole(device, |_, m| Some((lowest_limit(1000 * m.power_limit), 1000 * m.power_limit))))
    }
    nvmlDeviceGetPowerState(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| Some(state(m.fan)))) }
    nvmlDeviceGetPerformanceState(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| Some(state(m.fan)))) }
    nvmlDeviceGetViolationStatus(device: Device, _policy: c_uint, out: *mut nvmlViolationTime_st) {
        put(out, whole(device, |_, _| Some(nvmlViolationTime_st { referenceTime: 0, violationTime: 0 })))
    }
}

/// `nvmlTemperature_v1_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Temperature {
    version: c_uint,
    sensor: c_uint,
    temperature: c_int,
}

/// Idle: boards with a fan go to P8, those of a data centre stay at P0.
fn state(fan: bool) -> c_uint {
    if fan { 8 } else { 0 }
}
