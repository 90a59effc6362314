//! Podman: create, init (which calls the runtime's `create`), a look at the devices, start, remove.

use std::path::Path;

use super::root::{PROGRAM, Root};
use super::{Plan, Steps, unique};

const DOCTOR: &str = "fleet-nvidia-ctl doctor --only podman,cdi,device-nodes";

pub(super) fn run(steps: &mut Steps<'_>, plan: &Plan) {
    if steps.may(&["podman", "--version"]).is_none() {
        return steps.skip("Podman is not installed".to_owned());
    }
    let name = unique();
    attempt(steps, plan, &name);
    steps.may(&["podman", "rm", "--force", "--ignore", "--time", "0", &name]);
}

/// `None` after the step that failed.
fn attempt(steps: &mut Steps<'_>, plan: &Plan, name: &str) -> Option<()> {
    let runtime = plan.name.as_deref().unwrap_or("fleet-nvidia");
    let podman = ["podman", "--runtime", runtime];
    let info = [
        &podman[..],
        &["info", "--format", "{{.Host.OCIRuntime.Path}}"],
    ]
    .concat();
    steps.must("runtime", &info, "fleet-nvidia-ctl configure podman")?;
    let root = match &plan.image {
        Some(_) => None,
        None => Some(make_root(steps, plan)?),
    };
    let mut create = [
        &podman[..],
        &["create", "--name", name, "--network", "none"],
    ]
    .concat();
    if let Some(device) = &plan.device {
        create.extend(["--device", device]);
    }
    let path = root.as_ref().map(Root::path).unwrap_or_default();
    match &plan.image {
        Some(image) => create.extend(["--pull", "never", image, "nvidia-smi", "-L"]),
        None => create.extend(["--rootfs", &path, PROGRAM, "--version"]),
    }
    steps.must(
        "create",
        &create,
        "podman pull the image first; --pull is never done here",
    )?;
    steps.must("init", &["podman", "init", name], DOCTOR)?;
    devices(steps, plan, name)?;
    steps.must("run", &["podman", "start", "--attach", name], DOCTOR)?;
    steps.must("remove", &["podman", "rm", name], "podman rm --force")?;
    Some(())
}

pub(super) fn make_root(steps: &mut Steps<'_>, plan: &Plan) -> Option<Root> {
    match Root::new(Path::new(&plan.program)) {
        Ok(root) => {
            steps.fine(
                "root",
                format!("{} with the runtime's own binary", root.path()),
            );
            Some(root)
        }
        Err(err) => {
            let text = format!(
                "a root file system with {} cannot be made: {err}",
                plan.program
            );
            steps.fault("root", text, "give an image by --smoke-image");
            None
        }
    }
}

/// The device nodes in the container, which waits for its start.
fn devices(steps: &mut Steps<'_>, plan: &Plan, name: &str) -> Option<()> {
    let Some(device) = &plan.device else {
        steps.skip("no CDI device on this node: the container runs without one".to_owned());
        return Some(());
    };
    let pid = steps.may(&["podman", "inspect", "--format", "{{.State.Pid}}", name])?;
    let dev = format!("/proc/{}/root/dev", pid.stdout.trim());
    let nodes = match std::fs::read_dir(&dev) {
        Ok(entries) => entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned()),
        Err(err) => {
            // Another user namespace, seen from outside of it.
            steps.fine("devices", format!("cannot be looked at from here: {err}"));
            return Some(());
        }
    };
    let mut nodes: Vec<String> = nodes
        .filter(|name| name.starts_with("nvidia") || name == "dxg")
        .collect();
    nodes.sort();
    if nodes.is_empty() && device.starts_with("nvidia.com/") {
        steps.fault(
            "devices",
            format!("{device} was asked for, and the container has no /dev/nvidia*"),
            DOCTOR,
        );
        return None;
    }
    steps.fine("devices", format!("{device}: {}", nodes.join(" ")));
    Some(())
}
