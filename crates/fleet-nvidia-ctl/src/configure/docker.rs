//! Docker: `runtimes` in daemon.json, which has no drop-ins.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{ConfigureError, Plan, Remark, Site, json_file};
use crate::toml_file::BadFile;

const RUNTIMES: &str = "runtimes";
const DEFAULT: &str = "default-runtime";

/// The daemon's file.
#[derive(Debug)]
struct Daemon {
    path: PathBuf,
    text: String,
    object: Map<String, Value>,
}

impl Daemon {
    fn read(site: &Site) -> Result<Self, ConfigureError> {
        let path = site.dir("docker").join("daemon.json");
        let text = site.files.read(&path)?.unwrap_or_default();
        let object = json_file::parse(&path, &text)?;
        Ok(Self { path, text, object })
    }

    fn at(&self, keys: &[&str]) -> String {
        format!(
            "{}:{}",
            self.path.display(),
            json_file::line(&self.text, keys)
        )
    }

    /// The table of runtimes, made where it is missing.
    fn runtimes(&mut self) -> Result<&mut Map<String, Value>, BadFile> {
        let line = json_file::line(&self.text, &[RUNTIMES]);
        let path = self.path.clone();
        let value = self
            .object
            .entry(RUNTIMES)
            .or_insert_with(|| Value::Object(Map::new()));
        value.as_object_mut().ok_or_else(|| BadFile {
            path,
            line,
            problem: format!("`{RUNTIMES}` is not an object"),
        })
    }

    /// A runtime's program, in one of Docker's two forms.
    fn program(&self, name: &str) -> Option<&str> {
        let entry = self.object.get(RUNTIMES)?.get(name)?;
        let path = entry
            .get("path")
            .or_else(|| entry.pointer("/options/BinaryName"));
        Some(path.and_then(Value::as_str).unwrap_or_default())
    }

    fn check(&self, site: &Site) -> Result<(), ConfigureError> {
        match self.program(&site.name) {
            Some(program) if !site.is_ours(program) => Err(ConfigureError::Foreign {
                at: self.at(&[RUNTIMES, &site.name]),
                what: format!("runtime `{}`, which is {program},", site.name),
            }),
            _ => Ok(()),
        }
    }
}

/// Runtimes whose program is this one.
pub(super) fn names_of_ours(site: &Site) -> Result<Vec<String>, ConfigureError> {
    let daemon = Daemon::read(site)?;
    let all = daemon.object.get(RUNTIMES).and_then(Value::as_object);
    let names = all.into_iter().flat_map(|all| all.keys());
    let is_ours = |name: &&String| {
        daemon
            .program(name)
            .is_some_and(|program| site.is_ours(program))
    };
    Ok(names.filter(is_ours).cloned().collect())
}

/// The program of the runtime of this name.
pub(super) fn program(site: &Site) -> Result<Option<String>, ConfigureError> {
    let daemon = Daemon::read(site)?;
    Ok(daemon.program(&site.name).map(str::to_owned))
}

pub(super) fn plan(site: &Site) -> Result<Plan, ConfigureError> {
    let mut daemon = Daemon::read(site)?;
    daemon.check(site)?;
    let before = daemon.object.clone();
    match site.remove {
        true => remove(site, &mut daemon)?,
        false => add(site, &mut daemon)?,
    }
    let mut plan = Plan::new(site.remove);
    let after = match (
        daemon.object == before,
        site.remove && daemon.object.is_empty(),
    ) {
        (true, _) if before.is_empty() => site.files.read(&daemon.path)?,
        // An equal object is not printed anew, whatever its spaces.
        (true, _) => Some(daemon.text.clone()),
        (_, true) => None,
        _ => Some(json_file::print(&daemon.object, &daemon.text)),
    };
    plan.file(&site.files, &daemon.path, after)?;
    plan.remarks.extend(features(&daemon, site));
    Ok(plan)
}

fn add(site: &Site, daemon: &mut Daemon) -> Result<(), ConfigureError> {
    let runtimes = daemon.runtimes()?;
    let entry = runtimes
        .entry(site.name.clone())
        .or_insert_with(|| json!({}));
    match entry.as_object_mut() {
        Some(entry) => match entry.get_mut("options").and_then(Value::as_object_mut) {
            Some(options) if options.contains_key("BinaryName") => {
                options.insert("BinaryName".to_owned(), json!(site.program));
            }
            _ => {
                entry.insert("path".to_owned(), json!(site.program));
            }
        },
        None => *entry = json!({"path": site.program}),
    }
    if site.default {
        daemon.object.insert(DEFAULT.to_owned(), json!(site.name));
    }
    Ok(())
}

fn remove(site: &Site, daemon: &mut Daemon) -> Result<(), ConfigureError> {
    if daemon.object.contains_key(RUNTIMES) {
        let runtimes = daemon.runtimes()?;
        let was_there = runtimes.shift_remove(&site.name).is_some();
        if was_there && runtimes.is_empty() {
            daemon.object.shift_remove(RUNTIMES);
        }
    }
    if daemon.object.get(DEFAULT).and_then(Value::as_str) == Some(&site.name) {
        daemon.object.shift_remove(DEFAULT);
    }
    Ok(())
}

/// Docker 25 to 28.1 resolve `--device vendor/class=name` with this switch alone.
fn features(daemon: &Daemon, site: &Site) -> Option<Remark> {
    let off = daemon.object.get("features")?.get("cdi")?.as_bool() == Some(false);
    (off && !site.remove).then(|| {
        Remark::Note(format!(
            "{} switches CDI off: `--device nvidia.com/gpu=…` is refused by Docker; NVIDIA_VISIBLE_DEVICES works with this runtime",
            daemon.at(&["features", "cdi"])
        ))
    })
}
