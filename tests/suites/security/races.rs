//! A second thread exchanges parts of the root file system for links to the host while containers are made.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fleet_tests::{Bundle, not_for_peers};
use nix::fcntl::{RenameFlags, renameat2};
use serde_json::json;

use crate::{Trap, cdi};

/// Exchanges pairs of paths until the work is done; tells how often.
fn exchanging(pairs: &[(PathBuf, PathBuf)], work: impl FnOnce()) -> u64 {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (one, other) in pairs {
                    if renameat2(None, one, None, other, RenameFlags::RENAME_EXCHANGE).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        work();
        stop.store(true, Ordering::Relaxed);
    });
    count.load(Ordering::Relaxed)
}

/// A link beside a directory of the root file system, to be exchanged with it.
fn pair(rootfs: &Path, name: &str, target: &Path) -> (PathBuf, PathBuf) {
    let dir = rootfs.join(name);
    fs::create_dir_all(&dir).expect("mkdir");
    let link = rootfs.join(format!("{}.link", name.replace('/', "-")));
    symlink(target, &link).expect("link");
    (dir, link)
}

fn rounds() -> usize {
    if std::env::var("FLEET_FAULTS").is_ok() {
        300
    } else {
        40
    }
}

/// `exchanged` is what the attacker plays with; nothing outside the root may change, whatever becomes of the container.
fn attack(name: &str, exchanged: &[&str], prepare: impl Fn(Bundle) -> Bundle) {
    if not_for_peers(name) {
        return;
    }
    let bundle = prepare(Bundle::new("exit 0"));
    let trap = Trap::new(PathBuf::from(format!("{}-trap", bundle.dir.display())));
    let rootfs = bundle.dir.join("rootfs");
    let pairs: Vec<_> = exchanged
        .iter()
        .map(|name| pair(&rootfs, name, &trap.dir))
        .collect();
    let mut made = 0;
    let exchanges = exchanging(&pairs, || {
        for _ in 0..rounds() {
            let created = bundle.make("create", &[]);
            made += usize::from(created.code == 0);
            assert!(
                created.code == 0 || created.stderr.lines().count() == 1,
                "{created:#?}"
            );
            drop(bundle.runtime.run(&["delete", "--force", &bundle.id]));
        }
    });
    println!("{name}: {made} of {} made, {exchanges} exchanges", rounds());
    trap.assert_untouched(name);
    assert!(exchanges > 100, "{exchanges} exchanges");
    fs::remove_dir_all(&trap.dir).expect("remove");
}

#[test]
fn dev_becomes_a_link() {
    attack("dev_becomes_a_link", &["dev"], |bundle| bundle);
}

#[test]
fn mount_targets_become_links() {
    attack(
        "mount_targets_become_links",
        &["data", "data2/sub"],
        |bundle| {
            let source = bundle.dir.join("source");
            fs::create_dir(&source).expect("mkdir");
            let source = source.display().to_string();
            bundle
                .mount("/data/new/dir", "tmpfs", "tmpfs", &[])
                .mount("/data2/sub/new", "bind", &source, &["rbind"])
                .set(
                    "/linux/maskedPaths",
                    json!(["/data/sub", "/data/secret", "/proc/kcore"]),
                )
                .set("/linux/readonlyPaths", json!(["/data/sub/sub"]))
        },
    );
}

#[test]
fn proc_and_sys_become_links() {
    attack("proc_and_sys_become_links", &["proc", "sys"], |bundle| {
        bundle
    });
}

#[test]
fn directories_of_the_edits_become_links() {
    let hook = |args: &[&str]| {
        json!({
            "hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook",
            "args": ([&["nvidia-cdi-hook"], args].concat()),
        })
    };
    cdi(&json!({
        "env": ["A=b"],
        "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/usr/lib/gpu/libgpu.so.1", "options": ["ro", "bind"]}],
        "hooks": [
            hook(&["create-symlinks", "--link", "libgpu.so.1::/usr/lib/gpu/libgpu.so"]),
            hook(&["update-ldcache", "--folder", "/usr/lib/gpu"]),
        ],
    }));
    attack(
        "directories_of_the_edits_become_links",
        &["etc", "usr/lib"],
        |bundle| bundle.set("/annotations", json!({"cdi.k8s.io/test": "test.com/dev=0"})),
    );
}

/// CVE-2024-21626 and the like: the working directory changes under the runtime.
#[test]
fn working_directory_becomes_a_link() {
    attack("working_directory_becomes_a_link", &["work"], |bundle| {
        bundle.set("/process/cwd", json!("/work/new/dir"))
    });
}
