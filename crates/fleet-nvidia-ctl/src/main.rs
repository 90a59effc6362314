//! `fleet-nvidia-ctl`: shows and checks what the runtime does with CDI devices. Arguments and exit codes only; what is
//! printed comes from the libraries that the runtime uses itself.
#![forbid(unsafe_code)]

mod cdi;
mod cli;
mod config;
mod explain;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// How a command ended, if it could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing to complain about.
    Fine,
    /// It was printed what is wrong.
    Faulty,
}

/// A command that could not be carried out.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    #[error(transparent)]
    Inject(#[from] fleet_host::InjectError),
    #[error(transparent)]
    Config(#[from] fleet_host::ConfigError),
    #[error("read {path}: {cause}")]
    Read { path: String, cause: String },
    #[error("write the output: {0}")]
    Write(#[from] io::Error),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => {
            // Nobody is left to tell if even this cannot be written.
            let _ = err.print();
            return ExitCode::from(if err.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&cli, &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Faulty) => ExitCode::FAILURE,
        // The reader has seen enough: `fleet-nvidia-ctl cdi list | head -1`.
        Err(CtlError::Write(err)) if err.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(err) => {
            let _ = writeln!(io::stderr().lock(), "fleet-nvidia-ctl: {err}");
            ExitCode::FAILURE
        }
    }
}

/// Results go to `out`, remarks that no program should read to `remarks`.
fn run(cli: &Cli, out: &mut dyn Write, remarks: &mut dyn Write) -> Result<Verdict, CtlError> {
    match &cli.command {
        Command::Explain(args) => explain::explain(cli, args, out),
        Command::Cdi(command) => cdi::run(cli, command, out, remarks),
        Command::Config(command) => config::run(cli, *command, out, remarks),
    }
}

/// Pretty JSON and a line end.
fn write_json(out: &mut dyn Write, value: &serde_json::Value) -> Result<(), CtlError> {
    writeln!(out, "{value:#}")?;
    Ok(())
}
