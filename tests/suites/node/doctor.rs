//! `doctor` finds, repairs and smokes; services are asked for real.

use super::*;

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
