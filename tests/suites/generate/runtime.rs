//! What the runtime makes of a machine without a CDI spec.

use super::*;

/// Without a spec, or with one of another driver, the plan is made from proc and files, as the runtime makes it.
#[test]
fn a_plan_needs_no_spec_file() {
    let Some(node) = Node::new("a_plan_needs_no_spec_file", "h100x2") else {
        return;
    };
    let root = node.0.display().to_string();
    let bundle = node.0.join("config.json");
    let spec = serde_json::json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=1"]}});
    fs::write(&bundle, spec.to_string()).expect("write the bundle");
    let file = bundle.display().to_string();
    let explain = || node.ctl(&["--root-dir", &root, "explain", &file]);
    let made = explain().ok();
    assert!(
        made.contains("/dev/nvidia1 ") && made.contains("libcuda.so.550.54.15"),
        "{made}"
    );
    assert!(!made.contains("/dev/nvidia0 "), "{made}");
    fs::create_dir_all(node.0.join("etc/cdi")).expect("make the CDI directory");
    let output = node.0.join("etc/cdi/nvidia.yaml");
    drop(
        node.generate(&["--output", &output.display().to_string()])
            .ok(),
    );
    let written = explain().ok();
    assert!(written.contains("/etc/cdi/nvidia.yaml"), "{written}");
    // An update of the driver.
    let text = fs::read_to_string(&output).expect("read the spec");
    fs::write(&output, text.replace("550.54.15", "535.1")).expect("write the spec");
    let healed = explain().ok();
    assert!(
        healed.contains("libcuda.so.550.54.15") && !healed.contains("535.1/"),
        "{healed}"
    );
    // The driver comes in a container, as NVIDIA's operator has it.
    fs::remove_file(&output).expect("remove the spec");
    fs::create_dir_all(node.0.join("run/nvidia/driver")).expect("make the driver root");
    let moved = node.0.join("run/nvidia/driver/usr");
    fs::rename(node.0.join("usr"), moved).expect("move the driver");
    let there = explain().ok();
    let library = "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15";
    assert!(
        there.contains(library) && there.contains("/dev/nvidia1 "),
        "{there}"
    );
}

/// A container made from a generated spec sees its GPUs: the driver tree is the simulated one, in its place.
#[test]
fn a_container_gets_its_gpus_from_a_generated_spec() {
    let test = "a_container_gets_its_gpus_from_a_generated_spec";
    let Some(node) = Node::new(test, "h100x2") else {
        return;
    };
    drop(fs::remove_dir_all("/etc/cdi"));
    fs::create_dir_all("/etc/cdi").expect("make the CDI directory");
    let root = node.0.display().to_string();
    let args = [
        "--root-dir",
        "/",
        "cdi",
        "generate",
        "--driver-root",
        &root,
        "--output",
        "/etc/cdi/nvidia.yaml",
    ];
    drop(node.ctl(&args).ok());
    drop(node.ctl(&["cdi", "validate"]).ok());
    let script = "ls /dev/nvidia*; ls /usr/lib/x86_64-linux-gnu/libcuda.so.1 /usr/bin/nvidia-smi";
    let mut bundle = Bundle::new(script).mount(
        "/usr/share/nvidia/fleet-sim-machine.json",
        "bind",
        &format!("{root}/usr/share/nvidia/fleet-sim-machine.json"),
        &["bind", "ro"],
    );
    bundle.spec["annotations"] = serde_json::json!({"cdi.k8s.io/test": "nvidia.com/gpu=1"});
    let out = bundle.run().ok();
    let lines: BTreeSet<&str> = out.lines().collect();
    for line in [
        "/dev/nvidia1",
        "/dev/nvidiactl",
        "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
        "/usr/bin/nvidia-smi",
    ] {
        assert!(lines.contains(line), "{line}: {out}");
    }
    assert!(!lines.contains("/dev/nvidia0"), "{out}");
    fs::remove_file("/etc/cdi/nvidia.yaml").expect("remove the spec");
}

