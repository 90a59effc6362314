//! `run.oci.*`: what users ask crun for by annotation. Each is done, or refused by name with the reason; the table is in
//! `docs/annotations.md`.
//!
//! A pod's author writes the annotations of a container of Kubernetes, and the node's root runs us. There, one that
//! names a file or socket of the host is refused.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::spec;

/// Supplementary groups of the caller stay (Podman's `--group-add keep-groups`).
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
/// Files that hooks write to.
const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
const HOOKS_STDERR: &str = "run.oci.hooks.stderr";
/// Gets the descriptor of `SCMP_ACT_NOTIFY`.
pub(crate) const SECCOMP_RECEIVER: &str = "run.oci.seccomp.receiver";
/// Gets a descriptor of the first process.
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";
/// A system call that is not known makes the profile an error.
const FAIL_UNKNOWN: &str = "run.oci.seccomp_fail_unknown_syscall";
/// The mount option by which the label is given.
const CONTEXT_TYPE: &str = "run.oci.mount_context_type";

/// Those that name something of the host.
const OF_THE_HOST: [&str; 4] = [HOOKS_STDOUT, HOOKS_STDERR, SECCOMP_RECEIVER, PIDFD_RECEIVER];

/// Annotations that engines write for the kubelet alone: CRI-O's, and those of containerd's CRI plugin.
const KUBERNETES: [&str; 2] = ["io.kubernetes.cri-o.", "io.kubernetes.cri."];

/// What is not done, and why.
const REFUSED: [(&str, &str); 6] = [
    (
        "run.oci.handler",
        "there are no handlers such as krun or wasm here: this runtime runs the program itself",
    ),
    (
        "run.oci.seccomp_bpf_data",
        "it would replace the seccomp profile of the spec by a program that nobody can read",
    ),
    (
        "run.oci.seccomp.plugins",
        "this runtime loads no shared objects; hint: give the socket of an agent by `run.oci.seccomp.receiver`",
    ),
    (
        "run.oci.systemd.force_cgroup_v1",
        "this runtime mounts no second cgroup hierarchy; hint: use an image whose systemd knows cgroup v2 (since 226)",
    ),
    (
        "run.oci.delegate-cgroup",
        "this runtime makes no cgroup below the container's; with a cgroup namespace the container can make them itself",
    ),
    (
        "org.criu.config",
        "it would configure CRIU, which runs as root, in the name of a container",
    ),
];

/// Refuses what is not done, before anything is made.
///
/// # Errors
/// [`Error::Invalid`] naming the annotation.
pub(crate) fn check(full: &Value) -> Result<()> {
    let given = |name: &str| spec::annotation(full, name).filter(|value| !value.is_empty());
    for (name, why) in REFUSED {
        if given(name).is_some() {
            return Err(Error::Invalid(format!("annotation `{name}`: {why}")));
        }
    }
    for name in OF_THE_HOST {
        let Some(path) = given(name) else { continue };
        if by_kubernetes(full) {
            return Err(Error::Invalid(format!(
                "annotation `{name}` names `{path}` of the host, which a pod may not"
            )));
        }
        if !path.starts_with('/') {
            return Err(Error::Invalid(format!(
                "annotation `{name}`: `{path}` is not an absolute path"
            )));
        }
    }
    context_type(full).map(drop)
}

fn by_kubernetes(full: &Value) -> bool {
    let all = full.get("annotations").and_then(Value::as_object);
    let mut keys = all.into_iter().flat_map(|all| all.keys());
    keys.any(|key| KUBERNETES.iter().any(|prefix| key.starts_with(prefix)))
}

/// Whether the caller's supplementary groups stay: any value but 0, as with crun.
pub(crate) fn keeps_groups(full: &Value) -> bool {
    spec::annotation(full, KEEP_GROUPS).is_some_and(|value| value != "0")
}

/// Whether a profile with a system call that is not known is an error. crun looks at the presence alone.
pub(crate) fn fails_on_unknown_calls(full: &Value) -> bool {
    spec::annotation(full, FAIL_UNKNOWN).is_some_and(|value| value != "0")
}

