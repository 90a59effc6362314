//! How an installation stands.

use serde_json::{Value, json};

use super::engines::Entry;

/// Version of the JSON form; grows when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) directory: String,
    pub(super) version: Option<String>,
    pub(super) previous: Option<String>,
    /// Each entry, with what is wrong with it.
    pub(super) entries: Vec<(Entry, Option<String>)>,
    /// What is wrong with the installation itself.
    pub(super) problems: Vec<String>,
}

impl Status {
    pub(super) fn is_healthy(&self) -> bool {
        self.problems.is_empty() && self.entries.iter().all(|(_, problem)| problem.is_none())
    }

    pub(super) fn json(&self) -> Value {
        let entries = self.entries.iter().map(|(entry, problem)| {
            json!({"engine": entry.engine.word(), "name": entry.name, "problem": problem})
        });
        json!({
            "schemaVersion": SCHEMA,
            "healthy": self.is_healthy(),
            "directory": self.directory,
            "version": self.version,
            "previous": self.previous,
            "engines": entries.collect::<Vec<_>>(),
            "problems": self.problems,
        })
    }

    pub(super) fn text(&self) -> String {
        let none = || "none".to_owned();
        let mut lines = vec![format!(
            "{}: version {}, before it {}",
            self.directory,
            self.version.clone().unwrap_or_else(none),
            self.previous.clone().unwrap_or_else(none)
        )];
        lines.extend(
            self.problems
                .iter()
                .map(|problem| format!("fault: {problem}")),
        );
        for (entry, problem) in &self.entries {
            let state = problem
                .as_ref()
                .map_or_else(|| "fine".to_owned(), |problem| format!("fault: {problem}"));
            lines.push(format!("{} `{}`: {state}", entry.engine.word(), entry.name));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}
