//! What cannot be saved or restored is refused in one line, and leaves things as they were.

use fleet_tests::criu::with_another;

use super::*;

/// A node with the numbers of `/dev/fuse`, which opens and which CRIU cannot save, in a GPU's place.
fn with_open_device(path: &str) -> Saved {
    let rule = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "access": "rwm", "type": "c", "major": 10, "minor": 229},
    ]);
    let device = json!([{"path": path, "type": "c", "major": 10, "minor": 229}]);
    let script = format!("exec 9<>{path}; {COUNTER}");
    let bundle = Bundle::new(&script)
        .set("/linux/devices", device)
        .set("/linux/resources/devices", rule);
    Saved::new(bundle)
}

#[test]
fn an_open_gpu_needs_the_plugin() {
    if !ready("an_open_gpu_needs_the_plugin") {
        return;
    }
    if fs::File::open("/sys/class/misc/fuse/dev").is_err() {
        return fleet_tests::skip("an_open_gpu_needs_the_plugin", "the kernel has no fuse");
    }
    let saved = with_open_device("/dev/nvidia-uvm");
    saved.run();
    let pid = saved.pid();
    for options in [&[][..], &["--leave-running"]] {
        let out = saved
            .checkpoint(options)
            .fails("CRIU cannot save the container");
        for words in [
            "which is `/dev/nvidia-uvm`",
            "dump.log`",
            "hint: a process has a GPU open",
            "cuda_plugin.so",
            "cuda-checkpoint",
        ] {
            assert!(out.stderr.contains(words), "{words}: {out:#?}");
        }
        saved.bundle.becomes("running");
        assert_eq!(saved.pid(), pid);
        saved.goes_on();
    }
    assert!(!saved.images.join("fleet-nvidia.json").exists());
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    if !ready("a_restore_that_fails_leaves_nothing") {
        return;
    }
    let saved = Saved::counter();
    saved.run();
    saved.checkpoint(&[]).silent();
    let files: Vec<PathBuf> = fs::read_dir(&saved.images)
        .expect("list the images")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "img"))
        .collect();
    assert!(files.len() > 10, "{files:?}");
    for file in &files {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // What CRIU can do without, or passes over where it is no more.
        if ![
            "core-1.img",
            "inventory.img",
            "mm-1.img",
            "pstree.img",
            "files.img",
        ]
        .contains(&name.as_str())
        {
            continue;
        }
        let whole = fs::read(file).expect("read");
        fs::write(file, &whole[..whole.len() / 2]).expect("write");
        let said = saved.restore_fails();
        assert!(
            said.contains("CRIU cannot restore the container"),
            "{name}: {said}"
        );
        saved.is_gone();
        fs::write(file, whole).expect("write");
    }
    saved.restore(&[]);
    saved.goes_on();
}

/// The engine may be killed with the runtime below it at any time.
#[test]
fn a_restore_that_is_killed_can_be_cleaned_up() {
    if !ready("a_restore_that_is_killed_can_be_cleaned_up") {
        return;
    }
    let saved = Saved::counter();
    saved.run();
    saved.checkpoint(&[]).silent();
    let images = saved.images.display().to_string();
    for delay in [5, 20, 40, 60, 90, 130, 200] {
        let mut child = saved
            .making("restore", &["-d", "--image-path", &images])
            .spawn()
            .expect("restore");
        std::thread::sleep(Duration::from_millis(delay));
        drop(child.kill());
        wait(child);
        saved.bundle.remove();
        until("CRIU to end", || {
            fleet_tests::cgroup_dirs(&saved.bundle.cgroup()).is_empty()
        });
        assert_nothing_left(&saved.bundle);
    }
    saved.restore(&[]);
    saved.goes_on();
}

#[test]
fn processes_of_exec_cannot_be_saved() {
    if !ready("processes_of_exec_cannot_be_saved") {
        return;
    }
    let saved = Saved::counter();
    saved.run();
    let script = "echo $$ > /pid; exec sleep 1000";
    saved.bundle.exec(&["-d"], &["sh", "-c", script]).silent();
    until("the process", || {
        saved.bundle.dir.join("rootfs/pid").exists()
    });
    drop(saved.checkpoint(&[]).fails("by exec"));
    assert!(!saved.images.exists(), "nothing was touched");
    saved.goes_on();
    drop(saved.exec("kill -9 $(cat /pid)"));
    until("it to be saved", || saved.checkpoint(&[]).code == 0);
    saved.is_gone();
}

#[test]
fn states_without_a_program() {
    if !ready("states_without_a_program") {
        return;
    }
    let saved = Saved::counter();
    drop(saved.checkpoint(&[]).fails("does not exist"));
    saved.bundle.make("create", &[]).silent();
    drop(saved.checkpoint(&[]).fails("it is created"));
    saved
        .bundle
        .runtime
        .run(&["kill", &saved.bundle.id, "KILL"])
        .silent();
    saved.bundle.becomes("stopped");
    drop(saved.checkpoint(&[]).fails("it is stopped"));
    saved.bundle.remove();
    assert!(!saved.images.exists());
}

