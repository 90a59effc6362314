//! Mounts, links of the image, and devices in user namespaces.

use super::*;

#[test]
fn mount_without_source() {
    let mut bundle = Bundle::new("stat -f -c %T /t");
    bundle.spec["mounts"]
        .as_array_mut()
        .expect("mounts")
        .push(json!({"destination": "/t", "type": "tmpfs"}));
    assert_eq!(bundle.run().ok(), "tmpfs\n");
}

#[test]
fn read_only_dev_and_cgroup_mounts() {
    let bundle = Bundle::new("touch /dev/x 2>/dev/null || echo dev; d=$(ls -d /sys/fs/cgroup/* | head -n 1); mkdir $d/x /sys/fs/cgroup/x 2>/dev/null || echo cgroup; echo > /dev/null && echo null")
        .mount("/dev", "tmpfs", "tmpfs", &["nosuid", "ro", "mode=755"])
        .mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    let mut bundle = bundle;
    // The mounts of /dev must come before what lies in it.
    let mounts = bundle.spec["mounts"].as_array_mut().expect("mounts");
    mounts.sort_by_key(|mount| mount["destination"].as_str().map_or(0, str::len));
    assert_eq!(bundle.run().ok(), "dev\ncgroup\nnull\n");
}

#[test]
fn bind_over_a_dangling_link() {
    let bundle = Bundle::new("cat /link");
    symlink("/made/file", bundle.dir.join("rootfs/link")).expect("link");
    let source = bundle.dir.join("source");
    fs::write(&source, "bound\n").expect("write");
    let bundle = bundle.mount("/link", "bind", source.to_str().expect("text"), &["bind"]);
    assert_eq!(bundle.run().ok(), "bound\n");
}

#[test]
fn bind_options() {
    let holder = Bundle::new("");
    let source = holder.dir.join("v");
    fs::create_dir(&source).expect("mkdir");
    let source = source.to_str().expect("text");
    for (options, want) in [
        (
            &["rbind", "ro", "nosuid", "nodev", "noexec"][..],
            "ro,nosuid,nodev,noexec",
        ),
        (&["bind", "ro"][..], "ro"),
        (&["bind", "rw", "nosuid"][..], "rw,nosuid"),
        (
            &["rbind", "noatime", "nodiratime"][..],
            "rw,noatime,nodiratime",
        ),
    ] {
        let bundle =
            Bundle::new("grep ' /v ' /proc/self/mountinfo").mount("/v", "bind", source, options);
        let line = bundle.run().ok();
        let flags: Vec<&str> = line
            .split(' ')
            .nth(5)
            .expect("options")
            .split(',')
            .collect();
        for word in want.split(',') {
            assert!(flags.contains(&word), "{options:?}: {line}");
        }
    }
}

/// The root user of the namespace may not pass through the source's directories; the caller may.
#[test]
fn private_bind_source_in_a_user_namespace() {
    let bundle = Bundle::new("cat /v/file");
    let private = bundle.dir.join("private");
    fs::create_dir_all(private.join("volume")).expect("mkdir");
    fs::write(private.join("volume/file"), "seen\n").expect("write");
    fs::create_dir(bundle.dir.join("rootfs/v")).expect("mkdir");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("chmod");
    let source = private.join("volume").display().to_string();
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let bundle = bundle
        .namespace("user", None)
        .set("/linux/uidMappings", maps.clone())
        .set("/linux/gidMappings", maps)
        .mount("/v", "bind", &source, &["rbind"]);
    assert_eq!(bundle.run().ok(), "seen\n");
}

