//! The text of `config.toml`. An unknown key is a warning and a wrong value an error, each with its line.

use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Policy, PolicyError, PolicyFile, Profile, Rule};
use crate::capabilities::Capabilities;

pub(super) type Entry<'a> = (&'a str, Range<usize>, &'a Spanned<DeValue<'a>>);

pub(super) fn parse(text: &str, file: &str) -> Result<PolicyFile, PolicyError> {
    let mut reader = Reader::new(text, file);
    let table = reader.table()?;
    let mut policy = Policy::default();
    for entry in reader.entries(table.get_ref()) {
        reader.top(&mut policy, &entry)?;
    }
    Ok(PolicyFile {
        policy,
        warnings: reader.into_warnings(),
        without_effect: Vec::new(),
    })
}

/// A file being read, and what is to be said about it.
pub(super) struct Reader<'a> {
    text: &'a str,
    file: &'a str,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, file: &'a str) -> Self {
        Self {
            text,
            file,
            warnings: Vec::new(),
        }
    }

    pub(super) fn table(&self) -> Result<Spanned<DeTable<'a>>, PolicyError> {
        DeTable::parse(self.text).map_err(|err| {
            let at = err.span().unwrap_or(0..0);
            self.error(&at, err.message().replace('\n', ", "))
        })
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    fn top(&mut self, policy: &mut Policy, entry: &Entry<'_>) -> Result<(), PolicyError> {
        match entry.0 {
            "profile" => policy.profile = self.profile(entry)?,
            "default-kind" => policy.default_kind = self.kind(entry)?,
            "annotation-prefixes" => policy.annotation_prefixes = self.prefixes(entry)?,
            "spec-dirs" => policy.spec_dirs = Some(self.dirs(entry)?),
            "swarm-resource" => policy.swarm_resource = self.swarm(entry)?,
            "driver-capabilities" => policy.capabilities.usual = self.capabilities(entry)?,
            "supported-driver-capabilities" => {
                policy.capabilities.supported = self.capabilities(entry)?
            }
            "ignore-driver-capabilities" => policy.capabilities.ignore = self.flag(entry)?,
            "disable-require" => policy.disable_require = self.flag(entry)?,
            "rebuild-stale-specs" => policy.heal = self.flag(entry)?,
            "create-device-nodes" => policy.create_nodes = self.flag(entry)?,
            "ignore-imex-channel-requests" => policy.ignore_imex = self.flag(entry)?,
            "runtimes" => policy.runtimes = self.runtimes(entry)?,
            "sources" => self.section(policy, entry, Self::sources)?,
            "allow" => self.section(policy, entry, Self::allow)?,
            "rule" => policy.rules = self.rules(entry)?,
            "hooks" => self.section(policy, entry, Self::hooks)?,
            "audit" => self.section(policy, entry, Self::audit)?,
            _ => self.unknown("", entry),
        }
        Ok(())
    }

    fn section(
        &mut self,
        policy: &mut Policy,
        entry: &Entry<'_>,
        read: fn(&mut Self, &mut Policy, &Entry<'_>) -> Result<(), PolicyError>,
    ) -> Result<(), PolicyError> {
        let table = entry
            .2
            .get_ref()
            .as_table()
            .ok_or_else(|| self.wrong(entry, "a table"))?;
        self.entries(table)
            .iter()
            .try_for_each(|inner| read(self, policy, inner))
    }

    fn sources(&mut self, policy: &mut Policy, entry: &Entry<'_>) -> Result<(), PolicyError> {
        match entry.0 {
            "cdi-annotations" => policy.sources.cdi_annotations = self.flag(entry)?,
            "volume-mounts" => policy.sources.volume_mounts = self.flag(entry)?,
            "environment" => policy.sources.environment = self.flag(entry)?,
            "environment-unprivileged" => {
                policy.sources.environment_unprivileged = Some(self.flag(entry)?)
            }
            _ => self.unknown("sources.", entry),
        }
        Ok(())
    }

    fn allow(&mut self, policy: &mut Policy, entry: &Entry<'_>) -> Result<(), PolicyError> {
        match entry.0 {
            "cdi-annotations" => policy.allow.cdi_annotations = self.patterns(entry)?,
            "volume-mounts" => policy.allow.volume_mounts = self.patterns(entry)?,
            "environment" => policy.allow.environment = self.patterns(entry)?,
            _ => self.unknown("allow.", entry),
        }
        Ok(())
    }

    /// A condition that is not known must not be passed over: without it the rule would fit more containers.
    fn rules(&self, entry: &Entry<'_>) -> Result<Vec<Rule>, PolicyError> {
        let all = entry.2.get_ref().as_array();
        let all = all.ok_or_else(|| self.wrong(entry, "a list of tables, [[rule]]"))?;
        let rules = all.iter().map(|item| {
            let item = ("rule", item.span(), item);
            let table = item.2.get_ref().as_table();
            let table = table.ok_or_else(|| self.wrong(&item, "a table"))?;
            let (mut rule, mut allow) = (Rule::default(), None);
            for inner in self.entries(table) {
                match inner.0 {
                    "namespaces" => rule.namespaces = Some(self.strings(&inner)?),
                    "annotations" => rule.annotations = self.prefixes(&inner)?,
                    "allow" => allow = Some(self.patterns(&inner)?),
                    _ => {
                        let problem =
                            "is not known in a rule; known are namespaces, annotations, allow";
                        return Err(self.value(&inner, problem.to_owned()));
                    }
                }
            }
            rule.allow = allow.ok_or_else(|| self.value(&item, "has no `allow`".to_owned()))?;
            Ok(rule)
        });
        rules.collect()
    }

    fn hooks(&mut self, policy: &mut Policy, entry: &Entry<'_>) -> Result<(), PolicyError> {
        match entry.0 {
            "native" => policy.hooks.native = self.flag(entry)?,
            "foreign" => policy.hooks.foreign = self.flag(entry)?,
            "foreign-timeout" => policy.hooks.foreign_timeout = self.seconds(entry)?,
            _ => self.unknown("hooks.", entry),
        }
        Ok(())
    }

    fn audit(&mut self, policy: &mut Policy, entry: &Entry<'_>) -> Result<(), PolicyError> {
        match entry.0 {
            "file" => policy.audit.file = Some(self.path(entry)?),
            "journald" => policy.audit.journald = self.flag(entry)?,
            _ => self.unknown("audit.", entry),
        }
        Ok(())
    }

    fn path(&self, entry: &Entry<'_>) -> Result<PathBuf, PolicyError> {
        let path = self.string(entry)?;
        match path.starts_with('/') && !path.ends_with('/') {
            true => Ok(PathBuf::from(path)),
            false => Err(self.value(
                entry,
                format!("is {path:?}, not the absolute path of a file"),
            )),
        }
    }

    fn profile(&self, entry: &Entry<'_>) -> Result<Profile, PolicyError> {
        match self.string(entry)? {
            "auto" => Ok(Profile::Auto),
            "podman" => Ok(Profile::Podman),
            "crio" => Ok(Profile::Crio),
            other => Err(self.value(
                entry,
                format!("is {other:?}, not \"auto\", \"podman\" or \"crio\""),
            )),
        }
    }

    pub(super) fn kind(&self, entry: &Entry<'_>) -> Result<String, PolicyError> {
        let kind = self.string(entry)?;
        if !is_kind(kind) {
            return Err(self.value(
                entry,
                format!("is {kind:?}, not of the form \"vendor/class\""),
            ));
        }
        Ok(kind.to_owned())
    }

    pub(super) fn prefixes(&self, entry: &Entry<'_>) -> Result<Vec<String>, PolicyError> {
        let list = self.strings(entry)?;
        match list.iter().any(String::is_empty) {
            // An empty prefix would read every annotation as a list of devices.
            true => Err(self.value(entry, "has an empty prefix".to_owned())),
            false => Ok(list),
        }
    }

    pub(super) fn dirs(&self, entry: &Entry<'_>) -> Result<Vec<PathBuf>, PolicyError> {
        let list = self.strings(entry)?;
        match list.iter().find(|dir| !dir.starts_with('/')) {
            Some(dir) => {
                Err(self.value(entry, format!("has {dir:?}, which is not an absolute path")))
            }
            None => Ok(list.into_iter().map(PathBuf::from).collect()),
        }
    }

    /// The prefix is Docker's own for generic resources of a swarm; it lets us see without the file that no such
    /// variable is set.
    fn swarm(&self, entry: &Entry<'_>) -> Result<Vec<String>, PolicyError> {
        let list = self.strings(entry)?;
        match list
            .iter()
            .find(|name| !name.starts_with(crate::image::SWARM_PREFIX))
        {
            Some(name) => {
                let problem = format!(
                    "has {name:?}, which does not start with \"{}\"",
                    crate::image::SWARM_PREFIX
                );
                Err(self.value(entry, problem))
            }
            None => Ok(list),
        }
    }

    /// A name is looked for in fixed directories, so a relative path would lead out of them.
    fn runtimes(&self, entry: &Entry<'_>) -> Result<Vec<String>, PolicyError> {
        let list = self.strings(entry)?;
        let usable = |name: &&String| match name.strip_prefix('/') {
            Some(rest) => !rest.is_empty() && !name.contains('\0'),
            None => !name.is_empty() && !name.contains(['/', '\0']) && !name.starts_with('.'),
        };
        match list.iter().find(|name| !usable(name)) {
            Some(name) => {
                let problem =
                    format!("has {name:?}, which is neither a program's name nor an absolute path");
                Err(self.value(entry, problem))
            }
            None => Ok(list),
        }
    }

    fn capabilities(&self, entry: &Entry<'_>) -> Result<Capabilities, PolicyError> {
        let list = self.strings(entry)?;
        Capabilities::of_names(list.iter().map(String::as_str))
            .map_err(|name| self.not_a_capability(entry, name))
    }

    pub(super) fn not_a_capability(&self, entry: &Entry<'_>, name: &str) -> PolicyError {
        let known = Capabilities::ALL;
        let problem =
            format!("has {name:?}, which is no driver capability; known are all, {known}");
        self.value(entry, problem)
    }

    fn patterns(&self, entry: &Entry<'_>) -> Result<Vec<String>, PolicyError> {
        let list = self.strings(entry)?;
        match list.iter().find(|pattern| !is_pattern(pattern)) {
            Some(bad) => {
                let problem =
                    format!("has {bad:?}, not \"*\", \"vendor/class\" or \"vendor/class=device\"");
                Err(self.value(entry, problem))
            }
            None => Ok(list),
        }
    }

    fn seconds(&self, entry: &Entry<'_>) -> Result<u32, PolicyError> {
        let number = entry
            .2
            .get_ref()
            .as_integer()
            .ok_or_else(|| self.wrong(entry, "a number of seconds"))?;
        match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(seconds) if (1..=3600).contains(&seconds) => Ok(seconds),
            _ => Err(self.value(
                entry,
                format!("is {number}, not between 1 and 3600 seconds"),
            )),
        }
    }

    pub(super) fn flag(&self, entry: &Entry<'_>) -> Result<bool, PolicyError> {
        entry
            .2
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.wrong(entry, "true or false"))
    }

    pub(super) fn string<'e>(&self, entry: &Entry<'e>) -> Result<&'e str, PolicyError> {
        entry
            .2
            .get_ref()
            .as_str()
            .ok_or_else(|| self.wrong(entry, "a string"))
    }

    fn strings(&self, entry: &Entry<'_>) -> Result<Vec<String>, PolicyError> {
        let list = entry
            .2
            .get_ref()
            .as_array()
            .ok_or_else(|| self.wrong(entry, "a list of strings"))?;
        let texts = list
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned));
        texts
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| self.wrong(entry, "a list of strings"))
    }

    /// In the order of the file, so that messages come in that order too.
    pub(super) fn entries<'e>(&self, table: &'e DeTable<'e>) -> Vec<Entry<'e>> {
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), key.span(), value))
            .collect();
        entries.sort_by_key(|(_, span, _)| span.start);
        entries
    }

    fn unknown(&mut self, section: &str, entry: &Entry<'_>) {
        let line = self.line(&entry.1);
        self.warnings.push(format!(
            "configuration {}:{line}: key `{section}{}` is not known, ignored",
            self.file, entry.0
        ));
    }

    pub(super) fn warn(&mut self, entry: &Entry<'_>, problem: &str) {
        let line = self.line(&entry.1);
        self.warnings.push(format!(
            "configuration {}:{line}: `{}` {problem}",
            self.file, entry.0
        ));
    }

    fn wrong(&self, entry: &Entry<'_>, want: &str) -> PolicyError {
        let found = entry.2.get_ref().type_str();
        self.value(entry, format!("is of type {found}, not {want}"))
    }

    fn value(&self, entry: &Entry<'_>, problem: String) -> PolicyError {
        self.error(&entry.1, format!("`{}` {problem}", entry.0))
    }

    fn error(&self, at: &Range<usize>, problem: String) -> PolicyError {
        PolicyError {
            file: self.file.to_owned(),
            line: self.line(at),
            problem,
        }
    }

    fn line(&self, at: &Range<usize>) -> usize {
        let before = self
            .text
            .as_bytes()
            .get(..at.start)
            .unwrap_or(self.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

fn is_pattern(pattern: &str) -> bool {
    pattern == "*" || is_kind(pattern) || pattern.parse::<fleet_cdi::QualifiedName>().is_ok()
}

fn is_kind(kind: &str) -> bool {
    !kind.contains('=')
        && format!("{kind}=0")
            .parse::<fleet_cdi::QualifiedName>()
            .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = super::super::DEFAULT_CONFIG;

    #[test]
    fn the_shipped_file_states_the_defaults() {
        let as_shipped = parse(SHIPPED, "config.toml").unwrap();
        assert_eq!(
            as_shipped,
            PolicyFile {
                policy: Policy::default(),
                ..PolicyFile::default()
            }
        );

        // Each setting stands in the file as a comment; with the marks taken away it must still mean the defaults.
        let enabled: String = SHIPPED
            .lines()
            .map(|l| l.strip_prefix("#= ").unwrap_or(l).to_owned() + "\n")
            .collect();
        assert!(enabled.len() < SHIPPED.len());
        let mut policy = parse(&enabled, "config.toml").unwrap().policy;
        let dirs = ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).to_vec();
        assert_eq!(policy.spec_dirs.take(), Some(dirs));
        assert_eq!(policy, Policy::default());
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
profile = "crio"
default-kind = "amd.com/gpu"
annotation-prefixes = ["gpu.example/"]
spec-dirs = ["/opt/cdi"]
swarm-resource = ["DOCKER_RESOURCE_GPU"]
runtimes = ["crun", "/opt/bin/runc"]
driver-capabilities = ["utility", "compute"]
supported-driver-capabilities = ["compute", "utility", "video"]
ignore-driver-capabilities = true
disable-require = true
ignore-imex-channel-requests = true
rebuild-stale-specs = false
create-device-nodes = false
[sources]
cdi-annotations = false
volume-mounts = true
environment = false
environment-unprivileged = true
[allow]
cdi-annotations = []
volume-mounts = ["nvidia.com/gpu"]
environment = ["nvidia.com/gpu=0"]
[[rule]]
namespaces = ["team-a", "ml-*"]
annotations = ["tier=shared"]
allow = []
[[rule]]
allow = ["nvidia.com/gpu=1"]
[hooks]
native = false
foreign = false
foreign-timeout = 5
[audit]
file = "/var/log/audit.jsonl"
journald = true
"#;
        let file = parse(text, "f").unwrap();
        assert!(file.warnings.is_empty(), "{:?}", file.warnings);
        let policy = file.policy;
        assert_eq!(
            parse(&policy.to_toml(), "f").unwrap().policy,
            policy,
            "what is printed is read back"
        );
        assert_eq!(policy.profile, Profile::Crio);
        assert_eq!(policy.default_kind, "amd.com/gpu");
        assert_eq!(policy.annotation_prefixes, ["gpu.example/"]);
        assert_eq!(policy.spec_dirs, Some(vec![PathBuf::from("/opt/cdi")]));
        assert_eq!(policy.swarm_resource, ["DOCKER_RESOURCE_GPU"]);
        assert_eq!(policy.runtimes, ["crun", "/opt/bin/runc"]);
        let parts = policy.capabilities;
        assert_eq!(parts.usual.to_string(), "compute,utility");
        assert_eq!(parts.supported.to_string(), "compute,utility,video");
        assert!(parts.ignore && policy.disable_require && policy.ignore_imex);
        assert!(!policy.heal);
        assert!(
            !policy.sources.cdi_annotations
                && policy.sources.volume_mounts
                && !policy.sources.environment
        );
        assert_eq!(policy.sources.environment_unprivileged, Some(true));
        assert!(policy.allow.cdi_annotations.is_empty());
        assert_eq!(policy.allow.volume_mounts, ["nvidia.com/gpu"]);
        assert_eq!(policy.allow.environment, ["nvidia.com/gpu=0"]);
        let own = |list: &[&str]| {
            list.iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        let rules = [
            Rule {
                namespaces: Some(own(&["team-a", "ml-*"])),
                annotations: own(&["tier=shared"]),
                allow: Vec::new(),
            },
            Rule {
                allow: own(&["nvidia.com/gpu=1"]),
                ..Rule::default()
            },
        ];
        assert_eq!(policy.rules, rules);
        assert!(!policy.hooks.native && !policy.hooks.foreign);
        assert_eq!(policy.hooks.foreign_timeout, 5);
        assert_eq!(
            policy.audit.file,
            Some(PathBuf::from("/var/log/audit.jsonl"))
        );
        assert!(policy.audit.journald);
    }

    #[test]
    fn texts_are_printed_so_that_they_are_read_back() {
        let prefix = "a\"b\\c\u{1}é/".to_owned();
        let policy = Policy {
            annotation_prefixes: vec![prefix],
            ..Policy::default()
        };
        assert_eq!(parse(&policy.to_toml(), "f").unwrap().policy, policy);
        assert_eq!(
            parse(&Policy::default().to_toml(), "f").unwrap().policy,
            Policy::default()
        );
    }

    #[test]
    fn unknown_keys_are_warnings_in_file_order() {
        let file = parse("zeta = 1\n[hooks]\nnew = true\n[later]\nx = 1\n", "/c").unwrap();
        assert_eq!(file.policy, Policy::default());
        let want = [
            "configuration /c:1: key `zeta` is not known, ignored",
            "configuration /c:3: key `hooks.new` is not known, ignored",
            "configuration /c:4: key `later` is not known, ignored",
        ];
        assert_eq!(file.warnings, want);
    }

    #[test]
    fn wrong_values_are_errors_with_their_line() {
        let cases = [
            (
                "\nprofile = 1",
                2,
                "`profile` is of type integer, not a string",
            ),
            (
                "profile = \"k8s\"",
                1,
                "`profile` is \"k8s\", not \"auto\", \"podman\" or \"crio\"",
            ),
            (
                "default-kind = \"gpu\"",
                1,
                "`default-kind` is \"gpu\", not of the form \"vendor/class\"",
            ),
            (
                "spec-dirs = [\"cdi\"]",
                1,
                "`spec-dirs` has \"cdi\", which is not an absolute path",
            ),
            (
                "spec-dirs = \"/cdi\"",
                1,
                "`spec-dirs` is of type string, not a list of strings",
            ),
            (
                "annotation-prefixes = [\"\"]",
                1,
                "`annotation-prefixes` has an empty prefix",
            ),
            (
                "swarm-resource = [\"PATH\"]",
                1,
                "`swarm-resource` has \"PATH\", which does not start with \"DOCKER_RESOURCE_\"",
            ),
            (
                "[sources]\nenvironment = \"yes\"",
                2,
                "`environment` is of type string, not true or false",
            ),
            (
                "[allow]\n\nenvironment = [\"gpu=0\"]",
                3,
                "`environment` has \"gpu=0\", not \"*\", \"vendor/class\" or \"vendor/class=device\"",
            ),
            (
                "[hooks]\nforeign-timeout = 0",
                2,
                "`foreign-timeout` is 0, not between 1 and 3600 seconds",
            ),
            (
                "[hooks]\nforeign-timeout = \"5s\"",
                2,
                "`foreign-timeout` is of type string, not a number of seconds",
            ),
            (
                "driver-capabilities = [\"cuda\"]",
                1,
                "`driver-capabilities` has \"cuda\", which is no driver capability; known are all, \
                 compat32,compute,display,graphics,ngx,utility,video",
            ),
            (
                "[audit]\nfile = \"audit.log\"",
                2,
                "`file` is \"audit.log\", not the absolute path of a file",
            ),
            ("hooks = 1", 1, "`hooks` is of type integer, not a table"),
            (
                "[[rule]]\nnamespace = \"a\"\nallow = []",
                2,
                "`namespace` is not known in a rule; known are namespaces, annotations, allow",
            ),
            ("[[rule]]\nnamespaces = [\"a\"]", 1, "`rule` has no `allow`"),
            (
                "[rule]\nallow = []",
                1,
                "`rule` is of type table, not a list of tables, [[rule]]",
            ),
            (
                "[[rule]]\nallow = [\"gpu\"]",
                2,
                "`allow` has \"gpu\", not \"*\", \"vendor/class\" or \"vendor/class=device\"",
            ),
        ];
        for (text, line, problem) in cases {
            let err = parse(text, "/c").unwrap_err();
            assert_eq!((err.line, err.problem.as_str()), (line, problem), "{text}");
            assert_eq!(
                err.to_string(),
                format!("configuration /c:{line}: {problem}")
            );
        }
    }

    #[test]
    fn broken_toml_names_the_line() {
        let err = parse("profile = \"podman\"\n[hooks\n", "/c").unwrap_err();
        assert_eq!(err.line, 2, "{err}");
        assert!(!err.to_string().contains('\n'));
        assert!(parse("profile = \"crio\"\nprofile = \"podman\"\n", "/c").is_err());
    }
}
