//! The admin tool on a node: engines read what `configure` wrote.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use fleet_tests::{Bundle, Output, assert_nothing_left, path, run, skip, until};
use serde_json::{Value, json};

/// The tool, with the binary under test named as the runtime where `configure` is asked for.
fn ctl(args: &[&str]) -> Output {
    let mut command = Command::new(path("FLEET_CTL"));
    command.args(args);
    if args[0] == "configure" && !args.contains(&"--remove") {
        command
            .arg("--runtime-path")
            .arg(path("RUNTIME_UNDER_TEST"));
    }
    run(&mut command)
}

/// Settings for the limits of a test machine, in the system's own files: `tests/isolate` gives us an empty
/// /etc/containers.
fn plain_podman() {
    // Other suites that ran before leave files of theirs.
    if fs::exists("/run/node-suite").expect("stat") {
        return;
    }
    fs::create_dir_all("/run/node-suite").expect("mkdir");
    fs::write(
        "/etc/containers/storage.conf",
        "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/node-suite/run\"\ngraphroot = \"/run/node-suite/graph\"\n",
    )
    .expect("write storage.conf");
    fs::write(
        "/etc/containers/containers.conf",
        "# a site's own\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime_supports_json = [\"crun\", \"site\"]\n[containers]\nlog_driver = \"k8s-file\"\nnetns = \"host\"\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=1024:4096\"]\n",
    )
    .expect("write containers.conf");
    let image = path("FLEET_STATE").join("images/busybox.tar");
    drop(podman(&["import", "-q", &image.display().to_string(), "node-busybox"]).ok());
}

fn podman(args: &[&str]) -> Output {
    run(Command::new("podman").args(args))
}

#[test]
fn podman_runs_by_name_once_it_is_configured() {
    plain_podman();
    let hello = |name: &str| {
        podman(&[
            "--runtime",
            name,
            "run",
            "--rm",
            "node-busybox",
            "echo",
            "hi",
        ])
    };
    for (args, name) in [
        (vec![], "fleet-nvidia"),
        (vec!["--name", "nvidia"], "nvidia"),
    ] {
        let before = hello(name);
        assert!(
            before
                .stderr
                .contains(&format!("default OCI runtime \"{name}\" not found")),
            "{before:#?}"
        );
        drop(ctl(&[&["configure", "podman"], args.as_slice()].concat()).ok());
        assert_eq!(hello(name).ok(), "hi\n");
        let version = podman(&[
            "--runtime",
            name,
            "info",
            "--format",
            "{{.Host.OCIRuntime.Version}}",
        ]);
        assert!(version.ok().contains("fleet-nvidia version"));
        // The list is in force: with it Podman shows our own one line.
        let wrong = podman(&["--runtime", name, "run", "--rm", "node-busybox", "/no/such"]);
        assert_eq!(wrong.code, 127, "{wrong:#?}");
        let again = ctl(&[&["configure", "podman"], args.as_slice()].concat()).ok();
        assert!(again.starts_with("nothing to do"), "{again}");
    }
    for args in [vec!["--name", "nvidia"], vec![]] {
        drop(ctl(&[&["configure", "podman", "--remove"], args.as_slice()].concat()).ok());
    }
    assert_ne!(hello("fleet-nvidia").code, 0);
    assert!(!fs::exists("/etc/containers/containers.conf.d").expect("stat"));
}

/// The setting counts for the next container, and the explanations in the file stay.
#[test]
fn a_setting_is_changed_and_taken_back() {
    let file = "/run/node-settings.toml";
    let config = |args: &[&str]| ctl(&[&["--config", file, "config"], args].concat());
    drop(config(&["set", "profile=docker"]).fails("`profile` cannot be \"docker\""));
    drop(config(&["set", "proffile=crio"]).fails("`proffile` is no setting; hint: "));
    assert!(!fs::exists(file).expect("stat"), "nothing was written");
    let changes = ["set", "profile=crio", "hooks.native=false"];
    let shown = config(&[changes[0], "--dry-run", changes[1], changes[2]]).ok();
    assert_eq!(config(&changes).ok().trim(), file);
    assert_eq!(fs::read_to_string(file).expect("read"), shown);
    let counts = config(&["show"]).ok();
    assert!(counts.contains("profile = \"crio\""), "{counts}");
    assert!(counts.contains("native = false"), "{counts}");
    drop(config(&["unset", "profile", "hooks.native"]).ok());
    let shipped = config(&["default"]).ok();
    let left = fs::read_to_string(file).expect("read");
    assert_eq!(left, shipped.replace("#= [hooks]", "[hooks]"));
    fs::write(file, "profile = \n").expect("write");
    drop(config(&["set", "profile=crio"]).fails("node-settings.toml:1"));
    fs::remove_file(file).expect("remove");
}

