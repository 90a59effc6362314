//! From a container's spec to the spec with its devices: one function per step.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fleet_cdi::{QualifiedName, Registry, Spec, Unresolvable, Wanted};
use fleet_inject::{
    Applied, ApplyError, AuditPolicy, Change, Explanation, HookPolicy, HostProbe, OldMig, Plan,
    PlanError, Refusal, Request, RequestError, RequirementError, Requirements, Source, concerns,
};
use serde_json::Value;

use crate::audit::{Granted, granted};
use crate::config::{ConfigError, load_policy, spec_dirs};
use crate::env::Env;
use crate::heal::Job;
use crate::partition::Partition;
use crate::root::HostRoot;
use crate::supply::Supplied;

/// The host's files, and nothing else of it.
pub trait Host: HostProbe {
    /// The text of a file.
    ///
    /// # Errors
    /// It is missing or cannot be read.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The CDI specs in these directories, ascending priority.
    fn registry(&self, dirs: &[PathBuf]) -> Registry;

    /// The same for one request, which may leave out what the request does not need.
    fn registry_for(&self, dirs: &[PathBuf], wanted: &Wanted) -> Registry {
        let _ = wanted;
        self.registry(dirs)
    }

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// It is missing or cannot be read.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// A CDI spec of this kind, made from what the host has now; `None` where this cannot be done. Nodes that are missing
    /// are supplied first, if `supply` says so.
    ///
    /// # Errors
    /// It can be done, but the host lacks something.
    fn rebuild(&self, kind: &str, supply: bool) -> Result<Option<Rebuilt>, String> {
        let _ = (kind, supply);
        Ok(None)
    }

    /// The partition of a GPU that has this name of old.
    ///
    /// # Errors
    /// What the host lacks.
    fn partition(&self, old: &OldMig<'_>) -> Result<Partition, String> {
        let _ = old;
        Err("the host's partitions are not known".to_owned())
    }

    /// Those of these nodes of a loaded driver that are missing, and what became of them.
    fn supply(&self, paths: &[&str]) -> Vec<Supplied> {
        let _ = paths;
        Vec::new()
    }
}

/// A CDI spec that was made in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rebuilt {
    /// The spec.
    pub spec: Spec,
    /// What a user should know although the container starts, one sentence each.
    pub warnings: Vec<String>,
    /// Why devices are not in it, one sentence each.
    pub left_out: Vec<String>,
    /// Nodes that were missing.
    pub supplied: Vec<Supplied>,
}

/// Why a container does not get its devices. Each message is one line and holds its cause.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The request cannot be understood.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The image demands another driver.
    #[error(transparent)]
    Requirement(#[from] RequirementError),
    /// A device is in no CDI spec, or in several.
    #[error(transparent)]
    Unresolvable(#[from] Unresolvable),
    /// A device that is in no CDI spec, and that the host does not have.
    #[error("{name}, asked for by {origin}: {why}")]
    Absent {
        /// The device.
        name: String,
        /// Who asked.
        origin: Source,
        /// What the host lacks.
        why: String,
    },
    /// A CDI spec of another driver.
    #[error(
        "CDI spec {} is of driver {version}, but {loaded} is loaded; hint: make it anew: fleet-nvidia-ctl cdi generate --output={}",
        .file.display(), .file.display()
    )]
    Stale {
        /// The spec.
        file: PathBuf,
        /// Driver of its libraries.
        version: String,
        /// Driver of the running kernel.
        loaded: String,
    },
    /// A CDI spec from before MIG was configured anew.
    #[error(
        "CDI spec {} gives {node}, whose partition the GPU has no more; hint: make it anew: fleet-nvidia-ctl cdi generate --output={}",
        .file.display(), .file.display()
    )]
    Gone {
        /// The spec.
        file: PathBuf,
        /// The node.
        node: String,
    },
    /// A node that the driver has and the host does not.
    #[error("failed to inject devices: {of}: {supplied}")]
    Node {
        /// Device and CDI spec.
        of: String,
        /// What became of the node.
        supplied: Box<Supplied>,
    },
    /// A device that would be there if the host had what it needs.
    #[error("{first}; {}", .why.join("; "))]
    LeftOut {
        /// What is missing.
        first: Box<InjectError>,
        /// Why.
        why: Vec<String>,
    },
    /// A spec that is not true, and the host does not help either.
    #[error("devices cannot be made from the host ({why}), and {first}")]
    Unhealed {
        /// What is wrong with the spec.
        first: Box<InjectError>,
        /// What the host lacks.
        why: String,
    },
    /// The host is not as the CDI spec says.
    #[error("failed to inject devices: {0}")]
    Plan(#[from] PlanError),
    /// The OCI spec cannot be edited.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// What [`inject`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What the spec cannot hold.
    pub applied: Applied,
    /// One line for the log, empty if nothing was injected.
    pub plan_summary: String,
    /// What a user should know although the container starts, one sentence each.
    pub warnings: Vec<String>,
    /// What the policy refused.
    pub refused: Vec<Refusal>,
    /// The plan in the form of `explain --json`, to be kept with the container; `None` where there is nothing to tell.
    pub record: Option<Vec<u8>>,
    /// The devices of the edited spec; empty where the policy wants no audit trail.
    pub granted: Vec<Granted>,
    /// What the policy wants to be written down.
    pub audit: AuditPolicy,
}

