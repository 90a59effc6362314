//! Which devices are wanted, and what they are called.

use fleet_host::gpu::{Gpu, Inventory, MigDevice};

use crate::error::DiscoverError;
use crate::options::Naming;

/// A GPU or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Selected<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) part: Option<&'a MigDevice>,
}

/// What the list of ids asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Selection<'a> {
    /// Driver files and no device.
    Nothing,
    Devices(Vec<Selected<'a>>),
}

/// Devices for the ids. `none` and `all` count for the whole list, the first of them.
pub(crate) fn select<'a>(
    inventory: &'a Inventory,
    ids: &[String],
) -> Result<Selection<'a>, DiscoverError> {
    match ids.iter().find(|id| matches!(id.as_str(), "none" | "all")) {
        Some(id) if id == "none" => return Ok(Selection::Nothing),
        Some(_) => return Ok(Selection::Devices(all(inventory))),
        None => {}
    }
    let mut found: Vec<Selected<'_>> = Vec::new();
    for id in ids {
        let one = find(inventory, id).ok_or_else(|| DiscoverError::UnknownDevice {
            id: id.clone(),
            why: format!("this machine has {}", listed(inventory)),
        })?;
        // One device by two of its ids.
        if !found.contains(&one) {
            found.push(one);
        }
    }
    Ok(Selection::Devices(found))
}

/// Whole GPUs, then parts of those that are partitioned.
fn all(inventory: &Inventory) -> Vec<Selected<'_>> {
    let gpus = || inventory.gpus.iter().filter(|gpu| !gpu.is_display_only());
    let whole = gpus().filter(|gpu| gpu.mig.is_none());
    let whole = whole.map(|gpu| Selected { gpu, part: None });
    let parts = gpus().flat_map(|gpu| {
        let parts = gpu.mig.iter().flatten();
        parts.map(move |part| Selected {
            gpu,
            part: Some(part),
        })
    });
    whole.chain(parts).collect()
}

fn find<'a>(inventory: &'a Inventory, id: &str) -> Option<Selected<'a>> {
    let mut every = inventory.gpus.iter().flat_map(|gpu| {
        let whole = [Selected { gpu, part: None }];
        let parts = gpu.mig.iter().flatten();
        let parts = parts.map(move |part| Selected {
            gpu,
            part: Some(part),
        });
        whole.into_iter().chain(parts)
    });
    every.find(|device| {
        ids(device)
            .iter()
            .any(|known| known.eq_ignore_ascii_case(id))
    })
}

/// Every id that a device answers to.
fn ids(device: &Selected<'_>) -> Vec<String> {
    let gpu = device.gpu;
    let Some(part) = device.part else {
        let mut ids = vec![gpu.index.to_string()];
        ids.extend(gpu.uuid.clone());
        return ids;
    };
    let mut ids = vec![format!("{}:{}", gpu.index, part.index)];
    ids.extend(part.uuid.clone());
    // The form before driver 470.
    ids.extend(
        gpu.uuid
            .as_ref()
            .map(|uuid| format!("MIG-{uuid}/{}/{}", part.gpu_instance, part.compute_instance)),
    );
    ids
}

/// The GPU that has a name by any way of naming, or that a part of this name belongs to.
pub(crate) fn gpu_named<'a>(inventory: &'a Inventory, name: &str) -> Option<&'a Gpu> {
    let naming = [Naming::Index, Naming::TypeIndex, Naming::Uuid];
    inventory.gpus.iter().find(|gpu| {
        let parts = gpu.mig.iter().flatten().map(Some);
        let mut every = [None].into_iter().chain(parts);
        every.any(|part| {
            let names = Selected { gpu, part }.names(&naming);
            names.iter().any(|known| known == name)
        })
    })
}

