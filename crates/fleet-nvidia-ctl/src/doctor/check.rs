//! What a check is, and what it says.

use std::fmt;
use std::path::Path;

use fleet_host::Env;
use fleet_inject::HostProbe;
use serde::Serialize;

use super::programs::Programs;
use super::repair::Repair;
use crate::files::{FileError, Files};
use crate::toml_file::TomlError;

/// One question about the node. Each module of `checks` lists its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    /// Its name in both forms of the report: stable, lower case.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) run: fn(&Node<'_>) -> Outcome,
}

/// The outer error is a check that could not be carried out, the inner one is what it found.
pub(crate) type Outcome = Result<Result<Seen, Vec<Finding>>, Broken>;

/// The node as checks see it: files below a root, device nodes, and programs that may be asked.
pub(crate) struct Node<'a> {
    pub(crate) files: &'a Files,
    pub(crate) env: &'a Env,
    pub(crate) devices: &'a dyn HostProbe,
    pub(crate) programs: &'a dyn Programs,
    /// Bytes free for a path, if that can be told.
    pub(crate) space: &'a dyn Fn(&Path) -> Option<u64>,
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("files", self.files)
            .finish_non_exhaustive()
    }
}

/// Nothing to complain about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// As it should be: what was seen.
    Fine(String),
    /// There is nothing to check here, and why.
    Absent(String),
}

/// How bad a finding is; the worst one decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    /// Worth knowing.
    Note,
    /// Some containers will fail, or get less than asked.
    Warning,
    /// GPU containers do not work.
    Error,
}

/// Something that a user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// What is wrong: one line.
    pub(crate) text: String,
    /// What to do.
    pub(crate) hint: String,
    /// What `--fix` would do.
    pub(crate) repair: Option<Repair>,
}

impl Finding {
    pub(crate) fn new(
        severity: Severity,
        text: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self {
            severity,
            text: one_line(text.into()),
            hint: hint.into(),
            repair: None,
        }
    }

    pub(crate) fn error(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Error, text, hint)
    }

    pub(crate) fn warning(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Warning, text, hint)
    }

    pub(crate) fn note(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Note, text, hint)
    }

    pub(crate) fn with(mut self, repair: Repair) -> Self {
        self.repair = Some(repair);
        self
    }
}

/// A check that could not be carried out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(pub(crate) String);

impl From<FileError> for Broken {
    fn from(err: FileError) -> Self {
        Self(err.to_string())
    }
}

impl From<TomlError> for Broken {
    fn from(err: TomlError) -> Self {
        Self(err.to_string())
    }
}

/// The findings if there are any, else what was seen.
pub(crate) fn outcome(findings: Vec<Finding>, fine: impl Into<String>) -> Outcome {
    Ok(match findings.is_empty() {
        true => Ok(Seen::Fine(fine.into())),
        false => Err(findings),
    })
}

/// Nothing to check.
pub(crate) fn absent(why: impl Into<String>) -> Outcome {
    Ok(Ok(Seen::Absent(why.into())))
}