/// A plan, checked and not yet applied.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// The edits.
    pub plan: Plan,
    /// What the policy refuses.
    pub refused: Vec<Refusal>,
    /// Unknown settings and requests without effect, one sentence each.
    pub warnings: Vec<String>,
    /// What the policy wants to be written down.
    pub audit: AuditPolicy,
    /// Nodes that were missing on the host.
    pub supplied: Vec<Supplied>,
}

impl Prepared {
    fn has_something_to_tell(&self) -> bool {
        !(self.plan.edits.is_empty() && self.refused.is_empty() && self.warnings.is_empty())
    }

    /// For people and for programs.
    #[must_use]
    pub fn explanation(&self) -> Explanation<'_> {
        Explanation {
            plan: &self.plan,
            refused: &self.refused,
            warnings: &self.warnings,
        }
    }
}

/// Gives a container its devices by editing `spec`. A spec that asks for none, and that no engine has put NVIDIA's
/// hooks into, costs no access to a file.
///
/// # Errors
/// See [`InjectError`]; the spec must then be discarded.
pub fn inject(spec: &mut Value, env: &Env) -> Result<Outcome, InjectError> {
    inject_with(spec, env, &HostRoot::default())
}

/// The same on any host.
///
/// # Errors
/// See [`InjectError`]; the spec must then be discarded.
pub fn inject_with(spec: &mut Value, env: &Env, host: &dyn Host) -> Result<Outcome, InjectError> {
    let prepared = prepare(spec, env, host)?;
    let applied = prepared.plan.apply(spec)?;
    let record = prepared.has_something_to_tell();
    let record = record.then(|| prepared.explanation().bytes());
    let Prepared {
        plan,
        refused,
        mut warnings,
        audit,
        supplied,
    } = prepared;
    warnings.extend(refused.iter().map(ToString::to_string));
    let granted = match audit.is_on() {
        true => granted(&plan, spec, &supplied),
        false => Vec::new(),
    };
    Ok(Outcome {
        plan_summary: summary(&plan),
        applied,
        warnings,
        refused,
        record,
        granted,
        audit,
    })
}

/// Plans without applying, for `explain` as for [`inject`].
///
/// # Errors
/// See [`InjectError`].
pub fn prepare(spec: &Value, env: &Env, host: &dyn Host) -> Result<Prepared, InjectError> {
    if !concerns(spec) {
        return Ok(Prepared::default());
    }
    let (file, _) = load_policy(env, host)?;
    let mut outcome = Request::from_spec(spec, &file.policy)?;
    let job = Job {
        spec,
        request: &outcome.request,
        requirements: match outcome.request.is_for_nvidia() {
            true => Requirements::of_spec(spec, &file.policy),
            false => Requirements::default(),
        },
        heal: file.policy.heal,
        supply: file.policy.create_nodes,
        host,
    };
    let registry = match outcome.request.is_empty() {
        true => Registry::default(),
        false => host.registry_for(&spec_dirs(&file.policy, env), &wanted(&outcome.request)),
    };
    let mut supplied = Vec::new();
    let plan = job.plan(&registry, &mut outcome.warnings, &mut supplied)?;
    let warnings = [file.warnings, outcome.warnings, plan.warnings.clone()].concat();
    Ok(Prepared {
        plan,
        refused: outcome.refused,
        warnings,
        audit: file.policy.audit,
        supplied,
    })
}

fn wanted(request: &Request) -> Wanted {
    let devices = request.devices.iter().chain(&request.extras);
    let wanted = Wanted::of(devices.clone().map(|asked| &asked.name));
    // The device has another name there.
    let old = devices.filter(|asked| OldMig::of(&asked.name).is_some());
    let wanted = old.fold(wanted, |wanted, asked| wanted.and_kind(asked.name.kind()));
    match &request.none_kind {
        Some(none) => wanted.and_kind(&none.kind),
        None => wanted,
    }
}

