//! What libcontainer 0.7 does not do and we cover: each test fails without the covering module
//! (docs/libcontainer-gaps.md).
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use fleet_tests::views::controllers;
use fleet_tests::{
    Bundle, assert_nothing_left, cgroup_dirs, cgroup_path, differs, not_for_peers, skip, unique,
};
use serde_json::json;

fn status(text: &str, key: &str) -> String {
    let line = text
        .lines()
        .find(|line| line.starts_with(key))
        .unwrap_or_default();
    line.split_whitespace()
        .skip(1)
        .collect::<Vec<_>>()
        .join(" ")
}

fn seccomp() -> serde_json::Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ERRNO"}]})
}

#[test]
fn exec_keeps_seccomp() {
    let bundle = Bundle::new("sleep 100").set("/linux/seccomp", seccomp());
    bundle.start();
    let text = bundle.exec(&[], &["cat", "/proc/self/status"]).ok();
    assert_eq!(status(&text, "Seccomp:"), "2");
}

#[test]
fn seccomp_without_nnp() {
    let bundle = Bundle::new("cat /proc/self/status")
        .set("/linux/seccomp", seccomp())
        .set("/process/noNewPrivileges", json!(false))
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let text = bundle.run().ok();
    assert_eq!(
        (status(&text, "Seccomp:"), status(&text, "NoNewPrivs:")),
        ("2".into(), "0".into())
    );
}

fn user_namespace(bundle: Bundle) -> Bundle {
    bundle
        .namespace("user", None)
        .set(
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]),
        )
        .set(
            "/linux/gidMappings",
            json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]),
        )
}

#[test]
fn exec_enters_user_namespace() {
    let bundle = user_namespace(Bundle::new("sleep 100"));
    bundle.start();
    let map = bundle.exec(&[], &["cat", "/proc/self/uid_map"]).ok();
    assert_eq!(
        map.split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
}

#[test]
fn two_id_mappings() {
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}, {"containerID": 1000, "hostID": 200_000, "size": 10}]);
    let bundle = user_namespace(Bundle::new("cat /proc/self/uid_map; id -u"))
        .set("/linux/uidMappings", maps.clone())
        .set("/linux/gidMappings", maps);
    let words = bundle.run().ok();
    assert_eq!(
        words.split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "1000", "1000", "200000", "10", "0"]
    );
}

#[test]
fn userns_with_host_netns() {
    if not_for_peers("userns_with_host_netns") {
        return;
    }
    let name = unique("fleet-net");
    let made = Command::new("ip").args(["netns", "add", &name]).status();
    if !made.is_ok_and(|status| status.success()) {
        fleet_tests::skip(
            "userns_with_host_netns",
            "`ip netns add` does not work here",
        );
        return;
    }
    let path = format!("/run/netns/{name}");
    let wanted = fs::metadata(&path).expect("the namespace").ino();
    let bundle =
        user_namespace(Bundle::new("readlink /proc/self/ns/net")).namespace("network", Some(&path));
    let text = bundle.run().ok();
    assert_eq!(text.trim(), format!("net:[{wanted}]"));
    let bundle = user_namespace(Bundle::new("sleep 100")).namespace("network", Some(&path));
    bundle.start();
    let text = bundle.exec(&[], &["readlink", "/proc/self/ns/net"]).ok();
    assert_eq!(text.trim(), format!("net:[{wanted}]"), "exec");
    drop(Command::new("ip").args(["netns", "del", &name]).status());
}

