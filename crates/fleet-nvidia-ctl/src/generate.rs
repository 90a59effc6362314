//! `cdi generate`: from the machine to spec files.

mod args;
mod refresh;
mod source;
#[cfg(test)]
mod tests;
mod toolkit;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};

use fleet_cdi::{Format, Spec, encode_spec, write_spec};
use fleet_discover::{Generated, Machine, Output, generate};
use fleet_host::gpu::Inventory;

pub(crate) use args::Generate;
pub(crate) use refresh::{Refresh, RefreshError, run as refresh};

use crate::cli::Cli;
use crate::{CtlError, Verdict};

/// No spec was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GenerateError {
    #[error("generate a CDI spec: {0}")]
    Discover(#[from] fleet_discover::DiscoverError),
    #[error("generate a CDI spec: {0}")]
    Argument(String),
    #[error(transparent)]
    Write(#[from] fleet_cdi::WriteError),
}

pub(crate) fn run(
    cli: &Cli,
    args: &Generate,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    let format = format(args, args.output())?;
    let made = make(cli, args, remarks)?;
    write(&made.output.specs, args.output(), format, out, remarks)?;
    Ok(Verdict::Fine)
}

/// The specs of a machine, and what they were made from.
struct Made {
    machine: Machine,
    inventory: Option<Inventory>,
    output: Output,
}

/// The specs of the machine, in memory.
fn make(cli: &Cli, args: &Generate, remarks: &mut dyn Write) -> Result<Made, CtlError> {
    let mut options = args.options()?;
    options.generator = concat!("fleet-nvidia-ctl ", env!("CARGO_PKG_VERSION")).to_owned();
    let root = cli.root_dir.as_deref().unwrap_or_else(|| Path::new("/"));
    let driver = args.driver_root().map(str::to_owned);
    let driver = driver.or_else(|| toolkit::driver_root(root));
    let driver = driver.unwrap_or_else(|| "/".to_owned());
    let dev = args.dev_root().unwrap_or(&driver);
    let system = args.system_root.as_deref().unwrap_or(root);
    let machine = Machine::open(root, &driver, dev, system).map_err(GenerateError::from)?;
    let told = source::inventory(&machine, &options, args.source)?;
    for remark in &told.remarks {
        warn(remarks, remark)?;
    }
    let output =
        generate(&machine, told.inventory.as_ref(), &options).map_err(GenerateError::from)?;
    tell(
        &output,
        options.newest.map(|version| version.to_string()),
        remarks,
    )?;
    Ok(Made {
        machine,
        inventory: told.inventory,
        output,
    })
}

fn warn(remarks: &mut dyn Write, text: &str) -> Result<(), CtlError> {
    writeln!(remarks, "fleet-nvidia-ctl: warning: {text}")?;
    Ok(())
}

fn tell(output: &Output, newest: Option<String>, remarks: &mut dyn Write) -> Result<(), CtlError> {
    for warning in &output.warnings {
        warn(remarks, warning)?;
    }
    let newest = newest.unwrap_or_default();
    let mut told: Vec<&String> = Vec::new();
    for lost in output.specs.iter().flat_map(|generated| &generated.lost) {
        if !told.contains(&lost) {
            warn(remarks, &format!("for readers of CDI {newest}: {lost}"))?;
            told.push(lost);
        }
    }
    Ok(())
}

/// As asked for, else by the file's name, else YAML.
fn format(args: &Generate, output: Option<&Path>) -> Result<Format, GenerateError> {
    let by_name = output.and_then(|path| match path.extension().and_then(OsStr::to_str) {
        Some(end) if end.eq_ignore_ascii_case("json") => Some(Format::Json),
        Some(end) if end.eq_ignore_ascii_case("yaml") || end.eq_ignore_ascii_case("yml") => {
            Some(Format::Yaml)
        }
        _ => None,
    });
    match args
        .format
        .as_deref()
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        Some("json") => Ok(Format::Json),
        Some("yaml") => Ok(Format::Yaml),
        Some(other) => Err(GenerateError::Argument(format!(
            "format `{other}` is not known; hint: json or yaml"
        ))),
        None => Ok(by_name.unwrap_or(Format::Yaml)),
    }
}

/// Everything is put into words before the first file is touched.
fn write(
    specs: &[Generated],
    output: Option<&Path>,
    format: Format,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<(), CtlError> {
    for generated in specs {
        let text = encode_spec(&generated.spec, format).map_err(GenerateError::from)?;
        if output.is_none() {
            out.write_all(text.as_bytes())?;
        }
    }
    for generated in specs {
        let place = match output {
            None => "standard output".to_owned(),
            Some(path) => {
                let path = with_infix(path, generated.infix);
                write_spec(&generated.spec, &path, format).map_err(GenerateError::from)?;
                path.display().to_string()
            }
        };
        let Spec {
            kind,
            devices,
            cdi_version,
            ..
        } = &generated.spec;
        let count = devices.len();
        let noun = if count == 1 { "device" } else { "devices" };
        writeln!(
            remarks,
            "fleet-nvidia-ctl: {place}: {kind}, {count} {noun}, CDI {cdi_version}"
        )?;
    }
    Ok(())
}

/// `nvidia.yaml` and `.coherent` make `nvidia.coherent.yaml`.
fn with_infix(path: &Path, infix: &str) -> PathBuf {
    if infix.is_empty() {
        return path.to_path_buf();
    }
    let part = |part: Option<&OsStr>| part.unwrap_or_default().to_os_string();
    let mut name = part(path.file_stem());
    name.push(infix);
    if let Some(end) = path.extension() {
        name.push(".");
        name.push(end);
    }
    path.with_file_name(name)
}