/// Plans for devices that an operator names, under no policy but that for hooks. What an engine has put into `spec` is
/// taken over as ever.
///
/// # Errors
/// See [`InjectError`].
pub fn prepare_devices(
    spec: &Value,
    names: &[QualifiedName],
    hooks: HookPolicy,
    registry: &Registry,
    host: &dyn Host,
) -> Result<Prepared, InjectError> {
    let request = Request::for_devices(names, hooks);
    let mut warnings = Vec::new();
    let job = Job {
        spec,
        request: &request,
        requirements: Requirements::default(),
        heal: true,
        supply: true,
        host,
    };
    let mut supplied = Vec::new();
    let plan = job.plan(registry, &mut warnings, &mut supplied)?;
    warnings.extend(plan.warnings.iter().cloned());
    Ok(Prepared {
        plan,
        refused: Vec::new(),
        warnings,
        audit: AuditPolicy::default(),
        supplied,
    })
}

fn summary(plan: &Plan) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut devices: Vec<&str> = Vec::new();
    for edit in &plan.edits {
        *counts.entry(noun(&edit.change)).or_default() += 1;
        if let Some(device) = edit
            .origin
            .device
            .as_deref()
            .filter(|device| !devices.contains(device))
        {
            devices.push(device);
        }
    }
    let counts: Vec<_> = counts
        .iter()
        .map(|(noun, count)| format!("{count} {noun}"))
        .collect();
    match (counts.is_empty(), devices.is_empty()) {
        (true, _) => String::new(),
        (_, true) => counts.join(", "),
        _ => format!("{}: {}", devices.join(", "), counts.join(", ")),
    }
}

fn noun(change: &Change) -> &'static str {
    match change {
        Change::Env { .. } => "env",
        Change::Device(_) => "device",
        Change::Mount(_) => "mount",
        Change::Hook { .. } => "hook",
        Change::Rootfs(_) => "rootfs edit",
        Change::RemoveHook { .. } => "hook taken over",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use fleet_inject::DeviceStat;
    use serde_json::json;

    use super::*;

    /// Counts every look at the host.
    struct Watched(HostRoot, Cell<usize>);

    impl Watched {
        fn look(&self) -> &HostRoot {
            self.1.set(self.1.get() + 1);
            &self.0
        }
    }

    impl HostProbe for Watched {
        fn lstat_device(&self, path: &str) -> io::Result<DeviceStat> {
            self.look().lstat_device(path)
        }

        fn exists(&self, path: &str) -> bool {
            self.look().exists(path)
        }

        fn driver_version(&self) -> Option<String> {
            self.look().driver_version()
        }
    }

    impl Host for Watched {
        fn read(&self, path: &Path) -> io::Result<String> {
            self.look().read(path)
        }

        fn registry(&self, dirs: &[PathBuf]) -> Registry {
            self.look().registry(dirs)
        }

        fn registry_for(&self, dirs: &[PathBuf], wanted: &Wanted) -> Registry {
            self.look().registry_for(dirs, wanted)
        }

        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            self.look().list(dir)
        }
    }

    #[test]
    fn a_container_that_asks_for_nothing_costs_no_file_access() {
        let empty = tempfile::tempdir().unwrap();
        let env = |entries: &[&str]| json!({"process": {"env": entries}});
        let cases = [
            (json!({}), 0),
            (env(&["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=void"]), 0),
            (env(&["NVIDIA_DRIVER_CAPABILITIES=all"]), 0),
            (
                json!({"hooks": {"createContainer": [{"path": "/opt/hook", "args": ["hook"]}]}}),
                0,
            ),
            // The engine's hooks: the configuration, ours or NVIDIA's, and nothing more.
            (
                json!({"hooks": {"createContainer": [{"path": "/usr/bin/nvidia-cdi-hook", "args": ["x", "chmod", "--mode", "755", "--path", "/dev/dri"]}]}}),
                2,
            ),
            (env(&["NVIDIA_VISIBLE_DEVICES=all"]), 3),
        ];
        for (mut spec, want) in cases {
            let before = spec.clone();
            let host = Watched(HostRoot::new(empty.path()), Cell::new(0));
            let result = inject_with(&mut spec, &Env::default(), &host);
            assert_eq!(host.1.get(), want, "{before}");
            if want == 0 {
                assert_eq!(result.unwrap(), Outcome::default());
                assert_eq!(spec, before);
            }
        }
    }

    #[test]
    fn an_unresolvable_device_is_one_plain_line() {
        let empty = tempfile::tempdir().unwrap();
        let mut spec = json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=7"]}});
        let err = inject_with(&mut spec, &Env::default(), &HostRoot::new(empty.path()))
            .unwrap_err()
            .to_string();
        assert!(
            err.contains("unresolvable CDI devices") && err.contains("nvidia.com/gpu=7"),
            "{err}"
        );
        for word in ["not found", "no such file", "permission denied", "\n"] {
            assert!(!err.to_lowercase().contains(word), "{err}");
        }
    }
}
