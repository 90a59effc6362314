//! The CDI spec of a simulated node, in the form in which `nvidia-ctk cdi generate` writes one: block YAML, its order of
//! keys, hooks that name `/usr/bin/nvidia-cdi-hook` (which need not exist), host paths below the driver root.

use std::fmt::Write as _;

use fleet_sim_machine::{Gpu, GpuFault, Machine, Node};

use crate::build::MACHINE_FILE;
use crate::libraries::{DRIVER, FILES, LIBDIR, OTHER, PROGRAMS};

/// Text of the spec. `root` is the driver root, `/` for a real node's form.
#[must_use]
pub fn cdi_spec(machine: &Machine, root: &str) -> String {
    let writer = Writer {
        machine,
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
        for path in self.files() {
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
        let mut links = vec!["create-symlinks".to_owned()];
        links.extend(link("libcuda.so.1", "libcuda.so"));
        links.extend(link(
            &format!("libGLX_nvidia.so.{version}"),
            "libGLX_indirect.so.0",
        ));
        links.extend(link(
            "libnvidia-opticalflow.so.1",
            "libnvidia-opticalflow.so",
        ));
        for library in DRIVER.iter().filter(|library| !library.soname.is_empty()) {
            let soname = format!("{}.so.{}", library.name, library.soname);
            links.extend(link(&format!("{}.so.{version}", library.name), &soname));
            if library.plain && !matches!(library.name, "libcuda" | "libnvidia-opticalflow") {
                links.extend(link(&soname, &format!("{}.so", library.name)));
            }
        }
        let words = |all: &[&str]| {
            all.iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let mut graphics = vec!["create-symlinks".to_owned()];
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

    fn files(&self) -> Vec<String> {
        let version = &self.machine.driver_version;
        let mut all: Vec<String> = DRIVER
            .iter()
            .map(|library| format!("{LIBDIR}/{}.so.{version}", library.name))
            .collect();
        all.push(format!("{LIBDIR}/vdpau/libvdpau_nvidia.so.{version}"));
        all.extend(OTHER.iter().map(|(file, _)| format!("{LIBDIR}/{file}")));
        all.extend(
            PROGRAMS
                .iter()
                .chain(&["nvidia-smi"])
                .map(|name| format!("usr/bin/{name}")),
        );
        all.extend(
            ["gsp_ga10x.bin", "gsp_tu10x.bin"]
                .map(|name| format!("lib/firmware/nvidia/{version}/{name}")),
        );
        all.extend(FILES.iter().map(|(path, _)| (*path).to_owned()));
        // What a real node does not have: the simulated library reads its machine from there.
        all.push(MACHINE_FILE.to_owned());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_specs_are_what_is_written() {
        for name in ["h100x2", "h100x8"] {
            let path = format!("{}/../../cdi/nodes/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
            let text = cdi_spec(&Machine::preset(name).unwrap(), "/");
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
        let text = cdi_spec(&Machine::preset("h100x2").unwrap(), "/sim/");
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
        assert!(!cdi_spec(&Machine::preset("h100x2").unwrap(), "/").contains("hostPath: /dev"));
    }
    #[test]
    fn parts_of_divided_gpus_and_groups() {
        let text = cdi_spec(&Machine::preset("mig-mixed").unwrap(), "/");
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
        let lost = cdi_spec(&Machine::preset("lost-gpu").unwrap(), "/");
        assert!(lost.contains("name: \"2\"\n") && !lost.contains("name: \"1\"\n"));
    }
}
