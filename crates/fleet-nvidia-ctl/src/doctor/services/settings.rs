//! Which services are asked: from the command line, else from a file, else where they usually are.

use std::path::Path;

use super::net::Url;
use crate::files::Files;
use crate::toml_file::TomlFile;

/// The file that counts without `--services`.
const FILE: &str = "/etc/fleet-nvidia/services.toml";
/// Kinds and where they usually listen.
const KINDS: [(&str, &str, u16); 5] = [
    ("vllm", "http", 8000),
    ("redis", "redis", 6379),
    ("neo4j", "http", 7474),
    ("bolt", "bolt", 7687),
    ("nats", "nats", 4222),
];

/// A service to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) kind: String,
    pub(crate) url: Url,
    pub(crate) password: Option<String>,
    /// Nobody has named it: whether it is there is not known to be a fault.
    pub(crate) guessed: bool,
}

/// The services to ask. `given` are `KIND=ADDRESS`, `file` is that of the command line.
pub(crate) fn all(
    files: &Files,
    given: &[String],
    file: Option<&Path>,
    password: Option<String>,
) -> Result<Vec<Service>, String> {
    let mut services = given
        .iter()
        .map(|text| {
            let (kind, url) = text
                .split_once('=')
                .ok_or_else(|| format!("service {text:?} is not of the form KIND=ADDRESS"))?;
            service(kind, url)
        })
        .collect::<Result<Vec<_>, _>>()?;
    match (services.is_empty(), file) {
        (_, Some(file)) => services.extend(of_file(files, file, true)?),
        (true, None) => services.extend(of_file(files, Path::new(FILE), false)?),
        _ => {}
    }
    if services.is_empty() {
        let usual = KINDS.iter().map(|(kind, scheme, port)| {
            let service = service(kind, &format!("{scheme}://127.0.0.1:{port}"))?;
            Ok::<_, String>(Service {
                guessed: true,
                ..service
            })
        });
        services = usual.collect::<Result<_, _>>()?;
    }
    for service in &mut services {
        if service.kind == "redis" && service.password.is_none() {
            service.password.clone_from(&password);
        }
    }
    Ok(services)
}

fn service(kind: &str, url: &str) -> Result<Service, String> {
    let known = KINDS.iter().find(|(known, ..)| *known == kind);
    let (_, _, port) = known.ok_or_else(|| {
        let kinds: Vec<_> = KINDS.iter().map(|(kind, ..)| *kind).collect();
        format!(
            "{kind:?} is no service that can be asked; hint: {}",
            kinds.join(", ")
        )
    })?;
    Ok(Service {
        kind: kind.to_owned(),
        url: Url::parse(url, *port)?,
        password: None,
        guessed: false,
    })
}

/// One table per service: `[redis]` with `url`, and `password` or `password-file`.
fn of_file(files: &Files, path: &Path, must: bool) -> Result<Vec<Service>, String> {
    let file = match TomlFile::read(files, path).map_err(|err| err.to_string())? {
        Some(file) => file,
        None if must => return Err(format!("services file {} is missing", path.display())),
        None => return Ok(Vec::new()),
    };
    let mut services = Vec::new();
    for (kind, _) in file.table(&[]).into_iter().flat_map(|table| table.iter()) {
        let at = |why: String| format!("{}: {why}", file.at(&[kind]));
        let url = file
            .text(&[kind, "url"])
            .ok_or_else(|| at(format!("[{kind}] has no `url`")))?;
        let mut service = service(kind, url).map_err(at)?;
        service.password = match file.text(&[kind, "password-file"]) {
            None => file.text(&[kind, "password"]).map(str::to_owned),
            Some(path) => {
                let text = files.read(Path::new(path)).map_err(|err| err.to_string())?;
                let text = text.ok_or_else(|| at(format!("password file {path} is missing")))?;
                Some(text.trim_end_matches('\n').to_owned())
            }
        };
        services.push(service);
    }
    Ok(services)
}
