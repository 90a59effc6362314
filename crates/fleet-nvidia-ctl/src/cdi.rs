//! `cdi list` and `cdi validate`.

use std::io::Write;
use std::path::{Path, PathBuf};

use fleet_cdi::{ContainerEdits, LoadedSpec, QualifiedName, Registry, RegistryError, read_spec};
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
        Cdi::List { json } => list(&registry(cli)?, *json, out, remarks),
        Cdi::Validate { files, json } => {
            let checked = match files.is_empty() {
                true => check_directories(&registry(cli)?),
                false => files.iter().map(|file| check_file(file)).collect(),
            };
            report(&checked, *json, out)
        }
    }
}

fn registry(cli: &Cli) -> Result<Registry, CtlError> {
    let (env, host) = (cli.env(), cli.host());
    let (file, _) = fleet_host::load_policy(&env, &host)?;
    Ok(host.registry(&fleet_host::spec_dirs(&file.policy, &env)))
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

/// One file or directory and what is wrong with it.
struct Checked {
    path: PathBuf,
    devices: usize,
    error: Option<String>,
}

fn check_file(path: &Path) -> Checked {
    match read_spec(path) {
        Ok(spec) => Checked {
            path: path.to_path_buf(),
            devices: spec.devices.len(),
            error: None,
        },
        Err(err) => Checked {
            path: path.to_path_buf(),
            devices: 0,
            error: Some(err.to_string()),
        },
    }
}

fn check_directories(registry: &Registry) -> Vec<Checked> {
    let valid = registry.specs().iter().map(|loaded| {
        let conflict = registry.errors().iter().find(|err| match err {
            RegistryError::Conflict { first, second, .. } => {
                *first == loaded.path || *second == loaded.path
            }
            _ => false,
        });
        let devices = loaded.spec.devices.len();
        Checked {
            path: loaded.path.clone(),
            devices,
            error: conflict.map(ToString::to_string),
        }
    });
    let broken = registry.errors().iter().filter_map(|err| {
        let path = match err {
            RegistryError::Spec(err) => err.path.clone(),
            RegistryError::Directory { path, .. } => path.clone(),
            _ => return None,
        };
        Some(Checked {
            path,
            devices: 0,
            error: Some(err.to_string()),
        })
    });
    valid.chain(broken).collect()
}

fn report(checked: &[Checked], as_json: bool, out: &mut dyn Write) -> Result<Verdict, CtlError> {
    if as_json {
        let one = |c: &Checked| json!({ "path": c.path, "valid": c.error.is_none(), "devices": c.devices, "error": c.error });
        let files: Vec<_> = checked.iter().map(one).collect();
        write_json(
            out,
            &json!({ "schemaVersion": SCHEMA_VERSION, "files": files }),
        )?;
    } else {
        for Checked {
            path,
            devices,
            error,
        } in checked
        {
            match error {
                None => writeln!(out, "{}: valid, {devices} devices", path.display())?,
                Some(error) => writeln!(out, "{}: {error}", path.display())?,
            }
        }
    }
    match checked.iter().any(|c| c.error.is_some()) {
        true => Ok(Verdict::Faulty),
        false => Ok(Verdict::Fine),
    }
}
