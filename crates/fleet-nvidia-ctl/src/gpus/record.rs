//! What the runtime remembers of its containers, read only.
//!
//! The files are the runtime's (`fleet-lifecycle`, `record.rs`); unknown fields are passed over, so that records of a
//! newer one can be read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fleet_host::Env;
use serde_json::Value;

use super::gpu::DevNum;
use super::rules::Rules;
use crate::files::Files;

/// A container.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) status: &'static str,
    /// Of its first process, as the machine counts.
    pub(crate) pid: u64,
    pub(crate) created: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// The plan it was injected by, in the form of `explain --json`.
    pub(crate) plan: Option<Value>,
    /// The spec it was made from, edits included.
    pub(crate) spec: Value,
    /// The program of another runtime that runs it.
    pub(crate) runtime: Option<String>,
    cgroup: String,
}

/// A device in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) device: Option<String>,
    pub(crate) spec_file: Option<String>,
    pub(crate) source: Value,
}

impl Granted {
    /// Nobody asked for it, but it can be opened.
    pub(super) fn by_cgroup() -> Self {
        Self {
            device: None,
            spec_file: None,
            source: serde_json::json!({"from": "cgroup"}),
        }
    }
}

/// Where engines let the runtime keep its records. A `*` stands for any directory.
const ROOTS: [&str; 4] = [
    "/run/fleet-nvidia",
    "/run/containerd/runc/*",
    "/run/docker/runtime-runc/*",
    "/run/user/*/fleet-nvidia",
];

/// All containers, and what could not be read.
pub(crate) fn all(files: &Files, given: &[PathBuf], env: &Env) -> (Vec<Record>, Vec<String>) {
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    for root in roots(files, given, env) {
        for dir in files.entries(&root).unwrap_or_default() {
            match read(files, &dir) {
                Ok(record) => records.extend(record),
                Err(why) => damaged.push(why),
            }
        }
    }
    records.sort_by(|a, b| a.created.cmp(&b.created));
    (records, damaged)
}

/// The record of one container, by its id or a unique start of it.
pub(crate) fn find(files: &Files, id: &str, env: &Env) -> Result<Option<Record>, String> {
    let (mut records, _) = all(files, &[], env);
    if let Some(at) = records.iter().position(|record| record.id == id) {
        return Ok(Some(records.swap_remove(at)));
    }
    records.retain(|record| record.id.starts_with(id));
    match records.len() {
        0 | 1 => Ok(records.pop()),
        count => Err(format!(
            "{count} containers have an id that starts with {id}; hint: give more of it"
        )),
    }
}

fn roots(files: &Files, given: &[PathBuf], env: &Env) -> Vec<PathBuf> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let mut roots = Vec::new();
    for root in ROOTS {
        match root.split_once("/*") {
            None => roots.push(PathBuf::from(root)),
            Some((parent, rest)) => {
                let below = files.entries(Path::new(parent)).unwrap_or_default();
                roots.extend(
                    below
                        .into_iter()
                        .map(|dir| dir.join(rest.trim_start_matches('/'))),
                );
            }
        }
    }
    let own = env.runtime_dir().map(|dir| dir.join("fleet-nvidia"));
    roots.extend(own.filter(|_| env.rootless()));
    roots.sort();
    roots.dedup();
    roots
}

/// `None` for a directory that is no record of ours: runc keeps its own in the same place.
fn read(files: &Files, dir: &Path) -> Result<Option<Record>, String> {
    let json = |name: &str| -> Result<Option<Value>, String> {
        let path = dir.join(name);
        let text = files.read(&path).map_err(|err| err.to_string())?;
        let parse = |text: String| {
            serde_json::from_str(&text)
                .map_err(|err| format!("{} is damaged: {err}", path.display()))
        };
        text.map(parse).transpose()
    };
    let Some(state) = json("state.json")? else {
        return Ok(None);
    };
    let text = |key: &str| {
        state
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if state.get("version").and_then(Value::as_u64).is_none() || state.get("cgroup").is_none() {
        return Ok(None);
    }
    let spec = json("config.json")?.unwrap_or_default();
    Ok(Some(Record {
        id: text("id"),
        status: status(files, dir, &state),
        pid: state.get("pid").and_then(Value::as_u64).unwrap_or(0),
        created: text("created"),
        labels: fleet_host::labels(&spec),
        plan: json("plan.json")?,
        cgroup: state
            .pointer("/cgroup/path")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        runtime: state
            .pointer("/delegate/program")
            .and_then(Value::as_str)
            .map(str::to_owned),
        spec,
    }))
}

/// As the runtime's `state`, but for `paused`, which is not looked at.
fn status(files: &Files, dir: &Path, state: &Value) -> &'static str {
    let number = |key: &str| state.get(key).and_then(Value::as_u64).unwrap_or(0);
    let pid = number("pid");
    if pid == 0 {
        return "creating";
    }
    let stat = files
        .read(Path::new(&format!("/proc/{pid}/stat")))
        .ok()
        .flatten();
    // After the command's name, which may hold spaces: first the state, 7th the flags, 20th the start time
    // (`man 5 proc_pid_stat`).
    let fields = stat
        .as_deref()
        .and_then(|stat| stat.rsplit_once(") "))
        .map(|(_, rest)| rest);
    let mut fields = fields.unwrap_or_default().split(' ');
    let zombie = fields
        .next()
        .is_none_or(|state| matches!(state, "" | "Z" | "X"));
    let mut after = |skipped| fields.nth(skipped).and_then(|field| field.parse().ok());
    let (flags, started): (Option<u64>, Option<u64>) = (after(5), after(12));
    match (zombie, started == Some(number("startTime"))) {
        (false, true) if waits(files, dir, state, flags.unwrap_or(0)) => "created",
        (false, true) => "running",
        _ => "stopped",
    }
}

