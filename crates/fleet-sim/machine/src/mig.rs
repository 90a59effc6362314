//! MIG: profiles, placement and the minor numbers of the nodes that give access (NVIDIA MIG user guide, `nvml.h`).

use serde::{Deserialize, Serialize};

use crate::node::{Node, major};

/// GPUs with the same profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A100 with 40 GB.
    Gb40Ampere,
    /// A100 with 80 GB.
    Gb80Ampere,
    /// H100 with 80 GB.
    Gb80Hopper,
    /// GH200 with 96 GB.
    Gb96,
    /// H200.
    Gb141,
    /// B200.
    Gb180,
}

/// What a GPU instance profile gives.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// Whose it is.
    pub family: Family,
    /// Name, such as `3g.20gb`.
    pub name: &'static str,
    /// `NVML_GPU_INSTANCE_PROFILE_…`.
    pub index: u32,
    /// The id that `nvidia-smi mig -lgip` shows.
    pub id: u32,
    /// Compute slices.
    pub slices: u32,
    /// Memory slices it takes, of eight.
    pub size: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Copy engines.
    pub copy_engines: u32,
    /// Decoders.
    pub decoders: u32,
    /// JPEG and optical flow engines.
    pub others: u32,
    /// How many fit in a GPU.
    pub most: u32,
}

/// One row per size: index, id, slices, memory slices, most.
const SIZES: [(u32, u32, u32, u32, u32); 6] = [
    (0, 19, 1, 1, 7),
    (9, 15, 1, 2, 4),
    (1, 14, 2, 2, 3),
    (2, 9, 3, 4, 2),
    (3, 5, 4, 4, 1),
    (4, 0, 7, 8, 1),
];

/// Per size: multiprocessors, copy engines, decoders, others.
const AMPERE: [(u32, u32, u32, u32); 6] = [
    (14, 1, 0, 0),
    (14, 1, 1, 0),
    (28, 2, 1, 0),
    (42, 3, 2, 0),
    (56, 4, 2, 0),
    (98, 7, 5, 1),
];
const HOPPER: [(u32, u32, u32, u32); 6] = [
    (16, 1, 1, 1),
    (26, 1, 1, 1),
    (32, 2, 2, 2),
    (60, 3, 3, 3),
    (64, 4, 4, 4),
    (132, 8, 7, 7),
];

