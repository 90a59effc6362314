//! The CDI spec of a simulated node, in the form in which `nvidia-ctk cdi generate` writes one: block YAML, its order of
//! keys, hooks that name `/usr/bin/nvidia-cdi-hook` (which need not exist), host paths below the driver root.

use std::fmt::Write as _;

use fleet_sim_machine::{Gpu, GpuFault, Machine, Node};

use crate::installed::Installed;
use crate::libraries::LIBDIR;

/// Text of the spec. `root` is the driver root, `/` for a real node's form.
#[must_use]
pub fn cdi_spec(machine: &Machine, installed: &Installed, root: &str) -> String {
    let writer = Writer {
        machine,
        installed,
        root: root.trim_end_matches('/'),
    };
    let devices = devices(machine);
    // Groups came with 0.7.0 (CDI SPEC, released versions).
    let groups = devices.iter().any(|(_, nodes)| !groups(nodes).is_empty());
    let version = if groups { "0.7.0" } else { "0.5.0" };
    let mut out = format!("---\ncdiVersion: {version}\ncontainerEdits:\n");
    out.push_str(&writer.common());
    out.push_str("devices:\n");
    for (name, nodes) in devices {
        let _ = write!(
            out,
            "- containerEdits:\n{}    deviceNodes:\n{}  name: {}\n",
            gids(&nodes),
            writer.nodes("    ", &nodes),
            quoted(&name)
        );
    }
    out.push_str("kind: nvidia.com/gpu\n");
    out
}

/// Names by index and UUID, and `all`, with their nodes. A GPU that is divided is there in its parts only; one that does
/// not answer, or has no node, is not there.
fn devices(machine: &Machine) -> Vec<(String, Vec<&Node>)> {
    let mut gpus: Vec<&Gpu> = machine.gpus.iter().collect();
    gpus.sort_by(|a, b| a.bus_id.cmp(&b.bus_id));
    let mut out: Vec<(String, Vec<&Node>)> = Vec::new();
    for (index, gpu) in gpus.into_iter().enumerate() {
        let absent = matches!(gpu.fault, Some(GpuFault::Lost | GpuFault::MissingNode));
        if absent || gpu.is_dgx_display() {
            continue;
        }
        match &gpu.mig {
            None => {
                out.push((index.to_string(), gpu.own_nodes()));
                out.push((gpu.uuid.clone(), gpu.own_nodes()));
            }
            Some(instances) => {
                let parts = instances
                    .iter()
                    .flat_map(|gi| gi.compute.iter().map(move |ci| (gi, ci)));
                for (n, (gi, ci)) in parts.enumerate() {
                    let nodes = vec![&gpu.node, &gi.node, &ci.node];
                    out.push((format!("{index}:{n}"), nodes.clone()));
                    out.push((ci.uuid.clone(), nodes));
                }
            }
        }
    }
    let mut all: Vec<&Node> = Vec::new();
    for node in out.iter().flat_map(|(_, nodes)| nodes) {
        if !all.contains(node) {
            all.push(node);
        }
    }
    if !all.is_empty() {
        out.push(("all".to_owned(), all));
    }
    out.sort_by(|(a, _), (b, _)| a.cmp(b));
    out
}

/// Groups that a process needs to open these nodes.
fn groups(nodes: &[&Node]) -> Vec<u32> {
    let mut out: Vec<u32> = nodes
        .iter()
        .filter(|node| node.gid != 0 && node.mode & 0o6 != 0o6)
        .map(|node| node.gid)
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}

fn gids(nodes: &[&Node]) -> String {
    let groups = groups(nodes);
    if groups.is_empty() {
        return String::new();
    }
    groups
        .iter()
        .fold("    additionalGids:\n".to_owned(), |mut out, gid| {
            let _ = writeln!(out, "    - {gid}");
            out
        })
}

/// Go's YAML writer quotes a string that would be read as a number.
fn quoted(text: &str) -> String {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        format!("\"{text}\"")
    } else {
        text.to_owned()
    }
}

struct Writer<'a> {
    machine: &'a Machine,
    installed: &'a Installed,
    root: &'a str,
}

