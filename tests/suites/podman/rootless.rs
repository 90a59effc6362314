//! Podman of an unprivileged user.

use super::*;

/// An unprivileged user with sub-ids, as `adduser` makes one.
fn user(test: &str) -> bool {
    static USER: OnceLock<Option<String>> = OnceLock::new();
    let failed = USER.get_or_init(|| {
        let script = "set -e
            grep -q ^fleetuser: /etc/passwd || useradd --create-home --home-dir /run/home-fleetuser --shell /bin/bash fleetuser
            grep -q ^fleetuser: /etc/subuid || { echo fleetuser:300000:65536 >> /etc/subuid; echo fleetuser:300000:65536 >> /etc/subgid; }
            id=$(id -u fleetuser); mkdir -p /run/user/$id /run/home-fleetuser; chown fleetuser: /run/user/$id /run/home-fleetuser; chmod 700 /run/user/$id";
        // The account files are the isolated run's own copies.
        let out = run(Command::new("bash").args(["-c", script]));
        (out.code != 0).then(|| out.stderr.trim().to_owned())
    });
    if let Some(reason) = failed {
        skip(test, reason);
    }
    failed.is_none()
}

fn rootless(script: &str) -> Output {
    let top = path("FLEET_STATE")
        .parent()
        .expect("the project")
        .to_path_buf();
    let images = "/run/rootless-images";
    if !PathBuf::from(images).exists() {
        fs::create_dir_all(images).expect("mkdir");
        for image in ["busybox", "glibc"] {
            fs::copy(
                top.join(format!(".state/images/{image}.tar")),
                format!("{images}/{image}.tar"),
            )
            .expect("copy");
        }
        fs::copy(path("RUNTIME_UNDER_TEST"), "/run/fleet-nvidia-binary").expect("copy");
        drop(
            run(Command::new("cp")
                .args(["-r"])
                .arg(top.join("tests/setup"))
                .arg("/run/rootless-setup"))
            .ok(),
        );
        drop(
            run(Command::new("cp")
                .args(["-r"])
                .arg(top.join("packaging"))
                .arg("/run/rootless-packaging"))
            .ok(),
        );
        drop(run(Command::new("sh").args(["-c", "chmod -R a+rX /run/rootless-setup /run/rootless-packaging /run/rootless-images; mkdir -p /run/rl/tests; ln -sfn /run/rootless-setup /run/rl/tests/setup; ln -sfn /run/rootless-packaging /run/rl/packaging"])).ok());
    }
    let prelude = "export XDG_RUNTIME_DIR=/run/user/$(id -u) HOME=/run/home-fleetuser; cd; TOP=/run/rl STATE=/run/home-fleetuser/state RUNTIME=/run/fleet-nvidia-binary; . $TOP/tests/setup/podman.sh
        sed -i 's|^runroot.*|runroot = \"/run/home-fleetuser/run\"|' $STATE/storage.conf
        for i in busybox glibc; do podman image exists r-$i || podman import -q /run/rootless-images/$i.tar r-$i >/dev/null; done
        P='podman --runtime fleet-nvidia'";
    run(Command::new("setpriv").args([
        "--reuid",
        "fleetuser",
        "--regid",
        "fleetuser",
        "--init-groups",
        "--inh-caps=-all",
        "bash",
        "-c",
        &format!("{prelude}\n{script}"),
    ]))
}

#[test]
fn rootless_basics() {
    if !user("rootless_basics") {
        return;
    }
    let out = rootless("$P run --rm r-busybox sh -c 'id -u; cat /proc/self/uid_map | wc -l'");
    assert_eq!(out.ok(), "0\n2\n");
    assert_eq!(
        rootless("$P run --rm --userns keep-id r-busybox id -un")
            .ok()
            .trim(),
        "fleetuser"
    );
    assert_eq!(
        rootless("$P run --rm --tmpfs /t --read-only r-busybox sh -c 'touch /t/x && echo fine'")
            .ok(),
        "fine\n"
    );
    assert_eq!(
        rootless("$P run --rm r-busybox /no/such >/dev/null 2>&1; echo $?").ok(),
        "127\n"
    );
    assert_eq!(rootless("$P run -d --name d r-busybox sleep 100 >/dev/null; $P exec d echo inside; $P rm -f -t 0 d >/dev/null").ok(), "inside\n");
}

#[test]
fn rootless_gpus() {
    if !user("rootless_gpus") || !node("rootless_gpus") {
        return;
    }
    assert!(
        rootless("$P run --rm -e NVIDIA_VISIBLE_DEVICES=all r-glibc nvidia-smi -L")
            .ok()
            .lines()
            .count()
            == 2
    );
    assert!(
        rootless("$P run --rm -e NVIDIA_VISIBLE_DEVICES=1 r-glibc nvidia-smi -L")
            .ok()
            .starts_with("GPU 0")
    );
}

#[test]
fn rootless_service_and_pod() {
    if !user("rootless_service_and_pod") {
        return;
    }
    let script = "$P run -d --name s r-busybox sh -c 'trap \"exit 6\" TERM; echo up; while :; do sleep 0.1; done' >/dev/null
        until $P logs s | grep -q up; do sleep 0.1; done
        $P exec -t s sh -c 'test -t 0 && echo terminal'
        $P exec --user 1000 s id -u
        $P stop -t 5 s >/dev/null; $P wait s; $P rm s >/dev/null
        $P pod create --name p --network host --infra-image r-busybox --infra-command 'sleep 1000' >/dev/null
        $P run --rm --pod p r-busybox echo in the pod
        $P pod rm -f -t 0 p >/dev/null";
    let text = rootless(script).ok().replace('\r', "");
    assert_eq!(text, "terminal\n1000\n6\nin the pod\n");
    let map =
        rootless("$P run --rm --uidmap 0:1:1000 --uidmap 1000:0:1 --user 1000 r-busybox id -u");
    assert_eq!(map.ok(), "1000\n");
    let code = rootless("$P run --rm -e NVIDIA_VISIBLE_DEVICES=9 r-busybox true; echo $?");
    assert_eq!(code.stdout, "126\n", "{code:#?}");
}
