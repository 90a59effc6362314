//! A panic becomes an error like any other: one line, the exit code of a failed runtime, no more.
//!
//! libcontainer 0.7 and what it is made of panic where a machine has run out of something. Nothing is unwound, which would
//! take tables of a quarter of the program: whoever begins something says beforehand how its failure is told, and the
//! process ends with that. What it leaves half done is what a runtime leaves that is killed.

use std::cell::RefCell;
use std::panic::{PanicHookInfo, set_hook};

use crate::error::Error;

type LastWord = Box<dyn FnOnce(Error)>;
type Undo = Box<dyn FnOnce()>;

thread_local! {
    static LAST_WORD: RefCell<Option<LastWord>> = const { RefCell::new(None) };
    static UNDO: RefCell<Vec<Undo>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what a panic says from stderr, which is the container's, and hands it to the last word.
pub fn hold() {
    set_hook(Box::new(|info| {
        let error = Error::Setup(sentence(info));
        // Taken, so that a panic of theirs ends in an abort, not here again.
        for undo in UNDO.take().into_iter().rev() {
            undo();
        }
        if let Some(last_word) = LAST_WORD.take() {
            last_word(error);
        }
    }));
}

/// From here on a panic of this process, or of one that it makes, is told by `last_word`, which ends the process. What was
/// to be undone by the process that this one comes from is still that one's.
pub fn told_by(last_word: impl FnOnce(Error) + 'static) {
    UNDO.with_borrow_mut(Vec::clear);
    LAST_WORD.set(Some(Box::new(last_word)));
}

/// What outlives the process is put right first.
pub fn undone_by(undo: impl FnOnce() + 'static) {
    UNDO.with_borrow_mut(|all| all.push(Box::new(undo)));
}

fn sentence(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default();
    let place = info.location().map(|at| {
        let mut parts: Vec<&str> = at.file().rsplit('/').take(3).collect();
        parts.reverse();
        format!(" ({}:{})", parts.join("/"), at.line())
    });
    format!("internal error: {text}{}", place.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{self, SharedText};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::ForkResult;
    use std::sync::Arc;

    #[test]
    fn a_panic_is_undone_and_told_and_ends_the_process() {
        let said = Arc::new(SharedText::new().unwrap());
        match process::fork().unwrap() {
            ForkResult::Parent { child } => {
                assert_eq!(
                    waitpid(child, None).unwrap(),
                    WaitStatus::Exited(child, 7),
                    "{:?}",
                    said.load()
                );
            }
            ForkResult::Child => {
                hold();
                undone_by(|| panic!("another process's"));
                let page = Arc::clone(&said);
                told_by(move |err| {
                    page.append(&err.to_string());
                    process::leave(7)
                });
                let page = Arc::clone(&said);
                undone_by(move || page.store_first("undone; "));
                panic!("no {}", "luck");
            }
        }
        let text = said.load().unwrap();
        assert!(
            text.starts_with("undone; internal error: no luck (fleet-lifecycle/src/panics.rs:"),
            "{text}"
        );
    }
}
