//! The simulated node's `nvidia-smi`: it finds `libnvidia-ml.so.1` through the loader, as the real one does, and tells
//! what NVML tells. Options and exit codes are the real program's, as far as they go.

use std::io::Write;
use std::process::ExitCode;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

/// Exit codes of the real program: NVML's return code, or 12 when its library is missing.
const NO_LIBRARY: u8 = 12;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut out = String::new();
    let code = match Nvml::builder()
        .lib_path("libnvidia-ml.so.1".as_ref())
        .init()
    {
        Ok(nvml) => answer(&nvml, &args, &mut out),
        Err(err) => {
            out = refusal(&err);
            exit_code(&err)
        }
    };
    let _ = std::io::stdout().write_all(out.as_bytes());
    ExitCode::from(code)
}

fn refusal(err: &NvmlError) -> String {
    match err {
        NvmlError::LibloadingError(_) => "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA Display Driver is properly installed and present in your system.\nPlease also try adding directory that contains libnvidia-ml.so to your system PATH.\n".to_owned(),
        NvmlError::DriverNotLoaded => "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\n\n".to_owned(),
        NvmlError::LibRmVersionMismatch => {
            "Failed to initialize NVML: Driver/library version mismatch\n".to_owned()
        }
        other => format!("Failed to initialize NVML: {other}\n"),
    }
}

fn exit_code(err: &NvmlError) -> u8 {
    match err {
        NvmlError::LibloadingError(_) => NO_LIBRARY,
        NvmlError::NoPermission => 4,
        NvmlError::DriverNotLoaded => 9,
        NvmlError::LibRmVersionMismatch => 18,
        _ => 255,
    }
}

fn answer(nvml: &Nvml, args: &[String], out: &mut String) -> u8 {
    let found: Vec<Result<Device<'_>, NvmlError>> = (0..nvml.device_count().unwrap_or(0))
        .map(|n| nvml.device_by_index(n))
        .collect();
    if found.is_empty() {
        out.push_str("No devices were found\n");
        return 6;
    }
    if matches!(args, [word] if word == "-L" || word == "--list-gpus") {
        return list(found, out);
    }
    let mut devices = Vec::new();
    for (n, device) in found.into_iter().enumerate() {
        match device {
            Ok(device) => devices.push(device),
            Err(err) => return unreachable_gpu(n, &err, out),
        }
    }
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let query = args.iter().find_map(|arg| arg.strip_prefix("--query-gpu="));
    let result = match (words.as_slice(), query) {
        ([], _) => table(nvml, &devices, out),
        (_, Some(fields)) => {
            let format = args
                .iter()
                .find_map(|arg| arg.strip_prefix("--format="))
                .unwrap_or("csv");
            csv(nvml, &devices, fields, format, out)
        }
        _ => {
            out.push_str("Invalid combination of input arguments. This simulated nvidia-smi knows: no option, -L, --query-gpu=FIELDS --format=csv[,noheader][,nounits]\n");
            return USAGE;
        }
    };
    match result {
        Ok(()) => 0,
        Err(err) => {
            out.push_str(&format!("Unable to determine the device state: {err}\n"));
            15
        }
    }
}

/// What the real program says of a GPU without a handle; its exit code is NVML's.
fn unreachable_gpu(index: usize, err: &NvmlError, out: &mut String) -> u8 {
    let lost = matches!(err, NvmlError::GpuLost);
    let remedy = if lost {
        "GPU is lost.  Reboot the system to recover this GPU".to_owned()
    } else {
        err.to_string()
    };
    out.push_str(&format!(
        "Unable to determine the device handle for gpu {index}: {remedy}\n"
    ));
    if lost { 15 } else { 255 }
}

/// Every GPU, with its MIG devices; one that is lost does not hide the rest.
fn list(found: Vec<Result<Device<'_>, NvmlError>>, out: &mut String) -> u8 {
    let mut code = 0;
    for (n, device) in found.into_iter().enumerate() {
        let told = device.and_then(|device| {
            let line = format!("GPU {n}: {} (UUID: {})\n", device.name()?, device.uuid()?);
            Ok(line + &parts(&device)?)
        });
        match told {
            Ok(text) => out.push_str(&text),
            Err(err) => code = unreachable_gpu(n, &err, out),
        }
    }
    code
}

