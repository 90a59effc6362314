//! Running the hooks of a spec (`runtime-spec config.md#posix-platform-hooks`).
//!
//! A hook gets the environment it names and nothing else; one that names none gets the engine's, as with the peers,
//! never an image's (CVE-2025-23266) and without the loader's variables, or inside the container the program's. It has a fixed working directory, the state on stdin, and a time limit for its whole process group.
//! Its name and what it said on stderr are in the error.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, pipe2};
use serde_json::Value;

use crate::annotations::HookOutput;
use crate::pidfd::PidFd;
use crate::spec;

/// Bytes of a hook's stderr that go into the error.
const TAIL: usize = 1024;
/// What a pipe holds unless told otherwise (`man 7 pipe`).
const PIPE: usize = 64 * 1024;
/// Longest time limit, about ten years: more would not fit a clock.
const LONGEST: u64 = 10 * 365 * 24 * 3600;
/// How often a hook is looked at where processes cannot be waited for by descriptor.
const GLANCE: Duration = Duration::from_millis(10);

/// Circumstances common to all hooks.
#[derive(Debug, Clone)]
pub struct HookEnv {
    /// Working directory; `/` when absent.
    pub cwd: Option<PathBuf>,
    /// Limit for hooks that name none.
    pub default_timeout: Duration,
    /// `NAME=VALUE` for hooks without `env`.
    pub environment: Vec<String>,
    /// Files for what they print.
    pub output: Arc<HookOutput>,
}

impl Default for HookEnv {
    fn default() -> Self {
        Self {
            cwd: None,
            default_timeout: Duration::from_secs(120),
            environment: Vec::new(),
            output: Arc::default(),
        }
    }
}

impl HookEnv {
    /// For a hook that runs outside the container: in the bundle, with the runtime's own environment.
    #[must_use]
    pub fn outside(bundle: &Path, output: HookOutput) -> Self {
        Self {
            output: Arc::new(output),
            cwd: Some(bundle.to_path_buf()),
            environment: own_environment(),
            ..Self::default()
        }
    }
}

/// The environment that the runtime was started with, for hooks that name none, without what changes how a program is
/// loaded. It is remembered: the runtime clears its own before a container is made.
#[must_use]
pub fn own_environment() -> Vec<String> {
    static OWN: OnceLock<Vec<String>> = OnceLock::new();
    OWN.get_or_init(|| {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| !LOADER.iter().any(|word| name.starts_with(word)))
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    })
    .clone()
}

/// Variables of the C library that load or change code (`man 8 ld.so`).
const LOADER: [&str; 3] = ["LD_", "GCONV_PATH", "GLIBC_TUNABLES"];

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
#[error("error running hook {stage} `{path}`: {why}")]
pub struct HookError {
    /// Stage, such as `createContainer`.
    pub stage: String,
    /// Program.
    pub path: String,
    /// Reason, with the end of its stderr.
    pub why: String,
}

/// Runs one hook and waits for it.
///
/// # Errors
/// [`HookError`] when it cannot be run, fails, or takes too long.
pub fn run(stage: &str, hook: &Value, state: &[u8], env: &HookEnv) -> Result<(), HookError> {
    let path = spec::text(hook, "/path").unwrap_or_default();
    attempt(path, hook, state, env).map_err(|why| HookError {
        stage: stage.to_owned(),
        path: path.to_owned(),
        why,
    })
}

fn attempt(path: &str, hook: &Value, state: &[u8], env: &HookEnv) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("its path is not absolute".to_owned());
    }
    let limit = time_limit(hook)?.unwrap_or(env.default_timeout);
    let stdin = prefilled(state).map_err(|err| format!("store the state: {}", cause(&err)))?;
    let mut child = command(hook, path, env)
        .stdin(stdin)
        .spawn()
        .map_err(|err| format!("cannot be run: {}", cause(&err)))?;
    let mut said = Vec::new();
    let end = attend(&mut child, &mut said, limit);
    if !matches!(end, Ok(Some(_))) {
        put_down(&mut child);
    }
    let said = match one_line(&said) {
        text if text.is_empty() => text,
        text => format!(": {text}"),
    };
    match end {
        Ok(Some(status)) => verdict(status, &said),
        Ok(None) => Err(format!("no end after {} s{said}", limit.as_secs())),
        Err(err) => Err(format!("cannot be waited for: {}", cause(&err))),
    }
}

