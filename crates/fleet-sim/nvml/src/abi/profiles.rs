//! MIG profiles in the versions of NVML's structs.
use std::ffi::{c_char, c_uint};

use fleet_sim_machine::Profile;
use nvml_wrapper_sys::bindings::{
    nvmlComputeInstanceProfileInfo_st, nvmlComputeInstanceProfileInfo_v2_st,
    nvmlComputeInstanceProfileInfo_v3_st, nvmlGpuInstanceProfileInfo_st,
    nvmlGpuInstanceProfileInfo_v2_st, nvmlGpuInstanceProfileInfo_v3_st,
};

use super::fill;

pub(super) fn profile_info(profile: &Profile) -> nvmlGpuInstanceProfileInfo_st {
    nvmlGpuInstanceProfileInfo_st {
        id: profile.id,
        isP2pSupported: 0,
        sliceCount: profile.slices,
        instanceCount: profile.most,
        multiprocessorCount: profile.multiprocessors,
        copyEngineCount: profile.copy_engines,
        decoderCount: profile.decoders,
        encoderCount: 0,
        jpegCount: profile.others,
        ofaCount: profile.others.min(1),
        memorySizeMB: profile.memory_mib,
    }
}

pub(super) fn profile_info_v2(
    profile: &Profile,
    version: c_uint,
) -> nvmlGpuInstanceProfileInfo_v2_st {
    let plain = profile_info(profile);
    nvmlGpuInstanceProfileInfo_v2_st {
        version,
        id: plain.id,
        isP2pSupported: plain.isP2pSupported,
        sliceCount: plain.sliceCount,
        instanceCount: plain.instanceCount,
        multiprocessorCount: plain.multiprocessorCount,
        copyEngineCount: plain.copyEngineCount,
        decoderCount: plain.decoderCount,
        encoderCount: plain.encoderCount,
        jpegCount: plain.jpegCount,
        ofaCount: plain.ofaCount,
        memorySizeMB: plain.memorySizeMB,
        name: long_name(&format!("MIG {}", profile.name)),
    }
}

pub(super) fn profile_info_v3(
    profile: &Profile,
    version: c_uint,
) -> nvmlGpuInstanceProfileInfo_v3_st {
    let plain = profile_info(profile);
    nvmlGpuInstanceProfileInfo_v3_st {
        version,
        id: plain.id,
        sliceCount: plain.sliceCount,
        instanceCount: plain.instanceCount,
        multiprocessorCount: plain.multiprocessorCount,
        copyEngineCount: plain.copyEngineCount,
        decoderCount: plain.decoderCount,
        encoderCount: plain.encoderCount,
        jpegCount: plain.jpegCount,
        ofaCount: plain.ofaCount,
        memorySizeMB: plain.memorySizeMB,
        name: long_name(&format!("MIG {}", profile.name)),
        capabilities: 0,
    }
}

fn long_name(text: &str) -> [c_char; 96] {
    let mut name = [0; 96];
    fill(&mut name, text);
    name
}

pub(super) fn compute_info_v3(
    info: &nvmlComputeInstanceProfileInfo_st,
    version: c_uint,
    instance: &str,
) -> nvmlComputeInstanceProfileInfo_v3_st {
    nvmlComputeInstanceProfileInfo_v3_st {
        version,
        id: info.id,
        sliceCount: info.sliceCount,
        instanceCount: info.instanceCount,
        multiprocessorCount: info.multiprocessorCount,
        sharedCopyEngineCount: info.sharedCopyEngineCount,
        sharedDecoderCount: info.sharedDecoderCount,
        sharedEncoderCount: info.sharedEncoderCount,
        sharedJpegCount: info.sharedJpegCount,
        sharedOfaCount: info.sharedOfaCount,
        name: long_name(&part_text(instance, info.sliceCount)),
        capabilities: 0,
    }
}

pub(super) fn compute_info_v2(
    info: nvmlComputeInstanceProfileInfo_v3_st,
) -> nvmlComputeInstanceProfileInfo_v2_st {
    nvmlComputeInstanceProfileInfo_v2_st {
        version: info.version,
        id: info.id,
        sliceCount: info.sliceCount,
        instanceCount: info.instanceCount,
        multiprocessorCount: info.multiprocessorCount,
        sharedCopyEngineCount: info.sharedCopyEngineCount,
        sharedDecoderCount: info.sharedDecoderCount,
        sharedEncoderCount: info.sharedEncoderCount,
        sharedJpegCount: info.sharedJpegCount,
        sharedOfaCount: info.sharedOfaCount,
        name: info.name,
    }
}

/// `MIG 3g.20gb`, or `MIG 1c.3g.20gb` of a part of an instance.
pub(super) fn part_text(profile: &str, slices: u32) -> String {
    let all = profile.split('g').next().and_then(|n| n.parse().ok());
    if all == Some(slices) {
        format!("MIG {profile}")
    } else {
        format!("MIG {slices}c.{profile}")
    }
}
