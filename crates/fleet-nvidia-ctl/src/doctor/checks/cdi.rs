//! CDI specs: readable, without conflicts, fresh, and not too new for the engines.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fleet_cdi::{ContainerEdits, LoadedSpec, Registry};
use fleet_host::Host;

use crate::doctor::check::{Broken, Check, Finding, Node, Outcome, absent, outcome};
use crate::doctor::repair::Repair;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "cdi",
        run: cdi,
    },
    Check {
        name: "cdi-fresh",
        run: fresh,
    },
    Check {
        name: "cdi-readers",
        run: readers,
    },
];

const GENERATE: &str = "fleet-nvidia-ctl cdi refresh writes it anew";
/// The file that `cdi refresh` writes.
const OURS: &str = "fleet-nvidia.yaml";

fn registry(node: &Node<'_>) -> Result<Registry, Broken> {
    let host = node.files.host();
    let (file, _) = fleet_host::load_policy(node.env, host)
        .map_err(|err| Broken(format!("CDI directories are not known: {err}")))?;
    Ok(host.registry(&fleet_host::spec_dirs(&file.policy, node.env)))
}

/// A device to ask for: all GPUs where a spec has that name, else the first.
pub(crate) fn any_device(node: &Node<'_>) -> Option<String> {
    let names = registry(node).ok()?.devices();
    let all = names.iter().find(|name| name.name() == "all");
    all.or_else(|| names.first()).map(ToString::to_string)
}

fn cdi(node: &Node<'_>) -> Outcome {
    let registry = registry(node)?;
    let mut findings: Vec<_> = registry
        .errors()
        .iter()
        .map(|err| {
            let text = err.to_string();
            let (text, hint) = text.split_once("; hint: ").unwrap_or((&text, GENERATE));
            Finding::error(text, hint)
        })
        .collect();
    findings.extend(registry.specs().iter().filter_map(private));
    let devices = registry.devices().len();
    if devices == 0 && findings.is_empty() {
        return match node.devices.driver_version() {
            None => absent("no CDI spec, and no driver to write one for"),
            Some(version) => {
                let text = format!("driver {version} is loaded, but no CDI spec names a device");
                outcome(vec![Finding::error(text, GENERATE).with(Repair::Spec)], "")
            }
        };
    }
    outcome(
        findings,
        format!("{devices} devices in {} files", registry.specs().len()),
    )
}

/// Rootless engines read the specs as their user.
fn private(loaded: &LoadedSpec) -> Option<Finding> {
    let mode = std::fs::metadata(&loaded.path).ok()?.mode();
    (mode & 0o004 == 0).then(|| {
        let path = loaded.path.display();
        Finding::warning(
            format!(
                "{path} has mode {:04o}: rootless engines cannot read it",
                mode & 0o7777
            ),
            format!("chmod 0644 {path}"),
        )
    })
}

fn fresh(node: &Node<'_>) -> Outcome {
    let registry = registry(node)?;
    if registry.specs().is_empty() {
        return absent("no CDI spec");
    }
    let findings = registry
        .specs()
        .iter()
        .flat_map(|loaded| stale(node, loaded));
    outcome(
        findings.collect(),
        "every file and device of the specs is on this node",
    )
}

/// What a spec names and the node lacks, in one finding per spec and cause.
fn stale(node: &Node<'_>, loaded: &LoadedSpec) -> Vec<Finding> {
    let all = loaded
        .spec
        .devices
        .iter()
        .map(|device| &device.container_edits);
    let mut gone = BTreeSet::new();
    let mut old = BTreeSet::new();
    let driver = node.devices.driver_version();
    for path in all
        .chain([&loaded.spec.container_edits])
        .flat_map(host_paths)
    {
        if !node.devices.exists(path) {
            gone.insert(path);
        }
        if let (Some(driver), Some(version)) = (&driver, library_version(path))
            && version != driver
        {
            old.insert(version);
        }
    }
    let path = loaded.path.display();
    let ours = loaded.path.file_name().is_some_and(|name| name == OURS);
    let stale = |text: String| {
        let finding = Finding::error(text, GENERATE);
        if ours {
            finding.with(Repair::Spec)
        } else {
            finding
        }
    };
    let mut findings = Vec::new();
    if let Some(first) = gone.first() {
        let count = gone.len();
        findings.push(stale(format!(
            "{path} names {count} files that this node does not have, such as {first}"
        )));
    }
    if let (Some(driver), Some(version)) = (driver, old.first()) {
        findings.push(stale(format!(
            "{path} was written for driver {version}, {driver} is loaded"
        )));
    }
    findings
}

