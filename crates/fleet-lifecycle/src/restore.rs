//! `restore`: a container's saved processes are revived, in surroundings made anew.
//!
//! Cgroup, limits, device rules and record are made as for a new container, before a process is there; the spec is that
//! of the bundle, edited for its devices as ever. What a checkpoint says about the surroundings must fit it. The root
//! file system has what native edits and hooks did in it when the container was made: they are not done again.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use fleet_rootfs::root::Root;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::annotations::HookOutput;
use crate::cgroup::Cgroup;
use crate::create::{self, CreateRequest};
use crate::criu::{
    self, Description, Directory, External, Notice, Options, Program, Revival, Sources,
    Surroundings,
};
use crate::error::{Context, Error, Result};
use crate::hooks::{self, HookEnv};
use crate::record::{Container, Status, replace_file};
use crate::spec::{self, Namespace};
use crate::surroundings;
use crate::tail::console;

/// What `restore` is asked for, beside what every new container is.
#[derive(Debug)]
pub struct RestoreRequest<'a> {
    /// The container, of which the images hold the processes.
    pub create: CreateRequest<'a>,
    /// Where the images are.
    pub images: &'a Path,
    /// Where CRIU's log goes; with the images otherwise.
    pub work: Option<&'a Path>,
    /// Saved TCP connections are closed.
    pub tcp_close: bool,
    /// What a checkpoint may be asked for as well.
    pub options: Options,
}

/// Revives a container; its first process becomes a child of the caller.
///
/// # Errors
/// What cannot be restored, or CRIU's reason; nothing of the container is left.
pub fn restore(request: RestoreRequest<'_>) -> Result<Container> {
    let RestoreRequest {
        create: request,
        images,
        work,
        tcp_close,
        options,
    } = request;
    spec::check(&request.spec)?;
    criu::refuse("restore", request.who, &request.spec)?;
    if request.cgroup_driver == crate::cgroup::Driver::Disabled {
        return Err(Error::Invalid(
            "restore of a container without a cgroup of its own is not supported".to_owned(),
        ));
    }
    let images = Directory::open("image directory", images)?;
    let description = Description::load(&images)?;
    description.check(&request.spec, joined_network(&request.spec)?)?;
    sources(&request).check(&description.external)?;
    let program = Program::find()?;
    program.check()?;
    let work = match work {
        Some(path) => Directory::make("work directory", path)?,
        None => Directory::open("image directory", images.path())?,
    };
    let revival = Plan {
        description,
        program,
        images,
        work,
        tcp_close,
        options,
    };
    create::make(request, |request, rootfs, container| {
        revival.bring(request, rootfs, container)
    })
}

fn sources<'a>(request: &'a CreateRequest<'_>) -> Sources<'a> {
    Sources {
        full: &request.spec,
        bundle: request.bundle,
        host_paths: &request.host_paths,
    }
}

/// Whether the spec names a network namespace other than ours.
fn joined_network(full: &Value) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let Namespace::Joined(path) = spec::namespace(full, "network") else {
        return Ok(false);
    };
    let number = |path: &str| {
        fs::metadata(path)
            .map(|meta| (meta.dev(), meta.ino()))
            .op(|| format!("network namespace `{path}`"))
    };
    Ok(number(path)? != number("/proc/self/ns/net")?)
}

/// All that is needed once the surroundings are there.
struct Plan {
    description: Description,
    program: Program,
    images: Directory,
    work: Directory,
    tcp_close: bool,
    options: Options,
}

/// File in the container's directory that covers the driver's parameters.
const PARAMETERS: &str = "params";

impl Plan {
    fn bring(
        &self,
        request: &mut CreateRequest<'_>,
        rootfs: &Path,
        container: &mut Container,
    ) -> Result<()> {
        self.prepare_points(request, rootfs)?;
        let pid = self.revive(request, rootfs, container)?;
        create::limit_last(request, &container.record.cgroup)?;
        keep_time(container, &mut request.spec, pid)?;
        create::remember(container, pid)?;
        request
            .pid_file
            .as_deref()
            .map_or(Ok(()), |path| create::write_pid(path, pid))
    }

    fn revive(
        &self,
        request: &CreateRequest<'_>,
        rootfs: &Path,
        container: &Container,
    ) -> Result<i32> {
        let group = &container.record.cgroup;
        let doors = group.doors(group.path())?;
        let network = match self.description.network() {
            true => Some(open_network(&request.spec)?),
            false => None,
        };
        let root = rootfs
            .to_str()
            .ok_or_else(|| Error::Invalid(format!("path `{}` is not UTF-8", rootfs.display())))?;
        let revival = Revival {
            options: self.options,
            tcp_close: self.tcp_close,
            root,
            mounts: self.mounts(request, group, container)?,
            network: network.is_some(),
        };
        let surroundings = Surroundings {
            doors: doors.as_ref(),
            stdio: true,
            kept: network.iter().map(AsFd::as_fd).collect(),
        };
        let own_cgroups = spec::namespace(&request.spec, "cgroup") == Namespace::New;
        criu::restore(
            &self.program,
            &revival,
            &self.description,
            (&self.images, &self.work),
            surroundings,
            || {
                prepare(
                    rootfs,
                    spec::flag(&request.spec, "/root/readonly"),
                    own_cgroups,
                )
            },
            |notice, fd| notified(request, container, notice, fd),
        )
    }