#[test]
fn caps_equal_spec() {
    let caps = json!(["CAP_NET_ADMIN", "CAP_KILL", "CAP_UNHEARD_OF"]);
    let bundle = Bundle::new("cat /proc/self/status").set("/process/capabilities", json!({"bounding": caps, "effective": ["CAP_KILL"], "permitted": caps, "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]})).set("/process/user", json!({"uid": 5, "gid": 5}));
    let text = bundle.run().ok();
    let bits = |set: &str| u64::from_str_radix(&status(&text, set), 16).expect("hex");
    let (kill, admin) = (1 << 5, 1 << 12);
    assert_eq!(
        (bits("CapBnd:"), bits("CapInh:"), bits("CapAmb:")),
        (kill | admin, kill, kill)
    );
    let none = Bundle::new("cat /proc/self/status").set("/process/capabilities", json!(null));
    let text = none.run().ok();
    assert_eq!(
        status(&text, "CapEff:"),
        "0000000000000000",
        "no object means none, not all"
    );
    assert_eq!(status(&text, "CapBnd:"), "0000000000000000");
}

#[test]
fn groups_equal_spec() {
    let groups = |bundle: Bundle| status(&bundle.run().ok(), "Groups:");
    assert_eq!(groups(Bundle::new("cat /proc/self/status")), "");
    let given = Bundle::new("cat /proc/self/status").set(
        "/process/user",
        json!({"uid": 0, "gid": 0, "additionalGids": [7, 44]}),
    );
    assert_eq!(groups(given), "7 44");
}

/// A process of ours in a cgroup.
struct Bystander(Child);

impl Bystander {
    fn in_cgroup(path: &str) -> Self {
        let child = Command::new("sleep").arg("100").spawn().expect("sleep");
        let all = Path::new("/sys/fs/cgroup");
        let roots = fs::read_dir(all).expect("list").flatten();
        let roots = roots.map(|entry| entry.path()).chain([all.to_owned()]);
        for root in roots.filter(|root| root.join("cgroup.procs").exists()) {
            let dir = root.join(path.trim_start_matches('/'));
            if fs::create_dir_all(&dir).is_ok() {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    drop(fs::write(dir.join(file), "0"));
                }
                drop(fs::write(dir.join("cgroup.procs"), child.id().to_string()));
            }
        }
        Self(child)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn busy_cgroup_is_refused() {
    if not_for_peers("busy_cgroup_is_refused") {
        return;
    }
    let path = cgroup_path(&unique("busy"));
    let mut bystander = Bystander::in_cgroup(&path);
    let bundle = Bundle::new("true").set("/linux/cgroupsPath", json!(path));
    drop(bundle.make("create", &[]).fails("not empty"));
    bundle.remove();
    assert!(
        bystander.0.try_wait().expect("wait").is_none(),
        "a stranger in the cgroup must live"
    );
}

#[test]
fn dangerous_cgroup_paths_are_refused() {
    if not_for_peers("dangerous_cgroup_paths_are_refused") {
        return;
    }
    for path in ["/", "..", "/../x", "//"] {
        let bundle = Bundle::new("true").set("/linux/cgroupsPath", json!(path));
        drop(bundle.make("create", &[]).fails("cgroupsPath"));
        assert!(!bundle.runtime.root.join(&bundle.id).exists());
    }
}

#[test]
fn nested_cgroup_is_deleted() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    for dir in cgroup_dirs(&bundle.cgroup()) {
        fs::create_dir_all(dir.join("a/b")).expect("nested cgroups");
    }
    bundle.remove();
    assert_nothing_left(&bundle);
}

/// On cgroup v1 a container without a cgroup namespace is shown its own cgroups as the roots, whatever process namespace
/// it has: a new one, that of its pod, the host's.
#[test]
fn a_cgroup_mount_shows_the_containers_own() {
    if !PathBuf::from("/sys/fs/cgroup/pids").is_dir() {
        return skip(
            "a_cgroup_mount_shows_the_containers_own",
            "this machine has no cgroup v1",
        );
    }
    let script = "cd /sys/fs/cgroup; grep -c . pids/cgroup.procs memory/cgroup.procs; ls -d */fleet-test-* */*/cgroup.procs 2>/dev/null; ls -d */cgroup.procs | wc -l; touch pids/x 2>&1 | grep -o Read-only; mkdir pids/x 2>&1 | grep -o Read-only";
    let pod = Bundle::new("sleep 100");
    pod.start();
    let pid = format!("/proc/{}/ns/pid", pod.runtime.state(&pod.id)["pid"]);
    let here = fs::read_dir("/sys/fs/cgroup").expect("list").flatten();
    let hierarchies = here
        .filter(|entry| {
            entry.path().join("cgroup.procs").exists() && entry.file_name() != "unified"
        })
        .count();
    for joined in [Some(None), Some(Some(pid.as_str())), None] {
        for namespace in [false, true] {
            let mut bundle = Bundle::new(script).mount(
                "/sys/fs/cgroup",
                "cgroup",
                "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", "ro"],
            );
            let all = bundle.spec["linux"]["namespaces"]
                .as_array_mut()
                .expect("namespaces");
            all.retain(|ns| ns["type"] != "pid");
            if let Some(path) = joined {
                bundle = bundle.namespace("pid", path);
            }
            if namespace {
                bundle = bundle.namespace("cgroup", None);
            }
            let text = bundle.run().ok();
            let lines: Vec<&str> = text.lines().collect();
            let count = |line: &str| line.rsplit(':').next().and_then(|n| n.parse::<u32>().ok());
            assert!(
                count(lines[0]).is_some_and(|n| n > 0) && count(lines[1]).is_some_and(|n| n > 0),
                "{joined:?} {namespace}: {text}"
            );
            assert_eq!(
                lines[2..],
                [&hierarchies.to_string(), "Read-only", "Read-only"],
                "{joined:?} {namespace}"
            );
        }
    }
}

#[test]
fn the_names_of_a_joined_uts_namespace() {
    if differs("the_names_of_a_joined_uts_namespace", &["runc"]) {
        return;
    }
    let pod = Bundle::new("sleep 100").set("/hostname", json!("pod"));
    pod.start();
    let namespace = format!("/proc/{}/ns/uts", pod.runtime.state(&pod.id)["pid"]);
    let names = "hostname; cat /proc/sys/kernel/domainname";
    let joining = Bundle::new(names)
        .namespace("uts", Some(&namespace))
        .set("/hostname", json!("renamed"))
        .set("/domainname", json!("example.org"));
    assert_eq!(joining.run().ok(), "renamed\nexample.org\n");
    assert_eq!(pod.exec(&[], &["hostname"]).ok(), "renamed\n");
}

#[test]
fn rootfs_propagation() {
    for mode in ["rslave", "rshared", "rprivate", "slave", "private"] {
        let bundle = Bundle::new("true").set("/linux/rootfsPropagation", json!(mode));
        assert_eq!(bundle.run().code, 0, "{mode}");
    }
}

/// The propagation of a mount of the host.
fn group(point: &str) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read");
    let line = table
        .lines()
        .find(|line| line.split(' ').nth(4) == Some(point));
    let fields = line.expect("a mount").split(" - ").next();
    let fields = fields.expect("fields").split(' ').skip(6);
    fields.collect::<Vec<_>>().join(" ")
}

#[test]
fn mount_propagation() {
    for (option, want) in [
        ("rslave", "master:"),
        ("rprivate", ""),
        ("rshared", "shared:"),
    ] {
        let bundle = Bundle::new("grep ' /v ' /proc/self/mountinfo");
        let source = bundle.dir.join("volume");
        fs::create_dir(&source).expect("mkdir");
        let text = source.display().to_string();
        nix::mount::mount(
            Some(text.as_str()),
            text.as_str(),
            None::<&str>,
            nix::mount::MsFlags::MS_BIND,
            None::<&str>,
        )
        .expect("bind");
        nix::mount::mount(
            None::<&str>,
            text.as_str(),
            None::<&str>,
            nix::mount::MsFlags::MS_SHARED,
            None::<&str>,
        )
        .expect("share");
        let root = if option == "rshared" {
            "rshared"
        } else {
            "rslave"
        };
        let bundle = bundle
            .mount("/v", "bind", &text, &["rbind", option])
            .set("/linux/rootfsPropagation", json!(root));
        let line = bundle.run().ok();
        let fields: Vec<&str> = line
            .split(" - ")
            .next()
            .expect("a line")
            .split(' ')
            .skip(6)
            .collect();
        let tags = fields.join(" ");
        assert!(
            if want.is_empty() {
                tags.is_empty()
            } else {
                tags.contains(want)
            },
            "{option}: {line}"
        );
        // Both ways: of the host's own group, so that what is mounted inside shows outside.
        if option == "rshared" {
            assert_eq!(tags, group(&text), "{line}");
        }
        drop(bundle);
        nix::mount::umount2(text.as_str(), nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

/// The tail's own binds are copies of the host's mounts, which must not stay of their group unasked.
#[test]
fn a_bind_over_a_link_does_not_reach_the_host() {
    if not_for_peers("a_bind_over_a_link_does_not_reach_the_host") {
        return;
    }
    let bundle = Bundle::new("grep ' /real ' /proc/self/mountinfo");
    let source = bundle.dir.join("volume");
    fs::create_dir(&source).expect("mkdir");
    let text = source.display().to_string();
    for flags in [nix::mount::MsFlags::MS_BIND, nix::mount::MsFlags::MS_SHARED] {
        let none = None::<&str>;
        nix::mount::mount(Some(text.as_str()), text.as_str(), none, flags, none).expect("mount");
    }
    std::os::unix::fs::symlink("/real", bundle.dir.join("rootfs/link")).expect("link");
    let bundle = bundle.mount("/link", "bind", &text, &["rbind"]);
    let line = bundle.run().ok();
    assert!(
        line.contains(" master:") && !line.contains(" shared:"),
        "{line}"
    );
    nix::mount::umount2(text.as_str(), nix::mount::MntFlags::MNT_DETACH).ok();
}

#[test]
fn tmpcopyup() {
    let bundle = Bundle::new("cat /data/sub/file; stat -c %a /data /data/sub; touch /data/new")
        .mount("/data", "tmpfs", "tmpfs", &["rw", "tmpcopyup", "rprivate"]);
    let data = bundle.dir.join("rootfs/data/sub");
    fs::create_dir_all(&data).expect("mkdir");
    fs::write(data.join("file"), "from the image\n").expect("write");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o751)).expect("chmod");
    fs::set_permissions(
        bundle.dir.join("rootfs/data"),
        fs::Permissions::from_mode(0o1777),
    )
    .expect("chmod");
    assert_eq!(bundle.run().ok(), "from the image\n1777\n751\n");
    assert!(!bundle.dir.join("rootfs/data/new").exists());
}

#[test]
fn tmpfs_mode() {
    if differs("tmpfs_mode", &["crun"]) {
        return;
    }
    let bundle = Bundle::new("stat -c %a /t").mount("/t", "tmpfs", "tmpfs", &["rw"]);
    fs::create_dir(bundle.dir.join("rootfs/t")).expect("mkdir");
    fs::set_permissions(
        bundle.dir.join("rootfs/t"),
        fs::Permissions::from_mode(0o700),
    )
    .expect("chmod");
    assert_eq!(bundle.run().ok(), "700\n");
}

#[test]
fn bound_dev() {
    if not_for_peers("bound_dev") {
        return;
    }
    let mut bundle = Bundle::new("ls /dev/null /dev/shm > /dev/null && echo fine");
    bundle.spec["mounts"]
        .as_array_mut()
        .expect("mounts")
        .retain(|mount| {
            !mount["destination"]
                .as_str()
                .expect("text")
                .starts_with("/dev")
        });
    let before = fs::read_dir("/dev").expect("list").count();
    let bundle = bundle
        .mount("/dev", "bind", "/dev", &["rbind", "rprivate"])
        .set(
            "/linux/devices",
            json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]),
        );
    assert_eq!(bundle.run().ok(), "fine\n");
    assert_eq!(
        fs::read_dir("/dev").expect("list").count(),
        before,
        "nothing is made in the host's /dev"
    );
}

