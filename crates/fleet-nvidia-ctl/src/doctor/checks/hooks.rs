//! What NVIDIA's own toolkit does on the same node: hooks that inject a second time, units that write the same specs.

use std::path::Path;

use crate::configure::toolkit;
use crate::doctor::check::{Check, Finding, Node, Outcome, absent, outcome};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "hooks",
        run: hooks,
    },
    Check {
        name: "cdi-refresh",
        run: refresh,
    },
    Check {
        name: "toolkit",
        run: installed,
    },
];

/// `man 5 oci-hooks`: Podman and CRI-O read them.
const DIRS: [&str; 3] = [
    "/usr/share/containers/oci/hooks.d",
    "/etc/containers/oci/hooks.d",
    "/run/containers/oci/hooks.d",
];
const OLD: [&str; 2] = ["nvidia-container-runtime-hook", "nvidia-container-toolkit"];

fn hooks(node: &Node<'_>) -> Outcome {
    let mut findings = Vec::new();
    for dir in DIRS {
        for path in node.files.list(Path::new(dir))? {
            let text = node.files.read(&path)?.unwrap_or_default();
            if text.contains("\"precreate\"") && node.has_program("crio") {
                let shown = path.display();
                findings.push(Finding::error(
                    format!("{shown} names the stage precreate, which CRI-O does not know: it does not start if {dir} is among its hooks_dir"),
                    format!("mv {shown} /usr/share/fleet-nvidia/hooks.d/, and name that directory in Podman's hooks_dir"),
                ));
            }
            if OLD.iter().any(|program| text.contains(program)) {
                let shown = path.display();
                findings.push(Finding::warning(
                    format!("{shown} makes Podman and CRI-O inject GPUs by NVIDIA's old hook as well; this runtime takes the hook out, others run it"),
                    format!("rm {shown}"),
                ));
            }
        }
    }
    outcome(findings, "no old hook")
}

/// The same device in two files of one directory is usable from neither.
fn refresh(node: &Node<'_>) -> Outcome {
    let wanted = |unit: &str| {
        let dirs = [
            "/etc/systemd/system",
            "/usr/lib/systemd/system",
            "/lib/systemd/system",
        ];
        let by = ["multi-user.target.wants", "paths.target.wants"];
        dirs.iter()
            .any(|dir| by.iter().any(|by| node.is(&format!("{dir}/{by}/{unit}"))))
    };
    let theirs = ["nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service"];
    let ours = [
        "fleet-nvidia-cdi-refresh.path",
        "fleet-nvidia-cdi-refresh.service",
    ];
    let enabled = |units: &[&'static str]| units.iter().copied().find(|unit| wanted(unit));
    match (enabled(&theirs), enabled(&ours)) {
        (Some(theirs), Some(ours)) => outcome(
            vec![Finding::error(
                format!(
                    "{theirs} and {ours} are both enabled: each writes the same devices, which are then usable from neither file"
                ),
                format!("systemctl disable --now {theirs}, or the other one"),
            )],
            "",
        ),
        (None, None) => absent("no unit writes CDI specs anew"),
        (theirs, ours) => outcome(Vec::new(), theirs.or(ours).unwrap_or_default()),
    }
}

fn installed(node: &Node<'_>) -> Outcome {
    match toolkit::installed(node.files) {
        None => outcome(Vec::new(), "NVIDIA's toolkit is not installed"),
        Some(path) => outcome(
            vec![Finding::note(
                format!(
                    "NVIDIA's toolkit is installed beside fleet-nvidia: {}",
                    path.display()
                ),
                "a container is served by the one that its runtime name belongs to; remove the package once nothing names it",
            )],
            "",
        ),
    }
}
