use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::*;
use crate::elf::tests::image;
use crate::ldcache::{Entry, HWCAP_EXTENSION};
use crate::root::tests::{Tree, own_mounts};
use crate::{RootfsEdit, apply_in};

/// An x86-64 library.
fn library(soname: &str) -> Vec<u8> {
    image(true, 62, soname)
}

const SYSTEM: &str = "usr/lib/x86_64-linux-gnu";

/// A Debian-like image with a driver's libraries mounted in a folder of their own.
fn debian(name: &str) -> Tree {
    let tree = Tree::new(name);
    tree.write("lib64/ld-linux-x86-64.so.2", "");
    tree.write("etc/debian_version", "12.5\n");
    tree.write(&format!("{SYSTEM}/libz.so.1.2.13"), library("libz.so.1"));
    symlink("libz.so.1.2.13", tree.path.join(SYSTEM).join("libz.so.1")).unwrap();
    symlink("usr/lib", tree.path.join("lib")).unwrap();
    tree.write("opt/nv/libcuda.so.550.1", library("libcuda.so.1"));
    tree.write("opt/nv/lib32.so.1", image(false, 3, "lib32.so.1"));
    tree.write("opt/nv/notes.txt", "x");
    symlink("libcuda.so.1", tree.path.join("opt/nv/libcuda.so")).unwrap();
    tree
}

fn folders(folders: &[&str]) -> RootfsEdit {
    RootfsEdit::UpdateLdCache {
        folders: folders.iter().map(|folder| (*folder).to_owned()).collect(),
    }
}

fn compat(driver: &str) -> RootfsEdit {
    RootfsEdit::CudaCompat {
        host_driver_version: Some(driver.to_owned()),
        host_cuda_version: None,
        container_root: None,
    }
}

fn link(target: &str, link: &str) -> RootfsEdit {
    RootfsEdit::Symlink {
        target: target.into(),
        link: link.into(),
    }
}

fn run(tree: &Tree, edits: &[RootfsEdit]) -> Vec<String> {
    apply_in(&tree.root(), edits).unwrap().notes
}

fn cache(tree: &Tree) -> Cache {
    ldcache::parse(&fs::read(tree.path.join("etc/ld.so.cache")).unwrap()).unwrap()
}

fn bytes(tree: &Tree) -> Vec<u8> {
    fs::read(tree.path.join("etc/ld.so.cache")).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Paths of a name, in the order in which the loader would take them.
fn lookup(tree: &Tree, key: &str) -> Vec<String> {
    let found = cache(tree)
        .entries
        .into_iter()
        .filter(|entry| entry.key == key.as_bytes());
    found.map(|entry| text(&entry.path)).collect()
}

fn link_text(tree: &Tree, path: &str) -> String {
    let target = fs::read_link(tree.path.join(path)).unwrap();
    target.to_str().unwrap().to_owned()
}

/// A cache as an image's own ldconfig left it.
fn own_cache(tree: &Tree, entries: &[(&str, &str)]) {
    let mut cache = Cache {
        generator: Some(b"ldconfig (the image's)".to_vec()),
        ..Cache::default()
    };
    for (key, path) in entries {
        cache.entries.push(Entry {
            flags: 0x303,
            key: key.as_bytes().to_vec(),
            path: path.as_bytes().to_vec(),
            os_version: 0,
            hwcap: 0,
        });
    }
    ldcache::sort(&mut cache);
    tree.write("etc/ld.so.cache", ldcache::serialise(&cache));
}

#[test]
fn an_image_without_cache() {
    for walk in [false, true] {
        let tree = debian("ld-none");
        let root = tree.roots()[usize::from(walk)];
        apply_in(&root, &[folders(&["/opt/nv/"])]).unwrap();
        assert_eq!(lookup(&tree, "libcuda.so.1"), ["/opt/nv/libcuda.so.1"]);
        assert_eq!(lookup(&tree, "libcuda.so"), ["/opt/nv/libcuda.so"]);
        assert_eq!(
            lookup(&tree, "libz.so.1"),
            ["/lib/x86_64-linux-gnu/libz.so.1"],
            "the image's own, once"
        );
        assert_eq!(lookup(&tree, "lib32.so.1"), ["/opt/nv/lib32.so.1"]);
        let flags: Vec<u32> = cache(&tree)
            .entries
            .iter()
            .map(|entry| entry.flags)
            .collect();
        assert!(flags.contains(&3) && flags.contains(&0x303));
        assert_eq!(link_text(&tree, "opt/nv/libcuda.so.1"), "libcuda.so.550.1");
        assert_eq!(tree.read(DROP_IN), "/opt/nv\n");
        assert_eq!(tree.read(CONF), INCLUDE);
        for path in [
            "etc/ld.so.cache",
            "etc/ld.so.conf",
            "etc/ld.so.conf.d/00-fleet-nvidia.conf",
        ] {
            let mode = fs::metadata(tree.path.join(path))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o7777, 0o644, "{path}");
        }
    }
}

