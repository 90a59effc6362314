//! CRIU, which saves and revives processes, as far as this runtime asks it to.
//!
//! It is a program of its own, started for each request with a cleared environment and asked over a socket
//! ([`service`]); nothing of it is linked. Cgroups, device rules and the container's surroundings are this runtime's
//! business, and CRIU is told to leave them alone. What it cannot save, or would come back as something else, is
//! refused by name before anything is touched ([`refuse`]).

mod complaint;
mod description;
mod directory;
mod external;
mod service;
mod stdio;
mod table;
mod wire;

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use service::{Kind, Service};
use wire::Message;

use crate::error::{Context, Error, Result};
use crate::root::Identity;
use crate::spec::{self, Namespace};

pub(crate) use description::Description;
pub(crate) use directory::Directory;
pub(crate) use external::{External, From, Sources, sort};
pub(crate) use service::{FIRST_KEPT, Notice, Program, Surroundings};
pub(crate) use stdio::of as stdio;

/// The name by which CRIU knows a network namespace that is not its to save.
const NETWORK: &str = "fleet-network";

/// What may be asked of both a checkpoint and a restore.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Established TCP connections, too.
    pub tcp_established: bool,
    /// File locks, too.
    pub file_locks: bool,
    /// Unix sockets whose other end is outside.
    pub ext_unix_sk: bool,
    /// A job that was started from a shell outside.
    pub shell_job: bool,
    /// Memory that an earlier image has as well is removed there.
    pub auto_dedup: bool,
}

/// What only a checkpoint knows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Dump<'a> {
    pub(crate) options: Options,
    pub(crate) pid: i32,
    pub(crate) leave_running: bool,
    /// Memory only; the container runs on.
    pub(crate) memory_only: bool,
    /// An earlier image, relative to this one.
    pub(crate) parent: Option<&'a str>,
    pub(crate) tcp_skip_in_flight: bool,
    pub(crate) link_remap: bool,
    /// The root file system on the host.
    pub(crate) root: &'a str,
    /// The directory of its freezer.
    pub(crate) freezer: Option<&'a str>,
    /// The number of a network namespace that is the engine's.
    pub(crate) network: Option<u64>,
}

/// Name of CRIU's log in the work directory.
const DUMP_LOG: &str = "dump.log";
/// The same of a restore.
const RESTORE_LOG: &str = "restore.log";

/// Refuses what cannot be saved and revived as it is.
///
/// # Errors
/// The first of them, by name.
pub(crate) fn refuse(verb: &str, who: &Identity, full: &Value) -> Result<()> {
    if who.rootless() {
        return Err(Error::Invalid(format!(
            "{verb} needs root of the machine: CRIU works for nobody else"
        )));
    }
    match unsupported(full) {
        Some(what) => Err(Error::Invalid(format!(
            "{verb} of a container with {what} is not supported"
        ))),
        None => Ok(()),
    }
}

/// What of a spec CRIU does not save, or would not bring back.
fn unsupported(full: &Value) -> Option<String> {
    for kind in ["user", "pid", "ipc", "uts", "cgroup", "mount", "time"] {
        match (kind, spec::namespace(full, kind)) {
            ("user", Namespace::Inherited) => {}
            ("user", _) => return Some("a user namespace".to_owned()),
            ("pid", Namespace::Inherited) => {
                return Some("the process numbers of the host".to_owned());
            }
            (_, Namespace::Joined(path)) => {
                return Some(format!("the {kind} namespace `{path}` of another"));
            }
            _ => {}
        }
    }
    if spec::list(full, "/mounts").iter().any(crate::idmap::asked) {
        return Some("idmapped mounts".to_owned());
    }
    let notify = spec::text(full, "/linux/seccomp/listenerPath").is_some()
        || spec::list(full, "/linux/seccomp/syscalls")
            .iter()
            .any(|rule| rule["action"] == "SCMP_ACT_NOTIFY");
    if notify {
        return Some("a seccomp agent".to_owned());
    }
    let given = |pointer: &str| full.pointer(pointer).is_some_and(|value| !value.is_null());
    [
        "/linux/intelRdt",
        "/linux/netDevices",
        "/linux/memoryPolicy",
        "/process/ioPriority",
    ]
    .into_iter()
    .find(|pointer| given(pointer))
    .map(|pointer| format!("`{}`", pointer.trim_start_matches('/').replace('/', ".")))
}

