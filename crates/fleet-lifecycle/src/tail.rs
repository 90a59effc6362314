//! What happens inside the container after its root was changed and before its program runs.
//!
//! [`Tail::prepare`] runs before "ready" is reported, so that a failure fails `create` (or `exec`);
//! [`Tail::run`] runs after `start` and ends in `execve`. Both run as root of the container's user namespace with
//! all capabilities; the drop is unconditional and read back.

pub mod console;
pub mod devices;
mod home;
mod identity;
mod late;
pub mod mounts;
pub mod names;
mod nodes;
mod workdir;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet_rootfs::RootfsEdit;
use serde_json::Value;

use crate::annotations::HookOutput;
use crate::capabilities::{self, Sets};
use crate::error::{Context, Error, Result, errno_text};
use crate::io_priority::IoPriority;
use crate::labels::Labels;
use crate::personality::Personality;
use crate::pidfd::PidFd;
use crate::scheduler::Scheduler;
use crate::seccomp::{self, Filter, Receiver};
use crate::sys::process::{self, SharedText};
use crate::{hooks, program, rlimits, signal};

use console::Console;
use devices::Devices;
use mounts::Layout;
use names::Names;

/// What only a container's first process does.
#[derive(Debug, Default)]
pub struct Init {
    /// Mounts left to us.
    pub layout: Layout,
    /// Device nodes.
    pub devices: Devices,
    /// Bring `lo` up: the network namespace is new.
    pub loopback: bool,
    /// Names to give to a namespace that is joined.
    pub names: Names,
    /// Changes inside the root file system that hooks of other runtimes would make.
    pub edits: Vec<RootfsEdit>,
    /// Remount `/` read-only when all is in place.
    pub read_only_root: bool,
    /// Hooks of stage `startContainer`.
    pub start_hooks: Vec<Value>,
    /// OCI state for these hooks.
    pub state: Vec<u8>,
    /// Files for what they print.
    pub hook_output: Arc<HookOutput>,
}

/// The program and who it runs as.
#[derive(Debug)]
pub struct Program {
    /// `process.args`.
    pub args: Vec<String>,
    /// `process.env`, in order.
    pub env: Vec<String>,
    /// `process.cwd`.
    pub cwd: String,
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container.
    pub gid: u32,
    /// Supplementary groups; `None` keeps those of the caller (`run.oci.keep_original_groups`).
    pub groups: Option<Vec<u32>>,
    /// `process.user.umask`.
    pub umask: Option<u32>,
    /// `linux.personality`.
    pub personality: Option<Personality>,
    /// `process.ioPriority`.
    pub io_priority: Option<IoPriority>,
    /// `process.scheduler`.
    pub scheduler: Option<Scheduler>,
    /// `process.rlimits`.
    pub rlimits: Vec<Value>,
    /// Capability sets.
    pub capabilities: Sets,
    /// `process.noNewPrivileges`.
    pub no_new_privileges: bool,
    /// Compiled seccomp filter.
    pub seccomp: Option<Filter>,
    /// Who answers for `SCMP_ACT_NOTIFY`.
    pub agent: Option<Receiver>,
    /// `process.selinuxLabel` and `process.apparmorProfile`.
    pub labels: Labels,
}

/// The work, and the page on which a failure is reported.
#[derive(Debug)]
pub struct Tail {
    /// First error of any process involved.
    pub report: Arc<SharedText>,
    /// First-process work; `None` for `exec`.
    pub init: Option<Init>,
    /// Terminal, when one is wanted.
    pub console: Option<Console>,
    /// The program.
    pub program: Program,
    /// The process that makes this one, with which it ends if its program was not executed by then (`exec` alone).
    pub maker: Option<PidFd>,
    /// Tells whether the maker got so far as to know this process, where it has to be asked.
    pub leash: Option<crate::leash::End>,
    /// Found by `prepare`, executed by `run`.
    pub resolved: RefCell<PathBuf>,
}

impl Tail {
    /// Everything that can fail and is not the program itself.
    ///
    /// # Errors
    /// The step that failed.
    pub fn prepare(&self) -> Result<()> {
        process::set_name(c"fleet:[INIT]");
        self.open_labels()?;
        // The runtime's own standard disposition (SIGPIPE ignored) must not reach the program.
        signal::reset_all().op(|| "reset signals")?;
        if let Some(init) = &self.init {
            init.layout.apply()?;
            init.devices.make()?;
            if init.loopback {
                loopback()?;
            }
            init.names.set()?;
            edit_root(&init.edits)?;
        }
        if let Some(console) = &self.console {
            console.open()?;
        }
        let program = &self.program;
        identity::own_stdio(program.uid);
        if let Some(init) = &self.init {
            if init.layout.read_only_dev {
                read_only("/dev")?;
            }
            workdir::make(&program.cwd)?;
            if init.read_only_root {
                read_only("/")?;
            }
        }
        program.personality.map_or(Ok(()), Personality::apply)?;
        program.io_priority.map_or(Ok(()), IoPriority::apply)?;
        program
            .scheduler
            .as_ref()
            .map_or(Ok(()), Scheduler::apply)?;
        rlimits::apply(&program.rlimits).map_err(|err| Error::Setup(err.to_string()))?;
        let entered = workdir::enter(&program.cwd);
        capabilities::check(&program.capabilities).map_err(|err| Error::Setup(err.to_string()))?;
        capabilities::drop_bounding(&program.capabilities)
            .op(|| "drop the capability bounding set")?;
        identity::switch(program)?;
        // Whether the program may be executed is asked with the capabilities that it will have (L29).
        capabilities::preview(&program.capabilities).op(|| "set effective capabilities")?;
        if entered.is_err() {
            workdir::enter(&program.cwd)?;
        }
        workdir::verify()?;
        self.resolve()?;
        // An `exec` that is killed leaves no process without a program. Not before the identity was switched, which
        // would undo it (`man 2 PR_SET_PDEATHSIG`).
        match self.init {
            Some(_) => process::shed_memory(),
            None => self.die_with_maker()?,
        }
        Ok(())
    }

