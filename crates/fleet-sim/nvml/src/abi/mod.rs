//! The C functions (`nvml.h`). A device handle is its index plus one, so that a null handle is none.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};

use nvml_wrapper_sys::bindings::{
    nvmlMemory_st, nvmlMemory_v2_st, nvmlPciInfo_st, nvmlUtilization_st,
};

use fleet_sim_machine::Gpu;

use crate::session::{self, Part, Session, Visible, code};

mod mig;

type Device = *mut c_void;

/// Stores a value through a caller's pointer.
fn put<T>(out: *mut T, value: Result<T, u32>) -> u32 {
    if out.is_null() {
        return code::INVALID_ARGUMENT;
    }
    match value {
        Ok(value) => {
            // SAFETY: NVML's contract: a non-null pointer has room for one value of its type.
            unsafe { out.write(value) };
            code::SUCCESS
        }
        Err(code) => code,
    }
}

/// Stores text with its NUL into a caller's buffer.
fn put_text(out: *mut c_char, size: c_uint, text: Result<String, u32>) -> u32 {
    if out.is_null() {
        return code::INVALID_ARGUMENT;
    }
    let text = match text {
        Ok(text) => text,
        Err(code) => return code,
    };
    if text.len() >= usize::try_from(size).unwrap_or(0) {
        return code::INSUFFICIENT_SIZE;
    }
    // SAFETY: the caller says that `size` bytes are there; text and NUL fit, and cannot overlap our own string.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
        out.add(text.len()).write(0);
    }
    code::SUCCESS
}

fn handle(index: usize) -> Device {
    std::ptr::without_provenance_mut(index + 1)
}

/// Bits of a handle: the GPU's place plus one, above them the MIG device's place plus one.
const PART_SHIFT: u32 = 16;

fn part_handle(device: Device, part: usize) -> Device {
    std::ptr::without_provenance_mut(device.addr() | ((part + 1) << PART_SHIFT))
}

fn visible(session: &Session, device: Device) -> Result<&Visible, u32> {
    let found = (device.addr() & 0xffff)
        .checked_sub(1)
        .and_then(|index| session.visible.get(index))
        .ok_or(code::INVALID_ARGUMENT)?;
    if found.is_lost() {
        return Err(code::GPU_IS_LOST);
    }
    Ok(found)
}

fn gpu(session: &Session, device: Device) -> Result<&Gpu, u32> {
    visible(session, device).map(|visible| &visible.gpu)
}

/// The MIG device of a handle, if it is one.
fn part(session: &Session, device: Device) -> Result<Option<&Part>, u32> {
    let visible = visible(session, device)?;
    match (device.addr() >> PART_SHIFT).checked_sub(1) {
        None => Ok(None),
        Some(n) => visible.parts.get(n).map(Some).ok_or(code::INVALID_ARGUMENT),
    }
}

fn of<T>(device: Device, f: impl FnOnce(&Gpu) -> T) -> Result<T, u32> {
    session::with(|session| gpu(session, device).map(f))
}

/// A caller's C string.
fn text(given: *const c_char) -> Result<String, u32> {
    if given.is_null() {
        return Err(code::INVALID_ARGUMENT);
    }
    // SAFETY: NVML's contract: a non-null string ends in NUL.
    let text = unsafe { CStr::from_ptr(given) };
    text.to_str()
        .map(str::to_owned)
        .map_err(|_| code::INVALID_ARGUMENT)
}

/// Something of a MIG device, or of the whole GPU.
fn either<T>(
    device: Device,
    part_of: impl FnOnce(&Gpu, &Part) -> T,
    whole: impl FnOnce(&Gpu) -> T,
) -> Result<T, u32> {
    session::with(|session| {
        let gpu = gpu(session, device)?;
        Ok(match part(session, device)? {
            Some(part) => part_of(gpu, part),
            None => whole(gpu),
        })
    })
}

macro_rules! export {
    ($($name:ident($($arg:ident: $type:ty),*) $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            pub extern "C" fn $name($($arg: $type),*) -> u32 $body
        )*
    };
}
use export;

