//! Containers that another OCI runtime of the machine runs, such as crun or runc.
//!
//! Its program gets the edited spec in a bundle of our own beside the engine's. The record says which program made a
//! container, and every later call goes to that one, also when the configuration has changed since. The program is
//! looked for in fixed directories: the environment of a caller or a container has no say in it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::SigSet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cgroup::{self, Cgroup, Driver};
use crate::error::{Context, Error, Result};
use crate::hooks::own_environment;
use crate::notify::ServiceManager;
use crate::pidfd::{self, PidFd};
use crate::record::{self, Container, Record};
use crate::root::{Identity, StateRoot};
use crate::spec;

/// For what the other runtime looks up itself, such as newuidmap(1).
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an engine says to us and to nobody that we run.
const OURS: [&str; 4] = ["PATH=", "NOTIFY_SOCKET=", "LISTEN_FDS=", "LISTEN_PID="];

/// Another runtime, as a container's record holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delegate {
    /// Absolute path of its program.
    pub program: PathBuf,
    /// Its state root.
    pub root: PathBuf,
    /// The bundle that it was given.
    #[serde(default)]
    pub bundle: PathBuf,
}

/// What is asked of another runtime to make a container.
#[derive(Debug)]
pub struct DelegateRequest<'a> {
    /// Our state root.
    pub root: &'a StateRoot,
    /// Who runs us.
    pub who: &'a Identity,
    /// Container id.
    pub id: &'a str,
    /// The engine's bundle.
    pub bundle: &'a Path,
    /// Its spec file.
    pub config: &'a Path,
    /// The spec, with its devices and the hooks that make our changes.
    pub spec: Value,
    /// Where the pid is written.
    pub pid_file: Option<PathBuf>,
    /// What was injected and why.
    pub plan: Option<Vec<u8>>,
    /// Kept in the record for the caller.
    pub audit: Option<Value>,
    /// Who takes the terminal.
    pub terminal: Terminal,
    /// Descriptors from 3 up that the program keeps.
    pub preserve_fds: u32,
    /// `MS_MOVE` instead of `pivot_root`.
    pub no_pivot: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// Who manages the cgroup.
    pub cgroup_driver: Driver,
    /// Who is to be told that the program is ready.
    pub service_manager: Option<ServiceManager>,
}

/// Who takes the container's terminal.
#[derive(Debug)]
pub enum Terminal {
    /// There is none.
    None,
    /// The engine, at this socket.
    Engine(PathBuf),
    /// We do.
    Ours,
}

