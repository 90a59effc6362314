//! CDI specs: readable, without conflicts, fresh, and not too new for the engines.

use std::os::unix::fs::MetadataExt;

use fleet_cdi::{LoadedSpec, Registry};
use fleet_host::Host;
use fleet_inject::{HookPolicy, Policy};

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

fn policy(node: &Node<'_>) -> Result<Policy, Broken> {
    let loaded = fleet_host::load_policy(node.env, node.files.host());
    loaded
        .map(|(file, _)| file.policy)
        .map_err(|err| Broken(format!("CDI directories are not known: {err}")))
}

fn registry(node: &Node<'_>) -> Result<Registry, Broken> {
    let dirs = fleet_host::spec_dirs(&policy(node)?, node.env);
    Ok(node.files.host().registry(&dirs))
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
        match registry.specs().len() {
            1 => format!("{devices} devices in 1 file"),
            files => format!("{devices} devices in {files} files"),
        },
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
    let hooks = policy(node)?.hooks;
    let specs = registry.specs().iter();
    let findings = specs.filter_map(|loaded| stale(node, loaded, &hooks));
    outcome(
        findings.collect(),
        "every file and device of the specs is on this node",
    )
}

/// What a spec names and the node does not have so: the first fault of each spec, since one cause makes many.
fn stale(node: &Node<'_>, loaded: &LoadedSpec, hooks: &HookPolicy) -> Option<Finding> {
    let faults = fleet_host::check_spec(&loaded.spec, node.devices, hooks);
    let fault = &faults.first()?.fault;
    let path = loaded.path.display();
    let more = match faults.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let text = format!(
        "{path}: {} {} {}{more}",
        fault.what, fault.path, fault.problem
    );
    let finding = Finding::error(
        text,
        format!("{GENERATE}; fleet-nvidia-ctl cdi validate lists the faults"),
    );
    let ours = loaded.path.file_name().is_some_and(|name| name == OURS);
    Some(if ours {
        finding.with(Repair::Spec)
    } else {
        finding
    })
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
    }
}
