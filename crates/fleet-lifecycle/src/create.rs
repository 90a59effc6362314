//! `create`: from a spec to a container whose first process waits for `start`.
//!
//! The order is: refuse what cannot run, take the id, account (cgroup, devices) before a process exists, make the
//! process, remember it. A failure at any step undoes the ones before it and leaves nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use fleet_rootfs::RootfsEdit;
use nix::sched::CloneFlags;
use serde_json::{Value, json};

use crate::affinity::Affinity;
use crate::annotations::HookOutput;
use crate::cgroup::{self, Cgroup, Doors, Driver};
use crate::engine::{self, Launch, view};
use crate::error::{Context, Error, Result};
use crate::hookpoint::Hookpoint;
use crate::leash::Leash;
use crate::notify::ServiceManager;
use crate::rdt::{self, Class};
use crate::record::{Container, NOTIFY_SOCKET, Record, Status};
use crate::root::{Identity, StateRoot};
use crate::spec::{self, Namespace};
use crate::surroundings;
use crate::sys::process::{self, SharedText};
use crate::tail::console::Console;
use crate::tail::devices::Devices;
use crate::tail::names::Names;
use crate::tail::{Init, Tail};
use crate::usermap::Entrance;
use crate::{delete, driver, keyring, oom, pidfd, program_plan, sysctl, usermap};

/// What `create` and `run` are asked for.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// State root.
    pub root: &'a StateRoot,
    /// Who runs us.
    pub who: &'a Identity,
    /// Container id.
    pub id: &'a str,
    /// Absolute bundle directory.
    pub bundle: &'a Path,
    /// The spec, device edits included.
    pub spec: Value,
    /// Changes inside the root file system.
    pub edits: Vec<RootfsEdit>,
    /// Container device path to host path, where they differ.
    pub host_paths: BTreeMap<String, String>,
    /// Where the first process's pid is written.
    pub pid_file: Option<PathBuf>,
    /// What was injected and why, as it is to be kept.
    pub plan: Option<Vec<u8>>,
    /// Kept in the record for the caller.
    pub audit: Option<Value>,
    /// Takes the terminal's master.
    pub console: Option<OwnedFd>,
    /// Descriptors from 3 up that the program keeps.
    pub preserve_fds: u32,
    /// `MS_MOVE` instead of `pivot_root`.
    pub no_pivot: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// Who manages the cgroup.
    pub cgroup_driver: Driver,
    /// `NAME=VALUE` for hooks that name no environment.
    pub hook_environment: Vec<String>,
    /// Who is to be told that the program is ready.
    pub service_manager: Option<ServiceManager>,
}

/// Makes the container.
///
/// # Errors
/// What failed; nothing of the container is left.
pub fn create(request: CreateRequest<'_>) -> Result<Container> {
    spec::check(&request.spec)?;
    make(request, |request, rootfs, container| {
        // After the spec was stored: a later process of the container has no part in it.
        if let Some(manager) = &request.service_manager {
            manager.offer(&container.dir, &mut request.spec)?;
        }
        build(request, rootfs, container)
    })
}

