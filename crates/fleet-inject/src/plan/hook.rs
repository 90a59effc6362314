//! Hooks: NVIDIA's become edits of our own, whether a CDI spec states them or an engine did; others stay programs.

use std::fmt;
use std::str::FromStr;

use fleet_cdi::Hook;
use fleet_rootfs::{HookProgram, NO_MEMORY_LIMITS, recognise};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Change, Context, Edit, Origin, Plan, PlanError};
use crate::host::HostProbe;
use crate::request::Source;
use crate::spec;

/// Base names of the program by which NVIDIA's legacy runtime injects.
const LEGACY: [&str; 2] = ["nvidia-container-runtime-hook", "nvidia-container-toolkit"];

/// When a hook runs (`runtime-spec config.md#posix-platform-hooks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Deprecated; after the namespaces are made.
    Prestart,
    /// After the namespaces are made, in the runtime's.
    CreateRuntime,
    /// After the mounts are made, before the root is changed.
    CreateContainer,
    /// In the container, before its program.
    StartContainer,
    /// After the program was started.
    Poststart,
    /// After the container was deleted.
    Poststop,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// The member of `hooks` in the OCI spec.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// Whether the program is one of the host and its failure stops the container.
    pub(super) fn must_be_on_host(self) -> bool {
        matches!(
            self,
            Self::Prestart | Self::CreateRuntime | Self::CreateContainer
        )
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let stage = Self::ALL.into_iter().find(|stage| stage.key() == name);
        stage.ok_or_else(|| format!("\"{name}\" is not a stage of hooks"))
    }
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HookEdit {
    /// Absolute path.
    pub path: String,
    /// Arguments, the program's name first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its whole environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: u32,
}

impl HookEdit {
    /// The entry of `hooks` in the OCI spec.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut hook = Map::new();
        hook.insert("path".to_owned(), self.path.as_str().into());
        for (key, list) in [("args", &self.args), ("env", &self.env)] {
            if !list.is_empty() {
                hook.insert(key.to_owned(), list.clone().into());
            }
        }
        hook.insert("timeout".to_owned(), self.timeout.into());
        Value::Object(hook)
    }
}

/// Adds one hook of a CDI spec.
pub(super) fn add(entry: &Hook, context: &Context<'_>, plan: &mut Plan) -> Result<(), PlanError> {
    let failed = |cause: String| PlanError::Hook {
        path: entry.path.clone(),
        of: context.of.clone(),
        cause,
    };
    let stage: Stage = entry.hook_name.parse().map_err(failed)?;
    let program = recognise(&entry.path, &entry.args);
    let is_ours = stage == Stage::CreateContainer && context.hooks.native;
    match program {
        Ok(HookProgram::Foreign) if !context.hooks.foreign => {
            let setting = "`hooks.foreign = false` in the configuration";
            return Err(failed(format!(
                "programs of CDI specs are refused by {setting}"
            )));
        }
        Ok(HookProgram::Native(edits)) if is_ours => {
            edits
                .into_iter()
                .for_each(|edit| plan.push(context, Change::Rootfs(edit)));
        }
        Ok(HookProgram::UnknownNvidiaHook { name })
            if is_ours && !context.probe.exists(&entry.path) =>
        {
            plan.warnings.push(unknown(&name, &context.of));
        }
        Ok(HookProgram::MemoryLimits) if is_ours && !context.limits_memory => {}
        Ok(HookProgram::MemoryLimits) if is_ours && !context.probe.exists(&entry.path) => {
            return Err(failed(NO_MEMORY_LIMITS.to_owned()));
        }
        Err(err) if is_ours => return Err(failed(err.to_string())),
        _ if stage.must_be_on_host() && !context.probe.exists(&entry.path) => {
            return Err(failed("the program is missing".to_owned()));
        }
        _ => plan.push(context, run(entry, stage, context.hooks.foreign_timeout)),
    }
    Ok(())
}

