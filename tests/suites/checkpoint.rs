//! `checkpoint` and `restore` with CRIU itself, without an engine.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleet_tests::criu::criu;
use fleet_tests::{Bundle, Output, assert_nothing_left, ours, run, until};
use serde_json::{Value, json};

#[path = "checkpoint/gpus.rs"]
mod gpus;
#[path = "checkpoint/refusals.rs"]
mod refusals;
#[path = "checkpoint/surroundings.rs"]
mod surroundings;

/// Whether the test can run; checkpoints of a peer are its own business.
fn ready(test: &str) -> bool {
    ours() && criu(test)
}

/// Counts in memory, and leaves each number in a file.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.02; done";

/// A container whose processes are saved and revived. What it prints is appended to a file.
struct Saved {
    bundle: Bundle,
    images: PathBuf,
    output: PathBuf,
}

impl Saved {
    fn new(bundle: Bundle) -> Self {
        let images = bundle.dir.join("images");
        let output = bundle.dir.join("output");
        Self {
            bundle,
            images,
            output,
        }
    }

    fn counter() -> Self {
        Self::new(Bundle::new(COUNTER))
    }

    fn output(&self) -> fs::File {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.output);
        file.expect("open the output")
    }

    /// What the container, and the verbs that made it, have printed.
    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// A verb that makes the container, with the output as its streams.
    fn making(&self, verb: &str, options: &[&str]) -> Command {
        self.bundle.write();
        let dir = self.bundle.dir.display().to_string();
        let args = [
            &[verb, "--bundle", &dir],
            options,
            &[self.bundle.id.as_str()],
        ]
        .concat();
        let mut command = self.bundle.runtime.command(&args);
        command
            .stdin(Stdio::null())
            .stdout(self.output())
            .stderr(self.output());
        command
    }

    #[track_caller]
    fn start(&self) {
        let status = self.making("run", &["-d"]).status().expect("run");
        assert!(status.success(), "{}", self.said());
    }

    /// Starts it, and waits until it counts.
    #[track_caller]
    fn run(&self) {
        self.start();
        until("the container to count", || self.count() > 2);
    }

    fn checkpoint(&self, options: &[&str]) -> Output {
        let images = self.images.display().to_string();
        let args = [
            &["checkpoint", "--image-path", &images],
            options,
            &[self.bundle.id.as_str()],
        ];
        self.bundle.runtime.run(&args.concat())
    }

    /// `restore -d` with the output as its streams: the exit code.
    fn try_restore(&self, options: &[&str]) -> Option<i32> {
        let images = self.images.display().to_string();
        let options = [&["-d", "--image-path", &images], options].concat();
        let status = self.making("restore", &options).status().expect("restore");
        status.code()
    }

    #[track_caller]
    fn restore(&self, options: &[&str]) {
        assert_eq!(self.try_restore(options), Some(0), "{}", self.said());
    }

    /// `restore -d` that fails: what it said, in one line.
    #[track_caller]
    fn restore_fails(&self) -> String {
        drop(fs::remove_file(&self.output));
        assert_eq!(self.try_restore(&[]), Some(1), "{}", self.said());
        let said = self.said();
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        said
    }

    fn count(&self) -> u64 {
        let text = fs::read_to_string(self.bundle.dir.join("rootfs/count"));
        text.ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Asserts that it counts, from where it was.
    #[track_caller]
    fn goes_on(&self) {
        let before = self.count();
        until("the container to count on", || self.count() > before + 2);
    }

    /// Asserts that it has ended, as far as this runtime knows.
    #[track_caller]
    fn is_gone(&self) {
        assert_nothing_left(&self.bundle);
        let state = self.bundle.runtime.run(&["state", &self.bundle.id]);
        drop(state.fails("does not exist"));
    }

    /// Saves it, and revives it as it was.
    #[track_caller]
    fn round_trip(&self) {
        self.checkpoint(&[]).silent();
        self.is_gone();
        self.restore(&[]);
    }

    fn exec(&self, script: &str) -> String {
        self.bundle.exec(&[], &["sh", "-c", script]).ok()
    }

    fn pid(&self) -> i64 {
        let state = self.bundle.runtime.state(&self.bundle.id);
        state["pid"].as_i64().expect("a pid")
    }
}