impl Delegate {
    /// The first of the runtimes `names` (or absolute paths) that is installed in `directories`.
    ///
    /// # Errors
    /// None is, or the one that is found is this program.
    pub fn find(names: &[String], directories: &[&str], root: &StateRoot) -> Result<Self> {
        let program = names.iter().find_map(|name| installed(name, directories));
        let program = program.ok_or_else(|| {
            Error::Invalid(format!(
                "none of the runtimes {} is installed in {}; hint: install one, or take `runtimes` out of the configuration",
                names.join(", "),
                directories.join(", ")
            ))
        })?;
        if is_this_program(&program) {
            return Err(Error::Invalid(format!(
                "the runtime `{}` of the configuration is this program itself",
                program.display()
            )));
        }
        let mut directory = OsString::from(".");
        directory.push(program.file_name().unwrap_or_default());
        Ok(Self {
            root: root.path().join(directory),
            program,
            bundle: PathBuf::new(),
        })
    }

    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear();
        let kept = own_environment().into_iter();
        for entry in kept.filter(|entry| !OURS.iter().any(|name| entry.starts_with(name))) {
            if let Some((name, value)) = entry.split_once('=') {
                command.env(name, value);
            }
        }
        if let Some((name, value)) = PATH.split_once('=') {
            command.env(name, value);
        }
        command.arg("--root").arg(&self.root);
        command
    }

    /// This call becomes one of the other runtime, which speaks to the engine itself: stdin to stderr, exit status and
    /// log file are its own. Returns only when it cannot be run.
    #[must_use]
    pub fn become_it(&self, options: &[OsString], args: &[OsString]) -> Error {
        use std::os::unix::process::CommandExt;
        let source = self.command().args(options).args(args).exec();
        self.cannot_be_run(&source)
    }

    /// Runs it with our own stdin and stdout; its complaints come back as an error.
    ///
    /// # Errors
    /// What it said.
    pub fn pass(&self, container: &Container, args: &[OsString]) -> Result<()> {
        self.call(container, args, Stdio::inherit(), Stdio::inherit())
            .map(drop)
    }

    /// Runs it and returns what it printed.
    ///
    /// # Errors
    /// What it said.
    pub fn ask(&self, container: &Container, args: &[&str]) -> Result<String> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        self.call(container, &args, Stdio::null(), Stdio::piped())
    }

    fn call(
        &self,
        container: &Container,
        args: &[OsString],
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<String> {
        let log = Log::new(&container.dir);
        let mut command = self.command();
        log.named(&mut command).args(args);
        command.stdin(stdin).stdout(stdout).stderr(Stdio::null());
        let done = spawn(&mut command).and_then(Child::wait_with_output);
        let done = done.map_err(|source| self.cannot_be_run(&source))?;
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(Error::Setup(self.complaint(&log, &done.status.to_string()))),
        }
    }

    fn complaint(&self, log: &Log, status: &str) -> String {
        match log.error() {
            Some(text) => format!("{}: {text}", self.name()),
            None => format!("{} failed without a word: {status}", self.name()),
        }
    }

    fn cannot_be_run(&self, err: &io::Error) -> Error {
        // Not in the words of the C library: engines take those for a missing program of the container.
        let cause = err.raw_os_error().map_or_else(
            || err.to_string(),
            |code| format!("{:?}", nix::errno::Errno::from_raw(code)),
        );
        Error::Setup(format!(
            "the runtime `{}`, which made this container, cannot be run: {cause}; hint: install it again, or `delete --force`",
            self.program.display()
        ))
    }
}

/// What we hold back, to forward it, is not to be held back in the other runtime and in what it runs.
fn spawn(command: &mut Command) -> io::Result<Child> {
    let held = SigSet::thread_get_mask()?;
    SigSet::empty().thread_set_mask()?;
    let child = command.spawn();
    held.thread_set_mask()?;
    child
}

/// The file that the other runtime writes its errors to.
struct Log(PathBuf);

impl Log {
    fn new(dir: &Path) -> Self {
        Self(dir.join(format!("delegate-{}.log", std::process::id())))
    }

