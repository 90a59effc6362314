//! The library itself, the driver, what belongs to no GPU.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{c_char, c_int, c_uint, c_void};

use nvml_wrapper_sys::bindings::{nvmlConfComputeSystemState_st, nvmlHwbcEntry_st};

use super::{Device, Handles, export, put, put_array, put_text};
use crate::session::{self, code};

export! {
    nvmlInit_v2() { session::init() }
    nvmlInit() { session::init() }
    nvmlInitWithFlags(_flags: c_uint) { session::init() }
    nvmlShutdown() { session::shutdown() }
    nvmlSystemGetDriverVersion(out: *mut c_char, size: c_uint) { put_text(out, size, session::with(|s| Ok(s.machine.driver_version.clone()))) }
    nvmlSystemGetNVMLVersion(out: *mut c_char, size: c_uint) { put_text(out, size, session::nvml_version()) }
    nvmlSystemGetCudaDriverVersion(out: *mut c_int) { put(out, session::with(|s| Ok(s.machine.cuda_number()))) }
    nvmlSystemGetCudaDriverVersion_v2(out: *mut c_int) { nvmlSystemGetCudaDriverVersion(out) }
    nvmlSystemGetProcessName(_pid: c_uint, _out: *mut c_char, _size: c_uint) { code::NOT_FOUND }
    nvmlSystemGetHicVersion(count: *mut c_uint, out: *mut nvmlHwbcEntry_st) { put_array(out, count, Ok(Vec::new())) }
    nvmlSystemGetTopologyGpuSet(_cpu: c_uint, count: *mut c_uint, out: *mut Device) {
        put_array(out, count, session::with(|s| Ok(s.handles())))
    }
    nvmlSystemGetConfComputeState(out: *mut nvmlConfComputeSystemState_st) {
        put(out, session::with(|_| Ok(nvmlConfComputeSystemState_st { environment: 0, ccFeature: 0, devToolsMode: 0 })))
    }
    nvmlUnitGetCount(out: *mut c_uint) { put(out, session::with(|_| Ok(0))) }
    nvmlGetExcludedDeviceCount(out: *mut c_uint) { put(out, session::with(|_| Ok(0))) }
    nvmlGetBlacklistDeviceCount(out: *mut c_uint) { nvmlGetExcludedDeviceCount(out) }
    nvmlUnitGetHandleByIndex(_index: c_uint, _out: *mut c_void) { code::INVALID_ARGUMENT }
}

/// The words of a return code.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: u32) -> *const c_char {
    let text = match result {
        code::SUCCESS => c"The operation was successful",
        code::UNINITIALIZED => c"Uninitialized",
        code::INVALID_ARGUMENT => c"Invalid Argument",
        code::NOT_SUPPORTED => c"Not Supported",
        code::NO_PERMISSION => c"Insufficient Permissions",
        code::NOT_FOUND => c"Not Found",
        code::INSUFFICIENT_SIZE => c"Insufficient Size",
        code::DRIVER_NOT_LOADED => c"Driver Not Loaded",
        code::TIMEOUT => c"Timeout",
        code::IRQ_ISSUE => c"Interrupt Request Issue",
        code::GPU_IS_LOST => c"GPU is lost",
        code::LIBRARY_MISMATCH => c"Driver/library version mismatch",
        code::ARGUMENT_VERSION_MISMATCH => c"Argument version mismatch",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}