/// The number of the network namespace of `pid`, where the spec names one that is neither CRIU's own nor new.
///
/// # Errors
/// As `man 2 stat`.
pub(crate) fn network(pid: i32, full: &Value) -> Result<Option<u64>> {
    if !matches!(spec::namespace(full, "network"), Namespace::Joined(_)) {
        return Ok(None);
    }
    let number = |process: &str| {
        let path = format!("/proc/{process}/ns/net");
        std::fs::metadata(&path)
            .map(|meta| meta.ino())
            .op(|| format!("stat `{path}`"))
    };
    let theirs = number(&pid.to_string())?;
    Ok((number("self")? != theirs).then_some(theirs))
}

fn common(options: &Options, images: &Directory, work: &Directory, log: &str) -> Message {
    const INFORMATION: u64 = 4;
    const IGNORE: u64 = 0;
    let mut message = Message::default();
    message
        .signed(1, images.fd())
        .signed(17, work.fd())
        .flag(4, options.ext_unix_sk)
        .flag(5, options.tcp_established)
        .flag(6, true)
        .flag(7, options.shell_job)
        .flag(8, options.file_locks)
        .flag(16, options.auto_dedup)
        .number(9, INFORMATION)
        .text(10, log)
        .number(34, IGNORE)
        .flag(50, true);
    message
}

/// Saves a container's processes into `images`; CRIU's log goes to `work`.
///
/// # Errors
/// What CRIU has against it; the container goes on.
pub(crate) fn dump(
    program: &Program,
    request: &Dump<'_>,
    description: &Description,
    images: &Directory,
    work: &Directory,
) -> Result<()> {
    let mut options = common(&request.options, images, work, DUMP_LOG);
    options
        .signed(2, request.pid)
        .flag(3, request.leave_running)
        .text(13, request.root)
        .flag(18, request.link_remap)
        .flag(46, request.tcp_skip_in_flight)
        .flag(15, request.memory_only || request.parent.is_some());
    if let Some(parent) = request.parent {
        options.text(14, parent);
    }
    if let Some(freezer) = request.freezer {
        options.text(44, freezer);
    }
    if let Some(number) = request.network {
        options.text(37, &format!("net[{number}]:{NETWORK}"));
    }
    for file in description.files() {
        options.text(37, file);
    }
    for mount in &description.external {
        options.message(23, &pair(&mount.point, &mount.point));
    }
    let kind = match request.memory_only {
        true => Kind::PreDump,
        false => Kind::Dump,
    };
    let service = Service::open(program, Surroundings::default(), || Ok(()))?;
    let done = service.ask(kind, &options, |_, _| Ok(()));
    done.map(drop).map_err(|err| {
        explained(
            "CRIU cannot save the container",
            err,
            (work, DUMP_LOG),
            description,
        )
    })
}

/// What only a restore knows.
#[derive(Debug)]
pub(crate) struct Revival<'a> {
    pub(crate) options: Options,
    /// Saved connections are closed.
    pub(crate) tcp_close: bool,
    /// Where the root file system is mounted.
    pub(crate) root: &'a str,
    /// Host path of each mount from outside.
    pub(crate) mounts: Vec<(&'a str, String)>,
    /// The network namespace has the first number of the descriptors that CRIU is given.
    pub(crate) network: bool,
}

/// Revives a container's processes; the first becomes a child of ours. `prepare` is done in CRIU's process before it
/// is CRIU, and `notified` is told how far it is.
///
/// # Errors
/// What CRIU, or one of the two, has against it; none of the processes is left then.
pub(crate) fn restore(
    program: &Program,
    request: &Revival<'_>,
    description: &Description,
    (images, work): (&Directory, &Directory),
    surroundings: Surroundings<'_>,
    prepare: impl FnOnce() -> Result<()>,
    notified: impl FnMut(&Notice, Option<OwnedFd>) -> Result<()>,
) -> Result<i32> {
    let mut options = common(&request.options, images, work, RESTORE_LOG);
    options
        .flag(12, true)
        .text(13, request.root)
        .flag(26, true)
        .flag(52, request.tcp_close);
    for (point, path) in &request.mounts {
        options.message(23, &pair(point, path));
    }
    for (key, fd) in description.streams() {
        options.message(27, &inherited(key, fd));
    }
    if request.network {
        options.message(27, &inherited(NETWORK, FIRST_KEPT));
    }
    let mut failed = false;
    let mut notified = notified;
    let service = Service::open(program, surroundings, prepare)?;
    let answer = service.ask(Kind::Restore, &options, |notice, fd| {
        notified(notice, fd).inspect_err(|_| failed = true)
    });
    let answer = answer.map_err(|err| match failed {
        true => err,
        false => explained(
            "CRIU cannot restore the container",
            err,
            (work, RESTORE_LOG),
            description,
        ),
    })?;
    answer
        .pid
        .filter(|pid| *pid > 0)
        .ok_or_else(|| Error::Setup("CRIU restored the container without a process".to_owned()))
}

