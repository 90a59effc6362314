//! Warnings of our own crates, which know no log. What libcontainer says is for its developers.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, level_filters::LevelFilter};

use super::Log;

/// Whoever gets here first stays; a second log in one process is a test's.
pub(super) fn pass_on(log: Log) {
    drop(tracing::subscriber::set_global_default(Warnings(log)));
}

struct Warnings(Log);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target().starts_with("fleet_")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        self.0.warn(&message.0);
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_warnings_alone() {
        let path = std::env::temp_dir().join(format!("fleet-events-{}", std::process::id()));
        let log = Log {
            file: Some(path.display().to_string()),
            json: true,
            verbosity: 1,
        };
        tracing::subscriber::with_default(Warnings(log), || {
            tracing::warn!(target: "fleet_lifecycle::delete", "poststop hook `{}` failed", "/x");
            tracing::warn!(target: "libcontainer::process", "not for users");
            tracing::error!(target: "fleet_lifecycle::delete", "told otherwise");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&record["level"], &record["msg"]),
            (&"warning".into(), &"poststop hook `/x` failed".into())
        );
    }
}
