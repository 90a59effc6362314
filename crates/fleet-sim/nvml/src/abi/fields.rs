//! Values by number (`NVML_FI_…`).
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{self as nvml, nvmlFieldValue_st, nvmlValue_t};

use super::{Device, export, link, power, refuse, whole};
use crate::session::{self, code};

/// `nvmlValueType_t`.
const UNSIGNED: c_uint = 1;
const LONG: c_uint = 3;

export! {
    nvmlDeviceGetFieldValues(device: Device, count: c_int, values: *mut nvmlFieldValue_st) {
        let fault = refuse(device, code::SUCCESS);
        if fault != code::SUCCESS {
            return fault;
        }
        let (Ok(count), false) = (usize::try_from(count), values.is_null()) else {
            return code::INVALID_ARGUMENT;
        };
        for n in 0..count {
            // SAFETY: NVML's contract: the array has `count` elements, with the number of the wanted field in each.
            answer(device, unsafe { &mut *values.add(n) });
        }
        code::SUCCESS
    }
    nvmlDeviceClearFieldValues(device: Device, _count: c_int, _values: *mut nvmlFieldValue_st) { refuse(device, code::SUCCESS) }
}

fn answer(device: Device, field: &mut nvmlFieldValue_st) {
    (field.timestamp, field.latencyUsec) = (0, 0);
    match value(device, field.fieldId, field.scopeId) {
        Ok((kind, value)) => {
            field.nvmlReturn = code::SUCCESS;
            field.valueType = kind;
            field.value = nvmlValue_t { ullVal: value };
        }
        Err(code) => field.nvmlReturn = code,
    }
}

/// MB/s of a link and direction, by generation.
fn speed(generation: c_uint) -> c_ulonglong {
    match generation {
        ..=3 => 25_000,
        4 => 26_562,
        _ => 53_125,
    }
}

fn value(device: Device, field: c_uint, scope: c_uint) -> Result<(c_uint, c_ulonglong), u32> {
    match field {
        nvml::field_id::NVML_FI_DEV_NVLINK_LINK_COUNT
        | nvml::field_id::NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON => {
            let (count, version) = session::with(|s| link::links(s, device))?;
            if field == nvml::field_id::NVML_FI_DEV_NVLINK_LINK_COUNT {
                return Ok((UNSIGNED, count.into()));
            }
            Ok((UNSIGNED, speed(version)))
        }
        nvml::field_id::NVML_FI_DEV_NVLINK_GET_SPEED
            ..=nvml::field_id::NVML_FI_DEV_NVLINK_GET_VERSION => {
            let (count, version) = session::with(|s| link::links(s, device))?;
            if scope >= count {
                return Err(code::INVALID_ARGUMENT);
            }
            Ok((
                UNSIGNED,
                match field {
                    nvml::field_id::NVML_FI_DEV_NVLINK_GET_SPEED => speed(version),
                    nvml::field_id::NVML_FI_DEV_NVLINK_GET_STATE => 1,
                    _ => version.into(),
                },
            ))
        }
        // Power of the module and of memory alone is not told.
        nvml::field_id::NVML_FI_DEV_POWER_AVERAGE
            ..=nvml::field_id::NVML_FI_DEV_POWER_REQUESTED_LIMIT
            if scope != 0 =>
        {
            Err(code::NOT_SUPPORTED)
        }
        _ => whole(device, |gpu, model| {
            use nvml::field_id as id;
            let limit = 1000 * model.power_limit;
            Some(match field {
                id::NVML_FI_DEV_ECC_CURRENT | id::NVML_FI_DEV_ECC_PENDING if model.ecc => {
                    (UNSIGNED, 1)
                }
                id::NVML_FI_DEV_ECC_SBE_VOL_TOTAL..=id::NVML_FI_DEV_ECC_DBE_AGG_TOTAL
                | id::NVML_FI_DEV_REMAPPED_COR..=id::NVML_FI_DEV_REMAPPED_FAILURE
                    if model.ecc =>
                {
                    (LONG, 0)
                }
                id::NVML_FI_DEV_MEMORY_TEMP if model.bus_width >= 4096 => (
                    UNSIGNED,
                    gpu.temperature.saturating_add(power::MEMORY_WARMER).into(),
                ),
                id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION => {
                    (LONG, c_ulonglong::from(gpu.power_milliwatts) * 86_400)
                }
                id::NVML_FI_DEV_PCIE_REPLAY_COUNTER
                | id::NVML_FI_DEV_PCIE_REPLAY_ROLLOVER_COUNTER => (UNSIGNED, 0),
                id::NVML_FI_DEV_POWER_AVERAGE | id::NVML_FI_DEV_POWER_INSTANT => {
                    (UNSIGNED, gpu.power_milliwatts.into())
                }
                id::NVML_FI_DEV_POWER_MIN_LIMIT => (UNSIGNED, power::lowest_limit(limit).into()),
                id::NVML_FI_DEV_POWER_MAX_LIMIT | id::NVML_FI_DEV_POWER_DEFAULT_LIMIT => {
                    (UNSIGNED, limit.into())
                }
                id::NVML_FI_DEV_POWER_CURRENT_LIMIT | id::NVML_FI_DEV_POWER_REQUESTED_LIMIT => {
                    (UNSIGNED, gpu.power_limit_milliwatts.into())
                }
                id::NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED => (
                    UNSIGNED,
                    u64::from(model.mig.is_some() && model.architecture >= 9),
                ),
                _ => return None,
            })
        }),
    }
}
