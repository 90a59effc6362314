//! Views of the raw OCI spec. The JSON stays as it came; these functions read the parts the lifecycle needs.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Context, Error, Result};

/// Largest `config.json` accepted, in bytes: far above any real one, far below what would hurt a node.
const MAX_SIZE: u64 = 64 * 1024 * 1024;

/// Namespace types of `runtime-spec config-linux.md#namespaces`.
pub const NAMESPACES: [&str; 8] = [
    "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time",
];

/// Reads `<bundle>/<file>`.
///
/// # Errors
/// [`Error::Io`] or [`Error::Invalid`] with the path and, for broken JSON, line and column.
pub fn load(path: &Path) -> Result<Value> {
    let meta = std::fs::metadata(path).op(|| format!("open `{}`", path.display()))?;
    if meta.len() > MAX_SIZE {
        return Err(Error::Invalid(format!(
            "`{}` has {} bytes, more than the {MAX_SIZE} a spec may have",
            path.display(),
            meta.len()
        )));
    }
    let bytes = std::fs::read(path).op(|| format!("open `{}`", path.display()))?;
    serde_json::from_slice(&bytes)
        .map_err(|err| Error::Invalid(format!("parse `{}`: {err}", path.display())))
}

/// The string at a JSON pointer.
#[must_use]
pub fn text<'a>(spec: &'a Value, pointer: &str) -> Option<&'a str> {
    spec.pointer(pointer).and_then(Value::as_str)
}

/// The boolean at a JSON pointer; absent is false.
#[must_use]
pub fn flag(spec: &Value, pointer: &str) -> bool {
    spec.pointer(pointer)
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

/// The array at a JSON pointer; absent is empty.
#[must_use]
pub fn list<'a>(spec: &'a Value, pointer: &str) -> &'a [Value] {
    spec.pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A list of strings at a JSON pointer; other elements were refused by [`check`].
#[must_use]
pub fn strings(spec: &Value, pointer: &str) -> Vec<String> {
    list(spec, pointer)
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// An unsigned 32-bit number at a JSON pointer, such as a user id.
#[must_use]
pub fn number(spec: &Value, pointer: &str) -> Option<u32> {
    spec.pointer(pointer)
        .and_then(Value::as_u64)
        .and_then(|n| u32::try_from(n).ok())
}

/// An annotation's value.
#[must_use]
pub fn annotation<'a>(spec: &'a Value, key: &str) -> Option<&'a str> {
    spec.get("annotations")?.get(key)?.as_str()
}

/// How the spec wants a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace<'a> {
    /// Not listed: the runtime's own.
    Inherited,
    /// Listed without a path.
    New,
    /// Listed with the path of one to join.
    Joined(&'a str),
}

/// How the spec wants the namespace `kind`.
#[must_use]
pub fn namespace<'a>(spec: &'a Value, kind: &str) -> Namespace<'a> {
    let Some(entry) = list(spec, "/linux/namespaces")
        .iter()
        .find(|ns| ns["type"] == kind)
    else {
        return Namespace::Inherited;
    };
    match entry.get("path").and_then(Value::as_str) {
        Some(path) if !path.is_empty() => Namespace::Joined(path),
        _ => Namespace::New,
    }
}

/// The root file system, absolute and free of symbolic links.
///
/// # Errors
/// [`Error::Invalid`] when `root.path` is absent, [`Error::Io`] when it cannot be reached.
pub fn rootfs(spec: &Value, bundle: &Path) -> Result<PathBuf> {
    let path = text(spec, "/root/path").filter(|p| !p.is_empty());
    let path =
        bundle.join(path.ok_or_else(|| Error::Invalid("the spec has no `root.path`".to_owned()))?);
    let real = path
        .canonicalize()
        .op(|| format!("root file system `{}`", path.display()))?;
    if !real.is_dir() {
        return Err(Error::Invalid(format!(
            "root file system `{}` is not a directory",
            real.display()
        )));
    }
    if real == Path::new("/") {
        return Err(Error::Invalid(
            "root file system `/` is the host's own: refused".to_owned(),
        ));
    }
    Ok(real)
}

/// Refuses what cannot be run, before anything is made.
///
/// # Errors
/// [`Error::Invalid`] naming the field and what it should be.
pub fn check(spec: &Value) -> Result<()> {
    if !spec.is_object() {
        return Err(Error::Invalid("the spec is not a JSON object".to_owned()));
    }
    check_version(spec)?;
    check_types(spec)?;
    check_process(spec, "/process")?;
    check_namespaces(spec)?;
    check_mounts(spec)?;
    crate::annotations::check(spec)?;
    check_unsupported(spec)
}

