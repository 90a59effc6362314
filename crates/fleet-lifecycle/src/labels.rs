//! Labels of security modules for the program to be executed, and for a session keyring.
//!
//! The kernel takes them through files of `/proc`. The container's own may be anything: no procfs at all, one with other
//! files bound over the attributes (CVE-2019-16884, CVE-2025-52881), or one of another process namespace, in which this
//! process does not appear and the modules look absent. So the host's is opened before the container's mounts are
//! entered, and the files are those of the process that opened them, whatever is mounted by the time they are written.

use std::cell::RefCell;
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use serde_json::Value;

use crate::spec;
use crate::sys::tail::open_beneath;

/// A label that cannot be set. Podman recognises the class by the path in back quotes.
#[derive(Debug, thiserror::Error)]
#[error("write label `{label}` to `/proc/thread-self/{path}`: {}", crate::error::errno_text(.source))]
pub struct LabelError {
    label: String,
    path: String,
    source: io::Error,
}

/// Inode of a procfs's root directory (`PROC_ROOT_INO`).
const PROC_ROOT: u64 = 1;

/// Files of one security module, in a thread's directory.
#[derive(Clone, Copy)]
struct Module {
    current: &'static CStr,
    exec: &'static CStr,
}

/// The module that is shown first: SELinux, or AppArmor before Linux 5.8.
const FIRST: Module = Module {
    current: c"attr/current",
    exec: c"attr/exec",
};
const APPARMOR: Module = Module {
    current: c"attr/apparmor/current",
    exec: c"attr/apparmor/exec",
};
const KEYS: &CStr = c"attr/keycreate";

/// The labels of one program.
#[derive(Debug, Default)]
pub struct Labels {
    selinux: Option<String>,
    apparmor: Option<String>,
    /// The host's `/proc`, until the files are open.
    proc: RefCell<Option<OwnedFd>>,
    waiting: RefCell<Vec<Waiting>>,
}

/// A label, and the open file that takes it.
#[derive(Debug)]
struct Waiting {
    file: File,
    text: String,
    path: &'static CStr,
}

impl Labels {
    /// Reads `process`, and opens the `/proc` of the caller, who is on the host.
    ///
    /// # Errors
    /// [`LabelError`] when a label is asked for and there is no genuine one.
    pub fn of(process: &Value) -> Result<Self, LabelError> {
        let text = |key| {
            let text = spec::text(process, key).filter(|label| !label.is_empty());
            text.map(str::to_owned)
        };
        let (selinux, apparmor) = (text("/selinuxLabel"), text("/apparmorProfile"));
        let asked = selinux.as_deref().or(apparmor.as_deref());
        let proc = asked.map(|label| procfs().map_err(error(label, FIRST.exec)));
        Ok(Self {
            proc: RefCell::new(proc.transpose()?),
            selinux,
            apparmor,
            waiting: RefCell::default(),
        })
    }

    /// Opens the files, in the process that is to become the program. A module that the kernel lacks is skipped, as
    /// with the peers: engines write labels for a whole fleet. The answer says which were.
    ///
    /// # Errors
    /// [`LabelError`] when a label cannot reach its module.
    pub fn open(&self) -> Result<Vec<&'static str>, LabelError> {
        let mut skipped = Vec::new();
        // It leads to the whole host, and is closed here.
        let Some(proc) = self.proc.take() else {
            return Ok(skipped);
        };
        if let Some(label) = &self.selinux {
            let failed = error(label, FIRST.exec);
            let thread = thread(proc.as_fd()).map_err(&failed)?;
            if selinux_active(thread.as_fd()).map_err(&failed)? {
                self.wait(thread.as_fd(), FIRST.exec, label.clone())
                    .map_err(&failed)?;
            } else {
                skipped.push("selinuxLabel is ignored: SELinux is not active");
            }
        }
        if let Some(profile) = &self.apparmor {
            let failed = error(profile, APPARMOR.exec);
            let thread = thread(proc.as_fd()).map_err(&failed)?;
            match apparmor_module(thread.as_fd()).map_err(&failed)? {
                // Nothing to leave: some confined surroundings forbid even that.
                Some((_, now)) if profile == "unconfined" && now == *profile => {}
                Some((module, _)) => self
                    .wait(thread.as_fd(), module.exec, format!("exec {profile}"))
                    .map_err(error(profile, module.exec))?,
                None => skipped.push("apparmorProfile is ignored: AppArmor is not active"),
            }
        }
        Ok(skipped)
    }

    fn wait(&self, thread: BorrowedFd<'_>, path: &'static CStr, text: String) -> io::Result<()> {
        let file = open(thread, path, libc::O_WRONLY)?;
        self.waiting.borrow_mut().push(Waiting { file, text, path });
        Ok(())
    }

    /// Sets the labels for the next `execve` of this thread.
    ///
    /// # Errors
    /// [`LabelError`] when a module refuses the label.
    pub fn write(&self) -> Result<(), LabelError> {
        for Waiting { file, text, path } in self.waiting.take() {
            let label = text.strip_prefix("exec ").unwrap_or(&text);
            (&file)
                .write_all(text.as_bytes())
                .map_err(error(label, path))?;
        }
        Ok(())
    }
}