fn pair(key: &str, value: &str) -> Message {
    let mut message = Message::default();
    message.text(1, key).text(2, value);
    message
}

fn inherited(key: &str, fd: i32) -> Message {
    let mut message = Message::default();
    message.text(1, key).signed(2, fd);
    message
}

/// The error with what CRIU's log says about it.
fn explained(
    what: &str,
    err: Error,
    (work, log): (&Directory, &str),
    description: &Description,
) -> Error {
    let (why, place) = match complaint::of_log(work, log) {
        Some(why) => (why, format!(" (`{}`)", work.path().join(log).display())),
        None => (err.to_string(), String::new()),
    };
    let why = match description.device_of(&why) {
        Some(path) => format!("{why}, which is `{path}`"),
        None => why,
    };
    let hint = match complaint::advice(&why) {
        Some(advice) if !why.contains("hint: ") => format!("; hint: {advice}"),
        _ => String::new(),
    };
    Error::Setup(match why.trim() {
        "" => format!("{what}, and does not say why"),
        why => format!("{what}: {why}{place}{hint}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(linux: Value) -> Value {
        let mut full = json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network", "path": "/run/netns/x"}]}});
        for (key, value) in linux.as_object().unwrap() {
            full["linux"][key] = value.clone();
        }
        full
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert_eq!(unsupported(&spec(json!({}))), None);
        let namespaces = |more: Value| {
            let mut full = spec(json!({}));
            full["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .push(more);
            unsupported(&full)
        };
        for kind in ["ipc", "uts", "cgroup", "time"] {
            assert_eq!(namespaces(json!({"type": kind})), None, "{kind}");
            let joined = namespaces(json!({"type": kind, "path": "/proc/7/ns/x"})).unwrap();
            assert!(
                joined.contains(kind) && joined.contains("/proc/7/ns/x"),
                "{joined}"
            );
        }
        assert_eq!(
            namespaces(json!({"type": "user"})).as_deref(),
            Some("a user namespace")
        );
        let host = json!({"linux": {"namespaces": []}});
        assert_eq!(
            unsupported(&host).as_deref(),
            Some("the process numbers of the host")
        );
        let rdt = unsupported(&spec(json!({"intelRdt": {}}))).unwrap();
        assert_eq!(rdt, "`linux.intelRdt`");
        let agent = json!({"seccomp": {"syscalls": [{"action": "SCMP_ACT_NOTIFY"}]}});
        assert_eq!(
            unsupported(&spec(agent)).as_deref(),
            Some("a seccomp agent")
        );
        let mut full = spec(json!({}));
        full["mounts"] = json!([{"destination": "/x", "options": ["idmap"]}]);
        assert_eq!(unsupported(&full).as_deref(), Some("idmapped mounts"));
    }

    #[test]
    fn errors_quote_the_log() {
        let base = tempfile::tempdir().unwrap();
        let work = Directory::open("work directory", base.path()).unwrap();
        let devices = json!([{"path": "/dev/nvidia-uvm", "type": "c", "major": 508, "minor": 0}]);
        let description =
            Description::new(&spec(json!({"devices": devices})), &[], false, Vec::new());
        let text = |answer: &str| {
            let err = Error::Setup(answer.to_owned());
            explained("CRIU cannot save it", err, (&work, DUMP_LOG), &description).to_string()
        };
        assert_eq!(
            text("Permission denied"),
            "CRIU cannot save it: Permission denied"
        );
        assert_eq!(text(""), "CRIU cannot save it, and does not say why");
        let line =
            "(00.1) Error (criu/x.c:1): Can't dump file 5 of that type [20666] (chr 508:0)\n";
        work.put(DUMP_LOG, line.as_bytes()).unwrap();
        let text = text("Permission denied");
        let start = "CRIU cannot save it: Can't dump file 5 of that type [20666] (chr 508:0), which is `/dev/nvidia-uvm`";
        assert!(text.starts_with(start), "{text}");
        let log = base.path().join(DUMP_LOG).display().to_string();
        assert!(text.contains(&log), "{text}");
        assert!(text.contains("; hint: a process has a GPU open"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