#[test]
fn id_map_without_group_zero() {
    if differs("id_map_without_group_zero", &["runc"]) {
        return;
    }
    let map = |first: u64, host: u64| json!([{"containerID": first, "hostID": host, "size": 2000}]);
    for (uids, gids) in [(0, 1), (1, 0), (1, 1)] {
        // crun 1.8 needs a user 0.
        if uids != 0 && !ours() {
            continue;
        }
        let mut bundle = Bundle::new("id -u; id -g; cat /proc/self/gid_map; sleep 100")
            .namespace("user", None)
            .set("/linux/uidMappings", map(uids, 100_000 + uids))
            .set("/linux/gidMappings", map(gids, 100_000 + gids))
            .set("/process/user", json!({"uid": 1000, "gid": 1000}));
        bundle.spec["mounts"]
            .as_array_mut()
            .expect("mounts")
            .retain(|mount| mount["destination"] != "/dev/pts" && mount["destination"] != "/sys");
        bundle.spec["process"]["args"][2] = json!("id -u; id -g");
        assert_eq!(bundle.run().ok(), "1000\n1000\n", "{uids} {gids}");
        if !ours() {
            continue;
        }
        bundle.spec["process"]["args"][2] = json!("sleep 100");
        bundle.start();
        let script =
            "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; grep ^Cap /proc/self/status";
        let text = bundle.exec(&[], &["sh", "-c", script]).ok();
        let seen: Vec<&str> = text.split_whitespace().collect();
        let (user, group) = (uids.to_string(), gids.to_string());
        assert_eq!(
            [seen[0], seen[1], seen[2], seen[5]],
            ["1000", "1000", &user, &group]
        );
        assert!(text.contains("CapEff:\t0000000000000000"), "{text}");
        drop(bundle.runtime.run(&["delete", "--force", &bundle.id]).ok());
        assert_nothing_left(&bundle);
    }
}

#[test]
fn devices_in_a_user_namespace() {
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let bundle = Bundle::new(
        "echo x > /dev/null; head -c 3 /dev/zero | wc -c; test -c /dev/fuse && echo fuse",
    )
    .namespace("user", None)
    .set("/linux/uidMappings", maps.clone())
    .set("/linux/gidMappings", maps)
    .set(
        "/linux/devices",
        json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666}]),
    );
    if !fs::exists("/dev/fuse").unwrap_or(false) {
        skip(
            "devices_in_a_user_namespace",
            "the machine has no /dev/fuse",
        );
        return;
    }
    assert_eq!(bundle.run().ok(), "3\nfuse\n");
}

/// Mount targets, links and masks of an image stay inside its root.
#[test]
fn links_of_the_image_stay_inside() {
    let bundle = Bundle::new("echo ran");
    let outside = bundle.dir.join("outside");
    fs::create_dir(&outside).expect("mkdir");
    for (name, target) in [
        ("absolute", outside.display().to_string()),
        (
            "relative",
            "../../../../../../../../../../../../run".to_owned(),
        ),
    ] {
        symlink(&target, bundle.dir.join("rootfs").join(name)).expect("link");
    }
    let name = unique("through");
    let bundle = bundle
        .mount("/absolute/sub", "tmpfs", "tmpfs", &[])
        .mount(&format!("/relative/{name}"), "tmpfs", "tmpfs", &[])
        .set(
            "/linux/maskedPaths",
            json!(["/absolute/masked", "/proc/kcore", "/proc/kcore"]),
        );
    let out = bundle.run();
    assert!(out.code == 0 || out.stderr.lines().count() == 1, "{out:#?}");
    assert_eq!(
        fs::read_dir(&outside).expect("list").count(),
        0,
        "made outside the root"
    );
    assert!(
        !fs::exists(format!("/run/{name}")).unwrap_or(true),
        "made outside the root"
    );
}

#[test]
fn proc_as_a_link_is_refused() {
    if not_for_peers("proc_as_a_link_is_refused") {
        return;
    }
    for target in ["/tmp", "/proc"] {
        let bundle = Bundle::new("true");
        fs::remove_dir(bundle.dir.join("rootfs/proc")).expect("rmdir");
        symlink(target, bundle.dir.join("rootfs/proc")).expect("link");
        drop(bundle.make("create", &[]).fails("proc must be mounted"));
        assert_nothing_left(&bundle);
    }
}
