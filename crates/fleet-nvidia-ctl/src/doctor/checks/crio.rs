//! CRI-O: is the handler there, does it stay in force, and does the daemon know it.

use std::path::Path;

use toml_edit::Item;

use crate::configure::{Chain, ConfigureError, crio};
use crate::doctor::check::{Broken, Check, Finding, Node, Outcome, absent, outcome};

pub(super) const CHECKS: &[Check] = &[Check {
    name: "crio",
    run: check,
}];

const CONFIGURE: &str = "fleet-nvidia-ctl configure crio, then systemctl restart crio";
const RUNTIMES: [&str; 3] = ["crio", "runtime", "runtimes"];

fn check(node: &Node<'_>) -> Outcome {
    if !node.has_program("crio") && !node.is("/etc/crio") {
        return absent("CRI-O is not installed");
    }
    let chain = match crio::chain(node.files) {
        Ok(chain) => chain,
        Err(ConfigureError::Bad(bad)) => {
            let finding = Finding::error(
                format!("{bad}: CRI-O does not start"),
                "repair that line, or remove the file if it is a backup",
            );
            return outcome(vec![finding], "");
        }
        Err(err) => return Err(Broken(err.to_string())),
    };
    let mut findings = monitors(node, &chain);
    findings.extend(default(&chain));
    findings.extend(crio::backups(&chain).into_iter().map(|remark| {
        Finding::warning(
            remark.text().trim_end_matches("; hint: remove it"),
            "remove it",
        )
    }));
    let handlers = handlers(node, &chain, &mut findings);
    if handlers.is_empty() {
        findings.push(Finding::warning(
            "no handler of CRI-O runs fleet-nvidia",
            CONFIGURE,
        ));
    }
    for handler in &handlers {
        findings.extend(ask(node, handler));
    }
    outcome(findings, format!("handler {}", handlers.join(", ")))
}

/// Handlers in force whose program is ours.
pub(super) fn handlers(node: &Node<'_>, chain: &Chain, findings: &mut Vec<Finding>) -> Vec<String> {
    let mut handlers: Vec<String> = Vec::new();
    for file in chain.all() {
        for (name, item) in file
            .table(&RUNTIMES)
            .into_iter()
            .flat_map(|table| table.iter())
        {
            let program = item
                .as_table_like()
                .and_then(|table| table.get("runtime_path")?.as_str())
                .unwrap_or_default();
            let ours = program.rsplit('/').next() == Some("fleet-nvidia");
            if handlers.iter().any(|known| known == name) && !ours {
                findings.push(Finding::error(
                    format!(
                        "{} takes handler {name} away from fleet-nvidia: it runs {program}",
                        file.at(&[RUNTIMES[0], RUNTIMES[1], RUNTIMES[2], name])
                    ),
                    "remove that file, or configure with another --name",
                ));
            }
            handlers.retain(|known| known != name);
            if !ours {
                continue;
            }
            handlers.push(name.to_owned());
            if !node.files.is_program(Path::new(program)) {
                findings.push(Finding::error(
                    format!("handler {name} runs {program}, which is not an executable file: CRI-O drops it, and pods say \"no runtime for {name} is configured\""),
                    CONFIGURE,
                ));
            }
        }
    }
    handlers
}

/// CRI-O checks the monitor of every handler, and does not start without one of them.
fn monitors(node: &Node<'_>, chain: &Chain) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in chain.all() {
        for (name, item) in file
            .table(&RUNTIMES)
            .into_iter()
            .flat_map(|table| table.iter())
        {
            let monitor = item
                .as_table_like()
                .and_then(|table| table.get("monitor_path"))
                .and_then(Item::as_str);
            let missing =
                monitor.filter(|path| !path.is_empty() && !node.files.is_program(Path::new(path)));
            if let Some(monitor) = missing {
                findings.push(Finding::error(
                    format!(
                        "{} names the monitor {monitor}, which is missing: CRI-O does not start",
                        file.at(&[RUNTIMES[0], RUNTIMES[1], RUNTIMES[2], name, "monitor_path"])
                    ),
                    "leave `monitor_path` out: CRI-O then takes conmon from PATH",
                ));
            }
        }
    }
    findings
}

fn default(chain: &Chain) -> Option<Finding> {
    let keys = ["crio", "runtime", "default_runtime"];
    let file = chain.all().rfind(|file| file.item(&keys).is_some())?;
    let name = file.text(&keys)?;
    let handler = [RUNTIMES[0], RUNTIMES[1], RUNTIMES[2], name, "runtime_path"];
    let program = chain
        .all()
        .filter_map(|file| file.text(&handler))
        .next_back()?;
    (program.rsplit('/').next() == Some("fleet-nvidia")).then(|| {
        Finding::note(
            format!(
                "{} makes fleet-nvidia the default: without its binary CRI-O does not start",
                file.at(&keys)
            ),
            "keep the distribution's default, and ask for the handler by RuntimeClass",
        )
    })
}

/// What the daemon has loaded.
fn ask(node: &Node<'_>, handler: &str) -> Option<Finding> {
    let said = node.programs.ask(&["crio", "status", "config"], 20).ok()?;
    if !said.ok {
        return Some(Finding::note(
            format!("CRI-O does not answer: {}", said.complaint()),
            "systemctl status crio",
        ));
    }
    let table = format!("[crio.runtime.runtimes.{handler}]");
    (!said.stdout.contains(&table)).then(|| {
        Finding::error(
            format!("the running CRI-O has not loaded handler {handler}"),
            "systemctl restart crio; its journal says why a handler was dropped",
        )
    })
}
