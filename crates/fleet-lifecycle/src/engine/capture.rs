//! libcontainer 0.7: only the outermost text of an error crosses its process border ("failed to prepare
//! rootfs"); the cause exists only as a `tracing` event in the child. This subscriber keeps the first error event
//! of any process in the page that all of them share.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use nix::errno::Errno;
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
        let last = Errno::last();
        let mut words = Words::default();
        event.record(&mut words);
        let text = words.sentence();
        // Not every event has the error itself. A machine that has run out of something says so only when it fails.
        let exhausted =
            EXHAUSTED.contains(&last) || last == Errno::EAGAIN && text.contains("failed to fork");
        let errno = errno_in(&words.debug).or_else(|| exhausted.then_some(last));
        match self.0.load() {
            None => {
                self.0.store_first(&match errno {
                    Some(errno) if !names_a_cause(&text) => format!("{text}: {}", errno.desc()),
                    _ => text,
                });
            }
            // The innermost report may lack the cause, which a later one has.
            Some(first) if !names_a_cause(&first) => {
                if let Some(errno) = errno {
                    self.0.append(&format!(": {}", errno.desc()));
                }
            }
            Some(_) => {}
        }
    }
}

/// What a machine has run out of.
const EXHAUSTED: [Errno; 5] = [
    Errno::ENOSPC,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::ENOMEM,
    Errno::EDQUOT,
];

/// The message of an event, then its fields.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
    cause: String,
    /// The error as the library's own debug form, source and all.
    debug: String,
}

impl Words {
    fn sentence(&self) -> String {
        let mut text = self.message.clone();
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
            "err" | "error" => {
                self.debug = format!("{value:?}");
                write!(self.cause, "{}", readable(&self.debug))
            }
            name => write!(self.fields, ", {name} {value:?}"),
        };
    }
}

/// Turns the debug form of an error into words, if it ends in an errno name.
fn readable(debug: &str) -> String {
    let last = debug.rsplit('(').next().unwrap_or(debug);
    match by_name(last.trim_end_matches(')')) {
        Some(errno) => errno.desc().to_owned(),
        None => debug.to_owned(),
    }
}

fn all() -> impl Iterator<Item = Errno> {
    (1..=MAX_ERRNO)
        .map(Errno::from_raw)
        .filter(|errno| *errno != Errno::UnknownErrno)
}

/// Highest number in `errno.h`.
const MAX_ERRNO: i32 = 133;

fn by_name(name: &str) -> Option<Errno> {
    all().find(|errno| format!("{errno:?}") == name)
}

/// The errno in the debug form of an error: by name as nix has it, by number as the standard library has it.
fn errno_in(debug: &str) -> Option<Errno> {
    let number = debug.rsplit_once("code: ").map(|(_, rest)| {
        let end = rest.find(|c: char| !c.is_ascii_digit());
        rest[..end.unwrap_or(rest.len())].parse().unwrap_or(0)
    });
    match number.map(Errno::from_raw) {
        Some(errno) if errno != Errno::UnknownErrno => Some(errno),
        _ => debug
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter_map(by_name)
            .next_back(),
    }
}

/// Whether a text says why the system refused something.
fn names_a_cause(text: &str) -> bool {
    all().any(|errno| text.contains(errno.desc()) || text.contains(&c_words(errno)))
}

/// The C library's words, which for some errors are others than nix's.
fn c_words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_owned()
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
    fn a_cause_that_is_told_later_is_kept() {
        let page = Arc::new(SharedText::new().unwrap());
        let guard = install(Arc::clone(&page));
        tracing::error!("failed to mount /dev: openat2 subpath failed");
        let err = std::io::Error::from_raw_os_error(libc::EMFILE);
        tracing::error!(?err, "failed to prepare rootfs");
        tracing::error!(err = ?"Nix(ENOSPC)", "later");
        drop(guard);
        let text = page.load().unwrap();
        assert_eq!(
            text,
            "failed to mount /dev: openat2 subpath failed: Too many open files"
        );
    }

    #[test]
    fn errnos_are_found() {
        for (debug, want) in [
            ("Mount(Syscall(Nix(ENOMEM)))", Some(Errno::ENOMEM)),
            (
                "Io(Os { code: 28, kind: StorageFull, message: \"x\" })",
                Some(Errno::ENOSPC),
            ),
            ("Custom(\"EXAMPLE\")", None),
            ("code: 99999999999", None),
            ("code: ", None),
        ] {
            assert_eq!(errno_in(debug), want, "{debug}");
        }
    }

    #[test]
    fn errno_names_become_words() {
        assert_eq!(readable("Nix(ENOENT)"), "No such file or directory");
        assert_eq!(readable("Syscall(Nix(EPERM))"), "Operation not permitted");
        assert_eq!(readable("Custom(\"x\")"), "Custom(\"x\")");
    }
}
