//! Connections with an end: nothing is waited for longer than a few seconds or read without bound.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::doctor::check::Finding;
use crate::files::cause;

/// For the connection and for each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const MOST: usize = 1024 * 1024;

/// `scheme://[user[:password]@]host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Url {
    /// Reads an address; a port that is not given is the usual one.
    pub(crate) fn parse(text: &str, usual: u16) -> Result<Self, String> {
        let wrong = |why: &str| format!("address {text:?} {why}; hint: scheme://host:port");
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("has no scheme"))?;
        let rest = rest.split('/').next().unwrap_or_default();
        let (login, place) = rest
            .rsplit_once('@')
            .map_or((None, rest), |(login, place)| (Some(login), place));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, "")))
        {
            None => (None, None),
            Some((user, password)) => (filled(user), filled(password)),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => {
                (host, port.parse().map_err(|_| wrong("has no such port"))?)
            }
            _ => (place, usual),
        };
        let host = host.trim_matches(['[', ']']);
        if host.is_empty() || host.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(wrong("has no host"));
        }
        Ok(Self {
            scheme: scheme.to_owned(),
            user,
            password,
            host: host.to_owned(),
            port,
        })
    }

    pub(crate) fn tls(&self) -> bool {
        matches!(
            self.scheme.as_str(),
            "https" | "rediss" | "tls" | "bolt+s" | "bolt+ssc" | "neo4j+s" | "neo4j+ssc"
        )
    }
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Without the login: it is printed.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "{}://[{}]:{}", self.scheme, self.host, self.port),
            false => write!(f, "{}://{}:{}", self.scheme, self.host, self.port),
        }
    }
}

/// Whether anything takes connections there. What cannot be told counts as yes: asking will tell.
pub(crate) fn listens(url: &Url) -> bool {
    !matches!(connect(url), Err(err) if err.kind() == io::ErrorKind::ConnectionRefused)
}

/// A conversation with a service.
#[derive(Debug)]
pub(crate) struct Talk<'u> {
    url: &'u Url,
    stream: TcpStream,
    read: Vec<u8>,
}

impl<'u> Talk<'u> {
    pub(crate) fn open(url: &'u Url) -> Result<Self, Finding> {
        let stream = connect(url).map_err(|err| {
            Finding::error(
                format!("{url} cannot be reached: {}", cause(&err)),
                "is the service running, and its port published (podman run -p)?",
            )
        })?;
        Ok(Self {
            url,
            stream,
            read: Vec::new(),
        })
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) -> Result<(), Finding> {
        self.stream
            .write_all(bytes)
            .map_err(|err| self.broken(&err))
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> Result<String, Finding> {
        let at = self.until(|bytes| {
            bytes
                .iter()
                .position(|byte| *byte == b'\n')
                .map(|at| at + 1)
        })?;
        let line: Vec<u8> = self.read.drain(..at).collect();
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// The next bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<Vec<u8>, Finding> {
        let at = self.until(|bytes| (bytes.len() >= count).then_some(count))?;
        Ok(self.read.drain(..at).collect())
    }

    /// All that comes until the other side closes.
    pub(crate) fn rest(mut self) -> Result<String, Finding> {
        let end = Instant::now() + PATIENCE;
        while self.more(end)? != 0 {}
        Ok(String::from_utf8_lossy(&self.read).into_owned())
    }

    fn until(&mut self, found: impl Fn(&[u8]) -> Option<usize>) -> Result<usize, Finding> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = found(&self.read) {
                return Ok(at);
            }
            if self.more(end)? == 0 {
                return Err(self.broken(&io::Error::other("the connection was closed")));
            }
        }
    }

    fn more(&mut self, end: Instant) -> Result<usize, Finding> {
        let mut bytes = [0; 4096];
        let read = match self.read.len() < MOST && Instant::now() < end {
            true => self.stream.read(&mut bytes),
            false => Err(io::Error::other("the answer does not end")),
        };
        let count = read.map_err(|err| self.broken(&err))?;
        self.read.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn broken(&self, err: &io::Error) -> Finding {
        let why = match err.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("no answer within {} s", PATIENCE.as_secs())
            }
            _ => cause(err),
        };
        Finding::error(
            format!("{} does not answer as its service would: {why}", self.url),
            "is it this service that listens there?",
        )
    }
}

fn connect(url: &Url) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in (url.host.as_str(), url.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(err) => last = err,
        }
    }
    Err(last)
}

/// Status and body of a page. HTTP 1.0 is asked for, so that the body ends with the connection (RFC 9112, 6.3).
pub(crate) fn get(url: &Url, path: &str) -> Result<(u16, String), Finding> {
    let mut talk = Talk::open(url)?;
    let host = &url.host;
    talk.say(
        format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n")
            .as_bytes(),
    )?;
    let status = talk.line()?;
    let code = status
        .strip_prefix("HTTP/")
        .and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    let Some(code) = code else {
        return Err(Finding::error(
            format!("{url} does not speak HTTP"),
            "is it this service that listens there?",
        ));
    };
    let rest = talk.rest()?;
    let body = rest.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code, body.to_owned()))
}
