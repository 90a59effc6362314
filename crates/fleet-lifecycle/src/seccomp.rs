//! Seccomp filters: compiled by libseccomp once, then taken from a cache.
//!
//! libcontainer 0.7: compiles the filter at every create (about 15 ms for an engine's default profile) and drops it
//! for exec. The cache lies under the state root and holds nothing that its owner could not install anyway; it is
//! read to memory, checked, and only then used.

mod cache;
mod compile;
mod notify;
mod stub;

pub use notify::Receiver;

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
    /// libseccomp refused it.
    #[error("seccomp profile: {step}: {why}")]
    Compile {
        /// Step.
        step: String,
        /// Reason.
        why: String,
    },
}

/// Refuses a profile with a system call that is not known here; [`load`] passes over it.
///
/// # Errors
/// The first such name.
pub fn check_names(profile: &Value) -> Result<(), SeccompError> {
    compile::check_names(profile)
}

/// The filter of `linux.seccomp`, from the cache below `directory` when it is there. `None` when it would allow all.
///
/// # Errors
/// [`SeccompError`].
pub fn load(profile: &Value, directory: Option<&Path>) -> Result<Option<Filter>, SeccompError> {
    check_notify(profile)?;
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

/// As runc: the default cannot be answered by an agent, and neither can what sends it the descriptor.
fn check_notify(profile: &Value) -> Result<(), SeccompError> {
    let refused = |what: &str| {
        Err(SeccompError::Invalid(format!(
            "SCMP_ACT_NOTIFY cannot be used {what}"
        )))
    };
    if profile["defaultAction"] == "SCMP_ACT_NOTIFY" {
        return refused("as the default action");
    }
    let rules = profile["syscalls"].as_array();
    let notified = rules
        .into_iter()
        .flatten()
        .filter(|rule| rule["action"] == "SCMP_ACT_NOTIFY");
    for name in notified.flat_map(|rule| crate::spec::strings(rule, "/names")) {
        if matches!(name.as_str(), "write" | "sendmsg") {
            return refused(&format!("for the {name} syscall"));
        }
    }
    Ok(())
}

fn uses_notify(profile: &Value) -> bool {
    let notify = |value: &Value| value == "SCMP_ACT_NOTIFY";
    let rules = profile["syscalls"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    notify(&profile["defaultAction"]) || rules.iter().any(|rule| notify(&rule["action"]))
}

/// Puts the filter on this process; an agent gets its descriptor.
///
/// # Errors
/// `EACCES` without `no_new_privs` and `CAP_SYS_ADMIN`.
pub fn install(filter: &Filter, agent: Option<&Receiver>) -> io::Result<()> {
    match agent {
        Some(agent) => agent.install(filter),
        None => tail::install_filter(&filter.bpf, filter.flags),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nix::errno::Errno;
    use nix::sys::utsname::uname;
    use nix::unistd::{Pid, getpgid};
    use serde_json::json;

    use super::*;

    /// A filter belongs to a thread: each case gets one.
    fn under(filter: Filter, case: impl FnOnce() + Send + 'static) {
        std::thread::spawn(move || {
            crate::sys::process::set_no_new_privileges().unwrap();
            install(&filter, None).unwrap();
            case();
        })
        .join()
        .unwrap();
    }

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("fleet-seccomp-{name}-{}", std::process::id()))
    }

    /// The default profile of containers-common, made into what an engine puts into a spec.
    fn engine_profile() -> Option<Value> {
        let text = std::fs::read_to_string("/usr/share/containers/seccomp.json").ok()?;
        let given: Value = serde_json::from_str(&text).unwrap();
        let plain = |rule: &&Value| {
            let conditional = |key: &str| rule[key].as_object().is_some_and(|o| !o.is_empty());
            !conditional("includes") && !conditional("excludes")
        };
        let rules = given["syscalls"].as_array().unwrap().iter().filter(plain);
        Some(json!({
            "defaultAction": given["defaultAction"],
            "defaultErrnoRet": given["defaultErrnoRet"],
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": rules.cloned().collect::<Vec<_>>(),
        }))
    }

    #[test]
    fn an_installed_filter_answers_as_the_profile_says() {
        let compare = |op: &str, value: u64, two: u64| json!({"index": 0, "value": value, "valueTwo": two, "op": op});
        let rule = |name: &str, errno: Value, args: Value| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args});
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": [],
            "syscalls": [
                rule("uname", json!(null), json!([])),
                rule("no_such_call", json!(1), json!([])),
                // Two comparisons of one argument: either of them.
                rule("getpgid", json!(16), json!([compare("SCMP_CMP_EQ", 70_001, 0), compare("SCMP_CMP_EQ", 70_002, 0)])),
                rule("getpgid", json!(17), json!([compare("SCMP_CMP_MASKED_EQ", 0xff_0000, 0x7f_0000)])),
            ],
        });
        let filter = load(&profile, None).unwrap().unwrap();
        under(filter, || {
            assert_eq!(uname().err(), Some(Errno::EPERM), "errno that none names");
            for (pid, want) in [
                (70_001, Some(Errno::EBUSY)),
                (70_002, Some(Errno::EBUSY)),
                (0x7f_1234, Some(Errno::EEXIST)),
                (0, None),
            ] {
                assert_eq!(getpgid(Some(Pid::from_raw(pid))).err(), want, "{pid}");
            }
        });
        assert!(uname().is_ok(), "other threads go on");
    }

    #[test]
    fn a_program_that_is_none_is_refused() {
        let allow = load(&json!({"defaultAction": "SCMP_ACT_ALLOW"}), None).unwrap();
        under(allow.unwrap(), || {
            for bpf in [vec![], vec![0; 7], vec![0xff; 8]] {
                let err = install(&Filter { bpf, flags: 0 }, None).unwrap_err();
                assert_eq!(err.raw_os_error(), Some(libc::EINVAL));
            }
        });
    }

    #[test]
    fn the_second_load_is_the_first_ones_file() {
        let dir = scratch("load");
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_ERRNO"}]});
        let compiled = load(&profile, Some(&dir)).unwrap();
        let files = || std::fs::read_dir(&dir).unwrap().count();
        assert_eq!(files(), 1, "no temporary file stays");
        // What the cache says is taken: another program under this profile's key comes back.
        let other = Filter {
            bpf: vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f],
            flags: 0,
        };
        cache::write(&dir, &cache::key(&profile), &other);
        assert_eq!(load(&profile, Some(&dir)).unwrap(), Some(other));
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::write(&dir, "in the way").unwrap();
        assert_eq!(
            load(&profile, Some(&dir)).unwrap(),
            compiled,
            "a cache that cannot be is no error"
        );
        std::fs::remove_file(&dir).unwrap();
    }

    #[test]
    fn an_engines_default_profile_can_be_lived_under() {
        let Some(profile) = engine_profile() else {
            println!("SKIP: /usr/share/containers/seccomp.json is not there");
            return;
        };
        let filter = load(&profile, None).unwrap().unwrap();
        assert_eq!(filter.flags, 4, "SPEC_ALLOW when no flags are given");
        under(filter, || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains("Seccomp:\t2"), "{status}");
        });
    }
}