/// The hook as a program. Its timeout counts if it is one: the Go library passes 0 and less on.
fn run(entry: &Hook, stage: Stage, usual_timeout: u32) -> Change {
    let stated = entry
        .timeout
        .and_then(|seconds| u32::try_from(seconds).ok());
    let hook = HookEdit {
        path: entry.path.clone(),
        args: entry.args.clone(),
        env: entry.env.clone(),
        timeout: stated
            .filter(|seconds| *seconds > 0)
            .unwrap_or(usual_timeout),
    };
    Change::Hook { stage, hook }
}

/// Takes over what an engine has put into `hooks.createContainer`.
pub(super) fn adopt(spec: &Value, probe: &dyn HostProbe, plan: &mut Plan) -> Result<(), PlanError> {
    for hook in spec::list(spec, "/hooks/createContainer") {
        let path = spec::text(hook, "path");
        let failed = |cause: String| PlanError::Hook {
            path: path.to_owned(),
            of: "the OCI spec".to_owned(),
            cause,
        };
        let program = recognise(path, &args(hook)).map_err(|err| failed(err.to_string()))?;
        let edits = match program {
            HookProgram::Native(edits) => edits,
            HookProgram::MemoryLimits if !limits_memory(spec) => Vec::new(),
            HookProgram::MemoryLimits if !probe.exists(path) => {
                return Err(failed(NO_MEMORY_LIMITS.to_owned()));
            }
            HookProgram::UnknownNvidiaHook { name } if !probe.exists(path) => {
                plan.warnings.push(unknown(&name, "the OCI spec"));
                Vec::new()
            }
            _ => continue,
        };
        remove(hook, Stage::CreateContainer, plan);
        plan.edits.extend(
            edits
                .into_iter()
                .map(|edit| by_engine(Change::Rootfs(edit))),
        );
    }
    Ok(())
}

/// Whether the container's environment asks for limits of GPU memory.
pub(super) fn limits_memory(spec: &Value) -> bool {
    let env = spec::list(spec, "/process/env").iter();
    fleet_rootfs::asks_for_memory_limits(env.filter_map(Value::as_str))
}

/// NVIDIA's legacy hook would inject a second time, by rules of its own.
pub(super) fn remove_legacy(spec: &Value, plan: &mut Plan) {
    let prestart = spec::list(spec, "/hooks/prestart").iter();
    prestart
        .filter(|hook| is_legacy(hook))
        .for_each(|hook| remove(hook, Stage::Prestart, plan));
}

/// Whether the spec has a hook that a plan would take over or remove.
pub(crate) fn has_nvidia_hook(spec: &Value) -> bool {
    let is_known = |hook: &Value| {
        !matches!(
            recognise(spec::text(hook, "path"), &args(hook)),
            Ok(HookProgram::Foreign)
        )
    };
    spec::list(spec, "/hooks/prestart").iter().any(is_legacy)
        || spec::list(spec, "/hooks/createContainer")
            .iter()
            .any(is_known)
}

fn is_legacy(hook: &Value) -> bool {
    let path = spec::text(hook, "path");
    LEGACY.contains(&path.rsplit('/').next().unwrap_or(path))
}

fn remove(hook: &Value, stage: Stage, plan: &mut Plan) {
    plan.edits.push(by_engine(Change::RemoveHook {
        stage,
        hook: hook.clone(),
    }));
}

fn by_engine(change: Change) -> Edit {
    Edit {
        change,
        origin: Origin {
            source: Source::Engine,
            spec_file: None,
            device: None,
        },
    }
}

fn args(hook: &Value) -> Vec<String> {
    let args = spec::list(hook, "/args").iter();
    args.map(|arg| arg.as_str().unwrap_or_default().to_owned())
        .collect()
}

fn unknown(name: &str, of: &str) -> String {
    format!("hook \"{name}\" of {of} is left out: it is not known here and its program is missing")
}