fn listed(inventory: &Inventory) -> String {
    let all: Vec<String> = inventory
        .gpus
        .iter()
        .flat_map(|gpu| {
            let parts = gpu.mig.iter().flatten();
            let parts = parts.map(|part| format!("{}:{}", gpu.index, part.index));
            [gpu.index.to_string()].into_iter().chain(parts)
        })
        .collect();
    match all.is_empty() {
        true => "no GPU".to_owned(),
        false => all.join(", "),
    }
}

impl Selected<'_> {
    /// Its names, one for each way of naming that it has a name in.
    pub(crate) fn names(&self, naming: &[Naming]) -> Vec<String> {
        let index = self.gpu.index;
        let name = |naming: &Naming| match (naming, self.part) {
            (Naming::Index, None) => Some(index.to_string()),
            (Naming::Index, Some(part)) => Some(format!("{index}:{}", part.index)),
            (Naming::TypeIndex, None) => Some(format!("gpu{index}")),
            (Naming::TypeIndex, Some(part)) => Some(format!("mig{index}:{}", part.index)),
            (Naming::Uuid, None) => self.gpu.uuid.clone(),
            (Naming::Uuid, Some(part)) => part.uuid.clone(),
        };
        let mut names: Vec<String> = Vec::new();
        for name in naming.iter().filter_map(name) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: u32, parts: Option<u32>) -> Gpu {
        let part = |n: u32| MigDevice {
            index: n,
            uuid: Some(format!("MIG-{index}-{n}")),
            gpu_instance: 7 + n,
            compute_instance: 0,
            graphics: false,
        };
        Gpu {
            index,
            minor: 10 - index,
            uuid: Some(format!("GPU-{index}")),
            bus_id: None,
            name: "NVIDIA A100".to_owned(),
            mig: parts.map(|count| (0..count).map(part).collect()),
            coherent: None,
            arch: None,
            brand: None,
        }
    }

    fn names(inventory: &Inventory, ids: &[&str], naming: &[Naming]) -> Vec<String> {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        match select(inventory, &ids).unwrap() {
            Selection::Nothing => vec!["(none)".to_owned()],
            Selection::Devices(devices) => devices
                .iter()
                .flat_map(|device| device.names(naming))
                .collect(),
        }
    }

    #[test]
    fn ids_of_every_kind() {
        let mut display = gpu(3, None);
        display.name = "DGX Display".to_owned();
        let inventory = Inventory {
            gpus: vec![gpu(0, None), gpu(1, Some(2)), gpu(2, Some(0)), display],
            ..Inventory::default()
        };
        let index = [Naming::Index];
        let all = ["0", "1:0", "1:1"];
        assert_eq!(names(&inventory, &["all"], &index), all);
        assert_eq!(names(&inventory, &["0", "all"], &index), all);
        assert_eq!(names(&inventory, &["0", "none", "all"], &index), ["(none)"]);
        for (id, want) in [
            ("0", "0"),
            ("GPU-0", "0"),
            ("gpu-0", "0"),
            ("1:1", "1:1"),
            ("MIG-1-0", "1:0"),
            ("MIG-GPU-1/8/0", "1:1"),
            ("1", "1"),
            ("3", "3"),
        ] {
            assert_eq!(names(&inventory, &[id], &index), [want], "{id}");
        }
        assert_eq!(
            names(&inventory, &["1:1", "0", "GPU-0"], &index),
            ["1:1", "0"]
        );
        let ids = ["7".to_owned()];
        let err = select(&inventory, &ids).unwrap_err().to_string();
        assert_eq!(
            err,
            "find device `7`: this machine has 0, 1, 1:0, 1:1, 2, 3"
        );
    }

    #[test]
    fn names_by_every_strategy() {
        let inventory = Inventory {
            gpus: vec![gpu(0, None), gpu(1, Some(1))],
            ..Inventory::default()
        };
        let naming = [
            Naming::Uuid,
            Naming::TypeIndex,
            Naming::Index,
            Naming::Index,
        ];
        let all = ["GPU-0", "gpu0", "0", "MIG-1-0", "mig1:0", "1:0"];
        assert_eq!(names(&inventory, &["all"], &naming), all);
    }
}
