//! While every hook's edits are applied, directories and files on their paths turn into links to the outside and back:
//! nothing outside is read into the container or changed.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fleet_rootfs::root::Root;
use fleet_rootfs::{RootfsEdit, apply_in};
use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// What is exchanged with a link of the same name outside, all below the root.
const SWAPPED: [&str; 9] = [
    "etc",
    "etc/ld.so.conf.d",
    "etc/ld.so.conf",
    "etc/nvidia",
    "etc/ld-musl-x86_64.path",
    "usr",
    "usr/lib",
    "usr/lib/nv",
    "usr/local/cuda/compat",
];
const APPLIED: u64 = 200;
const FAILED: u64 = 50;
const SWAPS: u64 = 2000;

struct Trees {
    base: PathBuf,
    root: PathBuf,
}

impl Trees {
    fn new() -> Self {
        let base = std::env::temp_dir().join(format!("fleet-races-{}", std::process::id()));
        drop(fs::remove_dir_all(&base));
        let root = base.join("root");
        for tree in ["root", "outside"] {
            let tree = base.join(tree);
            for directory in [
                "etc/ld.so.conf.d",
                "etc/nvidia/nvidia-application-profiles-rc.d",
                "usr/lib/nv",
                "usr/local/cuda/compat",
                "lib64",
                "dev",
            ] {
                fs::create_dir_all(tree.join(directory)).unwrap();
            }
            let named = if tree == root { "inside" } else { "outside" };
            for file in [
                "etc/ld.so.conf",
                "etc/ld-musl-x86_64.path",
                "usr/lib/ld-musl-x86_64.so.1",
                "lib64/ld-linux-x86-64.so.2",
            ] {
                fs::write(tree.join(file), format!("/{named}\n")).unwrap();
            }
            fs::write(
                tree.join("usr/local/cuda/compat")
                    .join(format!("libcuda.so.999.{named}.1")),
                "",
            )
            .unwrap();
            fs::write(tree.join("usr/lib/nv").join(format!("lib{named}.so.1")), "").unwrap();
        }
        symlink("usr/lib", root.join("lib")).unwrap();
        // Only root may make one; without it the profile has nothing to do.
        let _ = mknod(
            &root.join("dev/nvidia0"),
            SFlag::S_IFCHR,
            Mode::S_IRUSR,
            makedev(1, 3),
        );
        Self { base, root }
    }

    /// Exchanges each path in turn, there and back.
    fn swap(&self, stop: &AtomicBool, swaps: &AtomicU64) {
        let links: Vec<(PathBuf, PathBuf)> = SWAPPED
            .iter()
            .map(|path| {
                let link = self
                    .root
                    .join(path.replace('/', "-"))
                    .with_extension("kept");
                symlink(self.base.join("outside").join(path), &link).unwrap();
                (self.root.join(path), link)
            })
            .collect();
        while !stop.load(Ordering::Relaxed) {
            for (path, link) in &links {
                for _ in 0..2 {
                    // One that an edit replaces at this moment may be missing.
                    let _ = renameat2(None, path, None, link, RenameFlags::RENAME_EXCHANGE);
                    std::thread::sleep(Duration::from_micros(20));
                }
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Every file outside: mode, length, change time, content.
    fn outside(&self) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
        fn walk(at: &Path, all: &mut BTreeMap<PathBuf, (u32, i64, Vec<u8>)>) {
            let meta = fs::symlink_metadata(at).unwrap();
            let content = if meta.is_file() {
                fs::read(at).unwrap()
            } else {
                Vec::new()
            };
            all.insert(
                at.to_owned(),
                (meta.permissions().mode(), meta.mtime_nsec(), content),
            );
            if meta.is_dir() {
                for entry in fs::read_dir(at).unwrap() {
                    walk(&entry.unwrap().path(), all);
                }
            }
        }
        let mut all = BTreeMap::new();
        walk(&self.base.join("outside"), &mut all);
        all
    }
}

fn edits() -> Vec<RootfsEdit> {
    let texts = |all: &[&str]| {
        all.iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let link = |link: &str| RootfsEdit::Symlink {
        target: "libcuda.so.1".into(),
        link: link.into(),
    };
    vec![
        link("/usr/lib/nv/libcuda.so"),
        link("/etc/nvidia/link"),
        RootfsEdit::CudaCompat {
            host_driver_version: Some("1.1".into()),
            host_cuda_version: None,
            container_root: None,
        },
        RootfsEdit::SonameLinks {
            folders: texts(&["/usr/lib/nv", "/etc"]),
        },
        RootfsEdit::UpdateLdCache {
            folders: texts(&["/usr/lib/nv", "/usr/lib", "/lib"]),
        },
        RootfsEdit::DisableDeviceNodeModification,
        RootfsEdit::UpdateApplicationProfile,
        RootfsEdit::Chmod {
            mode: 0o711,
            paths: texts(&["/usr/lib/nv", "/etc/nvidia", "/etc/ld.so.conf"]),
        },
    ]
}

#[test]
fn nothing_outside_is_touched() {
    let trees = Trees::new();
    let before = trees.outside();
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let root = File::open(&trees.root).unwrap();
    let roots = [
        Root::new(root.as_fd()),
        Root::new(root.as_fd()).without_openat2(),
    ];
    let edits = edits();
    std::thread::scope(|scope| {
        scope.spawn(|| trees.swap(&stop, &swaps));
        let (mut applied, mut failed) = (0, 0);
        let start = Instant::now();
        while applied < APPLIED || failed < FAILED || swaps.load(Ordering::Relaxed) < SWAPS {
            let waited = start.elapsed() < Duration::from_secs(60);
            if !waited {
                stop.store(true, Ordering::Relaxed);
            }
            assert!(
                waited,
                "{applied} applied, {failed} failed, {swaps:?} swaps: no race"
            );
            for root in &roots {
                match apply_in(root, &edits) {
                    Ok(_) => applied += 1,
                    Err(_) => failed += 1,
                }
                // The next round has something to do again.
                for path in [
                    "/etc/ld.so.cache",
                    "/usr/lib/nv/libcuda.so",
                    "/etc/nvidia/link",
                    "/etc/ld.so.conf.d/00-fleet-nvidia.conf",
                ] {
                    drop(root.remove(path));
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(trees.outside(), before);
    // What lies outside was not taken for the image's own either.
    for path in ["etc/ld.so.cache", "etc/ld.so.conf.d/00-fleet-nvidia.conf"] {
        let bytes = fs::read(trees.root.join(path)).unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&bytes).contains("outside"),
            "{path}"
        );
    }
    fs::remove_dir_all(&trees.base).unwrap();
}
