//! MIG: devices, GPU instances and compute instances. Instances have handles of their own, told from a device's by bits
//! above it.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::c_uint;

use fleet_sim_machine::{ComputeInstance, Family, GpuInstance, Profile, compute_profile, model};
use nvml_wrapper_sys::bindings::{
    nvmlComputeInstanceInfo_st, nvmlComputeInstancePlacement_st, nvmlComputeInstanceProfileInfo_st,
    nvmlComputeInstanceProfileInfo_v3_st, nvmlDeviceAttributes_st, nvmlGpuInstanceInfo_st,
    nvmlGpuInstancePlacement_st, nvmlGpuInstanceProfileInfo_st, nvmlGpuInstanceProfileInfo_v2_st,
};

use super::profiles::{
    compute_info_v2, compute_info_v3, part_text, profile_info, profile_info_v2, profile_info_v3,
};
use super::{Device, export, gpu, of, part, part_handle, put, version, visible};
use crate::session::{self, Part, Session, code};

type Instance = Device;

/// Where in a version the number of the struct begins; below is its size (`NVML_STRUCT_VERSION`).
const VERSION_SHIFT: u32 = 24;
/// Most MIG devices of a GPU.
const MOST: u32 = 7;
/// Where in a handle the number of a GPU instance begins, plus one; above it a compute instance's.
const GI_SHIFT: u32 = 32;
const CI_SHIFT: u32 = 40;

fn with_bits(device: Device, id: u32, shift: u32) -> Instance {
    let bits = usize::try_from(id + 1).unwrap_or(0) << shift;
    std::ptr::without_provenance_mut(device.addr() | bits)
}

fn bits(instance: Instance, shift: u32) -> Option<u32> {
    let found = (instance.addr() >> shift) & 0xff;
    u32::try_from(found).ok()?.checked_sub(1)
}

/// The GPU's handle of any other.
fn parent(handle: Device) -> Device {
    std::ptr::without_provenance_mut(handle.addr() & 0xffff)
}

fn gpu_instance(session: &Session, handle: Instance) -> Result<&GpuInstance, u32> {
    let id = bits(handle, GI_SHIFT).ok_or(code::INVALID_ARGUMENT)?;
    let instances = gpu(session, parent(handle))?.mig.iter().flatten();
    let found = instances.into_iter().find(|instance| instance.id == id);
    found.ok_or(code::NOT_FOUND)
}

fn compute_instance(session: &Session, handle: Instance) -> Result<&ComputeInstance, u32> {
    let id = bits(handle, CI_SHIFT).ok_or(code::INVALID_ARGUMENT)?;
    let compute = gpu_instance(session, handle)?.compute.iter();
    compute
        .into_iter()
        .find(|compute| compute.id == id)
        .ok_or(code::NOT_FOUND)
}

fn family(session: &Session, device: Device) -> Result<Family, u32> {
    let gpu = gpu(session, parent(device))?;
    model(&gpu.model)
        .and_then(|model| model.mig)
        .ok_or(code::NOT_SUPPORTED)
}

/// A profile by `NVML_GPU_INSTANCE_PROFILE_…`.
fn profile(session: &Session, device: Device, index: c_uint) -> Result<&'static Profile, u32> {
    let all = Profile::all(family(session, device)?).iter();
    all.into_iter()
        .find(|profile| profile.index == index)
        .ok_or(code::NOT_SUPPORTED)
}

/// A profile by the id that the driver gave it.
fn profile_by_id(session: &Session, device: Device, id: c_uint) -> Result<&'static Profile, u32> {
    let all = Profile::all(family(session, device)?).iter();
    all.into_iter()
        .find(|profile| profile.id == id)
        .ok_or(code::INVALID_ARGUMENT)
}

fn profile_of(
    session: &Session,
    handle: Device,
    instance: &GpuInstance,
) -> Result<&'static Profile, u32> {
    Profile::named(family(session, handle)?, &instance.profile).ok_or(code::UNKNOWN)
}

