//! Process attributes, shared memory, keyring and execution by descriptor.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Drops the whole environment of this process.
///
/// The runtime's callers pass what an engine's user set (`LISTEN_FDS`, `LD_*`); libcontainer reads some of it.
pub fn clear_environment() {
    // SAFETY: the runtime is single-threaded here, so nobody reads the environment meanwhile.
    unsafe {
        libc::clearenv();
    }
}

/// Sets one variable of this process's environment.
pub fn set_variable(name: &str, value: &str) {
    // SAFETY: the runtime is single-threaded here, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var(name, value) };
}

/// Forbids (or allows) others of the same user to look into this process (`PR_SET_DUMPABLE`).
///
/// # Errors
/// As `man 2 prctl`.
pub fn set_dumpable(on: bool) -> io::Result<()> {
    prctl1(libc::PR_SET_DUMPABLE, libc::c_ulong::from(on))
}

/// Makes orphaned descendants children of this process (`PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// As `man 2 prctl`.
pub fn set_subreaper(on: bool) -> io::Result<()> {
    prctl1(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(on))
}

/// Sets the domain name of the UTS namespace.
///
/// # Errors
/// As `man 2 setdomainname`.
pub fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: the pointer is to `len` bytes that live through the call.
    let done = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Keeps permitted capabilities over the next change of user id (`PR_SET_KEEPCAPS`).
///
/// # Errors
/// As `man 2 prctl`.
pub fn keep_capabilities(on: bool) -> io::Result<()> {
    prctl1(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(on))
}

/// Sets `no_new_privs` (`man 2 PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
/// As `man 2 prctl`.
pub fn set_no_new_privileges() -> io::Result<()> {
    prctl1(libc::PR_SET_NO_NEW_PRIVS, 1)
}