const fn profiles(
    family: Family,
    engines: [(u32, u32, u32, u32); 6],
    rows: [(&'static str, u64); 6],
) -> [Profile; 6] {
    let mut out = [Profile {
        family,
        name: "",
        index: 0,
        id: 0,
        slices: 0,
        size: 0,
        memory_mib: 0,
        multiprocessors: 0,
        copy_engines: 0,
        decoders: 0,
        others: 0,
        most: 0,
    }; 6];
    let mut n = 0;
    while n < 6 {
        let (index, id, slices, size, most) = SIZES[n];
        let (multiprocessors, copy_engines, decoders, others) = engines[n];
        let (name, memory_mib) = rows[n];
        out[n] = Profile {
            family,
            name,
            index,
            id,
            slices,
            size,
            memory_mib,
            multiprocessors,
            copy_engines,
            decoders,
            others,
            most,
        };
        n += 1;
    }
    out
}

/// Profiles of all families.
pub const PROFILES: [[Profile; 6]; 6] = [
    profiles(
        Family::Gb40Ampere,
        AMPERE,
        [
            ("1g.5gb", 4864),
            ("1g.10gb", 9984),
            ("2g.10gb", 9984),
            ("3g.20gb", 20_096),
            ("4g.20gb", 20_096),
            ("7g.40gb", 40_320),
        ],
    ),
    profiles(
        Family::Gb80Ampere,
        AMPERE,
        [
            ("1g.10gb", 9728),
            ("1g.20gb", 19_968),
            ("2g.20gb", 19_968),
            ("3g.40gb", 40_192),
            ("4g.40gb", 40_192),
            ("7g.80gb", 80_640),
        ],
    ),
    profiles(
        Family::Gb80Hopper,
        HOPPER,
        [
            ("1g.10gb", 9984),
            ("1g.20gb", 20_096),
            ("2g.20gb", 20_096),
            ("3g.40gb", 40_448),
            ("4g.40gb", 40_448),
            ("7g.80gb", 81_152),
        ],
    ),
    profiles(
        Family::Gb96,
        HOPPER,
        [
            ("1g.12gb", 11_264),
            ("1g.24gb", 23_552),
            ("2g.24gb", 23_552),
            ("3g.48gb", 47_616),
            ("4g.48gb", 47_616),
            ("7g.96gb", 96_000),
        ],
    ),
    profiles(
        Family::Gb141,
        HOPPER,
        [
            ("1g.18gb", 16_384),
            ("1g.35gb", 33_280),
            ("2g.35gb", 33_280),
            ("3g.71gb", 71_424),
            ("4g.71gb", 71_424),
            ("7g.141gb", 143_360),
        ],
    ),
    profiles(
        Family::Gb180,
        HOPPER,
        [
            ("1g.23gb", 22_016),
            ("1g.45gb", 45_056),
            ("2g.45gb", 45_056),
            ("3g.90gb", 91_136),
            ("4g.90gb", 91_136),
            ("7g.180gb", 182_784),
        ],
    ),
];

impl Profile {
    /// A family's profile by name.
    #[must_use]
    pub fn named(family: Family, name: &str) -> Option<&'static Self> {
        Self::all(family)
            .iter()
            .find(|profile| profile.name == name)
    }

    /// A family's profiles.
    #[must_use]
    pub fn all(family: Family) -> &'static [Self] {
        PROFILES
            .iter()
            .find(|profiles| profiles[0].family == family)
            .map_or(&[], |profiles| profiles)
    }

    /// Memory slices at which an instance may begin.
    #[must_use]
    pub fn starts(&self) -> &'static [u32] {
        match (self.slices, self.size) {
            (1, 1) => &[0, 1, 2, 3, 4, 5, 6],
            (1, _) => &[0, 2, 4, 6],
            (2, _) => &[0, 2, 4],
            (3, _) => &[0, 4],
            _ => &[0],
        }
    }

    /// The first instance id of this size; ids of sizes do not overlap.
    fn first_id(&self) -> u32 {
        match self.slices {
            7 => 0,
            3 | 4 => 1,
            2 => 3,
            _ => 7,
        }
    }
}

/// A GPU instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInstance {
    /// Instance id.
    pub id: u32,
    /// Profile name.
    pub profile: String,
    /// First memory slice.
    pub start: u32,
    /// The node that gives access.
    pub node: Node,
    /// Compute instances.
    pub compute: Vec<ComputeInstance>,
}

/// A compute instance; with its GPU instance it makes a MIG device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeInstance {
    /// Instance id.
    pub id: u32,
    /// Slices, of the GPU instance's.
    pub slices: u32,
    /// `MIG-…`.
    pub uuid: String,
    /// The node that gives access.
    pub node: Node,
}

/// `NVML_COMPUTE_INSTANCE_PROFILE_…` of a number of slices.
#[must_use]
pub fn compute_profile(slices: u32) -> u32 {
    match slices {
        0..=4 => slices.saturating_sub(1),
        _ => 4,
    }
}

/// Minor number in `mig-minors` of a GPU instance's access node, or of a compute instance's: 15 GPU instances per GPU,
/// nine numbers each, after `config` (1) and `monitor` (2).
#[must_use]
pub fn cap_minor(gpu: u32, instance: u32, compute: Option<u32>) -> u32 {
    3 + gpu * 135 + instance * 9 + compute.map_or(0, |compute| compute + 1)
}

fn access(gpu: u32, instance: u32, compute: Option<u32>) -> Node {
    let minor = cap_minor(gpu, instance, compute);
    Node::new(format!("nvidia-caps/nvidia-cap{minor}"), major::CAPS, minor).guarded(0o444, 0)
}

/// Instances for profiles, in the order given: `3g.20gb`, or `3g.20gb/1c,2c` for compute instances smaller than their
/// GPU instance. `uuid` names the devices.
///
/// # Errors
/// A profile is not the family's, or does not fit beside the ones before it.
pub fn layout(
    family: Family,
    gpu: u32,
    wanted: &[String],
    uuid: impl Fn(&str) -> String,
) -> Result<Vec<GpuInstance>, String> {
    let mut taken = [false; 8];
    let mut out: Vec<GpuInstance> = Vec::new();
    for wish in wanted {
        let (name, compute) = wish.split_once('/').unwrap_or((wish, ""));
        let profile = Profile::named(family, name).ok_or_else(|| no_profile(family, name))?;
        let start = place(profile, &mut taken)
            .ok_or_else(|| format!("MIG profile {name} does not fit beside those before it"))?;
        let mut id = profile.first_id();
        while out.iter().any(|other| other.id == id) {
            id += 1;
        }
        out.push(GpuInstance {
            id,
            profile: profile.name.to_owned(),
            start,
            node: access(gpu, id, None),
            compute: compute_instances(profile, gpu, id, compute, &uuid)?,
        });
    }
    out.sort_by_key(|instance| instance.id);
    Ok(out)
}

