//! System calls that fail, one at a time: no memory, no process, no descriptor, no space.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fleet_tests::tracer::{self, Call, Fault, Spot};
use fleet_tests::{Bundle, not_for_peers, until};
use nix::errno::Errno;
use serde_json::json;

use crate::assert_clear;
use crate::census::Census;
use crate::steps;

/// How a call fails on a machine that has run out of something.
fn exhausted(call: &Call) -> Option<Errno> {
    Some(match i64::try_from(call.number).ok()? {
        libc::SYS_clone | libc::SYS_clone3 | libc::SYS_fork | libc::SYS_vfork => Errno::EAGAIN,
        libc::SYS_mmap
        | libc::SYS_brk
        | libc::SYS_mprotect
        | libc::SYS_mount
        | libc::SYS_move_mount
        | libc::SYS_mount_setattr
        | libc::SYS_setns
        | libc::SYS_unshare
        | libc::SYS_pivot_root
        | libc::SYS_sendmsg
        | libc::SYS_sendto
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_bpf
        | libc::SYS_chdir
        | libc::SYS_execve
        | libc::SYS_execveat => Errno::ENOMEM,
        libc::SYS_open
        | libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_open_tree
        | libc::SYS_pipe2
        | libc::SYS_pidfd_open
        | libc::SYS_socket
        | libc::SYS_socketpair
        | libc::SYS_dup
        | libc::SYS_fcntl
        | libc::SYS_memfd_create => Errno::EMFILE,
        libc::SYS_write
        | libc::SYS_mkdir
        | libc::SYS_mkdirat
        | libc::SYS_mknod
        | libc::SYS_mknodat
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_symlink
        | libc::SYS_symlinkat
        | libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_bind => Errno::ENOSPC,
        _ => return None,
    })
}

fn spots(calls: &[Call], most: usize) -> Vec<(Spot, Fault)> {
    let all: Vec<(Spot, Fault)> = calls
        .iter()
        .filter_map(|call| Some((call.spot, Fault::Fail(call.number, exhausted(call)?))))
        .collect();
    let chosen = steps::sample(all.iter().map(|(spot, _)| *spot).collect(), most);
    all.into_iter()
        .filter(|(spot, _)| chosen.contains(spot))
        .collect()
}

/// Runs `each` with every chosen fault; all that fail are told.
fn every_fault(
    bundle: &Bundle,
    args: &[&str],
    most: usize,
    before: impl Fn(),
    after: impl Fn(&tracer::Trace, &str),
    clean: impl Fn(bool),
) {
    before();
    let whole = tracer::run(&bundle.runtime.command(args), None);
    assert_eq!(whole.output.code, 0, "{:#?}", whole.output);
    after(&whole, "no fault");
    let (mut failed, mut refused) = (Vec::new(), 0);
    let spots = spots(&whole.calls, most);
    for (spot, fault) in &spots {
        let step = || {
            before();
            let trace = tracer::run(&bundle.runtime.command(args), Some((*spot, *fault)));
            let call = trace.hit.map(|call| call.number);
            let context = format!("{} with {fault:?} at {spot:?}, call {call:?}", args[0]);
            if started(&trace) {
                after(&trace, &context);
            } else {
                clean(true);
            }
            trace.output.code != 0
        };
        match catch_unwind(AssertUnwindSafe(step)) {
            Ok(error) => refused += usize::from(error),
            Err(_) => {
                failed.push((*spot, *fault));
                clean(false);
            }
        }
    }
    println!(
        "{}: {refused} of {} faults were errors",
        args[0],
        spots.len()
    );
    assert!(failed.is_empty(), "{} with {failed:?}", args[0]);
    assert!(refused > 0, "no fault made a difference");
}

/// The C library ends a program for which it cannot get memory before the program begins.
fn started(trace: &tracer::Trace) -> bool {
    let memory = [libc::SYS_brk, libc::SYS_mmap, libc::SYS_mprotect];
    let memory = trace.hit.is_some_and(|call| {
        call.spot.process == 0 && memory.contains(&i64::try_from(call.number).unwrap_or(-1))
    });
    !(memory && [127, 134, 139].contains(&trace.output.code))
}

fn ran(bundle: &Bundle) -> bool {
    fs::remove_file(bundle.dir.join("rootfs/ran")).is_ok()
}

fn bundle() -> Bundle {
    Bundle::new("echo x >> /ran; exec sleep 10000").set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}),
    )
}

