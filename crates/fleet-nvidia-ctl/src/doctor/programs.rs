//! Programs of the node that are asked for what they have loaded. None is waited for without end.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Most bytes kept of what a program says.
const MOST: u64 = 4 * 1024 * 1024;
/// Between two looks at a program that runs.
const PAUSE: Duration = Duration::from_millis(20);

/// What a program said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whether it ended with status 0.
    pub(crate) ok: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    /// The last line of its complaint.
    pub(crate) fn complaint(&self) -> &str {
        let text = match self.stderr.trim().is_empty() {
            true => &self.stdout,
            false => &self.stderr,
        };
        text.trim().lines().last().unwrap_or("no message")
    }
}

/// Runs programs.
pub(crate) trait Programs {
    /// Runs one to its end, `seconds` at most.
    ///
    /// # Errors
    /// It cannot be started, or takes too long.
    fn ask(&self, argv: &[&str], seconds: u64) -> io::Result<Answer>;
}

/// Those of this machine, found in `PATH`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine;

impl Programs for Machine {
    fn ask(&self, argv: &[&str], seconds: u64) -> io::Result<Answer> {
        let (program, args) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        let ok = end(&mut child, Duration::from_secs(seconds))?;
        Ok(Answer {
            ok,
            stdout: collect(stdout),
            stderr: collect(stderr),
        })
    }
}

fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before a failure is worth showing.
        let _ = from.by_ref().take(MOST).read_to_end(&mut bytes);
        // A program that says more must not stop at a full pipe.
        let _ = io::copy(&mut from, &mut io::sink());
        bytes
    })
}

fn collect(reader: Option<JoinHandle<Vec<u8>>>) -> String {
    let bytes = reader.and_then(|reader| reader.join().ok());
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn end(child: &mut Child, patience: Duration) -> io::Result<bool> {
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            let message = format!("takes longer than {} s", patience.as_secs());
            return Err(io::Error::other(message));
        }
        thread::sleep(PAUSE);
    }
}

/// A node of which only the files are here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nobody;

impl Programs for Nobody {
    fn ask(&self, argv: &[&str], _: u64) -> io::Result<Answer> {
        let message = format!("{} belongs to another root", argv.first().unwrap_or(&""));
        Err(io::Error::new(io::ErrorKind::Unsupported, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_heard_and_not_waited_for_without_end() {
        let said = Machine
            .ask(
                &["sh", "-c", "echo out; echo one >&2; echo two >&2; exit 3"],
                10,
            )
            .unwrap();
        assert_eq!((said.ok, said.stdout.as_str()), (false, "out\n"));
        assert_eq!(said.complaint(), "two");
        let err = Machine.ask(&["sleep", "60"], 0).unwrap_err();
        assert_eq!(err.to_string(), "takes longer than 0 s");
        let loud = Machine
            .ask(&["head", "-c", "6000000", "/dev/zero"], 10)
            .unwrap();
        assert!(loud.ok && loud.stdout.len() as u64 == MOST);
        assert_eq!(
            Machine.ask(&["/no/such"], 1).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