#[test]
fn twice_is_once() {
    let tree = debian("ld-twice");
    let edits = [
        link("libcuda.so.550.1", "/opt/nv/libcuda.so.1"),
        folders(&["/opt/nv", "/missing", "/opt/nv"]),
    ];
    run(&tree, &edits);
    let (first, inode) = (
        bytes(&tree),
        fs::metadata(tree.path.join("etc/ld.so.cache"))
            .unwrap()
            .ino(),
    );
    let notes = run(&tree, &edits);
    assert_eq!(bytes(&tree), first);
    assert_eq!(
        fs::metadata(tree.path.join("etc/ld.so.cache"))
            .unwrap()
            .ino(),
        inode,
        "not even written"
    );
    assert!(
        notes.len() == 1 && notes[0].contains("/missing"),
        "{notes:?}"
    );
}

#[test]
fn entries_of_the_image_are_kept_and_a_new_folder_comes_first() {
    let tree = debian("ld-keep");
    own_cache(
        &tree,
        &[
            ("libcuda.so.1", "/usr/local/lib/libcuda.so.1"),
            ("libold.so.1", "/somewhere/libold.so.1"),
            ("libz.so.1", "/lib/x86_64-linux-gnu/libz.so.1"),
        ],
    );
    run(&tree, &[folders(&["/opt/nv"])]);
    assert_eq!(
        lookup(&tree, "libcuda.so.1"),
        ["/opt/nv/libcuda.so.1", "/usr/local/lib/libcuda.so.1"]
    );
    assert_eq!(lookup(&tree, "libold.so.1"), ["/somewhere/libold.so.1"]);
    assert_eq!(cache(&tree).generator.unwrap(), b"ldconfig (the image's)");
}

#[test]
fn a_folder_of_the_image_keeps_its_name_and_place() {
    let tree = debian("ld-known");
    tree.write("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n");
    tree.write("etc/ld.so.conf.d/local.conf", "/usr/local/lib\n");
    own_cache(
        &tree,
        &[
            ("libcuda.so.1", "/usr/local/lib/libcuda.so.1"),
            ("libz.so.1", "/lib/x86_64-linux-gnu/libz.so.1"),
        ],
    );
    tree.write(
        &format!("{SYSTEM}/libcuda.so.550.1"),
        library("libcuda.so.1"),
    );
    run(&tree, &[folders(&["/usr/lib/x86_64-linux-gnu"])]);
    assert_eq!(
        lookup(&tree, "libcuda.so.1"),
        [
            "/usr/local/lib/libcuda.so.1",
            "/lib/x86_64-linux-gnu/libcuda.so.1"
        ],
        "configured directories come before the default ones"
    );
    assert_eq!(
        lookup(&tree, "libz.so.1"),
        ["/lib/x86_64-linux-gnu/libz.so.1"],
        "not twice by two names"
    );
    assert!(
        !tree.root().exists(DROP_IN),
        "the image's ldconfig knows it anyway"
    );
}

#[test]
fn a_damaged_cache_is_made_anew() {
    for (name, content) in [
        ("garbage", &b"garbage"[..]),
        ("truncated", &b"glibc-ld.so.cache1.1\xff\xff\xff\xff"[..]),
    ] {
        let tree = debian("ld-bad");
        tree.write("etc/ld.so.cache", content);
        let notes = run(&tree, &[folders(&["/opt/nv"])]);
        assert!(notes[0].contains("made anew"), "{name}: {notes:?}");
        assert_eq!(lookup(&tree, "libz.so.1").len(), 1);
    }
}

#[test]
fn the_highest_version_gets_the_soname_unless_an_edit_says_otherwise() {
    for (edit, want) in [
        (None, "libcuda.so.570.9"),
        (Some("libcuda.so.550.1"), "libcuda.so.550.1"),
    ] {
        let tree = debian("ld-versions");
        tree.write("opt/nv/libcuda.so.570.9", library("libcuda.so.1"));
        symlink("libcuda.so.470.1", tree.path.join("opt/nv/libcuda.so.1")).unwrap();
        let mut edits: Vec<RootfsEdit> = edit
            .map(|target| link(target, "/opt/nv/libcuda.so.1"))
            .into_iter()
            .collect();
        edits.push(folders(&["/opt/nv"]));
        for _ in 0..2 {
            run(&tree, &edits);
            assert_eq!(link_text(&tree, "opt/nv/libcuda.so.1"), want);
            assert_eq!(lookup(&tree, "libcuda.so.1"), ["/opt/nv/libcuda.so.1"]);
        }
    }
}

