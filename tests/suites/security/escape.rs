//! Ways from a container to the host: descriptors, working directories, the runtime's own binary, `/proc`, `/dev`.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use fleet_tests::{Bundle, not_for_peers, run, until};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::json;

use crate::Trap;

/// Tells that the root directory is the container's, and the working directory below it.
const INSIDE: &str =
    "test -e /bin/busybox && test ! -e ../../../../../../../../etc/machine-id.host && pwd -P";

/// A descriptor of a host directory that the caller forgot to close.
fn forgotten() -> fs::File {
    let file = fs::File::open("/").expect("open");
    fcntl(file.as_raw_fd(), FcntlArg::F_SETFD(FdFlag::empty())).expect("fcntl");
    file
}

#[test]
fn no_descriptor_reaches_the_program() {
    let _forgotten = [forgotten(), forgotten(), forgotten()];
    // The shell itself, without a child that would have descriptors of its own.
    let script = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done";
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let listed = |text: &str| -> Vec<u32> {
        let mut all: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        all.sort_unstable();
        all
    };
    let seen = bundle.exec(&[], &["sh", "-c", script]).ok();
    // The shell reads the directory through one more.
    let seen: Vec<u32> = listed(&seen);
    assert!(seen.len() <= 4 && seen[..3] == [0, 1, 2], "{seen:?}");
    let pid = bundle.runtime.state(&bundle.id)["pid"].to_string();
    until("the program", || {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("sleep"))
    });
    let open = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("list")
        .flatten();
    let open: Vec<_> = open.map(|entry| entry.file_name()).collect();
    assert!(
        open.iter()
            .all(|fd| ["0", "1", "2"].iter().any(|known| fd == known)),
        "{open:?}"
    );
}

/// CVE-2024-21626: a working directory that is a descriptor of the host.
#[test]
fn no_working_directory_leads_out() {
    let _forgotten = [forgotten(), forgotten()];
    fs::write("/etc/machine-id.host", "").expect("write");
    for number in 3..24 {
        let bundle = Bundle::new(INSIDE);
        symlink(
            format!("/proc/self/fd/{number}"),
            bundle.dir.join("rootfs/fd"),
        )
        .expect("link");
        for cwd in [
            format!("/proc/self/fd/{number}"),
            "/fd".to_owned(),
            "/fd/../..".to_owned(),
        ] {
            let bundle = &bundle;
            let mut spec = bundle.spec.clone();
            spec["process"]["cwd"] = json!(cwd);
            fs::write(bundle.dir.join("config.json"), spec.to_string()).expect("write");
            let dir = bundle.dir.display().to_string();
            let out = bundle.runtime.run(&["run", "--bundle", &dir, &bundle.id]);
            assert!(
                out.code != 0 || out.stdout.starts_with('/'),
                "{cwd}: {out:#?}"
            );
            assert!(!out.stdout.contains("unreachable"), "{cwd}: {out:#?}");
            drop(bundle.runtime.run(&["delete", "--force", &bundle.id]));
        }
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        let out = bundle.exec(&["--cwd", &cwd], &["sh", "-c", INSIDE]);
        assert!(
            out.code != 0 || out.stdout.starts_with('/'),
            "{cwd}: {out:#?}"
        );
    }
    fs::remove_file("/etc/machine-id.host").expect("remove");
}

/// The same of one that is missing and would be made there.
#[test]
fn no_working_directory_is_made_outside() {
    for link in [false, true] {
        let bundle = Bundle::new("true");
        let trap = Trap::new(bundle.dir.join("trap"));
        let left = fs::File::open(&trap.dir).expect("open");
        fcntl(left.as_raw_fd(), FcntlArg::F_SETFD(FdFlag::empty())).expect("fcntl");
        let at = format!("/proc/self/fd/{}", left.as_raw_fd());
        symlink(&at, bundle.dir.join("rootfs/link")).expect("link");
        let cwd = if link { "/link" } else { at.as_str() };
        let bundle = bundle.set("/process/cwd", json!(format!("{cwd}/made/deeper")));
        let out = bundle.run();
        assert_ne!(out.code, 0, "{out:#?}");
        trap.assert_untouched(cwd);
    }
}

