//! Podman: does it know the runtime, and does it read its errors.

use std::path::Path;

use toml_edit::{Item, TableLike, Value};

use crate::configure::{Chain, ConfigureError, Engine, podman};
use crate::doctor::check::{Broken, Check, Finding, Node, Outcome, absent, outcome};
use crate::doctor::repair::Repair;
use crate::toml_file::TomlFile;

pub(super) const CHECKS: &[Check] = &[Check {
    name: "podman",
    run: check,
}];

const CONFIGURE: &str = "fleet-nvidia-ctl configure podman";

fn check(node: &Node<'_>) -> Outcome {
    if !node.has_program("podman") {
        return absent("Podman is not installed");
    }
    let user = node.env.config_home().filter(|_| node.env.rootless());
    let chain = match podman::chain(node.files, user.as_deref()) {
        Ok(chain) => chain,
        Err(ConfigureError::Bad(bad)) => {
            let finding = Finding::error(
                format!("{bad}: every podman command fails"),
                "repair that line",
            );
            return outcome(vec![finding], "");
        }
        Err(err) => return Err(Broken(err.to_string())),
    };
    let mut findings = append_form(node, &chain);
    let names = names(node, &chain, &mut findings);
    if names.is_empty() {
        let option = if user.is_some() { " --user" } else { "" };
        findings.push(
            Finding::warning(
                "Podman does not know the runtime by name",
                format!("{CONFIGURE}{option}; until then give its path to --runtime"),
            )
            .with(Repair::Configure(Engine::Podman, user)),
        );
        return outcome(findings, "");
    }
    for name in &names {
        findings.extend(short_errors(&chain, name)?);
        findings.extend(ask(node, name));
    }
    outcome(findings, format!("knows it as {}", names.join(", ")))
}

/// Names that lead to our binary; an entry whose file is missing is skipped by Podman in silence.
fn names(node: &Node<'_>, chain: &Chain, findings: &mut Vec<Finding>) -> Vec<String> {
    let keys = ["engine", "runtimes"];
    let mut names: Vec<String> = Vec::new();
    for file in chain.all() {
        let Some(table) = file.table(&keys) else {
            continue;
        };
        for (name, item) in table.iter() {
            names.retain(|known| known != name);
            let programs: Vec<_> = item
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            if !programs.iter().any(|program| is_ours(program)) {
                continue;
            }
            names.push(name.to_owned());
            if !programs
                .iter()
                .any(|program| node.files.is_program(Path::new(program)))
            {
                findings.push(Finding::error(
                    format!(
                        "{} leads to {}, which is not an executable file: Podman skips the entry",
                        file.at(&["engine", "runtimes", name]),
                        programs.join(", ")
                    ),
                    format!("{CONFIGURE} writes the path of the installed binary"),
                ));
            }
        }
    }
    names
}

fn is_ours(program: &str) -> bool {
    Path::new(program)
        .file_name()
        .is_some_and(|name| name == "fleet-nvidia")
}

/// Without its name in this list Podman passes no `--log`, and its users see "OCI runtime error" alone.
fn short_errors(chain: &Chain, name: &str) -> Result<Option<Finding>, Broken> {
    let files: Vec<TomlFile> = chain.all().cloned().collect();
    let list =
        podman::in_force(&files, "runtime_supports_json").map_err(|err| Broken(err.to_string()))?;
    let last = files
        .iter()
        .rev()
        .find(|file| file.item(&["engine", "runtime_supports_json"]).is_some());
    let place = last.map_or_else(
        || "the built-in list".to_owned(),
        |file| file.at(&["engine", "runtime_supports_json"]),
    );
    Ok((!list.iter().any(|known| known == name)).then(|| {
        Finding::warning(
            format!("runtime_supports_json of {place} does not have {name}: Podman shows its errors cut short"),
            CONFIGURE,
        )
    }))
}

/// `{append = true}` is a parse error of Podman before 4.9, and stops every command.
fn append_form(node: &Node<'_>, chain: &Chain) -> Vec<Finding> {
    let Ok(said) = node.programs.ask(&["podman", "--version"], 10) else {
        return Vec::new();
    };
    let old = said.stdout.contains("version 4.") && {
        let minor = said
            .stdout
            .split("version 4.")
            .nth(1)
            .and_then(|rest| rest.split('.').next()?.trim().parse::<u32>().ok());
        minor.is_some_and(|minor| minor < 9)
    };
    let uses = |file: &&TomlFile| {
        let engine = file.table(&["engine"]);
        engine.is_some_and(|engine: &dyn TableLike| {
            engine.iter().any(|(_, item): (&str, &Item)| {
                item.as_array()
                    .is_some_and(|array| array.iter().any(Value::is_inline_table))
            })
        })
    };
    let files = chain.all().filter(uses).filter(|_| old);
    files
        .map(|file| {
            Finding::error(
                format!("{} uses `append = true`, which this Podman does not read: every podman command fails", file.path.display()),
                "write the list out in full",
            )
        })
        .collect()
}

/// What Podman itself says.
fn ask(node: &Node<'_>, name: &str) -> Option<Finding> {
    let argv = [
        "podman",
        "--runtime",
        name,
        "info",
        "--format",
        "{{.Host.OCIRuntime.Path}}",
    ];
    let said = node.programs.ask(&argv, 60).ok()?;
    match said.ok && is_ours(said.stdout.trim()) {
        true => None,
        false if said.ok => Some(Finding::error(
            format!("podman --runtime {name} runs {}", said.stdout.trim()),
            CONFIGURE,
        )),
        false => Some(Finding::error(
            format!("podman --runtime {name} info fails: {}", said.complaint()),
            "CONTAINERS_CONF, if set, hides the system's files",
        )),
    }
}