    /// Where each mount from outside is to be had on this host.
    fn mounts(
        &self,
        request: &CreateRequest<'_>,
        group: &Cgroup,
        container: &Container,
    ) -> Result<Vec<(&str, String)>> {
        let parameters = container.dir.join(PARAMETERS);
        let sources = sources(request);
        let path = |external: &External| {
            if external.from == criu::From::Parameters {
                let text =
                    fleet_rootfs::covered_parameters().op(|| "read the driver's parameters")?;
                replace_file(&parameters, text.as_bytes(), 0o444)?;
            }
            let path = sources.path(external, group, &parameters)?;
            path.into_os_string().into_string().map_err(|path| {
                Error::Invalid(format!("path `{}` is not UTF-8", path.to_string_lossy()))
            })
        };
        self.description
            .external
            .iter()
            .map(|external| Ok((external.point.as_str(), path(external)?)))
            .collect()
    }

    /// CRIU mounts only on what is there; a root file system that was unpacked anew may lack it. What lies below another
    /// mount is that one's.
    fn prepare_points(&self, request: &CreateRequest<'_>, rootfs: &Path) -> Result<()> {
        let root =
            File::open(rootfs).op(|| format!("open root file system `{}`", rootfs.display()))?;
        let root = Root::new(root.as_fd());
        for (path, directory) in sources(request).points(&self.description.external) {
            make_point(&root, &path, directory)?;
        }
        Ok(())
    }
}

fn make_point(root: &Root<'_>, path: &str, directory: bool) -> Result<()> {
    if root.exists(path) {
        return Ok(());
    }
    let made = match directory {
        true => root.make_directory(path, 0o755).map(drop),
        false => root.replace(path, b"", 0o644),
    };
    made.op(|| format!("make the mount point `{path}` in the root file system"))
}

/// In CRIU's process, which is in the container's cgroup.
fn prepare(rootfs: &Path, read_only: bool, own_cgroups: bool) -> Result<()> {
    if own_cgroups {
        unshare(CloneFlags::CLONE_NEWCGROUP).op(|| "make a cgroup namespace")?;
    }
    surroundings::private_mounts()?;
    // CRIU wants the root to be a mount of its own, and leaves its flags to the caller.
    let bind = |flags: MsFlags| {
        let flags = MsFlags::MS_BIND | flags;
        mount(Some(rootfs), rootfs, None::<&str>, flags, None::<&str>)
            .op(|| format!("bind root file system `{}`", rootfs.display()))
    };
    bind(MsFlags::MS_REC)?;
    match read_only {
        true => bind(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY),
        false => Ok(()),
    }
}

fn open_network(full: &Value) -> Result<OwnedFd> {
    let path = match spec::namespace(full, "network") {
        Namespace::Joined(path) => path,
        _ => "/proc/self/ns/net",
    };
    let file = File::open(path).op(|| format!("open network namespace `{path}`"))?;
    Ok(file.into())
}

fn notified(
    request: &CreateRequest<'_>,
    container: &Container,
    notice: &Notice,
    fd: Option<OwnedFd>,
) -> Result<()> {
    match notice.script.as_str() {
        "setup-namespaces" => run_hooks(request, container, notice.pid),
        "orphan-pts-master" => match (&request.console, fd) {
            (Some(socket), Some(master)) => console::send(socket, &master),
            _ => Err(Error::Invalid(
                "the checkpoint has a terminal that nobody takes".to_owned(),
            )),
        },
        _ => Ok(()),
    }
}

/// Hooks of the runtime's own stages see a container whose namespaces are there and whose program does not run, as
/// ever; those inside of it were part of making it.
fn run_hooks(request: &CreateRequest<'_>, container: &Container, pid: i32) -> Result<()> {
    let all = ["prestart", "createRuntime"]
        .map(|stage| (stage, spec::list(&request.spec, &format!("/hooks/{stage}"))));
    if all.iter().all(|(_, hooks)| hooks.is_empty()) {
        return Ok(());
    }
    let mut state = container.state_as(Status::Creating);
    state["pid"] = json!(pid);
    let state = state.to_string();
    let env = HookEnv {
        cwd: Some(request.bundle.to_path_buf()),
        environment: request.hook_environment.clone(),
        output: Arc::new(HookOutput::open(&request.spec)?),
        ..HookEnv::default()
    };
    for (stage, hooks) in all {
        for hook in hooks {
            hooks::run(stage, hook, state.as_bytes(), &env)?;
        }
    }
    Ok(())
}

/// CRIU gives a container its own time, which goes on from where it was: later processes of the container are to have
/// it, too.
fn keep_time(container: &Container, full: &mut Value, pid: i32) -> Result<()> {
    let link = |process: &str| {
        let path = format!("/proc/{process}/ns/time");
        fs::read_link(&path).op(|| format!("read `{path}`"))
    };
    if spec::namespace(full, "time") != Namespace::Inherited
        || link(&pid.to_string())? == link("self")?
    {
        return Ok(());
    }
    if let Some(all) = full
        .pointer_mut("/linux/namespaces")
        .and_then(Value::as_array_mut)
    {
        all.push(json!({"type": "time"}));
    }
    container.save_spec(full)
}
