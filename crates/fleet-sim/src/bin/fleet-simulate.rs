//! Builds a simulated GPU node and writes its CDI spec: `fleet-nvidia-ctl simulate` for those who have built nothing else.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use fleet_sim::command::{Simulate, run};

/// A GPU node without GPUs, to reproduce reports on any machine.
#[derive(Parser, Debug)]
#[command(name = "fleet-simulate", version)]
struct Command {
    #[command(subcommand)]
    verb: Simulate,
}

fn main() -> ExitCode {
    match run(&Command::parse().verb, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let _ = writeln!(std::io::stderr(), "fleet-simulate: {err}");
            ExitCode::FAILURE
        }
    }
}