fn prctl1(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: these options take one integer and no pointer.
    if unsafe { libc::prctl(option, value, 0, 0, 0) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sets the name that `ps` shows for this process.
pub fn set_name(name: &CStr) {
    // SAFETY: the kernel copies at most 16 bytes of the C string.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0);
    }
}

/// Joins a new session keyring of this name (`man 2 keyctl`).
///
/// # Errors
/// As `man 2 keyctl`.
pub fn join_session_keyring(name: &CStr) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the kernel copies the C string.
    if unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Replaces this process by the program behind `file`.
///
/// Returns only on failure, with the cause.
pub fn execute(file: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in a null pointer and outlive the call; the strings are C strings.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Makes the terminal behind `tty` the controlling one of this session.
///
/// # Errors
/// As `TIOCSCTTY` in `man 2 ioctl_tty`.
pub fn set_controlling_terminal(tty: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer argument.
    if unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Unlocks the slave of the pseudo-terminal behind `master` and opens it without going through a path.
///
/// # Errors
/// As `TIOCSPTLCK` and `TIOCGPTPEER` in `man 2 ioctl_tty`.
pub fn open_slave(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the kernel reads one integer.
    if unsafe {
        libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCSPTLCK,
            std::ptr::from_ref(&unlocked),
        )
    } < 0
    {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: TIOCGPTPEER takes open flags as an integer.
    let fd = unsafe {
        libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCGPTPEER,
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor to us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Rows and columns of a terminal, in characters.
pub type WindowSize = libc::winsize;

/// Reads the size of a terminal.
///
/// # Errors
/// `ENOTTY` when `tty` is none.
pub fn window_size(tty: BorrowedFd<'_>) -> io::Result<WindowSize> {
    // SAFETY: an all-zero winsize is valid.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one winsize.
    if unsafe {
        libc::ioctl(
            tty.as_raw_fd(),
            libc::TIOCGWINSZ,
            std::ptr::from_mut(&mut size),
        )
    } < 0
    {
        return Err(io::Error::last_os_error());
    }
    Ok(size)
}

/// Sets the size of a terminal.
///
/// # Errors
/// `ENOTTY` when `tty` is none.
pub fn set_window_size(tty: BorrowedFd<'_>, size: &WindowSize) -> io::Result<()> {
    // SAFETY: the kernel reads one winsize.
    if unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Brings the interface `lo` of the current network namespace up.
///
/// # Errors
/// As `SIOCSIFFLAGS` in `man 7 netdevice`.
pub fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    // SAFETY: the kernel reads and writes one ifreq.
    if unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCGIFFLAGS,
            std::ptr::from_mut(&mut request),
        )
    } < 0
    {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFFLAGS filled the flags member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    #[allow(clippy::cast_possible_truncation)]
    let up = libc::IFF_UP as libc::c_short;
    request.ifr_ifru.ifru_flags = flags | up;
    // SAFETY: the kernel reads one ifreq.
    if unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            std::ptr::from_ref(&request),
        )
    } < 0
    {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A page of memory that this process and its clones share: a clone reports its failure in it.
#[derive(Debug)]
pub struct SharedText {
    page: NonNull<u8>,
}

const PAGE: usize = 16 * 1024;
/// Length of the text, and the mark.
const HEADER: usize = 8;

impl SharedText {
    /// Maps the page.
    ///
    /// # Errors
    /// As `man 2 mmap`.
    pub fn new() -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast())
            .map(|page| Self { page })
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    fn length(&self) -> &AtomicU32 {
        // SAFETY: the mapping is page-aligned, at least eight bytes long and lives as long as self.
        unsafe { AtomicU32::from_ptr(self.page.as_ptr().cast()) }
    }

    fn flag(&self) -> &AtomicU32 {
        // SAFETY: as above, for the second four bytes.
        unsafe { AtomicU32::from_ptr(self.page.as_ptr().add(4).cast()) }
    }

    /// Leaves a mark, beside any text.
    pub fn mark(&self) {
        self.flag().store(1, Ordering::Release);
    }

    /// Whether the mark was left.
    #[must_use]
    pub fn marked(&self) -> bool {
        self.flag().load(Ordering::Acquire) == 1
    }

    /// Stores `text` unless something is stored already: the first report is the innermost cause.
    pub fn store_first(&self, text: &str) {
        if self.length().load(Ordering::Acquire) != 0 {
            return;
        }
        let length = text.len().min(PAGE - HEADER);
        // SAFETY: source and destination are valid for `length` bytes and cannot overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), self.page.as_ptr().add(HEADER), length)
        };
        self.length()
            .store(u32::try_from(length).unwrap_or(0), Ordering::Release);
    }

    /// Adds to what was stored, as far as there is room.
    pub fn append(&self, text: &str) {
        let stored = (self.length().load(Ordering::Acquire) as usize).min(PAGE - HEADER);
        let length = text.len().min(PAGE - HEADER - stored);
        // SAFETY: source and destination are valid for `length` bytes, since `stored + length` is no more than the
        // room after the header, and cannot overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(
                text.as_ptr(),
                self.page.as_ptr().add(HEADER + stored),
                length,
            );
        };
        self.length().store(
            u32::try_from(stored + length).unwrap_or(0),
            Ordering::Release,
        );
    }

    /// What was stored, if anything.
    #[must_use]
    pub fn load(&self) -> Option<String> {
        let length = (self.length().load(Ordering::Acquire) as usize).min(PAGE - HEADER);
        if length == 0 {
            return None;
        }
        // SAFETY: the first `length` bytes after the header were written before the length was published.
        let bytes = unsafe { std::slice::from_raw_parts(self.page.as_ptr().add(HEADER), length) };
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

// SAFETY: all access goes through the atomic length; the runtime has one thread per process.
unsafe impl Sync for SharedText {}
// SAFETY: the mapping is not tied to a thread.
unsafe impl Send for SharedText {}

impl Drop for SharedText {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this size and nothing refers to it any more.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE) };
    }
}

/// Forks; the runtime has one thread, so the child may go on as it likes.
///
/// # Errors
/// As `man 2 fork`.
pub fn fork() -> io::Result<nix::unistd::ForkResult> {
    // SAFETY: the runtime is single-threaded: no lock can be held by a thread that the child lacks.
    unsafe { nix::unistd::fork() }.map_err(io::Error::from)
}

/// `linux/sched.h`; the libc crate's constant does not fit the type of its `clone_args::flags`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `clone3` as fork, the child in the cgroup2 directory `cgroup` from the start (`CLONE_INTO_CGROUP`).
///
/// # Errors
/// As `man 2 clone3`.
pub fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<nix::unistd::ForkResult> {
    // SAFETY: all fields of the structure are numbers, for which zero means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    clone3(args)
}

/// `clone3` as fork, the child a sibling of the caller (`CLONE_PARENT`).
///
/// # Errors
/// As `man 2 clone3`.
pub fn fork_sibling() -> io::Result<nix::unistd::ForkResult> {
    // SAFETY: as above.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    // The signal at its end is that of the caller's own.
    args.flags = u64::from(libc::CLONE_PARENT.unsigned_abs());
    clone3(args)
}

