//! `cdi transform root`: a spec made for one root, for another.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use fleet_cdi::{Format, RootTransform, Side, Spec, Version, encode_spec, parse, write_spec};

use crate::{CtlError, Verdict};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Transform {
    /// Move the paths of a spec from one root directory to another
    Root(Root),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Root {
    /// Root that the paths have
    #[arg(long, value_name = "DIR", default_value = "/")]
    from: String,
    /// Root that they get
    #[arg(long, value_name = "DIR", default_value = "/")]
    to: String,
    /// Whose paths: those on the host, or those in the container
    #[arg(long, value_enum, default_value = "host")]
    relative_to: RelativeTo,
    /// Spec file, - for standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Where to write, - or nothing for standard output; the format is that of its name
    #[arg(long, value_name = "FILE", default_value = "-", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    output: PathBuf,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RelativeTo {
    Host,
    Container,
}

pub(super) fn run(
    Transform::Root(args): &Transform,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    let (mut spec, format) = read(&args.input)?;
    let side = match args.relative_to {
        RelativeTo::Host => Side::Host,
        RelativeTo::Container => Side::Container,
    };
    RootTransform::new(&args.from, &args.to, side).apply(&mut spec);
    let needed = Version::needed(&spec);
    if Version::parse(&spec.cdi_version).is_none_or(|declared| declared < needed) {
        let told = &spec.cdi_version;
        writeln!(
            remarks,
            "fleet-nvidia-ctl: the result needs CDI {needed} instead of {told}"
        )?;
        spec.cdi_version = needed.to_string();
    }
    let format = match (args.json, args.output.extension()) {
        (true, _) => Format::Json,
        (false, Some(ending)) if ending == "json" => Format::Json,
        (false, Some(ending)) if ending == "yaml" || ending == "yml" => Format::Yaml,
        _ => format,
    };
    match is_standard(&args.output) {
        true => out.write_all(encode_spec(&spec, format)?.as_bytes())?,
        false => write_spec(&spec, &args.output, format)?,
    }
    Ok(Verdict::Fine)
}

fn is_standard(path: &Path) -> bool {
    path == Path::new("-") || path.as_os_str().is_empty()
}

/// JSON begins with a brace, whatever the file's name: it may come through a pipe.
fn read(input: &Path) -> Result<(Spec, Format), CtlError> {
    let failed = |cause: String| CtlError::Read {
        path: input.display().to_string(),
        cause,
    };
    let mut bytes = Vec::new();
    match is_standard(input) {
        true => io::stdin().lock().read_to_end(&mut bytes).map(drop),
        false => fs::read(input).map(|read| bytes = read),
    }
    .map_err(|err| failed(err.to_string()))?;
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let format = match first {
        Some(b'{') => Format::Json,
        _ => Format::Yaml,
    };
    let spec = parse(&bytes, format).map_err(|err| failed(format!("is invalid: {err}")))?;
    Ok((spec, format))
}