/// Stores a list as NVML does: as much as there is; the caller has room for all that a GPU can have.
fn put_list<T>(out: *mut T, count: *mut c_uint, list: Result<Vec<T>, u32>) -> u32 {
    let list = match list {
        Ok(list) => list,
        Err(code) => return code,
    };
    let length = c_uint::try_from(list.len()).map_err(|_| code::UNKNOWN);
    if !out.is_null() {
        for (n, item) in list.into_iter().enumerate() {
            // SAFETY: NVML's contract: the array has room for the profile's largest number of instances, which the
            // list cannot exceed.
            unsafe { out.add(n).write(item) };
        }
    }
    put(count, length)
}

fn of_profile(session: &Session, device: Device, id: c_uint) -> Result<Vec<Instance>, u32> {
    let wanted = profile_by_id(session, device, id)?;
    let instances = gpu(session, device)?
        .mig
        .as_ref()
        .ok_or(code::NOT_SUPPORTED)?;
    Ok(instances
        .iter()
        .filter(|instance| instance.profile == wanted.name)
        .map(|instance| with_bits(device, instance.id, GI_SHIFT))
        .collect())
}

export! {
    nvmlDeviceGetMigMode(device: Device, current: *mut c_uint, pending: *mut c_uint) {
        let mode = session::with(|s| {
            family(s, device)?;
            gpu(s, device).map(|gpu| c_uint::from(gpu.mig.is_some()))
        });
        match put(current, mode) {
            code::SUCCESS => put(pending, mode),
            failed => failed,
        }
    }
    nvmlDeviceGetMaxMigDeviceCount(device: Device, out: *mut c_uint) {
        put(out, session::with(|s| {
            gpu(s, device)?;
            Ok(family(s, device).map_or(0, |_| MOST))
        }))
    }
    nvmlDeviceGetMigDeviceHandleByIndex(device: Device, index: c_uint, out: *mut Device) {
        put(out, session::with(|s| {
            // A GPU that could be partitioned and is not has no partitions; others do not know the question.
            family(s, device)?;
            let visible = visible(s, device)?;
            let index = usize::try_from(index).map_err(|_| code::INVALID_ARGUMENT)?;
            visible.parts.get(index).map(|_| part_handle(device, index)).ok_or(code::NOT_FOUND)
        }))
    }
    nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device: Device, out: *mut Device) {
        put(out, session::with(|s| part(s, device)?.map(|_| parent(device)).ok_or(code::INVALID_ARGUMENT)))
    }
    nvmlDeviceIsMigDeviceHandle(device: Device, out: *mut c_uint) {
        put(out, session::with(|s| part(s, device).map(|part| c_uint::from(part.is_some()))))
    }
    nvmlDeviceGetGpuInstanceId(device: Device, out: *mut c_uint) {
        put(out, session::with(|s| part(s, device)?.map(|part| part.instance.id).ok_or(code::NOT_SUPPORTED)))
    }
    nvmlDeviceGetComputeInstanceId(device: Device, out: *mut c_uint) {
        put(out, session::with(|s| part(s, device)?.map(|part| part.compute.id).ok_or(code::NOT_SUPPORTED)))
    }
    nvmlDeviceGetAttributes_v2(device: Device, out: *mut nvmlDeviceAttributes_st) {
        put(out, session::with(|s| {
            let part = part(s, device)?.ok_or(code::NOT_SUPPORTED)?;
            let profile = profile_of(s, device, &part.instance)?;
            Ok(nvmlDeviceAttributes_st {
                multiprocessorCount: profile.multiprocessors / profile.slices * part.compute.slices,
                sharedCopyEngineCount: profile.copy_engines,
                sharedDecoderCount: profile.decoders,
                sharedEncoderCount: 0,
                sharedJpegCount: profile.others,
                sharedOfaCount: profile.others.min(1),
                gpuInstanceSliceCount: profile.slices,
                computeInstanceSliceCount: part.compute.slices,
                memorySizeMB: profile.memory_mib,
            })
        }))
    }
    nvmlDeviceGetAttributes(device: Device, out: *mut nvmlDeviceAttributes_st) { nvmlDeviceGetAttributes_v2(device, out) }
    nvmlDeviceGetGpuInstanceById(device: Device, id: c_uint, out: *mut Instance) {
        put(out, session::with(|s| {
            let handle = with_bits(device, id, GI_SHIFT);
            gpu_instance(s, handle).map(|_| handle)
        }))
    }
    nvmlDeviceGetGpuInstances(device: Device, id: c_uint, out: *mut Instance, count: *mut c_uint) {
        put_list(out, count, session::with(|s| of_profile(s, device, id)))
    }
    nvmlGpuInstanceGetInfo(instance: Instance, out: *mut nvmlGpuInstanceInfo_st) {
        put(out, session::with(|s| {
            let found = gpu_instance(s, instance)?;
            let profile = profile_of(s, instance, found)?;
            Ok(nvmlGpuInstanceInfo_st {
                device: parent(instance).cast(),
                id: found.id,
                profileId: profile.id,
                placement: nvmlGpuInstancePlacement_st { start: found.start, size: profile.size },
            })
        }))
    }
    nvmlDeviceGetGpuInstanceProfileInfo(device: Device, index: c_uint, out: *mut nvmlGpuInstanceProfileInfo_st) {
        put(out, session::with(|s| profile(s, device, index).map(profile_info)))
    }
    nvmlDeviceGetGpuInstanceProfileInfoV(device: Device, index: c_uint, out: *mut nvmlGpuInstanceProfileInfo_v2_st) {
        let Some(version) = version(out) else {
            return code::INVALID_ARGUMENT;
        };
        let found = session::with(|s| profile(s, device, index));
        match version >> VERSION_SHIFT {
            2 => put(out, found.map(|profile| profile_info_v2(profile, version))),
            3 => put(out.cast(), found.map(|profile| profile_info_v3(profile, version))),
            _ => code::ARGUMENT_VERSION_MISMATCH,
        }
    }
    nvmlDeviceGetGpuInstanceRemainingCapacity(device: Device, id: c_uint, out: *mut c_uint) {
        put(out, session::with(|s| {
            let profile = profile_by_id(s, device, id)?;
            let taken: Vec<(u32, u32)> = gpu(s, device)?.mig.iter().flatten()
                .filter_map(|gi| Some((gi.start, profile_of(s, device, gi).ok()?.size)))
                .collect();
            let free = |start: &u32| taken.iter().all(|(at, size)| start + profile.size <= *at || at + size <= *start);
            c_uint::try_from(profile.starts().iter().filter(|start| free(start)).count()).map_err(|_| code::UNKNOWN)
        }))
    }
    nvmlDeviceGetGpuInstancePossiblePlacements_v2(device: Device, id: c_uint, out: *mut nvmlGpuInstancePlacement_st, count: *mut c_uint) {
        put_list(out, count, session::with(|s| {
            let profile = profile_by_id(s, device, id)?;
            Ok(profile.starts().iter().map(|start| nvmlGpuInstancePlacement_st { start: *start, size: profile.size }).collect())
        }))
    }
    nvmlGpuInstanceGetComputeInstanceById(instance: Instance, id: c_uint, out: *mut Instance) {
        put(out, session::with(|s| {
            let handle = with_bits(instance, id, CI_SHIFT);
            compute_instance(s, handle).map(|_| handle)
        }))
    }
    nvmlGpuInstanceGetComputeInstances(instance: Instance, id: c_uint, out: *mut Instance, count: *mut c_uint) {
        put_list(out, count, session::with(|s| {
            let all = gpu_instance(s, instance)?.compute.iter();
            Ok(all.filter(|ci| compute_profile(ci.slices) == id).map(|ci| with_bits(instance, ci.id, CI_SHIFT)).collect())
        }))
    }
    nvmlGpuInstanceGetComputeInstanceProfileInfo(instance: Instance, index: c_uint, _engine: c_uint, out: *mut nvmlComputeInstanceProfileInfo_st) {
        put(out, session::with(|s| compute_info(s, instance, index)))
    }
    nvmlGpuInstanceGetComputeInstanceProfileInfoV(instance: Instance, index: c_uint, _engine: c_uint, out: *mut nvmlComputeInstanceProfileInfo_v3_st) {
        let Some(version) = version(out) else {
            return code::INVALID_ARGUMENT;
        };
        let found = session::with(|s| {
            let name = gpu_instance(s, instance)?.profile.clone();
            compute_info(s, instance, index).map(|info| compute_info_v3(&info, version, &name))
        });
        match version >> VERSION_SHIFT {
            2 => put(out.cast(), found.map(compute_info_v2)),
            3 => put(out, found),
            _ => code::ARGUMENT_VERSION_MISMATCH,
        }
    }
    nvmlGpuInstanceGetComputeInstanceRemainingCapacity(instance: Instance, id: c_uint, out: *mut c_uint) {
        put(out, session::with(|s| {
            let whole = profile_of(s, instance, gpu_instance(s, instance)?)?;
            let used: u32 = gpu_instance(s, instance)?.compute.iter().map(|ci| ci.slices).sum();
            compute_info(s, instance, id).map(|info| whole.slices.saturating_sub(used) / info.sliceCount)
        }))
    }
    nvmlGpuInstanceGetComputeInstancePossiblePlacements(instance: Instance, id: c_uint, out: *mut nvmlComputeInstancePlacement_st, count: *mut c_uint) {
        put_list(out, count, session::with(|s| {
            let info = compute_info(s, instance, id)?;
            let starts = (0..info.instanceCount).map(|n| n * info.sliceCount);
            Ok(starts.map(|start| nvmlComputeInstancePlacement_st { start, size: info.sliceCount }).collect())
        }))
    }
    nvmlComputeInstanceGetInfo_v2(instance: Instance, out: *mut nvmlComputeInstanceInfo_st) {
        put(out, session::with(|s| {
            let found = compute_instance(s, instance)?;
            let before = gpu_instance(s, instance)?.compute.iter().take_while(|ci| ci.id < found.id);
            Ok(nvmlComputeInstanceInfo_st {
                device: parent(instance).cast(),
                gpuInstance: std::ptr::without_provenance_mut(instance.addr() & ((1 << CI_SHIFT) - 1)),
                id: found.id,
                profileId: compute_profile(found.slices),
                placement: nvmlComputeInstancePlacement_st { start: before.map(|ci| ci.slices).sum(), size: found.slices },
            })
        }))
    }
    nvmlComputeInstanceGetInfo(instance: Instance, out: *mut nvmlComputeInstanceInfo_st) { nvmlComputeInstanceGetInfo_v2(instance, out) }
    nvmlDeviceSetMigMode(device: Device, _mode: c_uint, _status: *mut c_uint) {
        of(device, |_| ()).err().unwrap_or(code::NO_PERMISSION)
    }
}

