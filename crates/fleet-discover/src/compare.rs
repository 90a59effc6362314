//! Two sources about one machine.

use fleet_host::gpu::{Gpu, Inventory, MigDevice};

/// Where two sources differ, one sentence each. What the other one cannot know is no difference.
#[must_use]
pub fn differences(nvml: &Inventory, proc: &Inventory) -> Vec<String> {
    let mut told = Vec::new();
    differ(
        &mut told,
        "driver version",
        &nvml.driver_version,
        &proc.driver_version,
    );
    for gpu in &nvml.gpus {
        match twin(gpu, proc) {
            Some(other) => compare(&mut told, gpu, other),
            None => told.push(format!(
                "GPU {} is known to NVML and not in proc",
                shown(gpu)
            )),
        }
    }
    for gpu in &proc.gpus {
        if twin(gpu, nvml).is_none() {
            told.push(format!(
                "GPU {} is in proc and not known to NVML",
                shown(gpu)
            ));
        }
    }
    told
}

/// The same GPU, by its place, or by its number where it has none.
fn twin<'a>(gpu: &Gpu, of: &'a Inventory) -> Option<&'a Gpu> {
    of.gpus
        .iter()
        .find(|other| match (&gpu.bus_id, &other.bus_id) {
            (Some(a), Some(b)) => a == b,
            _ => gpu.minor == other.minor,
        })
}

fn shown(gpu: &Gpu) -> String {
    match (&gpu.bus_id, &gpu.uuid) {
        (Some(bus), _) => bus.to_string(),
        (None, Some(uuid)) => uuid.clone(),
        (None, None) => format!("with minor number {}", gpu.minor),
    }
}

fn differ<T: PartialEq + std::fmt::Display>(
    told: &mut Vec<String>,
    what: &str,
    nvml: &Option<T>,
    proc: &Option<T>,
) {
    if let (Some(nvml), Some(proc)) = (nvml, proc)
        && nvml != proc
    {
        told.push(format!("{what}: NVML says {nvml}, proc {proc}"));
    }
}

fn compare(told: &mut Vec<String>, nvml: &Gpu, proc: &Gpu) {
    let of = |what: &str| format!("{what} of GPU {}", shown(nvml));
    differ(told, &of("index"), &Some(nvml.index), &Some(proc.index));
    differ(
        told,
        &of("minor number"),
        &Some(nvml.minor),
        &Some(proc.minor),
    );
    differ(told, &of("UUID"), &nvml.uuid, &proc.uuid);
    differ(
        told,
        &of("partitions"),
        &Some(parts(nvml)),
        &Some(parts(proc)),
    );
}

/// A partitioned GPU without parts looks like a whole one in proc.
fn parts(gpu: &Gpu) -> String {
    let part = |mig: &MigDevice| format!("{}.{}", mig.gpu_instance, mig.compute_instance);
    let mut parts: Vec<_> = gpu.mig.iter().flatten().map(part).collect();
    parts.sort();
    match parts.is_empty() {
        true => "none".to_owned(),
        false => parts.join("+"),
    }
}

#[cfg(test)]
mod tests {
    use fleet_host::gpu::BusId;

    use super::*;

    fn gpu(index: u32, minor: u32, bus: &str) -> Gpu {
        Gpu {
            index,
            minor,
            uuid: Some(format!("GPU-{bus}")),
            bus_id: BusId::parse(bus),
            name: "x".to_owned(),
            mig: None,
            coherent: Some(false),
            arch: None,
            brand: None,
        }
    }

    #[test]
    fn only_what_both_know_is_compared() {
        let nvml = Inventory {
            driver_version: Some("1.2".to_owned()),
            cuda_version: Some("12.4".to_owned()),
            gpus: vec![gpu(0, 0, "0000:01:00.0"), gpu(1, 1, "0000:02:00.0")],
            ..Inventory::default()
        };
        let mut proc = nvml.clone();
        proc.cuda_version = None;
        proc.gpus[0].uuid = None;
        proc.gpus[0].coherent = None;
        assert_eq!(differences(&nvml, &proc), [""; 0]);

        proc.driver_version = Some("1.3".to_owned());
        proc.gpus[0].minor = 4;
        proc.gpus[1] = gpu(1, 1, "0000:03:00.0");
        proc.gpus[0].mig = Some(vec![MigDevice {
            index: 0,
            uuid: None,
            gpu_instance: 7,
            compute_instance: 0,
            graphics: false,
        }]);
        let told = differences(&nvml, &proc);
        let want = [
            "driver version: NVML says 1.2, proc 1.3",
            "minor number of GPU 0000:01:00.0: NVML says 0, proc 4",
            "partitions of GPU 0000:01:00.0: NVML says none, proc 7.0",
            "GPU 0000:02:00.0 is known to NVML and not in proc",
            "GPU 0000:03:00.0 is in proc and not known to NVML",
        ];
        assert_eq!(told, want);
    }
}
