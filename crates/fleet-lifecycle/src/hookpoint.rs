//! User hooks of the stages that the library runs in the middle of its work.
//!
//! The library is given one hook per stage: this binary. It runs the spec's hooks by our own rules (environment,
//! timeout, output, state), and reports a failure through a shared file, since the library loses the text.
//! libcontainer 0.7: hook errors carry no name, the state lacks the pid, timeouts kill one process only.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use serde_json::{Value, json};

use crate::annotations::HookOutput;
use crate::error::{Context, Error, Result};
use crate::{hooks, host_root, spec, surroundings};

/// The hidden verb of the runtime binary.
pub const VERB: &str = "hookpoint";

/// Stages handed over, in the order in which the library runs them.
const STAGES: [&str; 2] = ["createRuntime", "createContainer"];

/// What the stages need, kept open until the container is made.
#[derive(Debug)]
pub struct Hookpoint {
    plan: OwnedFd,
    report: OwnedFd,
    /// Kept open for the hooks.
    _output: Arc<HookOutput>,
    stages: Vec<&'static str>,
}

impl Hookpoint {
    /// Prepares the stages for which the spec has hooks; `None` when it has none. With `no_pivot` there is work of our
    /// own at createContainer.
    ///
    /// # Errors
    /// A memory file that cannot be made.
    pub fn new(
        full: &Value,
        state: &Value,
        environment: &[String],
        no_pivot: bool,
        output: Arc<HookOutput>,
    ) -> Result<Option<Self>> {
        let runtime: Vec<Value> = ["prestart", "createRuntime"]
            .iter()
            .flat_map(|s| spec::list(full, &format!("/hooks/{s}")).to_vec())
            .collect();
        let container = spec::list(full, "/hooks/createContainer").to_vec();
        let stages: Vec<&'static str> = STAGES
            .into_iter()
            .filter(|stage| {
                if *stage == "createRuntime" {
                    !runtime.is_empty()
                } else {
                    !container.is_empty() || no_pivot
                }
            })
            .collect();
        if stages.is_empty() {
            return Ok(None);
        }
        let plan = json!({"createRuntime": runtime, "createContainer": container, "state": state, "environment": environment, "noPivot": no_pivot,
            "stdout": output.stdout.as_ref().map(passed_on).transpose()?, "stderr": output.stderr.as_ref().map(passed_on).transpose()?});
        let file = inherited(c"fleet-hooks")?;
        let mut writer = File::from(file);
        writer
            .write_all(plan.to_string().as_bytes())
            .op(|| "store the hooks")?;
        Ok(Some(Self {
            plan: writer.into(),
            report: inherited(c"fleet-report")?,
            _output: output,
            stages,
        }))
    }

    /// The `hooks` object for the library's spec.
    #[must_use]
    pub fn library_hooks(&self) -> Value {
        let mut all = json!({});
        for stage in &self.stages {
            all[*stage] = json!([{
                "path": "/proc/self/exe",
                "args": ["fleet-nvidia", VERB, stage, self.plan.as_raw_fd().to_string(), self.report.as_raw_fd().to_string()],
                "env": [],
            }]);
        }
        all
    }

    /// What a failed hook said.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let mut file = File::from(self.report.try_clone().ok()?);
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).ok()?;
        file.read_to_string(&mut text).ok()?;
        (!text.is_empty()).then_some(text)
    }
}

/// The descriptor's number, which the hook will find it under.
fn passed_on(file: &File) -> Result<RawFd> {
    let fd = file.as_raw_fd();
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).op(|| format!("descriptor {fd}"))?;
    Ok(fd)
}

fn inherited(name: &std::ffi::CStr) -> Result<OwnedFd> {
    memfd_create(name, MemFdCreateFlag::empty()).op(|| "make a memory file")
}

/// Body of the hidden verb: `hookpoint STAGE PLAN-FD REPORT-FD`, OCI state on stdin.
///
/// # Errors
/// The hook that failed.
pub fn run(stage: &str, plan: RawFd, report: RawFd) -> Result<()> {
    let (plan, mut report) = (adopt(plan)?, adopt(report)?);
    let outcome = run_stage(stage, plan);
    if let Err(err) = &outcome {
        let _ = report.write_all(err.to_string().as_bytes());
    }
    outcome
}

fn run_stage(stage: &str, mut plan: File) -> Result<()> {
    let mut text = String::new();
    plan.seek(SeekFrom::Start(0)).op(|| "read the hooks")?;
    plan.read_to_string(&mut text).op(|| "read the hooks")?;
    let plan: Value = serde_json::from_str(&text)
        .map_err(|err| Error::Setup(format!("read the hooks: {err}")))?;
    if stage == "createContainer" {
        let rootfs = spec::text(&plan, "/state/rootfs").unwrap_or_default();
        let rootfs = std::path::Path::new(rootfs);
        if spec::flag(&plan, "/noPivot") {
            host_root::bare(rootfs)?;
        }
        // The library is done with its paths; hooks follow those of the image.
        surroundings::follow_links(rootfs)?;
    }
    let mut state = plan["state"].clone();
    state["pid"] = json!(init_pid(stage)?);
    let state = state.to_string();
    // As runc: the container's root directory for hooks that run inside, the bundle for the others.
    let place = if stage == "createContainer" {
        "/state/rootfs"
    } else {
        "/state/bundle"
    };
    let env = hooks::HookEnv {
        cwd: spec::text(&plan, place).map(std::path::PathBuf::from),
        environment: spec::strings(&plan, "/environment"),
        output: Arc::new(HookOutput {
            stdout: taken(&plan, "stdout")?,
            stderr: taken(&plan, "stderr")?,
        }),
        ..hooks::HookEnv::default()
    };
    for hook in spec::list(&plan, &format!("/{stage}")) {
        hooks::run(stage, hook, state.as_bytes(), &env)?;
    }
    Ok(())
}

/// The container's first process as the host sees it.
///
/// At createRuntime the library tells it on stdin; at createContainer it is our parent, and `/proc` is still the
/// host's, so our own number there leads to it.
fn init_pid(stage: &str) -> Result<i64> {
    if stage == "createRuntime" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .op(|| "read the state")?;
        let state: Value = serde_json::from_str(&text).unwrap_or_default();
        return Ok(state["pid"].as_i64().unwrap_or(0));
    }
    let status = std::fs::read_to_string("/proc/self/status").op(|| "read /proc/self/status")?;
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .and_then(|pid| pid.trim().parse().ok());
    Ok(parent.unwrap_or(0))
}

fn taken(plan: &Value, key: &str) -> Result<Option<File>> {
    let fd = plan[key].as_i64().and_then(|fd| RawFd::try_from(fd).ok());
    fd.map(adopt).transpose()
}

/// Takes over an inherited descriptor and keeps it from the hooks.
fn adopt(fd: RawFd) -> Result<File> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).op(|| format!("descriptor {fd}"))?;
    Ok(crate::sys::process::adopt(fd))
}