/// CVE-2019-5736, by every way to the file: the container's program is the runtime, and a process of the container
/// that lies in wait for the runtime to enter.
#[test]
fn the_binary_cannot_be_overwritten() {
    if not_for_peers("the_binary_cannot_be_overwritten") {
        return;
    }
    let script = "while :; do for p in /proc/[0-9]*; do \
        case $(readlink $p/exe) in */busybox) ;; *) (echo overwritten > $p/exe) 2>/dev/null && echo x >> /won; echo x >> /tried ;; esac; \
        done; done";
    let mut bundle = Bundle::new(script);
    // A copy, since an attack that succeeds would spoil the other tests.
    let copy = bundle.dir.join("runtime");
    fs::copy(&bundle.runtime.binary, &copy).expect("copy");
    let original = fs::read(&copy).expect("read");
    bundle.runtime.binary.clone_from(&copy);
    bundle.start();
    let tried = || fs::metadata(bundle.dir.join("rootfs/tried")).map_or(0, |meta| meta.len());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while tried() < 20 && std::time::Instant::now() < end {
        drop(bundle.exec(&[], &["true"]));
        drop(bundle.exec(&[], &["/proc/self/exe", "--version"]));
    }
    println!("the runtime was seen {} times", tried() / 2);
    assert!(
        tried() > 0,
        "the runtime was never seen: the test shows nothing"
    );
    assert!(
        !bundle.dir.join("rootfs/won").exists(),
        "the runtime could be written"
    );
    assert!(
        fs::read(&copy).expect("read") == original,
        "the binary was changed"
    );
    bundle.remove();
    for program in ["/proc/self/exe", "/proc/1/exe", "/link"] {
        let mut spec = bundle.spec.clone();
        drop(fs::remove_file(bundle.dir.join("rootfs/link")));
        symlink("/proc/self/exe", bundle.dir.join("rootfs/link")).expect("link");
        spec["process"]["args"] = json!([program, "--version"]);
        fs::write(bundle.dir.join("config.json"), spec.to_string()).expect("write");
        let dir = bundle.dir.display().to_string();
        drop(bundle.runtime.run(&["run", "--bundle", &dir, &bundle.id]));
        drop(bundle.runtime.run(&["delete", "--force", &bundle.id]));
        assert!(fs::read(&copy).expect("read") == original, "{program}");
    }
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2025-52881: labels and limits are written to `/proc`, so it must be the real one.
#[test]
fn proc_is_never_a_volume() {
    if not_for_peers("proc_is_never_a_volume") {
        return;
    }
    let fake = PathBuf::from("/run").join(fleet_tests::unique("fake"));
    fs::create_dir_all(fake.join("self/attr")).expect("mkdir");
    let fake = fake.display().to_string();
    for (destination, kind, source, options) in [
        ("/proc", "bind", fake.as_str(), &["rbind"][..]),
        ("/proc", "tmpfs", "tmpfs", &[]),
        ("/proc/", "bind", &fake, &["bind"]),
        ("//proc/.", "bind", &fake, &["bind"]),
        ("/a/../proc", "tmpfs", "tmpfs", &[]),
    ] {
        let mut bundle = Bundle::new("cat /proc/self/stat >/dev/null && echo real");
        bundle.spec["mounts"].as_array_mut().expect("mounts").push(
            json!({"destination": destination, "type": kind, "source": source, "options": options}),
        );
        let out = bundle.run();
        assert_ne!(out.code, 0, "{destination} {kind}: {out:#?}");
        assert_eq!(out.stderr.lines().count(), 1, "{out:#?}");
    }
    fs::remove_dir_all(&fake).expect("remove");
}

/// CVE-2025-52881: a kernel parameter is written to the kernel, whatever is mounted where its file should be.
#[test]
fn a_false_sysctl_takes_no_value() {
    if not_for_peers("a_false_sysctl_takes_no_value") {
        return;
    }
    let name = "net.ipv4.ip_local_port_range";
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let real = fs::read_to_string(path).expect("read");
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read");
    let mut set = 0;
    // Over the file, and over a directory above it; the last is a real file of procfs that belongs to the host.
    for (source, target) in [
        ("trap/secret", path),
        ("trap", "/proc/sys/net/ipv4"),
        ("/proc/sys/kernel/core_pattern", path),
    ] {
        let bundle = Bundle::new("sleep 100");
        let trap = Trap::new(bundle.dir.join("trap"));
        fs::create_dir_all(bundle.dir.join("trap/conf")).expect("mkdir");
        fs::write(bundle.dir.join("trap/ip_local_port_range"), "of the host").expect("write");
        let trap = Trap::new(trap.dir);
        let source = bundle.dir.join(source).display().to_string();
        let bundle = bundle
            .mount(target, "bind", &source, &["bind"])
            .set("/linux/sysctl", json!({name: "40000 50000"}));
        let out = bundle.make("create", &[]);
        trap.assert_untouched(target);
        assert_eq!(fs::read_to_string(path).expect("read"), real, "{target}");
        assert_eq!(
            fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read"),
            pattern,
            "{target}"
        );
        if out.code == 0 {
            let pid = bundle.runtime.state(&bundle.id)["pid"].to_string();
            let seen = run(Command::new("nsenter").args(["-t", &pid, "-n", "cat", path])).ok();
            assert_eq!(
                seen.split_whitespace().collect::<Vec<_>>(),
                ["40000", "50000"],
                "{target}"
            );
            set += 1;
        } else {
            assert_eq!(out.stderr.lines().count(), 1, "{out:#?}");
        }
    }
    println!("set in {set} of 3 cases");
}

/// CVE-2019-16884 and CVE-2025-52881 from a running container: it covers its `/proc`, and a later `exec` writes labels,
/// a score and a limit for its process.
#[test]
fn a_false_proc_takes_nothing_from_exec() {
    if not_for_peers("a_false_proc_takes_nothing_from_exec") {
        return;
    }
    // A file of the host that is reached through a bind mount, where a label or a score would be written.
    let covers = [
        (
            "another file system",
            "mount -t tmpfs none /proc; for p in self thread-self; do mkdir -p /proc/$p/attr/apparmor; \
            for f in attr/current attr/exec attr/apparmor/current attr/apparmor/exec oom_score_adj setgroups; do \
            touch /proc/$p/$f; mount -o bind /trap/secret /proc/$p/$f; done; done",
        ),
        (
            "its attributes",
            "for t in /proc/[0-9]*; do for f in attr/exec attr/current oom_score_adj; do \
            mount -o bind /trap/secret $t/$f; done; done; mount -o bind /trap /proc/1/attr",
        ),
        (
            "one of other processes",
            "mkfifo /gone; unshare -p -f sh -c 'mount -t proc none /proc; read x < /gone' & \
            while readlink /proc/self > /dev/null; do sleep 0.1; done",
        ),
    ];
    for (what, cover) in covers {
        let caps = json!([
            "CAP_SYS_ADMIN",
            "CAP_MKNOD",
            "CAP_SETUID",
            "CAP_SETGID",
            "CAP_DAC_OVERRIDE"
        ]);
        let bundle = Bundle::new(&format!("{cover}\ntouch /ready; exec sleep 100"));
        let trap = Trap::new(bundle.dir.join("trap"));
        let source = trap.dir.display().to_string();
        fs::create_dir_all(bundle.dir.join("rootfs/trap")).expect("mkdir");
        let bundle = bundle.mount("/trap", "bind", &source, &["rbind"]).set(
            "/process/capabilities",
            json!({"bounding": caps, "effective": caps, "permitted": caps}),
        );
        bundle.start();
        until(what, || bundle.dir.join("rootfs/ready").exists());
        let process = json!({
            "args": ["/bin/sleep", "100"], "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 800,
            "selinuxLabel": "system_u:system_r:container_t:s0", "apparmorProfile": "docker-default",
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5, 6]},
        });
        let (file, pid_file) = (bundle.dir.join("process.json"), bundle.dir.join("pid"));
        fs::write(&file, process.to_string()).expect("write");
        let (file, pid_file) = (file.display().to_string(), pid_file.display().to_string());
        let out = bundle.exec(&["-d", "--pid-file", &pid_file, "--process", &file], &[]);
        trap.assert_untouched(what);
        assert_eq!(out.code, 0, "{what}: {out:#?}");
        let pid = fs::read_to_string(&pid_file).expect("read");
        let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("read");
        assert_eq!(score.trim(), "800", "{what}");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read");
        assert!(status.contains("Groups:\t5 6 \n"), "{what}: {status}");
        // It ends with the container, whose first process may be no longer the namespace's only one.
        bundle.remove();
    }
}