    fn named<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .arg("--log")
            .arg(&self.0)
            .args(["--log-format", "json"])
    }

    /// The last record of an error.
    fn error(&self) -> Option<String> {
        let text = fs::read_to_string(&self.0).ok()?;
        let mut records = text
            .lines()
            .rev()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let record = records.find(|record| record["level"] == "error")?;
        record["msg"].as_str().map(|text| text.trim().to_owned())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn installed(name: &str, directories: &[&str]) -> Option<PathBuf> {
    let places: Vec<PathBuf> = match name.starts_with('/') {
        true => vec![PathBuf::from(name)],
        false if name.contains('/') => Vec::new(),
        false => directories
            .iter()
            .map(|dir| Path::new(dir).join(name))
            .collect(),
    };
    places.into_iter().find(|path| {
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

fn is_this_program(program: &Path) -> bool {
    match (program.metadata(), fs::metadata("/proc/self/exe")) {
        (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
        _ => false,
    }
}

/// Has the other runtime make the container. With [`Terminal::Ours`] the socket that its terminal comes to is returned,
/// too.
///
/// # Errors
/// What failed; nothing of the container is left.
pub fn create(
    delegate: Delegate,
    mut request: DelegateRequest<'_>,
) -> Result<(Container, Option<UnixListener>)> {
    let rootfs = spec::rootfs(&request.spec, request.bundle)?;
    make_absolute(&mut request.spec, &rootfs, request.bundle);
    let dir = request.root.reserve(request.id)?;
    let record = Record {
        delegate: Some(Delegate {
            bundle: request.bundle.join(format!(".fleet-nvidia-{}", request.id)),
            ..delegate
        }),
        ..Record::new(
            request.id,
            request.bundle,
            &rootfs,
            &request.spec,
            request.who.euid,
            nowhere(request.id, request.who)?,
            request.audit.clone(),
        )
    };
    let mut container = Container { dir, record };
    let made = make(&mut request, &mut container);
    match made {
        Ok(listener) => Ok((container, listener)),
        Err(err) => {
            drop(remove(&container, true));
            Err(err)
        }
    }
}

/// The other runtime has the cgroup.
fn nowhere(id: &str, who: &Identity) -> Result<Cgroup> {
    Ok(Cgroup::choose(&cgroup::Request {
        driver: Driver::Disabled,
        cgroups_path: None,
        id,
        rootless: who.rootless(),
        session: &who.session,
    })?)
}

fn make(
    request: &mut DelegateRequest<'_>,
    container: &mut Container,
) -> Result<Option<UnixListener>> {
    container.save_origin()?;
    container.save_spec(&request.spec)?;
    if let Some(plan) = &request.plan {
        container.save_plan(plan)?;
    }
    if let Some(manager) = &request.service_manager {
        manager.offer(&container.dir, &mut request.spec)?;
    }
    let delegate = of(container)?.clone();
    store_bundle(request, &delegate)?;
    let pid_file = container.dir.join("delegate.pid");
    let console = container.dir.join("console.sock");
    let listener = match request.terminal {
        Terminal::Ours => Some(
            UnixListener::bind(&console).op(|| format!("make socket `{}`", console.display()))?,
        ),
        _ => None,
    };
    let log = Log::new(&container.dir);
    let mut command = delegate.command();
    log.named(&mut command)
        .args(managed(&delegate, request.cgroup_driver)?)
        .arg("create")
        .arg("--bundle")
        .arg(&delegate.bundle)
        .arg("--pid-file")
        .arg(&pid_file);
    match &request.terminal {
        Terminal::None => {}
        Terminal::Engine(socket) => drop(command.arg("--console-socket").arg(socket)),
        Terminal::Ours => drop(command.arg("--console-socket").arg(&console)),
    }
    for (wanted, option) in [
        (request.no_pivot, "--no-pivot"),
        (request.no_new_keyring, "--no-new-keyring"),
    ] {
        if wanted {
            command.arg(option);
        }
    }
    if request.preserve_fds > 0 {
        let count = request.preserve_fds.to_string();
        command.args(["--preserve-fds", &count]);
    }
    // With a terminal nothing of ours reaches the container; else our stderr is its own, and on failure the other
    // runtime has said there what went wrong.
    let told = matches!(request.terminal, Terminal::None);
    if !told {
        command.stderr(Stdio::null());
    }
    let status = spawn(command.arg(request.id)).and_then(|mut child| child.wait());
    let status = status.map_err(|err| delegate.cannot_be_run(&err))?;
    if !status.success() {
        let text = delegate.complaint(&log, &status.to_string());
        return Err(match told {
            true => Error::Told(text),
            false => Error::Setup(text),
        });
    }
    container.record.pid = read_pid(&pid_file)?;
    container.record.start_time = pidfd::start_time(container.record.pid)
        .op(|| format!("read the start time of process {}", container.record.pid))?;
    container.save()?;
    if let Some(path) = request.pid_file.as_deref() {
        crate::create::write_pid(path, container.record.pid)?;
    }
    Ok(listener)
}

fn managed(delegate: &Delegate, driver: Driver) -> Result<Vec<&'static str>> {
    let crun = delegate.name() == "crun";
    match driver {
        Driver::Cgroupfs => Ok(Vec::new()),
        Driver::Systemd => Ok(vec!["--systemd-cgroup"]),
        Driver::Disabled if crun => Ok(vec!["--cgroup-manager", "disabled"]),
        Driver::Disabled => Err(Error::Invalid(format!(
            "{} runs no container without a cgroup; hint: crun does",
            delegate.name()
        ))),
    }
}

/// Paths that are relative to the engine's bundle would not be so to ours.
fn make_absolute(spec: &mut Value, rootfs: &Path, bundle: &Path) {
    spec["root"]["path"] = json!(rootfs);
    let mounts = spec.get_mut("mounts").and_then(Value::as_array_mut);
    for mount in mounts.into_iter().flatten() {
        let options = spec::strings(mount, "/options");
        let bind = mount["type"] == "bind" || options.iter().any(|o| o == "bind" || o == "rbind");
        if let Some(source) = mount["source"].as_str().filter(|s| bind && !s.is_empty()) {
            mount["source"] = json!(bundle.join(source));
        }
    }
}

/// Beside the engine's own: a hook inside a user namespace can read there what the engine lets it read. The file has
/// the owner and mode of the engine's.
fn store_bundle(request: &DelegateRequest<'_>, delegate: &Delegate) -> Result<()> {
    let failed = || format!("make bundle `{}`", delegate.bundle.display());
    let config = request.bundle.join(request.config);
    let like = config
        .metadata()
        .op(|| format!("stat `{}`", config.display()))?;
    // The id is ours by now: what is there under this name is of a container that a reboot has ended.
    match fs::remove_dir_all(&delegate.bundle) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err).op(failed),
        _ => {}
    }
    DirBuilder::new()
        .mode(0o755)
        .create(&delegate.bundle)
        .op(failed)?;
    let file = delegate.bundle.join("config.json");
    let mode = like.permissions().mode() & 0o644 | 0o600;
    record::replace_file(&file, request.spec.to_string().as_bytes(), mode)?;
    if request.who.euid == 0 {
        std::os::unix::fs::chown(&file, Some(like.uid()), Some(like.gid())).op(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(&delegate.root) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
            Err(err).op(|| format!("make `{}`", delegate.root.display()))
        }
        _ => Ok(()),
    }
}

fn read_pid(path: &Path) -> Result<i32> {
    let text = fs::read_to_string(path).op(|| format!("read `{}`", path.display()))?;
    drop(fs::remove_file(path));
    text.trim()
        .parse()
        .map_err(|_| Error::Setup(format!("`{}` holds no pid: {text:?}", path.display())))
}

fn of(container: &Container) -> Result<&Delegate> {
    container.record.delegate.as_ref().ok_or_else(|| {
        Error::Setup(format!(
            "container `{}` is of no other runtime",
            container.record.id
        ))
    })
}

/// The state document of any container: for one of another runtime that runtime's, about the engine's bundle.
///
/// # Errors
/// What the other runtime said.
pub fn state_of(container: &Container) -> Result<Value> {
    match container.record.delegate {
        Some(_) => state(container),
        None => container.state(),
    }
}

/// The state document: the other runtime's, about the engine's bundle.
///
/// # Errors
/// What it said.
fn state(container: &Container) -> Result<Value> {
    let record = &container.record;
    let delegate = of(container)?;
    let text = delegate.ask(container, &["state", &record.id])?;
    let mut state: Value = serde_json::from_str(&text)
        .map_err(|err| Error::Setup(format!("{} tells no state: {err}", delegate.name())))?;
    state["bundle"] = json!(record.bundle);
    state["rootfs"] = json!(record.rootfs);
    state["annotations"] = json!(record.annotations);
    state["owner"] = json!(record.owner);
    if state["status"] == "stopped" {
        state["pid"] = json!(0);
    }
    Ok(state)
}

/// A verb that takes nothing but the id.
///
/// # Errors
/// What the other runtime said.
pub(crate) fn simply(verb: &str, container: &Container) -> Result<()> {
    of(container)?
        .ask(container, &[verb, &container.record.id])
        .map(drop)
}

/// Signals it.
///
/// # Errors
/// [`Error::NotRunning`], or what the other runtime said.
pub fn kill(container: &Container, signal: i32, all: bool) -> Result<()> {
    let id = &container.record.id;
    if !all && !container.alive()? {
        return Err(Error::NotRunning(id.clone()));
    }
    let number = signal.to_string();
    let args = [
        &["kill"][..],
        if all { &["--all"] } else { &[] },
        &[id, &number],
    ]
    .concat();
    of(container)?.ask(container, &args).map(drop)
}

/// Has the other runtime remove it, and removes what is ours. With `force`, a runtime that has gone is no obstacle: the
/// process is killed, and what only that runtime could take away stays.
///
/// # Errors
/// What the other runtime said, or what could not be removed.
pub fn remove(container: &Container, force: bool) -> Result<()> {
    let delegate = of(container)?;
    let id = container.record.id.as_str();
    let args: &[&str] = if force {
        &["delete", "--force", id]
    } else {
        &["delete", id]
    };
    match delegate.ask(container, args) {
        Ok(_) => {}
        Err(_) if force && !delegate.program.exists() => {
            tracing::warn!("`{}` has gone", delegate.program.display());
            end(container);
        }
        Err(err) => return Err(err),
    }
    for dir in [&delegate.bundle, &container.dir] {
        match fs::remove_dir_all(dir) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(err).op(|| format!("remove `{}`", dir.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn end(container: &Container) {
    if let Ok(process) = PidFd::open(container.record.pid)
        && container.alive().unwrap_or(false)
    {
        drop(process.send(libc::SIGKILL));
        drop(process.wait_exit(Some(std::time::Duration::from_secs(10))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(dir: &Path) -> StateRoot {
        StateRoot::new(Some(dir), &Identity::current(), None)
    }

    #[test]
    fn a_runtime_is_found_by_name_in_fixed_places_or_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let find = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Delegate::find(&names, &["/usr/bin", "/bin"], &root(dir.path()))
        };
        let sh = find(&["no-such-runtime", "sh"]).unwrap();
        assert!(
            ["/usr/bin/sh", "/bin/sh"]
                .map(Path::new)
                .contains(&sh.program.as_path())
        );
        assert_eq!(sh.root, dir.path().join(".sh"));
        assert_eq!(find(&["/bin/cat"]).unwrap().name(), "cat");
        let own = dir.path().join("mine");
        fs::write(&own, "").unwrap();
        let own = own.to_str().unwrap();
        let err = find(&[own, "../../bin/sh"]).unwrap_err().to_string();
        assert!(err.contains("is installed in /usr/bin, /bin"), "{err}");
        let this = std::env::current_exe().unwrap();
        let err = find(&[this.to_str().unwrap()]).unwrap_err().to_string();
        assert!(err.contains("this program itself"), "{err}");
    }

    #[test]
    fn its_last_error_is_the_one_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path());
        assert_eq!(log.error(), None);
        let text = "{\"level\":\"error\",\"msg\":\"one\"}\nnoise\n{\"level\":\"error\",\"msg\":\"two \"}\n{\"level\":\"warning\",\"msg\":\"three\"}\n";
        fs::write(&log.0, text).unwrap();
        assert_eq!(log.error().as_deref(), Some("two"));
        let path = log.0.clone();
        drop(log);
        assert!(!path.exists());
    }

    #[test]
    fn paths_that_begin_at_the_bundle_are_made_absolute() {
        let mut spec = json!({"root": {"path": "rootfs"}, "mounts": [
            {"destination": "/a", "type": "bind", "source": "data"},
            {"destination": "/b", "source": "/abs", "options": ["rbind"]},
            {"destination": "/c", "type": "tmpfs", "source": "tmpfs"},
        ]});
        make_absolute(&mut spec, Path::new("/b/rootfs"), Path::new("/b"));
        assert_eq!(spec["root"]["path"], "/b/rootfs");
        let sources: Vec<_> = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["source"])
            .collect();
        assert_eq!(
            sources,
            [&json!("/b/data"), &json!("/abs"), &json!("tmpfs")]
        );
    }

    #[test]
    fn a_runtime_that_has_gone_is_named_without_the_words_of_engines() {
        let gone = Delegate {
            program: PathBuf::from("/nonexistent/crun"),
            root: PathBuf::from("/nonexistent/root"),
            bundle: PathBuf::new(),
        };
        let err = gone.become_it(&[], &[]).to_string();
        assert!(err.contains("`/nonexistent/crun`, which made this container"));
        assert!(!err.to_lowercase().contains("no such file"), "{err}");
    }
}
