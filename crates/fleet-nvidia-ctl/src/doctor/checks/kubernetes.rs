//! Kubernetes: a RuntimeClass that leads to a handler of this node.

use std::path::Path;

use serde_json::Value;

use crate::configure::{containerd, crio};
use crate::doctor::check::{Check, Finding, Node, Outcome, absent, outcome};

pub(super) const CHECKS: &[Check] = &[Check {
    name: "runtime-class",
    run: check,
}];

const APPLY: &str = "kubectl apply -f /usr/share/fleet-nvidia/kubernetes/runtimeclass.yaml";

fn check(node: &Node<'_>) -> Outcome {
    if !node.has_program("kubectl") {
        return absent("kubectl is not installed here");
    }
    let handlers = handlers(node);
    let argv = [
        "kubectl",
        "get",
        "runtimeclasses.node.k8s.io",
        "--output=json",
        "--request-timeout=5s",
    ];
    let said = match node.programs.ask(&argv, 15) {
        Ok(said) if said.ok => said,
        Ok(said) => return absent(format!("kubectl reaches no cluster: {}", said.complaint())),
        Err(err) => return absent(format!("kubectl cannot be asked: {err}")),
    };
    let list: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
    let items = list
        .get("items")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let classes: Vec<(&str, &Value)> = items
        .iter()
        .filter_map(|item| Some((item.get("handler")?.as_str()?, item)))
        .filter(|(handler, _)| handlers.iter().any(|ours| ours == handler))
        .collect();
    let mut findings = Vec::new();
    if classes.is_empty() {
        let known = if handlers.is_empty() {
            "of fleet-nvidia".to_owned()
        } else {
            handlers.join(", ")
        };
        findings.push(Finding::warning(
            format!("no RuntimeClass leads to a handler {known}: pods cannot ask for it"),
            APPLY,
        ));
    }
    findings.extend(classes.iter().filter_map(|(_, item)| operator(item)));
    let names: Vec<_> = classes
        .iter()
        .filter_map(|(_, item)| item.pointer("/metadata/name")?.as_str())
        .collect();
    outcome(findings, format!("class {}", names.join(", ")))
}

fn handlers(node: &Node<'_>) -> Vec<String> {
    let mut handlers = Vec::new();
    if let Ok(chain) = crio::chain(node.files) {
        handlers.extend(super::crio::handlers(node, &chain, &mut Vec::new()));
    }
    if let Ok(config) = containerd::read(node.files, Path::new("/etc/containerd")) {
        handlers.extend(
            super::containerd::handlers(&config)
                .into_iter()
                .map(|(name, _)| name),
        );
    }
    handlers.sort();
    handlers.dedup();
    handlers
}

/// The GPU operator keeps classes of its own and sets them back.
fn operator(item: &Value) -> Option<Finding> {
    let owners = item.pointer("/metadata/ownerReferences")?.as_array()?;
    let owned = owners
        .iter()
        .any(|owner| owner.get("kind").and_then(Value::as_str) == Some("ClusterPolicy"));
    let name = item.pointer("/metadata/name")?.as_str()?;
    owned.then(|| {
        Finding::note(
            format!("RuntimeClass {name} belongs to the GPU operator"),
            "configure with another --name, and give it a class of its own",
        )
    })
}
