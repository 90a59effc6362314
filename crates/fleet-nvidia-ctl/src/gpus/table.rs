//! The report for people, and the plan of a container that exists.

use std::fmt::Write;

use serde_json::Value;

use super::process::Process;
use super::{Record, Report};

/// One paragraph per GPU.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for held in &report.gpus {
        let gpu = &held.gpu;
        let about = [
            gpu.model.as_deref(),
            gpu.uuid.as_deref(),
            gpu.bus.as_deref(),
        ];
        let about: Vec<_> = about.into_iter().flatten().collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} ({})  {}", gpu.path, gpu.device, about.join(", "));
        for holder in &held.containers {
            let place = match (holder.spec_file.as_deref(), holder.is_unasked()) {
                (Some(file), _) => file,
                (None, true) => "not asked for, but may be opened",
                (None, false) => "OCI spec",
            };
            let device = holder.device.as_deref().unwrap_or_default();
            let _ = writeln!(
                text,
                "  container {:.12}  {:8}  {}{}  {}",
                shown(&holder.id),
                holder.status,
                whose(holder),
                source(&holder.source),
                format!("{place} {device}{}", allowed(holder)).trim_end()
            );
            processes(&mut text, &holder.open);
        }
        if !held.others.is_empty() {
            let _ = writeln!(text, "  open outside these containers:");
            processes(&mut text, &held.others);
        }
        if held.containers.is_empty() && held.others.is_empty() {
            let _ = writeln!(text, "  free");
        }
    }
    match text.is_empty() {
        true => "no GPU is known here; hint: fleet-nvidia-ctl doctor\n".to_owned(),
        false => text,
    }
}

/// Said where record and cgroup differ.
fn allowed(holder: &super::Holder) -> &'static str {
    match holder.cgroup_allows {
        Some(false) => "  (its cgroup does not let it open the GPU)",
        _ => "",
    }
}

fn whose(holder: &super::Holder) -> String {
    let label = |keys: [&str; 2]| keys.iter().find_map(|key| holder.labels.get(*key));
    let namespace = label([
        "io.kubernetes.pod.namespace",
        "io.kubernetes.cri.sandbox-namespace",
    ]);
    let pod = label(["io.kubernetes.pod.name", "io.kubernetes.cri.sandbox-name"]);
    match (namespace, pod) {
        (Some(namespace), Some(pod)) => format!("pod {}/{}  ", shown(namespace), shown(pod)),
        _ => String::new(),
    }
}

fn processes(text: &mut String, processes: &[Process]) {
    for process in processes {
        let _ = writeln!(text, "    {} {}", process.pid, shown(&process.command));
    }
}

/// `variable NVIDIA_VISIBLE_DEVICES`, as a plan's own text says it.
pub(super) fn source(source: &Value) -> String {
    let from = source
        .get("from")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let name = source
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let word = match from {
        "environment" => "variable",
        "volume-mount" => "mount",
        other => other,
    };
    shown(format!("{word} {name}").trim_end())
}

/// What a container's maker chose may hold what a terminal obeys.
fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// `explain ID`: the recorded plan, then the devices that the engine had put into the spec itself, then what the container
/// did not get.
pub(crate) fn plan(record: &Record) -> String {
    let mut rows: Vec<[String; 4]> = Vec::new();
    let edits = record
        .plan
        .as_ref()
        .and_then(|plan| plan.get("edits")?.as_array());
    rows.extend(edits.into_iter().flatten().map(row));
    let devices = record
        .spec
        .pointer("/linux/devices")
        .and_then(Value::as_array);
    for device in devices.into_iter().flatten() {
        let path = device
            .get("path")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if record.origin(path).spec_file.is_none() {
            let number = |key: &str| device.get(key).and_then(Value::as_i64).unwrap_or(0);
            let what = format!("{path} {}:{}", number("major"), number("minor"));
            rows.push([
                "device".to_owned(),
                what,
                "OCI spec".to_owned(),
                "engine".to_owned(),
            ]);
        }
    }
    let nothing = match rows.is_empty() {
        true => "nothing was injected\n",
        false => "",
    };
    rows.extend(record.list("leftOut").map(absent));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let lines = rows.iter().map(|row| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{}  ", pad(&shown(cell), width)));
        cells.collect::<String>() + &shown(&row[3]) + "\n"
    });
    let refused = record.refused().into_iter();
    let refused = refused.map(|text| format!("refused: {}\n", shown(&text)));
    let warnings = record.warnings().into_iter();
    let warnings = warnings.map(|text| format!("warning: {}\n", shown(&text)));
    lines
        .chain([nothing.to_owned()])
        .chain(refused)
        .chain(warnings)
        .collect()
}

/// What its driver capabilities leave out, with those that would bring it.
fn absent(left_out: &Value) -> [String; 4] {
    let text = |key: &str| {
        left_out
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let needs = left_out.get("needs").and_then(Value::as_array);
    let needs: Vec<_> = needs
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    [
        "left out".to_owned(),
        format!("{} {} ({})", text("what"), text("which"), needs.join(",")),
        place(left_out),
        text("because").to_owned(),
    ]
}

/// Where an edit, or what is left out, comes from.
fn place(edit: &Value) -> String {
    let text = |at: &str| edit.pointer(at).and_then(Value::as_str).unwrap_or_default();
    match (text("/origin/specFile"), text("/origin/device")) {
        ("", _) => "OCI spec".to_owned(),
        (file, device) => format!("{file} {device}").trim_end().to_owned(),
    }
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:width$}")
}

fn row(edit: &Value) -> [String; 4] {
    let text = |at: &str| {
        edit.pointer(at)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let members = edit.as_object().into_iter().flatten();
    let told = members
        .filter(|(key, value)| !["change", "origin"].contains(&key.as_str()) && !value.is_null());
    let told: Vec<_> = told
        .map(|(key, value)| match value.as_str() {
            Some(text) => format!("{key}={text}"),
            None => format!("{key}={value}"),
        })
        .collect();
    let asked = source(edit.pointer("/origin/source").unwrap_or(&Value::Null));
    [text("/change"), told.join(" "), place(edit), asked]
}