fn no_profile(family: Family, name: &str) -> String {
    let known: Vec<&str> = Profile::all(family).iter().map(|p| p.name).collect();
    format!(
        "no MIG profile `{name}`; hint: this GPU has {}",
        known.join(", ")
    )
}

fn place(profile: &Profile, taken: &mut [bool; 8]) -> Option<u32> {
    for start in profile.starts() {
        let slots = taken
            .get_mut(usize::try_from(*start).ok()?..)?
            .get_mut(..usize::try_from(profile.size).ok()?);
        if let Some(slots) = slots
            && !slots.contains(&true)
        {
            slots.fill(true);
            return Some(*start);
        }
    }
    None
}

fn compute_instances(
    profile: &Profile,
    gpu: u32,
    instance: u32,
    list: &str,
    uuid: impl Fn(&str) -> String,
) -> Result<Vec<ComputeInstance>, String> {
    let slices: Vec<u32> = if list.is_empty() {
        vec![profile.slices]
    } else {
        list.split(',')
            .map(|word| word.strip_suffix('c').and_then(|n| n.parse().ok()))
            .collect::<Option<_>>()
            .ok_or_else(|| format!("`{list}` is no list of compute instances; hint: 1c,2c"))?
    };
    if slices.contains(&0) || slices.iter().sum::<u32>() > profile.slices {
        return Err(format!(
            "compute instances `{list}` do not fit in {}",
            profile.name
        ));
    }
    Ok((0..)
        .zip(slices)
        .map(|(id, slices)| ComputeInstance {
            id,
            slices,
            uuid: format!("MIG-{}", uuid(&format!("gi{instance}/ci{id}"))),
            node: access(gpu, instance, Some(id)),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(family: Family, wanted: &[&str]) -> Result<Vec<GpuInstance>, String> {
        let wanted: Vec<String> = wanted.iter().map(|word| (*word).to_owned()).collect();
        layout(family, 0, &wanted, str::to_owned)
    }

    #[test]
    fn minors_are_the_documented_ones() {
        assert_eq!(cap_minor(0, 0, None), 3);
        assert_eq!(cap_minor(0, 0, Some(0)), 4);
        assert_eq!(cap_minor(0, 1, None), 12);
        assert_eq!(cap_minor(1, 0, None), 138);
        assert_eq!(cap_minor(31, 14, Some(7)), 4322);
    }

    #[test]
    fn instances_are_placed_and_numbered() {
        let all = made(Family::Gb40Ampere, &["3g.20gb", "2g.10gb", "1g.5gb"]).unwrap();
        let ids: Vec<_> = all.iter().map(|gi| (gi.id, gi.start)).collect();
        assert_eq!(ids, [(1, 0), (3, 4), (7, 6)]);
        assert_eq!(all[0].node.name, "nvidia-caps/nvidia-cap12");
        assert_eq!(all[0].compute[0].node.minor, 13);
        assert_eq!(made(Family::Gb80Hopper, &["1g.10gb"; 7]).unwrap().len(), 7);
        let split = made(Family::Gb80Hopper, &["3g.40gb/1c,2c"]).unwrap();
        let slices: Vec<_> = split[0].compute.iter().map(|ci| ci.slices).collect();
        assert_eq!(slices, [1, 2]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (wanted, word) in [
            (vec!["5g.30gb"], "no MIG profile `5g.30gb`"),
            (vec!["7g.40gb", "1g.5gb"], "does not fit"),
            (vec!["1g.5gb"; 8], "does not fit"),
            (vec!["3g.20gb/2c,2c"], "do not fit"),
            (vec!["3g.20gb/0c"], "do not fit"),
            (vec!["3g.20gb/x"], "is no list"),
        ] {
            let err = made(Family::Gb40Ampere, &wanted).unwrap_err();
            assert!(err.contains(word), "{wanted:?}: {err}");
        }
    }
}
