//! System calls on the way into the program: signals, limits, capabilities, seccomp, execution.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn check(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// Opens `path` below `dir` without leaving its mount and without magic links (`man 2 openat2`).
///
/// # Errors
/// As the system call; `EXDEV` when the path leads out.
pub fn open_beneath(dir: BorrowedFd<'_>, path: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS;
    let flags = u64::from((flags | libc::O_CLOEXEC).unsigned_abs());
    // `struct open_how`: flags, mode, resolve.
    let how = [flags, 0, resolve];
    // SAFETY: the kernel reads the C string and as many bytes of `how` as it is long.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir.as_raw_fd(),
            path.as_ptr(),
            how.as_ptr(),
            std::mem::size_of_val(&how),
        )
    })?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel just returned this descriptor to us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `man 2 pidfd_open`; the descriptor is close-on-exec.
///
/// # Errors
/// As the system call.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel just returned this descriptor to us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `man 2 pidfd_send_signal`.
///
/// # Errors
/// As the system call.
pub fn pidfd_send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks for the default one.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            none,
            0,
        )
    })
    .map(drop)
}

/// Puts one signal's disposition back to the default; numbers that have none are left alone.
///
/// Not through the C library: it keeps 32 and 33 for itself, and a caller may have passed them on ignored.
pub fn reset_disposition(signal: i32) {
    // `struct sigaction` of the kernel: handler, flags, restorer, mask; all zero is SIG_DFL. The mask is 8 bytes.
    let default = [0_u64; 4];
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads one sigaction from `default`, which is at least as large, and writes nothing.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8) };
}

/// `man 2 prlimit` on this process, by number.
///
/// # Errors
/// As the system call.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    // `struct rlimit64`: soft, then hard. Not through the C library, whose types differ between glibc and musl.
    let limit = [soft, hard];
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads two numbers for this process (0) and, with a null pointer, writes nothing.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), old) }).map(drop)
}

/// Effective, permitted and inheritable sets as bits by capability number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySets {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3` of `<linux/capability.h>`.
const VERSION_3: u32 = 0x2008_0522;

/// Sets all three sets in one call (`man 2 capset`): single steps refuse valid combinations.
///
/// # Errors
/// As the system call.
#[allow(clippy::cast_possible_truncation)]
pub fn set_capabilities(sets: CapabilitySets) -> io::Result<()> {
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let word = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [word(0), word(32)];
    // SAFETY: header and the two data words of version 3 live for the call.
    check(unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), data.as_ptr()) })
        .map(drop)
}

/// Reads the three sets (`man 2 capget`).
///
/// # Errors
/// As the system call.
pub fn capabilities() -> io::Result<CapabilitySets> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: the kernel writes two data words of version 3.
    check(unsafe {
        libc::syscall(
            libc::SYS_capget,
            std::ptr::from_mut(&mut header),
            data.as_mut_ptr(),
        )
    })?;
    let join = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    Ok(CapabilitySets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Whether a capability is in the bounding set; an error means that the kernel does not know it.
///
/// # Errors
/// `EINVAL` for an unknown number.
pub fn bounding_has(capability: u32) -> io::Result<bool> {
    // SAFETY: integers only.
    check(libc::c_long::from(unsafe {
        libc::prctl(
            libc::PR_CAPBSET_READ,
            libc::c_ulong::from(capability),
            0,
            0,
            0,
        )
    }))
    .map(|set| set == 1)
}

/// Takes a capability out of the bounding set.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn bounding_drop(capability: u32) -> io::Result<()> {
    // SAFETY: integers only.
    check(libc::c_long::from(unsafe {
        libc::prctl(
            libc::PR_CAPBSET_DROP,
            libc::c_ulong::from(capability),
            0,
            0,
            0,
        )
    }))
    .map(drop)
}

/// Empties the ambient set.
///
/// # Errors
/// `EINVAL` before Linux 4.3.
pub fn ambient_clear() -> io::Result<()> {
    // SAFETY: integers only.
    check(libc::c_long::from(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    }))
    .map(drop)
}

/// Puts a capability into the ambient set.
///
/// # Errors
/// `EPERM` unless it is permitted and inheritable.
pub fn ambient_raise(capability: u32) -> io::Result<()> {
    let raise = libc::PR_CAP_AMBIENT_RAISE;
    // SAFETY: integers only.
    check(libc::c_long::from(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            raise,
            libc::c_ulong::from(capability),
            0,
            0,
        )
    }))
    .map(drop)
}