export! {
    nvmlInit_v2() { session::init() }
    nvmlInit() { session::init() }
    nvmlInitWithFlags(_flags: c_uint) { session::init() }
    nvmlShutdown() { session::shutdown() }
    nvmlSystemGetDriverVersion(out: *mut c_char, size: c_uint) { put_text(out, size, session::with(|s| Ok(s.machine.driver_version.clone()))) }
    nvmlSystemGetNVMLVersion(out: *mut c_char, size: c_uint) { put_text(out, size, session::with(|s| Ok(format!("12.{}", s.machine.driver_version)))) }
    nvmlSystemGetCudaDriverVersion(out: *mut c_int) { put(out, session::with(|s| Ok(s.machine.cuda_number()))) }
    nvmlSystemGetCudaDriverVersion_v2(out: *mut c_int) { put(out, session::with(|s| Ok(s.machine.cuda_number()))) }
    nvmlDeviceGetCount_v2(out: *mut c_uint) { put(out, session::with(|s| c_uint::try_from(s.visible.len()).map_err(|_| code::UNKNOWN))) }
    nvmlDeviceGetCount(out: *mut c_uint) { nvmlDeviceGetCount_v2(out) }
    nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut Device) {
        put(out, session::with(|s| {
            let index = usize::try_from(index).map_err(|_| code::INVALID_ARGUMENT)?;
            s.visible.get(index).ok_or(code::INVALID_ARGUMENT)?;
            visible(s, handle(index)).map(|_| handle(index))
        }))
    }
    nvmlDeviceGetHandleByIndex(index: c_uint, out: *mut Device) { nvmlDeviceGetHandleByIndex_v2(index, out) }
    nvmlDeviceGetHandleByUUID(uuid: *const c_char, out: *mut Device) {
        let wanted = text(uuid);
        put(out, session::with(|s| find_part(s, &wanted).map_or_else(|| find(s, wanted, |gpu| &gpu.uuid), Ok)))
    }
    nvmlDeviceGetHandleByPciBusId_v2(bus: *const c_char, out: *mut Device) {
        let wanted = text(bus);
        put(out, session::with(|s| find(s, wanted, |gpu| &gpu.bus_id)))
    }
    nvmlDeviceGetHandleBySerial(serial: *const c_char, out: *mut Device) {
        let wanted = text(serial);
        put(out, session::with(|s| find(s, wanted, |gpu| &gpu.serial)))
    }
    nvmlDeviceGetIndex(device: Device, out: *mut c_uint) {
        put(out, of(device, |_| c_uint::try_from((device.addr() & 0xffff) - 1).unwrap_or(0)))
    }
    nvmlDeviceGetName(device: Device, out: *mut c_char, size: c_uint) {
        put_text(out, size, either(device, |g, p| format!("{} {}", g.name, mig::part_name(&p.instance, &p.compute)), |g| g.name.clone()))
     }
    nvmlDeviceGetUUID(device: Device, out: *mut c_char, size: c_uint) {
        put_text(out, size, either(device, |_, p| p.compute.uuid.clone(), |g| g.uuid.clone()))
     }
    nvmlDeviceGetSerial(device: Device, out: *mut c_char, size: c_uint) {
        put_text(out, size, of(device, |g| g.serial.clone()).and_then(|serial| if serial.is_empty() { Err(code::NOT_SUPPORTED) } else { Ok(serial) }))
    }
    nvmlDeviceGetMinorNumber(device: Device, out: *mut c_uint) { put(out, of(device, |g| g.minor)) }
    nvmlDeviceGetBrand(device: Device, out: *mut c_uint) { put(out, of(device, |_| 14)) }
    nvmlDeviceGetPciInfo_v3(device: Device, out: *mut nvmlPciInfo_st) { put(out, of(device, pci)) }
    nvmlDeviceGetPciInfo_v2(device: Device, out: *mut nvmlPciInfo_st) { put(out, of(device, pci)) }
    nvmlDeviceGetMemoryInfo(device: Device, out: *mut nvmlMemory_st) {
        put(out, of(device, |g| nvmlMemory_st { total: mib(g.memory_mib), free: mib(g.memory_mib - g.used_mib.min(g.memory_mib)), used: mib(g.used_mib) }))
    }
    nvmlDeviceGetMemoryInfo_v2(device: Device, out: *mut nvmlMemory_v2_st) {
        if out.is_null() {
            return code::INVALID_ARGUMENT;
        }
        // SAFETY: not null; the caller set the version member of its own struct.
        let version = unsafe { (*out).version };
        put(out, of(device, |g| nvmlMemory_v2_st {
            version, total: mib(g.memory_mib), reserved: 0, free: mib(g.memory_mib - g.used_mib.min(g.memory_mib)), used: mib(g.used_mib),
        }))
    }
    nvmlDeviceGetUtilizationRates(device: Device, out: *mut nvmlUtilization_st) { put(out, of(device, |_| nvmlUtilization_st { gpu: 0, memory: 0 })) }
    nvmlDeviceGetTemperature(device: Device, _sensor: c_uint, out: *mut c_uint) { put(out, of(device, |g| g.temperature)) }
    nvmlDeviceGetPowerUsage(device: Device, out: *mut c_uint) { put(out, of(device, |g| g.power_milliwatts)) }
    nvmlDeviceGetEnforcedPowerLimit(device: Device, out: *mut c_uint) { put(out, of(device, |g| g.power_limit_milliwatts)) }
    nvmlDeviceGetPowerManagementLimit(device: Device, out: *mut c_uint) { put(out, of(device, |g| g.power_limit_milliwatts)) }
    nvmlDeviceGetPersistenceMode(device: Device, out: *mut c_uint) { put(out, of(device, |_| 0)) }
    nvmlDeviceGetComputeMode(device: Device, out: *mut c_uint) { put(out, of(device, |_| 0)) }
    nvmlDeviceGetDisplayMode(device: Device, out: *mut c_uint) { put(out, of(device, |_| 0)) }
    nvmlDeviceGetDisplayActive(device: Device, out: *mut c_uint) { put(out, of(device, |_| 0)) }
    nvmlDeviceGetPerformanceState(device: Device, out: *mut c_uint) { put(out, of(device, |_| 0)) }
    nvmlDeviceGetCudaComputeCapability(device: Device, major: *mut c_int, minor: *mut c_int) {
        match put(major, of(device, |g| g.compute_major)) {
            code::SUCCESS => put(minor, of(device, |g| g.compute_minor)),
            failed => failed,
        }
    }
    nvmlDeviceGetEccMode(device: Device, current: *mut c_uint, pending: *mut c_uint) {
        match put(current, of(device, |_| 1)) {
            code::SUCCESS => put(pending, of(device, |_| 1)),
            failed => failed,
        }
    }
    nvmlDeviceGetFanSpeed(device: Device, _out: *mut c_uint) { of(device, |_| ()).err().unwrap_or(code::NOT_SUPPORTED) }
    nvmlDeviceGetComputeRunningProcesses_v3(device: Device, count: *mut c_uint, _infos: *mut c_void) { put(count, of(device, |_| 0)) }
    nvmlDeviceGetGraphicsRunningProcesses_v3(device: Device, count: *mut c_uint, _infos: *mut c_void) { put(count, of(device, |_| 0)) }
}