/// Whether the living first process waits for `start`. What tells it is the runtime's own (`fleet-lifecycle`,
/// `Container::waits`), or the FIFO that crun and runc both take away when they start it.
fn waits(files: &Files, dir: &Path, state: &Value, flags: u64) -> bool {
    const PF_FORKNOEXEC: u64 = 0x40;
    let text = |at: &str| state.pointer(at).and_then(Value::as_str);
    if let Some(root) = text("/delegate/root") {
        let id = text("/id").unwrap_or_default();
        return files.exists(&Path::new(root).join(id).join("exec.fifo"));
    }
    files.exists(&dir.join("notify.sock"))
        || files.exists(&dir.join("notify.taken")) && flags & PF_FORKNOEXEC != 0
}

impl Record {
    /// The device with these numbers, if the container has it, with its origin.
    pub(crate) fn granted(&self, number: DevNum) -> Option<Granted> {
        let devices = self.spec.pointer("/linux/devices")?.as_array()?;
        let is = |device: &&Value, key: &str, want: i64| {
            device.get(key).and_then(Value::as_i64) == Some(want)
        };
        let device = devices.iter().find(|device| {
            is(device, "major", number.major) && is(device, "minor", number.minor)
        })?;
        Some(self.origin(device.get("path")?.as_str()?))
    }

    /// Who wants a device node, by the plan; what is not in it was the engine's.
    pub(crate) fn origin(&self, path: &str) -> Granted {
        let edits = self
            .plan
            .as_ref()
            .and_then(|plan| plan.get("edits")?.as_array());
        let edit = edits.into_iter().flatten().find(|edit| {
            let text = |key: &str| edit.get(key).and_then(Value::as_str);
            text("change") == Some("device") && text("path") == Some(path)
        });
        let origin = |key: &str| edit.and_then(|edit| edit.get("origin")?.get(key));
        let text = |key: &str| origin(key).and_then(Value::as_str).map(str::to_owned);
        Granted {
            device: text("device"),
            spec_file: text("specFile"),
            source: origin("source")
                .cloned()
                .unwrap_or_else(|| serde_json::json!({"from": "engine"})),
        }
    }

    /// What its cgroup lets it open now.
    pub(super) fn rules(&self, files: &Files) -> Option<Rules> {
        let own = self.cgroup.trim_matches('/');
        (!own.is_empty()).then(|| Rules::read(files, own)).flatten()
    }

    /// What it asked for and was refused, in the runtime's words.
    pub(crate) fn refused(&self) -> Vec<String> {
        let told = |refusal: &Value| {
            let text = |at: &str| {
                let text = refusal.pointer(at).and_then(Value::as_str);
                text.unwrap_or_default()
            };
            format!(
                "{}, asked for by {}, is refused by `{}`; hint: {} in the configuration",
                text("/asked"),
                super::table::source(refusal.get("source").unwrap_or(&Value::Null)),
                text("/setting"),
                text("/remedy")
            )
        };
        self.list("refused").map(told).collect()
    }

    /// What the runtime warned of when it made the container.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let texts = self.list("warnings").filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// A list of its plan.
    pub(super) fn list(&self, key: &str) -> impl Iterator<Item = &Value> {
        let list = self
            .plan
            .as_ref()
            .and_then(|plan| plan.get(key)?.as_array());
        list.into_iter().flatten()
    }

    /// Whether a cgroup is the container's or lies below it.
    pub(crate) fn owns(&self, cgroup: &str) -> bool {
        let own = self.cgroup.trim_matches('/');
        let rest = cgroup.trim_start_matches('/').strip_prefix(own);
        !own.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}
