//! Which devices a container asks for, by whom, and what the policy refuses.
//!
//! Not here: whether the devices exist. A spec that asks for nothing costs a look at its annotations, mounts and
//! environment, and no allocation.

mod annotations;
mod environment;
mod error;
mod extras;
mod mounts;
mod names;
mod old_mig;

use std::fmt;

use fleet_cdi::QualifiedName;
use serde::Serialize;
use serde_json::Value;

pub use error::RequestError;
pub use old_mig::OldMig;

use crate::capabilities::{self, Limit, filter::is_nvidia};
use crate::policy::{HookPolicy, Policy};
use crate::{image, plan};

/// Most devices that one container may name.
const MAX_DEVICES: usize = 1024;
/// Longest list of device names read from one annotation or variable, in bytes.
const MAX_VALUE: usize = 64 * 1024;

/// What a container asks for and may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Devices, each once, in the order asked for.
    pub devices: Vec<Asked>,
    /// Devices that are given if the host has them.
    pub extras: Vec<Asked>,
    /// `none` was asked for: the driver's files of this kind, and no device.
    pub none_kind: Option<KindOnly>,
    /// Which part of NVIDIA's driver is given; `None` means all of it.
    pub capabilities: Option<Limit>,
    /// How the hooks that come with them are run.
    pub hooks: HookPolicy,
}

/// One device and who asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its CDI name.
    pub name: QualifiedName,
    /// Who asked.
    pub source: Source,
}

/// The request `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindOnly {
    /// `vendor/class`.
    pub kind: String,
    /// Who asked.
    pub source: Source,
}

/// Where a request or an edit comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "from", content = "name")]
pub enum Source {
    /// An annotation of this key.
    Annotation(String),
    /// A mount with this destination.
    VolumeMount(String),
    /// An environment variable of this name.
    Environment(String),
    /// A CUDA image older than `NVIDIA_VISIBLE_DEVICES`, which means all GPUs.
    LegacyImage,
    /// A command of the admin tool.
    Command,
    /// The engine had put it into the spec before.
    Engine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Annotation(key) => write!(f, "annotation {}", shown(key)),
            Self::VolumeMount(destination) => write!(f, "mount {}", shown(destination)),
            Self::Environment(variable) => write!(f, "variable {variable}"),
            Self::LegacyImage => f.write_str("variable CUDA_VERSION"),
            Self::Command => f.write_str("command line"),
            Self::Engine => f.write_str("engine"),
        }
    }
}

/// A request that the policy does not grant. The container starts without it, and the user is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Who asked.
    pub source: Source,
    /// For what, as written.
    pub asked: String,
    /// The setting that refuses it.
    pub setting: &'static str,
    /// The text of a setting that would grant it.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            asked,
            setting,
            remedy,
        } = self;
        write!(
            f,
            "{}, asked for by {source}, is refused by `{setting}`; hint: {remedy} in the configuration",
            shown(asked)
        )
    }
}

/// What was read from a spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestOutcome {
    /// What is granted.
    pub request: Request,
    /// What is not.
    pub refused: Vec<Refusal>,
    /// Requests that have no effect here, one sentence each.
    pub warnings: Vec<String>,
}

/// What one source asks for.
#[derive(Debug, Default)]
struct Wanted {
    devices: Vec<Asked>,
    none: Option<KindOnly>,
}

impl Request {
    /// Reads the request of a container. Annotations come before volume mounts, these before the environment; the
    /// first that asks for something decides. A pod's sandbox container gets nothing.
    ///
    /// # Errors
    /// A name that is no CDI name, a mixture without meaning, or an absurd number of names.
    pub fn from_spec(spec: &Value, policy: &Policy) -> Result<RequestOutcome, RequestError> {
        let mut outcome = RequestOutcome::default();
        outcome.request.hooks = policy.hooks.clone();
        if image::is_sandbox(spec) {
            return Ok(outcome);
        }
        let policy = &*policy.for_container(spec);
        for read in [annotations::read, mounts::read, environment::read] {
            let wanted = read(spec, policy, &mut outcome)?;
            if outcome.grant(wanted, policy)? {
                break;
            }
        }
        if outcome.request.is_for_nvidia() {
            extras::read(spec, policy, &mut outcome)?;
            outcome.request.capabilities = capabilities::of_spec(spec, policy)?;
        }
        Ok(outcome)
    }

