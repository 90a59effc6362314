//! The settings as text of a configuration file.

use super::{Policy, Profile};

pub(super) fn print(policy: &Policy) -> String {
    [
        general(policy),
        sources(policy),
        allow(policy),
        rules(policy),
        hooks(policy),
        audit(policy),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect::<Vec<_>>()
    .join("\n")
}

fn rules(policy: &Policy) -> String {
    let rules = policy.rules.iter().map(|rule| {
        let settings = section(&[
            ("namespaces", rule.namespaces.as_ref().map(list)),
            (
                "annotations",
                (!rule.annotations.is_empty()).then(|| list(&rule.annotations)),
            ),
            ("allow", Some(list(&rule.allow))),
        ]);
        format!("[[rule]]\n{settings}")
    });
    rules.collect::<Vec<_>>().join("\n")
}

fn general(policy: &Policy) -> String {
    let profile = match policy.profile {
        Profile::Auto => "auto",
        Profile::Podman => "podman",
        Profile::Crio => "crio",
    };
    let dirs = policy.spec_dirs.as_ref();
    let dirs = dirs.map(|dirs| list(dirs.iter().map(|dir| dir.to_string_lossy())));
    let parts = &policy.capabilities;
    section(&[
        ("profile", Some(quoted(profile))),
        ("default-kind", Some(quoted(&policy.default_kind))),
        (
            "annotation-prefixes",
            Some(list(&policy.annotation_prefixes)),
        ),
        ("spec-dirs", dirs),
        ("swarm-resource", Some(list(&policy.swarm_resource))),
        ("runtimes", Some(list(&policy.runtimes))),
        ("driver-capabilities", Some(list(parts.usual.names()))),
        (
            "supported-driver-capabilities",
            Some(list(parts.supported.names())),
        ),
        ("ignore-driver-capabilities", Some(parts.ignore.to_string())),
        ("rebuild-stale-specs", Some(policy.heal.to_string())),
        ("create-device-nodes", Some(policy.create_nodes.to_string())),
        ("disable-require", Some(policy.disable_require.to_string())),
        (
            "ignore-imex-channel-requests",
            Some(policy.ignore_imex.to_string()),
        ),
    ])
}

fn sources(policy: &Policy) -> String {
    let sources = &policy.sources;
    let settings = section(&[
        ("cdi-annotations", Some(sources.cdi_annotations.to_string())),
        ("volume-mounts", Some(sources.volume_mounts.to_string())),
        ("environment", Some(sources.environment.to_string())),
        (
            "environment-unprivileged",
            sources
                .environment_unprivileged
                .map(|accepted| accepted.to_string()),
        ),
    ]);
    format!("[sources]\n{settings}")
}

fn allow(policy: &Policy) -> String {
    let settings = section(&[
        ("cdi-annotations", Some(list(&policy.allow.cdi_annotations))),
        ("volume-mounts", Some(list(&policy.allow.volume_mounts))),
        ("environment", Some(list(&policy.allow.environment))),
    ]);
    format!("[allow]\n{settings}")
}

fn hooks(policy: &Policy) -> String {
    let settings = section(&[
        ("native", Some(policy.hooks.native.to_string())),
        ("foreign", Some(policy.hooks.foreign.to_string())),
        (
            "foreign-timeout",
            Some(policy.hooks.foreign_timeout.to_string()),
        ),
    ]);
    format!("[hooks]\n{settings}")
}

fn audit(policy: &Policy) -> String {
    let file = policy.audit.file.as_ref();
    let settings = section(&[
        ("file", file.map(|path| quoted(&path.to_string_lossy()))),
        ("journald", Some(policy.audit.journald.to_string())),
    ]);
    format!("[audit]\n{settings}")
}

/// One line per setting that is stated.
fn section(settings: &[(&str, Option<String>)]) -> String {
    let stated = settings
        .iter()
        .filter_map(|(key, value)| Some((key, value.as_ref()?)));
    stated
        .map(|(key, value)| format!("{key} = {value}\n"))
        .collect()
}

fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items
        .into_iter()
        .map(|item| quoted(item.as_ref()))
        .collect();
    format!("[{}]", items.join(", "))
}

/// A TOML basic string (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