fn check_version(spec: &Value) -> Result<()> {
    let version = text(spec, "/ociVersion").unwrap_or_default();
    if version.starts_with("1.") {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "unsupported `ociVersion` \"{version}\": this runtime reads 1.x"
    )))
}

/// Field, whether a value has the wanted type, and the word for it.
type TypeRule = (&'static str, fn(&Value) -> bool, &'static str);

const TYPES: [TypeRule; 20] = [
    ("/root", Value::is_object, "an object"),
    ("/root/path", Value::is_string, "a string"),
    ("/root/readonly", Value::is_boolean, "a boolean"),
    ("/process", Value::is_object, "an object"),
    ("/process/terminal", Value::is_boolean, "a boolean"),
    ("/process/noNewPrivileges", Value::is_boolean, "a boolean"),
    ("/process/cwd", Value::is_string, "a string"),
    ("/hostname", Value::is_string, "a string"),
    ("/domainname", Value::is_string, "a string"),
    ("/mounts", Value::is_array, "an array"),
    ("/hooks", Value::is_object, "an object"),
    ("/annotations", Value::is_object, "an object"),
    ("/linux", Value::is_object, "an object"),
    ("/linux/namespaces", Value::is_array, "an array"),
    ("/linux/devices", Value::is_array, "an array"),
    ("/linux/resources", Value::is_object, "an object"),
    ("/linux/resources/devices", Value::is_array, "an array"),
    ("/linux/seccomp", Value::is_object, "an object"),
    ("/linux/sysctl", Value::is_object, "an object"),
    ("/linux/cgroupsPath", Value::is_string, "a string"),
];

