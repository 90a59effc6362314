//! Labels of security modules for the program to be executed, and for a session keyring.
//!
//! The kernel takes them through files of `/proc`. By then that is the container's own, where a label written to
//! anything else would be lost without a word and the program would run unconfined (CVE-2019-16884, CVE-2025-52881):
//! only a file reached below the root of a procfs, across no other mount, is written.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::sys::tail::open_beneath;

/// A label that cannot be set. Podman recognises the class by the path in back quotes.
#[derive(Debug, thiserror::Error)]
#[error("write label `{label}` to `/proc/{path}`: {}", crate::error::errno_text(.source))]
pub struct LabelError {
    label: String,
    path: String,
    source: io::Error,
}

/// Inode of a procfs's root directory (`PROC_ROOT_INO`).
const PROC_ROOT: u64 = 1;

/// Files of one security module.
struct Module {
    current: &'static CStr,
    exec: &'static CStr,
}

/// The module that is shown first: SELinux, or AppArmor before Linux 5.8.
const FIRST: Module = Module {
    current: c"thread-self/attr/current",
    exec: c"thread-self/attr/exec",
};
const APPARMOR: Module = Module {
    current: c"thread-self/attr/apparmor/current",
    exec: c"thread-self/attr/apparmor/exec",
};
const KEYS: &CStr = c"thread-self/attr/keycreate";

/// Sets the labels for the next `execve` of this thread. A module that the kernel lacks is skipped, as with the
/// peers: engines write labels for a whole fleet. The answer says which were.
///
/// # Errors
/// [`LabelError`] when an active module refuses the label, or when the label cannot reach it.
pub fn apply(
    selinux: Option<&str>,
    apparmor: Option<&str>,
) -> Result<Vec<&'static str>, LabelError> {
    let mut skipped = Vec::new();
    if let Some(label) = selinux {
        let failed = error(label, FIRST.exec);
        if selinux_active().map_err(&failed)? {
            write(FIRST.exec, label).map_err(&failed)?;
        } else {
            skipped.push("selinuxLabel is ignored: SELinux is not active");
        }
    }
    if let Some(profile) = apparmor {
        match apparmor_module().map_err(error(profile, APPARMOR.exec))? {
            // Nothing to leave: some confined surroundings forbid even that.
            Some((_, now)) if profile == "unconfined" && now == profile => {}
            Some((module, _)) => write(module.exec, &format!("exec {profile}"))
                .map_err(error(profile, module.exec))?,
            None => skipped.push("apparmorProfile is ignored: AppArmor is not active"),
        }
    }
    Ok(skipped)
}

/// Labels the keys that this thread creates from now on, such as a session keyring; `None` ends that.
///
/// # Errors
/// [`LabelError`] when SELinux refuses the label.
pub fn label_keys(selinux: Option<&str>) -> Result<(), LabelError> {
    let label = selinux.unwrap_or_default();
    if selinux_active().map_err(error(label, KEYS))? {
        write(KEYS, label).map_err(error(label, KEYS))?;
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
fn selinux_active() -> io::Result<bool> {
    Ok(read(FIRST.current)?.is_some_and(|label| label.matches(':').count() >= 2))
}

/// AppArmor's files and this thread's profile, when the module is active.
fn apparmor_module() -> io::Result<Option<(Module, String)>> {
    if let Some(now) = read(APPARMOR.current)? {
        return Ok(Some((APPARMOR, now)));
    }
    // Before Linux 5.8: `unconfined` or `NAME (MODE)`.
    Ok(read(FIRST.current)?
        .filter(|label| label == "unconfined" || label.ends_with(')'))
        .map(|now| (FIRST, now)))
}

/// An attribute of this thread; `None` when the module is absent (no file) or switched off (`EINVAL`).
fn read(path: &CStr) -> io::Result<Option<String>> {
    let mut label = Vec::new();
    let outcome = open(path, libc::O_RDONLY).and_then(|mut file| file.read_to_end(&mut label));
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

fn write(path: &CStr, text: &str) -> io::Result<()> {
    open(path, libc::O_WRONLY)?.write_all(text.as_bytes())
}

fn open(path: &CStr, flags: libc::c_int) -> io::Result<File> {
    let no_procfs = || io::Error::other("the container's /proc is not a procfs");
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open("/proc")
        .map_err(|_| no_procfs())?;
    let genuine = fstatfs(&root)?.filesystem_type() == PROC_SUPER_MAGIC
        && root.metadata()?.ino() == PROC_ROOT;
    if !genuine {
        return Err(no_procfs());
    }
    open_beneath(root.as_fd(), path, flags).map(File::from)
}

#[cfg(test)]
mod tests {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn nothing_asked_nothing_done() {
        assert!(apply(None, None).unwrap().is_empty());
    }

    #[test]
    fn absent_modules_are_skipped_with_a_word() {
        let selinux = selinux_active().unwrap();
        let apparmor = apparmor_module().unwrap().is_some();
        if selinux || apparmor {
            println!("SKIP: a security module is active");
            return;
        }
        let skipped = apply(Some("a:b:c:s0"), Some("docker-default")).unwrap();
        assert_eq!(skipped.len(), 2);
        assert!(skipped[0].starts_with("selinuxLabel") && skipped[1].starts_with("apparmor"));
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

    #[test]
    fn a_label_is_not_written_to_something_else() {
        with_mounts(|| {
            let tmpfs = Some("tmpfs");
            mount(tmpfs, "/proc", tmpfs, MsFlags::empty(), None::<&str>).unwrap();
            std::fs::create_dir_all("/proc/thread-self/attr").unwrap();
            std::fs::write("/proc/thread-self/attr/current", "a:b:c").unwrap();
            std::fs::write("/proc/thread-self/attr/exec", "").unwrap();
            for (selinux, apparmor) in [(Some("a:b:c"), None), (None, Some("p"))] {
                let err = apply(selinux, apparmor).unwrap_err().to_string();
                assert!(err.ends_with("/proc is not a procfs"), "{err}");
            }
            assert_eq!(std::fs::read("/proc/thread-self/attr/exec").unwrap(), b"");
        });
    }

    #[test]
    fn a_file_bound_over_the_attribute_is_refused() {
        with_mounts(|| {
            let tid = nix::unistd::gettid();
            let exec = format!("/proc/self/task/{tid}/attr/exec");
            assert!(open(FIRST.exec, libc::O_WRONLY).is_ok());
            let bind = MsFlags::MS_BIND;
            mount(
                Some("/proc/self/comm"),
                exec.as_str(),
                None::<&str>,
                bind,
                None::<&str>,
            )
            .unwrap();
            let err = open(FIRST.exec, libc::O_WRONLY).unwrap_err();
            assert_eq!(err.raw_os_error(), Some(libc::EXDEV));
        });
    }
}