fn verdict(status: ExitStatus, said: &str) -> Result<(), String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("exit status {code}{said}")),
        // What a seccomp filter does to a hook of startContainer.
        (None, Some(libc::SIGSYS)) => Err(format!("killed by signal 31, bad system call{said}")),
        (None, signal) => Err(format!("killed by signal {}{said}", signal.unwrap_or(0))),
    }
}

fn time_limit(hook: &Value) -> Result<Option<Duration>, String> {
    match hook.get("timeout") {
        None | Some(Value::Null) => Ok(None),
        Some(given) => match given.as_u64() {
            Some(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds.min(LONGEST)))),
            _ => Err("its timeout is not a number of seconds above 0".to_owned()),
        },
    }
}

/// The whole group: a shell's children must not outlive their time.
fn put_down(child: &mut Child) {
    let _ = killpg(
        Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)),
        Signal::SIGKILL,
    );
    let _ = child.wait();
}

/// Engines read "no such file" as a missing program of the container; a missing hook is another thing.
fn cause(err: &io::Error) -> String {
    match err.kind() {
        io::ErrorKind::NotFound => "its program is missing (ENOENT)".to_owned(),
        io::ErrorKind::PermissionDenied => "its program may not be executed (EACCES)".to_owned(),
        _ => crate::error::errno_text(err).to_lowercase(),
    }
}

fn command(hook: &Value, path: &str, env: &HookEnv) -> Command {
    let mut command = Command::new(path);
    let args = spec::strings(hook, "/args");
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    let named = hook.get("env").is_some_and(|env| !env.is_null());
    let entries = if named {
        spec::strings(hook, "/env")
    } else {
        env.environment.clone()
    };
    for entry in entries {
        if let Some((name, value)) = entry.split_once('=') {
            command.env(name, value);
        }
    }
    let cwd = env.cwd.as_deref().filter(|dir| dir.is_dir());
    command
        .current_dir(cwd.unwrap_or_else(|| Path::new("/")))
        .process_group(0)
        .stdout(to(env.output.stdout.as_ref()).unwrap_or_else(Stdio::null))
        .stderr(to(env.output.stderr.as_ref()).unwrap_or_else(Stdio::piped));
    command
}

fn to(file: Option<&File>) -> Option<Stdio> {
    file?.try_clone().ok().map(Stdio::from)
}

/// The state, ready to be read before the hook exists: a hook that never reads cannot hold us up, and one that ends
/// early cannot kill us (in the container's first process SIGPIPE has its default disposition).
fn prefilled(state: &[u8]) -> io::Result<OwnedFd> {
    if let Some(pipe) = pipe_of(state)? {
        return Ok(pipe);
    }
    let mut file = File::from(memfd_create(c"oci-state", MemFdCreateFlag::MFD_CLOEXEC)?);
    file.write_all(state)?;
    file.rewind()?;
    Ok(file.into())
}

