//! The report, for people and for programs.

use std::io::{self, Write};

use serde::Serialize;

use super::check::{Finding, Outcome, Seen, Severity};

/// Version of the JSON form. It grows when a field changes its meaning or goes, not when one is added.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// All checks and what they said.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    schema_version: u32,
    pub(crate) checks: Vec<Checked>,
    summary: Summary,
}

/// One check.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    name: String,
    status: Status,
    /// What was seen, why it was skipped, or why it broke.
    #[serde(skip_serializing_if = "String::is_empty")]
    text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Shown>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Ok,
    Skipped,
    Note,
    Warning,
    Error,
    Broken,
}

/// A finding, and what became of it.
#[derive(Debug, Serialize)]
struct Shown {
    severity: Severity,
    text: String,
    hint: String,
    /// Whether `--fix` has a repair for it.
    fixable: bool,
    /// What `--fix` did.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<String>,
    /// Why `--fix` could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Summary {
    errors: usize,
    warnings: usize,
    fixed: usize,
}

impl Checked {
    /// `repair` carries a finding's repair out; `None` leaves it.
    pub(crate) fn new(
        name: &str,
        outcome: Outcome,
        repair: &dyn Fn(&Finding) -> Option<Result<String, String>>,
    ) -> Self {
        let (status, text, findings) = match outcome {
            Ok(Ok(Seen::Fine(text))) => (Status::Ok, text, Vec::new()),
            Ok(Ok(Seen::Absent(text))) => (Status::Skipped, text, Vec::new()),
            Err(broken) => (Status::Broken, broken.to_string(), Vec::new()),
            Ok(Err(findings)) => (Status::Ok, String::new(), findings),
        };
        let findings: Vec<_> = findings
            .into_iter()
            .map(|finding| Shown::new(repair(&finding), finding))
            .collect();
        let worst = findings
            .iter()
            .filter(|shown| shown.fixed.is_none())
            .map(|shown| shown.severity)
            .max();
        let status = match worst {
            None => status,
            Some(Severity::Note) => Status::Note,
            Some(Severity::Warning) => Status::Warning,
            Some(Severity::Error) => Status::Error,
        };
        Self {
            name: name.to_owned(),
            status,
            text,
            findings,
        }
    }
}

impl Shown {
    fn new(repaired: Option<Result<String, String>>, finding: Finding) -> Self {
        let (fixed, failed) = match repaired {
            None => (None, None),
            Some(Ok(done)) => (Some(done), None),
            Some(Err(why)) => (None, Some(why)),
        };
        Self {
            severity: finding.severity,
            text: finding.text,
            hint: finding.hint,
            fixable: finding.repair.is_some(),
            fixed,
            failed,
        }
    }
}

impl Report {
    pub(crate) fn new(checks: Vec<Checked>) -> Self {
        let count = |severity| {
            let findings = checks.iter().flat_map(|check| &check.findings);
            let open = findings.filter(|shown| shown.fixed.is_none());
            open.filter(|shown| shown.severity == severity).count()
        };
        let broken = checks.iter().filter(|check| check.status == Status::Broken);
        let fixed = checks
            .iter()
            .flat_map(|check| &check.findings)
            .filter(|shown| shown.fixed.is_some());
        let summary = Summary {
            errors: count(Severity::Error) + broken.count(),
            warnings: count(Severity::Warning),
            fixed: fixed.count(),
        };
        Self {
            schema_version: SCHEMA_VERSION,
            checks,
            summary,
        }
    }

    /// The worst that is left.
    pub(crate) fn worst(&self) -> Option<Severity> {
        match (self.summary.errors, self.summary.warnings) {
            (0, 0) => None,
            (0, _) => Some(Severity::Warning),
            _ => Some(Severity::Error),
        }
    }

    /// One line per check and per finding.
    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        for check in &self.checks {
            check.print(out)?;
        }
        let Summary {
            errors,
            warnings,
            fixed,
        } = self.summary;
        let counted = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        write!(
            out,
            "{}, {}",
            counted(errors, "error"),
            counted(warnings, "warning")
        )?;
        match fixed {
            0 => writeln!(out),
            _ => writeln!(out, ", {fixed} repaired"),
        }
    }
}

impl Checked {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let word = match self.status {
            Status::Ok => "ok",
            Status::Skipped => "skipped",
            Status::Broken => "broken",
            _ => "",
        };
        if self.findings.is_empty() {
            return writeln!(out, "{word:8} {:16} {}", self.name, self.text);
        }
        for shown in &self.findings {
            let word = match (shown.severity, &shown.fixed) {
                (_, Some(_)) => "fixed",
                (Severity::Note, _) => "note",
                (Severity::Warning, _) => "warning",
                (Severity::Error, _) => "error",
            };
            writeln!(out, "{word:8} {:16} {}", self.name, shown.text)?;
            let more = [
                ("hint", shown.fixed.is_none().then_some(&shown.hint)),
                ("done", shown.fixed.as_ref()),
                ("not repaired", shown.failed.as_ref()),
            ];
            for (word, text) in more {
                if let Some(text) = text.filter(|text| !text.is_empty()) {
                    writeln!(out, "{:25} {word}: {text}", "")?;
                }
            }
        }
        Ok(())
    }
}
