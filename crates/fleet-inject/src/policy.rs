//! What an operator lets a container ask for, and how its hooks are run.

mod file;
mod print;
mod rule;
mod toolkit;

use std::borrow::Cow;
use std::path::PathBuf;

use fleet_cdi::QualifiedName;
use serde_json::Value;

pub use rule::Rule;

use crate::capabilities::Capabilities;
use crate::request::Source;

/// The configuration file as shipped: every setting explained, none changed.
pub const DEFAULT_CONFIG: &str = include_str!("../../../packaging/config/config.toml");

/// The settings of `config.toml`, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which engine's defaults apply.
    pub profile: Profile,
    /// Kind of a device id that names none, such as `0` or `GPU-…`.
    pub default_kind: String,
    /// Annotations whose key starts with one of these ask for devices.
    pub annotation_prefixes: Vec<String>,
    /// CDI directories, ascending priority; `None` means the usual ones of the caller.
    pub spec_dirs: Option<Vec<PathBuf>>,
    /// Variables that take the place of `NVIDIA_VISIBLE_DEVICES`, in this order.
    pub swarm_resource: Vec<String>,
    /// Which part of the driver is given.
    pub capabilities: CapabilityPolicy,
    /// What an image demands of the driver is not looked at.
    pub disable_require: bool,
    /// A CDI spec of another driver gives way to what the host has.
    pub heal: bool,
    /// Device nodes of a loaded driver that are missing are made.
    pub create_nodes: bool,
    /// IMEX channels are not given.
    pub ignore_imex: bool,
    /// Which sources may ask.
    pub sources: Sources,
    /// What each source may ask for.
    pub allow: Allow,
    /// Other limits for some containers; the first that fits counts.
    pub rules: Vec<Rule>,
    /// How hooks are run.
    pub hooks: HookPolicy,
    /// Where it is written down who got which device.
    pub audit: AuditPolicy,
    /// Other runtimes that run the containers, by name or absolute path; the first one that is installed does.
    pub runtimes: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            profile: Profile::Auto,
            default_kind: "nvidia.com/gpu".to_owned(),
            annotation_prefixes: vec!["cdi.k8s.io/".to_owned()],
            spec_dirs: None,
            swarm_resource: Vec::new(),
            capabilities: CapabilityPolicy::default(),
            disable_require: false,
            heal: true,
            create_nodes: true,
            ignore_imex: false,
            sources: Sources::default(),
            allow: Allow::default(),
            rules: Vec::new(),
            hooks: HookPolicy::default(),
            audit: AuditPolicy::default(),
            runtimes: Vec::new(),
        }
    }
}

/// Settings of `[audit]`; off unless one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPolicy {
    /// A file that gets one line of JSON per event.
    pub file: Option<PathBuf>,
    /// Events go to systemd's journal as well.
    pub journald: bool,
}

impl AuditPolicy {
    /// Whether anything is written.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.file.is_some() || self.journald
    }
}

/// Whose defaults apply where a setting is not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// `crio` for a container made through the CRI (told by its annotations), `podman` otherwise.
    #[default]
    Auto,
    /// One user's machine: an image may ask for devices.
    Podman,
    /// A cluster node: an unprivileged container gets no device because its image or pod sets a variable.
    Crio,
}

/// Settings about `NVIDIA_DRIVER_CAPABILITIES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityPolicy {
    /// For a container that names none.
    pub usual: Capabilities,
    /// The most that a container gets.
    pub supported: Capabilities,
    /// Everything is given, whatever a container names.
    pub ignore: bool,
}

impl Default for CapabilityPolicy {
    fn default() -> Self {
        Self {
            usual: Capabilities::ALL,
            supported: Capabilities::ALL,
            ignore: false,
        }
    }
}

/// Switches of `[sources]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// CDI names in annotations.
    pub cdi_annotations: bool,
    /// `/dev/null` mounted under `/var/run/nvidia-container-devices/`.
    pub volume_mounts: bool,
    /// `NVIDIA_VISIBLE_DEVICES`.
    pub environment: bool,
    /// The same for a container without `CAP_SYS_ADMIN`; `None` leaves it to the profile.
    pub environment_unprivileged: Option<bool>,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            cdi_annotations: true,
            volume_mounts: false,
            environment: true,
            environment_unprivileged: None,
        }
    }
}

/// Patterns of `[allow]`: `*`, `vendor/class` or `vendor/class=device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// For annotations.
    pub cdi_annotations: Vec<String>,
    /// For volume mounts.
    pub volume_mounts: Vec<String>,
    /// For the environment.
    pub environment: Vec<String>,
}

impl Default for Allow {
    fn default() -> Self {
        let all = || vec!["*".to_owned()];
        Self {
            cdi_annotations: all(),
            volume_mounts: all(),
            environment: all(),
        }
    }
}

