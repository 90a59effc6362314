//! Completions for the shells that distributions complete in.

use std::path::Path;

use clap::Command;
use clap_complete::{Shell, generate};

use crate::{Failed, directory, file};

pub(crate) fn write(mut command: Command, dir: &Path) -> Result<(), Failed> {
    let name = command.get_name().to_owned();
    let shells = [
        (Shell::Bash, "bash", name.clone()),
        (Shell::Zsh, "zsh", format!("_{name}")),
        (Shell::Fish, "fish", format!("{name}.fish")),
    ];
    for (shell, folder, script) in shells {
        let mut text = Vec::new();
        generate(shell, &mut command, &name, &mut text);
        file(directory(dir.join(folder))?.join(script), &text)?;
    }
    Ok(())
}
