//! Which GPUs there are, and what is printed on them.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{c_char, c_int, c_uint, c_void};

use fleet_sim_machine::{Gpu, model};
use nvml_wrapper_sys::bindings::{
    nvmlBridgeChipHierarchy_st, nvmlC2cModeInfo_v1_t, nvmlDeviceAddressingMode_v1_t,
    nvmlDeviceAddressingModeType_t_NVML_DEVICE_ADDRESSING_MODE_ATS as ADDRESSING_ATS,
    nvmlDeviceAddressingModeType_t_NVML_DEVICE_ADDRESSING_MODE_NONE as ADDRESSING_NONE,
    nvmlPciInfo_st, nvmlPciInfoExt_v1_t,
};

use super::{
    Device, either, export, fill, handle, mig, of, part, part_handle, put, put_array, put_text,
    put_two, refuse, text, version, visible, whole,
};
use crate::session::{self, Session, code};

/// `nvml.h`: power source, bus type.
const POWER_SOURCE_AC: c_uint = 0;
const BUS_TYPE_PCIE: c_uint = 2;
/// Entries of the accounting buffer.
const ACCOUNTING_ENTRIES: c_uint = 4000;

fn by_index(s: &Session, index: c_uint) -> Result<Device, u32> {
    let index = usize::try_from(index).map_err(|_| code::INVALID_ARGUMENT)?;
    s.visible.get(index).ok_or(code::INVALID_ARGUMENT)?;
    visible(s, handle(index)).map(|_| handle(index))
}

