//! `cdi`: the specs and their devices.

pub(crate) mod devices;
pub(crate) mod diff;
pub(crate) mod transform;
pub(crate) mod validate;

use std::io::Write;
use std::path::PathBuf;

use fleet_cdi::{ContainerEdits, LoadedSpec, QualifiedName, Registry};
use fleet_host::Host;
use serde_json::{Value, json};

use crate::cli::{Cdi, Cli};
use crate::{CtlError, Verdict, write_json};

/// Grows when a field of the JSON forms changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

pub(crate) fn run(
    cli: &Cli,
    command: &Cdi,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    match command {
        Cdi::Generate(args) => crate::generate::run(cli, args, out, remarks),
        Cdi::Refresh(args) => crate::generate::refresh(cli, args, out, remarks),
        Cdi::List { spec_dir, json } => list(&registry_in(cli, spec_dir)?, *json, out, remarks),
        Cdi::Validate(args) => validate::run(cli, args, out),
        Cdi::Inject(args) => devices::inject(cli, args, out),
        Cdi::Resolve(args) => devices::resolve(cli, args, out),
        Cdi::Diff(args) => diff::run(args, out),
        Cdi::Transform(command) => transform::run(command, out, remarks),
    }
}

fn registry(cli: &Cli) -> Result<Registry, CtlError> {
    let (env, host) = (cli.env(), cli.host());
    let (file, _) = fleet_host::load_policy(&env, &host)?;
    Ok(host.registry(&fleet_host::spec_dirs(&file.policy, &env)))
}

/// In these directories, if any is given; an empty word is an empty variable.
fn registry_in(cli: &Cli, dirs: &[String]) -> Result<Registry, CtlError> {
    let given = dirs.iter().filter(|dir| !dir.is_empty());
    let given: Vec<PathBuf> = given.map(PathBuf::from).collect();
    match given.is_empty() {
        true => registry(cli),
        false => Ok(cli.host().registry(&given)),
    }
}

type Found<'a> = (&'a QualifiedName, &'a LoadedSpec);

fn list(
    registry: &Registry,
    as_json: bool,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    let devices = registry.devices();
    let found: Vec<Found<'_>> = devices
        .iter()
        .filter_map(|name| Some((name, registry.spec_of(name)?)))
        .collect();
    if as_json {
        let entries: Vec<_> = found
            .iter()
            .map(|(name, loaded)| entry(name, loaded))
            .collect();
        let errors: Vec<_> = registry.errors().iter().map(ToString::to_string).collect();
        let document =
            json!({ "schemaVersion": SCHEMA_VERSION, "devices": entries, "errors": errors });
        write_json(out, &document)?;
        return Ok(Verdict::Fine);
    }
    write_lines(&found, out)?;
    for err in registry.errors() {
        writeln!(remarks, "fleet-nvidia-ctl: {err}")?;
    }
    if found.is_empty() {
        writeln!(
            remarks,
            "fleet-nvidia-ctl: there is no CDI device in {}",
            directories(registry)
        )?;
    }
    Ok(Verdict::Fine)
}

fn directories(registry: &Registry) -> String {
    let dirs: Vec<_> = registry
        .dirs()
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    if dirs.is_empty() {
        "any CDI directory".to_owned()
    } else {
        dirs.join(", ")
    }
}

fn write_lines(found: &[Found<'_>], out: &mut dyn Write) -> Result<(), CtlError> {
    let width = found
        .iter()
        .map(|(name, _)| name.to_string().len())
        .max()
        .unwrap_or(0);
    for (name, loaded) in found {
        writeln!(
            out,
            "{:width$}  {}",
            name.to_string(),
            loaded.path.display()
        )?;
    }
    Ok(())
}

fn entry(name: &QualifiedName, loaded: &LoadedSpec) -> Value {
    let device = loaded
        .spec
        .devices
        .iter()
        .find(|device| device.name == name.name());
    json!({
        "name": name,
        "spec": loaded.path,
        "cdiVersion": loaded.spec.cdi_version,
        "annotations": device.map(|device| &device.annotations),
        "edits": device.map(|device| counts(&device.container_edits)),
        "commonEdits": counts(&loaded.spec.container_edits),
    })
}

fn counts(edits: &ContainerEdits) -> Value {
    json!({
        "env": edits.env.len(),
        "deviceNodes": edits.device_nodes.iter().map(|node| &node.path).collect::<Vec<_>>(),
        "mounts": edits.mounts.len(),
        "hooks": edits.hooks.len(),
        "netDevices": edits.net_devices.len(),
        "additionalGids": edits.additional_gids,
    })
}

#[cfg(test)]
mod tests;