#[test]
fn an_older_library_of_the_image_gives_way_in_its_own_folder() {
    let tree = debian("ld-baked");
    tree.write(
        &format!("{SYSTEM}/libcuda.so.470.1"),
        library("libcuda.so.1"),
    );
    let soname = format!("{SYSTEM}/libcuda.so.1");
    symlink("libcuda.so.470.1", tree.path.join(&soname)).unwrap();
    own_cache(
        &tree,
        &[("libcuda.so.1", "/lib/x86_64-linux-gnu/libcuda.so.1")],
    );
    tree.write(
        &format!("{SYSTEM}/libcuda.so.550.1"),
        library("libcuda.so.1"),
    );
    for _ in 0..2 {
        run(&tree, &[folders(&["/usr/lib/x86_64-linux-gnu"])]);
        assert_eq!(link_text(&tree, &soname), "libcuda.so.550.1");
        assert_eq!(
            lookup(&tree, "libcuda.so.1"),
            ["/lib/x86_64-linux-gnu/libcuda.so.1"]
        );
    }
}

/// Debian, `podman restart` after the host got another driver: other files are mounted, old links remain.
#[test]
fn a_new_driver_at_the_next_start() {
    let tree = debian("ld-upgrade");
    tree.write(
        "opt/nv/libnvidia-core.so.550.1",
        library("libnvidia-core.so.550.1"),
    );
    run(&tree, &[folders(&["/opt/nv", &format!("/{SYSTEM}")])]);
    for name in ["libcuda.so", "libnvidia-core.so"] {
        fs::remove_file(tree.path.join(format!("opt/nv/{name}.550.1"))).unwrap();
    }
    tree.write("opt/nv/libcuda.so.580.2", library("libcuda.so.1"));
    tree.write(
        "opt/nv/libnvidia-core.so.580.2",
        library("libnvidia-core.so.580.2"),
    );
    run(&tree, &[folders(&["/opt/nv"])]);
    assert_eq!(link_text(&tree, "opt/nv/libcuda.so.1"), "libcuda.so.580.2");
    assert_eq!(lookup(&tree, "libcuda.so.1"), ["/opt/nv/libcuda.so.1"]);
    assert_eq!(lookup(&tree, "libcuda.so"), ["/opt/nv/libcuda.so"]);
    assert_eq!(lookup(&tree, "libnvidia-core.so.580.2").len(), 1);
    assert_eq!(
        lookup(&tree, "libnvidia-core.so.550.1").len(),
        0,
        "its file is gone"
    );
}

#[test]
fn a_folder_that_is_not_asked_for_any_more_goes() {
    let tree = debian("ld-gone");
    own_cache(&tree, &[("libz.so.1", "/lib/x86_64-linux-gnu/libz.so.1")]);
    let before = bytes(&tree);
    run(&tree, &[folders(&["/opt/nv"])]);
    assert_ne!(bytes(&tree), before);
    run(&tree, &[folders(&[])]);
    assert_eq!(bytes(&tree), before);
    assert!(!tree.root().exists(DROP_IN));
}

#[test]
fn compat_comes_first_and_goes_with_its_reason() {
    let tree = debian("ld-compat");
    tree.write(
        "usr/local/cuda-13/compat/libcuda.so.580.9",
        library("libcuda.so.1"),
    );
    symlink("cuda-13", tree.path.join("usr/local/cuda")).unwrap();
    own_cache(
        &tree,
        &[("libcuda.so.1", "/lib/x86_64-linux-gnu/libcuda.so.1")],
    );
    let first = "/usr/local/cuda/compat/libcuda.so.1";
    let image = "/lib/x86_64-linux-gnu/libcuda.so.1";
    for _ in 0..2 {
        run(&tree, &[folders(&["/opt/nv"]), compat("550.1.1")]);
        assert_eq!(
            lookup(&tree, "libcuda.so.1"),
            [first, "/opt/nv/libcuda.so.1", image]
        );
        assert_eq!(tree.read(COMPAT_DROP_IN), "/usr/local/cuda/compat\n");
    }
    run(&tree, &[compat("590.1.1")]);
    assert_eq!(
        lookup(&tree, "libcuda.so.1"),
        ["/opt/nv/libcuda.so.1", image],
        "the host's driver is newer now"
    );
    assert!(!tree.root().exists(COMPAT_DROP_IN));
    assert_eq!(tree.read(DROP_IN), "/opt/nv\n", "another edit's");
    run(&tree, &[compat("550.1.1")]);
    assert_eq!(
        lookup(&tree, "libcuda.so.1")[0],
        first,
        "without an update of its own, too"
    );
}

