//! The same specs as NVIDIA's own `nvidia-ctk`, asked at once on the same nodes. What differs on purpose is stated with
//! each case; `docs/cdi-generate.md` says why.

use std::fs;
use std::path::Path;
use std::process::Command;

use fleet_cdi::{Format, Spec, encode_spec, read_spec};
use fleet_tests::toolkit::{Room, nvidia_ctk};
use fleet_tests::{path, run, skip};

use super::Node;
use super::driver::{cuda, machine_of, real_driver};

/// Both write hooks that name this.
const HOOK: [&str; 2] = ["--nvidia-cdi-hook-path", "/usr/bin/nvidia-cdi-hook"];
/// The toolkit gives every mode this kind; ours gives each its own unless it is asked not to.
const KIND: [&str; 4] = ["--vendor", "nvidia.com", "--class", "gpu"];

fn furnished(test: &str, machine: &str) -> Option<(Node, Room)> {
    let Some(ctk) = nvidia_ctk() else {
        skip(test, "there is no nvidia-ctk; FLEET_NVIDIA_CTK names one");
        return None;
    };
    let node = Node::new(test, machine)?;
    let room = Room::new(&node.0, &ctk, &path("FLEET_CTL")).expect("furnish the node");
    Some((node, room))
}

/// Both specs: theirs, ours.
fn both(node: &Path, room: &Room, args: &[&str], infix: &str) -> (Spec, Spec) {
    let written = |name: &str| {
        let output = format!("/{name}.yaml");
        let args = [&["cdi", "generate", "--output", &output], &HOOK[..], args].concat();
        let out = match name {
            "theirs" => room.theirs(&args),
            _ => room.ours(&args),
        };
        assert_eq!(out.code, 0, "{name} {args:?}: {}", out.stderr);
        let file = node.join(format!("{name}{infix}.yaml"));
        read_spec(&file).unwrap_or_else(|err| panic!("{name} {args:?}: {err}"))
    };
    let (theirs, mut ours) = (written("theirs"), written("ours"));
    // Ours says what it was made from where the version of CDI has room for it.
    ours.annotations
        .retain(|key, _| !key.starts_with("fleet-nvidia/"));
    for device in &mut ours.devices {
        device
            .annotations
            .retain(|key, _| !key.starts_with("fleet-nvidia/"));
    }
    (theirs, ours)
}

fn same(node: &Path, room: &Room, machine: &str, args: &[&str]) {
    let (theirs, ours) = both(node, room, args, "");
    assert!(
        ours == theirs,
        "{machine} {args:?}: {}",
        told(&theirs, &ours)
    );
}

