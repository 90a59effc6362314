//! The edits that give a container what it asked for, each with its origin, checked against the host.

mod check;
mod context;
mod device;
mod hook;
mod mount;

use std::path::PathBuf;

use fleet_cdi::SourcedEdits;
use fleet_rootfs::RootfsEdit;
use serde::Serialize;
use serde_json::Value;

use crate::capabilities::filter::{self, Omitted};
use crate::capabilities::{Capabilities, Limit};
use crate::host::HostProbe;
use crate::policy::HookPolicy;
use crate::request::{Request, Source};

pub use check::{Fault, faults};
use context::{Context, kind_of};
pub use device::DeviceEdit;
pub(crate) use hook::has_nvidia_hook;
pub use hook::{HookEdit, Stage};
pub use mount::MountEdit;

/// Stands for the file of a CDI spec that was made in memory, from what the driver states there and what lies around it.
pub const REBUILT: &str = "/proc/driver/nvidia";

/// An ordered list of edits. It holds everything: `explain` prints it and [`Plan::apply`] carries it out.
#[must_use = "a plan does nothing until it is applied"]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The edits, in order.
    pub edits: Vec<Edit>,
    /// What the CDI specs hold and no driver capability asked for needs.
    pub left_out: Vec<LeftOut>,
    /// What a user should know although the container starts, one sentence each.
    pub warnings: Vec<String>,
}

/// Part of a CDI spec that a container does not get, since it names the driver capabilities it wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// `device`, `mount`, `link` or `hook`.
    pub what: &'static str,
    /// Path in the container, or the hook's name.
    pub which: String,
    /// Capabilities any of which would bring it.
    pub needs: Capabilities,
    /// The variable or setting that leaves it out.
    pub because: String,
    /// Who would have brought it.
    pub origin: Origin,
}

/// One change and who wants it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Edit {
    /// What is changed.
    #[serde(flatten)]
    pub change: Change,
    /// Who wants it.
    pub origin: Origin,
}

/// Who wants an edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// Who asked for the device that brings it.
    pub source: Source,
    /// The CDI spec file that states it; absent for what the engine had put into the spec, and for devices that follow
    /// from what the host has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec_file: Option<PathBuf>,
    /// The device that states it; absent for the edits that all devices of a file share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// One change of the OCI spec or of the container's root file system.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Change {
    /// `process.env`.
    Env {
        /// Name, without `=`.
        name: String,
        /// Value.
        value: String,
    },
    /// `linux.devices` and `linux.resources.devices`.
    Device(DeviceEdit),
    /// `mounts`.
    Mount(MountEdit),
    /// A program in `hooks`.
    Hook {
        /// When it runs.
        stage: Stage,
        /// The program.
        hook: HookEdit,
    },
    /// Done by our own code when the root file system is mounted.
    Rootfs(RootfsEdit),
    /// `linux.netDevices`.
    NetDevice {
        /// Name on the host.
        host_interface_name: String,
        /// Name in the container.
        name: String,
    },
    /// `linux.intelRdt`, as a whole.
    IntelRdt {
        /// The new value.
        rdt: Value,
    },
    /// `process.user.additionalGids`.
    AdditionalGid {
        /// The group.
        gid: u32,
    },
    /// A hook of the incoming spec that our own code, or the CDI edits, take the place of.
    RemoveHook {
        /// When it would run.
        stage: Stage,
        /// The entry, as the spec has it.
        hook: Value,
    },
}

/// A plan that cannot work on this host. Each message names the CDI spec and the device.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A device node that the host does not have as stated.
    #[error("host device {path} of {of} {cause}{hint}")]
    Device {
        /// Path on the host.
        path: String,
        /// Device and CDI spec.
        of: String,
        /// What is wrong.
        cause: String,
        /// What to do.
        hint: String,
    },
    /// The source of a mount is gone.
    #[error("mount source {path} of {of} is missing{hint}")]
    Mount {
        /// Path on the host.
        path: String,
        /// Device and CDI spec.
        of: String,
        /// What to do.
        hint: String,
    },
    /// A hook that cannot be run.
    #[error("hook {path} of {of}: {cause}")]
    Hook {
        /// Path of the program.
        path: String,
        /// Device and CDI spec, or the engine.
        of: String,
        /// What is wrong.
        cause: String,
    },
}