/// Twice: the second checkpoint is one of a container that was restored.
#[test]
fn a_counter_goes_on() {
    if !ready("a_counter_goes_on") {
        return;
    }
    let saved = Saved::counter();
    saved.run();
    for _ in 0..2 {
        saved.checkpoint(&[]).silent();
        let before = saved.count();
        saved.is_gone();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(saved.count(), before, "it has ended");
        saved.restore(&[]);
        saved.goes_on();
        assert!(saved.count() > before, "it has not begun anew");
        let state = saved.bundle.runtime.state(&saved.bundle.id);
        assert_eq!(state["status"], "running");
        let list = saved.bundle.runtime.run(&["list", "--quiet"]).ok();
        assert_eq!(list, format!("{}\n", saved.bundle.id));
        let processes = saved.exec("ps");
        let first = processes.lines().nth(1).unwrap_or_default();
        assert!(first.trim_start().starts_with("1 "), "{processes}");
    }
    assert_eq!(saved.said(), "", "nothing was said");
    let id = saved.bundle.id.as_str();
    saved.bundle.runtime.run(&["pause", id]).silent();
    saved.bundle.becomes("paused");
    saved.bundle.runtime.run(&["resume", id]).silent();
    saved.goes_on();
    let stats = saved.bundle.runtime.run(&["events", "--stats", id]).ok();
    assert!(stats.contains("\"cpu\""), "{stats}");
    saved.bundle.runtime.run(&["kill", id, "KILL"]).silent();
    saved.bundle.becomes("stopped");
    saved.bundle.runtime.run(&["delete", id]).silent();
    saved.is_gone();
}

#[test]
fn a_container_that_is_left_running() {
    if !ready("a_container_that_is_left_running") {
        return;
    }
    let saved = Saved::counter();
    saved.run();
    let pid = saved.pid();
    saved.checkpoint(&["--leave-running"]).silent();
    assert_eq!(saved.pid(), pid);
    saved.bundle.becomes("running");
    saved.goes_on();
    saved.bundle.remove();
    saved.restore(&[]);
    saved.goes_on();
}

/// containerd pauses a container around its checkpoint.
#[test]
fn a_paused_container_stays_paused() {
    if !ready("a_paused_container_stays_paused") {
        return;
    }
    let saved = Saved::counter();
    saved.run();
    let id = saved.bundle.id.as_str();
    saved.bundle.runtime.run(&["pause", id]).silent();
    saved.checkpoint(&["--leave-running"]).silent();
    saved.bundle.becomes("paused");
    saved.checkpoint(&[]).silent();
    saved.is_gone();
    saved.restore(&[]);
    saved.bundle.becomes("running");
    saved.goes_on();
}

fn wait(mut child: Child) -> i32 {
    child.wait().expect("wait").code().unwrap_or(-1)
}

/// The caller is the parent of what it restores, as it is of what it runs.
#[test]
fn restored_in_the_foreground_it_ends_with_its_code() {
    if !ready("restored_in_the_foreground_it_ends_with_its_code") {
        return;
    }
    let saved = Saved::new(Bundle::new(
        "i=0; until [ -e /go ]; do i=$((i+1)); echo $i > /count; sleep 0.02; done; exit 7",
    ));
    saved.run();
    saved.checkpoint(&[]).silent();
    let images = saved.images.display().to_string();
    let pid_file = saved.bundle.dir.join("pid");
    let file = pid_file.display().to_string();
    let options = ["--image-path", &images, "--pid-file", &file];
    let child = saved.making("restore", &options).spawn().expect("restore");
    until("the container to run", || pid_file.exists());
    assert_eq!(
        fs::read_to_string(&pid_file).expect("read"),
        saved.pid().to_string()
    );
    saved.goes_on();
    fs::write(saved.bundle.dir.join("rootfs/go"), "").expect("write");
    assert_eq!(wait(child), 7, "{}", saved.said());
    saved.is_gone();
}

