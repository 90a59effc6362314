//! `fleet-nvidia`: a low-level OCI runtime that knows CDI. Reads its arguments, runs one verb, ends.
//!
//! This is the only place that ends the process. Success is silent: stdout and stderr are the container's own.

mod cli;
mod commands;
#[cfg(feature = "docgen")]
mod docgen;
mod log;
mod output;

use std::process::ExitCode;

use fleet_lifecycle::panics;
use fleet_lifecycle::sys::process;

fn main() -> ExitCode {
    panics::hold();
    panics::told_by(|err| {
        log::Log::to_stderr().fatal(&err.to_string());
        process::leave(1)
    });
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(code) = commands::hookpoint::intercept(&args) {
        return code;
    }
    #[cfg(feature = "docgen")]
    if let Some(code) = docgen::intercept(&args) {
        return code;
    }
    commands::protect_early(&args);
    match cli::parse(commands::hook::as_verb(args)) {
        cli::Parsed::Run(command) => commands::run(*command),
        cli::Parsed::Text(text) => output::print(&text),
        cli::Parsed::Usage(message) => {
            log::Log::to_stderr().fatal(&message);
            ExitCode::FAILURE
        }
    }
}
