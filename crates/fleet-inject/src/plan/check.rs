//! What of a CDI spec's edits the host does not have as stated: everything, where a plan stops at the first.

use fleet_cdi::{ContainerEdits, Hook};
use fleet_rootfs::{HookProgram, recognise};

use super::{Stage, device, mount};
use crate::host::HostProbe;
use crate::policy::HookPolicy;

/// Something that would stop a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `device`, `mount` or `hook`.
    pub what: &'static str,
    /// Path on the host.
    pub path: String,
    /// What is wrong with it, such as `is missing`.
    pub problem: String,
}

/// Compares edits with the host.
#[must_use]
pub fn faults(edits: &ContainerEdits, probe: &dyn HostProbe, hooks: &HookPolicy) -> Vec<Fault> {
    let fault = |what, path: &str, problem: String| Fault {
        what,
        path: path.to_owned(),
        problem,
    };
    let nodes = edits.device_nodes.iter().filter_map(|node| {
        let (path, problem) = device::verify(node, probe).err()?;
        Some(fault("device", &path, problem))
    });
    let mounts = edits
        .mounts
        .iter()
        .filter(|mount| mount::is_missing(mount, probe));
    let mounts = mounts.map(|mount| fault("mount", &mount.host_path, "is missing".to_owned()));
    let hooks = edits.hooks.iter().filter_map(|hook| {
        let problem = verify_hook(hook, probe, hooks)?;
        Some(fault("hook", &hook.path, problem))
    });
    nodes.chain(mounts).chain(hooks).collect()
}

fn verify_hook(hook: &Hook, probe: &dyn HostProbe, policy: &HookPolicy) -> Option<String> {
    let stage: Stage = hook.hook_name.parse().ok()?;
    let is_ours = stage == Stage::CreateContainer && policy.native;
    match recognise(&hook.path, &hook.args) {
        Ok(HookProgram::Foreign) if !policy.foreign => {
            Some("is refused by `hooks.foreign`".to_owned())
        }
        Ok(HookProgram::Native(_) | HookProgram::UnknownNvidiaHook { .. }) if is_ours => None,
        Err(err) if is_ours => Some(err.to_string()),
        _ if stage.must_be_on_host() && !probe.exists(&hook.path) => Some("is missing".to_owned()),
        _ => None,
    }
}