/// A pipe that holds all of `state`; `None` when none is large enough (`man 7 pipe`, pipe-max-size).
fn pipe_of(state: &[u8]) -> io::Result<Option<OwnedFd>> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    if state.len() > PIPE {
        let wanted = i32::try_from(state.len()).unwrap_or(i32::MAX);
        let _ = fcntl(writer.as_raw_fd(), FcntlArg::F_SETPIPE_SZ(wanted));
    }
    fcntl(writer.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    match nix::unistd::write(&writer, state) {
        Ok(length) if length == state.len() => Ok(Some(reader)),
        Ok(_) | Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Collects stderr and waits for the end, without threads; `None` when time is up.
fn attend(
    child: &mut Child,
    said: &mut Vec<u8>,
    limit: Duration,
) -> io::Result<Option<ExitStatus>> {
    // A hook of startContainer may run under a seccomp filter that denies the call.
    let process = PidFd::open(i32::try_from(child.id()).unwrap_or(i32::MAX)).ok();
    let mut stderr = child.stderr.take();
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            stderr.map_or(Ok(()), |pipe| drain(pipe, said))?;
            return Ok(Some(status));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let longest = if process.is_some() { left } else { GLANCE };
        if wait_any(process.as_ref(), stderr.as_ref(), left.min(longest))?
            && let Some(pipe) = stderr.as_mut()
        {
            let mut chunk = [0; 4096];
            match pipe.read(&mut chunk)? {
                0 => stderr = None,
                length => keep_tail(said, &chunk[..length]),
            }
        }
    }
}

/// Sleeps until the process ends, `stderr` has something, or time is up; true when a read of `stderr` cannot block.
fn wait_any(
    process: Option<&PidFd>,
    stderr: Option<&ChildStderr>,
    time: Duration,
) -> io::Result<bool> {
    let timeout =
        PollTimeout::try_from(time.as_millis().clamp(1, 60_000)).unwrap_or(PollTimeout::MAX);
    let mut fds: Vec<PollFd<'_>> = stderr.map(AsFd::as_fd).into_iter().map(input).collect();
    fds.extend(process.map(AsFd::as_fd).into_iter().map(input));
    match poll(&mut fds, timeout) {
        Ok(_) => Ok(stderr.is_some() && fds[0].any().unwrap_or(false)),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn input(fd: std::os::fd::BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

/// Takes what the hook left in the pipe and no more: a child of it may hold the other end for ever.
fn drain(mut pipe: ChildStderr, said: &mut Vec<u8>) -> io::Result<()> {
    fcntl(pipe.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut chunk = [0; 4096];
    for _ in 0..PIPE / chunk.len() {
        match pipe.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => keep_tail(said, &chunk[..length]),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

fn keep_tail(text: &mut Vec<u8>, chunk: &[u8]) {
    text.extend_from_slice(chunk);
    let excess = text.len().saturating_sub(TAIL);
    text.drain(..excess);
}

fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sh(script: &str) -> Value {
        json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
    }

    #[test]
    fn success_and_state_on_stdin() {
        run(
            "prestart",
            &sh("grep -q 1234 && exit 0; exit 9"),
            b"{\"pid\":1234}",
            &HookEnv::default(),
        )
        .unwrap();
    }

    #[test]
    fn failure_names_hook_status_and_stderr() {
        let err = run(
            "createContainer",
            &sh("echo one >&2; echo two >&2; exit 3"),
            b"{}",
            &HookEnv::default(),
        )
        .unwrap_err()
        .to_string();
        assert_eq!(
            err,
            "error running hook createContainer `/bin/sh`: exit status 3: one; two"
        );
    }

    #[test]
    fn the_environment_is_the_hooks_own() {
        let mut hook = sh("[ \"$A\" = b ] && [ -z \"$HOME\" ] && [ -z \"$CARGO_MANIFEST_DIR\" ]");
        hook["env"] = json!(["A=b"]);
        run("poststop", &hook, b"{}", &HookEnv::default()).unwrap();
    }

    #[test]
    fn a_group_is_killed_when_time_is_up() {
        let mut hook = sh("sleep 300 & echo waiting >&2; wait");
        hook["timeout"] = json!(1);
        let begin = Instant::now();
        let err = run("prestart", &hook, b"{}", &HookEnv::default())
            .unwrap_err()
            .to_string();
        assert!(err.contains("no end after 1 s: waiting"), "{err}");
        assert!(begin.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn bad_hooks_are_refused_without_engine_words() {
        for (hook, word) in [
            (json!({"path": "sh"}), "not absolute"),
            (json!({}), "not absolute"),
            (json!({"path": "/no/such/hook"}), "missing (ENOENT)"),
            (json!({"path": "/etc/passwd"}), "(EACCES)"),
            (json!({"path": "/bin/true", "timeout": 0}), "timeout"),
            (json!({"path": "/bin/true", "timeout": -1}), "timeout"),
            (json!({"path": "/bin/true", "timeout": 1.5}), "timeout"),
            (json!({"path": "/bin/true", "timeout": "9"}), "timeout"),
        ] {
            let err = run("prestart", &hook, b"{}", &HookEnv::default())
                .unwrap_err()
                .to_string();
            assert!(err.contains(word), "{err}");
            assert!(!err.to_lowercase().contains("no such file"), "{err}");
        }
    }

    #[test]
    fn a_large_stderr_is_cut() {
        let err = run(
            "prestart",
            &sh("i=0; while [ $i -lt 5000 ]; do echo line-$i; i=$((i+1)); done >&2; exit 1"),
            b"{}",
            &HookEnv::default(),
        )
        .unwrap_err();
        assert!(
            err.why.len() < 3000 && err.why.ends_with("line-4999"),
            "{}",
            err.why.len()
        );
    }
    #[test]
    fn a_time_limit_beyond_every_clock_is_no_panic() {
        let mut hook = sh("exit 0");
        hook["timeout"] = json!(u64::MAX);
        run("prestart", &hook, b"{}", &HookEnv::default()).unwrap();
    }

    #[test]
    fn a_state_of_any_size_arrives_whole_and_need_not_be_read() {
        for size in [0, 1, PIPE, PIPE + 1, 300_000, 4_000_000] {
            let state = vec![b'x'; size];
            let hook = sh(&format!("[ $(wc -c) -eq {size} ]"));
            run("createRuntime", &hook, &state, &HookEnv::default()).unwrap();
            run("createRuntime", &sh("exit 0"), &state, &HookEnv::default()).unwrap();
        }
        let large = vec![b'x'; 4_000_000];
        assert!(pipe_of(&large).unwrap().is_none(), "beyond every pipe");
        assert!(pipe_of(b"{}").unwrap().is_some());
    }

    #[test]
    fn a_hook_that_does_not_read_cannot_kill_us() {
        if crate::signal::alone::alone(module_path!(), "a_hook_that_does_not_read_cannot_kill_us") {
            crate::signal::reset_all().unwrap();
            let state = vec![b'x'; 4_000_000];
            for hook in [sh("exec <&-; exit 0"), sh("exit 0")] {
                run("startContainer", &hook, &state, &HookEnv::default()).unwrap();
            }
        }
    }

    #[test]
    fn a_child_left_behind_with_stderr_open_does_not_hold_us_up() {
        let begin = Instant::now();
        let hook =
            sh("(while :; do echo noise >&2 || exit; sleep 0.01; done) & echo mine >&2; exit 4");
        let err = run("prestart", &hook, b"{}", &HookEnv::default()).unwrap_err();
        assert!(
            err.why.starts_with("exit status 4: ") && err.why.contains("mine"),
            "{err}"
        );
        assert!(begin.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn signals_cwd_and_argv0_are_as_the_spec_says() {
        let err = run("prestart", &sh("kill -9 $$"), b"", &HookEnv::default()).unwrap_err();
        assert_eq!(err.why, "killed by signal 9");
        let mut hook = sh("[ \"$PWD\" = / ] && [ \"$0\" = name ]");
        hook["args"].as_array_mut().unwrap().push(json!("name"));
        run("prestart", &hook, b"", &HookEnv::default()).unwrap();
        let inside = HookEnv {
            cwd: Some("/usr".into()),
            ..HookEnv::default()
        };
        run("prestart", &sh("[ \"$(pwd)\" = /usr ]"), b"", &inside).unwrap();
    }
}
