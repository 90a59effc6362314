//! containerd, by its own tool `ctr`: its shim with our binary.

use super::podman::make_root;
use super::root::PROGRAM;
use super::{Plan, Steps, unique};

pub(super) fn run(steps: &mut Steps<'_>, plan: &Plan) {
    if let Some(why) = unreachable(steps) {
        return steps.skip(why);
    }
    let name = unique();
    attempt(steps, plan, &name);
    steps.may(&["ctr", "task", "delete", "--force", &name]);
    steps.may(&["ctr", "container", "delete", &name]);
}

fn unreachable(steps: &Steps<'_>) -> Option<String> {
    match steps.node.programs.ask(&["ctr", "version"], 20) {
        Ok(said) if said.ok => None,
        Ok(said) => Some(format!("containerd does not answer: {}", said.complaint())),
        Err(err) => Some(format!("ctr cannot be run: {err}")),
    }
}

fn attempt(steps: &mut Steps<'_>, plan: &Plan, name: &str) -> Option<()> {
    let root = match &plan.image {
        Some(_) => None,
        None => Some(make_root(steps, plan)?),
    };
    let path = root
        .as_ref()
        .map(super::root::Root::path)
        .unwrap_or_default();
    let mut argv = vec![
        "ctr",
        "run",
        "--rm",
        "--runtime",
        "io.containerd.runc.v2",
        "--runc-binary",
        &plan.program,
    ];
    let request = plan.device.as_ref().map(|_| "NVIDIA_VISIBLE_DEVICES=all");
    argv.extend(request.into_iter().flat_map(|request| ["--env", request]));
    match &plan.image {
        Some(image) => argv.extend([image.as_str(), name, "nvidia-smi", "-L"]),
        None => argv.extend(["--rootfs", &path, name, PROGRAM, "--version"]),
    }
    steps.must(
        "run",
        &argv,
        "fleet-nvidia-ctl doctor --only containerd,cdi,device-nodes",
    )?;
    Some(())
}
