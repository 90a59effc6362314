//! The loader's cache as we write it, judged by each image's own tools: its `ldconfig -p` prints what its own `ldconfig`
//! would have made, and a program of the image opens the same files by name.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use fleet_tests::{Bundle, Output, path, run, skip, unique};
use serde_json::{Value, json};

const DEBIAN: [&str; 3] = ["bullseye", "bookworm", "trixie"];
const MULTIARCH: &str = "/usr/lib/x86_64-linux-gnu";
/// Our drop-in, by which the image's own ldconfig is told the same.
const DROP_IN: &str = "/etc/ld.so.conf.d/00-fleet-nvidia.conf";

/// Trees of several glibc versions, made once.
fn ready(test: &str) -> bool {
    static FAILED: OnceLock<Option<String>> = OnceLock::new();
    let failed = FAILED.get_or_init(|| {
        let state = path("FLEET_STATE");
        let script = state
            .parent()
            .expect("the project")
            .join("tests/setup/glibc.sh");
        let out = run(Command::new(script).arg(state.join("glibc")));
        (out.code != 0).then(|| format!("no trees of other glibc versions: {}", out.stderr.trim()))
    });
    if let Some(reason) = failed {
        skip(test, reason);
    }
    failed.is_none()
}

/// A library without code; a 32-bit one is known by ldconfig from the C library that it needs.
fn library(soname: &str, narrow: Option<&Path>) -> PathBuf {
    static MADE: Mutex<BTreeMap<(String, bool), PathBuf>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().expect("one test at a time");
    let make = || {
        let out = PathBuf::from("/run").join(unique("lib"));
        let mut command = Command::new("gcc");
        command
            .args(["-shared", "-nostdlib", "-x", "c", "/dev/null", "-o"])
            .arg(&out);
        command.arg(format!("-Wl,-soname,{soname}"));
        if let Some(libc) = narrow {
            command
                .args(["-m32", "-Wl,--no-as-needed", "-x", "none"])
                .arg(libc);
        }
        drop(run(&mut command).ok());
        out
    };
    made.entry((soname.to_owned(), narrow.is_some()))
        .or_insert_with(make)
        .clone()
}

fn copy(from: &Path, to: &Path) {
    assert!(fs::copy(from, to).is_ok(), "copy to {}", to.display());
}

/// A root file system that goes away with the test.
struct Tree(PathBuf);

impl Tree {
    fn new(image: &str) -> Self {
        let dir = PathBuf::from("/run").join(unique("tree"));
        fs::create_dir_all(&dir).expect("mkdir");
        let tar = path("FLEET_STATE").join(format!("glibc/{image}.tar"));
        drop(run(Command::new("tar").arg("-C").arg(&dir).arg("-xf").arg(tar)).ok());
        Self(dir)
    }

    fn copy(&self) -> Self {
        let dir = PathBuf::from("/run").join(unique("tree"));
        drop(run(Command::new("cp").arg("-a").arg(&self.0).arg(&dir)).ok());
        Self(dir)
    }