/// Prepares all that a container's processes are to meet, and has `bring` make them.
///
/// # Errors
/// What failed; nothing of the container is left.
pub(crate) fn make(
    mut request: CreateRequest<'_>,
    bring: impl FnOnce(&mut CreateRequest<'_>, &Path, &mut Container) -> Result<()>,
) -> Result<Container> {
    sysctl::check(&request.spec)?;
    check_terminal(&request)?;
    let rootfs = spec::rootfs(&request.spec, request.bundle)?;
    check_dev(&rootfs)?;
    let mut group = Cgroup::choose(&cgroup::Request {
        driver: request.cgroup_driver,
        cgroups_path: spec::text(&request.spec, "/linux/cgroupsPath"),
        id: request.id,
        rootless: request.who.rootless(),
        session: &request.who.session,
    })?;
    let dir = request.root.reserve(request.id)?;
    let mut container = Container {
        dir,
        record: Record::new(
            request.id,
            request.bundle,
            &rootfs,
            &request.spec,
            request.who.euid,
            group.announced(),
            request.audit.clone(),
        ),
    };
    let accounted = container
        .save_origin()
        .and_then(|()| account(&request, &mut group));
    // What was made is known before any failure is handled.
    container.record.cgroup = group;
    let made = accounted.and_then(|_occupant| {
        let rdt = request.spec.pointer("/linux/intelRdt");
        if rdt.is_some_and(Value::is_object) {
            container.record.rdt = Class::make(&request.spec, request.id, &rdt::mount_point()?)?;
        }
        container.save_origin()?;
        container.save_spec(&request.spec)?;
        if let Some(plan) = &request.plan {
            container.save_plan(plan)?;
        }
        bring(&mut request, &rootfs, &mut container)
    });
    match made {
        Ok(()) => Ok(container),
        Err(err) => {
            delete::discard(&container);
            Err(err)
        }
    }
}

fn check_terminal(request: &CreateRequest<'_>) -> Result<()> {
    match (
        spec::flag(&request.spec, "/process/terminal"),
        request.console.is_some(),
    ) {
        (true, false) => Err(Error::Invalid(
            "`process.terminal` is true: use --console-socket to receive the terminal".to_owned(),
        )),
        (false, true) => Err(Error::Invalid(
            "`--console-socket` was given but `process.terminal` is false".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// libcontainer 0.7: makes the default links of `/dev` by joined paths, so a `/dev` that is a symbolic link in the
/// image would lead it to the host's files (S8, the class of CVE-2026-41579).
fn check_dev(rootfs: &Path) -> Result<()> {
    match fs::symlink_metadata(rootfs.join("dev")) {
        Ok(meta) if !meta.is_dir() => Err(Error::Invalid(format!(
            "`/dev` of the root file system `{}` is not a directory but {}: refused; hint: rebuild the image with a plain /dev",
            rootfs.display(),
            if meta.file_type().is_symlink() {
                "a symbolic link"
            } else {
                "a file"
            }
        ))),
        _ => Ok(()),
    }
}

/// Makes the cgroup and sets its limits and device rules before any process is in it.
fn account(request: &CreateRequest<'_>, group: &mut Cgroup) -> Result<Option<cgroup::Occupant>> {
    let (first, last) = in_turn(request.spec.pointer("/linux/resources"));
    let occupant = group.make(&cgroup::Demand {
        id: request.id,
        resources: &first,
        annotations: request.spec.get("annotations"),
        rootless: request.who.rootless(),
    })?;
    // Without a cgroup a limit that was asked for is refused by name, never dropped in silence.
    group.apply(&first)?;
    if group.writable() {
        let rules = spec::list(&first, "/devices");
        group.apply_devices(rules, request.who.rootless())?;
    } else {
        group.apply(&last)?;
    }
    Ok(occupant)
}

/// Making a container takes a few processes of ours in its cgroup.
const PROCESSES_TO_START: i64 = 16;

/// The limits that wait until the processes are there.
///
/// # Errors
/// As [`Cgroup::update`].
pub(crate) fn limit_last(request: &CreateRequest<'_>, group: &Cgroup) -> Result<()> {
    let (_, last) = in_turn(request.spec.pointer("/linux/resources"));
    if group.writable() && last.as_object().is_some_and(|all| !all.is_empty()) {
        group.update(&last)?;
    }
    Ok(())
}

/// Limits that hold from the start, and one of the number of processes that is too low for making the container.
fn in_turn(resources: Option<&Value>) -> (Value, Value) {
    let mut first = resources
        .filter(|r| r.is_object())
        .cloned()
        .unwrap_or_else(|| json!({}));
    let mut last = json!({});
    let low = |limit: Option<i64>| limit.is_some_and(|n| (1..PROCESSES_TO_START).contains(&n));
    if low(first.pointer("/pids/limit").and_then(Value::as_i64)) {
        last["pids"] = first["pids"].take();
    }
    let unified = first.pointer("/unified/pids.max").and_then(Value::as_str);
    if low(unified.and_then(|text| text.parse().ok())) {
        last["unified"] = json!({"pids.max": first["unified"]["pids.max"].take()});
        first["unified"]
            .as_object_mut()
            .map(|files| files.shift_remove("pids.max"));
    }
    (first, last)
}

fn build(request: &CreateRequest<'_>, rootfs: &Path, container: &mut Container) -> Result<()> {
    let root = File::open(rootfs).op(|| format!("open root file system `{}`", rootfs.display()))?;
    let in_user_namespace = request.who.in_user_namespace
        || request.who.euid != 0
        || spec::namespace(&request.spec, "user") != Namespace::Inherited;
    let hidden = !container.record.cgroup.writable();
    let unified = surroundings::unified();
    let shows = spec::list(&request.spec, "/mounts")
        .iter()
        .any(|m| m["type"] == "cgroup");
    let cgroups = if shows && !unified && !hidden {
        container.record.cgroup.shown()?
    } else {
        Vec::new()
    };
    let here = view::Circumstances {
        in_user_namespace,
        cgroup_hidden: hidden,
        unified,
        cgroups: &cgroups,
        rootfs: root.as_fd(),
        bundle: request.bundle,
    };
    let mut view = view::create(&request.spec, here)?;
    let state = container.state_as(Status::Creating);
    let output = Arc::new(match request.spec.get("hooks") {
        Some(_) => HookOutput::open(&request.spec)?,
        None => HookOutput::default(),
    });
    let hookpoint = Hookpoint::new(
        &request.spec,
        &state,
        &request.hook_environment,
        request.no_pivot,
        Arc::clone(&output),
    )?;
    if let Some(hookpoint) = &hookpoint {
        view.spec["hooks"] = hookpoint.library_hooks();
    }
    let mut tail = tail(request, container, view.layout, in_user_namespace, &state)?;
    // Without a cgroup nothing else tells of a process whose pid was not written down any more.
    let leash = hidden.then(Leash::new).transpose()?;
    tail.leash = leash.as_ref().map(Leash::end).transpose()?;
    if let Some(init) = &mut tail.init {
        init.hook_output = output;
    }
    let report = Arc::clone(&tail.report);
    let launched = launch(request, rootfs, container, view.spec, tail, leash.as_ref());
    let pid = launched.map_err(
        |err| match hookpoint.as_ref().and_then(Hookpoint::failure) {
            Some(text) => Error::Setup(text),
            None => err,
        },
    )?;
    drop(report);
    remember(container, pid)?;
    leash.map_or(Ok(()), Leash::let_go)?;
    request
        .pid_file
        .as_deref()
        .map_or(Ok(()), |path| write_pid(path, pid))
}

/// Writes down who the first process is.
pub(crate) fn remember(container: &mut Container, pid: i32) -> Result<()> {
    container.record.pid = pid;
    container.record.cgroup.hold(pid)?;
    if let Some(class) = &container.record.rdt {
        class.enter(pid)?;
    }
    container.record.start_time =
        pidfd::start_time(pid).op(|| format!("read the start time of process {pid}"))?;
    container.save()
}

/// Makes the first process, which then waits.
fn launch(
    request: &CreateRequest<'_>,
    rootfs: &Path,
    container: &Container,
    mut view: Value,
    mut tail: Tail,
    leash: Option<&Leash>,
) -> Result<i32> {
    let group = &container.record.cgroup;
    // Hooks of the runtime's stages run beside the library, and belong to the runtime's own cgroup.
    let apart = view.pointer("/hooks/createRuntime").is_some();
    let doors = group.doors(group.path())?;
    let doors = doors.filter(|doors| !apart || doors.need_the_manager());
    let pid = driver::run(doors.as_ref(), || {
        if let Some(leash) = leash {
            leash.belongs_to_the_parent();
        }
        keyring::join(request, container)?;
        oom::set(&request.spec["process"], request.who.rootless())?;
        // An engine that is tied to some CPUs does not tie its containers.
        Affinity::default().apply()?;
        let (entrance, _namespace) = enter(request, &mut view)?;
        let owned = spec::namespace(&request.spec, "user") == Namespace::Inherited;
        // Users of the container may not write to the host's cgroups, and need not.
        // A user without rights makes no namespace of mounts before one of users, which is the library's.
        let may_mount = request.who.euid == 0;
        let doors = doors.as_ref().filter(|_| entrance.is_none() && may_mount);
        let hidden = !group.writable() || entrance.is_some();
        let (cgroup_path, mut own_mounts) = cgroup_view(group, doors, hidden, &view)?;
        // Hooks of the runtime's stages must see the host's own mounts.
        if !apart && entrance.is_none() && may_mount {
            if !own_mounts {
                surroundings::private_mounts()?;
                own_mounts = true;
            }
            let withheld = surroundings::follow_no_links(rootfs)?;
            if let Some(init) = &mut tail.init {
                init.layout.links_withheld = withheld;
            }
        }
        if owned && own_mounts {
            share_mounts(&mut view);
        }
        process::set_dumpable(false).op(|| "set PR_SET_DUMPABLE")?;
        engine::create(Launch {
            id: request.id,
            bundle: request.bundle,
            state_dir: &container.dir,
            view,
            rootfs: rootfs.to_path_buf(),
            cgroup_path,
            entrance,
            socket: NOTIFY_SOCKET,
            preserve_fds: i32::try_from(request.preserve_fds).unwrap_or(i32::MAX),
            no_pivot: request.no_pivot,
            tail: Rc::new(tail),
        })
    })?;
    limit_last(request, group)?;
    Ok(pid)
}

/// Prepares what the library sees of cgroups; returns the path that it is to use, and whether a mount namespace was made
/// for that.
fn cgroup_view<'a>(
    group: &'a Cgroup,
    doors: Option<&Doors>,
    hidden: bool,
    view: &Value,
) -> Result<(&'a str, bool)> {
    if hidden {
        surroundings::hide_cgroups()?;
        return Ok((surroundings::HIDDEN_CGROUP, true));
    }
    match doors.filter(|_| !surroundings::shows_cgroups(view)) {
        Some(doors) => {
            surroundings::spare_the_move(doors)?;
            Ok((group.path(), true))
        }
        None => Ok((group.path(), false)),
    }
}

/// A mount namespace that was made for the library's benefit becomes the container's: one copy of the mount table
/// less, and none to take down. Not where a process of the runtime still needs its own view of the host while the
/// container's root is changed, which takes the root of all processes in the namespace along.
fn share_mounts(view: &mut Value) {
    let alone = view.pointer("/hooks/createRuntime").is_none()
        && view.pointer("/linux/netDevices").is_none();
    if alone && spec::namespace(view, "mount") == Namespace::New {
        set_namespace_path(view, "mount", "/proc/self/ns/mnt");
    }
}

/// No trailing newline: conmon-rs parses the whole file as a number.
pub(crate) fn write_pid(path: &Path, pid: i32) -> Result<()> {
    crate::record::place_file(path, pid.to_string().as_bytes(), 0o644)
}

/// Host-owned namespaces are entered by us, a mapped user namespace is made by us, the rest is the library's.
fn enter(
    request: &CreateRequest<'_>,
    view: &mut Value,
) -> Result<(Option<Entrance>, Option<OwnedFd>)> {
    let mut namespace = None;
    if spec::namespace(&request.spec, "user") != Namespace::Inherited {
        for (kind, flag) in [
            ("network", CloneFlags::CLONE_NEWNET),
            ("ipc", CloneFlags::CLONE_NEWIPC),
            ("uts", CloneFlags::CLONE_NEWUTS),
        ] {
            let Namespace::Joined(path) = spec::namespace(&request.spec, kind) else {
                continue;
            };
            // One that belongs to the user namespace to be joined can only be entered from inside it.
            if surroundings::join(path, flag).is_ok() {
                remove_namespace(view, kind);
            }
        }
        let new = spec::namespace(&request.spec, "user") == Namespace::New;
        // Where a process of the runtime still has to do with the host, it cannot become a user of the container.
        let alone = view.pointer("/hooks/createRuntime").is_none()
            && view.pointer("/linux/netDevices").is_none()
            && !surroundings::shows_cgroups(view);
        if new
            && alone
            && request.who.euid == 0
            && let Some(entrance) = usermap::create_without_root(&request.spec)?
        {
            remove_namespace(view, "user");
            view["process"]["user"] = entrance.user();
            return Ok((Some(entrance), None));
        }
        let several = ["/linux/uidMappings", "/linux/gidMappings"]
            .iter()
            .any(|key| spec::list(&request.spec, key).len() > 1);
        if new && several && request.who.euid == 0 {
            let fd = usermap::create(&request.spec)?;
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
            set_namespace_path(view, "user", &path);
            namespace = Some(fd);
        }
    }
    Ok((None, namespace))
}

fn namespaces_mut(view: &mut Value) -> Option<&mut Vec<Value>> {
    view.pointer_mut("/linux/namespaces")
        .and_then(Value::as_array_mut)
}

fn remove_namespace(view: &mut Value, kind: &str) {
    if let Some(all) = namespaces_mut(view) {
        all.retain(|ns| ns["type"] != kind);
    }
}

fn set_namespace_path(view: &mut Value, kind: &str, path: &str) {
    if let Some(entry) =
        namespaces_mut(view).and_then(|all| all.iter_mut().find(|ns| ns["type"] == kind))
    {
        entry["path"] = json!(path);
    }
}

fn tail(
    request: &CreateRequest<'_>,
    container: &Container,
    layout: crate::tail::mounts::Layout,
    in_user_namespace: bool,
    state: &Value,
) -> Result<Tail> {
    let full = &request.spec;
    let host_path = |path: &str| {
        request
            .host_paths
            .get(path)
            .cloned()
            .unwrap_or_else(|| path.to_owned())
    };
    let devices = Devices::plan(
        full,
        host_path,
        in_user_namespace,
        request.who.euid == 0 && !request.who.in_user_namespace,
        &layout,
    )?;
    let program =
        program_plan::from_spec(full, &full["process"], Some(&request.root.cache()), state)?;
    let console = request
        .console
        .as_ref()
        .map(|socket| console(socket, &full["process"], true))
        .transpose()?;
    Ok(Tail {
        report: Arc::new(SharedText::new().op(|| "map a shared page")?),
        init: Some(Init {
            layout,
            devices,
            loopback: spec::namespace(full, "network") == Namespace::New,
            names: Names::of(full),
            edits: request.edits.clone(),
            read_only_root: spec::flag(full, "/root/readonly"),
            start_hooks: spec::list(full, "/hooks/startContainer").to_vec(),
            state: state_with(state, container),
            hook_output: Arc::default(),
        }),
        console,
        program,
        maker: None,
        leash: None,
        resolved: std::cell::RefCell::default(),
    })
}

fn state_with(state: &Value, _: &Container) -> Vec<u8> {
    let mut state = state.clone();
    // Inside its own pid namespace the first process is 1; without one the hook sees it as its parent.
    state["pid"] = json!(1);
    state["status"] = json!("created");
    state.to_string().into_bytes()
}

/// A terminal for `process`, its master sent over `socket`.
pub(crate) fn console(socket: &OwnedFd, process: &Value, bind: bool) -> Result<Console> {
    let size = |key: &str| {
        process
            .pointer(&format!("/consoleSize/{key}"))
            .and_then(Value::as_u64)
            .and_then(|n| u16::try_from(n).ok())
    };
    let size = match (size("height"), size("width")) {
        (Some(rows), Some(columns)) if rows > 0 && columns > 0 => Some(process::WindowSize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }),
        _ => None,
    };
    Ok(Console {
        socket: socket.try_clone().op(|| "duplicate the console socket")?,
        size,
        bind,
        owner: spec::number(process, "/user/uid").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_number_of_processes_is_limited_last() {
        let resources = json!({"memory": {"limit": 1}, "pids": {"limit": 1}, "unified": {"pids.max": "2", "memory.high": "3"}});
        let (first, last) = in_turn(Some(&resources));
        assert_eq!(
            first,
            json!({"memory": {"limit": 1}, "pids": null, "unified": {"memory.high": "3"}})
        );
        assert_eq!(
            last,
            json!({"pids": {"limit": 1}, "unified": {"pids.max": "2"}})
        );
        let enough = json!({"pids": {"limit": 2048}, "unified": {"pids.max": "max"}});
        assert_eq!(in_turn(Some(&enough)), (enough, json!({})));
        assert_eq!(in_turn(None), (json!({}), json!({})));
    }
}
