//! Containers that stay: services, pods, terminals, and what a service manager hears.

use super::*;

#[test]
fn life_of_a_service() {
    let name = unique("svc");
    drop(
        podman(&[
            "run",
            "-d",
            "--name",
            &name,
            "fleet-busybox",
            "sh",
            "-c",
            "echo started; trap 'exit 7' TERM; while :; do sleep 0.1; done",
        ])
        .ok(),
    );
    assert!(podman(&["exec", &name, "id"]).ok().contains("uid=0"));
    assert_eq!(podman(&["exec", &name, "/no/such"]).code, 127);
    assert_eq!(podman(&["exec", &name, "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(
        podman(&[
            "exec",
            "--user",
            "1000",
            "-w",
            "/tmp",
            "-e",
            "A=b",
            &name,
            "sh",
            "-c",
            "id -u; pwd; echo $A"
        ])
        .ok(),
        "1000\n/tmp\nb\n"
    );
    assert!(
        podman(&[
            "exec",
            "-t",
            &name,
            "sh",
            "-c",
            "test -t 0 && echo terminal"
        ])
        .ok()
        .contains("terminal")
    );
    assert!(podman(&["top", &name]).ok().contains("sleep"));
    assert!(
        podman(&["stats", "--no-stream", &name])
            .ok()
            .contains(&name)
    );
    drop(podman(&["pause", &name]).ok());
    assert!(
        podman(&[
            "ps",
            "-a",
            "--filter",
            &format!("name={name}"),
            "--format",
            "{{.Status}}"
        ])
        .ok()
        .contains("Paused")
    );
    drop(podman(&["unpause", &name]).ok());
    assert_eq!(podman(&["logs", &name]).ok(), "started\n");
    drop(podman(&["stop", &name]).ok());
    assert_eq!(
        podman(&["inspect", &name, "--format", "{{.State.ExitCode}}"]).ok(),
        "7\n"
    );
    drop(podman(&["rm", &name]).ok());
    drop(
        podman(&[
            "run",
            "-d",
            "--name",
            &name,
            "fleet-busybox",
            "sleep",
            "100",
        ])
        .ok(),
    );
    drop(podman(&["kill", "-s", "KILL", &name]).ok());
    assert_eq!(podman(&["wait", &name]).ok(), "137\n");
    drop(podman(&["rm", &name]).ok());
    let left = fs::read_dir("/run/fleet-nvidia").map_or(0, |all| {
        all.flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .count()
    });
    assert_eq!(left, 0, "state of a removed container is left");
}

#[test]
fn pods() {
    let pod = unique("pod");
    drop(create_pod(&pod).ok());
    assert_eq!(
        podman(&[
            "run",
            "--rm",
            "--pod",
            &pod,
            "fleet-busybox",
            "echo",
            "in the pod"
        ])
        .ok(),
        "in the pod\n"
    );
    drop(
        podman(&[
            "run",
            "-d",
            "--pod",
            &pod,
            "--name",
            &format!("{pod}-a"),
            "fleet-busybox",
            "sleep",
            "100",
        ])
        .ok(),
    );
    assert!(podman(&["pod", "ps"]).ok().contains(&pod));
    drop(podman(&["pod", "stop", "-t", "0", &pod]).ok());
    drop(podman(&["pod", "rm", "-f", &pod]).ok());
}

/// Podman under a pseudo terminal made by script(1): what a user types at.
fn at_a_terminal(args: &str) -> Output {
    let state = state();
    let line = format!("podman --runtime fleet-nvidia {args}");
    let mut out = run(Command::new("script")
        .env("CONTAINERS_CONF", state.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", state.join("storage.conf"))
        .args(["-qec", &line, "/dev/null"]));
    out.stdout = out.stdout.replace('\r', "").replace("^@", "");
    out
}

#[test]
fn terminals() {
    let text = at_a_terminal("run --rm -it fleet-busybox sh -c 'tty; stty size; exit 3'");
    assert_eq!(text.code, 3, "{text:#?}");
    assert!(text.stdout.contains("/dev/pts/0"), "{text:#?}");
    let service = Service::new(&[], "fleet-busybox");
    let text = at_a_terminal(&format!("exec -it {} sh -c 'tty; id -u'", service.0));
    assert!(
        text.code == 0 && text.stdout.contains("/dev/pts/0\n0\n"),
        "{text:#?}"
    );
    let user = podman(&[
        "run",
        "--rm",
        "-t",
        "--user",
        "1000",
        "fleet-busybox",
        "sh",
        "-c",
        "stat -c %u $(tty); echo again > /dev/stdout",
    ])
    .ok();
    assert_eq!(user.replace('\r', ""), "1000\nagain\n");
}

#[test]
fn created_then_started_then_attached() {
    let name = unique("created");
    drop(
        podman(&[
            "create",
            "--name",
            &name,
            "-i",
            "fleet-busybox",
            "sh",
            "-c",
            "echo from the start; exit 4",
        ])
        .ok(),
    );
    let out = podman(&["start", "-a", &name]);
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (4, "from the start\n"),
        "{out:#?}"
    );
    drop(podman(&["rm", &name]).ok());
}

#[test]
fn files_checks_and_signals_of_a_service() {
    let service = Service::new(
        &[
            "--health-cmd",
            "test -e /healthy",
            "--health-interval",
            "disable",
            "--stop-signal",
            "USR1",
        ],
        "fleet-busybox",
    );
    assert_ne!(podman(&["healthcheck", "run", &service.0]).code, 0);
    drop(service.exec("touch /healthy").ok());
    drop(podman(&["healthcheck", "run", &service.0]).ok());
    drop(podman(&["cp", "/etc/hostname", &format!("{}:/copied", service.0)]).ok());
    drop(service.exec("test -s /copied").ok());
    let image = unique("committed");
    drop(podman(&["commit", "-q", &service.0, &image]).ok());
    drop(podman(&["run", "--rm", &image, "test", "-e", "/copied"]).ok());
}

#[test]
fn init_reaps_and_passes_signals_on() {
    let name = unique("init");
    drop(
        podman(&[
            "run",
            "-d",
            "--init",
            "--name",
            &name,
            "fleet-busybox",
            "sh",
            "-c",
            "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done",
        ])
        .ok(),
    );
    fleet_tests::until("the trap", || podman(&["logs", &name]).stdout == "ready\n");
    drop(podman(&["stop", "-t", "5", &name]).ok());
    assert_eq!(podman(&["wait", &name]).ok(), "5\n");
    drop(podman(&["rm", &name]).ok());
}

/// `podman run` under a service manager, which is a socket here; what it hears until Podman has returned.
fn heard(mode: &str) -> Vec<String> {
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    let address = format!("/run/{}", unique("manager"));
    let manager = UnixDatagram::bind(&address).expect("bind");
    manager
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("set a time limit");
    let name = unique("notify");
    let done = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let mut said = Vec::new();
            let mut bytes = [0; 256];
            loop {
                match manager.recv(&mut bytes) {
                    Ok(length) => {
                        let text = String::from_utf8_lossy(&bytes[..length]);
                        said.extend(text.lines().map(str::to_owned));
                    }
                    Err(_) if done.load(Ordering::Relaxed) => return said,
                    Err(_) => {}
                }
            }
        });
        // The program says no more than a socket needs; perl, python and socat are not in the image.
        let script = "test -n \"$NOTIFY_SOCKET\" && say READY=1; sleep 100";
        let state = state();
        let say = fleet_tests::notifier().display().to_string();
        let out = run(Command::new("podman")
            .env("CONTAINERS_CONF", state.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", state.join("storage.conf"))
            .env("NOTIFY_SOCKET", &address)
            .args([
                "--runtime",
                "fleet-nvidia",
                "run",
                "--detach",
                "--name",
                &name,
            ])
            .args([
                "--sdnotify",
                mode,
                "--volume",
                &format!("{say}:/bin/say:ro"),
            ])
            .args(["fleet-busybox", "sh", "-c", script]));
        // A message of the container may come after Podman has returned.
        std::thread::sleep(Duration::from_millis(500));
        done.store(true, Ordering::Relaxed);
        drop(out.ok());
        listening.join().expect("listen")
    });
    drop(podman(&["rm", "--force", "--time", "0", &name]).ok());
    drop(fs::remove_file(address));
    said
}

#[test]
fn a_service_manager_hears_of_the_container() {
    let of = |mode| {
        let said = heard(mode);
        let count = |word: &str| said.iter().filter(|line| line.starts_with(word)).count();
        (count("READY=1"), count("MAINPID="), said.clone())
    };
    for mode in ["container", "conmon"] {
        let (ready, main, said) = of(mode);
        assert_eq!(ready, 1, "{mode}: {said:?}");
        assert!(main >= 1, "{mode}: {said:?}");
    }
    assert_eq!(heard("ignore"), Vec::<String>::new());
}
