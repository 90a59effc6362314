//! The error contract with the engines: one line on stderr, one JSON object in the log file.
//!
//! Podman parses the whole `--log` file as a single object, so at default verbosity nothing but the fatal error is
//! written to it. containerd appends to one file for a container's whole life, so it is never truncated.

mod events;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use crate::cli::Global;

/// Where and how errors are told.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    file: Option<String>,
    json: bool,
    verbosity: u8,
}

/// Severities by name; a record is written when its number is not above the verbosity.
const LEVELS: [(&str, u8); 5] = [
    ("error", 0),
    ("warning", 1),
    ("warn", 1),
    ("info", 2),
    ("debug", 3),
];

impl Log {
    /// Follows the global options.
    pub(crate) fn new(global: &Global) -> Self {
        let named = global
            .log_level
            .as_deref()
            .and_then(|name| LEVELS.iter().find(|(level, _)| *level == name));
        let verbosity = if global.debug {
            3
        } else {
            named.map_or(0, |(_, number)| *number)
        };
        Self {
            file: global.log.clone().filter(|f| !f.is_empty()),
            json: global.log_format == "json",
            verbosity,
        }
    }

    /// From here on the warnings of the lifecycle come here, too.
    pub(crate) fn listen(&self) {
        if self.verbosity >= 1 {
            events::pass_on(self.clone());
        }
    }

    /// Before the options are known.
    pub(crate) fn to_stderr() -> Self {
        Self {
            file: None,
            json: false,
            verbosity: 0,
        }
    }

    /// The final error, once.
    pub(crate) fn fatal(&self, message: &str) {
        let message = sanitise(message);
        if self.file.is_some() {
            self.append("error", &message);
        }
        // runc tells both; conmon and CRI-O read stderr only.
        let _ = writeln!(std::io::stderr().lock(), "fleet-nvidia: {message}");
    }

    /// The final error, where stderr has it already.
    pub(crate) fn note_down(&self, message: &str) {
        if self.file.is_some() {
            self.append("error", &sanitise(message));
        }
    }

    /// For verbs whose stderr is nobody else's.
    pub(crate) fn say(&self, message: &str) {
        let message = sanitise(message);
        let _ = writeln!(std::io::stderr().lock(), "fleet-nvidia: warning: {message}");
    }

    /// What was decided, for those who look into it.
    pub(crate) fn debug(&self, message: &str) {
        self.record(3, "debug", message);
    }

    /// The container starts, but lesser than asked.
    pub(crate) fn warn(&self, message: &str) {
        self.record(1, "warning", message);
    }

    fn record(&self, number: u8, level: &str, message: &str) {
        if self.verbosity < number {
            return;
        }
        let message = sanitise(message);
        if self.file.is_some() {
            self.append(level, &message);
        } else {
            let _ = writeln!(std::io::stderr().lock(), "fleet-nvidia: {level}: {message}");
        }
    }

    fn append(&self, level: &str, message: &str) {
        let Some(path) = &self.file else { return };
        let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let line = if self.json {
            serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
        } else {
            format!(
                "time=\"{time}\" level={level} msg={}",
                serde_json::Value::from(message)
            )
        };
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o644)
            .open(path);
        if let Err(err) = opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        {
            let _ = writeln!(
                std::io::stderr().lock(),
                "fleet-nvidia: cannot write to log `{path}`: {err}"
            );
        }
    }
}

/// One line without control characters: names come from files and images.
fn sanitise(message: &str) -> String {
    message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_per_record_appended() {
        let path = std::env::temp_dir().join(format!("fleet-log-{}", std::process::id()));
        let log = Log {
            file: Some(path.display().to_string()),
            json: true,
            verbosity: 0,
        };
        log.append("error", "first");
        log.warn("not at this verbosity");
        log.append("error", "a \"quoted\" one");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let records: Vec<serde_json::Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(records.len(), 2);
        for record in &records {
            let keys: Vec<&String> = record.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["level", "msg", "time"]);
            assert_eq!(record["level"], "error");
        }
    }

    #[test]
    fn control_characters_are_taken_out() {
        assert_eq!(sanitise("a\nb\x1b[31m\t"), "a b [31m");
    }
}
