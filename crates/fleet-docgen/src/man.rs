//! One man page for each command (`man 7 man-pages`).

use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use crate::{Failed, file};

/// A heading, and terms with their explanations.
pub type Section<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// Administration tools (`man man`).
const SECTION: &str = "8";
/// All crates of the workspace have one version.
const SOURCE: &str = concat!("fleet-nvidia ", env!("CARGO_PKG_VERSION"));
const MANUAL: &str = "GPU containers";

pub(crate) fn write(
    command: &Command,
    sections: &[Section<'_>],
    dir: &Path,
    date: &str,
) -> Result<(), Failed> {
    let name = display_name(command);
    let page = page(command, date, sections);
    file(dir.join(format!("{name}.{SECTION}")), page.as_bytes())?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        write(verb, &[], dir, date)?;
    }
    Ok(())
}

fn display_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn page(command: &Command, date: &str, sections: &[Section<'_>]) -> String {
    let man = Man::new(command.clone())
        .title(display_name(command))
        .section(SECTION)
        .date(date)
        .source(SOURCE)
        .manual(MANUAL);
    let mut page = Vec::new();
    // Writing to memory does not fail.
    let _ = man.render_title(&mut page);
    let _ = man.render_name_section(&mut page);
    let _ = man.render_synopsis_section(&mut page);
    let _ = man.render_description_section(&mut page);
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        let _ = man.render_options_section(&mut page);
    }
    if command.get_subcommands().any(|verb| !verb.is_hide_set()) {
        let _ = man.render_subcommands_section(&mut page);
    }
    let mut page = String::from_utf8_lossy(&page).into_owned();
    page.push_str(&ending(command, sections).to_roff());
    page
}

/// What clap has no section for.
fn ending(command: &Command, sections: &[Section<'_>]) -> Roff {
    let mut roff = Roff::new();
    if let Some(notes) = command
        .get_after_long_help()
        .or_else(|| command.get_after_help())
    {
        roff.control("SH", ["NOTES"])
            .text([roman(notes.to_string())]);
    }
    for (heading, entries) in sections {
        roff.control("SH", [*heading]);
        for (term, text) in *entries {
            roff.control("TP", []).text([bold(*term)]);
            roff.text([roman(*text)]);
        }
    }
    roff
}