    /// These devices, whatever a container's spec or a policy says.
    #[must_use]
    pub fn for_devices(names: &[QualifiedName], hooks: HookPolicy) -> Self {
        let mut request = Self {
            hooks,
            ..Self::default()
        };
        for name in names {
            let asked = Asked {
                name: name.clone(),
                source: Source::Command,
            };
            if !request.devices.contains(&asked) {
                request.devices.push(asked);
            }
        }
        request
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.none_kind.is_none()
    }

    /// Whether a device of NVIDIA's is among them.
    #[must_use]
    pub fn is_for_nvidia(&self) -> bool {
        let none = self.none_kind.iter().map(|none| none.kind.as_str());
        let devices = self.devices.iter().map(|asked| asked.name.kind());
        devices.chain(none).any(is_nvidia)
    }

    /// The names to resolve.
    #[must_use]
    pub fn names(&self) -> Vec<QualifiedName> {
        self.devices
            .iter()
            .map(|asked| asked.name.clone())
            .collect()
    }
}

impl RequestOutcome {
    /// Whether anything was granted.
    fn grant(&mut self, wanted: Wanted, policy: &Policy) -> Result<bool, RequestError> {
        if let Some(none) = wanted.none {
            let name = names::of_kind(&none.kind, "none", &none.source)?;
            match policy.allows(&none.source, &name) {
                true => self.request.none_kind = Some(none),
                false => {
                    let source = none.source;
                    self.refused
                        .push(not_allowed(&Asked { name, source }, policy));
                }
            }
        }
        self.grant_devices(wanted.devices, policy)?;
        Ok(!self.request.is_empty())
    }

    /// Each device once, if the policy allows it.
    fn grant_devices(&mut self, devices: Vec<Asked>, policy: &Policy) -> Result<(), RequestError> {
        let count = devices.len();
        for asked in devices {
            if count > MAX_DEVICES {
                return Err(RequestError::TooMany {
                    origin: asked.source,
                    count,
                });
            }
            let known = &mut self.request.devices;
            if !policy.allows(&asked.source, &asked.name) {
                self.refused.push(not_allowed(&asked, policy));
            } else if !known.iter().any(|other| other.name == asked.name) {
                known.push(asked);
            }
        }
        Ok(())
    }

    fn refuse(&mut self, source: Source, asked: &str, setting: &'static str) {
        self.refused.push(Refusal {
            source,
            asked: asked.to_owned(),
            setting,
            remedy: format!("`{setting} = true`"),
        });
    }
}

fn not_allowed(asked: &Asked, policy: &Policy) -> Refusal {
    let setting = match asked.source {
        _ if !policy.rules.is_empty() => "rule.allow",
        Source::Annotation(_) => "allow.cdi-annotations",
        Source::VolumeMount(_) => "allow.volume-mounts",
        _ => "allow.environment",
    };
    let remedy = match policy.rules.first() {
        Some(rule) => format!("{:?} added to `allow` of {rule}", asked.name.kind()),
        None => format!("{:?} added to `{setting}`", asked.name.kind()),
    };
    Refusal {
        source: asked.source.clone(),
        asked: asked.name.to_string(),
        setting,
        remedy,
    }
}

/// Whether anything in the spec may need the policy, the CDI directories or our own hooks. `false` means that
/// [`Request::from_spec`] finds nothing under any policy and that [`crate::Plan`] would be empty.
#[must_use]
pub fn concerns(spec: &Value) -> bool {
    let asks = annotations::may_ask(spec) || mounts::may_ask(spec) || environment::may_ask(spec);
    (asks && !image::is_sandbox(spec)) || plan::has_nvidia_hook(spec)
}

/// A text from the container, quoted and shortened so that it cannot disturb a log or a terminal.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 96;
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    match text.char_indices().nth(LONGEST) {
        None if plain && !text.is_empty() => text.to_owned(),
        None => format!("{text:?}"),
        Some((end, _)) => format!(
            "{:?}… ({} bytes)",
            text.get(..end).unwrap_or_default(),
            text.len()
        ),
    }
}

fn within_limit(value: &str, source: &Source) -> Result<(), RequestError> {
    match value.len() {
        bytes if bytes > MAX_VALUE => Err(RequestError::TooLong {
            origin: source.clone(),
            bytes,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
