//! Against a server in this process that answers as a bus or systemd would.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::message::test::{error, read_call, reply, signal, size_of};
use super::property::Property;
use super::*;

/// What the server does when it is called: member, and messages to send with the call's serial.
type Answer = Box<dyn FnMut(&str, u32) -> Vec<Vec<u8>> + Send>;

struct Server {
    socket: PathBuf,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Server {
    /// Serves one connection, and gives the members that were called.
    fn new(mut answer: Answer) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "fleet-bus-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let socket = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&socket).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            greet(&mut stream);
            serve(&mut stream, &mut answer)
        });
        Self {
            socket,
            thread: Some(thread),
        }
    }

    fn manager(&self, bus: bool) -> Manager {
        Manager::at(&self.socket, bus)
    }

    fn calls(mut self) -> Vec<String> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.socket));
    }
}

/// Authentication as sd-bus and dbus-daemon do it, in small pieces.
fn greet(stream: &mut UnixStream) {
    let mut got = Vec::new();
    while !got.ends_with(b"BEGIN\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        got.extend(byte);
    }
    assert!(got.starts_with(b"\0AUTH EXTERNAL\r\n"), "{got:?}");
    for part in [&b"DAT"[..], b"A\r\nOK 0123456789", b"abcdef\r\n"] {
        stream.write_all(part).unwrap();
    }
}

fn serve(stream: &mut UnixStream, answer: &mut Answer) -> Vec<String> {
    let mut calls = Vec::new();
    let mut buffer = Vec::new();
    loop {
        let mut part = [0; 1024];
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return calls,
            Ok(count) => buffer.extend_from_slice(&part[..count]),
        }
        while let Some(size) = size_of(&buffer).filter(|size| buffer.len() >= *size) {
            let call: Vec<u8> = buffer.drain(..size).collect();
            let (member, serial) = read_call(&call);
            for message in answer(&member, serial) {
                stream.write_all(&message).unwrap();
            }
            calls.push(member);
        }
    }
}

fn removed(job: &str, result: &str) -> Vec<u8> {
    signal(
        "JobRemoved",
        &[
            Value::U32(1),
            Value::Path(job.to_owned()),
            Value::text("x.scope"),
            Value::text(result),
        ],
    )
}

fn job(serial: u32, job: &str) -> Vec<u8> {
    reply(serial, &[Value::Path(job.to_owned())])
}

const NAME: &str = "x.scope";
const SHORT: Duration = Duration::from_millis(200);

fn started(answer: Answer) -> (Result<()>, Vec<String>) {
    let server = Server::new(answer);
    let mut systemd = server
        .manager(false)
        .connect(Duration::from_secs(20))
        .unwrap();
    let result = systemd.start(NAME, vec![Property::new("Delegate", Value::Bool(true))]);
    drop(systemd);
    (result, server.calls())
}

#[test]
fn the_job_is_waited_for_whenever_its_signal_comes() {
    // Before the reply, after those of others, or after it.
    let (result, calls) = started(Box::new(|_, serial| {
        vec![
            removed("/job/9", "failed"),
            removed("/job/1", "done"),
            job(serial, "/job/1"),
        ]
    }));
    result.unwrap();
    assert_eq!(calls, ["StartTransientUnit"]);
    let (result, _) = started(Box::new(|_, serial| {
        vec![
            job(serial, "/job/1"),
            signal("UnitNew", &[]),
            removed("/job/1", "done"),
        ]
    }));
    result.unwrap();
}

#[test]
fn failures_name_unit_and_cause() {
    let (result, _) = started(Box::new(|_, serial| {
        vec![job(serial, "/job/1"), removed("/job/1", "timeout")]
    }));
    let text = result.unwrap_err().to_string();
    assert!(
        text.contains(NAME) && text.contains("\"timeout\"") && text.contains("hint:"),
        "{text}"
    );
    let (result, _) = started(Box::new(|_, serial| {
        vec![error(
            serial,
            "org.freedesktop.DBus.Error.PropertyReadOnly",
            "Cannot set property Foo.",
        )]
    }));
    let text = result.unwrap_err().to_string();
    assert!(
        text.ends_with("`x.scope`: Cannot set property Foo"),
        "{text}"
    );
}