fn clone3(mut args: libc::clone_args) -> io::Result<nix::unistd::ForkResult> {
    // SAFETY: without CLONE_VM the child gets a copy of everything, as with fork; the runtime is single-threaded.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    match i32::try_from(pid) {
        Ok(0) => Ok(nix::unistd::ForkResult::Child),
        Ok(pid) if pid > 0 => Ok(nix::unistd::ForkResult::Parent {
            child: nix::unistd::Pid::from_raw(pid),
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks the kernel to kill this process when its parent ends, or not to.
///
/// # Errors
/// As `man 2 PR_SET_PDEATHSIG`.
pub fn die_with_parent(yes: bool) -> io::Result<()> {
    let signal = if yes { libc::SIGKILL } else { 0 };
    prctl1(
        libc::PR_SET_PDEATHSIG,
        libc::c_ulong::from(signal.unsigned_abs()),
    )
}

/// Has all descriptors from `first` up closed when a program is executed.
///
/// # Errors
/// As `man 2 close_range`.
pub fn close_on_exec(first: u32) -> io::Result<()> {
    let (last, flags) = (libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: integers only; nothing is closed now.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the priority of this process's input and output: class and level of `linux/ioprio.h`.
///
/// # Errors
/// As `man 2 ioprio_set`.
pub fn set_io_priority(class: u16, level: u16) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let priority = libc::c_int::from(class) << IOPRIO_CLASS_SHIFT | libc::c_int::from(level);
    // SAFETY: integers only; 0 is the calling thread.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the execution domain of this process, by the numbers of `linux/personality.h`.
///
/// # Errors
/// As `man 2 personality`.
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: one integer.
    match unsafe { libc::personality(libc::c_ulong::from(domain)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Ends a forked child at once, without running the parent's cleanup.
pub fn leave(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Lets go of what a process that only waits need not hold: freed memory, and the pages of its own program, which come
/// back from the file as they are used.
pub fn shed_memory() {
    // SAFETY: the allocator gives back what nobody has.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
    // SAFETY: the callback is called during this call alone and has no data.
    unsafe { libc::dl_iterate_phdr(Some(shed_program), std::ptr::null_mut()) };
}

/// The first object is the program itself; a value other than 0 asks for no more.
extern "C" fn shed_program(
    object: *mut libc::dl_phdr_info,
    _: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    const PAGE: u64 = 4096;
    // SAFETY: the C library passes an object that is valid during the call.
    let object = unsafe { &*object };
    // SAFETY: as many headers as it says.
    let headers =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    let unwritten = |header: &&libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0
    };
    for header in headers.iter().filter(unwritten) {
        let start = object.dlpi_addr + header.p_vaddr;
        let (first, end) = (
            start.next_multiple_of(PAGE),
            (start + header.p_memsz) / PAGE * PAGE,
        );
        let length = usize::try_from(end.saturating_sub(first)).unwrap_or(0);
        // SAFETY: whole pages of a mapping of the program's file that is never written: the kernel reads them again.
        unsafe { libc::madvise(first as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
    1
}

/// Takes ownership of a descriptor that the caller was handed by number and has just checked to be open.
#[must_use]
pub fn adopt(fd: std::os::fd::RawFd) -> std::fs::File {
    // SAFETY: the number came from our own parent for this purpose; nothing else in this process uses it.
    unsafe { std::fs::File::from_raw_fd(fd) }
}

/// How a process is scheduled, by the numbers of `linux/sched.h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulingAttributes {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the policies that share time.
    pub nice: i32,
    /// For the realtime policies.
    pub priority: u32,
    /// Nanoseconds, `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, `SCHED_DEADLINE`.
    pub period: u64,
}

/// `struct sched_attr` (`linux/sched/types.h`), as of its first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Schedules the calling thread (`man 2 sched_setattr`).
///
/// # Errors
/// As the system call.
pub fn set_scheduling(wanted: &SchedulingAttributes) -> io::Result<()> {
    let size = u32::try_from(std::mem::size_of::<SchedAttr>()).map_err(io::Error::other)?;
    let attributes = SchedAttr {
        size,
        policy: wanted.policy,
        flags: wanted.flags,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    };
    // SAFETY: the kernel reads `size` bytes, which is all of the structure; 0 is the calling thread.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
