//! The settings of NVIDIA's own `config.toml` that have a counterpart here, for machines that have no file of ours.
//!
//! Only what the file states counts; what it leaves out keeps our default, also where NVIDIA's is another.

use toml::de::DeTable;

use super::file::{Entry, Reader};
use super::{Policy, PolicyError, PolicyFile};
use crate::capabilities::Capabilities;
use crate::image::SWARM_PREFIX;

type Result<T> = std::result::Result<T, PolicyError>;

pub(super) fn parse(text: &str, file: &str) -> Result<PolicyFile> {
    let mut reader = Reader::new(text, file);
    let table = reader.table()?;
    let mut found = PolicyFile::default();
    Toolkit {
        reader: &mut reader,
        found: &mut found,
    }
    .section("", table.get_ref())?;
    found.warnings = reader.into_warnings();
    Ok(found)
}

struct Toolkit<'a, 'r> {
    reader: &'a mut Reader<'r>,
    found: &'a mut PolicyFile,
}

impl Toolkit<'_, '_> {
    /// Keys by their path, `features.ignore-imex-channel-requests`.
    fn section(&mut self, path: &str, table: &DeTable<'_>) -> Result<()> {
        for entry in self.reader.entries(table) {
            let path = match path {
                "" => entry.0.to_owned(),
                path => format!("{path}.{}", entry.0),
            };
            match entry.2.get_ref().as_table() {
                Some(table) => self.section(&path, table)?,
                None => self.key(&path, &entry)?,
            }
        }
        Ok(())
    }

    fn key(&mut self, path: &str, entry: &Entry<'_>) -> Result<()> {
        let Self { reader, found } = self;
        let policy = &mut found.policy;
        match path {
            "disable-require" => policy.disable_require = reader.flag(entry)?,
            "swarm-resource" => swarm(reader, policy, entry)?,
            "accept-nvidia-visible-devices-envvar-when-unprivileged" => {
                policy.sources.environment_unprivileged = Some(reader.flag(entry)?);
            }
            "accept-nvidia-visible-devices-as-volume-mounts" => {
                policy.sources.volume_mounts = reader.flag(entry)?;
            }
            "supported-driver-capabilities" => {
                policy.capabilities.supported = capabilities(reader, entry)?;
            }
            // Its program loads modules and makes their nodes by this one; modules are never loaded here.
            "nvidia-container-cli.load-kmods" => policy.create_nodes = reader.flag(entry)?,
            "features.ignore-imex-channel-requests" => policy.ignore_imex = reader.flag(entry)?,
            "nvidia-container-runtime.modes.cdi.default-kind" => {
                policy.default_kind = reader.kind(entry)?;
            }
            "nvidia-container-runtime.modes.cdi.annotation-prefixes" => {
                policy.annotation_prefixes = reader.prefixes(entry)?;
            }
            "nvidia-container-runtime.modes.cdi.spec-dirs" => {
                policy.spec_dirs = Some(reader.dirs(entry)?);
            }
            _ => found.without_effect.push(path.to_owned()),
        }
        Ok(())
    }
}

fn items<'e>(reader: &Reader<'_>, entry: &Entry<'e>) -> Result<Vec<&'e str>> {
    let list = reader.string(entry)?.split(',').map(str::trim);
    Ok(list.filter(|item| !item.is_empty()).collect())
}

fn capabilities(reader: &Reader<'_>, entry: &Entry<'_>) -> Result<Capabilities> {
    let list = items(reader, entry)?;
    Capabilities::of_names(list).map_err(|name| reader.not_a_capability(entry, name))
}

/// Others than Docker's cannot be seen without reading the file for every container.
fn swarm(reader: &mut Reader<'_>, policy: &mut Policy, entry: &Entry<'_>) -> Result<()> {
    let (ours, others): (Vec<&str>, Vec<&str>) = items(reader, entry)?
        .into_iter()
        .partition(|name| name.starts_with(SWARM_PREFIX));
    policy.swarm_resource = ours.into_iter().map(str::to_owned).collect();
    for name in others {
        reader.warn(
            entry,
            &format!(
                "has {name:?}, which does not start with \"{SWARM_PREFIX}\" and is passed over"
            ),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As NVIDIA's tool writes it, some comments taken away.
    const FILE: &str = r#"
accept-nvidia-visible-devices-as-volume-mounts = true
accept-nvidia-visible-devices-envvar-when-unprivileged = false
disable-require = true
supported-driver-capabilities = "compute,utility"
swarm-resource = "DOCKER_RESOURCE_GPU, OTHER"

[nvidia-container-cli]
environment = []
ldconfig = "@/sbin/ldconfig.real"
load-kmods = false

[nvidia-container-runtime]
log-level = "info"
mode = "auto"
runtimes = ["runc", "crun"]

[nvidia-container-runtime.modes.cdi]
annotation-prefixes = ["cdi.k8s.io/", "x/"]
default-kind = "nvidia.com/pgpu"
spec-dirs = ["/opt/cdi"]

[features]
ignore-imex-channel-requests = true
"#;

    #[test]
    fn settings_with_a_counterpart_count() {
        let found = parse(FILE, "/c").unwrap();
        let policy = found.policy;
        assert!(policy.disable_require && policy.ignore_imex && policy.sources.volume_mounts);
        assert_eq!(policy.sources.environment_unprivileged, Some(false));
        assert!(!policy.create_nodes);
        assert_eq!(policy.capabilities.supported.to_string(), "compute,utility");
        assert_eq!(policy.swarm_resource, ["DOCKER_RESOURCE_GPU"]);
        assert_eq!(policy.annotation_prefixes, ["cdi.k8s.io/", "x/"]);
        assert_eq!(policy.default_kind, "nvidia.com/pgpu");
        assert_eq!(policy.spec_dirs, Some(vec!["/opt/cdi".into()]));
        assert_eq!(
            found.warnings,
            [
                "configuration /c:6: `swarm-resource` has \"OTHER\", which does not start with \"DOCKER_RESOURCE_\" and is passed over"
            ]
        );
        assert_eq!(
            found.without_effect,
            [
                "nvidia-container-cli.environment",
                "nvidia-container-cli.ldconfig",
                "nvidia-container-runtime.log-level",
                "nvidia-container-runtime.mode",
                "nvidia-container-runtime.runtimes",
            ]
        );
    }

    #[test]
    fn what_the_file_leaves_out_keeps_our_default() {
        assert_eq!(parse("", "/c").unwrap(), PolicyFile::default());
    }

    #[test]
    fn wrong_values_are_errors_with_their_line() {
        let cases = [
            (
                "disable-require = \"x\"",
                "configuration /c:1: `disable-require` is of type string, not true or false",
            ),
            (
                "supported-driver-capabilities = \"cuda\"",
                "configuration /c:1: `supported-driver-capabilities` has \"cuda\", which is no driver capability; known are all, compat32,compute,display,graphics,ngx,utility,video",
            ),
            (
                "[nvidia-container-runtime.modes.cdi]\ndefault-kind = \"x\"",
                "configuration /c:2: `default-kind` is \"x\", not of the form \"vendor/class\"",
            ),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text, "/c").unwrap_err().to_string(), want);
        }
        assert!(parse("[", "/c").is_err());
    }
}
