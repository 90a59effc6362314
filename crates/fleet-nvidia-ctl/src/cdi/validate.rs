//! `cdi validate`: whether spec files are valid, who can read them, and whether they say what this host has.

use std::io::Write;
use std::path::{Path, PathBuf};

use fleet_cdi::{Registry, RegistryError, Spec, Version, read_spec};
use fleet_host::{HostRoot, SpecFault, check_spec};
use fleet_inject::HookPolicy;
use serde_json::{Value, json};

use super::{SCHEMA_VERSION, registry};
use crate::cli::Cli;
use crate::{CtlError, Verdict, write_json};

/// Versions that readers in use know at most, old Podman first.
const READERS: [&str; 5] = ["0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"];

#[derive(Debug, clap::Args)]
pub(crate) struct Validate {
    /// Files named .json or .yaml
    files: Vec<PathBuf>,
    /// Do not compare with this host: the files are another one's
    #[arg(long)]
    no_host: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(cli: &Cli, args: &Validate, out: &mut dyn Write) -> Result<Verdict, CtlError> {
    let env = cli.env();
    let (file, _) = fleet_host::load_policy(&env, &cli.host())?;
    let dirs = fleet_host::spec_dirs(&file.policy, &env);
    let host = Compared {
        host: cli.host(),
        hooks: file.policy.hooks,
        skip: args.no_host,
    };
    let checked: Vec<Checked> = match args.files.is_empty() {
        true => directories(&registry(cli)?, &host),
        false => args.files.iter().map(|file| one(file, &host)).collect(),
    };
    match args.json {
        true => {
            let files: Vec<Value> = checked.iter().map(Checked::json).collect();
            let document = json!({ "schemaVersion": SCHEMA_VERSION, "files": files });
            write_json(out, &document)?;
        }
        false if checked.is_empty() => {
            let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
            writeln!(out, "there is no CDI spec in {}", dirs.join(", "))?;
        }
        false => checked.iter().try_for_each(|checked| checked.write(out))?,
    }
    match checked.iter().all(Checked::is_fine) {
        true => Ok(Verdict::Fine),
        false => Ok(Verdict::Faulty),
    }
}

/// What specs are compared with.
struct Compared {
    host: HostRoot,
    hooks: HookPolicy,
    skip: bool,
}

/// One file or directory and what is wrong with it.
struct Checked {
    path: PathBuf,
    error: Option<String>,
    spec: Option<Spec>,
    faults: Vec<SpecFault>,
}

fn one(path: &Path, host: &Compared) -> Checked {
    match read_spec(path) {
        Ok(spec) => Checked::new(path, spec, None, host),
        Err(err) => Checked::broken(path, err.to_string()),
    }
}

fn directories(registry: &Registry, host: &Compared) -> Vec<Checked> {
    let valid = registry.specs().iter().map(|loaded| {
        let conflict = registry.errors().iter().find(|err| match err {
            RegistryError::Conflict { first, second, .. } => {
                *first == loaded.path || *second == loaded.path
            }
            _ => false,
        });
        let conflict = conflict.map(ToString::to_string);
        Checked::new(&loaded.path, loaded.spec.clone(), conflict, host)
    });
    let broken = registry.errors().iter().filter_map(|err| match err {
        RegistryError::Spec(spec) => Some(Checked::broken(&spec.path, err.to_string())),
        RegistryError::Directory { path, .. } => Some(Checked::broken(path, err.to_string())),
        _ => None,
    });
    valid.chain(broken).collect()
}

impl Checked {
    fn new(path: &Path, spec: Spec, error: Option<String>, host: &Compared) -> Self {
        let faults = match host.skip {
            true => Vec::new(),
            false => check_spec(&spec, &host.host, &host.hooks),
        };
        Self {
            path: path.to_path_buf(),
            error,
            spec: Some(spec),
            faults,
        }
    }

    fn broken(path: &Path, error: String) -> Self {
        Self {
            path: path.to_path_buf(),
            error: Some(error),
            spec: None,
            faults: Vec::new(),
        }
    }

    fn is_fine(&self) -> bool {
        self.error.is_none() && self.faults.is_empty()
    }