fn mib(n: u64) -> c_ulonglong {
    n.saturating_mul(1024 * 1024)
}

fn find(
    session: &Session,
    wanted: Result<String, u32>,
    field: impl Fn(&Gpu) -> &String,
) -> Result<Device, u32> {
    let wanted = wanted?;
    session
        .visible
        .iter()
        .position(|visible| field(&visible.gpu).eq_ignore_ascii_case(&wanted))
        .map(handle)
        .ok_or(code::NOT_FOUND)
}

fn find_part(session: &Session, wanted: &Result<String, u32>) -> Option<Device> {
    let wanted = wanted.as_ref().ok()?;
    session.visible.iter().enumerate().find_map(|(n, visible)| {
        let parts = visible.parts.iter();
        let at = parts
            .into_iter()
            .position(|part| part.compute.uuid.eq_ignore_ascii_case(wanted))?;
        Some(part_handle(handle(n), at))
    })
}

/// `0000:17:00.0` as NVML's struct; the long form has an eight-digit domain.
fn pci(gpu: &Gpu) -> nvmlPciInfo_st {
    let parts: Vec<u32> = gpu
        .bus_id
        .split([':', '.'])
        .map(|part| u32::from_str_radix(part, 16).unwrap_or(0))
        .collect();
    let part = |n: usize| parts.get(n).copied().unwrap_or(0);
    let mut info = nvmlPciInfo_st {
        busIdLegacy: [0; 16],
        domain: part(0),
        bus: part(1),
        device: part(2),
        pciDeviceId: 0x2330_10de,
        pciSubSystemId: 0x16c1_10de,
        busId: [0; 32],
    };
    let long = format!(
        "{:08X}:{:02X}:{:02X}.{:X}",
        part(0),
        part(1),
        part(2),
        part(3)
    );
    fill(&mut info.busId, &long);
    fill(&mut info.busIdLegacy, &long[4..]);
    info
}

fn fill(out: &mut [c_char], text: &str) {
    for (to, from) in out.iter_mut().zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
}

/// The words of a return code.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: u32) -> *const c_char {
    let text = match result {
        code::SUCCESS => c"Success",
        code::UNINITIALIZED => c"Uninitialized",
        code::INVALID_ARGUMENT => c"Invalid Argument",
        code::NOT_SUPPORTED => c"Not Supported",
        code::NO_PERMISSION => c"Insufficient Permissions",
        code::NOT_FOUND => c"Not Found",
        code::INSUFFICIENT_SIZE => c"Insufficient Size",
        code::DRIVER_NOT_LOADED => c"Driver Not Loaded",
        code::GPU_IS_LOST => c"GPU is lost",
        code::LIBRARY_MISMATCH => c"Driver/library version mismatch",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}
