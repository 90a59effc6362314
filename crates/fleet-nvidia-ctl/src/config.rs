//! `config`: the configuration as shipped, as it counts, and changed.

mod change;
mod edit;

use std::io::Write;

use crate::cli::{Cli, Config};
use crate::{CtlError, Verdict};

pub(crate) use change::ChangeError;

pub(crate) fn run(
    cli: &Cli,
    command: &Config,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    match command {
        Config::Default => write!(out, "{}", fleet_inject::DEFAULT_CONFIG)?,
        Config::Path => writeln!(
            out,
            "{}",
            fleet_host::config_path(&cli.env(), &cli.host()).display()
        )?,
        Config::Show => show(cli, out, remarks)?,
        Config::Set { settings, change } => {
            let changes = settings.iter().map(|text| change::setting(text));
            let changes = changes.collect::<Result<Vec<_>, _>>()?;
            return change::run(cli, *change, &changes, out, remarks);
        }
        Config::Unset { keys, change } => {
            let changes: Vec<_> = keys.iter().map(|key| (change::keys(key), None)).collect();
            return change::run(cli, *change, &changes, out, remarks);
        }
    }
    Ok(Verdict::Fine)
}

fn show(cli: &Cli, out: &mut dyn Write, remarks: &mut dyn Write) -> Result<(), CtlError> {
    let env = cli.env();
    let (file, path) = fleet_host::load_policy(&env, &cli.host())?;
    for warning in &file.warnings {
        writeln!(remarks, "fleet-nvidia-ctl: {warning}")?;
    }
    match path {
        Some(path) if fleet_host::is_toolkit(&path) => {
            let ours = fleet_host::config_path(&env, &cli.host());
            writeln!(
                out,
                "# from {}, NVIDIA's own: there is no {}",
                path.display(),
                ours.display()
            )?;
        }
        Some(path) => writeln!(out, "# from {}", path.display())?,
        None => writeln!(out, "# defaults: there is no configuration file")?,
    }
    for key in &file.without_effect {
        writeln!(out, "# without effect here: {key}")?;
    }
    // The directories depend on the user, so they are stated even where the file does not.
    let mut policy = file.policy;
    policy.spec_dirs = Some(fleet_host::spec_dirs(&policy, &env));
    write!(out, "{}", policy.to_toml())?;
    Ok(())
}
