//! `--smoke-…`: a real container by a real engine, step by step. What was made is removed, whatever happened.

mod containerd;
mod crio;
mod podman;
mod root;

use super::check::{Finding, Node, Outcome, absent, outcome};
use super::programs::Answer;

/// What the containers are made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Name of the runtime for the engine; its own usual one if absent.
    pub(super) name: Option<String>,
    /// Image that is run; without one, a root file system that holds the runtime's static binary and nothing else.
    pub(super) image: Option<String>,
    /// The binary.
    pub(super) program: String,
    /// CDI name that is asked for, if the node has any.
    pub(super) device: Option<String>,
}

/// An engine to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Podman,
    Crio,
    Containerd,
}

/// Steps by name; the ones after a failed step are left out.
pub(super) fn run(engine: Engine, node: &Node<'_>, plan: &Plan) -> Vec<(String, Outcome)> {
    let mut steps = Steps::new(engine, node);
    match engine {
        Engine::Podman => podman::run(&mut steps, plan),
        Engine::Crio => crio::run(&mut steps, plan),
        Engine::Containerd => containerd::run(&mut steps, plan),
    };
    steps.done
}

/// The steps of one engine.
struct Steps<'n> {
    engine: &'static str,
    node: &'n Node<'n>,
    done: Vec<(String, Outcome)>,
}

impl<'n> Steps<'n> {
    fn new(engine: Engine, node: &'n Node<'n>) -> Self {
        let engine = match engine {
            Engine::Podman => "smoke-podman",
            Engine::Crio => "smoke-crio",
            Engine::Containerd => "smoke-containerd",
        };
        Self {
            engine,
            node,
            done: Vec::new(),
        }
    }

    fn add(&mut self, step: &str, outcome: Outcome) {
        self.done.push((format!("{}/{step}", self.engine), outcome));
    }

    /// The engine is not here, so nothing is tried.
    fn skip(&mut self, why: String) {
        self.done.push((self.engine.to_owned(), absent(why)));
    }

    /// Something was seen.
    fn fine(&mut self, step: &str, text: impl Into<String>) {
        self.add(step, outcome(Vec::new(), text));
    }

    fn fault(&mut self, step: &str, text: impl Into<String>, hint: &str) {
        self.add(step, outcome(vec![Finding::error(text, hint)], ""));
    }

    /// Runs a command that must succeed; `None` ends the steps.
    fn must(&mut self, step: &str, argv: &[&str], hint: &str) -> Option<Answer> {
        match self.node.programs.ask(argv, 120) {
            Ok(said) if said.ok => {
                let first = said.stdout.trim().lines().next().unwrap_or("done");
                let first: String = first.chars().take(100).collect();
                self.fine(
                    step,
                    if first.is_empty() {
                        "done".to_owned()
                    } else {
                        first
                    },
                );
                Some(said)
            }
            Ok(said) => {
                let text = format!("{} fails: {}", argv.join(" "), said.complaint());
                self.fault(step, text, hint);
                None
            }
            Err(err) => {
                self.fault(step, format!("{} {err}", argv.join(" ")), hint);
                None
            }
        }
    }

    /// Runs a command whose failure says nothing about the runtime.
    fn may(&self, argv: &[&str]) -> Option<Answer> {
        self.node
            .programs
            .ask(argv, 120)
            .ok()
            .filter(|said| said.ok)
    }
}

/// A name that no other container has.
fn unique() -> String {
    format!("fleet-smoke-{}", std::process::id())
}

#[cfg(test)]
mod tests;
