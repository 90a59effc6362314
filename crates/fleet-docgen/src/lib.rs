//! Man pages and shell completions out of the argument definitions, so that they cannot say anything else than the
//! programs do. Linked only into builds with the feature `docgen`: what is shipped does not carry it.
#![forbid(unsafe_code)]

mod completions;
mod config;
mod man;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;

pub use man::Section;

/// What is generated besides the pages of the commands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extra<'a> {
    /// Sections at the end of the program's own page.
    pub sections: &'a [Section<'a>],
    /// The commented configuration file that becomes `fleet-nvidia-config(5)`.
    pub config: Option<&'a str>,
}

/// A file or directory that could not be written.
#[derive(Debug)]
struct Failed {
    path: PathBuf,
    cause: io::Error,
}

/// Serves `PROGRAM docgen DIR DATE`: writes `DIR/man/*.5|8` and `DIR/{bash,zsh,fish}/*`. `DATE` (`YYYY-MM-DD`) is printed in
/// the pages, so that two builds of one version are equal. Anything else typed is left to the program.
#[must_use]
pub fn intercept(args: &[OsString], command: Command, extra: Extra<'_>) -> Option<ExitCode> {
    let [_, verb, dir, date] = args else {
        return None;
    };
    if verb != OsStr::new("docgen") {
        return None;
    }
    match write(command, extra, Path::new(dir), &date.to_string_lossy()) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(Failed { path, cause }) => {
            let _ = writeln!(io::stderr(), "docgen: write {}: {cause}", path.display());
            Some(ExitCode::FAILURE)
        }
    }
}

fn write(command: Command, extra: Extra<'_>, dir: &Path, date: &str) -> Result<(), Failed> {
    let command = prepared(command);
    let man = directory(dir.join("man"))?;
    man::write(&command, extra.sections, &man, date)?;
    if let Some(text) = extra.config {
        config::write(text, &man, date)?;
    }
    completions::write(command, dir)
}

/// Without clap's own `help` commands, of which there would be one for each level.
fn prepared(command: Command) -> Command {
    let mut command = quiet(command);
    command.build();
    command
}

fn quiet(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(quiet)
}

fn directory(path: PathBuf) -> Result<PathBuf, Failed> {
    match fs::create_dir_all(&path) {
        Ok(()) => Ok(path),
        Err(cause) => Err(Failed { path, cause }),
    }
}

fn file(path: PathBuf, content: &[u8]) -> Result<(), Failed> {
    fs::write(&path, content).map_err(|cause| Failed { path, cause })
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn program() -> Command {
        Command::new("prog")
            .version("1.2")
            .about("Does it")
            .arg(
                Arg::new("root")
                    .long("root")
                    .help("Where it is")
                    .global(true),
            )
            .subcommand(
                Command::new("cdi").about("Specs").subcommand(
                    Command::new("list")
                        .about("List devices")
                        .arg(Arg::new("json").long("json").help("Print JSON")),
                ),
            )
            .subcommand(Command::new("secret").hide(true))
    }

    fn generated() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let args: Vec<OsString> = ["prog", "docgen", dir.path().to_str().unwrap(), "2026-01-02"]
            .map(OsString::from)
            .to_vec();
        let extra = Extra {
            sections: &[("FILES", &[("/etc/prog", "Its settings.")])],
            config: Some("# About it.\n\n# How often.\n#= often = 3\n"),
        };
        assert_eq!(intercept(&args, program(), extra), Some(ExitCode::SUCCESS));
        dir
    }

    fn read(dir: &tempfile::TempDir, name: &str) -> String {
        fs::read_to_string(dir.path().join(name)).unwrap()
    }

    #[test]
    fn one_page_for_each_command_and_none_for_hidden_ones() {
        let dir = generated();
        let mut pages: Vec<_> = fs::read_dir(dir.path().join("man"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        assert_eq!(
            pages,
            [
                "fleet-nvidia-config.5",
                "prog-cdi-list.8",
                "prog-cdi.8",
                "prog.8"
            ]
        );
        let page = read(&dir, "man/prog.8");
        assert!(page.contains(".TH prog 8 2026-01-02"), "{page}");
        assert!(
            page.contains("\\-\\-root") && page.contains(".SH FILES"),
            "{page}"
        );
        assert!(!page.contains("help(8)"), "{page}");
        assert!(read(&dir, "man/prog-cdi-list.8").contains("Print JSON"));
    }

    #[test]
    fn completions_know_every_command() {
        let dir = generated();
        for name in ["bash/prog", "zsh/_prog", "fish/prog.fish"] {
            let script = read(&dir, name);
            assert!(script.contains("list") && script.contains("json"), "{name}");
        }
    }

    #[test]
    fn other_arguments_are_left_to_the_program() {
        for args in [
            &["prog"][..],
            &["prog", "docgen"],
            &["prog", "cdi", "list", "x"],
        ] {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert_eq!(intercept(&args, program(), Extra::default()), None);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_a_failure() {
        let args = ["prog", "docgen", "/proc/none/x", "2026-01-02"].map(OsString::from);
        assert_eq!(
            intercept(&args, program(), Extra::default()),
            Some(ExitCode::FAILURE)
        );
    }
}