#[test]
fn musl_and_both_and_neither() {
    let tree = Tree::new("ld-musl");
    tree.write("lib/ld-musl-x86_64.so.1", "");
    tree.write("usr/lib64/libcuda.so.1", library("libcuda.so.1"));
    tree.write("usr/lib64/libnvcuvid.so.550.1", library("libnvcuvid.so.1"));
    for _ in 0..2 {
        run(&tree, &[folders(&["/usr/lib64", "/missing"])]);
        assert_eq!(
            link_text(&tree, "usr/lib64/libnvcuvid.so.1"),
            "libnvcuvid.so.550.1"
        );
        assert_eq!(
            tree.read("etc/ld-musl-x86_64.path"),
            "/lib\n/usr/local/lib\n/usr/lib\n/usr/lib64\n"
        );
        assert!(!tree.path.join("etc/ld.so.cache").exists());
    }
    tree.write("lib64/ld-linux-x86-64.so.2", "");
    run(&tree, &[folders(&["/usr/lib64"])]);
    assert_eq!(
        lookup(&tree, "libcuda.so.1"),
        ["/lib64/libcuda.so.1".replace("/lib64", "/usr/lib64")]
    );
    assert!(tree.root().exists("/etc/ld-musl-x86_64.path"));

    let tree = Tree::new("ld-static");
    fs::create_dir_all(tree.path.join("opt/nv")).unwrap();
    let notes = run(&tree, &[folders(&["/opt/nv"]), compat("1.1")]);
    assert!(notes[0].contains("no dynamic loader"), "{notes:?}");
    assert!(!tree.path.join("etc").exists());
}

#[test]
fn a_configuration_without_includes_is_told() {
    let tree = debian("ld-include");
    tree.write("etc/ld.so.conf", "/usr/local/lib\n");
    let notes = run(&tree, &[folders(&["/opt/nv"])]);
    assert!(
        notes.iter().any(|note| note.contains("does not include")),
        "{notes:?}"
    );
    assert_eq!(lookup(&tree, "libcuda.so.1"), ["/opt/nv/libcuda.so.1"]);
}

#[test]
fn builds_for_newer_processors() {
    let tree = debian("ld-hwcaps");
    let fast = "glibc-hwcaps/x86-64-v3/libfast.so.1.2";
    tree.write(&format!("{SYSTEM}/{fast}"), library("libfast.so.1"));
    tree.write(
        &format!("opt/nv/{}", fast.replace("v3", "v2")),
        library("libfast.so.1"),
    );
    tree.write("opt/nv/libfast.so.1", library("libfast.so.1"));
    let mut first = Vec::new();
    for _ in 0..2 {
        run(&tree, &[folders(&["/opt/nv"])]);
        let cache = cache(&tree);
        assert_eq!(cache.hwcaps, [b"x86-64-v2".to_vec(), b"x86-64-v3".to_vec()]);
        let found: Vec<(String, u64)> = cache
            .entries
            .iter()
            .filter(|entry| entry.key == b"libfast.so.1")
            .map(|entry| (text(&entry.path), entry.hwcap))
            .collect();
        let want = [
            (
                "/opt/nv/glibc-hwcaps/x86-64-v2/libfast.so.1.2".to_owned(),
                HWCAP_EXTENSION,
            ),
            (format!("/lib/x86_64-linux-gnu/{fast}"), HWCAP_EXTENSION | 1),
            ("/opt/nv/libfast.so.1".to_owned(), 0),
        ];
        assert_eq!(found, want);
        assert!(first.is_empty() || first == bytes(&tree));
        first = bytes(&tree);
    }
}