/// No CDI spec, a loaded driver whose files come in a container, and an image that asks by its environment.
#[test]
fn a_container_without_any_spec() {
    let test = "a_container_without_any_spec";
    let driver = "/run/nvidia/driver";
    drop(fs::remove_dir_all("/etc/cdi"));
    let simulate = path("FLEET_PROGRAMS").join("fleet-simulate");
    let mut command = Command::new(simulate);
    let made = run(command.args(["create", "--machine", "h100x2", "--root", driver]));
    let script = "set -e; mount -t tmpfs none /proc/driver; mkdir /proc/driver/nvidia; \
        mount --bind /run/nvidia/driver/proc/driver/nvidia /proc/driver/nvidia";
    let mounted = run(Command::new("sh").args(["-c", script]));
    for out in [&made, &mounted] {
        if out.code != 0 {
            return skip(test, out.stderr.trim());
        }
    }
    let script = "ls /dev/nvidia*; ls /usr/lib/x86_64-linux-gnu/libcuda.so.1";
    let mut bundle = Bundle::new(script);
    let env = bundle.spec["process"]["env"].as_array_mut().expect("env");
    env.push("NVIDIA_VISIBLE_DEVICES=1".into());
    let mut out = bundle.run();
    // What was just made is not kept, since it may still change within one tick of the clock.
    let kept = Path::new("/run/fleet-nvidia-cache/nvidia.com-gpu.json");
    for _ in 0..5 {
        if out.code == 0 && !kept.is_file() {
            std::thread::sleep(Duration::from_millis(1100));
            out = bundle.run();
        }
    }
    let was_kept = kept.is_file();
    let again = bundle.run();
    drop(run(Command::new("sh").args([
        "-c",
        "umount /proc/driver/nvidia; umount /proc/driver",
    ])));
    fs::remove_dir_all("/run/nvidia").expect("remove the node");
    let out = out.ok();
    assert!(was_kept, "the runtime keeps what it made");
    assert_eq!(again.ok(), out);
    let lines: BTreeSet<&str> = out.lines().collect();
    assert!(
        lines.contains("/dev/nvidia1") && lines.contains("/dev/nvidiactl"),
        "{out}"
    );
    assert!(!lines.contains("/dev/nvidia0"), "{out}");
    assert!(
        lines.contains("/usr/lib/x86_64-linux-gnu/libcuda.so.1"),
        "{out}"
    );
}

/// What a machine's plan is kept in, and what would be made without it.
struct Kept {
    node: Node,
    above: PathBuf,
    fresh: Live,
    live: Live,
    file: PathBuf,
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.above));
    }
}

impl Kept {
    fn new(test: &str) -> Option<Self> {
        let node = Node::new(test, "mig-mixed")?;
        let above = PathBuf::from("/run").join(unique("store"));
        fs::create_dir(&above).expect("make a directory");
        let owner = fs::metadata(&above).expect("look at it").uid();
        let fresh = Live::new(&node.0);
        let live = fresh.clone().keeping(Some(Store::below(&above, owner)));
        let file = above.join("fleet-nvidia-cache/nvidia.com-gpu.json");
        Some(Self {
            node,
            above,
            fresh,
            live,
            file,
        })
    }

    fn made(live: &Live) -> Spec {
        let made = live.rebuild("nvidia.com/gpu", true).expect("GPUs");
        made.expect("a driver").spec
    }

    /// Has it kept anew, with a mark by which one sees whether it is taken.
    fn keep(&self) {
        drop(fs::remove_file(&self.file));
        std::thread::sleep(Duration::from_millis(1100));
        drop(Self::made(&self.live));
        let text = fs::read_to_string(&self.file).expect("it is kept");
        let marked = text.replace("NVIDIA_VISIBLE_DEVICES=void", "NVIDIA_VISIBLE_DEVICES=kept");
        assert_ne!(text, marked);
        fs::write(&self.file, marked).expect("mark it");
    }

    /// Whether it is taken; if not, what is made must be right all the same.
    fn is_taken(&self) -> bool {
        let spec = Self::made(&self.live);
        let env = &spec.container_edits.env;
        let is_taken = env.iter().any(|entry| entry.ends_with("=kept"));
        assert!(is_taken || spec == Self::made(&self.fresh), "{spec:#?}");
        is_taken
    }

    /// The file in `proc` of a GPU, below the driver's directory.
    fn gpu(&self) -> String {
        let gpus = fs::read_dir(self.node.0.join("proc/driver/nvidia/gpus")).expect("list proc");
        let first = gpus.flatten().map(|entry| entry.file_name()).min();
        format!("gpus/{}/information", first.expect("a GPU").display())
    }

