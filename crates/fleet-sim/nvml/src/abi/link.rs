//! PCIe, `NVLink`, fabric, and what is near to what.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{c_uint, c_ulong, c_ulonglong};

use fleet_sim_machine::{Gpu, Model, model};
use nvml_wrapper_sys::bindings::{nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v2_t, nvmlPciInfo_st};

use super::device::pci;
use super::{Device, Handles, export, fill, gpu, part, put, put_array, refuse, version, whole};
use crate::session::{self, Session, code};

/// `NVML_NVLINK_MAX_LINKS`.
const MOST_LINKS: c_uint = 18;
/// Width of every slot.
const LANES: c_uint = 16;
/// `nvmlGpuTopologyLevel_t`.
const SAME_NODE: c_uint = 40;
const SYSTEM: c_uint = 50;
/// `nvmlIntNvLinkDeviceType_t`.
const REMOTE_GPU: c_uint = 0;
const REMOTE_SWITCH: c_uint = 2;
/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
const FABRIC_COMPLETED: u8 = 3;
/// The first architecture that a fabric manager registers.
const HOPPER: c_uint = 9;

/// MB/s of a lane and direction, by generation.
fn lane_speed(generation: c_uint) -> c_uint {
    match generation {
        5 => 32_000,
        4 => 16_000,
        _ => 8000,
    }
}

/// Generation of the links: Ampere has the third, Hopper the fourth, Blackwell the fifth.
fn generation(model: &Model) -> c_uint {
    match model.architecture {
        ..HOPPER => 3,
        HOPPER => 4,
        _ => 5,
    }
}

/// Number of links that are up, and their generation: with switches all of them; without, those between GPUs that have company.
pub(super) fn links(s: &Session, device: Device) -> Result<(c_uint, c_uint), u32> {
    if part(s, device)?.is_some() {
        return Err(code::NOT_SUPPORTED);
    }
    let model = model(&gpu(s, device)?.model).ok_or(code::NOT_SUPPORTED)?;
    let company = !s.machine.switches.is_empty() || s.machine.gpus.len() > 1;
    if model.nvlinks == 0 || !company {
        return Err(code::NOT_SUPPORTED);
    }
    Ok((model.nvlinks, generation(model)))
}

/// The generation of one link. A link that another GPU could have is not supported, any other is none.
fn link(s: &Session, device: Device, link: c_uint) -> Result<c_uint, u32> {
    let (count, version) = links(s, device)?;
    match link {
        _ if link < count => Ok(version),
        ..MOST_LINKS => Err(code::NOT_SUPPORTED),
        _ => Err(code::INVALID_ARGUMENT),
    }
}

/// The other end of a link: a switch, or one of the other GPUs in turn.
fn remote(s: &Session, device: Device, number: c_uint) -> Result<nvmlPciInfo_st, u32> {
    link(s, device, number)?;
    let chips: Vec<&str> = s
        .machine
        .switches
        .iter()
        .filter_map(|switch| switch.bus_id.as_deref())
        .collect();
    let number = usize::try_from(number).map_err(|_| code::INVALID_ARGUMENT)?;
    if !chips.is_empty() {
        return Ok(switch_pci(chips[number % chips.len()]));
    }
    let own = gpu(s, device)?;
    let others: Vec<&Gpu> = s
        .machine
        .gpus
        .iter()
        .filter(|other| other.minor != own.minor)
        .collect();
    others
        .get(number % others.len().max(1))
        .map(|other| pci(other))
        .ok_or(code::NOT_FOUND)
}