/// What was made by one that succeeded all the same is whole.
fn starts(bundle: &Bundle, context: &str) {
    assert_eq!(
        bundle.runtime.state(&bundle.id)["status"],
        "created",
        "{context}"
    );
    let started = bundle.runtime.run(&["start", &bundle.id]);
    assert_eq!(started.code, 0, "{context}: {started:#?}");
    until(&format!("{context}: the program"), || ran(bundle));
    let denied = bundle.exec(&[], &["mkdir", "/x"]);
    assert_ne!(denied.code, 0, "{context}: the filter holds: {denied:#?}");
    let deleted = bundle.runtime.run(&["delete", "--force", &bundle.id]);
    assert_eq!(deleted.code, 0, "{context}: {deleted:#?}");
}

#[test]
fn create_with_every_call_refused() {
    if not_for_peers("create_with_every_call_refused") {
        return;
    }
    let bundle = bundle();
    bundle.make("create", &[]).silent();
    starts(&bundle, "first");
    let census = Census::take();
    let dir = bundle.dir.display().to_string();
    let pid_file = format!("{dir}/pid");
    every_fault(
        &bundle,
        &[
            "create",
            "--pid-file",
            &pid_file,
            "--bundle",
            &dir,
            &bundle.id,
        ],
        60,
        || {},
        |trace, context| {
            if trace.output.code == 0 {
                starts(&bundle, context);
                drop(fs::remove_file(&pid_file));
            } else {
                assert_clear(&trace.output, 1, context);
            }
            census.assert_nothing_new(context);
        },
        |unstarted| match unstarted {
            true => census.assert_nothing_new("create that could not begin"),
            false => drop(bundle.runtime.run(&["delete", "--force", &bundle.id])),
        },
    );
}

#[test]
fn start_with_every_call_refused() {
    if not_for_peers("start_with_every_call_refused") {
        return;
    }
    let bundle = bundle();
    let _cache = bundle.make("create", &[]);
    starts(&bundle, "first");
    let census = Census::take();
    every_fault(
        &bundle,
        &["start", &bundle.id],
        30,
        || bundle.make("create", &[]).silent(),
        |trace, context| {
            if trace.output.code == 0 {
                until(&format!("{context}: the program"), || ran(&bundle));
            } else {
                assert_clear(&trace.output, 1, context);
                // It can be tried again.
                let again = bundle.runtime.run(&["start", &bundle.id]);
                assert!(
                    again.code == 0 || again.stderr.contains("it is running"),
                    "{context}: {again:#?}"
                );
                until(&format!("{context}: the program"), || ran(&bundle));
            }
            let deleted = bundle.runtime.run(&["delete", "--force", &bundle.id]);
            assert_eq!(deleted.code, 0, "{context}: {deleted:#?}");
            census.assert_nothing_new(context);
        },
        |_| drop(bundle.runtime.run(&["delete", "--force", &bundle.id])),
    );
}

#[test]
fn exec_with_every_call_refused() {
    if not_for_peers("exec_with_every_call_refused") {
        return;
    }
    let bundle = bundle();
    bundle.make("create", &[]).silent();
    bundle.runtime.run(&["start", &bundle.id]).silent();
    until("the program in the shell's place", || {
        let listed = bundle.runtime.run(&["ps", &bundle.id]).ok();
        listed.contains(" sleep 10000") && !listed.contains("echo")
    });
    let census = Census::take();
    every_fault(
        &bundle,
        &["exec", &bundle.id, "sh", "-c", "echo done"],
        40,
        || {},
        |trace, context| {
            if trace.output.code == 0 {
                assert_eq!(trace.output.stdout, "done\n", "{context}");
            } else {
                assert_clear(&trace.output, 255, context);
            }
            census.assert_nothing_new(context);
        },
        |_| census.assert_nothing_new("exec that could not begin"),
    );
}

#[test]
fn delete_with_every_call_refused() {
    if not_for_peers("delete_with_every_call_refused") {
        return;
    }
    let bundle = bundle();
    bundle.make("create", &[]).silent();
    starts(&bundle, "first");
    let census = Census::take();
    every_fault(
        &bundle,
        &["delete", "--force", &bundle.id],
        30,
        || bundle.make("create", &[]).silent(),
        |trace, context| {
            if trace.output.code != 0 {
                assert_clear(&trace.output, 1, context);
                let again = bundle.runtime.run(&["delete", "--force", &bundle.id]);
                assert_eq!(again.code, 0, "{context}: {again:#?}");
            }
            census.assert_nothing_new(context);
        },
        |_| drop(bundle.runtime.run(&["delete", "--force", &bundle.id])),
    );
}