#[test]
fn indices_of_the_image_move_with_new_names() {
    let tree = debian("ld-indices");
    let mut own = Cache {
        hwcaps: vec![b"x86-64-v3".to_vec()],
        ..Cache::default()
    };
    for (hwcap, path) in [
        (HWCAP_EXTENSION | (7 << 32), "/a/libx.so.1"),
        (HWCAP_EXTENSION | 9, "/b/libx.so.1"),
    ] {
        own.entries.push(Entry {
            flags: 0x303,
            key: b"libx.so.1".to_vec(),
            path: path.as_bytes().to_vec(),
            os_version: 0,
            hwcap,
        });
    }
    tree.write("etc/ld.so.cache", ldcache::serialise(&own));
    tree.write(
        "opt/nv/glibc-hwcaps/x86-64-v2/liby.so.1",
        library("liby.so.1"),
    );
    run(&tree, &[folders(&["/opt/nv"])]);
    let found = cache(&tree);
    let kept: Vec<u64> = found
        .entries
        .iter()
        .filter(|e| e.key == b"libx.so.1")
        .map(|e| e.hwcap)
        .collect();
    assert_eq!(
        kept,
        [HWCAP_EXTENSION | (7 << 32) | 1],
        "an index that names nothing is of no use"
    );
}

#[test]
fn a_folder_that_cannot_be_written_gets_no_links_but_works() {
    own_mounts(
        "a_folder_that_cannot_be_written_gets_no_links_but_works",
        || {
            let tree = debian("ld-volume");
            let folder = tree.path.join("opt/nv");
            let bind = |flags| {
                let none = None::<&str>;
                nix::mount::mount(Some(&folder), &folder, none, flags, none).unwrap();
            };
            use nix::mount::MsFlags;
            // A volume of the host: writable, but not the container's own.
            bind(MsFlags::MS_BIND);
            for root in tree.roots().into_iter().take(1) {
                apply_in(&root, &[folders(&["/opt/nv"])]).unwrap();
                assert_eq!(
                    lookup(&tree, "libcuda.so.1"),
                    ["/opt/nv/libcuda.so.550.1"],
                    "the file itself"
                );
                assert!(fs::symlink_metadata(folder.join("libcuda.so.1")).is_err());
            }
            nix::mount::umount(&folder).unwrap();
        },
    );
}

#[test]
fn what_cannot_be_written_is_named() {
    own_mounts("what_cannot_be_written_is_named", || {
        use nix::mount::{MsFlags, mount, umount};
        let tree = debian("ld-readonly");
        let etc = tree.path.join("etc");
        let none = None::<&str>;
        mount(Some(&etc), &etc, none, MsFlags::MS_BIND, none).unwrap();
        let remount = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &etc, none, remount, none).unwrap();
        let err = apply_in(&tree.root(), &[folders(&["/opt/nv"])])
            .unwrap_err()
            .to_string();
        assert!(
            err.starts_with("write `/etc/ld.so.conf` in the container:"),
            "{err}"
        );
        assert!(err.contains("EROFS") && err.contains("hint: "), "{err}");
        umount(&etc).unwrap();
    });
}