fn switch_pci(bus_id: &str) -> nvmlPciInfo_st {
    let part = |n: usize| {
        bus_id
            .split([':', '.'])
            .nth(n)
            .and_then(|part| u32::from_str_radix(part, 16).ok())
            .unwrap_or(0)
    };
    let mut info = nvmlPciInfo_st {
        busIdLegacy: [0; 16],
        domain: part(0),
        bus: part(1),
        device: part(2),
        pciDeviceId: 0x22a3_10de,
        pciSubSystemId: 0,
        busId: [0; 32],
    };
    let long = format!("0000{}", bus_id.to_ascii_uppercase());
    fill(&mut info.busId, &long);
    fill(&mut info.busIdLegacy, &long[4..]);
    info
}

/// Half of the GPUs are at each socket.
fn socket(s: &Session, device: Device) -> Result<usize, u32> {
    gpu(s, device)?;
    let half = s.visible.len().div_ceil(2).max(1);
    Ok(((device.addr() & 0xffff) - 1) / half)
}

export! {
    nvmlDeviceGetCurrPcieLinkGeneration(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| pcie(m).then_some(if m.fan { 1 } else { m.pcie_gen }))) }
    nvmlDeviceGetMaxPcieLinkGeneration(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| pcie(m).then_some(m.pcie_gen))) }
    nvmlDeviceGetGpuMaxPcieLinkGeneration(device: Device, out: *mut c_uint) { nvmlDeviceGetMaxPcieLinkGeneration(device, out) }
    nvmlDeviceGetCurrPcieLinkWidth(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| pcie(m).then_some(LANES))) }
    nvmlDeviceGetMaxPcieLinkWidth(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| pcie(m).then_some(LANES))) }
    nvmlDeviceGetPcieSpeed(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| pcie(m).then(|| lane_speed(m.pcie_gen)))) }
    nvmlDeviceGetPcieLinkMaxSpeed(device: Device, out: *mut c_uint) {
        // NVML_PCIE_LINK_MAX_SPEED_8000MBPS is 3, each generation one more.
        put(out, whole(device, |_, m| pcie(m).then_some(m.pcie_gen)))
    }
    nvmlDeviceGetPcieThroughput(device: Device, _counter: c_uint, out: *mut c_uint) { put(out, whole(device, |_, m| pcie(m).then_some(0))) }
    nvmlDeviceGetPcieReplayCounter(device: Device, out: *mut c_uint) { put(out, whole(device, |_, m| pcie(m).then_some(0))) }
    nvmlDeviceGetNvLinkState(device: Device, number: c_uint, out: *mut c_uint) { put(out, session::with(|s| link(s, device, number).map(|_| 1))) }
    nvmlDeviceGetNvLinkVersion(device: Device, number: c_uint, out: *mut c_uint) { put(out, session::with(|s| link(s, device, number))) }
    nvmlDeviceGetNvLinkCapability(device: Device, number: c_uint, capability: c_uint, out: *mut c_uint) {
        // P2P, system memory, their atomics; not SLI.
        put(out, session::with(|s| link(s, device, number).map(|_| c_uint::from(capability <= 3))))
    }
    nvmlDeviceGetNvLinkRemotePciInfo_v2(device: Device, number: c_uint, out: *mut nvmlPciInfo_st) { put(out, session::with(|s| remote(s, device, number))) }
    nvmlDeviceGetNvLinkRemotePciInfo(device: Device, number: c_uint, out: *mut nvmlPciInfo_st) { nvmlDeviceGetNvLinkRemotePciInfo_v2(device, number, out) }
    nvmlDeviceGetNvLinkRemoteDeviceType(device: Device, number: c_uint, out: *mut c_uint) {
        put(out, session::with(|s| {
            link(s, device, number)?;
            Ok(if s.machine.switches.is_empty() { REMOTE_GPU } else { REMOTE_SWITCH })
        }))
    }
    nvmlDeviceGetNvLinkErrorCounter(device: Device, number: c_uint, _counter: c_uint, out: *mut c_ulonglong) { put(out, session::with(|s| link(s, device, number).map(|_| 0))) }
    nvmlDeviceGetGpuFabricInfo(device: Device, out: *mut nvmlGpuFabricInfo_t) {
        put(out, session::with(|s| {
            let state = fabric(s, device)?;
            Ok(nvmlGpuFabricInfo_t { clusterUuid: [0; 16], status: code::SUCCESS, cliqueId: 0, state })
        }))
    }
    nvmlDeviceGetGpuFabricInfoV(device: Device, out: *mut nvmlGpuFabricInfo_v2_t) {
        let Some(version) = version(out) else {
            return code::INVALID_ARGUMENT;
        };
        put(out, session::with(|s| {
            let state = fabric(s, device)?;
            Ok(nvmlGpuFabricInfo_v2_t { version, clusterUuid: [0; 16], status: code::SUCCESS, cliqueId: 0, state, healthMask: 0 })
        }))
    }
    nvmlDeviceGetTopologyCommonAncestor(one: Device, other: Device, out: *mut c_uint) {
        put(out, session::with(|s| ancestor(s, one, other)))
    }
    nvmlDeviceGetTopologyNearestGpus(device: Device, level: c_uint, count: *mut c_uint, out: *mut Device) {
        put_array(out, count, session::with(|s| {
            let own = socket(s, device)?;
            let wanted = |other: &Device| {
                let same = socket(s, *other) == Ok(own);
                *other != device && ((level == SAME_NODE && same) || (level == SYSTEM && !same))
            };
            Ok(s.handles().into_iter().filter(wanted).collect())
        }))
    }
    nvmlDeviceGetP2PStatus(one: Device, other: Device, index: c_uint, out: *mut c_uint) {
        put(out, session::with(|s| {
            gpu(s, one)?;
            gpu(s, other)?;
            // NVLink (2) needs links; the others are granted.
            Ok(if index == 2 && links(s, one).is_err() { 5 } else { 0 })
        }))
    }
    nvmlDeviceGetCpuAffinity(device: Device, size: c_uint, out: *mut c_ulong) { affinity(device, size, out, c_ulong::MAX) }
    nvmlDeviceGetCpuAffinityWithinScope(device: Device, size: c_uint, out: *mut c_ulong, _scope: c_uint) { affinity(device, size, out, c_ulong::MAX) }
    nvmlDeviceGetMemoryAffinity(device: Device, size: c_uint, out: *mut c_ulong, _scope: c_uint) { affinity(device, size, out, 1) }
    nvmlDeviceClearCpuAffinity(device: Device) { refuse(device, code::SUCCESS) }
    nvmlDeviceSetCpuAffinity(device: Device) { refuse(device, code::SUCCESS) }
}

