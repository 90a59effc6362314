//! CRI-O, by `crictl`: a pod with the handler, and a container in it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Plan, Steps, unique};

const DOCTOR: &str = "fleet-nvidia-ctl doctor --only crio,cdi,device-nodes";

pub(super) fn run(steps: &mut Steps<'_>, plan: &Plan) {
    match steps.node.programs.ask(&["crictl", "version"], 20) {
        Ok(said) if said.ok => {}
        Ok(said) => return steps.skip(format!("no CRI runtime answers: {}", said.complaint())),
        Err(err) => return steps.skip(format!("crictl cannot be run: {err}")),
    }
    let Some(image) = plan.image.as_deref() else {
        return steps.skip("CRI-O runs images only; hint: --smoke-image".to_owned());
    };
    let name = unique();
    let dir = std::env::temp_dir().join(format!("{name}-crio"));
    if let Err(err) = fs::DirBuilder::new().create(&dir) {
        return steps.fault(
            "files",
            format!("{}: {err}", dir.display()),
            "remove that directory",
        );
    }
    let mut pod = None;
    attempt(steps, plan, image, &name, &dir, &mut pod);
    if let Some(pod) = pod {
        steps.may(&["crictl", "stopp", &pod]);
        steps.may(&["crictl", "rmp", "--force", &pod]);
    }
    let _ = fs::remove_dir_all(&dir);
}

fn attempt(
    steps: &mut Steps<'_>,
    plan: &Plan,
    image: &str,
    name: &str,
    dir: &Path,
    pod: &mut Option<String>,
) -> Option<()> {
    let handler = plan.name.as_deref().unwrap_or("nvidia");
    steps.must(
        "image",
        &[
            "crictl",
            "inspecti",
            "--output",
            "go-template",
            "--template",
            "{{.status.id}}",
            image,
        ],
        "crictl pull the image first",
    )?;
    let (pod_file, container_file) = files(steps, plan, image, name, dir)?;
    let said = steps.must(
        "pod",
        &["crictl", "runp", "--runtime", handler, &pod_file],
        DOCTOR,
    )?;
    let id = pod.insert(said.stdout.trim().to_owned()).clone();
    let said = steps.must(
        "create",
        &["crictl", "create", &id, &container_file, &pod_file],
        DOCTOR,
    )?;
    let container = said.stdout.trim().to_owned();
    steps.must("start", &["crictl", "start", &container], DOCTOR)?;
    exit(steps, &container)
}

/// The pod's and the container's descriptions.
fn files(
    steps: &mut Steps<'_>,
    plan: &Plan,
    image: &str,
    name: &str,
    dir: &Path,
) -> Option<(String, String)> {
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "attempt": 0},
        "log_directory": dir, "linux": {},
    });
    let devices: Vec<_> = plan
        .device
        .iter()
        .map(|device| json!({"name": device}))
        .collect();
    let container = json!({
        "metadata": {"name": name, "attempt": 0}, "image": {"image": image},
        "command": ["nvidia-smi", "-L"], "log_path": "log", "CDI_devices": devices, "linux": {},
    });
    let write = |file: &str, value: &Value| {
        let path = dir.join(file);
        fs::write(&path, value.to_string()).map(|()| path.display().to_string())
    };
    match (write("pod.json", &pod), write("container.json", &container)) {
        (Ok(pod), Ok(container)) => Some((pod, container)),
        _ => {
            steps.fault(
                "files",
                format!("{} cannot be written", dir.display()),
                "free some space there",
            );
            None
        }
    }
}

/// Waits for the end of the container, half a minute at most.
fn exit(steps: &mut Steps<'_>, container: &str) -> Option<()> {
    for _ in 0..30 {
        let said = steps.may(&["crictl", "inspect", container])?;
        let inspected: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        let text = |at: &str| {
            inspected
                .pointer(at)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        if text("/status/state") == "CONTAINER_EXITED" {
            let code = inspected
                .pointer("/status/exitCode")
                .and_then(Value::as_i64)
                .unwrap_or(0);
            if code == 0 {
                steps.must("log", &["crictl", "logs", container], DOCTOR)?;
                return Some(());
            }
            let message = text("/status/message");
            steps.fault(
                "exit",
                format!("the container ended with {code} {message}"),
                "crictl logs",
            );
            return None;
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    steps.fault(
        "exit",
        "the container did not end within 30 s",
        "crictl inspect",
    );
    None
}