    /// Before anything of the container's decides what is behind a path; a second time does nothing.
    ///
    /// # Errors
    /// A label that cannot be set.
    pub fn open_labels(&self) -> Result<()> {
        let opened = self.program.labels.open();
        opened
            .map(drop)
            .map_err(|err| Error::Setup(err.to_string()))
    }

    fn die_with_maker(&self) -> Result<()> {
        let Some(maker) = &self.maker else {
            return Ok(());
        };
        process::die_with_parent(true).op(|| "ask to die with the runtime")?;
        let gone = maker.wait_exit(Some(Duration::ZERO));
        match gone.op(|| "look for the runtime")? {
            true => process::leave(1),
            false => Ok(()),
        }
    }

    fn resolve(&self) -> Result<()> {
        let program = &self.program;
        let name = program.args.first().map(String::as_str).unwrap_or_default();
        let path =
            program::resolve(name, &program.env).map_err(|err| Error::Setup(err.to_string()))?;
        *self.resolved.borrow_mut() = path;
        Ok(())
    }

    /// Runs the program; returns only when that failed.
    pub fn run(&self) -> Error {
        match self.become_program() {
            Ok(err) | Err(err) => err,
        }
    }

    fn become_program(&self) -> Result<Error> {
        if let Some(leash) = &self.leash {
            leash.check()?;
        }
        if self.init.is_none() {
            process::die_with_parent(false).op(|| "outlive the runtime")?;
        }
        let program = &self.program;
        if let Some(mask) = program.umask {
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
        }
        program
            .labels
            .write()
            .map_err(|err| Error::Setup(err.to_string()))?;
        capabilities::raise_effective().op(|| "make capabilities effective")?;
        // Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before the capabilities go
        // (`man 2 seccomp`); with it, as late as possible.
        if !program.no_new_privileges {
            install(program)?;
        }
        capabilities::apply(&program.capabilities).map_err(|err| Error::Setup(err.to_string()))?;
        if program.no_new_privileges {
            process::set_no_new_privileges().op(|| "set no_new_privs")?;
            install(program)?;
        }
        let env = home::complete(&program.env, program.uid);
        // As runc, under the filter: they are the last that runs before the program.
        if let Some(init) = self
            .init
            .as_ref()
            .filter(|init| !init.start_hooks.is_empty())
        {
            let around = hooks::HookEnv {
                output: Arc::clone(&init.hook_output),
                environment: env.clone(),
                ..hooks::HookEnv::default()
            };
            for hook in &init.start_hooks {
                hooks::run("startContainer", hook, &init.state, &around)?;
            }
        }
        let path = self.resolved.borrow();
        let err = program::exec(&path, &program.args, &env);
        Ok(Error::Setup(format!(
            "exec `{}`: {}",
            path.display(),
            errno_text(&err)
        )))
    }
}

fn install(program: &Program) -> Result<()> {
    match &program.seccomp {
        Some(filter) => {
            seccomp::install(filter, program.agent.as_ref()).op(|| "install the seccomp filter")
        }
        None => Ok(()),
    }
}

fn edit_root(edits: &[RootfsEdit]) -> Result<()> {
    if edits.is_empty() {
        return Ok(());
    }
    let root = std::fs::File::open("/").op(|| "open the container's root")?;
    fleet_rootfs::apply(std::os::fd::AsFd::as_fd(&root), edits)
        .map_err(|err| Error::Setup(err.to_string()))?;
    Ok(())
}

fn read_only(path: &str) -> Result<()> {
    use crate::sys::mount::{Attributes, attr, set_attributes};
    let mount = std::fs::File::open(path).op(|| format!("open `{path}`"))?;
    set_attributes(
        std::os::fd::AsFd::as_fd(&mount),
        Attributes {
            set: attr::RDONLY,
            ..Attributes::default()
        },
    )
    .op(|| format!("make `{path}` read-only"))
}

/// libcontainer 0.7: leaves the loopback device of a new network namespace down (L17).
fn loopback() -> Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let fd = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .op(|| "open a socket")?;
    process::loopback_up(std::os::fd::AsFd::as_fd(&fd)).op(|| "bring up the loopback interface")
}