#[test]
fn a_read_only_etc_is_one_plain_line() {
    let script = "mount -t tmpfs -o ro tmpfs /etc/containers && exec \"$0\" configure podman";
    let out = run(Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(path("FLEET_CTL")));
    let words = "write /etc/containers/containers.conf.d/50-fleet-nvidia.conf: read-only file system; hint: ";
    assert!(
        out.code == 1
            && out
                .stderr
                .lines()
                .last()
                .is_some_and(|line| line.contains(words)),
        "{out:#?}"
    );
}

/// Main files as sites have them.
const CONTAINERD: [(&str, &str); 4] = [
    ("none", ""),
    (
        "version 1",
        "[plugins.cri]\nsandbox_image = \"own/pause:1\"\n",
    ),
    (
        "version 2",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"own/pause:1\"\n",
    ),
    (
        "imports",
        "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"own/pause:1\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n",
    ),
];

#[test]
fn containerd_accepts_the_written_files() {
    let test = "containerd_accepts_the_written_files";
    if run(Command::new("which").arg("containerd")).code != 0 {
        return skip(test, "containerd is not installed");
    }
    let binary = path("RUNTIME_UNDER_TEST").display().to_string();
    for (name, main) in CONTAINERD {
        let script = "set -eu; mkdir -p /etc/containerd; mount -t tmpfs tmpfs /etc/containerd
            if [ -n \"$MAIN\" ]; then printf '%s' \"$MAIN\" > /etc/containerd/config.toml; fi
            \"$CTL\" configure containerd --runtime-path \"$BINARY\" >/dev/null
            containerd -c /etc/containerd/config.toml config dump
            \"$CTL\" configure containerd --remove >/dev/null
            if [ -n \"$MAIN\" ]; then printf '%s' \"$MAIN\" | cmp - /etc/containerd/config.toml; fi
            if [ -n \"$(find /etc/containerd -type f ! -name config.toml)\" ]; then find /etc/containerd >&2; exit 9; fi";
        let dump = run(Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .env("MAIN", main)
            .env("CTL", path("FLEET_CTL"))
            .env("BINARY", &binary))
        .ok();
        assert!(
            dump.contains(&format!("BinaryName = \"{binary}\"")),
            "{name}: {dump}"
        );
        assert!(
            dump.contains(".containerd.runtimes.runc]"),
            "{name}: without its default handler the CRI plug-in is not loaded: {dump}"
        );
        assert_eq!(
            dump.contains("sandbox_image = \"own/pause:1\""),
            !main.is_empty(),
            "{name}: {dump}"
        );
        assert_eq!(
            dump.matches("SystemdCgroup = true").count(),
            if name == "imports" { 2 } else { 0 },
            "{name}: {dump}"
        );
    }
}

#[test]
fn docker_accepts_the_written_file() {
    let test = "docker_accepts_the_written_file";
    let help = run(Command::new("sh").args(["-c", "dockerd --help"]));
    if !help.stdout.contains("--validate") {
        return skip(
            test,
            "dockerd 23 or later is not installed: an older one cannot check a file",
        );
    }
    let root = "/run/node-suite/docker";
    drop(ctl(&["configure", "docker", "--root", root]).ok());
    let file = format!("{root}/etc/docker/daemon.json");
    drop(run(Command::new("dockerd").args(["--validate", "--config-file", &file])).ok());
}

/// A simulated node with two GPUs.
fn gpus(test: &str) -> bool {
    static NODE: OnceLock<Option<String>> = OnceLock::new();
    let failed = NODE.get_or_init(|| {
        let mut simulate = Command::new(path("FLEET_PROGRAMS").join("fleet-simulate"));
        simulate.args(["create", "--machine", "h100x2", "--root", "/run/sim-node"]);
        let out = run(simulate.args(["--cdi", "/etc/cdi/nvidia.yaml"]));
        (out.code != 0).then(|| out.stderr.trim().to_owned())
    });
    if let Some(reason) = failed {
        skip(test, reason);
    }
    failed.is_none()
}

fn config(name: &str, text: &str) -> String {
    fs::create_dir_all("/run/node-suite").expect("mkdir");
    let file = format!("/run/node-suite/{name}.toml");
    fs::write(&file, text).expect("write a configuration");
    file
}

/// `run -d` with a configuration of its own.
fn start(bundle: &Bundle, config: &str) -> Output {
    bundle.write();
    let dir = bundle.dir.display().to_string();
    bundle.runtime.run(&[
        "--config", config, "run", "-d", "--bundle", &dir, &bundle.id,
    ])
}

/// The tool, with the record of a container where it looks by itself.
fn at_home(bundle: &Bundle, args: &[&str]) -> Output {
    fs::create_dir_all("/run/fleet-nvidia").expect("mkdir");
    let script = "mount --bind \"$ROOT\" /run/fleet-nvidia && exec \"$0\" \"$@\"";
    run(Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(path("FLEET_CTL"))
        .args(args)
        .env("ROOT", &bundle.runtime.root))
}

/// Engines show no warnings of a runtime that did its work.
#[test]
fn what_a_container_did_not_get_is_found_in_its_record() {
    if !gpus("what_a_container_did_not_get_is_found_in_its_record") {
        return;
    }
    let trail = "/run/node-suite/log/less.jsonl";
    let text = format!("profile = \"crio\"\nfuture = 1\n[audit]\nfile = \"{trail}\"\n");
    let bundle =
        Bundle::new("sleep 1000").set("/process/env", json!(["NVIDIA_VISIBLE_DEVICES=all"]));
    start(&bundle, &config("less", &text)).silent();
    let refused = "all, asked for by variable NVIDIA_VISIBLE_DEVICES, is refused by `";
    let explained = at_home(&bundle, &["explain", &bundle.id]).ok();
    assert!(
        explained.starts_with("nothing was injected\n"),
        "{explained}"
    );
    assert!(
        explained.contains(&format!("\nrefused: {refused}")),
        "{explained}"
    );
    assert!(
        explained.contains("\nwarning: ") && explained.contains("`future` is not known"),
        "{explained}"
    );
    let doctor = at_home(&bundle, &["doctor", "--only", "containers"]);
    assert_eq!(doctor.code, 3, "a warning: {doctor:#?}");
    let name = format!("container {:.12}: ", bundle.id);
    assert!(
        doctor.stdout.contains(&format!("{name}{refused}")),
        "{doctor:#?}"
    );
    assert!(
        doctor.stdout.contains("`future` is not known"),
        "{doctor:#?}"
    );
    let events = fs::read_to_string(trail).expect("read the trail");
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |kind: &str| {
        events
            .iter()
            .find(|event| event["event"] == kind)
            .expect("an event")
    };
    assert_eq!(of("denied")["refused"][0]["asked"], "all");
    let warnings = of("create")["warnings"].as_array().expect("warnings");
    assert!(
        warnings.len() == 1
            && warnings[0]
                .as_str()
                .is_some_and(|text| text.contains("`future`")),
        "{events:#?}"
    );
    assert!(of("start").get("warnings").is_none());
}

#[test]
fn gpus_and_explain_name_the_holder_and_who_asked() {
    if !gpus("gpus_and_explain_name_the_holder_and_who_asked") {
        return;
    }
    let pod = json!({"cdi.k8s.io/x": "nvidia.com/gpu=1", "io.kubernetes.pod.name": "train"});
    let bundle = Bundle::new("exec 3</dev/nvidia1; sleep 1000").set("/annotations", pod);
    start(&bundle, &config("empty", "")).silent();
    let root = bundle.runtime.root.display().to_string();
    let report = || -> Value {
        let out = ctl(&["gpus", "--json", "--state-root", &root]).ok();
        serde_json::from_str(&out).expect("JSON")
    };
    until("the GPU to be opened", || {
        report().to_string().contains("\"command\"")
    });
    let all = report();
    let held = |gpu: usize| {
        all["gpus"][gpu]["containers"]
            .as_array()
            .expect("containers")
            .clone()
    };
    assert_eq!(all["gpus"].as_array().expect("gpus").len(), 2, "{all:#}");
    assert!(held(0).is_empty(), "{all:#}");
    let holder = &held(1)[0];
    assert_eq!(holder["id"], bundle.id.as_str());
    assert_eq!(holder["status"], "running");
    assert_eq!(holder["device"], "nvidia.com/gpu=1");
    assert_eq!(holder["specFile"], "/etc/cdi/nvidia.yaml");
    assert_eq!(
        holder["source"],
        json!({"from": "annotation", "name": "cdi.k8s.io/x"})
    );
    assert_eq!(holder["labels"]["io.kubernetes.pod.name"], "train");
    // cgroup v2 cannot be asked.
    let v1 = fs::exists("/sys/fs/cgroup/devices").expect("stat");
    assert_eq!(
        holder.get("cgroupAllows"),
        v1.then_some(&json!(true)),
        "{all:#}"
    );
    let open = holder["open"].as_array().expect("open");
    assert!(
        open.iter()
            .any(|process| process["command"] == "sh" || process["command"] == "sleep"),
        "{all:#}"
    );
    let metrics = ctl(&["gpus", "--prometheus", "--state-root", &root]).ok();
    assert!(
        metrics.contains("owner=\"container\"}") && metrics.contains("pod=\"train\"} 1\n"),
        "{metrics}"
    );
    let explained = at_home(&bundle, &["explain", &bundle.id]);
    let explained = explained.ok();
    let node = explained
        .lines()
        .find(|line| line.contains("path=/dev/nvidia1 "));
    assert!(
        node.is_some_and(|line| line.ends_with("annotation cdi.k8s.io/x")),
        "{explained}"
    );
    assert!(
        explained.contains("/etc/cdi/nvidia.yaml nvidia.com/gpu=1"),
        "{explained}"
    );
}

#[test]
fn the_audit_trail_tells_of_a_containers_life() {
    if !gpus("the_audit_trail_tells_of_a_containers_life") {
        return;
    }
    fs::create_dir_all("/run/systemd/journal").expect("mkdir");
    let journal =
        UnixDatagram::bind("/run/systemd/journal/socket").expect("bind the journal's socket");
    let file = "/run/node-suite/log/audit.jsonl";
    let on = config(
        "audit",
        &format!("[audit]\nfile = \"{file}\"\njournald = true\n"),
    );
    let asks = |gpu: &str| {
        Bundle::new("sleep 1000").set(
            "/annotations",
            json!({"cdi.k8s.io/x": format!("nvidia.com/gpu={gpu}")}),
        )
    };
    let events = || -> Vec<Value> {
        let text = fs::read_to_string(file).expect("read the trail");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    };
    let bundle = asks("0");
    start(&bundle, &on).silent();
    // Neither start nor delete reads the configuration.
    bundle
        .runtime
        .run(&["delete", "--force", &bundle.id])
        .silent();
    let life = events();
    let kinds: Vec<_> = life.iter().map(|event| event["event"].clone()).collect();
    assert_eq!(kinds, ["create", "start", "delete"]);
    for event in &life {
        assert_eq!(
            (&event["schemaVersion"], &event["container"]),
            (&json!(1), &json!(bundle.id))
        );
        let devices = event["devices"].as_array().expect("devices");
        let gpu = devices
            .iter()
            .find(|device| device["path"] == "/dev/nvidia0")
            .expect("the GPU");
        assert_eq!(gpu["device"], "nvidia.com/gpu=0");
        assert_eq!(gpu["source"]["name"], "cdi.k8s.io/x");
    }
    let mut bytes = [0; 65536];
    let length = journal.recv(&mut bytes).expect("a datagram");
    let first = String::from_utf8_lossy(&bytes[..length]).into_owned();
    assert!(
        first.starts_with("MESSAGE={\"schemaVersion\":1,")
            && first.contains("\nFLEET_EVENT=create\n"),
        "{first}"
    );

    let unknown = asks("9");
    drop(start(&unknown, &on).fails("unresolvable CDI devices nvidia.com/gpu=9"));
    let denied = events().pop().expect("an event");
    assert_eq!(
        (&denied["event"], &denied["container"]),
        (&json!("denied"), &json!(unknown.id))
    );
    assert!(
        denied["error"]
            .as_str()
            .expect("error")
            .starts_with("unresolvable CDI devices")
    );

    let strict = config(
        "strict",
        &format!("[audit]\nfile = \"{file}\"\n[sources]\ncdi-annotations = false\n"),
    );
    let refused = asks("0");
    drop(start(&refused, &strict));
    let told = events();
    let denied = &told[told.len() - 3];
    assert_eq!(denied["event"], "denied", "{told:#?}");
    assert_eq!(denied["refused"][0]["asked"], "nvidia.com/gpu=0");

    // What cannot be written down does not start.
    let bad = config("bad", "[audit]\nfile = \"/proc/no/audit\"\n");
    let lost = asks("0");
    drop(start(&lost, &bad).fails("audit: /proc/no/audit"));
    assert_nothing_left(&lost);
    // Off by default, and for who asks for nothing.
    let before = events().len();
    start(&asks("0"), &config("empty", "")).silent();
    start(&Bundle::new("sleep 1000"), &on).silent();
    assert_eq!(events().len(), before);
}

/// The report of `doctor --json`, and its checks by name.
fn doctor(args: &[&str]) -> (i32, Value) {
    let out = ctl(&[&["doctor", "--json"], args].concat());
    let report = serde_json::from_str(&out.stdout).unwrap_or_else(|err| panic!("{err}: {out:#?}"));
    (out.code, report)
}

fn check<'r>(report: &'r Value, name: &str) -> &'r Value {
    let checks = report["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {name} in {report:#}"))
}