impl Writer<'_> {
    fn nodes(&self, indent: &str, nodes: &[&Node]) -> String {
        let mut out = String::new();
        for node in nodes {
            let gid = match node.gid {
                0 => String::new(),
                gid => format!("{indent}  gid: {gid}\n"),
            };
            let host = if self.root.is_empty() {
                String::new()
            } else {
                format!("{indent}  hostPath: {}/dev/{}\n", self.root, node.name)
            };
            let _ = write!(
                out,
                "{indent}- fileMode: {}\n{gid}{host}{indent}  major: {}\n{indent}  minor: {}\n{indent}  path: /dev/{}\n{indent}  permissions: rwm\n",
                node.mode, node.major, node.minor, node.name
            );
        }
        out
    }

    fn common(&self) -> String {
        let control: Vec<&Node> = self.machine.control.iter().collect();
        let mut out = format!("  deviceNodes:\n{}", self.nodes("  ", &control));
        let _ = write!(
            out,
            "  env:\n  - NVIDIA_CTK_LIBCUDA_DIR=/{LIBDIR}\n  - NVIDIA_VISIBLE_DEVICES=void\n  hooks:\n"
        );
        for args in self.hooks() {
            out.push_str("  - args:\n    - nvidia-cdi-hook\n");
            for arg in args {
                let _ = writeln!(out, "    - {arg}");
            }
            out.push_str("    env:\n    - NVIDIA_CTK_DEBUG=false\n    hookName: createContainer\n    path: /usr/bin/nvidia-cdi-hook\n");
        }
        out.push_str("  mounts:\n");
        for path in &self.installed.mounts {
            let _ = write!(
                out,
                "  - containerPath: /{path}\n    hostPath: {}/{path}\n    options:\n    - ro\n    - nosuid\n    - nodev\n    - rbind\n    - rprivate\n",
                self.root
            );
        }
        out
    }

    fn hooks(&self) -> Vec<Vec<String>> {
        let version = &self.machine.driver_version;
        let link =
            |target: &str, link: &str| ["--link".to_owned(), format!("{target}::/{LIBDIR}/{link}")];
        let words = |all: &[&str]| {
            all.iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let mut links = words(&["create-symlinks"]);
        for (target, name) in &self.installed.links {
            links.extend(link(target, name));
        }
        let mut graphics = words(&["create-symlinks"]);
        graphics.extend(link("../libnvidia-allocator.so.1", "gbm/nvidia-drm_gbm.so"));
        vec![
            graphics,
            links,
            vec![
                "enable-cuda-compat".to_owned(),
                format!("--host-driver-version={version}"),
            ],
            words(&[
                "update-ldcache",
                "--folder",
                &format!("/{LIBDIR}"),
                "--folder",
                &format!("/{LIBDIR}/vdpau"),
            ]),
            words(&["disable-device-node-modification"]),
            words(&["update-application-profile"]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, root: &str) -> String {
        let machine = Machine::preset(name).unwrap();
        cdi_spec(&machine, &Installed::simulated(&machine), root)
    }

    #[test]
    fn the_committed_specs_are_what_is_written() {
        for name in ["h100x2", "h100x8"] {
            let path = format!("{}/../../cdi/nodes/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
            let text = written(name, "/");
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                text,
                "{path}: UPDATE=1 rewrites it"
            );
        }
    }

    #[test]
    fn names_and_roots() {
        let text = written("h100x2", "/sim/");
        for word in [
            "name: \"0\"\n",
            "name: all\n",
            "hostPath: /sim/dev/nvidia0",
            "hostPath: /sim/usr/bin/nvidia-smi",
            "containerPath: /usr/bin/nvidia-smi",
            "name: GPU-",
        ] {
            assert!(text.contains(word), "{word}");
        }
        assert!(!written("h100x2", "/").contains("hostPath: /dev"));
    }
    #[test]
    fn parts_of_divided_gpus_and_groups() {
        let text = written("mig-mixed", "/");
        assert!(text.starts_with("---\ncdiVersion: 0.7.0\n"));
        for word in [
            "name: \"1\"\n",
            "name: 0:0\n",
            "name: 0:2\n",
            "name: 2:2\n",
            "path: /dev/nvidia-caps/nvidia-cap12\n",
            "    additionalGids:\n    - 44\n    - 993\n",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("name: \"0\"\n") && !text.contains("name: \"3\"\n"));
        let lost = written("lost-gpu", "/");
        assert!(lost.contains("name: \"2\"\n") && !lost.contains("name: \"1\"\n"));
    }
}
