//! Taking out of a CDI spec's edits what no wanted capability needs.

use fleet_cdi::{ContainerEdits, DeviceNode, Hook};
use fleet_rootfs::{HookProgram, recognise};

use super::{Capabilities, table};

/// Its presence in a spec tells NVIDIA's Tegra, whose libraries have other names and rules.
const TEGRA_MARK: &str = "/etc/nv_tegra_release";

/// Something that a container does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Omitted {
    /// Noun, as in the other rows of an explanation.
    pub(crate) what: &'static str,
    /// Path in the container.
    pub(crate) which: String,
    /// Capabilities any of which would bring it.
    pub(crate) needs: Capabilities,
}

/// Whether names of vendors are NVIDIA's: `nvidia.com`, `runtime.nvidia.com`, `k8s.device-plugin.nvidia.com`, ….
pub(crate) fn is_nvidia(kind: &str) -> bool {
    let vendor = kind.split('/').next().unwrap_or_default();
    vendor == "nvidia.com" || vendor.ends_with(".nvidia.com")
}

/// Whether the edits are those of a Tegra machine, which are given as a whole, as by NVIDIA's own runtime.
pub(crate) fn is_tegra(edits: &ContainerEdits) -> bool {
    let mut mounts = edits.mounts.iter();
    mounts.any(|mount| mount.container_path == TEGRA_MARK)
}

/// Removes what `wanted` does not need and says what that was, in the order of the edits.
pub(crate) fn apply(edits: &mut ContainerEdits, wanted: Capabilities) -> Vec<Omitted> {
    let mut filter = Filter {
        wanted,
        has_lib64: edits.mounts.iter().any(|mount| {
            mount.container_path.starts_with("/usr/lib64/")
                || mount.container_path.starts_with("/lib64/")
        }),
        emptied: Vec::new(),
        omitted: Vec::new(),
    };
    filter.nodes(edits);
    filter.mounts(edits);
    edits.hooks.retain_mut(|hook| filter.keeps_hook(hook));
    filter.omitted
}

struct Filter {
    wanted: Capabilities,
    has_lib64: bool,
    /// Directories that held libraries and hold none any more.
    emptied: Vec<String>,
    omitted: Vec<Omitted>,
}

impl Filter {
    /// What would have to be wanted for `path`; `None` if it is given.
    fn lacks(&self, path: &str) -> Option<Capabilities> {
        let parts = table::parts(path);
        let is_wanted = parts.is_none() || !parts.common(self.wanted).is_none();
        let compat32 = Capabilities::COMPAT32;
        let is_32_bit = table::is_32_bit(path, self.has_lib64);
        match (
            is_wanted,
            is_32_bit && self.wanted.common(compat32).is_none(),
        ) {
            (true, false) => None,
            (true, true) => Some(compat32),
            (false, _) if is_32_bit => Some(parts.with(compat32)),
            (false, _) => Some(parts),
        }
    }

    fn keeps(&mut self, what: &'static str, path: &str) -> bool {
        let lacks = self.lacks(path);
        if let Some(needs) = lacks {
            self.omitted.push(Omitted {
                what,
                which: path.to_owned(),
                needs,
            });
        }
        lacks.is_none()
    }

    /// Groups that only nodes left out belong to go with them.
    fn nodes(&mut self, edits: &mut ContainerEdits) {
        let (kept, gone): (Vec<DeviceNode>, Vec<DeviceNode>) =
            std::mem::take(&mut edits.device_nodes)
                .into_iter()
                .partition(|node| self.keeps("device", &node.path));
        let in_group = |nodes: &[DeviceNode], gid: u32| nodes.iter().any(|n| n.gid == Some(gid));
        edits
            .additional_gids
            .retain(|gid| !in_group(&gone, *gid) || in_group(&kept, *gid));
        edits.device_nodes = kept;
    }

