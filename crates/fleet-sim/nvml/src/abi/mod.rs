//! The C functions (`nvml.h`). A device handle is its index plus one, so that a null handle is none.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{CStr, c_char, c_uint, c_ulonglong, c_void};

use fleet_sim_machine::{Gpu, Model, model};

use crate::session::{self, Part, Session, Visible, code};

mod clocks;
mod device;
mod ecc;
mod events;
mod fields;
mod internal;
mod link;
mod memory;
mod mig;
mod power;
mod profiles;
mod system;

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

/// Something of a GPU, or of the GPU that a MIG device is a part of.
fn of<T>(device: Device, f: impl FnOnce(&Gpu) -> T) -> Result<T, u32> {
    session::with(|session| gpu(session, device).map(f))
}

/// Something that whole GPUs have and MIG devices have not.
fn whole<T>(device: Device, f: impl FnOnce(&Gpu, &Model) -> Option<T>) -> Result<T, u32> {
    session::with(|session| {
        if part(session, device)?.is_some() {
            return Err(code::NOT_SUPPORTED);
        }
        let gpu = gpu(session, device)?;
        let model = model(&gpu.model).ok_or(code::NOT_SUPPORTED)?;
        f(gpu, model).ok_or(code::NOT_SUPPORTED)
    })
}

/// Answers without a value: the device's fault, or `code`.
fn refuse(device: Device, code: u32) -> u32 {
    of(device, |_| ()).err().unwrap_or(code)
}

/// Stores the same value twice, or two values of one answer.
fn put_two<A, B>(first: *mut A, second: *mut B, values: Result<(A, B), u32>) -> u32 {
    match values {
        Ok((a, b)) => match put(first, Ok(a)) {
            code::SUCCESS => put(second, Ok(b)),
            failed => failed,
        },
        Err(code) => code,
    }
}

/// Stores a list into an array of a size that the caller put into `count`, and how long the list is.
fn put_array<T: Copy>(out: *mut T, count: *mut c_uint, list: Result<Vec<T>, u32>) -> u32 {
    let list = match list {
        Ok(list) => list,
        Err(code) => return code,
    };
    if count.is_null() {
        return code::INVALID_ARGUMENT;
    }
    let length = c_uint::try_from(list.len()).unwrap_or(c_uint::MAX);
    // SAFETY: not null; NVML's contract: it holds the number of elements that the array has room for.
    let room = unsafe { count.replace(length) };
    if out.is_null() || room < length {
        return if list.is_empty() {
            code::SUCCESS
        } else {
            code::INSUFFICIENT_SIZE
        };
    }
    // SAFETY: the array has room for `room` elements, which are not fewer than the list has.
    unsafe { std::ptr::copy_nonoverlapping(list.as_ptr(), out, list.len()) };
    code::SUCCESS
}

/// The version member that a caller put at the beginning of its struct.
fn version<T>(out: *const T) -> Option<c_uint> {
    // SAFETY: the caller of this function has a versioned struct of NVML, which begins with an `unsigned int` that the
    // program set.
    (!out.is_null()).then(|| unsafe { out.cast::<c_uint>().read() })
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

/// Handles of a session's GPUs.
trait Handles {
    fn handles(&self) -> Vec<Device>;
}

impl Handles for Session {
    fn handles(&self) -> Vec<Device> {
        (0..self.visible.len()).map(handle).collect()
    }
}

fn mib(n: u64) -> c_ulonglong {
    n.saturating_mul(1024 * 1024)
}

fn fill(out: &mut [c_char], text: &str) {
    for (to, from) in out.iter_mut().zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
}
