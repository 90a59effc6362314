//! Clocks of an idle GPU.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{c_uint, c_ulonglong};

use fleet_sim_machine::Model;

use super::{Device, export, put, put_array, put_two, refuse, whole};
use crate::session::code;

/// `nvmlClockType_t`.
const GRAPHICS: c_uint = 0;
const SM: c_uint = 1;
const MEMORY: c_uint = 2;
const VIDEO: c_uint = 3;

/// MHz between two clocks that can be set, and the lowest of them.
const STEP: c_uint = 15;
const LOWEST: c_uint = 210;
/// `nvmlClocksEventReasonGpuIdle`, and all reasons that there are.
const IDLE: c_ulonglong = 1;
const ALL_REASONS: c_ulonglong = 0x1ff;

fn highest(model: &Model, kind: c_uint) -> Option<c_uint> {
    match kind {
        GRAPHICS | SM => Some(model.sm_clock),
        MEMORY => Some(model.memory_clock),
        VIDEO => Some(model.sm_clock / 5 * 4 / STEP * STEP),
        _ => None,
    }
}

fn current(model: &Model, kind: c_uint) -> Option<c_uint> {
    match kind {
        GRAPHICS | SM => Some(if model.architecture >= 9 { 345 } else { LOWEST }),
        // Stacked memory has one clock.
        MEMORY if model.bus_width < 4096 => Some(405),
        MEMORY => Some(model.memory_clock),
        VIDEO => Some(765),
        _ => None,
    }
}

export! {
    nvmlDeviceGetClockInfo(device: Device, kind: c_uint, out: *mut c_uint) { put(out, whole(device, |_, m| current(m, kind))) }
    nvmlDeviceGetMaxClockInfo(device: Device, kind: c_uint, out: *mut c_uint) { put(out, whole(device, |_, m| highest(m, kind))) }
    nvmlDeviceGetMaxCustomerBoostClock(device: Device, kind: c_uint, out: *mut c_uint) {
        put(out, whole(device, |_, m| highest(m, kind).filter(|_| !m.fan && kind != VIDEO)))
    }
    nvmlDeviceGetClock(device: Device, kind: c_uint, id: c_uint, out: *mut c_uint) {
        // Current, application target, default, customer boost.
        put(out, whole(device, |_, m| match id {
            0 => current(m, kind),
            1..=3 => highest(m, kind).filter(|_| !m.fan && kind != VIDEO),
            _ => None,
        }))
    }
    nvmlDeviceGetApplicationsClock(device: Device, kind: c_uint, out: *mut c_uint) {
        put(out, whole(device, |_, m| highest(m, kind).filter(|_| !m.fan && kind != VIDEO)))
    }
    nvmlDeviceGetDefaultApplicationsClock(device: Device, kind: c_uint, out: *mut c_uint) { nvmlDeviceGetApplicationsClock(device, kind, out) }
    nvmlDeviceGetSupportedMemoryClocks(device: Device, count: *mut c_uint, out: *mut c_uint) {
        put_array(out, count, whole(device, |_, m| Some(vec![m.memory_clock])))
    }
    nvmlDeviceGetSupportedGraphicsClocks(device: Device, memory: c_uint, count: *mut c_uint, out: *mut c_uint) {
        put_array(out, count, whole(device, |_, m| Some(m).filter(|m| m.memory_clock == memory).map(graphics_clocks)))
    }
    nvmlDeviceGetMinMaxClockOfPState(device: Device, kind: c_uint, _state: c_uint, low: *mut c_uint, high: *mut c_uint) {
        put_two(low, high, whole(device, |_, m| highest(m, kind).map(|high| (LOWEST.min(high), high))))
    }
    nvmlDeviceGetAutoBoostedClocksEnabled(device: Device, _current: *mut c_uint, _default: *mut c_uint) { refuse(device, code::NOT_SUPPORTED) }
    nvmlDeviceGetAdaptiveClockInfoStatus(device: Device, out: *mut c_uint) { put(out, whole(device, |_, _| Some(0))) }
    nvmlDeviceGetCurrentClocksThrottleReasons(device: Device, out: *mut c_ulonglong) { put(out, whole(device, |_, _| Some(IDLE))) }
    nvmlDeviceGetCurrentClocksEventReasons(device: Device, out: *mut c_ulonglong) { nvmlDeviceGetCurrentClocksThrottleReasons(device, out) }
    nvmlDeviceGetSupportedClocksThrottleReasons(device: Device, out: *mut c_ulonglong) { put(out, whole(device, |_, _| Some(ALL_REASONS))) }
    nvmlDeviceGetSupportedClocksEventReasons(device: Device, out: *mut c_ulonglong) { nvmlDeviceGetSupportedClocksThrottleReasons(device, out) }
}

fn graphics_clocks(model: &Model) -> Vec<c_uint> {
    (0..)
        .map(|n| model.sm_clock.saturating_sub(n * STEP))
        .take_while(|clock| *clock >= LOWEST)
        .collect()
}
