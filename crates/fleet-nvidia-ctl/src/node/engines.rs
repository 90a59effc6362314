//! Entries in the engines' configuration whose program is the installed one. Others' are not touched.

use std::path::Path;

use clap::ValueEnum;

use super::NodeError;
use super::args::Choice;
use crate::configure::{Engine, Plan, Remark, Site};
use crate::files::Files;

/// A name under which an engine knows the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) engine: Engine,
    pub(super) name: String,
}

/// Where an engine's program lies, and a directory of its own.
const SIGNS: [(Engine, &[&str]); 2] = [
    (
        Engine::Crio,
        &["/usr/bin/crio", "/usr/local/bin/crio", "/etc/crio"],
    ),
    (
        Engine::Containerd,
        &[
            "/usr/bin/containerd",
            "/usr/local/bin/containerd",
            "/etc/containerd/config.toml",
        ],
    ),
];

/// The engines that were asked for; of those of Kubernetes that are there, if that was left open.
pub(super) fn choose(files: &Files, choices: &[Choice]) -> Result<Vec<Engine>, NodeError> {
    let mut engines = Vec::new();
    for choice in choices {
        match choice {
            Choice::None => {}
            Choice::Crio => engines.push(Engine::Crio),
            Choice::Containerd => engines.push(Engine::Containerd),
            Choice::Docker => engines.push(Engine::Docker),
            Choice::Podman => engines.push(Engine::Podman),
            Choice::Auto => {
                let there = |signs: &[&str]| signs.iter().any(|sign| files.exists(Path::new(sign)));
                let found = SIGNS.iter().filter(|(_, signs)| there(signs));
                let before = engines.len();
                engines.extend(found.map(|(engine, _)| *engine));
                if engines.len() == before {
                    return Err(NodeError::Asked(
                        "neither CRI-O nor containerd is on the node; hint: name the engine by `--runtime`, or give `--runtime none` and configure it by hand".to_owned(),
                    ));
                }
            }
        }
    }
    engines.sort_by_key(|engine| engine.word());
    engines.dedup();
    Ok(engines)
}

/// The installed program, as its entries name it.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    pub(super) files: Files,
    pub(super) program: String,
    pub(super) default: bool,
}

impl Entries {
    fn site(&self, entry: &Entry, remove: bool) -> Site {
        Site {
            name: entry.name.clone(),
            program: self.program.clone(),
            default: self.default,
            remove,
            ..Site::of(&self.files, entry.engine)
        }
    }

    /// Entries of one engine with our program.
    pub(super) fn of(&self, engine: Engine) -> Result<Vec<Entry>, NodeError> {
        let name = engine.default_name().to_owned();
        let names = engine.names(&self.site(&Entry { engine, name }, false))?;
        let mut ours = Vec::new();
        for name in names {
            let entry = Entry { engine, name };
            if self.holds(&entry)? {
                ours.push(entry);
            }
        }
        Ok(ours)
    }

    /// Whether an entry is there and is ours.
    pub(super) fn holds(&self, entry: &Entry) -> Result<bool, NodeError> {
        let found = entry.engine.program(&self.site(entry, false))?;
        Ok(found.is_some_and(|program| program == self.program))
    }

    /// Whether there is no entry of that name in the file where ours would be.
    pub(super) fn is_free(&self, entry: &Entry) -> Result<bool, NodeError> {
        let found = entry.engine.program(&self.site(entry, false))?;
        Ok(found.is_none())
    }

    /// What an entry needs; refused where it would be of no use or is somebody else's.
    pub(super) fn plan(&self, entry: &Entry) -> Result<Plan, NodeError> {
        let site = self.site(entry, false);
        let word = entry.engine.word();
        let other = entry
            .engine
            .program(&site)?
            .filter(|program| *program != self.program);
        if let Some(other) = other {
            return Err(NodeError::Asked(format!(
                "{word} knows `{}` already, as {other}; hint: `fleet-nvidia-ctl configure {word} --remove` if it is no longer wanted, or another `--runtime-name`; nothing was written",
                entry.name
            )));
        }
        let plan = entry.engine.plan(&site)?;
        let useless = plan
            .remarks
            .iter()
            .find(|remark| matches!(remark, Remark::NoEffect(_)));
        match useless {
            Some(remark) => Err(NodeError::Asked(format!(
                "{}; hint: beside the GPU operator take `--runtime-name fleet-nvidia`; nothing was written",
                remark.text()
            ))),
            None => Ok(plan),
        }
    }

    /// What takes an entry back.
    pub(super) fn removal(&self, entry: &Entry) -> Result<Plan, NodeError> {
        Ok(entry.engine.plan(&self.site(entry, true))?)
    }

    /// What is wrong with an entry that should be there.
    pub(super) fn problem(&self, entry: &Entry) -> Option<String> {
        let site = self.site(entry, false);
        match self.holds(entry) {
            Err(err) => return Some(err.to_string()),
            Ok(false) => return Some("the entry is gone".to_owned()),
            Ok(true) => {}
        }
        match entry.engine.plan(&site) {
            Err(err) => Some(err.to_string()),
            Ok(plan) if !plan.works() => plan
                .remarks
                .iter()
                .find(|remark| matches!(remark, Remark::NoEffect(_)))
                .map(|remark| remark.text().to_owned()),
            Ok(plan) if !plan.changes().is_empty() => {
                Some("the engine's other files have changed since; install again".to_owned())
            }
            Ok(_) => None,
        }
    }
}

/// An engine by its word.
pub(super) fn engine(word: &str) -> Option<Engine> {
    Engine::from_str(word, false).ok()
}