fn parts(device: &Device<'_>) -> Result<String, NvmlError> {
    let mut out = String::new();
    let whole = device.name()?;
    for n in 0..device.mig_device_count().unwrap_or(0) {
        let Ok(part) = device.mig_device_by_index(n) else {
            break;
        };
        let (name, uuid) = (part.name()?, part.uuid()?);
        let name = name.strip_prefix(&whole).unwrap_or(&name).trim();
        out.push_str(&format!("  {name:<15} Device {n:>2}: (UUID: {uuid})\n"));
    }
    Ok(out)
}

fn mib(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}

fn table(nvml: &Nvml, devices: &[Device<'_>], out: &mut String) -> Result<(), NvmlError> {
    let driver = nvml.sys_driver_version()?;
    let cuda = nvml.sys_cuda_driver_version()?;
    let cuda = format!("{}.{}", cuda / 1000, cuda % 1000 / 10);
    let line = "+-----------------------------------------------------------------------------------------+\n";
    let rule = "|-----------------------------------------+------------------------+----------------------+\n";
    out.push_str(line);
    out.push_str(&format!(
        "| NVIDIA-SMI {driver:<22} Driver Version: {driver:<14} CUDA Version: {cuda:<9}|\n"
    ));
    out.push_str(rule);
    out.push_str("| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |\n");
    out.push_str("| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |\n");
    out.push_str("|=========================================+========================+======================|\n");
    for device in devices {
        let (index, name, memory) = (device.index()?, device.name()?, device.memory_info()?);
        let bus = device.pci_info()?.bus_id;
        let watts = |milliwatts: u32| milliwatts / 1000;
        let power = format!(
            "{}W / {}W",
            watts(device.power_usage()?),
            watts(device.enforced_power_limit()?)
        );
        let used = format!("{}MiB / {}MiB", mib(memory.used), mib(memory.total));
        // A divided GPU does not know.
        let load = match device.utilization_rates() {
            Err(NvmlError::NotSupported) => "N/A".to_owned(),
            load => format!("{}%", load?.gpu),
        };
        out.push_str(&format!(
            "| {index:>3}  {name:<27}    Off | {bus:>16} Off |                    0 |\n"
        ));
        let heat = format!("{}C", device.temperature(TemperatureSensor::Gpu)?);
        out.push_str(&format!(
            "| N/A  {heat:>4}    P0   {power:>20} | {used:>22} | {load:>7}      Default |\n"
        ));
        out.push_str("+-----------------------------------------+------------------------+----------------------+\n");
    }
    out.push_str("\n+-----------------------------------------------------------------------------------------+\n");
    out.push_str("| Processes:                                                                              |\n");
    out.push_str("|  No running processes found                                                             |\n");
    out.push_str(line);
    Ok(())
}

fn csv(
    nvml: &Nvml,
    devices: &[Device<'_>],
    fields: &str,
    format: &str,
    out: &mut String,
) -> Result<(), NvmlError> {
    let plain = format.split(',').any(|word| word == "nounits");
    let fields: Vec<&str> = fields.split(',').map(str::trim).collect();
    let unit = |field: &str| match field {
        "memory.total" | "memory.used" | "memory.free" => " [MiB]",
        _ => "",
    };
    if !format.split(',').any(|word| word == "noheader") {
        let names: Vec<String> = fields
            .iter()
            .map(|field| format!("{field}{}", unit(field)))
            .collect();
        out.push_str(&format!("{}\n", names.join(", ")));
    }
    for device in devices {
        let values = fields
            .iter()
            .map(|field| value(nvml, device, field, plain))
            .collect::<Result<Vec<_>, _>>()?;
        out.push_str(&format!("{}\n", values.join(", ")));
    }
    Ok(())
}

fn value(nvml: &Nvml, device: &Device<'_>, field: &str, plain: bool) -> Result<String, NvmlError> {
    let size = |bytes: u64| {
        if plain {
            mib(bytes).to_string()
        } else {
            format!("{} MiB", mib(bytes))
        }
    };
    Ok(match field {
        "index" => device.index()?.to_string(),
        "name" | "gpu_name" => device.name()?,
        "uuid" | "gpu_uuid" => device.uuid()?,
        "pci.bus_id" | "gpu_bus_id" => device.pci_info()?.bus_id,
        "driver_version" => nvml.sys_driver_version()?,
        "count" => nvml.device_count()?.to_string(),
        "serial" | "gpu_serial" => device.serial()?,
        "minor_number" => device.minor_number()?.to_string(),
        "temperature.gpu" => device.temperature(TemperatureSensor::Gpu)?.to_string(),
        "memory.total" => size(device.memory_info()?.total),
        "memory.used" => size(device.memory_info()?.used),
        "memory.free" => size(device.memory_info()?.free),
        _ => "[N/A]".to_owned(),
    })
}