#[test]
fn no_dev_mount_at_all() {
    let mut bundle = Bundle::new("echo > /dev/null && ls /dev/fd > /dev/null && echo fine");
    bundle.spec["mounts"]
        .as_array_mut()
        .expect("mounts")
        .retain(|mount| {
            !mount["destination"]
                .as_str()
                .expect("text")
                .starts_with("/dev")
        });
    assert_eq!(bundle.run().ok(), "fine\n");
    assert_eq!(
        bundle.run().ok(),
        "fine\n",
        "the second time the links exist"
    );
}

#[test]
fn devices_anywhere_and_twice() {
    if not_for_peers("devices_anywhere_and_twice") {
        return;
    }
    let node = json!({"path": "/opt/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 3, "gid": 4});
    let bundle = Bundle::new("stat -c '%a %u %g %t:%T' /opt/dev/null").set(
        "/linux/devices",
        json!([node, node, {"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]),
    );
    assert_eq!(bundle.run().ok(), "640 3 4 1:3\n");
}

#[test]
fn dev_symlink_leaves_host_alone() {
    if not_for_peers("dev_symlink_leaves_host_alone") {
        return;
    }
    let bundle = Bundle::new("true");
    let outside = bundle.dir.join("outside");
    fs::create_dir(&outside).expect("mkdir");
    fs::remove_dir_all(bundle.dir.join("rootfs/dev")).expect("remove");
    symlink(&outside, bundle.dir.join("rootfs/dev")).expect("link");
    drop(bundle.make("create", &[]).fails("symbolic link"));
    assert_eq!(fs::read_dir(&outside).expect("list").count(), 0);
    assert_nothing_left(&bundle);
}

#[test]
fn own_binary_is_read_only() {
    let bundle = Bundle::new("sleep 100");
    bundle.make("create", &[]).silent();
    let pid = bundle.runtime.state(&bundle.id)["pid"].to_string();
    let exe = fs::File::open(format!("/proc/{pid}/exe")).expect("its binary");
    let read_only = nix::sys::statvfs::fstatvfs(&exe)
        .expect("statvfs")
        .flags()
        .contains(nix::sys::statvfs::FsFlags::ST_RDONLY);
    let seals = nix::fcntl::fcntl(
        std::os::fd::AsRawFd::as_raw_fd(&exe),
        nix::fcntl::FcntlArg::F_GET_SEALS,
    )
    .unwrap_or(0);
    assert!(
        read_only || seals & libc::F_SEAL_WRITE != 0,
        "the waiting process runs from a view that can be written"
    );
}

#[test]
fn dev_stdout_as_user() {
    let bundle = Bundle::new("echo again > /dev/stdout; echo error > /dev/stderr")
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.write();
    let script = format!(
        "{} --root {} run --bundle {} {} 2>&1 | cat",
        bundle.runtime.binary.display(),
        bundle.runtime.root.display(),
        bundle.dir.display(),
        bundle.id
    );
    let text = fleet_tests::run(Command::new("sh").args(["-c", &script])).ok();
    let mut lines: Vec<&str> = text.lines().collect();
    // runc copies the two streams one by one.
    lines.sort_unstable();
    assert_eq!(lines, ["again", "error"]);
}

#[test]
fn cwd_is_made() {
    let bundle = Bundle::new("pwd").set("/process/cwd", json!("/no/such/dir"));
    assert_eq!(bundle.run().ok(), "/no/such/dir\n");
}

#[test]
fn env_order() {
    if not_for_peers("env_order") {
        return;
    }
    let bundle = Bundle::new("cat /proc/self/environ | tr '\\0' '\\n'").set(
        "/process/env",
        json!(["Z=1", "PATH=/bin", "A=1", "Z=2", "HOME=/x"]),
    );
    // The shell passes on what it was given, once each; the first process's own list is the spec's.
    let direct = Bundle::new("")
        .set("/process/args", json!(["/bin/cat", "/proc/self/environ"]))
        .set(
            "/process/env",
            json!(["Z=1", "PATH=/bin", "A=1", "Z=2", "HOME=/x"]),
        );
    drop(bundle);
    assert_eq!(
        direct.run().ok().replace('\0', " "),
        "Z=1 PATH=/bin A=1 Z=2 HOME=/x "
    );
}

#[test]
fn home() {
    if differs("home", &["crun"]) {
        return;
    }
    for (uid, want) in [(0, "/root"), (1000, "/home/ann"), (4242, "/")] {
        let bundle = Bundle::new("echo $HOME").set("/process/user", json!({"uid": uid, "gid": 0}));
        assert_eq!(bundle.run().ok().trim(), want);
    }
}

#[test]
fn private_programs_and_missing_path_variable() {
    let bundle = Bundle::new("")
        .set("/process/args", json!(["/bin/mine"]))
        .set("/process/env", json!([]));
    let program = bundle.dir.join("rootfs/bin/mine");
    fs::write(&program, "#!/bin/sh\necho mine\n").expect("write");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("chmod");
    assert_eq!(bundle.run().ok(), "mine\n");
}

#[test]
fn sigpipe_is_default() {
    let text = Bundle::new("")
        .set("/process/args", json!(["/bin/cat", "/proc/self/status"]))
        .run()
        .ok();
    let bits = |set: &str| u64::from_str_radix(&status(&text, set), 16).expect("hex");
    // SIGPIPE alone of a peer: it hands on what its caller ignored.
    let looked_at = if fleet_tests::ours() {
        u64::MAX
    } else {
        1 << 12
    };
    assert_eq!(
        (bits("SigIgn:") & looked_at, bits("SigBlk:")),
        (0, 0),
        "{text}"
    );
}

#[test]
fn loopback_is_up() {
    let flags = Bundle::new("cat /sys/class/net/lo/flags").run().ok();
    assert_eq!(
        u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).expect("hex") & 1,
        1,
        "{flags}"
    );
}

#[test]
fn read_only_root_and_umask() {
    let bundle = Bundle::new("touch /x 2>/dev/null || echo ro; umask")
        .set("/root/readonly", json!(true))
        .set("/process/user/umask", json!(0o27));
    assert_eq!(bundle.run().ok(), "ro\n0027\n");
}

#[test]
fn rlimits() {
    let bundle = Bundle::new("ulimit -n; ulimit -Hn").set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]),
    );
    assert_eq!(bundle.run().ok(), "100\n200\n");
}

#[test]
fn masked_and_read_only_paths() {
    let bundle = Bundle::new(
        "cat /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/hostname 2>/dev/null || echo refused",
    );
    assert_eq!(bundle.run().ok(), "0\nrefused\n");
}

#[test]
fn disabled_cgroups() {
    if not_for_peers("disabled_cgroups") {
        return;
    }
    let bundle = Bundle::new("echo fine");
    bundle.write();
    let dir = bundle.dir.display().to_string();
    assert_eq!(
        bundle
            .runtime
            .run(&[
                "--cgroup-manager",
                "disabled",
                "run",
                "--bundle",
                &dir,
                &bundle.id
            ])
            .ok(),
        "fine\n"
    );
    assert_nothing_left(&bundle);
}

/// Making a container takes several processes, and none of them counts against what the container may have.
#[test]
fn one_process_is_enough() {
    if !controllers("one_process_is_enough", &["pids"]) {
        return;
    }
    let mut bundle = Bundle::new("true").set("/linux/resources/pids", json!({"limit": 1}));
    bundle.spec["process"]["args"] = json!(["/bin/cat", "/proc/self/cgroup"]);
    let table = bundle.run().ok();
    let path = bundle.spec["linux"]["cgroupsPath"]
        .as_str()
        .expect("a path")
        .to_owned();
    // Without a cgroup namespace the program sees where it is, in every hierarchy in which we made a directory.
    let made: Vec<&str> = table
        .lines()
        .filter(|line| line.ends_with(path.as_str()))
        .collect();
    let mounted = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    // A view of the hierarchies that lies over another one has each of them twice.
    let v1: std::collections::BTreeSet<&str> = mounted
        .lines()
        .filter(|line| line.contains(" /sys/fs/cgroup/") && line.contains(" - cgroup "))
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    assert!(made.len() >= v1.len().max(1), "{table}");
}

/// A container that is shown the host's cgroups sees them as they are, and can move its own processes there.
#[test]
fn bound_cgroups_are_whole() {
    if not_for_peers("bound_cgroups_are_whole") {
        return;
    }
    let script = "for f in $(find /sys/fs/cgroup -path \"*$OWN/cgroup.procs\"); do grep -qx $$ $f && echo 0 > $f && echo moved; done | sort -u";
    let mut bundle =
        Bundle::new(script).mount("/sys/fs/cgroup", "bind", "/sys/fs/cgroup", &["rbind", "rw"]);
    let path = bundle.spec["linux"]["cgroupsPath"].clone();
    bundle.spec["process"]["env"]
        .as_array_mut()
        .expect("env")
        .push(json!(format!("OWN={}", path.as_str().expect("a path"))));
    bundle.spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("namespaces")
        .retain(|ns| ns["type"] != "pid");
    assert_eq!(bundle.run().ok(), "moved\n");
}
