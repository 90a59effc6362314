//! A plan that is true although the CDI spec is not: a spec of another driver, or one whose files and nodes have gone,
//! gives way to one that is made in memory from what the host has now.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fleet_cdi::{LoadedSpec, Registry, SourcedEdits, Spec};
use fleet_inject::{GPU_ARCH, Plan, PlanError, Properties, REBUILT, Request, Requirements};
use serde_json::Value;

use crate::driver::{library_version, mounted_version};
use crate::inject::{Host, InjectError};
use crate::partition;
use crate::resolve::resolve;
use crate::supply::Supplied;

/// The kind whose devices can be made from the host.
const KIND: &str = "nvidia.com/gpu";

/// The device that is all of its file.
const ALL: &str = "all";
/// What the paths of the driver's nodes begin with.
const OURS: &str = "/dev/nvidia";

/// What a plan is made for.
pub(crate) struct Job<'a> {
    pub(crate) spec: &'a Value,
    pub(crate) request: &'a Request,
    pub(crate) requirements: Requirements,
    /// Whether a spec may give way at all.
    pub(crate) heal: bool,
    /// Whether nodes that are missing may be made.
    pub(crate) supply: bool,
    pub(crate) host: &'a dyn Host,
}

impl Job<'_> {
    /// The plan, from the CDI specs if they are true.
    pub(crate) fn plan(
        &self,
        registry: &Registry,
        warnings: &mut Vec<String>,
        supplied: &mut Vec<Supplied>,
    ) -> Result<Plan, InjectError> {
        let mut notes = Vec::new();
        let first = self.attempt(registry, &mut notes, supplied);
        let plan = match first {
            Err(err) if self.may_heal(&err) => self.healed(registry, err, &mut notes, supplied),
            other => other,
        }?;
        warnings.append(&mut notes);
        warnings.extend(supplied.iter().map(ToString::to_string));
        warnings.extend(self.requirements.warnings.iter().cloned());
        Ok(plan)
    }

    fn attempt(
        &self,
        registry: &Registry,
        notes: &mut Vec<String>,
        supplied: &mut Vec<Supplied>,
    ) -> Result<Plan, InjectError> {
        let request = &*partition::named(self.request, registry, self.host)?;
        let resolved = resolve(request, registry, self.host, notes)?;
        let mut missing = Vec::new();
        if self.request.is_for_nvidia() {
            self.check_driver(request, registry, &resolved)?;
            partition::check(&resolved, self.host)?;
            missing = self.supplied(&resolved);
        }
        let plan = Plan::build(request, resolved, self.spec, self.host);
        let (there, missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(Supplied::is_there);
        supplied.extend(there);
        plan.map_err(|plan| with_node(plan, missing))
    }

    /// Nodes of the driver that these edits need and the host lacks.
    fn supplied(&self, resolved: &[SourcedEdits]) -> Vec<Supplied> {
        let nodes = resolved.iter().flat_map(|one| &one.edits.device_nodes);
        let paths = nodes.map(|node| node.host_path.as_ref().unwrap_or(&node.path).as_str());
        let paths: Vec<&str> = paths.filter(|path| path.starts_with(OURS)).collect();
        match self.supply && !paths.is_empty() {
            true => self.host.supply(&paths),
            false => Vec::new(),
        }
    }

    /// Libraries of one driver do not work with the module of another; then what the image demands.
    fn check_driver(
        &self,
        request: &Request,
        registry: &Registry,
        resolved: &[SourcedEdits],
    ) -> Result<(), InjectError> {
        let told = resolved.iter().find_map(|sourced| {
            let (_, version) = mounted_version(&sourced.edits)?;
            Some((&sourced.spec_path, version))
        });
        if told.is_none() && self.requirements.is_empty() {
            return Ok(());
        }
        let loaded = self.host.driver_version();
        if let (Some((file, version)), Some(loaded)) = (told, &loaded)
            && version != *loaded
        {
            return Err(InjectError::Stale {
                file: file.clone(),
                version,
                loaded: loaded.clone(),
            });
        }
        let version = loaded.or_else(|| library_version(resolved));
        let host = Properties::of_driver(version.as_deref());
        let gpus = annotations(request, registry);
        if gpus.is_empty() {
            return Ok(self.requirements.check(&host)?);
        }
        // Each GPU must do.
        gpus.into_iter().try_for_each(|annotations| {
            let host = host.clone().with_annotations(annotations);
            Ok(self.requirements.check(&host)?)
        })
    }

    fn may_heal(&self, err: &InjectError) -> bool {
        let is_stale = matches!(
            err,
            InjectError::Stale { .. }
                | InjectError::Gone { .. }
                | InjectError::Unresolvable(_)
                | InjectError::Plan(_)
                | InjectError::Node { .. }
        );
        let none = self.request.none_kind.iter().map(|none| none.kind.as_str());
        let devices = self.request.devices.iter().map(|asked| asked.name.kind());
        self.heal && is_stale && devices.chain(none).any(|kind| kind == KIND)
    }

    /// Made from the host; where that does not help either, the first error says more.
    fn healed(
        &self,
        registry: &Registry,
        first: InjectError,
        notes: &mut Vec<String>,
        supplied: &mut Vec<Supplied>,
    ) -> Result<Plan, InjectError> {
        let made = match self.host.rebuild(KIND, self.supply) {
            Ok(Some(made)) => made,
            Ok(None) => return Err(first),
            Err(why) => {
                let first = Box::new(first);
                return Err(InjectError::Unhealed { first, why });
            }
        };
        let registry = registry.whole();
        let had_spec = registry.devices().iter().any(|name| name.kind() == KIND);
        let (mut again, mut new) = (made.warnings, made.supplied);
        new.retain(Supplied::is_there);
        match self.attempt(&rebuilt(registry, made.spec), &mut again, &mut new) {
            Ok(plan) => {
                *notes = again;
                supplied.append(&mut new);
                // A node without a spec is as its operator wants it.
                if had_spec {
                    notes.push(format!(
                        "devices of {KIND} are made from what the host has, since {first}"
                    ));
                }
                Ok(plan)
            }
            Err(second) if !had_spec && made.left_out.is_empty() => Err(second),
            Err(second) if !had_spec => Err(InjectError::LeftOut {
                first: Box::new(second),
                why: made.left_out,
            }),
            Err(_) => Err(first),
        }
    }
}

