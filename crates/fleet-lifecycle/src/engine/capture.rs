//! libcontainer 0.7: only the outermost text of an error crosses its process border ("failed to prepare
//! rootfs"); the cause exists only as a `tracing` event in the child. This subscriber keeps the first error event
//! of any process in the page that all of them share.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, level_filters::LevelFilter};

use crate::sys::process::SharedText;

/// Writes error events to the shared page while the guard lives.
pub(super) fn install(report: Arc<SharedText>) -> tracing::subscriber::DefaultGuard {
    tracing::subscriber::set_default(Capture(report))
}

struct Capture(Arc<SharedText>);

impl Subscriber for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if !self.enabled(event.metadata()) {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        self.0.store_first(&words.sentence());
    }
}

/// The message of an event, then its fields.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
    cause: String,
}

impl Words {
    fn sentence(self) -> String {
        let mut text = self.message;
        if !self.fields.is_empty() {
            text = format!("{text} ({})", self.fields.trim_start_matches(", "));
        }
        if !self.cause.is_empty() {
            text = format!("{text}: {}", self.cause);
        }
        text.replace('\n', " ")
    }
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "err" | "error" => write!(self.cause, "{}", readable(&format!("{value:?}"))),
            name => write!(self.fields, ", {name} {value:?}"),
        };
    }
}

/// Turns the debug form of an error into words: an errno name becomes the C library's text.
fn readable(debug: &str) -> String {
    let errno = debug
        .rsplit('(')
        .next()
        .unwrap_or(debug)
        .trim_end_matches(')');
    let known = [
        "EPERM",
        "ENOENT",
        "EACCES",
        "EEXIST",
        "ENOTDIR",
        "EISDIR",
        "EINVAL",
        "EBUSY",
        "ENOSPC",
        "EROFS",
        "ELOOP",
        "ENODEV",
        "ENXIO",
        "ENOMEM",
        "EMFILE",
        "ENAMETOOLONG",
    ];
    let texts = [
        "Operation not permitted",
        "No such file or directory",
        "Permission denied",
        "File exists",
        "Not a directory",
        "Is a directory",
        "Invalid argument",
        "Device or resource busy",
        "No space left on device",
        "Read-only file system",
        "Too many levels of symbolic links",
        "No such device",
        "No such device or address",
        "Cannot allocate memory",
        "Too many open files",
        "File name too long",
    ];
    match known.iter().position(|name| *name == errno) {
        Some(at) => texts[at].to_owned(),
        None => debug.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_first_error_with_its_cause() {
        let page = Arc::new(SharedText::new().unwrap());
        let guard = install(Arc::clone(&page));
        tracing::warn!("ignored");
        tracing::error!(err = ?"Nix(ENOENT)", source = "/x", "failed to mount");
        tracing::error!("later");
        drop(guard);
        let text = page.load().unwrap();
        assert!(text.starts_with("failed to mount"), "{text}");
        assert!(text.contains("/x"), "{text}");
        assert!(!text.contains("later"), "{text}");
    }

    #[test]
    fn errno_names_become_words() {
        assert_eq!(readable("Nix(ENOENT)"), "No such file or directory");
        assert_eq!(readable("Syscall(Nix(EPERM))"), "Operation not permitted");
        assert_eq!(readable("Custom(\"x\")"), "Custom(\"x\")");
    }
}
