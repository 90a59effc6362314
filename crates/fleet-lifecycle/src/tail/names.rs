//! Host and domain name of a container that joins a UTS namespace, as those of a pod do.
//!
//! libcontainer 0.7: sets them in a new namespace only; crun and runc set them in either.

use serde_json::Value;

use crate::error::{Context, Result};
use crate::spec::{self, Namespace};
use crate::sys::process;

/// The names to set; none where the library does it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    host: Option<String>,
    domain: Option<String>,
}

impl Names {
    /// Those of a container's spec.
    #[must_use]
    pub fn of(full: &Value) -> Self {
        if !matches!(spec::namespace(full, "uts"), Namespace::Joined(_)) {
            return Self::default();
        }
        let name = |at| spec::text(full, at).filter(|name| !name.is_empty());
        Self {
            host: name("/hostname").map(str::to_owned),
            domain: name("/domainname").map(str::to_owned),
        }
    }

    pub(super) fn set(&self) -> Result<()> {
        if let Some(name) = &self.host {
            nix::unistd::sethostname(name).op(|| format!("set host name `{name}`"))?;
        }
        if let Some(name) = &self.domain {
            process::set_domain_name(name).op(|| format!("set domain name `{name}`"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_of_a_joined_namespace() {
        let spec = |uts: Value| json!({"hostname": "pod", "domainname": "", "linux": {"namespaces": [uts]}});
        let joined = Names::of(&spec(json!({"type": "uts", "path": "/proc/1/ns/uts"})));
        assert_eq!((joined.host.as_deref(), joined.domain), (Some("pod"), None));
        for other in [json!({"type": "uts"}), json!({"type": "ipc"})] {
            assert_eq!(Names::of(&spec(other)), Names::default());
        }
    }
}
