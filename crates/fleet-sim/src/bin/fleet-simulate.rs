//! Builds a simulated GPU node and writes its CDI spec.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fleet_sim::{Machine, SimError, cdi_spec, create};

/// A GPU node without GPUs, to reproduce reports on any machine.
#[derive(Parser, Debug)]
#[command(name = "fleet-simulate", version)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Build driver tree and device nodes (as root)
    Create {
        /// h100x1 to h100x8, or a machine description file
        #[arg(long, default_value = "h100x2")]
        machine: String,
        /// Directory to build in
        #[arg(long)]
        root: PathBuf,
        /// Directory of nvidia-smi and libnvidia_ml.so (default: beside this program)
        #[arg(long)]
        programs: Option<PathBuf>,
        /// Also write the CDI spec to FILE
        #[arg(long, value_name = "FILE")]
        cdi: Option<PathBuf>,
    },
    /// Print a machine description to start from
    Describe {
        /// h100x1 to h100x8
        #[arg(default_value = "h100x2")]
        machine: String,
    },
}

fn main() -> ExitCode {
    match run(Command::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let _ = writeln!(std::io::stderr(), "fleet-simulate: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<(), SimError> {
    match verb {
        Verb::Describe { machine } => {
            let machine = Machine::load(&machine)?;
            let text = serde_json::to_string_pretty(&machine).map_err(|err| SimError::Machine {
                name: "description".to_owned(),
                why: err.to_string(),
            })?;
            let _ = writeln!(std::io::stdout(), "{text}");
        }
        Verb::Create {
            machine,
            root,
            programs,
            cdi,
        } => {
            let failed = |path: &PathBuf| {
                let path = path.clone();
                move |source| SimError::Io { path, source }
            };
            std::fs::create_dir_all(&root).map_err(failed(&root))?;
            let root = root.canonicalize().map_err(failed(&root))?;
            let beside = || {
                std::env::current_exe()
                    .ok()
                    .and_then(|exe| exe.parent().map(PathBuf::from))
                    .unwrap_or_default()
            };
            let built = create(
                Machine::load(&machine)?,
                &root,
                &programs.unwrap_or_else(beside),
            )?;
            if let Some(file) = cdi {
                if let Some(dir) = file.parent() {
                    std::fs::create_dir_all(dir).map_err(failed(&file))?;
                }
                std::fs::write(&file, cdi_spec(&built, &root.display().to_string()))
                    .map_err(failed(&file))?;
            }
        }
    }
    Ok(())
}
