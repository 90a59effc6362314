//! Running the hooks of a spec (`runtime-spec config.md#posix-platform-hooks`).
//!
//! A hook gets the environment it names and nothing else (the runtime's or an image's variables once gave root,
//! CVE-2025-23266), a fixed working directory, the state on stdin, and a time limit for its whole process group.
//! Its name and what it said on stderr are in the error.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::pidfd::PidFd;
use crate::spec;

/// Bytes of a hook's stderr that go into the error.
const TAIL: usize = 1024;

/// Circumstances common to all hooks.
#[derive(Debug, Clone)]
pub struct HookEnv {
    /// Working directory; `/` when absent.
    pub cwd: Option<PathBuf>,
    /// Limit for hooks that name none.
    pub default_timeout: Duration,
}

impl Default for HookEnv {
    fn default() -> Self {
        Self {
            cwd: None,
            default_timeout: Duration::from_secs(120),
        }
    }
}

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
#[error("hook {stage} `{path}` failed: {why}")]
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
    let fail = |why: String| HookError {
        stage: stage.to_owned(),
        path: path.to_owned(),
        why,
    };
    if !path.starts_with('/') {
        return Err(fail("its path is not absolute".to_owned()));
    }
    let timeout = match hook.get("timeout").and_then(Value::as_i64) {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        Some(_) => return Err(fail("its timeout is not above 0 seconds".to_owned())),
        None => env.default_timeout,
    };
    let mut child = command(hook, path, env)
        .spawn()
        .map_err(|err| fail(format!("cannot be run: {}", cause(&err))))?;
    let outcome = attend(&mut child, state, timeout);
    if !matches!(
        outcome,
        Ok(Ended {
            timed_out: false,
            ..
        })
    ) {
        // The whole group: a shell's children must not outlive their time.
        drop(killpg(
            Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)),
            Signal::SIGKILL,
        ));
    }
    let status = child
        .wait()
        .map_err(|err| fail(format!("cannot be waited for: {}", cause(&err))))?;
    let ended = outcome.map_err(|err| fail(cause(&err)))?;
    let said = if ended.stderr.is_empty() {
        String::new()
    } else {
        format!(": {}", ended.stderr)
    };
    if ended.timed_out {
        return Err(fail(format!("no end after {} s{said}", timeout.as_secs())));
    }
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(fail(format!("exit status {code}{said}"))),
        (None, signal) => Err(fail(format!(
            "killed by signal {}{said}",
            signal.unwrap_or(0)
        ))),
    }
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
    for entry in spec::strings(hook, "/env") {
        if let Some((name, value)) = entry.split_once('=') {
            command.env(name, value);
        }
    }
    let cwd = env.cwd.as_deref().filter(|dir| dir.is_dir());
    command
        .current_dir(cwd.unwrap_or_else(|| std::path::Path::new("/")))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

struct Ended {
    stderr: String,
    timed_out: bool,
}

/// Writes the state, collects stderr, and waits for the end, without threads.
fn attend(child: &mut Child, state: &[u8], timeout: Duration) -> io::Result<Ended> {
    let process = PidFd::open(i32::try_from(child.id()).unwrap_or(i32::MAX))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its state; a pipe holds all of a usual one.
        match stdin.write_all(state) {
            Err(err) if err.kind() != io::ErrorKind::BrokenPipe => return Err(err),
            _ => {}
        }
    }
    let mut stderr = child.stderr.take();
    let mut text = Vec::new();
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Ended {
                stderr: one_line(&text),
                timed_out: true,
            });
        }
        let wait =
            PollTimeout::try_from(left.as_millis().min(60_000).max(1)).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            stderr
                .as_ref()
                .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut fds, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ended = fds[0].any().unwrap_or(false);
        let readable = fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false));
        drop(fds);
        if readable && let Some(pipe) = stderr.as_mut() {
            let mut chunk = [0; 4096];
            match pipe.read(&mut chunk)? {
                0 => stderr = None,
                length => keep_tail(&mut text, &chunk[..length]),
            }
        } else if ended {
            return Ok(Ended {
                stderr: one_line(&text),
                timed_out: false,
            });
        }
    }
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
            "hook createContainer `/bin/sh` failed: exit status 3: one; two"
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
}
