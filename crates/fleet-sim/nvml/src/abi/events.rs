//! Events: one can wait for them, and none comes.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{c_uint, c_ulonglong, c_void};
use std::time::Duration;

use super::{Device, export, put, refuse, whole};
use crate::session::{self, code};

/// Handle of every set; there is nothing in it.
const SET: usize = 1;
/// Longest wait, whatever the caller says.
const PATIENCE: Duration = Duration::from_secs(5);
/// Errors of memory, of power state, critical errors, clock changes, power source, MIG.
const KINDS: c_ulonglong = 0x1 | 0x2 | 0x8 | 0x10 | 0x80 | 0x100;

export! {
    nvmlEventSetCreate(out: *mut *mut c_void) { put(out, session::with(|_| Ok(std::ptr::without_provenance_mut(SET)))) }
    nvmlEventSetFree(_set: *mut c_void) { code::SUCCESS }
    nvmlDeviceGetSupportedEventTypes(device: Device, out: *mut c_ulonglong) { put(out, whole(device, |_, _| Some(KINDS))) }
    nvmlDeviceRegisterEvents(device: Device, _kinds: c_ulonglong, _set: *mut c_void) { refuse(device, code::SUCCESS) }
    nvmlEventSetWait_v2(_set: *mut c_void, _out: *mut c_void, milliseconds: c_uint) {
        std::thread::sleep(Duration::from_millis(milliseconds.into()).min(PATIENCE));
        code::TIMEOUT
    }
    nvmlEventSetWait(set: *mut c_void, out: *mut c_void, milliseconds: c_uint) { nvmlEventSetWait_v2(set, out, milliseconds) }
}
