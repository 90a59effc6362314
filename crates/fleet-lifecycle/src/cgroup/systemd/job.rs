//! systemd's manager: starting, stopping and changing units, and waiting until that is done.
//!
//! A call that starts or stops a unit only queues a job; its end is told by the signal `JobRemoved`
//! (`man 5 org.freedesktop.systemd1`). On a bus it is asked for before the call, so that it cannot be missed.

use std::io;
use std::time::{Duration, Instant};

use super::connection::{Connection, Failure};
use super::message::Call;
use super::property::Property;
use super::wire::{Reader, Value};
use crate::cgroup::{CgroupError, Result};

/// How long a unit of an earlier container may take to go.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const ROOT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const BUS: &str = "org.freedesktop.DBus";

/// Errors that are told apart.
const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const UNKNOWN: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// An open connection to a manager.
#[derive(Debug)]
pub(in crate::cgroup) struct Systemd(Connection);

impl Systemd {
    /// On a bus one says hello first, and asks for signals; systemd's own socket sends them unasked.
    pub(super) fn new(mut connection: Connection, bus: bool) -> io::Result<Self> {
        if bus {
            let to_bus = |member, arguments| Call {
                destination: BUS,
                path: "/org/freedesktop/DBus",
                interface: BUS,
                member,
                arguments,
            };
            connection.tell(&to_bus("Hello", vec![]))?;
            let rule =
                format!("type='signal',interface='{MANAGER}',member='JobRemoved',path='{ROOT}'");
            connection.tell(&to_bus("AddMatch", vec![Value::Text(rule)]))?;
            connection.tell(&manager_call("Subscribe", vec![]))?;
        }
        Ok(Self(connection))
    }

    /// Starts a transient unit and waits until it is there.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] for a unit that is in use; what systemd says against a property; a job that fails.
    pub(in crate::cgroup) fn start(&mut self, unit: &str, properties: Vec<Property>) -> Result<()> {
        let properties = properties.into_iter().map(Property::into_argument);
        let call = manager_call(
            "StartTransientUnit",
            vec![
                Value::text(unit),
                Value::text("replace"),
                Value::Array("(sv)".to_owned(), properties.collect()),
                Value::Array("(sa(sv))".to_owned(), Vec::new()),
            ],
        );
        let end = Instant::now() + LEFTOVER_PATIENCE;
        let body = loop {
            match self.0.call(&call) {
                Ok(body) => break body,
                Err(failure) if failure.is(EXISTS) => self.clear(unit, end)?,
                Err(failure) => return Err(failed("start", unit, &failure.text())),
            }
        };
        self.wait("start", unit, &body)
    }

    /// A unit of this name is there: one that failed is forgotten, one that is on its way out is waited for.
    fn clear(&mut self, unit: &str, end: Instant) -> Result<()> {
        let state = self.state(unit);
        if matches!(state.as_deref(), Ok("active" | "reloading" | "activating"))
            || Instant::now() > end
        {
            return Err(CgroupError::Busy(unit.to_owned()));
        }
        drop(
            self.0
                .call(&manager_call("ResetFailedUnit", vec![Value::text(unit)])),
        );
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    }

    /// Stops a unit, waits until it is gone, and forgets that it failed. An unknown one is gone already.
    ///
    /// # Errors
    /// What systemd says, or a job that does not end.
    pub(in crate::cgroup) fn stop(&mut self, unit: &str) -> Result<()> {
        let name = || Value::text(unit);
        let call = manager_call("StopUnit", vec![name(), Value::text("replace")]);
        match self.0.call(&call) {
            Ok(body) => self.wait("stop", unit, &body)?,
            Err(failure) if failure.is(UNKNOWN) => return Ok(()),
            Err(failure) => return Err(failed("stop", unit, &failure.text())),
        }
        drop(self.0.call(&manager_call("ResetFailedUnit", vec![name()])));
        Ok(())
    }

    /// Changes properties until the next boot.
    ///
    /// # Errors
    /// What systemd says against one.
    pub(in crate::cgroup) fn set(&mut self, unit: &str, properties: Vec<Property>) -> Result<()> {
        let properties = properties.into_iter().map(Property::into_argument);
        let arguments = vec![
            Value::text(unit),
            Value::Bool(true),
            Value::Array("(sv)".to_owned(), properties.collect()),
        ];
        self.0
            .call(&manager_call("SetUnitProperties", arguments))
            .map(drop)
            .map_err(|failure| failed("change", unit, &failure.text()))
    }

