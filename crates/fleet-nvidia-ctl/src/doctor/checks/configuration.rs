//! Our own binary and its configuration.

use std::path::Path;

use crate::doctor::check::{Check, Finding, Node, Outcome, absent, outcome};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "runtime",
        run: runtime,
    },
    Check {
        name: "configuration",
        run: configuration,
    },
    Check {
        name: "other-runtime",
        run: other_runtime,
    },
];

fn runtime(node: &Node<'_>) -> Outcome {
    let program = crate::configure::installed_program(node.files);
    if !node.files.is_program(Path::new(&program)) {
        return outcome(
            vec![Finding::error(
                format!("{program} is not installed"),
                "install the package fleet-nvidia, or name the binary by `configure --runtime-path`",
            )],
            "",
        );
    }
    let Ok(said) = node.programs.ask(&[&program, "--version"], 5) else {
        return outcome(Vec::new(), program);
    };
    let version = said.stdout.lines().next().unwrap_or_default().to_owned();
    let ours = env!("CARGO_PKG_VERSION");
    let mut findings = Vec::new();
    if !said.ok {
        findings.push(Finding::error(
            format!("{program} --version fails: {}", said.complaint()),
            "engines drop a runtime that cannot say its version: install it anew",
        ));
    } else if version.rsplit(' ').next() != Some(ours) {
        findings.push(Finding::warning(
            format!("{program} says \"{version}\", this tool is {ours}"),
            "install both of one version",
        ));
    }
    outcome(findings, format!("{program}, {version}"))
}

fn configuration(node: &Node<'_>) -> Outcome {
    match fleet_host::load_policy(node.env, node.files.host()) {
        Err(err) => outcome(
            vec![Finding::error(
                err.to_string(),
                "no container that asks for a device starts until it is mended",
            )],
            "",
        ),
        Ok((_, None)) => absent("there is no file; the defaults apply"),
        Ok((file, Some(path))) => {
            let findings = file.warnings.iter().map(|warning| {
                Finding::warning(
                    warning.as_str(),
                    "`fleet-nvidia-ctl config default` lists the keys",
                )
            });
            outcome(findings.collect(), path.display().to_string())
        }
    }
}

/// The runtime that containers are given to, where the configuration names some.
fn other_runtime(node: &Node<'_>) -> Outcome {
    // What is wrong with the file is told by the check of the file.
    let names = fleet_host::runtimes(node.env, node.files.host()).unwrap_or_default();
    if names.is_empty() {
        return absent("containers are run by fleet-nvidia itself");
    }
    match crate::explain::other_runtime(node.files, &names) {
        Some(program) => outcome(Vec::new(), format!("{program} runs the containers")),
        None => outcome(
            vec![Finding::error(
                format!("none of the runtimes {} is installed", names.join(", ")),
                "no container starts: install one, or take `runtimes` out of the configuration",
            )],
            "",
        ),
    }
}
