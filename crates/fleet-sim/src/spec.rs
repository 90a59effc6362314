//! The CDI spec of a simulated node, in the form in which `nvidia-ctk cdi generate` writes one: block YAML, its order of
//! keys, hooks that name `/usr/bin/nvidia-cdi-hook` (which need not exist), host paths below the driver root.

use std::fmt::Write as _;

use crate::build::MACHINE_FILE;
use crate::libraries::{DRIVER, FILES, LIBDIR, OTHER, PROGRAMS};
use crate::machine::{Machine, Node};

/// Text of the spec. `root` is the driver root, `/` for a real node's form.
#[must_use]
pub fn cdi_spec(machine: &Machine, root: &str) -> String {
    let writer = Writer {
        machine,
        root: root.trim_end_matches('/'),
    };
    let mut out = String::from("---\ncdiVersion: 0.5.0\ncontainerEdits:\n");
    out.push_str(&writer.common());
    out.push_str("devices:\n");
    let mut devices: Vec<(String, Vec<&Node>)> = Vec::new();
    for gpu in &machine.gpus {
        devices.push((gpu.minor.to_string(), vec![&gpu.node]));
        devices.push((gpu.uuid.clone(), vec![&gpu.node]));
    }
    devices.push((
        "all".to_owned(),
        machine.gpus.iter().map(|gpu| &gpu.node).collect(),
    ));
    devices.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, nodes) in devices {
        let _ = write!(
            out,
            "- containerEdits:\n    deviceNodes:\n{}  name: {}\n",
            writer.nodes("    ", &nodes),
            quoted(&name)
        );
    }
    out.push_str("kind: nvidia.com/gpu\n");
    out
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
            let host = if self.root.is_empty() {
                String::new()
            } else {
                format!("{indent}  hostPath: {}/dev/{}\n", self.root, node.name)
            };
            let _ = write!(
                out,
                "{indent}- fileMode: 438\n{host}{indent}  major: {}\n{indent}  minor: {}\n{indent}  path: /dev/{}\n{indent}  permissions: rwm\n",
                node.major, node.minor, node.name
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
}