    /// Moves a process into a unit.
    ///
    /// # Errors
    /// What systemd says.
    pub(in crate::cgroup) fn attach(&mut self, unit: &str, pid: i32) -> Result<()> {
        let pid = Value::U32(u32::try_from(pid).unwrap_or(0));
        let arguments = vec![
            Value::text(unit),
            Value::text(""),
            Value::Array("u".to_owned(), vec![pid]),
        ];
        self.0
            .call(&manager_call("AttachProcessesToUnit", arguments))
            .map(drop)
            .map_err(|failure| failed("move a process into", unit, &failure.text()))
    }

    /// The number of systemd's release.
    ///
    /// # Errors
    /// The connection.
    pub(in crate::cgroup) fn version(&mut self) -> Result<u32> {
        let text = self.property(ROOT, MANAGER, "Version").map_err(|failure| {
            CgroupError::Invalid(format!("ask systemd for its version: {}", failure.text()))
        })?;
        // "257.13-1~deb13u1", "v252.4", "systemd 249".
        let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        Ok(digits[..end].parse().unwrap_or(0))
    }

    /// The cgroup of a slice, below the root of the hierarchy.
    ///
    /// # Errors
    /// The connection, or a slice that has none.
    pub(in crate::cgroup) fn slice_cgroup(&mut self, slice: &str) -> Result<String> {
        self.property(
            &object(slice),
            "org.freedesktop.systemd1.Slice",
            "ControlGroup",
        )
        .map_err(|failure| failed("find the cgroup of", slice, &failure.text()))
    }

    fn state(&mut self, unit: &str) -> std::result::Result<String, Failure> {
        self.property(
            &object(unit),
            "org.freedesktop.systemd1.Unit",
            "ActiveState",
        )
    }

    /// A property that is a string.
    fn property(
        &mut self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> std::result::Result<String, Failure> {
        let body = self.0.call(&Call {
            destination: SYSTEMD,
            path,
            interface: PROPERTIES,
            member: "Get",
            arguments: vec![Value::text(interface), Value::text(name)],
        })?;
        let mut reader = Reader::new(&body);
        match reader.signature()? {
            "s" => Ok(reader.text()?.to_owned()),
            _ => Err(super::wire::damaged().into()),
        }
    }

    /// Waits for the end of the job that a call was answered with.
    fn wait(&mut self, verb: &str, unit: &str, reply: &[u8]) -> Result<()> {
        let result = Reader::new(reply)
            .text()
            .and_then(|job| self.job_result(job))
            .map_err(|err| failed(verb, unit, &Failure::Io(err).text()))?;
        match result.as_str() {
            "done" => Ok(()),
            // What was to be stopped had stopped, and the like.
            "skipped" if verb == "stop" => Ok(()),
            result => Err(failed(
                verb,
                unit,
                &format!(
                    "its job ended with \"{result}\"; hint: `systemctl status {unit}` and the journal tell more"
                ),
            )),
        }
    }

    /// `JobRemoved(id, job, unit, result)`.
    fn job_result(&mut self, job: &str) -> io::Result<String> {
        loop {
            let signal = self.0.signal()?;
            if signal.member != "JobRemoved" {
                continue;
            }
            let mut reader = Reader::new(&signal.body);
            reader.u32()?;
            if reader.text()? != job {
                continue;
            }
            reader.text()?;
            return reader.text().map(str::to_owned);
        }
    }
}

fn manager_call(member: &str, arguments: Vec<Value>) -> Call<'_> {
    Call {
        destination: SYSTEMD,
        path: ROOT,
        interface: MANAGER,
        member,
        arguments,
    }
}

fn failed(verb: &str, unit: &str, why: &str) -> CgroupError {
    CgroupError::Invalid(format!("{verb} systemd unit `{unit}`: {why}"))
}

/// Object path of a unit: what is no letter or digit becomes `_` and two hexadecimal digits
/// (`man 3 sd_bus_path_encode`).
fn object(unit: &str) -> String {
    let mut path = format!("{ROOT}/unit/");
    for (at, byte) in unit.bytes().enumerate() {
        let plain = byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit());
        if plain {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_paths() {
        assert_eq!(
            object("a-1.scope"),
            "/org/freedesktop/systemd1/unit/a_2d1_2escope"
        );
        assert_eq!(object("1a"), "/org/freedesktop/systemd1/unit/_31a");
    }
}