/// Makes a container one that is not supported, by a namespace's path or maps of ids.
type Change = fn(Bundle, &str, &Value) -> Bundle;

#[test]
fn what_is_not_supported_is_named() {
    if !ready("what_is_not_supported_is_named") {
        return;
    }
    let saved = Saved::counter();
    saved.run();
    for (options, word) in [
        (&["--lazy-pages"][..], "lazy-pages"),
        (&["--status-fd", "1"], "status-fd"),
        (&["--page-server", "h:1"], "page-server"),
        (&["--empty-ns", "network"], "empty-ns"),
        (
            &["--manage-cgroups-mode", "full"],
            "manage-cgroups-mode full",
        ),
        (&["--parent-path", "/x"], "not relative"),
    ] {
        drop(saved.checkpoint(options).fails(word));
        saved.bundle.becomes("running");
    }
    let holder = Command::new("sleep").arg("1000").spawn().expect("spawn");
    let ipc = format!("/proc/{}/ns/ipc", holder.id());
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    let kinds: [(&str, Change); 3] = [
        ("the ipc namespace", |bundle, ipc, _| {
            bundle.namespace("ipc", Some(ipc))
        }),
        ("a user namespace", |bundle, _, maps| {
            bundle
                .namespace("user", None)
                .set("/linux/uidMappings", maps.clone())
                .set("/linux/gidMappings", maps.clone())
        }),
        ("`process.ioPriority`", |bundle, _, _| {
            bundle.set(
                "/process/ioPriority",
                json!({"class": "IOPRIO_CLASS_BE", "priority": 4}),
            )
        }),
    ];
    for (word, change) in kinds {
        let other = Saved::new(change(Bundle::new("sleep 1000"), &ipc, &maps));
        other.start();
        drop(other.checkpoint(&[]).fails(word));
        assert!(!other.images.exists(), "nothing was touched");
        other.bundle.becomes("running");
        other.bundle.remove();
    }
    let mut holder = holder;
    drop(holder.kill());
    wait(holder);
    // The same of a restore, ahead of everything.
    saved.checkpoint(&[]).silent();
    for option in [
        "--lazy-pages",
        "--lsm-profile=selinux:x",
        "--lsm-mount-context=x",
        "--preserve-fds=1",
        "--manage-cgroups-mode=soft",
    ] {
        drop(fs::remove_file(&saved.output));
        assert_eq!(saved.try_restore(&[option]), Some(1));
        let name = option.split('=').next().unwrap_or_default();
        assert!(saved.said().contains(name), "{}", saved.said());
        saved.is_gone();
    }
    saved.restore(&["--no-pivot", "-no-subreaper"]);
    saved.goes_on();
}

/// Changes a spec; the text is a directory of the host.
type Edit = fn(&mut Value, &str);

#[test]
fn a_spec_that_does_not_fit_the_checkpoint() {
    if !ready("a_spec_that_does_not_fit_the_checkpoint") {
        return;
    }
    let bundle = Bundle::new(COUNTER);
    let volume = bundle.dir.join("volume");
    fs::create_dir(&volume).expect("mkdir");
    let source = volume.display().to_string();
    let mut saved = Saved::new(bundle.mount("/data", "bind", &source, &["rbind"]));
    saved.run();
    saved.checkpoint(&[]).silent();
    let fitting = saved.bundle.spec.clone();
    let changes: [(&str, Edit); 5] = [
        ("mount `/data` was there at the checkpoint", |spec, _| {
            spec["mounts"]
                .as_array_mut()
                .expect("mounts")
                .retain(|m| m["destination"] != "/data");
        }),
        ("mount `/more` of the spec was not there", |spec, source| {
            let more = json!({"destination": "/more", "type": "bind", "source": source, "options": ["bind"]});
            spec["mounts"].as_array_mut().expect("mounts").push(more);
        }),
        ("device `/dev/more` was not there", |spec, _| {
            spec["linux"]["devices"] =
                json!([{"path": "/dev/more", "type": "c", "major": 1, "minor": 3}]);
        }),
        ("annotation `org.criu.config`", |spec, _| {
            spec["annotations"] = json!({"org.criu.config": "/tmp/x"});
        }),
        ("`/no/such`", |spec, _| {
            spec["root"]["path"] = json!("/no/such")
        }),
    ];
    for (word, change) in changes {
        change(&mut saved.bundle.spec, &source);
        let said = saved.restore_fails();
        assert!(said.contains(word), "{word}: {said}");
        saved.is_gone();
        saved.bundle.spec = fitting.clone();
    }
    saved.restore(&[]);
    saved.goes_on();
    // An id that is taken stays what it is.
    let said = saved.restore_fails();
    assert!(said.contains("already exists"), "{said}");
    saved.goes_on();
}