impl Plan {
    /// Turns resolved CDI edits (those with an empty path are in no file) into a plan, device nodes filled in from the host as CDI SPEC 1.1.0 and its Go library
    /// do. Hooks of NVIDIA's that the engine has put into the spec already are taken over too, and NVIDIA's old
    /// prestart hook is removed.
    ///
    /// # Errors
    /// A device node, mount source or hook program is missing or is not what the CDI spec says.
    pub fn build(
        request: &Request,
        mut resolved: Vec<SourcedEdits>,
        spec: &Value,
        probe: &dyn HostProbe,
    ) -> Result<Self, PlanError> {
        let mut plan = Self::adopt_spec_hooks(spec, &request.hooks, probe)?;
        let owner = device::Owner::of_process(spec);
        let mut omitted = match &request.capabilities {
            Some(limit) => leave_out(request, &mut resolved, limit),
            None => Vec::new(),
        };
        let limits_memory = hook::limits_memory(spec);
        for (index, sourced) in resolved.iter().enumerate() {
            let context = Context {
                limits_memory,
                ..Context::new(request, &resolved, index, sourced, probe)
            };
            plan.add(&context, sourced, &owner)?;
            let omitted = omitted.get_mut(index).map(std::mem::take);
            plan.leave_out(&context, omitted.unwrap_or_default(), request);
        }
        plan.drop_repeated_rootfs_edits();
        Ok(plan)
    }

    /// Takes over the hooks that an engine injected: those of NVIDIA's program become edits of our own, so that the
    /// program need not be on the machine, and NVIDIA's prestart hook goes.
    ///
    /// # Errors
    /// A hook of NVIDIA's with arguments that make no sense.
    pub fn adopt_spec_hooks(
        spec: &Value,
        hooks: &HookPolicy,
        probe: &dyn HostProbe,
    ) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        hook::remove_legacy(spec, &mut plan);
        if hooks.native {
            hook::adopt(spec, probe, &mut plan)?;
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        context: &Context<'_>,
        sourced: &SourcedEdits,
        owner: &device::Owner,
    ) -> Result<(), PlanError> {
        let edits = &sourced.edits;
        edits
            .env
            .iter()
            .for_each(|entry| self.push(context, env(entry)));
        for node in &edits.device_nodes {
            self.push(context, Change::Device(device::fill(node, owner, context)?));
        }
        edits
            .net_devices
            .iter()
            .for_each(|device| self.push(context, net(device)));
        for mount in &edits.mounts {
            self.push(context, Change::Mount(mount::check(mount, context)?));
        }
        for entry in &edits.hooks {
            hook::add(entry, context, self)?;
        }
        if let Some(rdt) = &edits.intel_rdt {
            self.push(context, Change::IntelRdt { rdt: rdt_json(rdt) });
        }
        for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
            self.push(context, Change::AdditionalGid { gid: *gid });
        }
        Ok(())
    }

    fn leave_out(&mut self, context: &Context<'_>, omitted: Vec<Omitted>, request: &Request) {
        let because = request.capabilities.as_ref().map(|limit| &limit.because);
        self.left_out
            .extend(omitted.into_iter().map(|omitted| LeftOut {
                what: omitted.what,
                which: omitted.which,
                needs: omitted.needs,
                because: because.cloned().unwrap_or_default(),
                origin: context.origin.clone(),
            }));
    }

    fn push(&mut self, context: &Context<'_>, change: Change) {
        self.edits.push(Edit {
            change,
            origin: context.origin.clone(),
        });
    }

    /// A device that has two names brings the same work twice. The last one stays: what must come before it does.
    fn drop_repeated_rootfs_edits(&mut self) {
        let repeated = |edit: &Edit, later: &[Edit]| {
            matches!(edit.change, Change::Rootfs(_))
                && later.iter().any(|other| other.change == edit.change)
        };
        let keep: Vec<bool> = (0..self.edits.len())
            .map(|at| !repeated(&self.edits[at], &self.edits[at + 1..]))
            .collect();
        let mut keep = keep.into_iter();
        self.edits.retain(|_| keep.next().unwrap_or(true));
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }
}

/// Takes out of NVIDIA's edits what the container does not want; one list for each of `resolved`.
fn leave_out(request: &Request, resolved: &mut [SourcedEdits], limit: &Limit) -> Vec<Vec<Omitted>> {
    if resolved
        .iter()
        .any(|sourced| filter::is_tegra(&sourced.edits))
    {
        return Vec::new();
    }
    (0..resolved.len())
        .map(
            |index| match filter::is_nvidia(&kind_of(request, resolved, index)) {
                true => filter::apply(&mut resolved[index].edits, limit.wanted),
                false => Vec::new(),
            },
        )
        .collect()
}

/// `NAME=VALUE`, as a spec that was read always has it.
fn env(entry: &str) -> Change {
    let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
    Change::Env {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn net(device: &fleet_cdi::NetDevice) -> Change {
    Change::NetDevice {
        host_interface_name: device.host_interface_name.clone(),
        name: device.name.clone(),
    }
}

fn rdt_json(rdt: &fleet_cdi::IntelRdt) -> Value {
    serde_json::to_value(rdt).unwrap_or(Value::Null)
}
