//! Calls of NVML that the wrapper does not wrap.
#![allow(unsafe_code)]

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    nvmlDeviceAddressingMode_t, nvmlDeviceAddressingModeType_t_NVML_DEVICE_ADDRESSING_MODE_ATS,
};

/// Number of the GPU instance that a MIG device is in.
pub(crate) fn gpu_instance(nvml: &Nvml, device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: the handle is of this NVML, which lives longer than the borrow; the pointer is to a local number.
    nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// Number of the compute instance that a MIG device is.
pub(crate) fn compute_instance(nvml: &Nvml, device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetComputeInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: as above.
    nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// `NVML_STRUCT_VERSION(DeviceAddressingMode, 1)` of `nvml.h`: the struct's size and its version in the top byte.
const MODE_VERSION: u32 = 8 | 1 << 24;

/// Whether the GPU shares the processor's page tables; nothing where the driver does not tell.
pub(crate) fn is_coherent(nvml: &Nvml, device: &Device<'_>) -> Option<bool> {
    let call = nvml.lib().nvmlDeviceGetAddressingMode.as_ref().ok()?;
    let mut mode = nvmlDeviceAddressingMode_t {
        version: MODE_VERSION,
        value: 0,
    };
    // SAFETY: as above, with the version that the struct's layout has.
    let code = unsafe { call(device.handle(), &raw mut mode) };
    match nvml_try(code) {
        Ok(()) => {
            Some(mode.value == nvmlDeviceAddressingModeType_t_NVML_DEVICE_ADDRESSING_MODE_ATS)
        }
        // GPUs that know no such modes.
        Err(NvmlError::NotSupported) => Some(false),
        Err(_) => None,
    }
}
