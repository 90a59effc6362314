//! The GPUs of a machine as NVML, the driver's management library, tells of them.
//!
//! The library is loaded into the process, so this is for the admin tool and never for the runtime.

mod sys;

use std::path::Path;

use fleet_host::gpu::{BusId, Gpu, Inventory, MigDevice};
use nvml_wrapper::enum_wrappers::device::Brand;
use nvml_wrapper::error::NvmlError as Code;
use nvml_wrapper::{Device, Nvml};

/// NVML cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("{what} through {library}: {source}")]
pub struct NvmlError {
    what: &'static str,
    library: String,
    source: Code,
}

/// Where the dynamic loader looks when no file is named.
const BY_NAME: &str = "libnvidia-ml.so.1";

/// Asks NVML, loaded from a file or found by the dynamic loader. A GPU that does not answer costs a warning.
///
/// # Errors
/// The library cannot be loaded, or finds no driver.
pub fn inventory(library: Option<&Path>) -> Result<Inventory, NvmlError> {
    let path = library.unwrap_or_else(|| Path::new(BY_NAME));
    let failed = |what| {
        move |source| NvmlError {
            what,
            library: path.display().to_string(),
            source,
        }
    };
    let nvml = Nvml::builder()
        .lib_path(path.as_os_str())
        .init()
        .map_err(failed("load NVML"))?;
    let count = nvml.device_count().map_err(failed("count GPUs"))?;
    let mut found = Inventory {
        driver_version: nvml.sys_driver_version().ok(),
        cuda_version: nvml.sys_cuda_driver_version().ok().map(cuda),
        ..Inventory::default()
    };
    for index in 0..count {
        match gpu(&nvml, index, &mut found.warnings) {
            Ok(gpu) => found.gpus.push(gpu),
            Err(why) => found
                .warnings
                .push(format!("GPU {index} is left out: NVML says: {why}")),
        }
    }
    Ok(found)
}

/// NVML's number 12040 is CUDA 12.4.
fn cuda(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

fn gpu(nvml: &Nvml, index: u32, warnings: &mut Vec<String>) -> Result<Gpu, Code> {
    let device = nvml.device_by_index(index)?;
    let bus_id = match device.pci_info() {
        Ok(info) => BusId::parse(&info.bus_id),
        // An integrated GPU.
        Err(Code::NotSupported) => None,
        Err(err) => return Err(err),
    };
    Ok(Gpu {
        index,
        minor: device.minor_number()?,
        uuid: Some(device.uuid()?),
        bus_id,
        name: device.name().unwrap_or_default(),
        mig: parts(nvml, &device, index, warnings),
        coherent: sys::is_coherent(nvml, &device),
        arch: device
            .cuda_compute_capability()
            .ok()
            .map(|found| format!("{}.{}", found.major, found.minor)),
        brand: device.brand().ok().map(|brand| word(&brand).to_owned()),
    })
}

/// A brand in the words that images use in `NVIDIA_REQUIRE_CUDA`.
fn word(brand: &Brand) -> &'static str {
    match brand {
        Brand::Unknown => "unknown",
        Brand::Quadro => "quadro",
        Brand::Tesla => "tesla",
        Brand::NVS => "nvs",
        Brand::GRID => "grid",
        Brand::GeForce => "geforce",
        Brand::Titan => "titan",
        Brand::VApps => "vapps",
        Brand::VPC => "vpc",
        Brand::VCS => "vcs",
        Brand::VWS => "vws",
        Brand::CloudGaming => "cloudgaming",
        Brand::VGaming => "vgaming",
        Brand::QuadroRTX => "quadrortx",
        Brand::NvidiaRTX => "nvidiartx",
        Brand::Nvidia => "nvidia",
        Brand::GeForceRTX => "geforcertx",
        Brand::TitanRTX => "titanrtx",
    }
}

/// Parts of a GPU that is partitioned. Free slots between them say "not found".
fn parts(
    nvml: &Nvml,
    device: &Device<'_>,
    index: u32,
    warnings: &mut Vec<String>,
) -> Option<Vec<MigDevice>> {
    const ENABLED: u32 = 1;
    if device.mig_mode().ok()?.current != ENABLED {
        return None;
    }
    let mut found = Vec::new();
    for slot in 0..device.mig_device_count().unwrap_or(0) {
        match part(nvml, device, slot) {
            Ok(part) => found.push(part),
            Err(Code::NotFound | Code::InvalidArg) => {}
            Err(err) => warnings.push(format!(
                "partition {index}:{slot} is left out: NVML says: {err}"
            )),
        }
    }
    Some(found)
}

fn part(nvml: &Nvml, device: &Device<'_>, slot: u32) -> Result<MigDevice, Code> {
    let part = device.mig_device_by_index(slot)?;
    Ok(MigDevice {
        index: slot,
        uuid: Some(part.uuid()?),
        gpu_instance: sys::gpu_instance(nvml, &part)?,
        compute_instance: sys::compute_instance(nvml, &part)?,
        // The profile is part of the name: `NVIDIA A100 MIG 1g.5gb+gfx`.
        graphics: part.name().is_ok_and(|name| name.contains("+gfx")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_cuda() {
        assert_eq!(cuda(12040), "12.4");
        assert_eq!(cuda(13000), "13.0");
        assert_eq!(cuda(11080), "11.8");
    }

    #[test]
    fn a_library_that_is_none() {
        let err = inventory(Some(Path::new("/etc/passwd"))).unwrap_err();
        let text = err.to_string();
        assert!(
            text.starts_with("load NVML through /etc/passwd: ") && !text.contains('\n'),
            "{text}"
        );
        assert!(inventory(Some(Path::new("/no/such/library"))).is_err());
    }
}
