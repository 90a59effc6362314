//! A connection to a bus, or to systemd itself: who we are is told by the kernel, every wait has an end.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Instant;

use super::message::{Call, ERROR, Incoming, METHOD_RETURN, SIGNAL};

/// D-Bus Specification, "Authentication Protocol". Without an identity in it, EXTERNAL means the one that the kernel
/// tells the other side (`SO_PEERCRED`): also in a user namespace, where our own number for it would be wrong.
const HELLO: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection.
    Io(io::Error),
    /// What was called says so: name and text.
    Refused(String, String),
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

impl Failure {
    /// Whether the error has this name.
    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Refused(known, _) if known == name)
    }

    /// For an error message.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Refused(_, text) => text.clone(),
            Self::Io(err) if err.kind() == io::ErrorKind::WouldBlock => {
                "no answer in time".to_owned()
            }
            Self::Io(err) => crate::cgroup::error::cause(err),
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    received: Vec<u8>,
    signals: VecDeque<Incoming>,
    end: Instant,
}

impl Connection {
    /// Connects to an address (`unix:path=…` or `unix:abstract=…`) and says who we are; nothing waits beyond `end`.
    pub(super) fn open(address: &str, end: Instant) -> io::Result<Self> {
        let stream = UnixStream::connect_addr(&socket(address)?)?;
        let mut connection = Self {
            stream,
            serial: 0,
            received: Vec::new(),
            signals: VecDeque::new(),
            end,
        };
        connection.stream.write_all(HELLO)?;
        connection.authenticated()?;
        Ok(connection)
    }

    /// The server answers `DATA` to the empty identity, then `OK` and its own name.
    fn authenticated(&mut self) -> io::Result<()> {
        loop {
            while let Some(at) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..at + 2).collect();
                if line.starts_with(b"OK ") {
                    return Ok(());
                }
                if !line.starts_with(b"DATA") {
                    return Err(io::Error::from_raw_os_error(libc::EACCES));
                }
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut part = [0; 4096];
        match self.stream.read(&mut part) {
            Ok(0) => Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
            Ok(count) => {
                self.received
                    .extend_from_slice(part.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(err) => Err(err),
        }
    }

    fn message(&mut self) -> io::Result<Incoming> {
        loop {
            if let Some(message) = Incoming::take(&mut self.received)? {
                return Ok(message);
            }
            self.receive()?;
        }
    }

    fn send(&mut self, call: &Call<'_>) -> io::Result<u32> {
        self.serial += 1;
        self.stream.write_all(&call.encode(self.serial))?;
        Ok(self.serial)
    }

    /// Calls without waiting for the answer, which is passed over when it comes.
    pub(super) fn tell(&mut self, call: &Call<'_>) -> io::Result<()> {
        self.send(call).map(drop)
    }

    /// Calls and gives the body of the answer. Signals that arrive meanwhile are kept.
    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<Vec<u8>, Failure> {
        let serial = self.send(call)?;
        loop {
            let message = self.message()?;
            match message.kind {
                SIGNAL => self.signals.push_back(message),
                METHOD_RETURN if message.reply_to == serial => return Ok(message.body),
                ERROR if message.reply_to == serial => {
                    let text = message.text();
                    return Err(Failure::Refused(message.error, text));
                }
                _ => {}
            }
        }
    }

    /// The next signal, earlier ones first.
    pub(super) fn signal(&mut self) -> io::Result<Incoming> {
        if let Some(kept) = self.signals.pop_front() {
            return Ok(kept);
        }
        loop {
            let message = self.message()?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }
}

/// D-Bus Specification, "Server Addresses": key=value pairs, of which the first is the place; others do not matter.
fn socket(address: &str) -> io::Result<SocketAddr> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the address is not understood");
    let pairs = address.strip_prefix("unix:").ok_or_else(invalid)?;
    for pair in pairs.split(',') {
        match pair.split_once('=') {
            Some(("path", path)) => return SocketAddr::from_pathname(unescape(path)),
            Some(("abstract", name)) => return SocketAddr::from_abstract_name(unescape(name)),
            _ => {}
        }
    }
    Err(invalid())
}

/// `%20` stands for a space, and so on.
fn unescape(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (code, part.get(2..)) {
            (Some(code), Some(rest)) => {
                plain.push(char::from(code));
                plain.push_str(rest);
            }
            _ => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let path = |address: &str| {
            socket(address)
                .unwrap()
                .as_pathname()
                .map(std::path::Path::to_path_buf)
        };
        assert_eq!(path("unix:path=/run/a%20b,guid=1"), Some("/run/a b".into()));
        assert_eq!(path("unix:guid=1,path=/run/x"), Some("/run/x".into()));
        assert!(
            socket("unix:abstract=/tmp/x,guid=1")
                .unwrap()
                .as_abstract_name()
                .is_some()
        );
        for bad in [
            "",
            "tcp:host=x",
            "unix:guid=1",
            "unix:tmpdir=/tmp",
            "/run/x",
        ] {
            assert!(socket(bad).is_err(), "{bad}");
        }
    }
}
