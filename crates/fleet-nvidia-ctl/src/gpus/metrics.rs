//! Metrics in Prometheus' text form, for the textfile collector of its node exporter.

use std::fmt::Write;

use super::{Holder, Report};

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut family = |name: &str, help: &str, lines: Vec<String>| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for line in lines {
            let _ = writeln!(text, "{name}{line}");
        }
    };
    let gpus = || report.gpus.iter();
    let labels = |held: &super::Held| {
        let gpu = &held.gpu;
        format!(
            "device={},uuid={}",
            quoted(&gpu.path),
            quoted(gpu.uuid.as_deref().unwrap_or_default())
        )
    };
    family(
        "fleet_gpu_containers",
        "Containers that were given the GPU and are not stopped.",
        gpus()
            .map(|held| {
                let live = held.given().filter(|holder| holder.status != "stopped");
                format!("{{{}}} {}", labels(held), live.count())
            })
            .collect(),
    );
    family(
        "fleet_gpu_processes",
        "Processes that have the GPU open, by whether they belong to one of these containers.",
        gpus()
            .flat_map(|held| {
                let inside: usize = held.containers.iter().map(|holder| holder.open.len()).sum();
                let line = |owner: &str, count: usize| {
                    format!("{{{},owner={}}} {count}", labels(held), quoted(owner))
                };
                [line("container", inside), line("other", held.others.len())]
            })
            .collect(),
    );
    family(
        "fleet_gpu_container_info",
        "A container that was given the GPU; the value is 1.",
        gpus()
            .flat_map(|held| {
                held.given()
                    .map(|holder| format!("{{{},{}}} 1", labels(held), info(holder)))
            })
            .collect(),
    );
    text
}

fn info(holder: &Holder) -> String {
    let first = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| holder.labels.get(*key));
        quoted(found.map_or("", String::as_str))
    };
    let pod = first(&["io.kubernetes.pod.name", "io.kubernetes.cri.sandbox-name"]);
    let namespace = first(&[
        "io.kubernetes.pod.namespace",
        "io.kubernetes.cri.sandbox-namespace",
    ]);
    format!(
        "container={},status={},namespace={namespace},pod={pod}",
        quoted(&holder.id),
        quoted(holder.status)
    )
}

/// A label's value (Prometheus exposition format: backslash, quote and line end are escaped).
fn quoted(value: &str) -> String {
    let escaped = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}