export! {
    nvmlDeviceGetCount_v2(out: *mut c_uint) { put(out, session::with(|s| c_uint::try_from(s.visible.len()).map_err(|_| code::UNKNOWN))) }
    nvmlDeviceGetCount(out: *mut c_uint) { nvmlDeviceGetCount_v2(out) }
    nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut Device) { put(out, session::with(|s| by_index(s, index))) }
    nvmlDeviceGetHandleByIndex(index: c_uint, out: *mut Device) { nvmlDeviceGetHandleByIndex_v2(index, out) }
    nvmlDeviceGetHandleByUUID(uuid: *const c_char, out: *mut Device) {
        let wanted = text(uuid);
        put(out, session::with(|s| find_part(s, &wanted).map_or_else(|| find(s, wanted, |gpu| gpu.uuid.clone()), Ok)))
    }
    nvmlDeviceGetHandleByPciBusId_v2(bus: *const c_char, out: *mut Device) {
        let wanted = text(bus).map(|bus| long_form(&bus));
        put(out, session::with(|s| find(s, wanted, |gpu| long_form(&gpu.bus_id))))
    }
    nvmlDeviceGetHandleByPciBusId(bus: *const c_char, out: *mut Device) { nvmlDeviceGetHandleByPciBusId_v2(bus, out) }
    nvmlDeviceGetHandleBySerial(serial: *const c_char, out: *mut Device) {
        let wanted = text(serial);
        put(out, session::with(|s| find(s, wanted, |gpu| gpu.serial.clone())))
    }
    nvmlDeviceValidateInforom(device: Device) { refuse(device, code::SUCCESS) }
    nvmlDeviceGetIndex(device: Device, out: *mut c_uint) {
        put(out, session::with(|s| {
            let part = part(s, device)?.is_some();
            let at = if part { (device.addr() >> super::PART_SHIFT) & 0xffff } else { device.addr() & 0xffff };
            c_uint::try_from(at - 1).map_err(|_| code::UNKNOWN)
        }))
    }
    nvmlDeviceGetName(device: Device, out: *mut c_char, size: c_uint) {
        put_text(out, size, either(device, |g, p| format!("{} {}", g.name, mig::part_name(&p.instance, &p.compute)), |g| g.name.clone()))
    }
    nvmlDeviceGetUUID(device: Device, out: *mut c_char, size: c_uint) {
        put_text(out, size, either(device, |_, p| p.compute.uuid.clone(), |g| g.uuid.clone()))
    }
    nvmlDeviceGetSerial(device: Device, out: *mut c_char, size: c_uint) {
        put_text(out, size, whole(device, |g, m| (m.ecc && !g.serial.is_empty()).then(|| g.serial.clone())))
    }
    nvmlDeviceGetMinorNumber(device: Device, out: *mut c_uint) { put(out, of(device, |g| g.minor)) }
    nvmlDeviceGetBrand(device: Device, out: *mut c_uint) { put(out, of(device, |g| model(&g.model).map_or(0, |m| m.brand))) }
    nvmlDeviceGetArchitecture(device: Device, out: *mut c_uint) {
        put(out, of(device, |g| model(&g.model).map_or(c_uint::MAX, |m| m.architecture)))
    }
    nvmlDeviceGetPciInfo_v3(device: Device, out: *mut nvmlPciInfo_st) { put(out, of(device, pci)) }
    nvmlDeviceGetPciInfo_v2(device: Device, out: *mut nvmlPciInfo_st) { put(out, of(device, pci)) }
    nvmlDeviceGetPciInfoExt(device: Device, out: *mut nvmlPciInfoExt_v1_t) {
        let Some(version) = super::version(out) else {
            return code::INVALID_ARGUMENT;
        };
        put(out, of(device, |g| {
            let (plain, class) = (pci(g), model(&g.model).map_or(0, |m| m.class));
            nvmlPciInfoExt_v1_t {
                version,
                domain: plain.domain,
                bus: plain.bus,
                device: plain.device,
                pciDeviceId: plain.pciDeviceId,
                pciSubSystemId: plain.pciSubSystemId,
                baseClass: class >> 16,
                subClass: (class >> 8) & 0xff,
                busId: plain.busId,
            }
        }))
    }
    nvmlDeviceGetCudaComputeCapability(device: Device, major: *mut c_int, minor: *mut c_int) {
        put_two(major, minor, of(device, |g| (g.compute_major, g.compute_minor)))
    }
    nvmlDeviceGetVbiosVersion(device: Device, out: *mut c_char, size: c_uint) {
        put_text(out, size, whole(device, |_, m| (!m.vbios.is_empty()).then(|| m.vbios.to_owned())))
    }
    nvmlDeviceGetBoardPartNumber(device: Device, out: *mut c_char, size: c_uint) {
        put_text(out, size, whole(device, |_, m| (!m.part.is_empty()).then(|| m.part.to_owned())))
    }
    nvmlDeviceGetInforomImageVersion(device: Device, out: *mut c_char, size: c_uint) {
        put_text(out, size, whole(device, |_, m| m.ecc.then(|| image_version(m.part))))
    }
    nvmlDeviceGetInforomVersion(device: Device, object: c_uint, out: *mut c_char, size: c_uint) {
        put_text(out, size, whole(device, |_, m| match object {
            0 => Some("2.1".to_owned()),
            1 if m.ecc => Some("7.16".to_owned()),
            _ => None,
        }))
    }
    nvmlDeviceGetInforomConfigurationChecksum(device: Device, out: *mut c_uint) { put(out, whole(device, |g, _| Some(0x5f3c_0000 + g.minor))) }
    nvmlDeviceGetBoardId(device: Device, out: *mut c_uint) { put(out, of(device, |g| pci(g).bus << 8)) }
    nvmlDeviceGetModuleId(device: Device, out: *mut c_uint) { put(out, whole(device, |g, m| (m.nvlinks > 0).then_some(g.minor + 1))) }
    nvmlDeviceGetMultiGpuBoard(device: Device, out: *mut c_uint) { put(out, of(device, |_| 0)) }
    nvmlDeviceOnSameBoard(one: Device, other: Device, out: *mut c_int) {
        put(out, of(one, |g| g.minor).and_then(|a| of(other, |g| c_int::from(a == g.minor))))
    }
    nvmlDeviceGetBridgeChipInfo(device: Device, _out: *mut nvmlBridgeChipHierarchy_st) { refuse(device, code::NOT_SUPPORTED) }
    nvmlDeviceGetNumGpuCores(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| Some(m.cores))) }
    nvmlDeviceGetIrqNum(device: Device, out: *mut c_uint) { put(out, whole(device, |g, _| Some(16 + g.minor))) }
    nvmlDeviceGetPowerSource(device: Device, out: *mut c_uint) { put(out, whole(device, |_, _| Some(POWER_SOURCE_AC))) }
    nvmlDeviceGetBusType(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| (m.pci_id != 0).then_some(BUS_TYPE_PCIE))) }
    nvmlDeviceGetGspFirmwareVersion(device: Device, out: *mut c_char) {
        // NVML_GSP_FIRMWARE_VERSION_BUF_SIZE.
        put_text(out, 64, of(device, |_| ()).and_then(|()| session::with(|s| Ok(s.machine.driver_version.clone()))))
    }
    nvmlDeviceGetGspFirmwareMode(device: Device, enabled: *mut c_uint, default: *mut c_uint) { put_two(enabled, default, of(device, |_| (1, 1))) }
    nvmlDeviceGetPersistenceMode(device: Device, out: *mut c_uint) {
        put(out, of(device, |_| ()).and_then(|()| session::with(|s| Ok(c_uint::from(s.machine.persistenced)))))
    }
    nvmlDeviceGetComputeMode(device: Device, out: *mut c_uint) { put(out, of(device, |_| 0)) }
    nvmlDeviceGetDisplayMode(device: Device, out: *mut c_uint) { put(out, whole(device, |g, _| Some(c_uint::from(g.is_dgx_display())))) }
    nvmlDeviceGetDisplayActive(device: Device, out: *mut c_uint) { put(out, whole(device, |_, _| Some(0))) }
    nvmlDeviceGetVirtualizationMode(device: Device, out: *mut c_uint) { put(out, whole(device, |_, _| Some(0))) }
    nvmlDeviceGetAccountingMode(device: Device, out: *mut c_uint) { put(out, of(device, |_| 0)) }
    nvmlDeviceGetAccountingBufferSize(device: Device, out: *mut c_uint) { put(out, of(device, |_| ACCOUNTING_ENTRIES)) }
    nvmlDeviceGetAccountingPids(device: Device, count: *mut c_uint, out: *mut c_uint) { put_array(out, count, of(device, |_| Vec::new())) }
    nvmlDeviceGetAPIRestriction(device: Device, kind: c_uint, out: *mut c_uint) { put(out, whole(device, |_, _| (kind == 0).then_some(0))) }
    nvmlDeviceGetC2cModeInfoV(device: Device, out: *mut nvmlC2cModeInfo_v1_t) {
        put(out, whole(device, |_, m| m.coherent.then_some(nvmlC2cModeInfo_v1_t { isC2cEnabled: 1 })))
    }
    nvmlDeviceGetAddressingMode(device: Device, out: *mut nvmlDeviceAddressingMode_v1_t) {
        let Some(version) = version(out) else { return code::INVALID_ARGUMENT };
        let value = |coherent| if coherent { ADDRESSING_ATS } else { ADDRESSING_NONE };
        put(out, whole(device, |_, m| Some(nvmlDeviceAddressingMode_v1_t { version, value: value(m.coherent) })))
    }
    nvmlDeviceGetNumaNodeId(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| m.coherent.then_some(1))) }
    nvmlDeviceGetDriverModel(device: Device, _current: *mut c_uint, _pending: *mut c_uint) {
        refuse(device, code::NOT_SUPPORTED)
    }
    nvmlDeviceGetComputeRunningProcesses_v3(device: Device, count: *mut c_uint, _infos: *mut c_void) { put(count, of(device, |_| 0)) }
    nvmlDeviceGetComputeRunningProcesses_v2(device: Device, count: *mut c_uint, _infos: *mut c_void) { put(count, of(device, |_| 0)) }
    nvmlDeviceGetComputeRunningProcesses(device: Device, count: *mut c_uint, _infos: *mut c_void) { put(count, of(device, |_| 0)) }
    nvmlDeviceGetGraphicsRunningProcesses_v3(device: Device, count: *mut c_uint, _infos: *mut c_void) { put(count, of(device, |_| 0)) }
    nvmlDeviceGetGraphicsRunningProcesses_v2(device: Device, count: *mut c_uint, _infos: *mut c_void) { put(count, of(device, |_| 0)) }
    nvmlDeviceGetGraphicsRunningProcesses(device: Device, count: *mut c_uint, _infos: *mut c_void) { put(count, of(device, |_| 0)) }
    nvmlDeviceGetMPSComputeRunningProcesses_v3(device: Device, count: *mut c_uint, _infos: *mut c_void) { put(count, of(device, |_| 0)) }
    nvmlDeviceGetMPSComputeRunningProcesses_v2(device: Device, count: *mut c_uint, _infos: *mut c_void) { put(count, of(device, |_| 0)) }
    nvmlDeviceGetMPSComputeRunningProcesses(device: Device, count: *mut c_uint, _infos: *mut c_void) { put(count, of(device, |_| 0)) }
    nvmlDeviceGetProcessUtilization(device: Device, _out: *mut c_void, count: *mut c_uint, _since: u64) { put(count, of(device, |_| 0)) }
}

