//! `NOTIFY_SOCKET`: a program in a container tells a service manager that it is ready. The manager is a socket of the
//! test's. The same tests pass over crun and runc (`make peers`), unless one says otherwise.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fleet_tests::{
    Bundle, Output, differs, not_for_peers, notifier, ours, path, run, unique, until,
};
use serde_json::json;

/// What plays systemd.
struct Manager {
    socket: UnixDatagram,
    address: String,
}

impl Manager {
    fn new() -> Self {
        let address = format!("/run/{}", unique("manager"));
        let socket = UnixDatagram::bind(&address).expect("bind");
        Self { socket, address }
    }

    fn abstract_one() -> Self {
        let name = unique("fleet-manager");
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let socket = UnixDatagram::bind_addr(&address).expect("bind");
        Self {
            socket,
            address: format!("@{name}"),
        }
    }

    /// The next message, one line; `None` when there is none for a while.
    fn hears(&self, patience: Duration) -> Option<String> {
        self.socket
            .set_read_timeout(Some(patience))
            .expect("set a time limit");
        let mut bytes = [0; 256];
        match self.socket.recv(&mut bytes) {
            Ok(length) => Some(
                String::from_utf8_lossy(&bytes[..length])
                    .trim_end()
                    .to_owned(),
            ),
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(err) => panic!("{err}"),
        }
    }

    #[track_caller]
    fn hears_that_it_is_ready(&self, main: Option<&str>) {
        assert_eq!(self.hears(SOON).as_deref(), Some("READY=1"));
        // crun says nothing of the main process.
        if let Some(main) = main.filter(|_| ours()) {
            assert_eq!(self.hears(SOON), Some(format!("MAINPID={main}")));
        }
        // The call ends when everything was read.
        while self
            .hears(Duration::from_millis(500))
            .is_some_and(|said| said.starts_with("MAINPID=") || said == "BARRIER=1")
        {}
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.address));
    }
}

const SOON: Duration = Duration::from_secs(20);
const A_MOMENT: Duration = Duration::from_millis(300);

fn bundle(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    fs::copy(notifier(), bundle.dir.join("rootfs/bin/say")).expect("copy");
    bundle
}

/// A verb in the background, with the manager's socket in its environment.
fn begin(bundle: &Bundle, manager: &Manager, args: &[&str]) -> std::thread::JoinHandle<Output> {
    bundle.write();
    let mut command = bundle.runtime.command(args);
    command
        .env("NOTIFY_SOCKET", &manager.address)
        .current_dir(&bundle.dir);
    std::thread::spawn(move || run(&mut command))
}

fn socket_inside(manager: &Manager) -> String {
    match path("RUNTIME_UNDER_TEST").file_name() {
        Some(name) if name == "runc" => "/run/notify/notify.sock".to_owned(),
        _ => format!("{}/notify", manager.address),
    }
}

fn released(bundle: &Bundle) {
    fs::write(bundle.dir.join("rootfs/go"), "").expect("write");
}

const WAIT: &str = "until [ -e /go ]; do sleep 0.05; done";

#[test]
fn start_returns_when_the_program_is_ready() {
    let manager = Manager::new();
    let bundle = bundle(&format!(
        "echo $NOTIFY_SOCKET > /told; {WAIT}; say STATUS=loading; say 'READY=1\nSTATUS=up'; sleep 100"
    ));
    begin(&bundle, &manager, &["create", &bundle.id])
        .join()
        .expect("create")
        .silent();
    let start = begin(&bundle, &manager, &["start", &bundle.id]);
    until("the program to run", || {
        bundle.dir.join("rootfs/told").exists()
    });
    std::thread::sleep(A_MOMENT);
    assert!(!start.is_finished(), "nobody has said that it is ready");
    assert_eq!(manager.hears(A_MOMENT), None);
    released(&bundle);
    let pid = bundle.runtime.state(&bundle.id)["pid"].to_string();
    manager.hears_that_it_is_ready(Some(&pid));
    start.join().expect("start").silent();
    let told = fs::read_to_string(bundle.dir.join("rootfs/told")).expect("read");
    assert_eq!(told.trim(), socket_inside(&manager));
    assert_eq!(bundle.runtime.state(&bundle.id)["status"], "running");
    // What is run in the container later has no part in it.
    let exec = bundle.exec(&[], &["sh", "-c", "echo $NOTIFY_SOCKET"]).ok();
    assert!(!ours() || exec == "\n", "{exec}");
}

#[test]
fn run_detached_returns_when_the_program_is_ready() {
    let manager = Manager::new();
    let bundle = bundle(&format!("{WAIT}; say READY=1; sleep 100"));
    let pid_file = bundle.dir.join("pid");
    let pid_file = pid_file.to_str().expect("text");
    let args = ["run", "--detach", "--pid-file", pid_file, &bundle.id];
    let started = begin(&bundle, &manager, &args);
    std::thread::sleep(A_MOMENT);
    assert!(!started.is_finished(), "nobody has said that it is ready");
    released(&bundle);
    assert_eq!(manager.hears(SOON).as_deref(), Some("READY=1"));
    let pid = fs::read_to_string(pid_file).expect("a pid file");
    if ours() {
        assert_eq!(manager.hears(SOON), Some(format!("MAINPID={pid}")));
    }
    while manager
        .hears(Duration::from_millis(500))
        .is_some_and(|said| said != "BARRIER=1")
    {}
    started.join().expect("run").silent();
}