/// Memory of a MIG device, in MiB.
pub(super) fn memory(s: &Session, device: Device, part: &Part) -> Result<u64, u32> {
    profile_of(s, device, &part.instance).map(|profile| profile.memory_mib)
}

/// Memory slices of a MIG device, of eight.
pub(super) fn size(s: &Session, device: Device, part: &Part) -> Result<u32, u32> {
    profile_of(s, device, &part.instance).map(|profile| profile.size)
}

/// The name of a MIG device behind its GPU's.
pub(crate) fn part_name(instance: &GpuInstance, compute: &ComputeInstance) -> String {
    part_text(&instance.profile, compute.slices)
}

/// What a compute instance profile gives in a GPU instance.
fn compute_info(
    s: &Session,
    instance: Instance,
    index: c_uint,
) -> Result<nvmlComputeInstanceProfileInfo_st, u32> {
    let whole = profile_of(s, instance, gpu_instance(s, instance)?)?;
    let fits = |slices: &u32| compute_profile(*slices) == index && !matches!(slices, 5 | 6);
    let slices = (1..=whole.slices).find(fits).ok_or(code::NOT_SUPPORTED)?;
    Ok(nvmlComputeInstanceProfileInfo_st {
        id: index,
        sliceCount: slices,
        instanceCount: whole.slices / slices,
        multiprocessorCount: whole.multiprocessors / whole.slices * slices,
        sharedCopyEngineCount: whole.copy_engines,
        sharedDecoderCount: whole.decoders,
        sharedEncoderCount: 0,
        sharedJpegCount: whole.others,
        sharedOfaCount: whole.others.min(1),
    })
}