fn check_types(spec: &Value) -> Result<()> {
    for (pointer, accepts, word) in TYPES {
        match spec.pointer(pointer) {
            Some(value) if !value.is_null() && !accepts(value) => {
                return Err(Error::Invalid(format!(
                    "`{}` of the spec is not {word}",
                    pointer[1..].replace('/', ".")
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks a `process` object, the container's own or one given to `exec`.
///
/// # Errors
/// [`Error::Invalid`] naming the field.
pub fn check_process(spec: &Value, at: &str) -> Result<()> {
    let field = |name: &str| format!("{at}/{name}");
    let Some(process) = spec.pointer(at).filter(|p| p.is_object()) else {
        return Err(Error::Invalid("the spec has no `process`".to_owned()));
    };
    for name in ["args", "env"] {
        let strings = process.get(name).is_none_or(|list| {
            list.is_null()
                || list
                    .as_array()
                    .is_some_and(|all| all.iter().all(|s| s.as_str().is_some_and(no_nul)))
        });
        if !strings {
            return Err(Error::Invalid(format!(
                "`process.{name}` is not an array of strings without NUL"
            )));
        }
    }
    if list(spec, &field("args")).is_empty() {
        return Err(Error::Invalid(
            "`process.args` is empty: there is no program to run".to_owned(),
        ));
    }
    match text(spec, &field("cwd")) {
        Some(cwd) if cwd.starts_with('/') && no_nul(cwd) => {}
        Some(cwd) => {
            return Err(Error::Invalid(format!(
                "`process.cwd` \"{cwd}\" is not an absolute path"
            )));
        }
        None => return Err(Error::Invalid("`process.cwd` is missing".to_owned())),
    }
    crate::scheduler::Scheduler::from_process(process)?;
    for name in ["user/uid", "user/gid", "user/umask"] {
        let value = spec.pointer(&field(name));
        if value.is_some_and(|v| !v.is_null()) && number(spec, &field(name)).is_none() {
            return Err(Error::Invalid(format!(
                "`process.{}` is not a number from 0 to 4294967295",
                name.replace('/', ".")
            )));
        }
    }
    Ok(())
}

fn no_nul(s: &str) -> bool {
    !s.contains('\0')
}

fn check_namespaces(spec: &Value) -> Result<()> {
    let mut seen = Vec::new();
    for entry in list(spec, "/linux/namespaces") {
        let kind = entry["type"].as_str().unwrap_or_default();
        if !NAMESPACES.contains(&kind) {
            return Err(Error::Invalid(format!(
                "unknown namespace type \"{kind}\" in `linux.namespaces`"
            )));
        }
        if seen.contains(&kind) {
            return Err(Error::Invalid(format!(
                "namespace \"{kind}\" is listed twice in `linux.namespaces`"
            )));
        }
        seen.push(kind);
    }
    if namespace(spec, "mount") == Namespace::Inherited {
        // youki#3733: without one, libcontainer changes the mount propagation of the host's own root.
        return Err(Error::Invalid(
            "a container without a mount namespace is refused: it would change the host's mounts"
                .to_owned(),
        ));
    }
    for (pointer, kind) in [
        ("/hostname", "uts"),
        ("/domainname", "uts"),
        ("/linux/timeOffsets", "time"),
        ("/linux/netDevices", "network"),
    ] {
        let said = spec.pointer(pointer).is_some_and(says_something);
        if said && namespace(spec, kind) == Namespace::Inherited {
            return Err(Error::Invalid(format!(
                "`{}` needs a `{kind}` namespace",
                pointer[1..].replace('/', ".")
            )));
        }
    }
    if namespace(spec, "user") == Namespace::New
        && (list(spec, "/linux/uidMappings").is_empty()
            || list(spec, "/linux/gidMappings").is_empty())
    {
        return Err(Error::Invalid(
            "a new `user` namespace needs `linux.uidMappings` and `linux.gidMappings`".to_owned(),
        ));
    }
    Ok(())
}

/// Neither absent nor empty.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

fn check_mounts(spec: &Value) -> Result<()> {
    for mount in list(spec, "/mounts") {
        let destination = mount["destination"].as_str().unwrap_or_default();
        if destination.is_empty() || !no_nul(destination) {
            return Err(Error::Invalid("a mount has no `destination`".to_owned()));
        }
        if ["source", "type"].iter().any(|f| {
            mount
                .get(*f)
                .is_some_and(|v| !v.is_null() && !v.is_string())
        }) {
            return Err(Error::Invalid(format!(
                "mount `{destination}`: `source` or `type` is not a string"
            )));
        }
        let options = mount.get("options").is_none_or(|o| {
            o.is_null()
                || o.as_array()
                    .is_some_and(|all| all.iter().all(Value::is_string))
        });
        if !options {
            return Err(Error::Invalid(format!(
                "mount `{destination}`: `options` is not an array of strings"
            )));
        }
    }
    Ok(())
}

/// What is not supported is refused by name, never dropped in silence.
fn check_unsupported(spec: &Value) -> Result<()> {
    if !list(spec, "/linux/personality/flags").is_empty() {
        return Err(Error::Invalid(
            "`linux.personality.flags` is not empty, but the specification defines no flags"
                .to_owned(),
        ));
    }
    for (pointer, what) in [
        ("/vm", "vm"),
        ("/solaris", "solaris"),
        ("/windows", "windows"),
    ] {
        if spec.pointer(pointer).is_some_and(|v| !v.is_null()) {
            return Err(Error::Invalid(format!(
                "`{what}` is not supported by this runtime"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}]},
        })
    }

    #[test]
    fn accepts_a_minimal_spec() {
        check(&good()).unwrap();
    }

    #[test]
    fn refuses_by_field() {
        let cases: [(&str, Value, &str); 15] = [
            ("/ociVersion", json!("2.0.0"), "ociVersion"),
            ("/process", json!(null), "no `process`"),
            ("/process/args", json!([]), "process.args"),
            ("/process/args", json!(["a\0b"]), "NUL"),
            ("/process/args", json!("true"), "process.args"),
            ("/process/cwd", json!("tmp"), "absolute"),
            ("/process/cwd", json!(7), "process.cwd"),
            ("/process/user/uid", json!(-1), "user.uid"),
            ("/process/user/gid", json!(4_294_967_296_u64), "user.gid"),
            (
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "moon"}]),
                "moon",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "mount"}]),
                "twice",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "pid"}]),
                "mount namespace",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "user"}]),
                "uidMappings",
            ),
            ("/mounts", json!([{"type": "tmpfs"}]), "destination"),
            ("/hostname", json!(3), "hostname"),
        ];
        for (pointer, value, word) in cases {
            let mut spec = good();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[key] = value;
            let err = check(&spec).unwrap_err().to_string();
            assert!(err.contains(word), "{pointer}: {err}");
        }
    }

    #[test]
    fn namespaces() {
        let spec = json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/x"}, {"type": "ipc", "path": ""}]}});
        assert_eq!(namespace(&spec, "pid"), Namespace::New);
        assert_eq!(namespace(&spec, "network"), Namespace::Joined("/x"));
        assert_eq!(namespace(&spec, "ipc"), Namespace::New);
        assert_eq!(namespace(&spec, "uts"), Namespace::Inherited);
    }
}
