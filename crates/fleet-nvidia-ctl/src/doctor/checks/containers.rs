//! Containers that run with less than they asked for: engines show no warnings of a runtime, so they are in its records.

use crate::doctor::check::{Check, Finding, Node, Outcome, absent, outcome};
use crate::gpus::record;

pub(super) const CHECKS: &[Check] = &[Check {
    name: "containers",
    run: check,
}];

fn check(node: &Node<'_>) -> Outcome {
    let (records, damaged) = record::all(node.files, &[], node.env);
    let live: Vec<_> = records
        .iter()
        .filter(|record| record.status != "stopped")
        .collect();
    if live.is_empty() && damaged.is_empty() {
        return absent("no container of the runtime is there");
    }
    let mut findings = Vec::new();
    for record in &live {
        let id = record.id.as_str();
        let hint = || format!("fleet-nvidia-ctl explain {id}");
        // The policy's decision, which an operator has made on purpose.
        let refused = record.refused().into_iter();
        findings.extend(
            refused.map(|text| Finding::note(format!("container {id:.12}: {text}"), hint())),
        );
        let warnings = record.warnings().into_iter();
        findings.extend(
            warnings.map(|text| Finding::warning(format!("container {id:.12}: {text}"), hint())),
        );
    }
    let damaged = damaged.into_iter();
    findings.extend(damaged.map(|text| {
        Finding::warning(
            text,
            "remove the container by its engine, or that directory if the engine does not know it",
        )
    }));
    outcome(findings, format!("{} with all they asked for", live.len()))
}
