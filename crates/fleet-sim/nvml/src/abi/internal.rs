//! What `nvidia-smi` asks of the library beside the documented functions: a table of functions by place.
//!
//! The places were found by giving each a function of its own and looking which ones the real program calls, in its
//! versions 535 and 550. Those that are not simulated answer "not supported".
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{c_char, c_uint, c_void};

use super::device::{nvmlDeviceGetHandleByIndex_v2, nvmlDeviceGetHandleByPciBusId_v2};
use super::link::{self, nvmlDeviceGetMaxPcieLinkGeneration};
use super::{Device, export, of, put};
use crate::session::{self, code};

/// The table's name: 6c3efec4-8fc9-4e6c-a327-ee696e12f7c4, in memory order.
const TABLE_ID: [u8; 16] = [
    0xc4, 0xfe, 0x3e, 0x6c, 0xc9, 0x8f, 0x6c, 0x4e, 0xa3, 0x27, 0xee, 0x69, 0x6e, 0x12, 0xf7, 0xc4,
];
/// Entries, the first of which is the table's size in bytes.
const ENTRIES: usize = 512;

type Function = extern "C" fn(*mut c_void, *mut c_void, *mut c_void) -> u32;

/// Size and functions.
#[repr(C)]
struct Table {
    size: usize,
    functions: [Function; ENTRIES - 1],
}

static TABLE: Table = Table {
    size: size_of::<Table>(),
    functions: functions(),
};

const fn functions() -> [Function; ENTRIES - 1] {
    let mut all: [Function; ENTRIES - 1] = [not_supported; ENTRIES - 1];
    all[HANDLE_BY_INDEX - 1] = handle_by_index;
    all[COMMON_ANCESTOR - 1] = common_ancestor;
    all[HOST_PCIE_GENERATION - 1] = host_pcie_generation;
    let mut n = 0;
    while n < PROCESSES.len() {
        all[PROCESSES[n] - 1] = no_processes;
        n += 1;
    }
    all
}

/// Place of: topology level of two PCI addresses.
const COMMON_ANCESTOR: usize = 23;
/// The highest of its levels without links.
const SYSTEM: c_uint = 4;
/// Place of: GPU by index.
const HANDLE_BY_INDEX: usize = 81;
/// Places of: lists of processes.
const PROCESSES: [usize; 3] = [213, 214, 215];
/// Place of: highest PCIe generation of the slot.
const HOST_PCIE_GENERATION: usize = 230;

extern "C" fn not_supported(_: *mut c_void, _: *mut c_void, _: *mut c_void) -> u32 {
    code::NOT_SUPPORTED
}

extern "C" fn handle_by_index(index: *mut c_void, out: *mut c_void, _: *mut c_void) -> u32 {
    c_uint::try_from(index.addr()).map_or(code::INVALID_ARGUMENT, |index| {
        nvmlDeviceGetHandleByIndex_v2(index, out.cast())
    })
}

/// A number of its own scale: 0 to 4 are the documented levels, above them the number of links through switches.
extern "C" fn common_ancestor(one: *mut c_void, other: *mut c_void, out: *mut c_void) -> u32 {
    let mut devices: [Device; 2] = [std::ptr::null_mut(); 2];
    for (address, device) in [one, other].into_iter().zip(&mut devices) {
        let found = nvmlDeviceGetHandleByPciBusId_v2(address.cast::<c_char>(), device);
        if found != code::SUCCESS {
            return found;
        }
    }
    let level = session::with(|s| {
        let switched = !s.machine.switches.is_empty();
        match link::links(s, devices[0]) {
            Ok((count, _)) if switched => Ok(SYSTEM + count),
            _ => link::ancestor(s, devices[0], devices[1]).map(|level| level / 10 - 1),
        }
    });
    put(out.cast::<c_uint>(), level)
}

extern "C" fn host_pcie_generation(device: *mut c_void, out: *mut c_void, _: *mut c_void) -> u32 {
    nvmlDeviceGetMaxPcieLinkGeneration(device, out.cast())
}

/// The caller put the room of its list into the number.
extern "C" fn no_processes(device: *mut c_void, count: *mut c_void, _: *mut c_void) -> u32 {
    let device: Device = device;
    put(count.cast::<c_uint>(), of(device, |_| 0))
}

export! {
    nvmlInternalGetExportTable(out: *mut *const c_void, id: *const [u8; 16]) {
        if id.is_null() {
            return code::INVALID_ARGUMENT;
        }
        // SAFETY: not null; the caller gives the sixteen bytes of a table's name.
        let known = unsafe { *id } == TABLE_ID;
        put(out, if known { Ok((&raw const TABLE).cast()) } else { Err(code::INVALID_ARGUMENT) })
    }
}