/// What specs say of the GPUs that are asked for. A device that is several of its file says nothing of its own.
fn annotations<'r>(request: &Request, registry: &'r Registry) -> Vec<&'r BTreeMap<String, String>> {
    let mut found: Vec<&BTreeMap<String, String>> = Vec::new();
    for asked in &request.devices {
        let Some(loaded) = registry.spec_of(&asked.name) else {
            continue;
        };
        let devices = &loaded.spec.devices;
        let own = devices
            .iter()
            .find(|device| device.name == asked.name.name());
        let own = own.filter(|device| device.annotations.contains_key(GPU_ARCH));
        let told: Vec<_> = match own {
            Some(own) => vec![own],
            None if asked.name.name() == ALL => devices.iter().collect(),
            None => Vec::new(),
        };
        for device in told {
            let says = device.annotations.contains_key(GPU_ARCH);
            if says && !found.contains(&&device.annotations) {
                found.push(&device.annotations);
            }
        }
    }
    found
}

/// What a plan lacks, and why it was not supplied.
fn with_node(plan: PlanError, mut missing: Vec<Supplied>) -> InjectError {
    match plan {
        PlanError::Device { path, of, .. } if missing.iter().any(|one| one.node.path == path) => {
            missing.retain(|one| one.node.path == path);
            let supplied = Box::new(missing.swap_remove(0));
            InjectError::Node { of, supplied }
        }
        plan => plan.into(),
    }
}

fn rebuilt(registry: &Registry, spec: Spec) -> Registry {
    registry.replacing(LoadedSpec {
        path: PathBuf::from(REBUILT),
        priority: 0,
        spec,
    })
}
