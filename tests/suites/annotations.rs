//! Annotations of crun: done or refused by name, as `docs/annotations.md` says.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use fleet_tests::{Bundle, assert_nothing_left, differs, not_for_peers, run, unique};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};

fn with(script: &str, annotations: Value) -> Bundle {
    Bundle::new(script).set("/annotations", annotations)
}

fn said_by_hooks(stage: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo out-{stage}; echo err-{stage} >&2")]}])
}

/// Every stage, wherever it runs: the files are the host's.
#[test]
fn hooks_write_to_files() {
    if differs("hooks_write_to_files", &["runc"]) {
        return;
    }
    let stages = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ];
    let file = |name: &str| format!("/run/{}", unique(name));
    let (out, err) = (file("hooks-out"), file("hooks-err"));
    fs::write(&out, "before\n").expect("write");
    let mut bundle = with(
        "sleep 0.1",
        json!({"run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err}),
    );
    for stage in stages {
        bundle.spec["hooks"][stage] = said_by_hooks(stage);
    }
    drop(bundle.run().ok());
    for (file, word, first) in [(&out, "out", "before\n"), (&err, "err", "")] {
        let text = fs::read_to_string(file).expect("read");
        for stage in stages {
            // crun forgets the files when a container is deleted.
            if fleet_tests::ours() || stage != "poststop" {
                assert!(
                    text.contains(&format!("{word}-{stage}\n")),
                    "{stage}: {text}"
                );
            }
        }
        assert!(text.starts_with(first), "{text}");
    }
    assert_nothing_left(&bundle);
}

#[test]
fn a_hook_whose_stderr_goes_to_a_file_still_fails_by_name() {
    if not_for_peers("a_hook_whose_stderr_goes_to_a_file_still_fails_by_name") {
        return;
    }
    let err = format!("/run/{}", unique("hooks-err"));
    let mut bundle = with("true", json!({"run.oci.hooks.stderr": err}));
    bundle.spec["hooks"]["createContainer"] =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 3"]}]);
    drop(
        bundle
            .run()
            .fails("error running hook createContainer `/bin/sh`: exit status 3"),
    );
    assert_eq!(fs::read_to_string(err).expect("read"), "why\n");
    assert_nothing_left(&bundle);
}

#[test]
fn a_receiver_gets_a_descriptor_of_the_process() {
    if differs("a_receiver_gets_a_descriptor_of_the_process", &["runc"]) {
        return;
    }
    let path = format!("/run/{}", unique("pidfd"));
    let listener = UnixListener::bind(&path).expect("bind");
    let bundle = with("sleep 100", json!({"run.oci.pidfd_receiver": path}));
    bundle.start();
    let (socket, _) = listener.accept().expect("accept");
    let mut text = [0_u8; 64];
    let mut slices = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::empty(),
    )
    .expect("receive");
    let fd = message.cmsgs().expect("a message").find_map(|c| match c {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.expect("a descriptor")));
    let pid = bundle.runtime.state(&bundle.id)["pid"].to_string();
    assert!(info.expect("fdinfo").contains(&format!("Pid:\t{pid}\n")));
}

#[test]
fn groups_of_the_caller_stay_on_request() {
    if differs("groups_of_the_caller_stay_on_request", &["runc"]) {
        return;
    }
    for (value, want) in [("1", "4242"), ("true", "4242"), ("0", "")] {
        let bundle = with(
            "sed -n 's/^Groups:[[:space:]]*//p' /proc/self/status",
            json!({"run.oci.keep_original_groups": value}),
        );
        bundle.write();
        let given = bundle.runtime.command(&["run", &bundle.id]);
        let mut command = Command::new("setpriv");
        command
            .args(["--groups", "4242"])
            .arg(given.get_program())
            .args(given.get_args())
            .current_dir(&bundle.dir);
        // crun 1.8 looks at the presence alone.
        if fleet_tests::ours() || value != "0" {
            assert_eq!(run(&mut command).ok().trim(), want, "{value}");
        }
    }
}

#[test]
fn a_system_call_that_is_not_known_fails_on_request() {
    if differs(
        "a_system_call_that_is_not_known_fails_on_request",
        &["runc"],
    ) {
        return;
    }
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["no_such_call", "swapon"], "action": "SCMP_ACT_ERRNO"}]});
    let of = |annotations: Value| with("true", annotations).set("/linux/seccomp", profile.clone());
    drop(of(json!({})).run().ok());
    let strict = of(json!({"run.oci.seccomp_fail_unknown_syscall": "1"}));
    drop(
        strict
            .run()
            .fails("system call \"no_such_call\" is not known"),
    );
    assert_nothing_left(&strict);
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    if not_for_peers("what_is_not_done_is_refused_by_name") {
        return;
    }
    let table =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/annotations.md"))
            .expect("the table");
    let mut count = 0;
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
        let names = cells.next().expect("a name").to_owned();
        let refused = cells.next().expect("what is done").starts_with("refused");
        for name in names.split(", ").map(|name| name.trim_matches('`')) {
            if !refused {
                continue;
            }
            count += 1;
            let bundle = with("true", json!({name: "/run/x"}));
            drop(bundle.run().fails(&format!("annotation `{name}`: ")));
            assert_nothing_left(&bundle);
            drop(with("true", json!({name: ""})).run().ok());
        }
    }
    assert_eq!(count, 6, "the table and the runtime list the same");
}

#[test]
fn a_pod_names_no_file_of_the_host() {
    if not_for_peers("a_pod_names_no_file_of_the_host") {
        return;
    }
    for name in [
        "run.oci.hooks.stdout",
        "run.oci.hooks.stderr",
        "run.oci.seccomp.receiver",
        "run.oci.pidfd_receiver",
    ] {
        let file = format!("/run/{}", unique("of-the-host"));
        let bundle = with(
            "true",
            json!({name: file, "io.kubernetes.cri-o.ContainerType": "container"}),
        )
        .set("/hooks", json!({"poststart": said_by_hooks("poststart")}));
        drop(bundle.run().fails("which a pod may not"));
        assert!(!Path::new(&file).exists());
    }
}

#[test]
fn a_context_type_that_does_not_exist_is_refused() {
    if not_for_peers("a_context_type_that_does_not_exist_is_refused") {
        return;
    }
    drop(
        with("true", json!({"run.oci.mount_context_type": "fscontext"}))
            .run()
            .ok(),
    );
    let bundle = with("true", json!({"run.oci.mount_context_type": "nocontext"}));
    drop(bundle.run().fails("is none of context, fscontext"));
}
