//! `linux.sysctl`: refused by name before anything is made, since a kernel parameter that belongs to no namespace of
//! the container would change the host, and the library's error does not say which one failed.

use std::path::PathBuf;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::spec::{self, Namespace};

/// Parameters of the IPC namespace (`man 7 ipc_namespaces`), as runc's list.
const IPC: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
];

/// Checks every parameter.
///
/// # Errors
/// [`Error::Invalid`] naming the parameter.
pub(crate) fn check(full: &Value) -> Result<()> {
    let all = full.pointer("/linux/sysctl").and_then(Value::as_object);
    for (name, value) in all.into_iter().flatten() {
        let fail = |why: &str| Error::Invalid(format!("sysctl `{}`: {why}", name.escape_debug()));
        if !value.is_string() {
            return Err(fail("its value is not a string"));
        }
        let dotted = name.replace('/', ".");
        if dotted == "kernel.hostname" {
            return Err(fail("it is what `hostname` sets"));
        }
        let needed = namespace_of(&dotted)
            .ok_or_else(|| fail("it belongs to no namespace: it would change the host"))?;
        if spec::namespace(full, needed) == Namespace::Inherited {
            return Err(fail(&format!(
                "it needs a {needed} namespace of the container's own"
            )));
        }
        if dotted
            .split('.')
            .any(|part| part.is_empty() || part == "..")
            || !path(name).exists()
        {
            return Err(fail("this kernel does not have it"));
        }
    }
    Ok(())
}

fn namespace_of(name: &str) -> Option<&'static str> {
    if name.starts_with("net.") {
        Some("network")
    } else if name.starts_with("fs.mqueue.") || IPC.contains(&name) {
        Some("ipc")
    } else if matches!(name, "kernel.domainname" | "kernel.hostname") {
        Some("uts")
    } else {
        None
    }
}

/// Names with a slash keep their dots (`net/ipv4/conf/eth0.1/…`).
fn path(name: &str) -> PathBuf {
    let relative = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    PathBuf::from("/proc/sys").join(relative)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names() {
        let with = |name: &str, namespaces: Value| {
            check(&json!({"linux": {"sysctl": {name: "1"}, "namespaces": namespaces}}))
        };
        assert!(with("kernel.shmmax", json!([{"type": "ipc"}])).is_ok());
        for (name, namespaces, word) in [
            ("kernel.shmmax", json!([]), "ipc namespace"),
            (
                "net.ipv4.ip_forward",
                json!([{"type": "ipc"}]),
                "network namespace",
            ),
            (
                "vm.swappiness",
                json!([{"type": "ipc"}]),
                "would change the host",
            ),
            (
                "net.no.such",
                json!([{"type": "network"}]),
                "does not have it",
            ),
            (
                "net.../../kernel",
                json!([{"type": "network"}]),
                "does not have it",
            ),
        ] {
            let err = with(name, namespaces).unwrap_err().to_string();
            assert!(err.contains(word) && err.contains(name), "{err}");
        }
        assert!(check(&json!({"linux": {"sysctl": {"kernel.sem": 1}}})).is_err());
    }
}
