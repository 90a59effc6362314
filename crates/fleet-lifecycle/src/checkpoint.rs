//! `checkpoint`: a container's processes are saved, and end or go on.
//!
//! The order is: refuse what cannot be saved, write down what the surroundings are, have CRIU save the processes,
//! remove the container. A failure at any step leaves it running.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::criu::{self, Description, Directory, Dump, Options, Program};
use crate::delete;
use crate::error::{Error, Result};
use crate::record::{Container, Status};
use crate::root::{Identity, StateRoot};

/// What `checkpoint` is asked for.
#[derive(Debug)]
pub struct CheckpointRequest<'a> {
    /// State root.
    pub root: &'a StateRoot,
    /// Who runs us.
    pub who: &'a Identity,
    /// Container id.
    pub id: &'a str,
    /// Where the images go.
    pub images: &'a Path,
    /// Where CRIU's log goes; with the images otherwise.
    pub work: Option<&'a Path>,
    /// An earlier image of the same container, relative to this one.
    pub parent: Option<&'a str>,
    /// Memory only, ahead of the real one; the container runs on.
    pub memory_only: bool,
    /// The container runs on.
    pub leave_running: bool,
    /// Half-open connections are left out.
    pub tcp_skip_in_flight: bool,
    /// Files that are open and have no name any more are given one.
    pub link_remap: bool,
    /// What a restore may be asked for as well.
    pub options: Options,
}

/// Saves a container; gives back what was known of it where it has ended.
///
/// # Errors
/// [`Error::WrongStatus`] unless it is running or paused; what it has that cannot be saved; what CRIU says.
pub fn checkpoint(request: &CheckpointRequest<'_>) -> Result<Option<Container>> {
    let container = Container::load(request.root, request.id)?;
    if let Some(delegate) = &container.record.delegate {
        return Err(Error::Invalid(format!(
            "container `{}` was made by {}: its checkpoint is not passed on",
            request.id,
            delegate.name()
        )));
    }
    let lock = container.lock()?;
    let status = container.status()?;
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(Error::WrongStatus {
            verb: "checkpoint",
            id: request.id.to_owned(),
            status: status.as_str().to_owned(),
            hint: "",
        });
    }
    let full = container.spec()?;
    criu::refuse("checkpoint", request.who, &full)?;
    if !container.record.cgroup.writable() {
        return Err(Error::Invalid(
            "checkpoint of a container without a cgroup of its own is not supported".to_owned(),
        ));
    }
    refuse_strangers(&container)?;
    let description = describe(&container, &full)?;
    let program = Program::find()?;
    program.check()?;
    let images = Directory::make("image directory", request.images)?;
    let parent = request
        .parent
        .map(|parent| check_parent(&images, parent))
        .transpose()?;
    let work = match request.work {
        Some(path) => Directory::make("work directory", path)?,
        None => Directory::open("image directory", request.images)?,
    };
    if !request.memory_only {
        description.save(&images)?;
    }
    let saved = save(
        &container,
        request,
        parent,
        &program,
        &description,
        (&images, &work),
    );
    if let Err(err) = saved {
        Description::discard(&images);
        return Err(err);
    }
    if request.leave_running || request.memory_only {
        return Ok(None);
    }
    drop(lock);
    delete::delete(request.root, request.id, true)
}

fn describe(container: &Container, full: &serde_json::Value) -> Result<Description> {
    let pid = container.record.pid;
    let external = criu::sort(pid, full, &container.record.cgroup)?;
    let own;
    let stdio = match container.record.stdio.is_empty() {
        // Made by an older version of this runtime.
        true => {
            own = criu::stdio(&pid.to_string());
            &own
        }
        false => &container.record.stdio,
    };
    let network = criu::network(pid, full)?.is_some();
    Ok(Description::new(full, stdio, network, external))
}

fn save(
    container: &Container,
    request: &CheckpointRequest<'_>,
    parent: Option<&str>,
    program: &Program,
    description: &Description,
    (images, work): (&Directory, &Directory),
) -> Result<()> {
    let record = &container.record;
    let was_frozen = record.cgroup.is_frozen()?;
    let freezer = record.cgroup.freezer_directory()?;
    let dump = Dump {
        options: request.options,
        pid: record.pid,
        leave_running: request.leave_running,
        memory_only: request.memory_only,
        parent,
        tcp_skip_in_flight: request.tcp_skip_in_flight,
        link_remap: request.link_remap,
        root: text(&record.rootfs)?,
        freezer: freezer.as_deref().map(text).transpose()?,
        network: criu::network(record.pid, &container.spec()?)?,
    };
    let done = criu::dump(program, &dump, description, images, work);
    // CRIU lets them go on itself, unless it was killed.
    if !was_frozen && record.cgroup.is_frozen().unwrap_or(false) {
        record.cgroup.thaw()?;
    }
    done
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Error::Invalid(format!("path `{}` is not UTF-8", path.display())))
}

/// CRIU takes it relative to the images.
fn check_parent<'a>(images: &Directory, parent: &'a str) -> Result<&'a str> {
    if Path::new(parent).is_absolute() {
        return Err(Error::Invalid(format!(
            "`--parent-path {parent}` is not relative to the image directory"
        )));
    }
    let path: PathBuf = images.path().join(parent);
    match path.is_dir() {
        true => Ok(parent),
        false => Err(Error::Invalid(format!(
            "`--parent-path {parent}`: `{}` is not a directory",
            path.display()
        ))),
    }
}

/// A process that `exec` brought in is no child of the container's: CRIU would leave it behind.
fn refuse_strangers(container: &Container) -> Result<()> {
    let first = container.record.pid;
    let mut parents = BTreeMap::new();
    for pid in container.record.cgroup.processes()? {
        // One that has just ended is nobody's concern.
        if let Some(parent) = parent_of(pid) {
            parents.insert(pid, parent);
        }
    }
    match parents.keys().find(|pid| !descends(**pid, first, &parents)) {
        Some(pid) => Err(Error::Invalid(format!(
            "process {pid} came into container `{}` by exec: CRIU cannot save it; hint: try again when it has ended",
            container.record.id
        ))),
        None => Ok(()),
    }
}

fn descends(pid: i32, first: i32, parents: &BTreeMap<i32, i32>) -> bool {
    let line = std::iter::successors(Some(pid), |pid| parents.get(pid).copied());
    line.take(parents.len() + 1).any(|pid| pid == first)
}

fn parent_of(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    parent?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_descent() {
        let parents = BTreeMap::from([
            (10, 1),
            (11, 10),
            (12, 11),
            (20, 7),
            (21, 20),
            (30, 31),
            (31, 30),
        ]);
        for (pid, own) in [
            (10, true),
            (12, true),
            (20, false),
            (21, false),
            (30, false),
        ] {
            assert_eq!(descends(pid, 10, &parents), own, "{pid}");
        }
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(parent_of(own), Some(nix::unistd::getppid().as_raw()));
        assert_eq!(parent_of(0), None);
    }

    #[test]
    fn a_parent_image_is_beside() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("before")).unwrap();
        let images = Directory::make("image directory", &base.path().join("now")).unwrap();
        assert_eq!(check_parent(&images, "../before").unwrap(), "../before");
        for parent in ["/tmp", "../none"] {
            let err = check_parent(&images, parent).unwrap_err().to_string();
            assert!(err.contains(parent), "{err}");
        }
    }
}