/// The lines that only one has.
fn told(theirs: &Spec, ours: &Spec) -> String {
    let lines = |spec| {
        let text = encode_spec(spec, Format::Yaml).expect("write a spec");
        text.lines()
            .map(|line| line.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let (theirs, ours) = (lines(theirs), lines(ours));
    let only = |whose, these: &[String], others: &[String]| {
        let only = these.iter().filter(|line| !others.contains(line));
        only.map(|line| format!("\n{whose}: {line}"))
            .collect::<String>()
    };
    let lines = only("theirs", &theirs, &ours) + &only("ours", &ours, &theirs);
    if !lines.is_empty() {
        return lines;
    }
    let differs = theirs
        .iter()
        .zip(&ours)
        .find(|(theirs, ours)| theirs != ours);
    format!("the order differs: theirs and ours {differs:?}")
}

#[test]
fn gpus_are_as_nvidia_ctk_writes_them() {
    let test = "gpus_are_as_nvidia_ctk_writes_them";
    let strategies = [
        "--device-name-strategy",
        "type-index",
        "--device-name-strategy",
        "index",
    ];
    let plain: &[&str] = &[];
    let cases: [(&str, &[&[&str]]); 10] = [
        (
            "h100x2",
            &[
                plain,
                &["--device-id", "none"],
                &["--device-id", "1", "--no-all-device"],
                &["--disable-hook", "all"],
                &[
                    "--disable-hook",
                    "enable-cuda-compat",
                    "--disable-hook",
                    "update-ldcache",
                ],
                &["--ldconfig-path", "/sbin/ldconfig.real"],
                &["--feature-flag", "enable-explicit-driver-libraries"],
                &["--library-search-path", "/usr/lib/x86_64-linux-gnu"],
                &["--config-search-path", "/usr/share"],
            ],
        ),
        ("h100x1", &[plain]),
        ("h100x8", &[plain]),
        (
            "dgx-a100",
            &[plain, &["--feature-flag", "disable-ipc-discoverer"]],
        ),
        (
            "dgx-h100",
            &[
                plain,
                &["--feature-flag", "no-additional-gids-for-device-nodes"],
            ],
        ),
        ("dgx-station", &[plain, &strategies]),
        ("workstation", &[plain, &["--enable-hook", "chmod"]]),
        ("mig-mixed", &[plain, &strategies, &["--device-id", "0:1"]]),
        ("imex", &[plain]),
        ("orin", &[plain]),
    ];
    for (machine, asked) in cases {
        let Some((node, room)) = furnished(test, machine) else {
            return;
        };
        for args in asked {
            same(&node.0, &room, machine, args);
        }
    }
}

/// GPUs that share the processor's page tables, in specs of their own.
#[test]
fn coherent_gpus_are_as_nvidia_ctk_writes_them() {
    let test = "coherent_gpus_are_as_nvidia_ctk_writes_them";
    let Some((node, room)) = furnished(test, "grace-hopper") else {
        return;
    };
    let args = ["--feature-flag", "enable-coherent-annotations"];
    same(&node.0, &room, "grace-hopper", &args);
    let (theirs, ours) = both(&node.0, &room, &args, ".coherent");
    assert_eq!(ours, theirs);
}

#[test]
fn other_modes_are_as_nvidia_ctk_writes_them() {
    let test = "other_modes_are_as_nvidia_ctk_writes_them";
    for (machine, modes) in [
        ("dgx-h100", &["management", "nvswitch"][..]),
        ("imex", &["imex", "management"]),
        ("h100x2", &["gds", "mofed", "gdrcopy"]),
    ] {
        let Some((node, room)) = furnished(test, machine) else {
            return;
        };
        let script = "set -e; mkdir -p dev/infiniband run/udev; : > etc/cufile.json
            mknod -m 666 dev/nvidia-fs0 c 1 3; mknod -m 666 dev/nvidia-fs1 c 1 5
            mknod -m 666 dev/infiniband/uverbs0 c 1 3; mknod -m 666 dev/infiniband/rdma_cm c 1 5
            mknod -m 666 dev/gdrdrv c 1 7";
        let mut shell = Command::new("sh");
        drop(run(shell.args(["-c", script]).current_dir(&node.0)).ok());
        for mode in modes {
            same(
                &node.0,
                &room,
                machine,
                &[&["--mode", mode], &KIND[..]].concat(),
            );
        }
    }
}

/// The driver comes in a container; nodes are the machine's.
#[test]
fn another_driver_root_is_as_nvidia_ctk_writes_it() {
    let test = "another_driver_root_is_as_nvidia_ctk_writes_it";
    let Some((node, room)) = furnished(test, "dgx-h100") else {
        return;
    };
    let root = node.0.join("run/nvidia/driver");
    fs::create_dir_all(&root).expect("make the driver root");
    for dir in ["usr", "lib", "etc"] {
        fs::rename(node.0.join(dir), root.join(dir)).expect("move the driver");
        fs::create_dir(node.0.join(dir)).expect("make an empty directory");
    }
    let machine = "usr/share/nvidia/fleet-sim-machine.json";
    fs::create_dir_all(node.0.join("usr/share/nvidia")).expect("make a directory");
    fs::copy(root.join(machine), node.0.join(machine)).expect("copy the description");
    let args = ["--driver-root", "/run/nvidia/driver", "--dev-root", "/"];
    same(&node.0, &room, "dgx-h100", &args);
    let args = [&args[..], &["--mode", "management"], &KIND].concat();
    same(&node.0, &room, "dgx-h100", &args);
}

/// The files of the real driver, as Debian has them: its libraries' own SONAMEs and links, in a directory of their own.
#[test]
fn the_real_drivers_files_are_as_nvidia_ctk_writes_them() {
    let test = "the_real_drivers_files_are_as_nvidia_ctk_writes_them";
    if nvidia_ctk().is_none() {
        return skip(test, "there is no nvidia-ctk; FLEET_NVIDIA_CTK names one");
    }
    let Some((tree, files)) = real_driver(test) else {
        return;
    };
    let (dir, version) = cuda(&files);
    let Some((node, room)) = furnished(test, &machine_of(&version)) else {
        return;
    };
    // Without a kernel module the real one would find nothing.
    let nvml = format!("libnvidia-ml.so.{version}");
    let simulated = format!("usr/lib/x86_64-linux-gnu/{nvml}");
    let real = format!("{}/{nvml}", dir.trim_start_matches('/'));
    room.driver(&tree, &[(&simulated, &real)])
        .expect("show the driver");
    let args = ["--driver-root", "/run/nvidia/driver", "--dev-root", "/"];
    for more in [
        &[][..],
        &["--feature-flag", "enable-explicit-driver-libraries"],
    ] {
        let args = [&args[..], more].concat();
        let (theirs, mut ours) = both(&node.0, &room, &args, "");
        let mounts = &mut ours.container_edits.mounts;
        let before = mounts.len();
        // What the packages reach by absolute links the toolkit looks for outside the driver's root, and finds nothing.
        mounts.retain(|mount| {
            !mount
                .host_path
                .starts_with("/run/nvidia/driver/usr/lib/nvidia/current/")
        });
        assert_eq!(mounts.len() + 2, before, "nvidia-smi and nvidia_drv.so");
        for mount in mounts {
            // Ours has followed the link `lib`, too.
            mount.host_path = mount
                .host_path
                .replace("driver/usr/lib/firmware", "driver/lib/firmware");
        }
        assert!(ours == theirs, "{args:?}: {}", told(&theirs, &ours));
    }
}

/// Compiles a library that stands for one which no simulated node has.
fn library(source: &str, to: &Path, flags: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    fs::create_dir_all(to.parent().expect("a directory")).expect("make the directory");
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-o"]).arg(to).arg(source);
    drop(run(gcc.args(flags)).ok());
}

/// Windows' own library tells the toolkit where the driver store is; ours finds it by its CUDA library.
#[test]
fn windows_is_as_nvidia_ctk_writes_it() {
    let test = "windows_is_as_nvidia_ctk_writes_it";
    let Some((node, room)) = furnished(test, "wsl") else {
        return;
    };
    let stores = node.0.join("usr/lib/wsl/drivers");
    let store = fs::read_dir(&stores)
        .expect("list the stores")
        .flatten()
        .next()
        .expect("a store")
        .file_name()
        .into_string()
        .expect("a name");
    let other = stores.join("iigd_dch.inf_amd64_1");
    fs::create_dir(&other).expect("make another vendor's store");
    fs::write(other.join("libigdrcl.so"), "").expect("write its library");
    for name in [
        "nvopencl64.dll",
        "libnvwgf2umx.so",
        "nvsub.bin",
        "readme.txt",
    ] {
        fs::write(stores.join(&store).join(name), "").expect("write a file of the store");
    }
    let define = |name: &str, dir: &str| format!("-D{name}=L\"/usr/lib/wsl/drivers/{dir}\"");
    let flags = [
        define("OTHER", "iigd_dch.inf_amd64_1"),
        define("STORE", &store),
    ];
    let flags = flags.each_ref().map(String::as_str);
    // In the place that the specs name, and where the programs' own loader finds it.
    for dir in ["usr/lib/wsl/lib", "opt/programs"] {
        let to = node.0.join(dir).join("libdxcore.so");
        library("suites/generate/dxcore.c", &to, &flags);
    }
    for args in [
        &[][..],
        &["--mode", "wsl"],
        &["--disable-hook", "update-ldcache"],
        &["--no-all-device"],
        &["--device-name-strategy", "uuid"],
    ] {
        same(&node.0, &room, "wsl", args);
    }
    // A driver without the program, and one whose library for video memory is not there.
    for name in ["nvidia-smi", "libnvdxgdmal.so.1"] {
        drop(fs::remove_file(stores.join(&store).join(name)));
        same(&node.0, &room, "wsl", &[]);
    }
}

/// A driver with `libnvidia-sandboxutils`, which the toolkit asks for the files of a GPU before it asks NVML: what is
/// written is the same, since proc, sysfs and NVML tell the same.
#[test]
fn sandboxutils_changes_nothing() {
    let test = "sandboxutils_changes_nothing";
    for machine in ["workstation", "mig-mixed", "h100x2"] {
        let Some((node, room)) = furnished(test, machine) else {
            return;
        };
        let generate = ["--device-name-strategy", "uuid", "--no-all-device"];
        let (_, before) = both(&node.0, &room, &generate, "");
        let cuda = fs::read_dir(node.0.join("usr/lib/x86_64-linux-gnu"))
            .expect("list the libraries")
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .find_map(|name| {
                Some(name.strip_prefix("libcuda.so.")?.to_owned())
                    .filter(|version| version.contains('.'))
            })
            .expect("a version");
        let mut answers = String::new();
        for device in &before.devices {
            for node in &device.container_edits.device_nodes {
                let kind = match node.path.as_str() {
                    path if path.starts_with("/dev/dri/card") => 1,
                    path if path.starts_with("/dev/dri/render") => 2,
                    path if path.starts_with("/dev/nvidia-caps/") => 10,
                    _ => 0,
                };
                answers += &format!("{} {kind} {}\n", device.name, node.path);
            }
            let hooks = device.container_edits.hooks.iter();
            for link in hooks.flat_map(|hook| &hook.args) {
                if let Some((text, path)) = link.split_once("::") {
                    let kind = if path.ends_with("-card") { 3 } else { 4 };
                    answers += &format!("{} {kind} {path} {text}\n", device.name);
                }
            }
        }
        fs::write(node.0.join("sandboxutils"), &answers).expect("write the answers");
        let lib = node.0.join("usr/lib/x86_64-linux-gnu");
        let name = format!("libnvidia-sandboxutils.so.{cuda}");
        let define = format!("-DVERSION=\"{cuda}\"");
        let flags = [&define, "-Wl,-soname,libnvidia-sandboxutils.so.1"];
        library("suites/generate/sandboxutils.c", &lib.join(&name), &flags);
        std::os::unix::fs::symlink(&name, lib.join("libnvidia-sandboxutils.so.1"))
            .expect("make the link");
        let asked = node.0.join("sandboxutils.asked");
        for args in [&[][..], &["--feature-flag", "disable-nvsandboxutils"]] {
            drop(fs::remove_file(&asked));
            same(&node.0, &room, machine, args);
            assert_eq!(asked.is_file(), args.is_empty(), "{machine} {args:?}");
        }
    }
}

/// By its own help, so that a flag of a later version is noticed.
#[test]
fn every_flag_and_variable_of_nvidia_ctk_is_known() {
    let test = "every_flag_and_variable_of_nvidia_ctk_is_known";
    let Some(ctk) = nvidia_ctk() else {
        return skip(test, "there is no nvidia-ctk; FLEET_NVIDIA_CTK names one");
    };
    let ours = path("FLEET_CTL");
    for (command, at_least) in [
        (&["cdi", "generate"][..], 27),
        (&["cdi", "list"], 1),
        (&["cdi", "transform", "root"], 5),
        (&["system", "create-device-nodes"], 6),
        (&["system", "create-dev-char-symlinks"], 6),
    ] {
        let theirs = run(Command::new(&ctk).args(command).arg("--help")).ok();
        let options = theirs.split("OPTIONS:").nth(1).expect("a list of options");
        let options = options.split("GLOBAL").next().unwrap_or_default();
        let words = options.split(|c: char| c.is_whitespace() || "[],".contains(c));
        let words: Vec<&str> = words.map(|word| word.trim_end_matches('.')).collect();
        let help = run(Command::new(&ours).args(command).arg("--help")).ok();
        let mut flags: Vec<&str> = words
            .iter()
            .copied()
            .filter(|word| word.starts_with("--") && word.len() > 2)
            .collect();
        flags.sort_unstable();
        flags.dedup();
        assert!(flags.len() >= at_least, "{command:?}: {flags:?}");
        for flag in flags {
            let out = run(Command::new(&ours).args(command).args([flag, "--help"]));
            assert!(
                !out.stderr.contains("unexpected argument"),
                "{command:?} {flag}: {}",
                out.stderr
            );
        }
        for variable in words.iter().filter_map(|word| word.strip_prefix('$')) {
            assert!(help.contains(variable), "{command:?} {variable}: {help}");
        }
    }
}

/// Where the toolkit fails or writes what helps nobody, and ours does not. If one of these fails, the toolkit has
/// changed and the list in the documentation is wrong.
#[test]
fn what_differs_from_nvidia_ctk_on_purpose() {
    let test = "what_differs_from_nvidia_ctk_on_purpose";
    let Some((node, room)) = furnished(test, "lost-gpu") else {
        return;
    };
    let generate = ["cdi", "generate"];
    let refused = room.theirs(&generate);
    assert!(
        refused.code != 0 && refused.stderr.contains("GPU is lost"),
        "{refused:#?}"
    );
    assert!(room.ours(&generate).ok().contains("/dev/nvidia2"));
    drop((node, room));
    let Some((node, room)) = furnished(test, "h100x2") else {
        return;
    };
    // Modes without a kind of their own.
    let args = ["--mode", "management"];
    let (theirs, mut ours) = both(&node.0, &room, &args, "");
    assert_eq!(ours.kind, "management.nvidia.com/gpu");
    ours.kind.clone_from(&theirs.kind);
    ours.cdi_version.clone_from(&theirs.cdi_version);
    assert_eq!(ours, theirs);
    // A hook that is to change the mode of nothing: without DRM or MIG there is no directory for it.
    let (mut theirs, ours) = both(&node.0, &room, &["--enable-hook", "chmod"], "");
    for device in &mut theirs.devices {
        let before = device.container_edits.hooks.len();
        device
            .container_edits
            .hooks
            .retain(|hook| hook.args[1..] != ["chmod", "--mode", "755"]);
        assert_eq!(device.container_edits.hooks.len() + 1, before);
    }
    assert_eq!(ours, theirs);
}

/// How long both take, for the one who reads the output.
#[test]
fn nvidia_ctk_takes_longer() {
    let Some((_node, room)) = furnished("nvidia_ctk_takes_longer", "h100x8") else {
        return;
    };
    let (theirs, ours) = room.race(
        &[&["cdi", "generate", "--output", "/race.yaml"], &HOOK[..]].concat(),
        9,
    );
    println!("cdi generate, 8 GPUs by NVML, medians: nvidia-ctk {theirs:?}, ours {ours:?}");
    assert!(ours < theirs, "ours {ours:?}, theirs {theirs:?}");
}