#[test]
fn hostile_files_in_a_folder() {
    let tree = debian("ld-hostile");
    let folder = tree.path.join("opt/nv");
    let secret = tree.outside("libsecret.so.1");
    fs::write(&secret, library("libsecret.so.1")).unwrap();
    nix::unistd::mkfifo(&folder.join("libfifo.so.1"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(folder.join("libdir.so.1")).unwrap();
    for (target, name) in [
        (secret.to_str().unwrap(), "libsecret.so.1"),
        ("../../../libsecret.so.1", "libup.so.1"),
        ("libloop.so", "libloop.so"),
        ("/dev/zero", "libzero.so"),
        ("libfifo.so.1", "libpipe.so"),
    ] {
        symlink(target, folder.join(name)).unwrap();
    }
    tree.write("opt/nv/libcut.so.1", &library("libcut.so.1")[..100]);
    tree.write("opt/nv/libaway.so.1", library("../../etc/passwd"));
    tree.write("opt/nv/libdot.so.1", library(".."));
    tree.write("opt/nv/libempty.so.1", "");
    tree.write("opt/nv/libfoo.so.1;5f3e", library("libfoo.so.1"));
    tree.write("opt/nv/libfoo.so.1.dpkg-new", library("libfoo.so.1"));
    // Sparse: three gigabytes that are not read.
    let huge = fs::File::create(folder.join("libhuge.so.3")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&huge, &library("libhuge.so.3"), 0).unwrap();
    huge.set_len(3 << 30).unwrap();
    for root in tree.roots() {
        apply_in(&root, &[folders(&["/opt/nv"])]).unwrap();
        let mut keys: Vec<String> = cache(&tree)
            .entries
            .iter()
            .map(|entry| text(&entry.key))
            .collect();
        keys.sort();
        let want = [
            "lib32.so.1",
            "libaway.so.1",
            "libcuda.so",
            "libcuda.so.1",
            "libdot.so.1",
            "libhuge.so.3",
            "libz.so.1",
        ];
        assert_eq!(keys, want);
        fs::remove_file(tree.path.join("etc/ld.so.cache")).unwrap();
    }
    assert!(
        tree.path.join("opt/nv").is_dir(),
        "a soname of `..` replaces nothing"
    );
}

#[test]
fn a_hostile_etc() {
    let tree = debian("ld-etc");
    let outside = tree.path.parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, tree.path.join("etc.link")).unwrap();
    fs::remove_dir_all(tree.path.join("etc")).unwrap();
    symlink("../outside", tree.path.join("etc")).unwrap();
    for root in tree.roots() {
        let err = apply_in(&root, &[folders(&["/opt/nv"])])
            .unwrap_err()
            .to_string();
        assert!(
            err.contains("/etc/ld.so.conf") && err.contains("ENOENT"),
            "{err}"
        );
    }
    fs::remove_file(tree.path.join("etc")).unwrap();
    fs::create_dir(tree.path.join("etc")).unwrap();
    symlink(outside.join("cache"), tree.path.join("etc/ld.so.cache")).unwrap();
    symlink("../../outside", tree.path.join("etc/ld.so.conf.d")).unwrap();
    apply_in(&tree.root(), &[folders(&["/opt/nv"])]).unwrap_err();
    fs::remove_file(tree.path.join("etc/ld.so.conf.d")).unwrap();
    apply_in(&tree.root(), &[folders(&["/opt/nv"])]).unwrap();
    assert!(
        fs::symlink_metadata(tree.path.join("etc/ld.so.cache"))
            .unwrap()
            .is_file(),
        "the link itself was replaced"
    );
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

/// While edits are applied, a directory on every path turns into a link to the outside and back.
#[test]
fn a_racing_directory_does_not_lead_out() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    let tree = debian("ld-race");
    let base = tree.path.parent().unwrap().to_path_buf();
    for name in ["etc", "nv"] {
        fs::create_dir_all(base.join("outside").join(name)).unwrap();
    }
    fs::write(
        base.join("outside/nv/libcuda.so.999.1"),
        library("libcuda.so.1"),
    )
    .unwrap();
    let listing = || {
        let mut all: Vec<_> = ["etc", "nv"]
            .iter()
            .flat_map(|name| fs::read_dir(base.join("outside").join(name)).unwrap())
            .map(|entry| entry.unwrap().file_name())
            .collect();
        all.sort();
        all
    };
    let before = listing();
    let kept = [("etc", "etc"), ("opt/nv", "nv")].map(|(path, name)| {
        let kept = tree.path.join(format!("{name}.kept"));
        symlink(base.join("outside").join(name), &kept).unwrap();
        (tree.path.join(path), kept)
    });
    let (stop, swaps) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let (flag, count) = (Arc::clone(&stop), Arc::clone(&swaps));
    let swapper = std::thread::spawn(move || {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        while !flag.load(Ordering::Relaxed) {
            for (real, kept) in &kept {
                for _ in 0..2 {
                    renameat_with(CWD, real, CWD, kept, RenameFlags::EXCHANGE).unwrap();
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    });
    let edits = [
        link("libcuda.so.1", "/opt/nv/libcuda.so"),
        folders(&["/opt/nv"]),
        RootfsEdit::Chmod {
            mode: 0o700,
            paths: vec!["/opt/nv".into(), "/etc".into()],
        },
    ];
    let (mut applied, mut failed) = (0, 0);
    let start = std::time::Instant::now();
    while applied < 200 || failed < 20 || swaps.load(Ordering::Relaxed) < 2000 {
        for root in tree.roots() {
            match apply_in(&root, &edits) {
                Ok(_) => applied += 1,
                Err(_) => failed += 1,
            }
        }
        assert!(
            start.elapsed().as_secs() < 60,
            "{applied} applied, {failed} failed, {swaps:?} swaps: no race"
        );
        // The next round has something to do again.
        drop(tree.root().remove("/etc/ld.so.cache"));
        drop(tree.root().remove("/opt/nv/libcuda.so.1"));
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert_eq!(listing(), before);
    for name in ["etc", "nv"] {
        let mode = fs::metadata(base.join("outside").join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_ne!(mode & 0o7777, 0o700, "its mode was changed");
    }
}

/// Entries to compare. Up to glibc 2.36 ldconfig told i386 libraries without a C library apart (1, not 3), and those
/// of these tests have none; loaders take both.
fn lines(cache: &Cache) -> Vec<String> {
    let entries = cache.entries.iter();
    let lines = entries.map(|entry| {
        let flags = if entry.flags == 1 { 3 } else { entry.flags };
        format!(
            "{} {flags:#x} {:#x} {}",
            text(&entry.key),
            entry.hwcap,
            text(&entry.path)
        )
    });
    lines.collect()
}

fn ldconfig() -> Option<&'static str> {
    ["/sbin/ldconfig", "/usr/sbin/ldconfig"]
        .into_iter()
        .find(|path| Path::new(path).exists())
}

/// Makes a real library, if there is a compiler.
fn compile(path: &Path, soname: &str, narrow: bool) -> bool {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-nostdlib", "-x", "c", "-", "-o"])
        .arg(path);
    gcc.arg(format!("-Wl,-soname,{soname}"))
        .stdin(std::process::Stdio::null());
    if narrow {
        gcc.arg("-m32");
    }
    gcc.stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A tree with most of what ldconfig has rules for.
fn many(name: &str) -> Tree {
    let tree = debian(name);
    tree.write("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n");
    tree.write(
        "etc/ld.so.conf.d/local.conf",
        "/usr/local/lib\n/usr/lib/x86_64-linux-gnu\n",
    );
    for (path, soname) in [
        ("usr/local/lib/libcuda.so.1", "libcuda.so.1"),
        ("usr/local/lib/libplain.so", "libplain.so"),
        ("usr/lib/libcuda.so.440.1", "libcuda.so.1"),
        ("opt/nv/libcuda.so.470.100", "libcuda.so.1"),
        ("opt/nv/libcuda.so.550.9", "libcuda.so.1"),
        ("opt/nv/libcuda.so.550.10", "libcuda.so.1"),
        ("opt/nv/libnvidia-ml.so.550.10", "libnvidia-ml.so.1"),
        (
            "opt/nv/libnvidia-core.so.550.10",
            "libnvidia-core.so.550.10",
        ),
        ("opt/nv/libother-name.so.3", "libsoname.so.2"),
        ("opt/nv/libnone.so.7", ""),
        ("opt/nv/vdpau/libvdpau_nvidia.so.1", "libvdpau_nvidia.so.1"),
        (
            "opt/nv/glibc-hwcaps/x86-64-v3/libnvidia-ml.so.550.10",
            "libnvidia-ml.so.1",
        ),
    ] {
        tree.write(path, library(soname));
    }
    for (target, path) in [
        // In its own directories the image has its links.
        ("libcuda.so.440.1", "usr/lib/libcuda.so.1"),
        ("libnvidia-ml.so.1", "opt/nv/libnvidia-ml.so"),
        ("libnvidia-ml.so.550.10", "opt/nv/libnvidia-ml.so.1"),
        ("libnvidia-core.so.550.10", "opt/nv/libnvidia-core.so"),
        ("libother-name.so.3", "opt/nv/libelse.so"),
        ("/usr/local/lib/libplain.so", "opt/nv/libabsolute.so.1"),
        ("nowhere", "opt/nv/libnowhere.so.1"),
    ] {
        symlink(target, tree.root_link(path)).unwrap();
    }
    for (name, narrow) in [("libreal64.so.2.1", false), ("libreal32.so.2.1", true)] {
        let soname = name.trim_end_matches(".1");
        if !compile(&tree.path.join("opt/nv").join(name), soname, narrow) {
            println!("SKIP {name}: no compiler for it");
        }
    }
    tree
}

fn theirs(tree: &Tree) -> Cache {
    ldcache::parse(&fs::read(tree.path.join("theirs")).unwrap()).unwrap()
}

/// The machine's own ldconfig reads our file, and makes the same of the same tree.
#[test]
fn ldconfig_agrees() {
    let Some(ldconfig) = ldconfig() else {
        println!("SKIP ldconfig_agrees: no ldconfig");
        return;
    };
    let tree = many("ld-agree");
    run(&tree, &[folders(&["/opt/nv"])]);
    let path = tree.path.join("etc/ld.so.cache");
    let output = Command::new(ldconfig)
        .arg("-p")
        .arg("-C")
        .arg(&path)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}");
    let ours = cache(&tree);
    assert!(
        printed.contains(&format!("{} libs found in cache", ours.entries.len())),
        "{printed}"
    );
    for line in [
        "libcuda.so.1 (libc6,x86-64) => /opt/nv/libcuda.so.1",
        "lib32.so.1 (libc6) => /opt/nv/lib32.so.1",
        "libnvidia-ml.so.1 (libc6,x86-64, hwcap: \"x86-64-v3\") => /opt/nv/glibc-hwcaps/x86-64-v3/libnvidia-ml.so.550.10",
        "Cache generated by: ldconfig (fleet-nvidia)",
    ] {
        assert!(printed.contains(line), "{line} is missing in {printed}");
    }
    let made = Command::new(ldconfig)
        .args(["-C", "/theirs", "-f", "/etc/ld.so.conf", "-r"])
        .arg(&tree.path)
        .output();
    let made = made.unwrap();
    if !made.status.success() {
        println!(
            "SKIP the comparison: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        );
        return;
    }
    let theirs = theirs(&tree);
    assert_eq!(
        lines(&ours),
        lines(&theirs),
        "the same entries in the same order"
    );
    assert_eq!(ours.hwcaps, theirs.hwcaps);
    // Once more, over the cache that ldconfig made: nothing is left to add.
    fs::rename(tree.path.join("theirs"), &path).unwrap();
    run(&tree, &[folders(&["/opt/nv"])]);
    assert_eq!(lines(&cache(&tree)), lines(&theirs));
}

/// What an image without the driver has, and what ldconfig would make of it with the driver, are one update apart.
#[test]
fn adding_to_a_cache_equals_making_it() {
    let Some(ldconfig) = ldconfig() else {
        println!("SKIP adding_to_a_cache_equals_making_it: no ldconfig");
        return;
    };
    let tree = many("ld-add");
    let make = |name: &str| {
        let mut command = Command::new(ldconfig);
        command
            .args(["-C", name, "-f", "/etc/ld.so.conf", "-r"])
            .arg(&tree.path);
        command.output().is_ok_and(|output| output.status.success())
    };
    if !make("/etc/ld.so.cache") {
        println!("SKIP adding_to_a_cache_equals_making_it: ldconfig -r needs root");
        return;
    }
    let image = cache(&tree);
    assert!(
        lookup(&tree, "libnvidia-ml.so.1").is_empty(),
        "the image does not know the folder"
    );
    tree.write("usr/local/lib/libcuda.so.550.1", library("libcuda.so.1"));
    fs::remove_file(tree.path.join("usr/local/lib/libcuda.so.1")).unwrap();
    run(&tree, &[folders(&["/opt/nv", "/usr/local/lib"])]);
    assert!(make("/theirs"));
    let theirs = theirs(&tree);
    assert_eq!(lines(&cache(&tree)), lines(&theirs));
    assert!(image.entries.len() < theirs.entries.len());
}

/// A real loader, in a root of its own, finds a library through our cache alone.
#[test]
fn the_loader_finds_it() {
    own_mounts("the_loader_finds_it", || {
        let tree = Tree::new("ld-loader");
        let program = tree.root_link("bin/probe");
        let library = tree.root_link("opt/nv/libprobe.so.550.1");
        let source = tree.path.join("probe.c");
        fs::write(
            &source,
            "extern int probe(void); int main(void) { return probe(); }",
        )
        .unwrap();
        fs::write(tree.path.join("lib.c"), "int probe(void) { return 42; }").unwrap();
        let gcc = |args: &[&str], files: &[&Path]| {
            let status = Command::new("gcc")
                .args(args)
                .args(files)
                .stderr(std::process::Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        let made = gcc(
            &["-shared", "-Wl,-soname,libprobe.so.1", "-o"],
            &[&library, &tree.path.join("lib.c")],
        ) && gcc(&["-o"], &[&program, &source, &library]);
        let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
        if !made || !loader.exists() {
            println!("SKIP the_loader_finds_it: no compiler or no loader");
            return;
        }
        let libc = "lib/x86_64-linux-gnu/libc.so.6";
        for path in [libc, "lib64/ld-linux-x86-64.so.2"] {
            drop(fs::copy(Path::new("/").join(path), tree.root_link(path)));
        }
        let call = || {
            let output = Command::new("/usr/sbin/chroot")
                .arg(&tree.path)
                .arg("/bin/probe")
                .env_clear()
                .output();
            output.map(|output| output.status.code())
        };
        match call() {
            Ok(Some(127)) => {}
            other => {
                println!("SKIP the_loader_finds_it: chroot answers {other:?} before the update");
                return;
            }
        }
        run(&tree, &[folders(&["/opt/nv"])]);
        assert_eq!(call().unwrap(), Some(42));
    });
}