#[test]
fn a_program_that_ends_first_is_no_error() {
    let manager = Manager::new();
    let bundle = bundle("exit 3");
    begin(&bundle, &manager, &["create", &bundle.id])
        .join()
        .expect("create")
        .silent();
    let begun = Instant::now();
    begin(&bundle, &manager, &["start", &bundle.id])
        .join()
        .expect("start")
        .silent();
    assert!(begun.elapsed() < SOON);
    assert_eq!(manager.hears(A_MOMENT), None);
}

#[test]
fn in_the_foreground_it_is_passed_on_and_the_exit_code_comes_back() {
    let manager = Manager::new();
    let bundle = bundle(&format!("say READY=1; {WAIT}; exit 5"));
    let running = begin(&bundle, &manager, &["run", &bundle.id]);
    manager.hears_that_it_is_ready(None);
    assert!(!running.is_finished());
    released(&bundle);
    assert_eq!(running.join().expect("run").code, 5);
}

#[test]
fn a_mapped_user_reaches_the_socket_which_cannot_be_replaced() {
    // runc 1.1 cannot open its own directory from inside the user namespace.
    if differs(
        "a_mapped_user_reaches_the_socket_which_cannot_be_replaced",
        &["crun", "runc"],
    ) {
        return;
    }
    let manager = Manager::new();
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let bundle = bundle(&format!(
        "rm $NOTIFY_SOCKET 2>/dev/null && exit 9; touch $NOTIFY_SOCKET.x 2>/dev/null && exit 9; {WAIT}; say READY=1; sleep 100"
    ))
    .set("/linux/uidMappings", map.clone())
    .set("/linux/gidMappings", map)
    .set("/process/user", json!({"uid": 1000, "gid": 1000}))
    .namespace("user", None);
    let status = Command::new("chown")
        .args(["-R", "100000:100000"])
        .arg(bundle.dir.join("rootfs"))
        .status();
    assert!(status.expect("chown").success());
    let started = begin(&bundle, &manager, &["run", "--detach", &bundle.id]);
    std::thread::sleep(A_MOMENT);
    released(&bundle);
    manager.hears_that_it_is_ready(None);
    started.join().expect("run").silent();
}

#[test]
fn an_abstract_socket() {
    if not_for_peers("an_abstract_socket") {
        return;
    }
    let manager = Manager::abstract_one();
    let bundle = bundle("echo $NOTIFY_SOCKET > /told; say READY=1; sleep 100");
    let started = begin(&bundle, &manager, &["run", "--detach", &bundle.id]);
    manager.hears_that_it_is_ready(None);
    started.join().expect("run").silent();
    let told = fs::read_to_string(bundle.dir.join("rootfs/told")).expect("read");
    assert_eq!(told, "/run/notify/notify\n");
}

#[test]
fn a_manager_that_has_gone_is_an_error() {
    if not_for_peers("a_manager_that_has_gone_is_an_error") {
        return;
    }
    let manager = Manager::new();
    let bundle = bundle("say READY=1; sleep 100");
    begin(&bundle, &manager, &["create", &bundle.id])
        .join()
        .expect("create")
        .silent();
    fs::remove_file(&manager.address).expect("remove");
    let failed = begin(&bundle, &manager, &["start", &bundle.id])
        .join()
        .expect("start");
    let failed = failed.fails("cannot be told that the container is ready");
    assert!(failed.stderr.contains("ENOENT"), "{failed:?}");
    for engine_word in ["not found", "no such file"] {
        assert!(!failed.stderr.to_lowercase().contains(engine_word));
    }
}

#[test]
fn an_address_that_is_no_socket_is_refused() {
    if not_for_peers("an_address_that_is_no_socket_is_refused") {
        return;
    }
    let bundle = bundle("true");
    bundle.write();
    let mut command = bundle.runtime.command(&["run", &bundle.id]);
    command
        .env("NOTIFY_SOCKET", "vsock:2:1234")
        .current_dir(&bundle.dir);
    drop(run(&mut command).fails("NOTIFY_SOCKET `vsock:2:1234`"));
    fleet_tests::assert_nothing_left(&bundle);
}

#[test]
fn a_container_made_without_a_manager_starts_at_once() {
    if not_for_peers("a_container_made_without_a_manager_starts_at_once") {
        return;
    }
    let manager = Manager::new();
    let bundle = bundle("sleep 100");
    bundle.make("create", &[]).silent();
    begin(&bundle, &manager, &["start", &bundle.id])
        .join()
        .expect("start")
        .silent();
    assert!(!Path::new(&bundle.runtime.root.join(&bundle.id).join("notify")).exists());
}
