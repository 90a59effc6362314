//! Docker: is the runtime in daemon.json, and does the daemon know it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::configure::json_file;
use crate::doctor::check::{Check, Finding, Node, Outcome, absent, outcome};

pub(super) const CHECKS: &[Check] = &[Check {
    name: "docker",
    run: check,
}];

const FILE: &str = "/etc/docker/daemon.json";
const CONFIGURE: &str = "fleet-nvidia-ctl configure docker, then systemctl reload docker";

fn check(node: &Node<'_>) -> Outcome {
    if !node.has_program("dockerd") {
        return absent("Docker is not installed");
    }
    let text = node.read(FILE)?.unwrap_or_default();
    let object = match json_file::parse(Path::new(FILE), &text) {
        Ok(object) => object,
        Err(bad) => {
            let finding =
                Finding::error(format!("{bad}: dockerd does not start"), "repair that line");
            return outcome(vec![finding], "");
        }
    };
    let ours = ours(&object);
    if ours.is_empty() {
        let finding = Finding::note("Docker does not know the runtime", CONFIGURE);
        return outcome(vec![finding], "");
    }
    let mut findings = Vec::new();
    for (name, program) in &ours {
        if !node.files.is_program(Path::new(program)) {
            findings.push(Finding::error(
                format!("runtime {name} of {FILE} is {program}, which is not an executable file"),
                CONFIGURE,
            ));
        }
        findings.extend(ask(node, name));
    }
    let names: Vec<_> = ours.iter().map(|(name, _)| name.as_str()).collect();
    outcome(findings, format!("knows it as {}", names.join(", ")))
}

fn ours(object: &Map<String, Value>) -> Vec<(String, String)> {
    let runtimes = object.get("runtimes").and_then(Value::as_object);
    let found = runtimes.into_iter().flatten().filter_map(|(name, entry)| {
        let program = entry
            .get("path")
            .or_else(|| entry.pointer("/options/BinaryName"))?
            .as_str()?;
        (program.rsplit('/').next() == Some("fleet-nvidia"))
            .then(|| (name.clone(), program.to_owned()))
    });
    found.collect()
}

fn ask(node: &Node<'_>, name: &str) -> Option<Finding> {
    let said = node
        .programs
        .ask(&["docker", "info", "--format", "{{json .Runtimes}}"], 20)
        .ok()?;
    if !said.ok {
        return Some(Finding::note(
            format!("dockerd does not answer: {}", said.complaint()),
            "systemctl status docker",
        ));
    }
    let loaded =
        serde_json::from_str::<Value>(&said.stdout).is_ok_and(|all| all.get(name).is_some());
    (!loaded).then(|| {
        Finding::error(
            format!("the running dockerd has not loaded runtime {name}"),
            "systemctl reload docker",
        )
    })
}
