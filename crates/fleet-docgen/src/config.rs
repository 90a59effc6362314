//! The page of the configuration file, from the comments of the file as it is shipped.
//!
//! Its form: paragraphs; lines `#= …` state a default, a line `# key = …` is a setting without one, all other lines
//! starting with `# ` explain what follows.

use std::path::Path;

use roff::{Roff, bold, roman};

use crate::{Failed, file};

const NAME: &str = "fleet-nvidia-config";

pub(crate) fn write(text: &str, dir: &Path, date: &str) -> Result<(), Failed> {
    file(dir.join(format!("{NAME}.5")), page(text, date).as_bytes())
}

fn page(text: &str, date: &str) -> String {
    let mut roff = Roff::new();
    roff.control("TH", [NAME, "5", date, "fleet-nvidia", "GPU containers"])
        .control("SH", ["NAME"])
        .text([roman(format!(
            "{NAME} - configuration file of fleet-nvidia"
        ))])
        .control("SH", ["SYNOPSIS"])
        .text([roman("/etc/fleet-nvidia/config.toml")])
        .control("SH", ["DESCRIPTION"]);
    let mut described = false;
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let (settings, words) = split(block);
        if settings.is_empty() {
            roff.control("PP", []).text([roman(words)]);
            continue;
        }
        if !described {
            roff.control("SH", ["SETTINGS"]);
            described = true;
        }
        describe(&mut roff, &settings, words);
    }
    roff.control("SH", ["SEE ALSO"])
        .text([roman("fleet-nvidia(8), fleet-nvidia-ctl(8)")]);
    roff.to_roff()
}

/// A table gets a heading, a setting an entry.
fn describe(roff: &mut Roff, settings: &[&str], words: String) {
    for setting in settings {
        if setting.starts_with('[') {
            roff.control("SS", [*setting]);
        } else {
            roff.control("TP", []).text([bold(*setting)]);
        }
    }
    if !words.is_empty() {
        roff.text([roman(words)]);
    }
}

/// The settings of a paragraph, and its explanation in one line.
fn split(block: &str) -> (Vec<&str>, String) {
    let (mut settings, mut words) = (Vec::new(), Vec::new());
    for line in block.lines() {
        let comment = line.strip_prefix('#').unwrap_or(line);
        match comment.strip_prefix('=').or_else(|| setting(comment)) {
            Some(found) => settings.push(found.trim()),
            None => words.push(comment.trim()),
        }
    }
    (settings, words.join(" "))
}

/// `key = value`: keys are of small letters and hyphens.
fn setting(comment: &str) -> Option<&str> {
    let (key, _) = comment.split_once(" = ")?;
    let key = key.trim();
    key.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        .then_some(comment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_explanations_are_told_apart() {
        let text = "# What it is.\n# More.\n\n#= [sources]\n\n# Says = how.\n#= a-b = true\n\n# As above.\n# c = 1\n";
        let page = page(text, "2026-01-02");
        for line in [
            ".PP\nWhat it is. More.\n",
            ".SS [sources]\n",
            ".TP\n\\fBa\\-b = true\\fR\nSays = how.\n",
            ".TP\n\\fBc = 1\\fR\nAs above.\n",
        ] {
            assert!(page.contains(line), "{line:?} is not in {page}");
        }
        assert_eq!(page.matches(".SH SETTINGS").count(), 1);
    }
}