    fn replace_in_proc(&self, path: &str, from: &str, to: &str) {
        let path = self.node.0.join("proc/driver/nvidia").join(path);
        let text = fs::read_to_string(&path).expect("read proc");
        assert!(text.contains(from), "{text}");
        drop(fs::remove_file(&path));
        fs::write(&path, text.replace(from, to)).expect("write proc");
    }
}

/// What was made in memory is taken again, but only if it is whole and can be nobody else's.
#[test]
fn what_was_made_is_kept_if_it_is_the_users_own() {
    let Some(kept) = Kept::new("what_was_made_is_kept_if_it_is_the_users_own") else {
        return;
    };
    drop(Kept::made(&kept.live));
    assert!(!kept.file.exists(), "the node has just been made");
    kept.keep();
    assert!(kept.is_taken() && kept.is_taken());
    let original = fs::read(&kept.file).expect("read it");
    std::os::unix::fs::chown(&kept.file, Some(12345), None).expect("give it away");
    assert!(!kept.is_taken());
    for broken in [&b""[..], b"{", &original[..original.len() / 2]] {
        kept.keep();
        fs::write(&kept.file, broken).expect("break it");
        assert!(!kept.is_taken());
    }
}

#[test]
fn what_was_made_is_kept_while_the_machine_is_the_same() {
    let Some(kept) = Kept::new("what_was_made_is_kept_while_the_machine_is_the_same") else {
        return;
    };
    let (node, gpu) = (&kept.node.0, kept.gpu());
    let changes: [(&str, &dyn Fn()); 5] = [
        ("a GPU gets its UUID", &|| {
            kept.replace_in_proc(&gpu, "GPU-", "GPU-f");
        }),
        ("a partition goes", &|| {
            let capabilities = node.join("proc/driver/nvidia/capabilities/gpu0/mig");
            let parts = fs::read_dir(capabilities).expect("list proc").flatten();
            let part = parts.map(|entry| entry.path()).max().expect("a partition");
            fs::remove_dir_all(part).expect("remove it");
        }),
        ("a node gets other numbers", &|| {
            let path = node.join("dev/nvidia-modeset");
            fs::remove_file(&path).expect("remove the node");
            let mut mknod = Command::new("mknod");
            drop(run(mknod.arg(&path).args(["c", "1", "3"])).ok());
        }),
        ("a library comes", &|| {
            let dir = node.join("usr/lib/x86_64-linux-gnu");
            let from = dir.join("libnvidia-ml.so.550.54.15");
            fs::copy(from, dir.join("libnvidia-new.so.550.54.15")).expect("copy a library");
        }),
        ("the machine is started anew", &|| {
            let path = node.join("proc/sys/kernel/random/boot_id");
            fs::create_dir_all(path.parent().expect("a directory")).expect("make proc");
            fs::write(path, "6f1c2a34-0000-4000-8000-123456789abc\n").expect("write proc");
        }),
    ];
    for (what, change) in changes {
        kept.keep();
        assert!(kept.is_taken(), "before {what}");
        change();
        assert!(!kept.is_taken(), "{what}");
    }
}

/// The driver is loaded, udev has made no nodes, and the operator's settings are these.
struct WithoutNodes(Node);

impl WithoutNodes {
    const MADE: &str = "device node /dev/nvidia0 (195:0) was missing and has been made";

    fn new(test: &str) -> Option<Self> {
        let nodes = Self(Node::new(test, "mig-mixed")?);
        nodes.configure("");
        nodes.write_spec();
        Some(nodes)
    }

    fn dev(&self) -> PathBuf {
        self.0.0.join("dev")
    }

    fn clear(&self) {
        for name in [
            "nvidiactl",
            "nvidia-uvm",
            "nvidia-uvm-tools",
            "nvidia0",
            "nvidia1",
        ] {
            drop(fs::remove_file(self.dev().join(name)));
        }
        drop(fs::remove_dir_all(self.dev().join("nvidia-caps")));
    }