    /// Where a path of the image lies; its directory is made.
    fn at(&self, path: &str) -> PathBuf {
        let path = self.0.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        path
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.at(path), text).expect("write");
    }

    /// Puts libraries into a folder: file name and soname.
    fn add(&self, folder: &str, libraries: &[(&str, &str)]) {
        for (name, soname) in libraries {
            copy(
                &library(soname, None),
                &self.at(&format!("{folder}/{name}")),
            );
        }
    }

    /// The driver's libraries in two folders.
    fn add_driver(&self, folder: &str) {
        self.add(
            folder,
            &[
                ("libcuda.so.550.54.15", "libcuda.so.1"),
                ("libnvidia-ml.so.550.54.15", "libnvidia-ml.so.1"),
                ("libnvidia-tls.so.550.54.15", "libnvidia-tls.so.550.54.15"),
            ],
        );
        self.add(
            &format!("{folder}/vdpau"),
            &[("libvdpau_nvidia.so.550.54.15", "libvdpau_nvidia.so.1")],
        );
    }

    fn chroot(&self, program: &[&str]) -> Output {
        run(Command::new("chroot").arg(&self.0).args(program))
    }

    fn ldconfig(&self, args: &[&str]) {
        drop(self.chroot(&[&["/sbin/ldconfig"], args].concat()).ok());
    }

    /// What ldconfig prints of the cache, without the kernel version of older notes, which only some formats hold.
    fn printed(&self) -> String {
        let text = self.chroot(&["/sbin/ldconfig", "-p"]).ok();
        let lines = text
            .lines()
            .skip(1)
            .filter(|line| !line.starts_with("Cache generated"));
        let plain = lines.map(|line| match line.split_once(", OS ABI: ") {
            Some((head, tail)) => {
                format!("{head}{}\n", tail.find(')').map_or(tail, |at| &tail[at..]))
            }
            None => format!("{line}\n"),
        });
        plain.collect()
    }

    fn opened(&self, names: &[&str]) -> String {
        self.chroot(&[&["/probe"], names].concat()).ok()
    }

    /// Every link and where it leads.
    fn links(&self) -> Vec<String> {
        let mut find = Command::new("find");
        find.arg(&self.0)
            .args(["-type", "l", "-printf", "%P -> %l\n"]);
        let mut links: Vec<String> = run(&mut find).ok().lines().map(str::to_owned).collect();
        links.sort_unstable();
        links
    }

    fn update(&self, folders: &[&str]) {
        let mut args = vec!["hook", "update-ldcache"];
        folders
            .iter()
            .for_each(|folder| args.extend(["--folder", folder]));
        let out = hook(&args, &json!({"bundle": "/run", "root": self.0}));
        assert!(out.code == 0 && out.stderr.is_empty(), "{out:#?}");
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn hook(args: &[&str], state: &Value) -> Output {
    let mut child = Command::new(path("RUNTIME_UNDER_TEST"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the hook");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(state.to_string().as_bytes())
        .expect("write the state");
    let out = child.wait_with_output().expect("wait");
    Output {
        line: format!("{args:?}"),
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

const NAMES: [&str; 6] = [
    "libcuda.so.1",
    "libnvidia-ml.so.1",
    "libnvidia-tls.so.550.54.15",
    "libvdpau_nvidia.so.1",
    "libm.so.6",
    "libnone.so.1",
];

/// One copy is updated by us, and one by its own ldconfig with a drop-in of the folders that it does not search itself:
/// nothing that a loader looks up may differ. Doing it again changes nothing.
#[track_caller]
fn same(what: &str, tree: &Tree, folders: &[&str], new: &[&str], names: &[&str]) -> Tree {
    let (ours, theirs) = (tree.copy(), tree.copy());
    ours.update(folders);
    if !new.is_empty() {
        theirs.write(DROP_IN, &format!("{}\n", new.join("\n")));
        if !theirs.at("/etc/ld.so.conf").exists() {
            theirs.write("/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n");
        }
    }
    theirs.ldconfig(&[]);
    assert_eq!(
        ours.printed(),
        theirs.printed(),
        "{what}: what ldconfig -p prints"
    );
    assert_eq!(
        ours.opened(names),
        theirs.opened(names),
        "{what}: what a program opens"
    );
    assert_eq!(ours.links(), theirs.links(), "{what}: links");
    let cache = || fs::read(ours.at("/etc/ld.so.cache")).expect("read the cache");
    let once = cache();
    ours.update(folders);
    assert_eq!(cache(), once, "{what}: twice");
    // A package manager of the image runs it later.
    let before = ours.printed();
    ours.ldconfig(&[]);
    assert_eq!(
        ours.printed(),
        before,
        "{what}: after a later ldconfig in the container"
    );
    ours
}

#[test]
fn three_glibc_versions_with_and_without_a_cache() {
    if !ready("three_glibc_versions_with_and_without_a_cache") {
        return;
    }
    let vdpau = format!("{MULTIARCH}/vdpau");
    for image in DEBIAN {
        for cached in [true, false] {
            let tree = Tree::new(image);
            if cached {
                tree.ldconfig(&[]);
            }
            let elsewhere = tree.copy();
            tree.add_driver(MULTIARCH);
            let what = format!("{image}, cached {cached}");
            let done = same(&what, &tree, &[MULTIARCH, &vdpau], &[&vdpau], &NAMES);
            let opened = done.opened(&["libcuda.so.1"]);
            assert!(opened.ends_with("/libcuda.so.1\n"), "{what}: {opened}");
            elsewhere.add_driver("/opt/nv/lib");
            let new = ["/opt/nv/lib"];
            drop(same(&what, &elsewhere, &new, &new, &NAMES));
        }
    }
}

#[test]
fn old_and_new_formats() {
    if !ready("old_and_new_formats") {
        return;
    }
    let tree = Tree::new("bullseye");
    // ldconfig 2.31 writes a broken file in the old format when the number of libraries is odd.
    let own = [
        ("libown.so.1", "libown.so.1"),
        ("libeven.so.1", "libeven.so.1"),
    ];
    tree.add("/opt/own", &own);
    tree.write("/etc/ld.so.conf.d/own.conf", "/opt/own\n");
    for (format, magic) in [
        ("old", "ld.so-1.7.0"),
        ("compat", "ld.so-1.7.0"),
        ("new", "glibc-ld.so.cache1.1"),
    ] {
        let tree = tree.copy();
        tree.ldconfig(&["-c", format]);
        assert!(
            fs::read(tree.at("/etc/ld.so.cache"))
                .expect("read")
                .starts_with(magic.as_bytes()),
            "{format}"
        );
        tree.add_driver("/opt/nv");
        drop(same(
            format,
            &tree,
            &["/opt/nv", "/opt/nv/vdpau"],
            &["/opt/nv", "/opt/nv/vdpau"],
            &[&NAMES[..], &["libown.so.1"]].concat(),
        ));
    }
}

#[test]
fn the_order_of_the_images_configuration() {
    if !ready("the_order_of_the_images_configuration") {
        return;
    }
    let twice = [("libtwice.so.1.0", "libtwice.so.1")];
    for image in DEBIAN {
        let tree = Tree::new(image);
        for (file, folder) in [("10-b", "/opt/b"), ("20-a", "/opt/a")] {
            tree.write(
                &format!("/etc/ld.so.conf.d/{file}.conf"),
                &format!("# {file}\n{folder}\n"),
            );
            tree.add(folder, &twice);
        }
        tree.add("/opt/nv", &twice);
        tree.ldconfig(&[]);
        let cuda = [("libcuda.so.550.54.15", "libcuda.so.1")];
        let names = ["libtwice.so.1", "libcuda.so.1"];
        let foreign = tree.copy();
        foreign.add("/opt/nv", &cuda);
        let first = same(image, &foreign, &["/opt/nv"], &["/opt/nv"], &names).opened(&names);
        assert_eq!(
            first,
            "libtwice.so.1: /opt/nv/libtwice.so.1\nlibcuda.so.1: /opt/nv/libcuda.so.1\n"
        );
        tree.add("/opt/a", &cuda);
        let own = same(image, &tree, &["/opt/a"], &[], &names).opened(&names);
        assert_eq!(
            own,
            "libtwice.so.1: /opt/b/libtwice.so.1\nlibcuda.so.1: /opt/a/libcuda.so.1\n"
        );
    }
}

#[test]
fn builds_for_newer_processors() {
    if !ready("builds_for_newer_processors") {
        return;
    }
    let fast = [("libfast.so.1.0", "libfast.so.1")];
    for image in ["bookworm", "trixie"] {
        let tree = Tree::new(image);
        let packaged = [("libfast.so.1", "libfast.so.1")];
        for (folder, fast) in [(MULTIARCH, &packaged), ("/opt/nv", &fast)] {
            tree.add(folder, fast);
            for level in ["x86-64-v2", "x86-64-v3"] {
                tree.add(&format!("{folder}/glibc-hwcaps/{level}"), fast);
            }
        }
        for cached in [false, true] {
            if cached {
                tree.ldconfig(&[]);
            }
            tree.add("/opt/nv/glibc-hwcaps/x86-64-v4", &fast);
            drop(same(
                image,
                &tree,
                &["/opt/nv"],
                &["/opt/nv"],
                &["libfast.so.1", "libm.so.6"],
            ));
        }
    }
}

#[test]
fn thirty_two_bits_beside_sixty_four() {
    if !ready("thirty_two_bits_beside_sixty_four") {
        return;
    }
    let tree = Tree::new("i386");
    tree.ldconfig(&[]);
    tree.add_driver(MULTIARCH);
    const NARROW: &str = "/usr/lib/i386-linux-gnu";
    let libc = tree.at("/lib/i386-linux-gnu/libc.so.6");
    for (name, soname) in [
        ("libcuda.so.550.54.15", "libcuda.so.1"),
        ("libnvidia-ml.so.550.54.15", "libnvidia-ml.so.1"),
    ] {
        copy(
            &library(soname, Some(&libc)),
            &tree.at(&format!("{NARROW}/{name}")),
        );
    }
    let done = same("i386", &tree, &[MULTIARCH, NARROW], &[], &NAMES);
    let printed = done.printed();
    for line in [
        "libcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1",
        "libcuda.so.1 (libc6) => /usr/lib/i386-linux-gnu/libcuda.so.1",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    // Its own loader takes its own.
    let traced = done.chroot(&[
        "/lib/ld-linux.so.2",
        "--preload",
        "libcuda.so.1",
        "--list",
        "/lib/i386-linux-gnu/libm.so.6",
    ]);
    let traced = traced.ok();
    assert!(
        traced.contains("libcuda.so.1 => /usr/lib/i386-linux-gnu/libcuda.so.1"),
        "{traced}"
    );
}

/// A tree arranged as Fedora and RHEL do. Debian's ldconfig has Debian's directories built in, so it is told these by
/// the image's configuration when it judges.
fn lib64() -> Tree {
    let tree = Tree::new("bookworm");
    let script = "set -e; cd \"$1\"; mkdir -p usr/lib64 usr/sbin
        mv lib/x86_64-linux-gnu/* usr/lib64/; cp -a usr/lib/x86_64-linux-gnu/. usr/lib64/; rm -rf usr/lib/x86_64-linux-gnu lib/x86_64-linux-gnu lib64
        mv sbin/* usr/sbin/; rmdir sbin; cp -a lib/. usr/lib/; rm -rf lib; ln -s usr/lib lib; ln -s usr/lib64 lib64; ln -s usr/sbin sbin
        rm -rf etc/debian_version etc/ld.so.conf.d; mkdir etc/ld.so.conf.d; echo 'include ld.so.conf.d/*.conf' > etc/ld.so.conf
        chmod u+w usr/lib64/ld-linux-x86-64.so.2";
    drop(
        run(Command::new("bash")
            .args(["-c", script, "lib64"])
            .arg(&tree.0))
        .ok(),
    );
    tree
}

#[test]
fn lib64_directories() {
    if !ready("lib64_directories") {
        return;
    }
    const JUDGE: &str = "/etc/ld.so.conf.d/zz-defaults.conf";
    for cached in [true, false] {
        let tree = lib64();
        tree.write(JUDGE, "/lib64\n/usr/lib64\n");
        if cached {
            tree.ldconfig(&[]);
        }
        tree.add(
            "/usr/lib64",
            &[
                ("libcuda.so.550.54.15", "libcuda.so.1"),
                ("libnvidia-ml.so.550.54.15", "libnvidia-ml.so.1"),
            ],
        );
        tree.add(
            "/usr/lib64/vdpau",
            &[("libvdpau_nvidia.so.550.54.15", "libvdpau_nvidia.so.1")],
        );
        let folders = ["/usr/lib64", "/usr/lib64/vdpau"];
        let done = same("lib64", &tree, &folders, &["/usr/lib64/vdpau"], &NAMES);
        // Without being told: these are the built-in directories of such an image.
        let plain = tree.copy();
        fs::remove_file(plain.at(JUDGE)).expect("remove");
        plain.update(&folders);
        assert_eq!(plain.printed(), done.printed(), "cached {cached}");
        assert_eq!(
            plain.opened(&NAMES[..2]),
            "libcuda.so.1: /lib64/libcuda.so.1\nlibnvidia-ml.so.1: /lib64/libnvidia-ml.so.1\n"
        );
    }
}

/// No shell, no ldconfig, no configuration, no cache.
#[test]
fn a_distroless_image() {
    if !ready("a_distroless_image") {
        return;
    }
    for image in DEBIAN {
        let tree = Tree::new(image);
        for gone in ["sbin/ldconfig", "usr/sbin/ldconfig", "usr/bin", "etc"] {
            let path = tree.0.join(gone);
            drop(fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)));
        }
        tree.add_driver("/usr/local/nvidia/lib64");
        assert!(tree.opened(&NAMES[..1]).contains("cannot open"), "{image}");
        tree.update(&[
            "/usr/local/nvidia/lib64",
            "/usr/local/nvidia/lib64/vdpau",
            "/missing",
        ]);
        let opened = tree.opened(&NAMES[..5]);
        assert!(!opened.contains("cannot open"), "{image}: {opened}");
        assert!(
            opened.starts_with("libcuda.so.1: /usr/local/nvidia/lib64/libcuda.so.1\n"),
            "{opened}"
        );
    }
}

/// Loader and libraries in a store, none at the usual places: nothing can be told, and nothing is touched.
#[test]
fn a_nixos_like_image() {
    if !ready("a_nixos_like_image") {
        return;
    }
    let tree = Tree::new("bookworm");
    let script = "set -e; cd \"$1\"; mkdir -p nix/store/glibc/lib; cp -a lib/x86_64-linux-gnu/. usr/lib/x86_64-linux-gnu/. nix/store/glibc/lib/
        cp -aL lib64/ld-linux-x86-64.so.2 nix/store/glibc/lib/; rm -rf lib lib64 usr sbin etc";
    drop(
        run(Command::new("bash")
            .args(["-c", script, "nix"])
            .arg(&tree.0))
        .ok(),
    );
    tree.add_driver("/run/opengl-driver/lib");
    let list = || {
        run(Command::new("find")
            .arg(&tree.0)
            .args(["-printf", "%P %l %T@\n"]))
        .ok()
    };
    let before = list();
    tree.update(&["/run/opengl-driver/lib"]);
    assert_eq!(list(), before);
    let loader = "/nix/store/glibc/lib/ld-linux-x86-64.so.2";
    let path = [
        "--library-path",
        "/nix/store/glibc/lib:/run/opengl-driver/lib",
        "/probe",
        "libcuda.so.550.54.15",
    ];
    let opened = tree.chroot(&[&[loader], &path[..]].concat()).ok();
    assert_eq!(
        opened,
        "libcuda.so.550.54.15: /run/opengl-driver/lib/libcuda.so.550.54.15\n"
    );
}

#[test]
fn programs_of_the_image_are_not_run() {
    if !ready("programs_of_the_image_are_not_run") {
        return;
    }
    let tree = Tree::new("bookworm");
    tree.add_driver("/opt/nv");
    for program in ["sbin/ldconfig", "sbin/ldconfig.real", "usr/sbin/ldconfig"] {
        let path = tree.at(program);
        fs::write(&path, "#!/bin/sh\ntouch /ran\n").expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    tree.update(&["/opt/nv"]);
    assert!(
        tree.opened(&["libcuda.so.1"])
            .contains("/opt/nv/libcuda.so.1")
    );
    assert!(!tree.0.join("ran").exists() && !Path::new("/ran").exists());
}

/// A container of the tree whose spec carries the hooks of a generated CDI spec.
fn bundle(tree: &Tree, names: &[&str]) -> Bundle {
    let args = [
        "nvidia-cdi-hook",
        "update-ldcache",
        "--folder",
        MULTIARCH,
        "--folder",
        "/opt/nv",
    ];
    let links = [
        "nvidia-cdi-hook",
        "create-symlinks",
        "--link",
        &format!("libcuda.so.1::{MULTIARCH}/libcuda.so"),
    ]
    .map(str::to_owned);
    let hook = |args: &[&str]| json!({"path": "/usr/bin/nvidia-cdi-hook", "args": args, "env": ["NVIDIA_CTK_DEBUG=false"]});
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    Bundle::new("")
        .set("/root", json!({"path": tree.0, "readonly": false}))
        .set("/process/args", json!([&["/probe"], names].concat()))
        .set(
            "/hooks",
            json!({"createContainer": [hook(&links), hook(&args)]}),
        )
}

fn wanted() -> String {
    format!("libcuda.so.1: {MULTIARCH}/libcuda.so.1\nlibnv.so.2: /opt/nv/libnv.so.2\nlibcuda.so: {MULTIARCH}/libcuda.so.1\n")
        .replace(MULTIARCH, "LIB")
}

const IN_CONTAINER: [&str; 3] = ["libcuda.so.1", "libnv.so.2", "libcuda.so"];

fn with_driver(image: &str) -> Tree {
    let tree = Tree::new(image);
    tree.ldconfig(&[]);
    tree.add_driver(MULTIARCH);
    tree.add("/opt/nv", &[("libnv.so.2.1", "libnv.so.2")]);
    tree
}

/// `/lib` and `/usr/lib` are one directory in some images.
fn opened(bundle: &Bundle) -> String {
    bundle
        .run()
        .ok()
        .replace(MULTIARCH, "LIB")
        .replace("/lib/x86_64-linux-gnu", "LIB")
}

#[test]
fn in_containers_writable_and_read_only() {
    if !ready("in_containers_writable_and_read_only") {
        return;
    }
    for image in DEBIAN {
        for read_only in [false, true] {
            let tree = with_driver(image);
            let bundle = bundle(&tree, &IN_CONTAINER).set("/root/readonly", json!(read_only));
            assert_eq!(opened(&bundle), wanted(), "{image}, read-only {read_only}");
        }
    }
}

#[test]
fn one_tree_for_two_containers_that_start_at_once() {
    if !ready("one_tree_for_two_containers_that_start_at_once") {
        return;
    }
    for round in 0..6 {
        let tree = with_driver(DEBIAN[round % 3]);
        let bundles: Vec<Bundle> = (0..2).map(|_| bundle(&tree, &IN_CONTAINER)).collect();
        std::thread::scope(|scope| {
            let runs: Vec<_> = bundles
                .iter()
                .map(|bundle| scope.spawn(|| opened(bundle)))
                .collect();
            for run in runs {
                assert_eq!(run.join().expect("the container ran"), wanted());
            }
        });
        let left = run(Command::new("find")
            .arg(&tree.0)
            .args(["-name", "*.fleet-*"]))
        .ok();
        assert_eq!(left, "", "nothing temporary is left");
    }
}

#[test]
fn a_tree_that_is_owned_by_a_user_namespace() {
    if !ready("a_tree_that_is_owned_by_a_user_namespace") {
        return;
    }
    let tree = with_driver("bookworm");
    drop(
        run(Command::new("chown")
            .args(["-Rh", "100000:100000"])
            .arg(&tree.0))
        .ok(),
    );
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let mapped = bundle(&tree, &IN_CONTAINER)
        .namespace("user", None)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    assert_eq!(opened(&mapped), wanted());
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(tree.at("/etc/ld.so.cache")).expect("stat"),
    );
    assert_eq!(owner, 100_000);
}

/// A cache that is a link out of the image is replaced, not followed.
#[test]
fn a_cache_that_leads_out_of_the_image() {
    if !ready("a_cache_that_leads_out_of_the_image") {
        return;
    }
    let tree = with_driver("bookworm");
    let outside = PathBuf::from("/run").join(unique("outside"));
    fs::write(&outside, "the host's").expect("write");
    fs::remove_file(tree.at("/etc/ld.so.cache")).expect("remove");
    symlink(&outside, tree.at("/etc/ld.so.cache")).expect("link");
    tree.update(&["/opt/nv"]);
    assert_eq!(fs::read_to_string(&outside).expect("read"), "the host's");
    assert!(tree.opened(&["libnv.so.2"]).contains("/opt/nv/libnv.so.2"));
    drop(fs::remove_file(outside));
}
