//! Error correction: there were no errors.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlEccErrorCounts_st, nvmlEccSramErrorStatus_v1_t, nvmlRowRemapperHistogramValues_st,
};

use super::{Device, either, export, put, put_two, version, whole};
use crate::session::code;

/// Banks of the memory, none of which has a row remapped.
const BANKS: c_uint = 640;

export! {
    nvmlDeviceGetEccMode(device: Device, current: *mut c_uint, pending: *mut c_uint) {
        put_two(current, pending, whole(device, |_, m| m.ecc.then_some((1, 1))))
    }
    nvmlDeviceGetDefaultEccMode(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| m.ecc.then_some(1))) }
    nvmlDeviceGetTotalEccErrors(device: Device, _kind: c_uint, _counter: c_uint, out: *mut c_ulonglong) {
        put(out, whole(device, |_, m| m.ecc.then_some(0)))
    }
    nvmlDeviceGetDetailedEccErrors(device: Device, _kind: c_uint, _counter: c_uint, out: *mut nvmlEccErrorCounts_st) {
        put(out, whole(device, |_, m| m.ecc.then_some(nvmlEccErrorCounts_st { l1Cache: 0, l2Cache: 0, deviceMemory: 0, registerFile: 0 })))
    }
    nvmlDeviceGetMemoryErrorCounter(device: Device, _kind: c_uint, _counter: c_uint, place: c_uint, out: *mut c_ulonglong) {
        // Device memory and SRAM; the other places are those of older boards.
        // A MIG device counts those of its own SRAM.
        match whole(device, |_, m| (m.ecc && matches!(place, 2 | 7)).then_some(0)) {
            Err(code::NOT_SUPPORTED) if place == 7 => put(out, either(device, |_, _| Ok(0), |_| Err(code::NOT_SUPPORTED)).and_then(|count| count)),
            answer => put(out, answer),
        }
    }
    nvmlDeviceGetSramEccErrorStatus(device: Device, out: *mut nvmlEccSramErrorStatus_v1_t) {
        let Some(version) = version(out) else {
            return code::INVALID_ARGUMENT;
        };
        put(out, whole(device, |_, m| m.ecc.then(|| no_errors(version))))
    }
    nvmlDeviceGetRetiredPagesPendingStatus(device: Device, _out: *mut c_uint) { super::refuse(device, code::NOT_SUPPORTED) }
    nvmlDeviceGetRemappedRows(device: Device, correctable: *mut c_uint, uncorrectable: *mut c_uint, pending: *mut c_uint, failed: *mut c_uint) {
        match put_two(correctable, uncorrectable, whole(device, |_, m| m.ecc.then_some((0, 0)))) {
            code::SUCCESS => put_two(pending, failed, Ok((0, 0))),
            other => other,
        }
    }
    nvmlDeviceGetRowRemapperHistogram(device: Device, out: *mut nvmlRowRemapperHistogramValues_st) {
        put(out, whole(device, |_, m| m.ecc.then_some(nvmlRowRemapperHistogramValues_st { max: BANKS, high: 0, partial: 0, low: 0, none: 0 })))
    }
}

fn no_errors(version: c_uint) -> nvmlEccSramErrorStatus_v1_t {
    nvmlEccSramErrorStatus_v1_t {
        version,
        aggregateUncParity: 0,
        aggregateUncSecDed: 0,
        aggregateCor: 0,
        volatileUncParity: 0,
        volatileUncSecDed: 0,
        volatileCor: 0,
        aggregateUncBucketL2: 0,
        aggregateUncBucketSm: 0,
        aggregateUncBucketPcie: 0,
        aggregateUncBucketMcu: 0,
        aggregateUncBucketOther: 0,
        bThresholdExceeded: 0,
    }
}