    fn configure(&self, text: &str) {
        let path = self.0.0.join("etc/fleet-nvidia/config.toml");
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, format!("{text}\n[audit]\njournald = true\n")).expect("configure");
    }

    /// A spec with the numbers of the real driver, as the nodes will have them.
    fn write_spec(&self) {
        let output = self.0.0.join("etc/cdi/nvidia.yaml");
        let name = output.display().to_string();
        let generated = self.0.generate(&["--source", "proc", "--output", &name]);
        let text = fs::read_to_string(&output).unwrap_or_else(|_| panic!("{generated:#?}"));
        let lines = text
            .lines()
            .filter(|line| !line.contains("major:") && !line.contains("minor:"));
        fs::write(&output, lines.collect::<Vec<_>>().join("\n")).expect("write the spec");
        self.clear();
    }

    fn forget_spec(&self) {
        fs::remove_file(self.0.0.join("etc/cdi/nvidia.yaml")).expect("remove the spec");
        self.clear();
    }

    fn asked() -> serde_json::Value {
        serde_json::json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=0:0"]}})
    }

    fn inject(&self, missing: MissingNodes) -> Result<fleet_host::Outcome, String> {
        let host = Live::new(&self.0.0).with_missing_nodes(missing);
        let outcome = fleet_host::inject_with(&mut Self::asked(), &Env::default(), &host);
        outcome.map_err(|err| err.to_string())
    }

    /// What a request for one partition makes; `others` says whether more than it needs.
    fn are_made(&self, others: bool) {
        let outcome = self.inject(MissingNodes::Made).expect("the nodes are made");
        assert!(
            outcome.warnings.iter().any(|said| said == Self::MADE),
            "{outcome:#?}"
        );
        let record = String::from_utf8(outcome.record.expect("a record")).expect("text");
        assert!(record.contains(Self::MADE), "{record}");
        let granted = outcome.granted.iter();
        let flags: Vec<_> = granted.map(|one| (one.path.as_str(), one.made)).collect();
        assert!(flags.contains(&("/dev/nvidia0", true)), "{flags:?}");
        assert!(flags.contains(&("/dev/nvidia-modeset", false)), "{flags:?}");
        for name in ["nvidiactl", "nvidia0"] {
            let meta = fs::metadata(self.dev().join(name)).expect("the node");
            assert_eq!((meta.mode() & 0o7777, meta.rdev() >> 8), (0o666, 195));
        }
        let caps = fs::read_dir(self.dev().join("nvidia-caps")).expect("a directory");
        let modes = caps.flatten().map(|entry| {
            let meta = entry.metadata().expect("a node");
            meta.mode() & 0o7777
        });
        let modes: Vec<_> = modes.collect();
        assert!(
            modes.len() >= 2 && modes.iter().all(|mode| *mode == 0o444),
            "{modes:?}"
        );
        assert_eq!(self.dev().join("nvidia1").exists(), others);
        let again = self.inject(MissingNodes::Made).expect("they are there");
        let mut said = again.warnings.iter();
        assert!(
            !said.any(|said| said.contains("has been made")),
            "{again:#?}"
        );
    }

    /// `explain` tells what would be made, and makes nothing.
    fn are_told(&self) {
        let bundle = self.0.0.join("config.json");
        fs::write(&bundle, Self::asked().to_string()).expect("write the bundle");
        let (root, bundle) = (self.0.0.display().to_string(), bundle.display().to_string());
        let told = self.0.ctl(&["--root-dir", &root, "explain", &bundle]).ok();
        assert!(
            told.contains("/dev/nvidia0 (195:0) is missing and would be made"),
            "{told}"
        );
        assert!(!self.dev().join("nvidia0").exists());
    }
}

/// A container gets those that it needs.
#[test]
fn nodes_that_are_missing_are_made_for_a_container() {
    let Some(nodes) = WithoutNodes::new("nodes_that_are_missing_are_made_for_a_container") else {
        return;
    };
    nodes.are_told();
    nodes.are_made(false);
    nodes.forget_spec();
    nodes.are_told();
    // Without a spec nobody knows which belong to it alone.
    nodes.are_made(true);
}

#[test]
fn nodes_that_may_not_be_made_are_named() {
    let Some(nodes) = WithoutNodes::new("nodes_that_may_not_be_made_are_named") else {
        return;
    };
    let reason = "that takes root outside of user namespaces";
    let stay = || {
        nodes
            .inject(MissingNodes::Stay(reason))
            .expect_err("no nodes")
    };
    let err = stay();
    let command =
        "hint: fleet-nvidia-ctl system create-device-nodes --control-devices --gpu-devices";
    assert!(err.contains(reason) && err.contains(command), "{err}");
    nodes.configure("create-device-nodes = false");
    assert!(nodes.inject(MissingNodes::Made).is_err());
    assert!(!nodes.dev().join("nvidia0").exists());
    nodes.configure("");
    nodes.forget_spec();
    let err = stay();
    assert!(err.contains("its node /dev/nvidia0 is missing"), "{err}");
}