/// A checkpoint may come from anywhere; what this runtime wrote beside CRIU's images is not trusted.
#[test]
fn a_hostile_description() {
    if !ready("a_hostile_description") {
        return;
    }
    let saved = Saved::counter();
    saved.run();
    saved.checkpoint(&[]).silent();
    let file = saved.images.join("fleet-nvidia.json");
    let honest = fs::read_to_string(&file).expect("read");
    let with = |key: &str, to: Value| {
        let mut all = value(&honest);
        all[key] = to;
        all.to_string()
    };
    let outside = |from: Value| with("external", json!([{"point": "/x", "from": from}]));
    for (text, word) in [
        (String::new(), "cannot be used"),
        ("{}".to_owned(), "cannot be used"),
        (with("version", json!(2)), "version"),
        (with("more", json!(1)), "unknown field"),
        (with("stdio", json!(["/etc/shadow"])), "/etc/shadow"),
        (outside(json!({"file": "/etc/shadow"})), "unknown variant"),
        (outside(json!({"mount": "/etc"})), "mount `/etc` was there"),
        (
            outside(json!({"device": "/dev/sda"})),
            "device `/dev/sda` was bound",
        ),
        (outside(json!({"cgroup": ["", "/../../.."]})), "refused"),
        (
            with(
                "external",
                json!([{"point": "/a/../../etc", "from": "null"}]),
            ),
            "refused",
        ),
    ] {
        fs::write(&file, text).expect("write");
        let said = saved.restore_fails();
        assert!(said.contains(word), "{word}: {said}");
        saved.is_gone();
    }
    fs::remove_file(&file).expect("rm");
    std::os::unix::fs::symlink("/etc/passwd", &file).expect("symlink");
    let said = saved.restore_fails();
    assert!(said.contains("fleet-nvidia.json"), "{said}");
    fs::remove_file(&file).expect("rm");
    let said = saved.restore_fails();
    assert!(
        said.contains("holds no checkpoint that this runtime made"),
        "{said}"
    );
    saved.is_gone();
    fs::write(&file, honest).expect("write");
    saved.restore(&[]);
    saved.goes_on();
}

#[test]
fn criu_that_is_missing_or_does_not_do() {
    if !ready("criu_that_is_missing_or_does_not_do") {
        return;
    }
    let saved = Saved::counter();
    saved.run();
    let images = saved.images.display().to_string();
    let checkpoint =
        saved
            .bundle
            .runtime
            .command(&["checkpoint", "--image-path", &images, &saved.bundle.id]);
    // An answer of version 3.14, in CRIU's words.
    let old =
        "head -c 2 <&3 >/dev/null; printf '\\010\\012\\020\\001\\122\\004\\010\\003\\020\\016' >&3";
    for (program, words) in [
        (None, "hint: install the package criu"),
        (
            Some(old),
            "CRIU 3.14 (`/usr/local/sbin/criu`) is too old; hint: 3.17",
        ),
        (Some("exit 1"), "CRIU ended without a word"),
        (Some("kill -9 $$"), "CRIU was killed by signal 9"),
        (
            // It hears the question out, else the question is what fails.
            Some("head -c 2 <&3 >/dev/null; printf nonsense >&3"),
            "CRIU's answer cannot be understood",
        ),
        (
            Some("[ -z \"$HOME$SECRET\" ] && [ \"$PWD\" = / ] && exit 1; printf x >&3"),
            "CRIU ended without a word",
        ),
    ] {
        let mut command = with_another(&checkpoint, program);
        drop(run(command.env("SECRET", "x")).fails(words));
        assert!(!saved.images.exists(), "nothing was touched");
        saved.bundle.becomes("running");
        saved.goes_on();
    }
    saved.checkpoint(&[]).silent();
    let restore = saved.making("restore", &["-d", "--image-path", &images]);
    drop(run(&mut with_another(&restore, None)).fails("hint: install the package criu"));
    saved.is_gone();
    // The help is what engines look at; whether there is a CRIU they find out themselves.
    let help = saved.bundle.runtime.run(&["checkpoint", "--help"]).ok();
    assert!(help.contains("--image-path"), "{help}");
    let help = saved.bundle.runtime.run(&["restore", "--help"]).ok();
    assert!(
        help.starts_with("Revive the processes of a container"),
        "{help}"
    );
    let features = value(&saved.bundle.runtime.run(&["features"]).ok());
    assert_eq!(
        features["annotations"]["org.opencontainers.runc.checkpoint.enabled"],
        "true"
    );
}
