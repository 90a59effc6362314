//! `node`: puts the runtime onto a node from a container that sees the node's files, and takes it away again.
//!
//! Each step can be repeated, and leaves the node working when nothing follows it: a program or an engine's file is
//! there as a whole or not at all, the path that engines store never points to nothing, and what was begun is finished
//! by the next run.

mod args;
mod daemon;
mod engines;
mod installation;
mod place;
mod reload;
mod status;
mod users;
mod versions;

use std::io::{self, Write};
use std::path::PathBuf;

use crate::cli::Cli;
use crate::configure::ConfigureError;
use crate::files::{FileError, cause};
use crate::{CtlError, Verdict};

pub(crate) use args::Node;
use installation::{Installation, Wanted};

/// What could not be done on the node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error("{op} {}: {}", .path.display(), cause(.source))]
    Io {
        op: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    #[error("{0}")]
    Asked(String),
    #[error("wait for a signal: {0}")]
    Signal(nix::errno::Errno),
}

/// Names operation and path.
trait At<T> {
    fn at(self, op: &'static str, path: &std::path::Path) -> Result<T, NodeError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, op: &'static str, path: &std::path::Path) -> Result<T, NodeError> {
        self.map_err(|source| NodeError::Io {
            op,
            path: path.to_path_buf(),
            source,
        })
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, op: &'static str, path: &std::path::Path) -> Result<T, NodeError> {
        self.map_err(io::Error::from).at(op, path)
    }
}

pub(crate) fn run(
    cli: &Cli,
    node: &Node,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    match node {
        Node::Install(args) => {
            // From here on a signal waits until what was begun is done.
            let signals = args.daemon.then(daemon::Signals::block).transpose()?;
            let wanted = Wanted::new(cli, args)?;
            let installation = wanted.install(out, remarks)?;
            match signals {
                Some(signals) => daemon::stay(&installation, args, &signals, out, remarks),
                None => Ok(Verdict::Fine),
            }
        }
        Node::Uninstall(args) => {
            let files = args.at.files(cli);
            let _lock = place::lock(&files)?;
            match Installation::find(&files, args.at.install_dir.as_deref())? {
                Some(found) => found.uninstall(args.restart, args.force, out, remarks)?,
                None => {
                    // Of one that was half taken away.
                    place::sweep(&files, args.at.install_dir.as_deref())?;
                    writeln!(out, "nothing to do: there is no installation")?;
                }
            }
            Ok(Verdict::Fine)
        }
        Node::Rollback(at) => {
            let files = at.files(cli);
            let _lock = place::lock(&files)?;
            let found = Installation::find(&files, at.install_dir.as_deref())?;
            let (from, to) = found.ok_or_else(missing)?.rollback()?;
            writeln!(
                out,
                "went back from {from} to {to}; the next install decides anew"
            )?;
            Ok(Verdict::Fine)
        }
        Node::Status(args) => {
            let files = args.at.files(cli);
            let found = Installation::find(&files, args.at.install_dir.as_deref())?;
            let status = found.ok_or_else(missing)?.status();
            match args.json {
                true => crate::write_json(out, &status.json())?,
                false => write!(out, "{}", status.text())?,
            }
            Ok(match status.is_healthy() {
                true => Verdict::Fine,
                false => Verdict::Faulty,
            })
        }
        Node::InRoot(args) => Err(reload::become_program(args).into()),
    }
}

fn missing() -> NodeError {
    NodeError::Asked(
        "there is no installation; hint: `node install`, or name its directory by `--install-dir`"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests;