/// Labels the keys that this thread creates from now on, such as a session keyring; `None` ends that.
///
/// # Errors
/// [`LabelError`] when SELinux refuses the label.
pub fn label_keys(selinux: Option<&str>) -> Result<(), LabelError> {
    let label = selinux.unwrap_or_default();
    let failed = error(label, KEYS);
    let thread = procfs().and_then(|proc| thread(proc.as_fd()));
    let thread = thread.map_err(&failed)?;
    if selinux_active(thread.as_fd()).map_err(&failed)? {
        open(thread.as_fd(), KEYS, libc::O_WRONLY)
            .and_then(|mut file| file.write_all(label.as_bytes()))
            .map_err(&failed)?;
    }
    Ok(())
}

fn error(label: &str, path: &CStr) -> impl Fn(io::Error) -> LabelError {
    let (label, path) = (label.to_owned(), path.to_string_lossy().into_owned());
    move |source| LabelError {
        label: label.clone(),
        path: path.clone(),
        source,
    }
}

/// A context of SELinux is `user:role:type[:range]`; no other module writes colons there.
fn selinux_active(thread: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(read(thread, FIRST.current)?.is_some_and(|label| label.matches(':').count() >= 2))
}

/// AppArmor's files and this thread's profile, when the module is active.
fn apparmor_module(thread: BorrowedFd<'_>) -> io::Result<Option<(Module, String)>> {
    if let Some(now) = read(thread, APPARMOR.current)? {
        return Ok(Some((APPARMOR, now)));
    }
    // Before Linux 5.8: `unconfined` or `NAME (MODE)`.
    Ok(read(thread, FIRST.current)?
        .filter(|label| label == "unconfined" || label.ends_with(')'))
        .map(|now| (FIRST, now)))
}