/// Engines read a container's output from pipes, which are new ones after a restore.
#[test]
fn streams_are_those_of_the_caller() {
    if !ready("streams_are_those_of_the_caller") {
        return;
    }
    let script = "i=0; while :; do i=$((i+1)); echo out $i; echo err $i >&2; read -t 0.05 word && echo heard $word; done";
    let saved = Saved::new(Bundle::new(script));
    let piped = |verb: &str, options: &[&str]| {
        let mut command = saved.making(verb, options);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("spawn")
    };
    let number = |line: &str| {
        line.split(' ')
            .nth(1)
            .and_then(|n| n.trim().parse::<u64>().ok())
    };
    let mut first = piped("run", &["-d"]);
    let mut lines = BufReader::new(first.stdout.take().expect("stdout")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    while number(&next()).unwrap_or(0) < 3 {}
    saved.checkpoint(&[]).silent();
    let images = saved.images.display().to_string();
    let mut second = piped("restore", &["-d", "--image-path", &images]);
    let mut errors = BufReader::new(second.stderr.take().expect("stderr")).lines();
    let error = errors.next().expect("a line").expect("text");
    assert!(
        error.starts_with("err ") && number(&error) > Some(2),
        "{error}"
    );
    let mut stdin = second.stdin.take().expect("stdin");
    std::io::Write::write_all(&mut stdin, b"you\n").expect("write");
    let mut lines = BufReader::new(second.stdout.take().expect("stdout")).lines();
    let heard = lines
        .by_ref()
        .take(200)
        .any(|line| line.expect("text") == "heard you");
    assert!(heard, "its input is the new one");
    assert_eq!((wait(first), wait(second)), (0, 0));
    saved.bundle.remove();
}

/// Receives a terminal's master as conmon does.
fn receive(listener: &UnixListener) -> fs::File {
    let (stream, _) = listener.accept().expect("a connection");
    let mut text = [0; 4096];
    let mut slices = [std::io::IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 2]);
    let flags = nix::sys::socket::MsgFlags::empty();
    let fd = stream.as_raw_fd();
    let message = nix::sys::socket::recvmsg::<()>(fd, &mut slices, Some(&mut space), flags);
    let message = message.expect("a message");
    let mut all = message.cmsgs().expect("control messages");
    let fd = all.find_map(|cmsg| match cmsg {
        nix::sys::socket::ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    #[allow(unsafe_code)]
    // SAFETY: the kernel just gave us this descriptor.
    let master = unsafe { fs::File::from_raw_fd(fd.expect("a descriptor")) };
    master
}

#[test]
fn a_terminal_is_sent_again() {
    if !ready("a_terminal_is_sent_again") {
        return;
    }
    let script = "i=0; while :; do i=$((i+1)); echo $i > /count; read -t 0.05 word && { tty; echo heard $word; }; done";
    let saved = Saved::new(Bundle::new(script).set("/process/terminal", json!(true)));
    let socket = saved.bundle.dir.join("console");
    let listener = UnixListener::bind(&socket).expect("bind");
    let socket = socket.display().to_string();
    let images = saved.images.display().to_string();
    let with_terminal = |verb: &str, options: &[&str]| {
        let options = [options, &["-d", "--console-socket", &socket]].concat();
        let child = saved.making(verb, &options).spawn().expect("spawn");
        let master = receive(&listener);
        assert_eq!(wait(child), 0, "{}", saved.said());
        master
    };
    let first = with_terminal("run", &[]);
    until("the container to count", || saved.count() > 2);
    saved.checkpoint(&[]).silent();
    drop(first);
    let without = saved.try_restore(&[]);
    assert!(
        without == Some(1) && saved.said().contains("--console-socket"),
        "{}",
        saved.said()
    );
    saved.is_gone();
    let mut second = with_terminal("restore", &["--image-path", &images]);
    saved.goes_on();
    std::io::Write::write_all(&mut second, b"you\n").expect("write");
    let mut text = String::new();
    let mut chunk = [0; 256];
    while !text.contains("heard you") {
        let length = second.read(&mut chunk).expect("read the terminal");
        assert_ne!(length, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
    assert!(
        text.contains("/dev/pts/0") || text.contains("/dev/console"),
        "{text}"
    );
    saved.bundle.remove();
}

/// Both ends of a connection within the container.
const CONNECTED: &str = "ip link set lo up; (sleep 1000 | nc -l -p 5555) & sleep 0.3; (sleep 1000 | nc 127.0.0.1 5555) & sleep 0.3; ";

#[test]
fn connections_are_saved_when_that_is_asked_for() {
    if !ready("connections_are_saved_when_that_is_asked_for") {
        return;
    }
    let mut bundle = Bundle::new(&format!("{CONNECTED}{COUNTER}"));
    for set in ["bounding", "effective", "permitted"] {
        let caps = bundle.spec["process"]["capabilities"][set]
            .as_array_mut()
            .expect("a set");
        caps.push(json!("CAP_NET_ADMIN"));
    }
    let saved = Saved::new(bundle);
    saved.run();
    let connected = |saved: &Saved| saved.exec("netstat -tn").matches("ESTABLISHED").count();
    assert_eq!(connected(&saved), 2);
    let refused = saved.checkpoint(&[]).fails("hint: `--tcp-established`");
    assert!(
        refused.stderr.contains("CRIU cannot save the container"),
        "{refused:#?}"
    );
    saved.goes_on();
    assert_eq!(connected(&saved), 2);
    saved.checkpoint(&["--tcp-established"]).silent();
    saved.is_gone();
    saved.restore(&["--tcp-established"]);
    saved.goes_on();
    assert_eq!(connected(&saved), 2);
}

/// Locks a file for good; says so where another has it.
const LOCKER: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>
int main(void) {
    int fd = open("/lock", O_RDWR | O_CREAT, 0644);
    if (flock(fd, LOCK_EX | LOCK_NB)) return puts("locked by another"), 0;
    for (;;) pause();
}
"#;

#[test]
fn file_locks_are_saved_when_that_is_asked_for() {
    if !ready("file_locks_are_saved_when_that_is_asked_for") {
        return;
    }
    let saved = Saved::new(Bundle::new(&format!("/locker & {COUNTER}")));
    let source = saved.bundle.dir.join("locker.c");
    fs::write(&source, LOCKER).expect("write");
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-O1", "-o"])
        .arg(saved.bundle.dir.join("rootfs/locker"));
    drop(run(gcc.arg(source)).ok());
    saved.run();
    let locked = |saved: &Saved| saved.bundle.exec(&[], &["timeout", "1", "/locker"]).stdout;
    until("the lock", || locked(&saved) == "locked by another\n");
    drop(saved.checkpoint(&[]).fails("hint: `--file-locks`"));
    saved.goes_on();
    saved.checkpoint(&["--file-locks"]).silent();
    saved.restore(&["--file-locks"]);
    saved.goes_on();
    assert_eq!(locked(&saved), "locked by another\n");
}

/// Later processes of the container share its clock, which CRIU lets go on from where it was.
#[test]
fn exec_has_the_time_of_the_container() {
    if !ready("exec_has_the_time_of_the_container") {
        return;
    }
    let saved = Saved::counter();
    saved.run();
    saved.round_trip();
    let time = saved.exec("for p in 1 self; do readlink /proc/$p/ns/time; done");
    let lines: Vec<&str> = time.lines().collect();
    assert_eq!(lines.first(), lines.get(1), "{time}");
}

/// Memory ahead of the checkpoint, where the kernel tells which memory has changed; elsewhere an error with advice.
#[test]
fn memory_ahead_of_the_checkpoint() {
    if !ready("memory_ahead_of_the_checkpoint") {
        return;
    }
    let saved = Saved::counter();
    saved.run();
    let before = saved.bundle.dir.join("before").display().to_string();
    let id = saved.bundle.id.as_str();
    let ahead = ["checkpoint", "--pre-dump", "--image-path", &before, id];
    let ahead = saved.bundle.runtime.run(&ahead);
    saved.goes_on();
    if run(Command::new("criu").args(["check", "--feature", "mem_dirty_track"])).code != 0 {
        drop(ahead.fails("hint: the kernel does not tell which memory has changed"));
        return fleet_tests::skip(
            "memory_ahead_of_the_checkpoint",
            "the kernel does not track memory (CONFIG_MEM_SOFT_DIRTY)",
        );
    }
    ahead.silent();
    saved.checkpoint(&["--parent-path", "../before"]).silent();
    saved.is_gone();
    saved.restore(&[]);
    saved.goes_on();
}

fn devices(bundle: &Bundle) -> String {
    let all = fleet_tests::cgroup_dirs(&bundle.cgroup());
    let lists = all.iter().map(|dir| dir.join("devices.list"));
    lists
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect()
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}