/// Whether a capability is in the ambient set.
///
/// # Errors
/// `EINVAL` for an unknown number and before Linux 4.3.
pub fn ambient_has(capability: u32) -> io::Result<bool> {
    let ask = libc::PR_CAP_AMBIENT_IS_SET;
    // SAFETY: integers only.
    check(libc::c_long::from(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            ask,
            libc::c_ulong::from(capability),
            0,
            0,
        )
    }))
    .map(|set| set == 1)
}

/// Installs a filter program (`man 2 seccomp`, `SECCOMP_SET_MODE_FILTER`).
///
/// # Errors
/// As the system call; `EINVAL` for a program that is none.
pub fn install_filter(program: &[u8], flags: u32) -> io::Result<()> {
    // Without a listener the kernel refuses the flag.
    set_filter(program, flags & !WAIT_KILLABLE_RECV).map(drop)
}

/// Installs a filter program and gives the descriptor on which an agent is asked (`man 2 seccomp_unotify`).
///
/// # Errors
/// As [`install_filter`]; `EBUSY` when there is a listener already.
pub fn install_listener(program: &[u8], flags: u32) -> io::Result<OwnedFd> {
    let flags = (flags & !TSYNC) | NEW_LISTENER;
    let fd = set_filter(program, flags)?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel just returned this descriptor to us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `SECCOMP_FILTER_FLAG_*` of `<linux/seccomp.h>`. Both that and a listener are a return value; we have one thread.
const TSYNC: u32 = 1;
const NEW_LISTENER: u32 = 8;
const WAIT_KILLABLE_RECV: u32 = 32;

fn set_filter(program: &[u8], flags: u32) -> io::Result<libc::c_long> {
    let size = std::mem::size_of::<libc::sock_filter>();
    if program.is_empty() || !program.len().is_multiple_of(size) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let code = |at: usize| u16::from_ne_bytes([program[at], program[at + 1]]);
    let word = |at: usize| {
        u32::from_ne_bytes([
            program[at],
            program[at + 1],
            program[at + 2],
            program[at + 3],
        ])
    };
    let mut filter: Vec<libc::sock_filter> = (0..program.len() / size)
        .map(|n| n * size)
        .map(|at| libc::sock_filter {
            code: code(at),
            jt: program[at + 2],
            jf: program[at + 3],
            k: word(at + 4),
        })
        .collect();
    let length =
        u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog {
        len: length,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its instructions live for the call; the kernel copies them.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::from_ref(&program),
        )
    })
}

/// Names of a file's extended attributes (`man 2 flistxattr`).
///
/// # Errors
/// As the system call.
pub fn attribute_names(file: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    // XATTR_LIST_MAX of `<linux/limits.h>`.
    let mut list = vec![0_u8; 65536];
    let room = list.len();
    // SAFETY: the kernel writes at most `room` bytes.
    let length =
        length(unsafe { libc::flistxattr(file.as_raw_fd(), list.as_mut_ptr().cast(), room) })?;
    list.truncate(length);
    Ok(list
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
        .map(CStr::to_owned)
        .collect())
}

/// Value of an extended attribute (`man 2 fgetxattr`).
///
/// # Errors
/// As the system call.
pub fn attribute_value(file: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    // XATTR_SIZE_MAX of `<linux/limits.h>`.
    let mut value = vec![0_u8; 65536];
    let room = value.len();
    // SAFETY: the kernel reads the C string and writes at most `room` bytes.
    let length = length(unsafe {
        libc::fgetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            room,
        )
    })?;
    value.truncate(length);
    Ok(value)
}

fn length(returned: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// Sets an extended attribute (`man 2 fsetxattr`).
///
/// # Errors
/// As the system call.
pub fn set_attribute(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    let (data, size) = (value.as_ptr().cast(), value.len());
    // SAFETY: the kernel reads the C string and `size` bytes of the value.
    let set = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), data, size, 0) };
    check(libc::c_long::from(set)).map(drop)
}

/// Sets an extended attribute of the file at a path of the runtime's own (`man 2 lsetxattr`).
///
/// # Errors
/// As the system call.
pub fn set_path_attribute(path: &std::path::Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let (data, size) = (value.as_ptr().cast(), value.len());
    // SAFETY: the kernel reads the two C strings and `size` bytes of the value.
    let set = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), data, size, 0) };
    check(libc::c_long::from(set)).map(drop)
}

/// `man 2 execve`; returns only the cause of a failure.
#[must_use]
pub fn exec(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in a null pointer and outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}