/// CVE-2025-31133 and CVE-2025-52565: what masks a path, or is bound to the terminal, is a link of the image.
#[test]
fn a_false_dev_null_masks_nothing_of_the_host() {
    if not_for_peers("a_false_dev_null_masks_nothing_of_the_host") {
        return;
    }
    let bundle = Bundle::new("cat /masked/file; cat /masked/file > /shown; echo x > /masked/file");
    let trap = Trap::new(bundle.dir.join("trap"));
    let dev = bundle.dir.join("dev");
    for dir in [&dev, &bundle.dir.join("rootfs/masked")] {
        fs::create_dir(dir).expect("mkdir");
    }
    fs::write(bundle.dir.join("rootfs/masked/file"), "to be masked").expect("write");
    for target in [
        trap.dir.join("secret").display().to_string(),
        "/proc/sysrq-trigger".to_owned(),
    ] {
        drop(fs::remove_file(dev.join("null")));
        symlink(&target, dev.join("null")).expect("link");
        drop(fs::remove_file(dev.join("console")));
        symlink(&target, dev.join("console")).expect("link");
        let mut spec = bundle.spec.clone();
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| {
            !mount["destination"]
                .as_str()
                .is_some_and(|to| to.starts_with("/dev"))
        });
        mounts.push(
            json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["rbind"]}),
        );
        spec["linux"]["maskedPaths"] = json!(["/masked/file"]);
        fs::write(bundle.dir.join("config.json"), spec.to_string()).expect("write");
        let dir = bundle.dir.display().to_string();
        let out = bundle.runtime.run(&["run", "--bundle", &dir, &bundle.id]);
        assert!(
            !out.stdout.contains("of the host") && !out.stdout.contains("to be masked"),
            "{out:#?}"
        );
        trap.assert_untouched(&target);
        drop(bundle.runtime.run(&["delete", "--force", &bundle.id]));
    }
}