/// `nvmlGpuTopologyLevel_t` of two GPUs.
pub(super) fn ancestor(s: &Session, one: Device, other: Device) -> Result<c_uint, u32> {
    Ok(if socket(s, one)? == socket(s, other)? {
        SAME_NODE
    } else {
        SYSTEM
    })
}

fn pcie(model: &Model) -> bool {
    model.pci_id != 0
}

fn fabric(s: &Session, device: Device) -> Result<u8, u32> {
    let model = model(&gpu(s, device)?.model).ok_or(code::NOT_SUPPORTED)?;
    if s.machine.fabricmanager && model.architecture >= HOPPER {
        Ok(FABRIC_COMPLETED)
    } else {
        Err(code::NOT_SUPPORTED)
    }
}

/// All processors, or the first node: of as many words as the caller has, the first is filled.
fn affinity(device: Device, size: c_uint, out: *mut c_ulong, first: c_ulong) -> u32 {
    let fault = refuse(device, code::SUCCESS);
    if fault != code::SUCCESS {
        return fault;
    }
    if out.is_null() || size == 0 {
        return code::INVALID_ARGUMENT;
    }
    for n in 0..usize::try_from(size).unwrap_or(0) {
        // SAFETY: NVML's contract: the array has room for `size` words.
        unsafe { out.add(n).write(if n == 0 { first } else { 0 }) };
    }
    code::SUCCESS
}