/// An attribute of this thread; `None` when the module is absent (no file) or switched off (`EINVAL`).
fn read(thread: BorrowedFd<'_>, path: &CStr) -> io::Result<Option<String>> {
    let mut label = Vec::new();
    let outcome =
        open(thread, path, libc::O_RDONLY).and_then(|mut file| file.read_to_end(&mut label));
    match outcome {
        Ok(_) => {
            let label = String::from_utf8_lossy(&label);
            let label = label.trim_end_matches(['\0', '\n']).to_owned();
            Ok((!label.is_empty()).then_some(label))
        }
        Err(err) if matches!(err.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(None),
        Err(err) => Err(err),
    }
}

fn open(thread: BorrowedFd<'_>, path: &CStr, flags: libc::c_int) -> io::Result<File> {
    open_beneath(thread, path, flags).map(File::from)
}

/// The directory of this thread.
fn thread(proc: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_beneath(proc, c"thread-self", libc::O_PATH | libc::O_DIRECTORY).map_err(|err| {
        match err.raw_os_error() {
            Some(libc::ENOENT) => io::Error::other(
                "/proc is of another process namespace; hint: mount one of the own",
            ),
            _ => err,
        }
    })
}

fn procfs() -> io::Result<OwnedFd> {
    let no_procfs = || io::Error::other("/proc is not a procfs");
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open("/proc")
        .map_err(|_| no_procfs())?;
    let genuine = fstatfs(&root)?.filesystem_type() == PROC_SUPER_MAGIC
        && root.metadata()?.ino() == PROC_ROOT;
    if genuine {
        Ok(root.into())
    } else {
        Err(no_procfs())
    }
}

#[cfg(test)]
mod tests {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::ForkResult;
    use serde_json::json;

    use super::*;

    fn labels() -> Labels {
        Labels::of(&json!({"selinuxLabel": "a:b:c:s0", "apparmorProfile": "docker-default"}))
            .unwrap()
    }

    #[test]
    fn nothing_asked_nothing_opened() {
        let none = Labels::of(&json!({"selinuxLabel": ""})).unwrap();
        assert!(none.proc.borrow().is_none());
        assert!(none.open().unwrap().is_empty());
        none.write().unwrap();
    }

    #[test]
    fn absent_modules_are_skipped_with_a_word() {
        let here = procfs().and_then(|proc| thread(proc.as_fd())).unwrap();
        let selinux = selinux_active(here.as_fd()).unwrap();
        let apparmor = apparmor_module(here.as_fd()).unwrap().is_some();
        if selinux || apparmor {
            println!("SKIP: a security module is active");
            return;
        }
        let labels = labels();
        let skipped = labels.open().unwrap();
        assert_eq!(skipped.len(), 2);
        assert!(skipped[0].starts_with("selinuxLabel") && skipped[1].starts_with("apparmor"));
        assert!(labels.proc.borrow().is_none());
        labels.write().unwrap();
        label_keys(Some("a:b:c:s0")).unwrap();
        label_keys(None).unwrap();
    }

    #[test]
    fn errors_name_the_file_as_podman_wants() {
        let err = error("a:b:c", FIRST.exec)(io::Error::from_raw_os_error(libc::EINVAL));
        assert_eq!(
            err.to_string(),
            "write label `a:b:c` to `/proc/thread-self/attr/exec`: Invalid argument"
        );
        let err = error("p", APPARMOR.exec)(io::Error::from_raw_os_error(libc::EINVAL));
        assert!(err.to_string().contains("/exec`: "), "{err}");
    }

    /// In a mount namespace of its own, which belongs to a thread.
    fn with_mounts(case: impl FnOnce() + Send + 'static) {
        let ran = std::thread::spawn(move || {
            if unshare(CloneFlags::CLONE_NEWNS).is_err() {
                return false;
            }
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            case();
            true
        });
        if !ran.join().unwrap() {
            println!("SKIP: a mount namespace needs CAP_SYS_ADMIN");
        }
    }

    fn cover_proc() {
        let tmpfs = Some("tmpfs");
        mount(tmpfs, "/proc", tmpfs, MsFlags::empty(), None::<&str>).unwrap();
        std::fs::create_dir_all("/proc/thread-self/attr").unwrap();
        std::fs::write("/proc/thread-self/attr/current", "a:b:c").unwrap();
        std::fs::write("/proc/thread-self/attr/exec", "").unwrap();
    }

    /// What a module takes: the kernel's own refusal tells that it was reached.
    fn reaches_the_kernel(labels: &Labels) {
        let err = labels.write().unwrap_err();
        assert!(
            err.to_string().contains("`/proc/thread-self/attr/exec`"),
            "{err}"
        );
        assert_eq!(err.source.raw_os_error(), Some(libc::EINVAL), "{err}");
    }

    #[test]
    fn a_label_is_not_written_to_something_else() {
        with_mounts(|| {
            let (before, opened) = (labels(), labels());
            let here = procfs().and_then(|proc| thread(proc.as_fd())).unwrap();
            opened.proc.take();
            opened
                .wait(here.as_fd(), FIRST.exec, "no such label".to_owned())
                .unwrap();
            cover_proc();
            let skipped = before.open().unwrap();
            assert!(skipped.len() == 2 || !before.waiting.borrow().is_empty());
            reaches_the_kernel(&opened);
            assert_eq!(std::fs::read("/proc/thread-self/attr/exec").unwrap(), b"");
            for asked in [
                json!({"selinuxLabel": "a:b:c"}),
                json!({"apparmorProfile": "p"}),
            ] {
                let err = Labels::of(&asked).unwrap_err().to_string();
                assert!(err.ends_with("/proc is not a procfs"), "{err}");
            }
            assert!(Labels::of(&json!({})).is_ok());
        });
    }

    #[test]
    fn a_file_bound_over_the_attribute_is_refused() {
        with_mounts(|| {
            let tid = nix::unistd::gettid();
            let exec = format!("/proc/self/task/{tid}/attr/exec");
            let here = procfs().and_then(|proc| thread(proc.as_fd())).unwrap();
            let labels = Labels::default();
            labels
                .wait(here.as_fd(), FIRST.exec, "no such label".to_owned())
                .unwrap();
            let bind = MsFlags::MS_BIND;
            mount(
                Some("/proc/self/comm"),
                exec.as_str(),
                None::<&str>,
                bind,
                None::<&str>,
            )
            .unwrap();
            reaches_the_kernel(&labels);
            let err = open(here.as_fd(), FIRST.exec, libc::O_WRONLY).unwrap_err();
            assert_eq!(err.raw_os_error(), Some(libc::EXDEV));
        });
    }

    /// There, every module looks absent.
    #[test]
    fn the_proc_of_another_process_namespace_is_refused() {
        with_mounts(|| {
            if unshare(CloneFlags::CLONE_NEWPID).is_err() {
                println!("SKIP: a process namespace needs CAP_SYS_ADMIN");
                return;
            }
            let before = labels();
            // The first process of that namespace.
            match crate::sys::process::fork().unwrap() {
                ForkResult::Parent { child } => {
                    let ended = waitpid(child, None).unwrap();
                    assert_eq!(ended, WaitStatus::Exited(child, 0));
                }
                ForkResult::Child => {
                    let kind = Some("proc");
                    let mounted = mount(kind, "/proc", kind, MsFlags::empty(), None::<&str>);
                    crate::sys::process::leave(i32::from(mounted.is_err()))
                }
            }
            assert!(!std::fs::exists("/proc/thread-self/").unwrap());
            let err = labels().open().unwrap_err().to_string();
            assert!(err.contains("another process namespace"), "{err}");
            before.open().unwrap();
        });
    }
}