    fn mounts(&mut self, edits: &mut ContainerEdits) {
        let directory = |path: &str| path.rsplit_once('/').map(|(dir, _)| dir.to_owned());
        let mut emptied = Vec::new();
        edits.mounts.retain(|mount| {
            let keeps = self.keeps("mount", &mount.container_path);
            emptied.extend(directory(&mount.container_path).filter(|_| !keeps));
            keeps
        });
        emptied.retain(|dir| {
            let mut kept = edits.mounts.iter();
            !kept.any(|mount| directory(&mount.container_path).as_ref() == Some(dir))
        });
        self.emptied = emptied;
    }

    /// A hook with a list of paths loses those left out, and goes with the last of them.
    fn keeps_hook(&mut self, hook: &mut Hook) -> bool {
        let name = match recognise(&hook.path, &hook.args) {
            Ok(HookProgram::Foreign) | Err(_) => return true,
            Ok(_) => hook
                .args
                .iter()
                .find_map(|arg| KNOWN.iter().find(|known| known.0 == arg)),
        };
        match name {
            Some((name, Part::Whole(needs))) => self.keeps_whole(name, *needs),
            Some((_, Part::List(option))) => {
                let (args, left) = self.without(option, &hook.args);
                let is_whole = args == hook.args;
                hook.args = args;
                is_whole || left > 0
            }
            None => true,
        }
    }

    fn keeps_whole(&mut self, name: &str, needs: Capabilities) -> bool {
        let keeps = !needs.common(self.wanted).is_none();
        if !keeps {
            self.omitted.push(Omitted {
                what: "hook",
                which: name.to_owned(),
                needs,
            });
        }
        keeps
    }

    /// The arguments without the values of `option` that are left out, and how many values stay.
    fn without(&mut self, option: &str, args: &[String]) -> (Vec<String>, usize) {
        let (mut kept, mut values, mut at) = (Vec::with_capacity(args.len()), 0, 0);
        while let Some(arg) = args.get(at) {
            let joined = arg
                .strip_prefix(option)
                .and_then(|rest| rest.strip_prefix('='));
            let next = args.get(at + 1).filter(|_| arg == option);
            let value = joined.or_else(|| next.map(String::as_str));
            let keeps = value.is_none_or(|value| self.keeps_value(option, value));
            values += usize::from(value.is_some() && keeps);
            let words = 1 + usize::from(next.is_some());
            kept.extend(args.iter().skip(at).take(words).filter(|_| keeps).cloned());
            at += words;
        }
        (kept, values)
    }

    fn keeps_value(&mut self, option: &str, value: &str) -> bool {
        match option {
            "--folder" => !self.emptied.iter().any(|dir| dir == value),
            "--link" => {
                let (target, link) = value.split_once("::").unwrap_or(("", value));
                let name = target.rsplit('/').next().unwrap_or(target);
                // A link of a wanted name to a file that is not there would lead nowhere.
                let lost = self.lacks(link).is_none() && self.lacks(name).is_some();
                if lost {
                    let needs = self.lacks(name).unwrap_or(Capabilities::NONE);
                    let which = link.to_owned();
                    self.omitted.push(Omitted {
                        what: "link",
                        which,
                        needs,
                    });
                }
                !lost && self.keeps("link", link)
            }
            _ => self.lacks(value).is_none(),
        }
    }
}

/// What decides over a hook.
enum Part {
    /// Whether one of these is wanted.
    Whole(Capabilities),
    /// Each value of this option by itself.
    List(&'static str),
}

/// Hooks of NVIDIA's program, by name.
const KNOWN: [(&str, Part); 5] = [
    ("create-symlinks", Part::List("--link")),
    ("update-ldcache", Part::List("--folder")),
    ("chmod", Part::List("--path")),
    ("enable-cuda-compat", Part::Whole(Capabilities::COMPUTE)),
    (
        "update-application-profile",
        Part::Whole(Capabilities::GRAPHICS.with(Capabilities::DISPLAY)),
    ),
];

#[cfg(test)]
mod tests;
