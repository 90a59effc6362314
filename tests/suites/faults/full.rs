//! File systems that are full or read-only, and callers with few descriptors.

use std::fs;
use std::path::Path;
use std::process::Command;

use fleet_tests::{Bundle, not_for_peers, run};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::assert_clear;
use crate::census::Census;

/// A small file system for the time of a test.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(dir: &'a Path, options: &str) -> Self {
        fs::create_dir_all(dir).expect("make a mount point");
        mount(
            Some("small"),
            dir,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options),
        )
        .expect("mount");
        Self(dir)
    }

    fn remount(&self, flags: MsFlags) {
        let all = MsFlags::MS_REMOUNT | flags;
        mount(None::<&str>, self.0, None::<&str>, all, None::<&str>).expect("remount");
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

fn bundle() -> Bundle {
    // No shell, whose child would be one process more at some time.
    let bundle = Bundle::new("").set("/process/args", serde_json::json!(["sleep", "100"]));
    bundle.set(
        "/linux/seccomp",
        serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}),
    )
}

/// `create` succeeds, or fails clearly and leaves nothing.
fn all_or_nothing(bundle: &Bundle, census: &Census, words: &[&str], context: &str) -> bool {
    let made = bundle.make("create", &[]);
    if made.code == 0 {
        let deleted = bundle.runtime.run(&["delete", "--force", &bundle.id]);
        assert_eq!(deleted.code, 0, "{context}: {deleted:#?}");
    } else {
        assert_clear(&made, 1, context);
        assert!(
            words.iter().any(|word| made.stderr.contains(word)),
            "{context}: {made:#?}"
        );
    }
    drop(fs::remove_dir_all(bundle.runtime.root.join(".cache")));
    census.assert_nothing_new(context);
    made.code == 0
}

#[test]
fn a_full_state_root() {
    if not_for_peers("a_full_state_root") {
        return;
    }
    let bundle = bundle();
    bundle.write();
    let mut fit = Vec::new();
    // Each file takes a page; one more is room for one more file.
    for (option, sizes) in [("size", 1..16), ("nr_inodes", 1..16)] {
        for size in sizes {
            let unit = if option == "size" { "k" } else { "" };
            let number = if option == "size" { size * 4 } else { size };
            let text = format!("{option}={number}{unit}");
            let root = Small::mount(&bundle.runtime.root, &text);
            let census = Census::take();
            fit.push(all_or_nothing(
                &bundle,
                &census,
                &["No space left on device"],
                &text,
            ));
            drop(root);
        }
    }
    assert!(fit.contains(&true) && fit.contains(&false), "{fit:?}");
}

#[test]
fn a_full_root_file_system() {
    if not_for_peers("a_full_root_file_system") {
        return;
    }
    let bundle = bundle();
    let rootfs = bundle.dir.join("rootfs");
    let copy = bundle.dir.join("copy");
    fs::rename(&rootfs, &copy).expect("move");
    for dir in ["proc", "sys", "dev"] {
        drop(fs::remove_dir(copy.join(dir)));
    }
    let count = run(Command::new("find").arg(&copy)).ok().lines().count();
    bundle.write();
    let mut fit = Vec::new();
    for more in 0..12 {
        let text = format!("nr_inodes={}", count + more);
        let small = Small::mount(&rootfs, &text);
        run(Command::new("cp")
            .arg("-a")
            .arg(copy.join("."))
            .arg(&rootfs))
        .silent();
        fs::create_dir_all(&bundle.runtime.root).expect("make the root");
        let census = Census::take();
        let made = bundle.make("create", &[]);
        if made.code != 0 {
            assert_clear(&made, 1, &text);
            assert!(made.stderr.contains("No space left on device"), "{made:#?}");
        }
        fit.push(made.code == 0);
        let deleted = bundle.runtime.run(&["delete", "--force", &bundle.id]);
        assert_eq!(deleted.code, 0, "{text}: {deleted:#?}");
        drop(fs::remove_dir_all(bundle.runtime.root.join(".cache")));
        for dir in ["proc", "sys", "dev"] {
            drop(fs::remove_dir_all(rootfs.join(dir)));
        }
        census.assert_nothing_new(&text);
        drop(small);
    }
    assert!(fit.contains(&true) && fit.contains(&false), "{fit:?}");
}

#[test]
fn a_read_only_state_root() {
    if not_for_peers("a_read_only_state_root") {
        return;
    }
    let bundle = bundle();
    bundle.write();
    let root = Small::mount(&bundle.runtime.root, "size=1m");
    root.remount(MsFlags::MS_RDONLY);
    let census = Census::take();
    assert!(!all_or_nothing(
        &bundle,
        &census,
        &["Read-only file system"],
        "create"
    ));
    root.remount(MsFlags::empty());
    bundle.make("create", &[]).silent();
    root.remount(MsFlags::MS_RDONLY);
    assert_eq!(bundle.runtime.state(&bundle.id)["status"], "created");
    assert!(bundle.runtime.run(&["list"]).ok().contains(&bundle.id));
    assert_clear(&bundle.runtime.run(&["start", &bundle.id]), 1, "start");
    assert_clear(
        &bundle.runtime.run(&["delete", "--force", &bundle.id]),
        1,
        "delete",
    );
    root.remount(MsFlags::empty());
    bundle.remove();
    drop(root);
    fleet_tests::assert_nothing_left(&bundle);
}

/// What the library is made of panics at a few places, with words of its own.
fn out_of_descriptors(text: &str) -> bool {
    text.contains("Too many open files") || text.contains("internal error: ")
}

#[test]
fn few_descriptors() {
    if not_for_peers("few_descriptors") {
        return;
    }
    let bundle = bundle();
    bundle.write();
    let with = |limit: u32, args: &[&str]| {
        let command = bundle.runtime.command(args);
        run(Command::new("sh")
            .args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")])
            .arg(command.get_program())
            .args(command.get_args()))
    };
    bundle.make("create", &[]).silent();
    bundle.remove();
    let census = Census::take();
    let dir = bundle.dir.display().to_string();
    let mut fit = Vec::new();
    for limit in 3..40 {
        let context = format!("create with {limit} descriptors");
        let made = with(limit, &["create", "--bundle", &dir, &bundle.id]);
        if made.code == 0 {
            bundle.remove();
        } else {
            assert_clear(&made, 1, &context);
            assert!(out_of_descriptors(&made.stderr), "{context}: {made:#?}");
        }
        fit.push(made.code == 0);
        census.assert_nothing_new(&context);
    }
    assert!(
        fit.first() == Some(&false) && fit.last() == Some(&true),
        "{fit:?}"
    );
    bundle.start();
    fleet_tests::until("the program", || {
        bundle
            .runtime
            .run(&["ps", &bundle.id])
            .ok()
            .contains(" sleep 100")
    });
    let census = Census::take();
    for limit in 3..40 {
        let context = format!("exec with {limit} descriptors");
        let made = with(limit, &["exec", &bundle.id, "true"]);
        if made.code != 0 {
            assert_clear(&made, 255, &context);
            assert!(out_of_descriptors(&made.stderr), "{context}: {made:#?}");
        }
        census.assert_nothing_new(&context);
    }
}