/// Files of the image that are read are none: a pipe never answers, a device never ends.
#[test]
fn what_is_read_below_the_root_is_a_file() {
    let hook = json!({
        "hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook",
        "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", "/usr/lib/gpu"],
    });
    crate::cdi(&json!({
        "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/usr/lib/gpu/libgpu.so.1", "options": ["ro", "bind"]}],
        "hooks": [hook],
    }));
    let files = [
        "etc/ld.so.cache",
        "etc/ld.so.conf",
        "etc/ld.so.conf.d/x.conf",
        "etc/passwd",
        "etc/group",
        "usr/lib/gpu/libother.so.1",
    ];
    for file in files {
        for kind in ["fifo", "zero", "socket", "directory", "loop"] {
            let bundle = Bundle::new("exit 0")
                .set("/annotations", json!({"cdi.k8s.io/test": "test.com/dev=0"}));
            let path = bundle.dir.join("rootfs").join(file);
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            drop(fs::remove_file(&path));
            let text = path.display().to_string();
            match kind {
                "fifo" => run(Command::new("mkfifo").arg(&path)).silent(),
                "zero" => run(Command::new("mknod").args([&text, "c", "1", "5"])).silent(),
                "socket" => drop(std::os::unix::net::UnixListener::bind(&path).expect("bind")),
                "directory" => fs::create_dir(&path).expect("mkdir"),
                _ => symlink(path.file_name().expect("name"), &path).expect("link"),
            }
            let begin = std::time::Instant::now();
            let out = bundle.run();
            let context = format!("{file} is a {kind}: {out:#?}");
            assert!(begin.elapsed().as_secs() < 20, "{context}");
            assert!(
                out.code == 0 || out.stderr.lines().count() == 1,
                "{context}"
            );
            fleet_tests::assert_nothing_left(&bundle);
        }
    }
}

/// The image's environment reaches no program but the container's own: neither hooks nor the runtime itself.
#[test]
fn the_images_environment_stays_inside() {
    let library = PathBuf::from("/run").join(fleet_tests::unique("library.so"));
    let file = PathBuf::from("/run").join(fleet_tests::unique("hook-env"));
    let script = format!("cat /proc/self/environ > {}", file.display());
    let hooks = json!({
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}],
        "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", script]}],
    });
    let hostile = [
        "LD_PRELOAD",
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "GCONV_PATH",
        "GLIBC_TUNABLES",
    ];
    let mut env: Vec<String> = hostile
        .iter()
        .map(|name| format!("{name}={}", library.display()))
        .collect();
    env.push("PATH=/bin".to_owned());
    let bundle = Bundle::new("exit 0")
        .set("/hooks", hooks)
        .set("/process/env", json!(env));
    assert_eq!(bundle.run().code, 0);
    let mut text = String::new();
    fs::File::open(&file)
        .expect("the hook ran")
        .read_to_string(&mut text)
        .expect("read");
    for name in hostile {
        assert!(!text.contains(name), "{name} reached a hook: {text}");
    }
    fs::remove_file(&file).expect("remove");
}
