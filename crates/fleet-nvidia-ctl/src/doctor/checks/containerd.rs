//! containerd: is the handler there, and is our copy of the CRI section still that of the main file.

use std::path::Path;

use toml_edit::Item;

use crate::configure::containerd::{self, Config, Handlers};
use crate::configure::{ConfigureError, made};
use crate::doctor::check::{Broken, Check, Finding, Node, Outcome, absent, outcome};

pub(super) const CHECKS: &[Check] = &[Check {
    name: "containerd",
    run: check,
}];

const CONFIGURE: &str = "fleet-nvidia-ctl configure containerd, then systemctl restart containerd";

fn check(node: &Node<'_>) -> Outcome {
    if !node.has_program("containerd") {
        return absent("containerd is not installed");
    }
    let config = match containerd::read(node.files, Path::new("/etc/containerd")) {
        Ok(config) => config,
        Err(ConfigureError::Bad(bad)) => {
            let finding = Finding::error(
                format!("{bad}: containerd does not start"),
                "repair that line",
            );
            return outcome(vec![finding], "");
        }
        Err(err) => return Err(Broken(err.to_string())),
    };
    let found = handlers(&config);
    let mut findings = Vec::new();
    if found.is_empty() {
        findings.push(Finding::note(
            "no handler of containerd runs fleet-nvidia",
            format!("{CONFIGURE}; needed where Kubernetes or nerdctl use containerd"),
        ));
    }
    for (handler, program) in &found {
        if !node.files.is_program(Path::new(program)) {
            findings.push(Finding::error(
                format!("handler {handler} runs {program}, which is not an executable file"),
                CONFIGURE,
            ));
        }
        findings.extend(ask(node, program));
    }
    findings.extend(drift(&config)?);
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    outcome(findings, format!("handler {}", names.join(", ")))
}

/// Handlers with our binary, by name.
pub(super) fn handlers(config: &Config) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let keys = config.handler("");
    for file in config.main.iter().chain(config.chain.all()) {
        let Some(table) = file.table(&keys[..4]) else {
            continue;
        };
        // Up to containerd 1.7 the last file with the section is the only one that counts.
        found.clear();
        for (name, item) in table.iter() {
            let options = item.as_table_like().and_then(|table| table.get("options"));
            let binary = options.and_then(|options| options.as_table_like()?.get("BinaryName"));
            let program = binary.and_then(Item::as_str).unwrap_or_default();
            if program.rsplit('/').next() == Some("fleet-nvidia") {
                found.push((name.to_owned(), program.to_owned()));
            }
        }
    }
    found
}

/// The copy is as old as the last `configure`.
fn drift(config: &Config) -> Result<Option<Finding>, Broken> {
    let handlers = Handlers::of(config);
    let Some(own) = config
        .chain
        .own
        .as_ref()
        .filter(|_| !handlers.names().is_empty())
    else {
        return Ok(None);
    };
    let want = handlers
        .drop_in(config)
        .map_err(|err| Broken(err.to_string()))?;
    Ok((want != made::split(own.raw()).0).then(|| {
        Finding::warning(
            format!(
                "{} repeats an older CRI section than that of the main file, and hides it",
                own.path.display()
            ),
            CONFIGURE,
        )
    }))
}

/// What containerd makes of its files.
fn ask(node: &Node<'_>, program: &str) -> Option<Finding> {
    let said = node
        .programs
        .ask(&["containerd", "config", "dump"], 20)
        .ok()?;
    match said.ok {
        false => Some(Finding::error(
            format!("containerd config dump fails: {}", said.complaint()),
            "containerd does not start with these files",
        )),
        true if !said.stdout.contains(program) => Some(Finding::error(
            format!("containerd's merged configuration does not name {program}"),
            CONFIGURE,
        )),
        true => None,
    }
}