#[test]
fn a_unit_that_failed_is_forgotten_and_made_anew() {
    let mut failed = true;
    let (result, calls) = started(Box::new(move |member, serial| match member {
        "StartTransientUnit" if failed => {
            vec![error(
                serial,
                "org.freedesktop.systemd1.UnitExists",
                "it exists",
            )]
        }
        "StartTransientUnit" => vec![job(serial, "/job/1"), removed("/job/1", "done")],
        "Get" => vec![reply(
            serial,
            &[Value::Variant(Box::new(Value::text("failed")))],
        )],
        _ => {
            failed = false;
            vec![reply(serial, &[])]
        }
    }));
    result.unwrap();
    assert_eq!(
        calls,
        [
            "StartTransientUnit",
            "Get",
            "ResetFailedUnit",
            "StartTransientUnit"
        ]
    );
}

#[test]
fn a_unit_in_use_is_left_alone() {
    let (result, calls) = started(Box::new(|member, serial| match member {
        "Get" => vec![reply(
            serial,
            &[Value::Variant(Box::new(Value::text("active")))],
        )],
        _ => vec![error(
            serial,
            "org.freedesktop.systemd1.UnitExists",
            "it exists",
        )],
    }));
    assert!(matches!(result, Err(CgroupError::Busy(_))), "{result:?}");
    assert_eq!(calls, ["StartTransientUnit", "Get"]);
}

#[test]
fn a_bus_is_greeted_first() {
    let server = Server::new(Box::new(|member, serial| match member {
        "Hello" => vec![
            reply(serial, &[Value::text(":1.7")]),
            signal("NameAcquired", &[]),
        ],
        "Subscribe" => vec![error(serial, "org.x.Denied", "no")],
        "StopUnit" => vec![job(serial, "/job/1"), removed("/job/1", "done")],
        _ => vec![reply(serial, &[])],
    }));
    stop(&server.manager(true), NAME).unwrap();
    assert_eq!(
        server.calls(),
        [
            "Hello",
            "AddMatch",
            "Subscribe",
            "StopUnit",
            "ResetFailedUnit"
        ]
    );
}

#[test]
fn stopping_what_is_gone_is_no_error() {
    let server = Server::new(Box::new(|_, serial| {
        vec![error(
            serial,
            "org.freedesktop.systemd1.NoSuchUnit",
            "not loaded",
        )]
    }));
    stop(&server.manager(false), NAME).unwrap();
    assert_eq!(server.calls(), ["StopUnit"]);
}

#[test]
fn silence_ends() {
    let server = Server::new(Box::new(|_, _| Vec::new()));
    let mut systemd = server.manager(false).connect(SHORT).unwrap();
    let text = systemd.start(NAME, Vec::new()).unwrap_err().to_string();
    assert!(text.contains("no answer in time"), "{text}");
}

#[test]
fn an_old_systemd_is_not_told_of_idle_groups() {
    for (version, want) in [("249.11-0ubuntu3", 1), ("257.13-1~deb13u1", 2), ("v252", 2)] {
        let server = Server::new(Box::new(move |_, serial| {
            vec![reply(
                serial,
                &[Value::Variant(Box::new(Value::text(version)))],
            )]
        }));
        let mut systemd = server
            .manager(false)
            .connect(Duration::from_secs(20))
            .unwrap();
        let limits = vec![
            Property::new("CPUWeight", Value::U64(0)),
            Property::new("TasksMax", Value::U64(9)),
        ];
        assert_eq!(
            usable(&mut systemd, limits).unwrap().len(),
            want,
            "{version}"
        );
    }
}

#[test]
fn names() {
    assert!(check_name("libpod-0123abc.scope").is_ok());
    for bad in ["a+b.scope", "a b", "é", &"x".repeat(256)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}
