//! Which system calls of a traced command are hit.

use fleet_tests::tracer::{Call, Spot};

/// Whether every step is taken, or a sample.
pub(crate) fn all() -> bool {
    std::env::var("FLEET_FAULTS").is_ok_and(|value| value == "all")
}

/// A sample of so many, spread evenly.
pub(crate) fn sample(spots: Vec<Spot>, most: usize) -> Vec<Spot> {
    if all() || spots.len() <= most {
        return spots;
    }
    (0..most).map(|n| spots[n * spots.len() / most]).collect()
}

/// The calls that change what others can see: between two of them it should make no difference where a process is
/// killed. Where every step is taken, that is not taken for granted.
pub(crate) fn changing(calls: &[Call]) -> Vec<Spot> {
    calls
        .iter()
        .filter(|call| all() || changes(call))
        .map(|call| call.spot)
        .collect()
}

fn changes(call: &Call) -> bool {
    let number = i64::try_from(call.number).unwrap_or(-1);
    let creates = |flags: u64| flags & u64::from(libc::O_CREAT.cast_unsigned()) != 0;
    match number {
        libc::SYS_openat => creates(call.args[2]),
        libc::SYS_open => creates(call.args[1]),
        _ => CHANGING.contains(&number),
    }
}

const CHANGING: [libc::c_long; 47] = [
    libc::SYS_bind,
    libc::SYS_bpf,
    libc::SYS_chdir,
    libc::SYS_chmod,
    libc::SYS_chroot,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_connect,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit_group,
    libc::SYS_fchmodat,
    libc::SYS_fork,
    libc::SYS_keyctl,
    libc::SYS_kill,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_openat2,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pivot_root,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_rmdir,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setns,
    libc::SYS_setsid,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_tgkill,
    libc::SYS_umount2,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_unshare,
    libc::SYS_vfork,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
];