/// The socket that gets a descriptor of the first process.
#[must_use]
pub fn pidfd_receiver(full: &Value) -> Option<PathBuf> {
    spec::annotation(full, PIDFD_RECEIVER)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// The mount option that carries `linux.mountLabel` (`man 8 mount`).
///
/// # Errors
/// [`Error::Invalid`] for another than the four there are.
pub(crate) fn context_type(full: &Value) -> Result<&str> {
    match spec::annotation(full, CONTEXT_TYPE) {
        None => Ok("context"),
        Some(kind) if ["context", "fscontext", "defcontext", "rootcontext"].contains(&kind) => {
            Ok(kind)
        }
        Some(other) => Err(Error::Invalid(format!(
            "annotation `{CONTEXT_TYPE}`: \"{other}\" is none of context, fscontext, defcontext, rootcontext"
        ))),
    }
}

/// Where hooks write instead of into the error and to nowhere.
#[derive(Debug, Default)]
pub struct HookOutput {
    /// Their stdout.
    pub stdout: Option<File>,
    /// Their stderr.
    pub stderr: Option<File>,
}

impl HookOutput {
    /// Opens the files that the annotations name.
    ///
    /// # Errors
    /// A file that cannot be written to.
    pub fn open(full: &Value) -> Result<Self> {
        let open = |name: &str| {
            spec::annotation(full, name)
                .filter(|path| !path.is_empty())
                .map(|path| append_to(name, Path::new(path)))
                .transpose()
        };
        Ok(Self {
            stdout: open(HOOKS_STDOUT)?,
            stderr: open(HOOKS_STDERR)?,
        })
    }
}

fn append_to(name: &str, path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        // A pipe that nobody reads would hold us up for ever.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .op(|| format!("annotation `{name}`: open `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(name: &str, value: &str) -> Value {
        json!({"annotations": {name: value}})
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (name, _) in REFUSED {
            let err = check(&with(name, "x")).unwrap_err().to_string();
            assert!(err.starts_with(&format!("annotation `{name}`: ")), "{err}");
            check(&with(name, "")).unwrap();
        }
        check(&with("run.oci.systemd.subgroup", "x")).unwrap();
        check(&with("run.oci.of-tomorrow", "x")).unwrap();
        check(&json!({})).unwrap();
    }

    #[test]
    fn a_pod_names_nothing_of_the_host() {
        for name in OF_THE_HOST {
            check(&with(name, "/run/x")).unwrap();
            let err = check(&with(name, "run/x")).unwrap_err().to_string();
            assert!(err.contains("not an absolute path"), "{err}");
            for engine in [
                "io.kubernetes.cri-o.ContainerType",
                "io.kubernetes.cri.sandbox-id",
            ] {
                let mut pod = with(name, "/run/x");
                pod["annotations"][engine] = json!("y");
                let err = check(&pod).unwrap_err().to_string();
                assert!(err.contains("which a pod may not"), "{err}");
            }
        }
    }

    #[test]
    fn values() {
        for (value, want) in [("1", true), ("", true), ("true", true), ("0", false)] {
            assert_eq!(keeps_groups(&with(KEEP_GROUPS, value)), want, "{value}");
            assert_eq!(fails_on_unknown_calls(&with(FAIL_UNKNOWN, value)), want);
        }
        assert!(!keeps_groups(&json!({})));
        assert_eq!(context_type(&json!({})).unwrap(), "context");
        let kind = with(CONTEXT_TYPE, "rootcontext");
        assert_eq!(context_type(&kind).unwrap(), "rootcontext");
        let err = check(&with(CONTEXT_TYPE, "x\",suid"))
            .unwrap_err()
            .to_string();
        assert!(err.contains("none of context"), "{err}");
    }

    #[test]
    fn hooks_append_to_files_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, "old\n").unwrap();
        let output = HookOutput::open(&with(HOOKS_STDOUT, path.to_str().unwrap())).unwrap();
        std::io::Write::write_all(&mut output.stdout.unwrap(), b"new\n").unwrap();
        assert!(output.stderr.is_none());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old\nnew\n");
        let err = HookOutput::open(&with(HOOKS_STDERR, "/nonexistent/x")).unwrap_err();
        assert!(err.to_string().contains("`run.oci.hooks.stderr`"), "{err}");
    }
}