    fn write(&self, out: &mut dyn Write) -> Result<(), CtlError> {
        let path = self.path.display();
        if let Some(error) = &self.error {
            writeln!(out, "{path}: {error}")?;
        }
        let Some(spec) = &self.spec else {
            return Ok(());
        };
        if self.error.is_none() {
            let devices = spec.devices.len();
            let version = spec.cdi_version.trim_start_matches('v');
            writeln!(out, "{path}: valid, {devices} devices, CDI {version}")?;
        }
        write_readers(spec, out)?;
        for SpecFault { fault, devices } in &self.faults {
            let of = match devices.is_empty() {
                true => "all devices".to_owned(),
                false => devices.join(", "),
            };
            writeln!(
                out,
                "  {} {} {} (of {of})",
                fault.what, fault.path, fault.problem
            )?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let spec = self.spec.as_ref();
        let fault = |found: &SpecFault| {
            let fault = &found.fault;
            json!({ "what": fault.what, "path": fault.path, "problem": fault.problem, "devices": found.devices })
        };
        json!({
            "path": self.path,
            "valid": self.error.is_none(),
            "devices": spec.map_or(0, |spec| spec.devices.len()),
            "error": self.error,
            "cdiVersion": spec.map(|spec| spec.cdi_version.trim_start_matches('v')),
            "neededVersion": spec.map(|spec| Version::needed(spec).to_string()),
            "readers": spec.map(readers_json),
            "faults": self.faults.iter().map(fault).collect::<Vec<_>>(),
        })
    }
}

/// Why a reader that knows versions up to this one refuses the file.
fn refusals(spec: &Spec, reader: &str) -> Vec<String> {
    let Some(reader) = Version::parse(reader) else {
        return Vec::new();
    };
    let needs = spec
        .needs()
        .into_iter()
        .filter(|need| need.version > reader);
    let mut why: Vec<_> = needs
        .map(|need| format!("{} needs {}", need.what, need.version))
        .collect();
    if why.is_empty() && Version::parse(&spec.cdi_version).is_some_and(|declared| declared > reader)
    {
        why.push(format!(
            "it declares {}, though {} would do",
            spec.cdi_version.trim_start_matches('v'),
            Version::needed(spec)
        ));
    }
    why
}

fn readers_json(spec: &Spec) -> Value {
    let one = |reader: &&str| {
        let why = refusals(spec, reader);
        json!({ "version": reader, "reads": why.is_empty(), "why": why })
    };
    READERS.iter().map(one).collect()
}

/// One line per cause; the newest reader that has it names it for the older ones.
fn write_readers(spec: &Spec, out: &mut dyn Write) -> Result<(), CtlError> {
    let refused: Vec<_> = READERS
        .iter()
        .map(|reader| (*reader, refusals(spec, reader)))
        .take_while(|(_, why)| !why.is_empty())
        .collect();
    let Some((_, why)) = refused.last() else {
        return Ok(());
    };
    let readers: Vec<_> = refused.iter().map(|(reader, _)| *reader).collect();
    let first = why.first().map_or("", String::as_str);
    let more = match why.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    writeln!(
        out,
        "  readers of CDI {} refuse it: {first}{more}",
        readers.join(", ")
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleet_cdi::{Format, parse};

    use super::*;

    fn spec(version: &str, edits: &str) -> Spec {
        let text = format!(
            "cdiVersion: {version}\nkind: a.com/b\ndevices:\n- name: x\n  containerEdits: {edits}\n"
        );
        parse(text.as_bytes(), Format::Yaml).unwrap()
    }

    fn lines(spec: &Spec) -> String {
        let mut out = Vec::new();
        write_readers(spec, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn readers_refuse_what_they_do_not_know() {
        let groups = spec("0.7.0", "{additionalGids: [44]}");
        assert_eq!(
            lines(&groups),
            "  readers of CDI 0.5.0, 0.6.0 refuse it: additionalGids of device \"x\" needs 0.7.0\n"
        );
        let careless = spec("v1.0.0", "{env: [A=1]}");
        assert_eq!(
            lines(&careless),
            "  readers of CDI 0.5.0, 0.6.0, 0.7.0, 0.8.0 refuse it: it declares 1.0.0, though 0.3.0 would do\n"
        );
        let newest = spec("1.1.0", "{netDevices: [{hostInterfaceName: a, name: b}]}");
        assert!(
            lines(&newest).contains("0.8.0, 1.0.0 refuse it: netDevices"),
            "{}",
            lines(&newest)
        );
        assert_eq!(lines(&spec("0.5.0", "{env: [A=1]}")), "");
    }
}