fn find(
    session: &Session,
    wanted: Result<String, u32>,
    field: impl Fn(&Gpu) -> String,
) -> Result<Device, u32> {
    let wanted = wanted?;
    let at = session
        .visible
        .iter()
        .position(|visible| field(&visible.gpu).eq_ignore_ascii_case(&wanted))
        .ok_or(code::NOT_FOUND)?;
    visible(session, handle(at)).map(|_| handle(at))
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

/// `692-2G520-0200-000` is board G520.
fn image_version(part: &str) -> String {
    let mut words = part.split('-').skip(1);
    let board = words
        .next()
        .and_then(|word| word.get(1..))
        .unwrap_or_default();
    format!("{board}.{}.00.03", words.next().unwrap_or_default())
}

/// Domain, bus, device and function; a domain that is missing is zero.
fn address(bus_id: &str) -> [u32; 4] {
    let parts: Vec<u32> = bus_id
        .split([':', '.'])
        .map(|part| u32::from_str_radix(part, 16).unwrap_or(0))
        .collect();
    match parts.as_slice() {
        [bus, device, function] => [0, *bus, *device, *function],
        [domain, bus, device, function] => [*domain, *bus, *device, *function],
        _ => [0; 4],
    }
}

/// With an eight-digit domain, as NVML writes it.
fn long_form(bus_id: &str) -> String {
    let [domain, bus, device, function] = address(bus_id);
    format!("{domain:08X}:{bus:02X}:{device:02X}.{function:X}")
}

/// `0000:17:00.0` as NVML's struct.
pub(super) fn pci(gpu: &Gpu) -> nvmlPciInfo_st {
    let [domain, bus, device, _] = address(&gpu.bus_id);
    let model = model(&gpu.model);
    let mut info = nvmlPciInfo_st {
        busIdLegacy: [0; 16],
        domain,
        bus,
        device,
        pciDeviceId: model.map_or(0, |model| model.pci_id),
        pciSubSystemId: model.map_or(0, |model| model.subsystem_id),
        busId: [0; 32],
    };
    let long = long_form(&gpu.bus_id);
    fill(&mut info.busId, &long);
    fill(&mut info.busIdLegacy, &long[4..]);
    info
}
