//! `podman container checkpoint` and `restore`.

use fleet_tests::criu::criu;
use fleet_tests::until;

use super::*;

const COUNTER: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; echo line $i; sleep 0.05; done";

/// A container that counts; it goes away with the test.
fn counter(options: &[&str]) -> Service {
    let name = unique("saved");
    let args = [
        &["run", "-d", "--name", &name],
        options,
        &["fleet-busybox", "sh", "-c", COUNTER],
    ];
    drop(podman(&args.concat()).ok());
    let service = Service(name);
    until("the container to count", || count(&service) > 1);
    service
}

fn count(service: &Service) -> u64 {
    let out = service.exec("cat /tmp/count");
    out.stdout.trim().parse().unwrap_or(0)
}

fn checkpoint(service: &Service, options: &[&str]) -> Output {
    podman(&[&["container", "checkpoint"], options, &[&service.0]].concat())
}

fn restore(options: &[&str]) -> Output {
    podman(&[&["container", "restore"], options].concat())
}

fn status(service: &Service) -> String {
    podman(&["inspect", "-f", "{{.State.Status}}", &service.0]).ok()
}

#[track_caller]
fn goes_on(service: &Service, from: u64) {
    assert_eq!(status(service), "running\n");
    let before = count(service);
    assert!(before >= from, "{before} is before {from}");
    until("the container to count on", || count(service) > before);
}

#[test]
fn checkpoint_and_restore() {
    if !criu("checkpoint_and_restore") {
        return;
    }
    let service = counter(&[]);
    let before = count(&service);
    drop(checkpoint(&service, &[]).ok());
    assert_eq!(status(&service), "exited\n");
    drop(restore(&[&service.0]).ok());
    goes_on(&service, before);
    let lines = || podman(&["logs", &service.0]).ok().lines().count();
    let so_far = lines();
    until("its output to go on", || lines() > so_far);
    let before = count(&service);
    drop(checkpoint(&service, &["--leave-running", "--keep"]).ok());
    goes_on(&service, before);
    drop(checkpoint(&service, &["--tcp-established", "--file-locks"]).ok());
    drop(restore(&["--tcp-established", "--file-locks", "--keep", &service.0]).ok());
    goes_on(&service, before);
    drop(podman(&["pause", &service.0]).ok());
    drop(podman(&["unpause", &service.0]).ok());
    goes_on(&service, before);
    drop(podman(&["stop", "-t", "0", &service.0]).ok());
    assert_eq!(status(&service), "exited\n");
}

/// To another container, whose root file system is unpacked anew.
#[test]
fn export_and_import() {
    if !criu("export_and_import") {
        return;
    }
    let service = counter(&["--env", "A=b"]);
    drop(service.exec("echo kept > /file").ok());
    let before = count(&service);
    let archive = format!("/run/{}.tar.gz", service.0);
    drop(checkpoint(&service, &["--export", &archive]).ok());
    drop(podman(&["rm", "-f", &service.0]).ok());
    drop(restore(&["--import", &archive]).ok());
    goes_on(&service, before);
    let other = Service(unique("saved"));
    drop(restore(&["--import", &archive, "--name", &other.0]).ok());
    goes_on(&other, before);
    assert_eq!(other.exec("cat /file").ok(), "kept\n");
    drop(fs::remove_file(archive));
}

#[test]
fn options_outlive_a_checkpoint() {
    if !criu("options_outlive_a_checkpoint") {
        return;
    }
    let volume = format!("/run/{}", unique("volume"));
    fs::create_dir(&volume).expect("mkdir");
    fs::write(format!("{volume}/x"), "volume\n").expect("write");
    let mount = format!("{volume}:/data:ro");
    let options = [
        "-v",
        &mount,
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--memory",
        "64m",
        "--pids-limit",
        "50",
        "--network",
        "none",
        "--cap-drop",
        "all",
        "--hostname",
        "named",
        "--init",
    ];
    let service = counter(&options);
    let see = "cut -d' ' -f5- /proc/self/mountinfo | sort; grep -E '^(Cap|NoNew|Seccomp)' /proc/1/status; hostname; cat /data/x; \
        cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max; (echo x > /x) 2>&1 | grep -o 'Read-only file system'";
    let seen = service.exec(see).stdout;
    assert!(seen.contains("volume\n67108864\n50\nRead-only"), "{seen}");
    let before = count(&service);
    drop(checkpoint(&service, &[]).ok());
    drop(restore(&[&service.0]).ok());
    goes_on(&service, before);
    assert_eq!(service.exec(see).stdout, seen);
}

/// conmon is the parent of what is restored, and tells Podman how it ended.
#[test]
fn the_exit_code_after_a_restore() {
    if !criu("the_exit_code_after_a_restore") {
        return;
    }
    let script = "until [ -e /tmp/go ]; do sleep 0.05; done; exit 7";
    let name = unique("saved");
    let args = [
        "run",
        "-d",
        "--name",
        &name,
        "fleet-busybox",
        "sh",
        "-c",
        script,
    ];
    drop(podman(&args).ok());
    let service = Service(name);
    drop(checkpoint(&service, &[]).ok());
    drop(restore(&[&service.0]).ok());
    drop(service.exec("touch /tmp/go").ok());
    assert_eq!(podman(&["wait", &service.0]).ok(), "7\n");
}

#[test]
fn a_terminal_after_a_restore() {
    if !criu("a_terminal_after_a_restore") {
        return;
    }
    let service = counter(&["-t"]);
    let before = count(&service);
    drop(checkpoint(&service, &[]).ok());
    drop(restore(&[&service.0]).ok());
    goes_on(&service, before);
    let lines = || podman(&["logs", &service.0]).ok().lines().count();
    let so_far = lines();
    until("its output to go on", || lines() > so_far);
    assert_eq!(
        service
            .exec("[ -t 0 ] < /proc/1/fd/0 && echo terminal")
            .ok(),
        "terminal\n"
    );
}

#[test]
fn a_gpu_after_a_restore() {
    if !criu("a_gpu_after_a_restore") || !node("a_gpu_after_a_restore") {
        return;
    }
    let service = counter(&["--device", "nvidia.com/gpu=0"]);
    let see =
        "ls /dev; cut -d' ' -f5- /proc/self/mountinfo | sort; true < /dev/nvidia0 && echo opens";
    let seen = service.exec(see).ok();
    assert!(
        seen.ends_with("opens\n") && !seen.contains("nvidia1"),
        "{seen}"
    );
    let before = count(&service);
    drop(checkpoint(&service, &[]).ok());
    drop(restore(&[&service.0]).ok());
    goes_on(&service, before);
    assert_eq!(service.exec(see).ok(), seen);
}

/// The runtime's reason is what Podman shows, and the container goes on.
#[test]
fn a_checkpoint_that_fails() {
    if !criu("a_checkpoint_that_fails") {
        return;
    }
    let service = counter(&[]);
    let script = "touch /tmp/there; exec sleep 1000";
    drop(podman(&["exec", "-d", &service.0, "sh", "-c", script]).ok());
    until("the process", || service.exec("ls /tmp/there").code == 0);
    let out = checkpoint(&service, &[]);
    assert!(
        out.code == 125 && out.stderr.contains("by exec: CRIU cannot save it"),
        "{out:#?}"
    );
    goes_on(&service, 1);
}
