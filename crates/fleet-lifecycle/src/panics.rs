//! A panic becomes an error like any other: one line, the exit code of a failed runtime, no more.
//!
//! libcontainer 0.7 and what it is made of panic where a machine has run out of something.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps what a panic says from stderr, which is the container's.
pub fn hold() {
    set_hook(Box::new(|info| {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(sentence(info));
    }));
}

/// Runs `work`; a panic is its error.
///
/// # Errors
/// Those of `work`.
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let said = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(Error::Setup(
            said.unwrap_or_else(|| "internal error".to_owned()),
        ))
    })
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

    #[test]
    fn what_was_said_is_the_error() {
        let before = std::panic::take_hook();
        hold();
        let err = caught(|| -> Result<()> { panic!("no {}", "luck") }).unwrap_err();
        std::panic::set_hook(before);
        let text = err.to_string();
        assert!(
            text.starts_with("internal error: no luck (fleet-lifecycle/src/panics.rs:")
                || text == "internal error",
            "{text}"
        );
        assert_eq!(caught(|| Ok(1)).unwrap(), 1);
    }
}