/// Settings of `[hooks]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookPolicy {
    /// NVIDIA's hooks are done by our own code instead of running their program.
    pub native: bool,
    /// Hooks of other programs may come from CDI specs.
    pub foreign: bool,
    /// Seconds given to such a hook that brings no timeout.
    pub foreign_timeout: u32,
}

impl Default for HookPolicy {
    fn default() -> Self {
        Self {
            native: true,
            foreign: true,
            foreign_timeout: 30,
        }
    }
}

/// A configuration file as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFile {
    /// The settings.
    pub policy: Policy,
    /// One sentence per key that is not known here: an older version must run with a newer file.
    pub warnings: Vec<String>,
    /// Settings of NVIDIA's file that mean nothing here, by their dotted names.
    pub without_effect: Vec<String>,
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("configuration {file}:{line}: {problem}")]
pub struct PolicyError {
    /// Path of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

impl Policy {
    /// Reads the text of a configuration file; `file` is its path, for messages.
    ///
    /// # Errors
    /// Not TOML 1.0, a value of the wrong type, or one out of range, with its line.
    pub fn parse(text: &str, file: &str) -> Result<PolicyFile, PolicyError> {
        file::parse(text, file)
    }

    /// The same for NVIDIA's own configuration file: the settings that have a counterpart here.
    ///
    /// # Errors
    /// As for [`Policy::parse`].
    pub fn parse_toolkit(text: &str, file: &str) -> Result<PolicyFile, PolicyError> {
        toolkit::parse(text, file)
    }

    /// The settings as text of a configuration file, all of them stated.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::print(self)
    }

    /// Whether an unprivileged container may ask by environment; `by_cri` tells who made the container.
    pub(crate) fn accepts_unprivileged_environment(&self, by_cri: bool) -> bool {
        self.sources
            .environment_unprivileged
            .unwrap_or(match self.profile {
                Profile::Podman => true,
                Profile::Crio => false,
                Profile::Auto => !by_cri,
            })
    }

    /// The settings for one container: a rule that fits it takes the place of `[allow]`, and no other counts then.
    pub(crate) fn for_container(&self, spec: &Value) -> Cow<'_, Self> {
        match self.rules.iter().find(|rule| rule.fits(spec)) {
            None if self.rules.is_empty() => Cow::Borrowed(self),
            None => Cow::Owned(Self {
                rules: Vec::new(),
                ..self.clone()
            }),
            Some(rule) => Cow::Owned(Self {
                allow: Allow {
                    cdi_annotations: rule.allow.clone(),
                    volume_mounts: rule.allow.clone(),
                    environment: rule.allow.clone(),
                },
                rules: vec![rule.clone()],
                ..self.clone()
            }),
        }
    }

    /// Whether `name` may be asked for through `source`.
    pub(crate) fn allows(&self, source: &Source, name: &QualifiedName) -> bool {
        self.allowed_by(source)
            .iter()
            .any(|pattern| matches(pattern, name))
    }

    fn allowed_by(&self, source: &Source) -> &[String] {
        match source {
            Source::Annotation(_) => &self.allow.cdi_annotations,
            Source::VolumeMount(_) => &self.allow.volume_mounts,
            Source::Environment(_) | Source::LegacyImage => &self.allow.environment,
            Source::Command | Source::Engine => &[],
        }
    }
}

fn matches(pattern: &str, name: &QualifiedName) -> bool {
    match pattern.split_once('=') {
        None => pattern == "*" || pattern == name.kind(),
        Some((kind, device)) => kind == name.kind() && device == name.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_kinds_and_devices() {
        let name: QualifiedName = "nvidia.com/gpu=1:0".parse().unwrap();
        let cases = [
            ("*", true),
            ("nvidia.com/gpu", true),
            ("nvidia.com/gpu=1:0", true),
            ("nvidia.com/gpu=1", false),
            ("nvidia.com", false),
            ("amd.com/gpu", false),
            ("", false),
        ];
        for (pattern, want) in cases {
            assert_eq!(matches(pattern, &name), want, "{pattern}");
        }
    }

    #[test]
    fn the_profile_decides_for_unprivileged_containers() {
        let with = |profile, environment_unprivileged| Policy {
            profile,
            sources: Sources {
                environment_unprivileged,
                ..Sources::default()
            },
            ..Policy::default()
        };
        let cases = [
            (Profile::Auto, None, false, true),
            (Profile::Auto, None, true, false),
            (Profile::Podman, None, true, true),
            (Profile::Crio, None, false, false),
            (Profile::Crio, Some(true), true, true),
            (Profile::Podman, Some(false), false, false),
        ];
        for (profile, setting, by_cri, want) in cases {
            let policy = with(profile, setting);
            assert_eq!(
                policy.accepts_unprivileged_environment(by_cri),
                want,
                "{profile:?} {setting:?} {by_cri}"
            );
        }
    }
}
