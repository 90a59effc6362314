//! Seccomp filters: compiled by libseccomp once, then taken from a cache.
//!
//! libcontainer 0.7: compiles the filter at every create (about 15 ms for an engine's default profile) and drops it
//! for exec. The cache lies under the state root and holds nothing that its owner could not install anyway; it is
//! read to memory, checked, and only then used.

mod cache;
mod compile;

use std::io;
use std::path::Path;

use serde_json::Value;

use crate::sys::tail;

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// `struct sock_filter` array.
    pub bpf: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Something in the profile is unknown or wrong.
    #[error("seccomp profile: {0}")]
    Invalid(String),
    /// Something in the profile is not supported.
    #[error("seccomp profile: {0} is not supported by this runtime")]
    Unsupported(&'static str),
    /// libseccomp refused it.
    #[error("seccomp profile: {step}: {why}")]
    Compile {
        /// Step.
        step: String,
        /// Reason.
        why: String,
    },
}

/// The filter of `linux.seccomp`, from the cache below `directory` when it is there. `None` when it would allow all.
///
/// # Errors
/// [`SeccompError`].
pub fn load(profile: &Value, directory: Option<&Path>) -> Result<Option<Filter>, SeccompError> {
    if uses_notify(profile) {
        return Err(SeccompError::Unsupported("SCMP_ACT_NOTIFY"));
    }
    let key = cache::key(profile);
    if let Some(filter) = directory.and_then(|dir| cache::read(dir, &key)) {
        return Ok(Some(filter));
    }
    let filter = compile::compile(profile)?;
    if let Some(dir) = directory {
        cache::write(dir, &key, &filter);
    }
    Ok(Some(filter))
}

fn uses_notify(profile: &Value) -> bool {
    let notify = |value: &Value| value == "SCMP_ACT_NOTIFY";
    let rules = profile["syscalls"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    notify(&profile["defaultAction"]) || rules.iter().any(|rule| notify(&rule["action"]))
}

/// Puts the filter on this process.
///
/// # Errors
/// `EACCES` without `no_new_privs` and `CAP_SYS_ADMIN`.
pub fn install(filter: &Filter) -> io::Result<()> {
    tail::install_filter(&filter.bpf, filter.flags)
}