/// A process that ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn daemon(command: &mut Command) -> Daemon {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Daemon(command.spawn().expect("start a daemon"))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("an address").port()
}

/// A server from Debian's package, on loopback.
fn server(program: &str, args: &[&str], port: u16) -> Option<Daemon> {
    let root = path("FLEET_STATE").join("servers");
    let binary = root.join(program);
    if !binary.exists() {
        return None;
    }
    let mut command = Command::new(binary);
    command
        .env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"))
        .current_dir("/run/node-suite");
    let server = daemon(command.args(args));
    until(&format!("{program} to listen"), || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    Some(server)
}

#[test]
fn real_redis_and_nats_are_asked() {
    let test = "real_redis_and_nats_are_asked";
    fs::create_dir_all("/run/node-suite").expect("mkdir");
    let (redis, nats) = (free_port(), free_port());
    let (redis_port, nats_port) = (redis.to_string(), nats.to_string());
    let args = [
        "--bind",
        "127.0.0.1",
        "--port",
        &redis_port,
        "--requirepass",
        "s3cret",
        "--save",
        "",
    ];
    let Some(_redis) = server("usr/bin/redis-server", &args, redis) else {
        return skip(test, "no redis-server: apt could not give it");
    };
    let args = [
        "-a",
        "127.0.0.1",
        "-p",
        &nats_port,
        "--user",
        "ann",
        "--pass",
        "pw",
    ];
    let Some(_nats) = server("usr/sbin/nats-server", &args, nats) else {
        return skip(test, "no nats-server: apt could not give it");
    };
    let ask = |redis_login: &str, nats_login: &str| {
        let redis = format!("redis=redis://{redis_login}127.0.0.1:{redis}");
        let nats = format!("nats=nats://{nats_login}127.0.0.1:{nats}");
        doctor(&["--check-services", "--service", &redis, "--service", &nats])
    };
    let (code, report) = ask(":s3cret@", "ann:pw@");
    assert_eq!(code, 0, "{report:#}");
    assert!(
        check(&report, "service-redis")["text"]
            .as_str()
            .expect("text")
            .ends_with(": PONG")
    );
    assert!(
        check(&report, "service-nats")["text"]
            .as_str()
            .expect("text")
            .ends_with(", PONG")
    );
    assert!(
        !report.to_string().contains("s3cret"),
        "a password is not printed"
    );
    let (code, report) = ask(":wrong@", "");
    assert_eq!(code, 1, "{report:#}");
    let said = |name: &str| {
        check(&report, name)["findings"][0]["text"]
            .as_str()
            .expect("text")
            .to_owned()
    };
    assert!(said("service-redis").contains("WRONGPASS"), "{report:#}");
    assert!(
        said("service-nats").contains("Authorization Violation"),
        "{report:#}"
    );
    let (_, report) = ask("", "ann:pw@");
    let redis = &check(&report, "service-redis")["findings"][0];
    assert!(
        redis["text"].as_str().expect("text").contains("NOAUTH"),
        "{report:#}"
    );
}

#[test]
fn doctor_repairs_podman_and_smokes_it() {
    plain_podman();
    let gpu = gpus("doctor_repairs_podman_and_smokes_it (its devices)");
    // The repair writes the path of the installed binary.
    let script = "mount -t tmpfs -o mode=755 tmpfs /usr/local/bin && cp \"$BINARY\" /usr/local/bin/fleet-nvidia && exec \"$CTL\" doctor \"$@\"";
    let inside = |args: &[&str]| {
        run(Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .args(args)
            .env("BINARY", path("RUNTIME_UNDER_TEST"))
            .env("CTL", path("FLEET_CTL")))
    };
    let before = inside(&["--only", "podman"]);
    assert!(
        before.code == 3 && before.stdout.contains("does not know the runtime by name"),
        "{before:#?}"
    );
    let fixed = inside(&["--only", "podman", "--fix"]);
    assert!(
        fixed.code == 0
            && fixed
                .stdout
                .contains("done: wrote /etc/containers/containers.conf.d/50-fleet-nvidia.conf"),
        "{fixed:#?}"
    );
    let after = inside(&["--only", "podman,runtime"]);
    assert!(
        after.code == 0 && after.stdout.contains("knows it as fleet-nvidia"),
        "{after:#?}"
    );
    let smoke = inside(&["--smoke-podman", "--json"]);
    let report: Value =
        serde_json::from_str(&smoke.stdout).unwrap_or_else(|err| panic!("{err}: {smoke:#?}"));
    assert_eq!(smoke.code, 0, "{report:#}");
    let said = check(&report, "smoke-podman/run")["text"]
        .as_str()
        .expect("text")
        .to_owned();
    assert!(said.starts_with("fleet-nvidia version "), "{report:#}");
    if gpu {
        let devices = &check(&report, "smoke-podman/devices")["text"];
        assert!(
            devices
                .as_str()
                .expect("text")
                .contains("nvidia0 nvidia1 nvidiactl"),
            "{report:#}"
        );
    }
    let left = podman(&["ps", "-a", "--format", "{{.Names}}"]).ok();
    assert!(!left.contains("fleet-smoke"), "{left}");
    if gpu {
        let image = path("FLEET_STATE").join("images/glibc.tar");
        drop(podman(&["import", "-q", &image.display().to_string(), "node-glibc"]).ok());
        let smoke = inside(&["--smoke-podman", "--smoke-image", "node-glibc"]);
        assert!(
            smoke.code == 0 && smoke.stdout.contains("smoke-podman/run GPU 0: NVIDIA H100"),
            "{smoke:#?}"
        );
    }
    let broken = inside(&["--smoke-podman", "--smoke-runtime", "nobody"]);
    assert!(
        broken.code == 1
            && broken
                .stdout
                .contains("default OCI runtime \"nobody\" not found"),
        "{broken:#?}"
    );
    drop(ctl(&["configure", "podman", "--remove"]).ok());
}

#[test]
fn doctor_smokes_containerd() {
    let test = "doctor_smokes_containerd";
    if run(Command::new("which").args(["containerd", "ctr"])).code != 0 {
        return skip(test, "containerd is not installed");
    }
    let _ = gpus(test);
    fs::create_dir_all("/run/node-suite/containerd").expect("mkdir");
    let file = "/run/node-suite/containerd/config.toml";
    let text = "version = 2\nroot = \"/run/node-suite/containerd/root\"\nstate = \"/run/node-suite/containerd/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.aufs\"]\n[grpc]\naddress = \"/run/containerd/containerd.sock\"\n";
    fs::write(file, text).expect("write the configuration");
    let args = ["--smoke-containerd", "--smoke-path"];
    let binary = path("RUNTIME_UNDER_TEST").display().to_string();
    let (code, report) = doctor(&[args.as_slice(), &[&binary]].concat());
    assert_eq!(
        (code, &check(&report, "smoke-containerd")["status"]),
        (0, &json!("skipped")),
        "{report:#}"
    );
    let _containerd = daemon(Command::new("containerd").args(["--config", file]));
    until("containerd to answer", || {
        run(Command::new("ctr").arg("version")).code == 0
    });
    let (code, report) = doctor(&[args.as_slice(), &[&binary]].concat());
    assert_eq!(code, 0, "{report:#}");
    let said = check(&report, "smoke-containerd/run")["text"]
        .as_str()
        .expect("text");
    assert!(said.starts_with("fleet-nvidia version "), "{report:#}");
    // ctr's own parent of its containers' cgroups.
    let _ = run(Command::new("sh").args(["-c", "find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name default -exec rmdir {} + 2>/dev/null"]));
}

#[test]
fn doctor_repairs_nodes_and_links() {
    let test = "doctor_repairs_nodes_and_links";
    let root = "/run/doctor-node";
    let mut simulate = Command::new(path("FLEET_PROGRAMS").join("fleet-simulate"));
    simulate.args([
        "create",
        "--machine",
        "bad-nodes",
        "--nodes",
        "driver",
        "--root",
        root,
    ]);
    let made = run(&mut simulate);
    if made.code != 0 {
        return skip(test, made.stderr.trim());
    }
    let names = [
        "--root-dir",
        root,
        "--only",
        "device-nodes,dev-char,cdi,cdi-fresh",
    ];
    let (code, before) = doctor(&names);
    assert_eq!(code, 1, "{before:#}");
    assert!(
        before
            .to_string()
            .contains("/dev/nvidia1 (195:1) is missing"),
        "{before:#}"
    );
    let (code, fixed) = doctor(&[names.as_slice(), &["--fix"]].concat());
    // The mode of a node that is there is not ours to change.
    assert_eq!(
        (
            code,
            &fixed["summary"]["errors"],
            &fixed["summary"]["warnings"]
        ),
        (3, &json!(0), &json!(1)),
        "{fixed:#}"
    );
    assert_eq!(
        check(&fixed, "cdi")["findings"][0]["fixed"],
        "cdi refresh",
        "{fixed:#}"
    );
    let link = fs::read_link(format!("{root}/dev/char/195:1")).expect("the link");
    assert_eq!(link.to_str(), Some("/dev/nvidia1"));
    let (code, after) = doctor(&names);
    assert_eq!(code, 3, "{after:#}");
    assert!(
        after.to_string().contains("/dev/nvidia3 has mode 0000"),
        "{after:#}"
    );
}

/// A user with subordinate ids; the account files are the isolated run's own copies.
const USER: &str = "set -e
    grep -q ^fleetuser: /etc/passwd || useradd --create-home --home-dir /run/home-fleetuser --shell /bin/bash fleetuser
    grep -q ^fleetuser: /etc/subuid || { echo fleetuser:300000:65536 >> /etc/subuid; echo fleetuser:300000:65536 >> /etc/subgid; }
    id=$(id -u fleetuser); mkdir -p /run/user/$id /run/home-node; chown fleetuser: /run/user/$id /run/home-node; chmod 700 /run/user/$id";

#[test]
fn a_user_configures_rootless_podman() {
    let user = run(Command::new("bash").args(["-c", USER]));
    if user.code != 0 {
        return skip("a_user_configures_rootless_podman", user.stderr.trim());
    }
    let files = [
        (path("RUNTIME_UNDER_TEST"), "/run/node-runtime"),
        (path("FLEET_CTL"), "/run/node-ctl"),
        (
            path("FLEET_STATE").join("images/busybox.tar"),
            "/run/node-busybox.tar",
        ),
    ];
    for (from, to) in files {
        fs::copy(from, to).expect("copy");
    }
    let script = "set -e
        export XDG_RUNTIME_DIR=/run/user/$(id -u) HOME=/run/home-node; cd
        mkdir -p .config/containers
        printf '[storage]\\ndriver = \"vfs\"\\nrunroot = \"/run/home-node/run\"\\ngraphroot = \"/run/home-node/graph\"\\n' > .config/containers/storage.conf
        printf '[engine]\\ncgroup_manager = \"cgroupfs\"\\nevents_logger = \"file\"\\n[containers]\\nlog_driver = \"k8s-file\"\\nnetns = \"host\"\\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=1024:4096\"]\\n' > .config/containers/containers.conf
        podman import -q /run/node-busybox.tar user-busybox >/dev/null
        /run/node-ctl configure podman --user --runtime-path /run/node-runtime
        podman --runtime fleet-nvidia run --rm user-busybox echo by name
        /run/node-ctl configure podman --user --remove
        ls .config/containers/containers.conf.d | wc -l
        /run/node-ctl configure podman || echo refused";
    let out = run(Command::new("setpriv")
        .args([
            "--reuid",
            "fleetuser",
            "--regid",
            "fleetuser",
            "--init-groups",
        ])
        .args(["--inh-caps=-all", "bash", "-c", script]));
    let said = out.stdout.clone();
    assert_eq!(out.code, 0, "{out:#?}");
    let place = "/run/home-node/.config/containers/containers.conf.d/50-fleet-nvidia.conf";
    assert!(said.starts_with(&format!("wrote {place}\n")), "{out:#?}");
    assert!(
        said.contains("\nby name\n") && said.ends_with("0\nrefused\n"),
        "{out:#?}"
    );
    assert!(
        out.stderr
            .contains("permission denied; hint: run it as root"),
        "{out:#?}"
    );
}

#[test]
fn a_device_of_podman_itself_is_the_engines() {
    let test = "a_device_of_podman_itself_is_the_engines";
    plain_podman();
    if !gpus(test) {
        return;
    }
    let image = path("FLEET_STATE").join("images/glibc.tar");
    drop(podman(&["import", "-q", &image.display().to_string(), "node-glibc"]).ok());
    drop(ctl(&["configure", "podman"]).ok());
    let runtime = ["--runtime", "fleet-nvidia"];
    let create = [
        "run",
        "-d",
        "--device",
        "nvidia.com/gpu=0",
        "node-glibc",
        "sleep",
        "1000",
    ];
    let id = podman(&[&runtime[..], &create].concat())
        .ok()
        .trim()
        .to_owned();
    let report: Value = serde_json::from_str(&ctl(&["gpus", "--json"]).ok()).expect("JSON");
    let holders = report["gpus"][0]["containers"]
        .as_array()
        .expect("containers")
        .clone();
    assert!(
        holders
            .iter()
            .any(|holder| holder["id"] == id.as_str()
                && holder["source"] == json!({"from": "engine"})),
        "{report:#}"
    );
    let explained = ctl(&["explain", &id[..12]]).ok();
    assert!(
        explained
            .lines()
            .any(|line| line.contains("/dev/nvidia0 ") && line.ends_with("engine")),
        "{explained}"
    );
    drop(podman(&[&runtime[..], &["rm", "-f", "-t", "0", &id]].concat()).ok());
    drop(ctl(&["configure", "podman", "--remove"]).ok());
}