fn host_paths(edits: &ContainerEdits) -> impl Iterator<Item = &str> {
    let nodes = edits.device_nodes.iter();
    let nodes = nodes.map(|node| node.host_path.as_deref().unwrap_or(&node.path));
    // A mount whose source the runtime makes, such as tmpfs, has no file behind it.
    let mounts = edits.mounts.iter().map(|mount| mount.host_path.as_str());
    nodes.chain(mounts.filter(|path| path.starts_with('/')))
}

/// The version in the name of a driver library: `libcuda.so.580.65.06`.
fn library_version(path: &str) -> Option<&str> {
    let name = Path::new(path).file_name()?.to_str()?;
    let (library, version) = name.split_once(".so.")?;
    let ours = library == "libcuda" || library.starts_with("libnvidia-ml");
    (ours && version.contains('.')).then_some(version)
}

type Version = (u32, u32);

/// The newest CDI version an engine reads, by the engine's version (their go.mod files).
const READERS: [(&str, &[(Version, Version)]); 4] = [
    (
        "podman",
        &[
            ((4, 1), (0, 4)),
            ((4, 3), (0, 5)),
            ((4, 9), (0, 6)),
            ((5, 4), (0, 8)),
            ((5, 8), (1, 0)),
        ],
    ),
    (
        "crio",
        &[
            ((1, 23), (0, 5)),
            ((1, 30), (0, 7)),
            ((1, 33), (1, 0)),
            ((1, 35), (1, 1)),
        ],
    ),
    (
        "containerd",
        &[((1, 7), (0, 5)), ((2, 0), (0, 8)), ((2, 2), (1, 0))],
    ),
    ("docker", &[((25, 0), (0, 6)), ((28, 2), (1, 0))]),
];

fn readers(node: &Node<'_>) -> Outcome {
    let registry = registry(node)?;
    if registry.specs().is_empty() {
        return absent("no CDI spec");
    }
    let (mut findings, mut asked) = (Vec::new(), Vec::new());
    for (engine, table) in READERS {
        let Ok(said) = node.programs.ask(&[engine, "--version"], 10) else {
            continue;
        };
        let Some(version) = numbers(&said.stdout) else {
            continue;
        };
        asked.push(format!("{engine} {}.{}", version.0, version.1));
        let reads = table.iter().rev().find(|(from, _)| *from <= version);
        let Some((_, reads)) = reads else {
            continue;
        };
        for loaded in registry.specs() {
            let states = numbers(&loaded.spec.cdi_version).unwrap_or((0, 0));
            if states > *reads {
                findings.push(Finding::warning(
                    format!(
                        "{engine} {}.{} reads CDI up to {}.{}, {} states {}: `--device` of that engine ignores the file",
                        version.0, version.1, reads.0, reads.1, loaded.path.display(), loaded.spec.cdi_version
                    ),
                    "write it for the older version, or ask by NVIDIA_VISIBLE_DEVICES, which this runtime reads itself",
                ));
            }
        }
    }
    match asked.is_empty() {
        true => absent("no engine to ask for its version"),
        false => outcome(findings, format!("{} read the specs", asked.join(", "))),
    }
}

/// The first `A.B` in a text.
fn numbers(text: &str) -> Option<Version> {
    let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    words.filter(|word| word.contains('.')).find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let cases = [
            ("podman version 4.3.1\n", Some((4, 3))),
            ("crio version 1.30.2\nGitCommit: 3f\n", Some((1, 30))),
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 1.6",
                Some((1, 6)),
            ),
            (
                "Docker version 20.10.24+dfsg1, build 297e128",
                Some((20, 10)),
            ),
            ("0.7.0", Some((0, 7))),
            ("none", None),
        ];
        for (text, want) in cases {
            assert_eq!(numbers(text), want, "{text}");
        }
        assert_eq!(
            library_version("/usr/lib64/libcuda.so.580.65.06"),
            Some("580.65.06")
        );
        assert_eq!(library_version("/usr/lib64/libcuda.so.1"), None);
        assert_eq!(library_version("/usr/lib64/libdrm.so.2.1.0"), None);
    }
}
