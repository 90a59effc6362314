//! Ties a first process to its maker until the maker has written down who it is.
//!
//! A maker that is killed before that leaves a process that waits for `start`. Where it has a cgroup it is found there;
//! where it has none, it ends itself once it is let go without a word from its maker.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::error::{Context, Error, Result};

/// The maker's end of a pipe.
#[derive(Debug)]
pub(crate) struct Leash {
    ours: RefCell<Option<OwnedFd>>,
    theirs: OwnedFd,
}

/// The process's end.
#[derive(Debug)]
pub struct End(File);

impl Leash {
    /// Makes both.
    pub(crate) fn new() -> Result<Self> {
        let (theirs, ours) = pipe2(OFlag::O_CLOEXEC).op(|| "make a pipe")?;
        Ok(Self {
            ours: RefCell::new(Some(ours)),
            theirs,
        })
    }

    /// What the process holds.
    pub(crate) fn end(&self) -> Result<End> {
        let end = self.theirs.try_clone().op(|| "duplicate a pipe")?;
        Ok(End(end.into()))
    }

    /// In a child: only the maker's own end counts.
    pub(crate) fn belongs_to_the_parent(&self) {
        drop(self.ours.take());
    }

    /// The process is known.
    pub(crate) fn let_go(self) -> Result<()> {
        self.ours.take().map_or(Ok(()), |ours| {
            File::from(ours).write_all(b".").op(|| "write to a pipe")
        })
    }
}

impl End {
    /// Whether the maker got so far as to let go.
    pub(crate) fn check(&self) -> Result<()> {
        match (&self.0).read(&mut [0]) {
            Ok(1) => Ok(()),
            // Whoever is left of the makers says why.
            _ => Err(Error::Told(
                "the creation of the container was interrupted".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_makers_end_decides() {
        let leash = Leash::new().unwrap();
        let end = leash.end().unwrap();
        leash.let_go().unwrap();
        assert!(end.check().is_ok());
        let leash = Leash::new().unwrap();
        let end = leash.end().unwrap();
        drop(leash);
        assert!(end.check().is_err());
    }
}
