//! Memory and how busy the GPU is: it is idle.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{c_uint, c_ulonglong, c_void};

use nvml_wrapper_sys::bindings::{
    nvmlBAR1Memory_st, nvmlFBCStats_st, nvmlMemory_st, nvmlMemory_v2_st, nvmlUtilization_st,
};

use super::{Device, export, gpu, mib, mig, part, put, put_array, put_two, version, whole};
use crate::session::{self, Session, code};

/// How often the driver samples, in microseconds.
const SAMPLING_PERIOD: c_uint = 167_000;

/// Total and used, in bytes, of a GPU or a MIG device.
fn sizes(s: &Session, device: Device) -> Result<(c_ulonglong, c_ulonglong), u32> {
    let gpu = gpu(s, device)?;
    match part(s, device)? {
        Some(part) => Ok((mib(mig::memory(s, device, part)?), mib(1))),
        None => Ok((mib(gpu.memory_mib), mib(gpu.used_mib.min(gpu.memory_mib)))),
    }
}

export! {
    nvmlDeviceGetMemoryInfo(device: Device, out: *mut nvmlMemory_st) {
        put(out, session::with(|s| {
            let (total, used) = sizes(s, device)?;
            Ok(nvmlMemory_st { total, free: total - used, used })
        }))
    }
    nvmlDeviceGetMemoryInfo_v2(device: Device, out: *mut nvmlMemory_v2_st) {
        let Some(version) = version(out) else {
            return code::INVALID_ARGUMENT;
        };
        put(out, session::with(|s| {
            let (total, used) = sizes(s, device)?;
            // The driver keeps about a hundredth for itself.
            let reserved = (total / 100).min(mib(600)).min(total - used);
            Ok(nvmlMemory_v2_st { version, total, reserved, free: total - used - reserved, used })
        }))
    }
    nvmlDeviceGetBAR1MemoryInfo(device: Device, out: *mut nvmlBAR1Memory_st) {
        put(out, session::with(|s| {
            let bar1 = fleet_sim_machine::model(&gpu(s, device)?.model).map_or(0, |m| m.bar1_mib);
            let total = mib(match part(s, device)? {
                Some(part) => bar1 / 8 * u64::from(mig::size(s, device, part)?),
                None => bar1,
            });
            Ok(nvmlBAR1Memory_st { bar1Total: total, bar1Free: total.saturating_sub(mib(1)), bar1Used: mib(1).min(total) })
        }))
    }
    nvmlDeviceGetMemoryBusWidth(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| Some(m.bus_width))) }
    nvmlDeviceGetUtilizationRates(device: Device, out: *mut nvmlUtilization_st) {
        // Divided GPUs do not know.
        put(out, whole(device, |g, _| g.mig.is_none().then_some(nvmlUtilization_st { gpu: 0, memory: 0 })))
    }
    nvmlDeviceGetEncoderUtilization(device: Device, out: *mut c_uint, period: *mut c_uint) { idle(device, out, period) }
    nvmlDeviceGetDecoderUtilization(device: Device, out: *mut c_uint, period: *mut c_uint) { idle(device, out, period) }
    nvmlDeviceGetJpgUtilization(device: Device, out: *mut c_uint, period: *mut c_uint) { idle(device, out, period) }
    nvmlDeviceGetOfaUtilization(device: Device, out: *mut c_uint, period: *mut c_uint) { idle(device, out, period) }
    nvmlDeviceGetEncoderStats(device: Device, sessions: *mut c_uint, rate: *mut c_uint, latency: *mut c_uint) {
        match put_two(sessions, rate, whole(device, |_, _| Some((0, 0)))) {
            code::SUCCESS => put(latency, Ok(0)),
            failed => failed,
        }
    }
    nvmlDeviceGetEncoderCapacity(device: Device, _kind: c_uint, out: *mut c_uint) { put(out, whole(device, |_, _| Some(100))) }
    nvmlDeviceGetEncoderSessions(device: Device, count: *mut c_uint, _out: *mut c_void) { put(count, whole(device, |_, _| Some(0))) }
    nvmlDeviceGetFBCStats(device: Device, out: *mut nvmlFBCStats_st) {
        put(out, whole(device, |_, _| Some(nvmlFBCStats_st { sessionsCount: 0, averageFPS: 0, averageLatency: 0 })))
    }
    nvmlDeviceGetFBCSessions(device: Device, count: *mut c_uint, _out: *mut c_void) { put(count, whole(device, |_, _| Some(0))) }
    nvmlDeviceGetRetiredPages(device: Device, _cause: c_uint, _count: *mut c_uint, _out: *mut c_ulonglong) { super::refuse(device, code::NOT_SUPPORTED) }
    nvmlDeviceGetSamples(device: Device, _kind: c_uint, _since: c_ulonglong, _type: *mut c_uint, _count: *mut c_uint, _out: *mut c_void) {
        super::refuse(device, code::NOT_FOUND)
    }
    nvmlDeviceGetActiveVgpus(device: Device, count: *mut c_uint, out: *mut c_uint) { put_array(out, count, whole(device, |_, _| Some(Vec::new()))) }
    nvmlDeviceGetFanSpeed(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| m.fan.then_some(30))) }
    nvmlDeviceGetFanSpeed_v2(device: Device, fan: c_uint, out: *mut c_uint) {
        if fan == 0 { nvmlDeviceGetFanSpeed(device, out) } else { super::refuse(device, code::INVALID_ARGUMENT) }
    }
    nvmlDeviceGetNumFans(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| Some(c_uint::from(m.fan)))) }
    nvmlDeviceGetMinMaxFanSpeed(device: Device, low: *mut c_uint, high: *mut c_uint) { put_two(low, high, whole(device, |_, m| m.fan.then_some((30, 100)))) }
}

fn idle(device: Device, out: *mut c_uint, period: *mut c_uint) -> u32 {
    put_two(
        out,
        period,
        whole(device, |g, _| {
            g.mig.is_none().then_some((0, SAMPLING_PERIOD))
        }),
    )
}
