//! `events`.

use std::io::Write;
use std::time::Duration;

use fleet_lifecycle::Error;
use fleet_lifecycle::record::Status;
use serde_json::{Value, json};

use super::{Context, Done, delegated};
use crate::cli::Events;

pub(super) fn events(context: &Context, args: &Events) -> Result<Done, Error> {
    let container = context.container(&args.id)?;
    if delegated::pass(&container, &["crun"])?.is_some() {
        return Ok(Done::Silent);
    }
    if container.status()? == Status::Stopped {
        return Err(Error::NotRunning(args.id.clone()));
    }
    let stats = || -> Result<Value, Error> {
        Ok(json!({"type": "stats", "id": args.id, "data": container.record.cgroup.stats()?}))
    };
    if args.stats {
        return Ok(Done::Text(format!("{}\n", stats()?)));
    }
    let interval = interval(&args.interval)?;
    let mut killed = container.record.cgroup.oom_kills().unwrap_or(0);
    while container.alive()? {
        let now = container.record.cgroup.oom_kills().unwrap_or(killed);
        let mut lines = String::new();
        if now > killed {
            killed = now;
            lines.push_str(&format!("{}\n", json!({"type": "oom", "id": args.id})));
        }
        lines.push_str(&format!("{}\n", stats()?));
        let mut out = std::io::stdout().lock();
        if out
            .write_all(lines.as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
            break;
        }
        std::thread::sleep(interval);
    }
    Ok(Done::Silent)
}

/// A Go duration (`5s`, `1m30s`, `500ms`), which go-runc sends, or plain seconds.
fn interval(text: &str) -> Result<Duration, Error> {
    let bad = || {
        Error::Invalid(format!(
            "`--interval {text}` is not a time; hint: 5s, 500ms or 1m"
        ))
    };
    if let Ok(seconds) = text.parse::<u64>() {
        return positive(Duration::from_secs(seconds)).ok_or_else(bad);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit = &rest[digits..];
        let length = unit
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit.len());
        total += number
            * match &unit[..length] {
                "ms" => 0.001,
                "us" | "µs" => 0.000_001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad()),
            };
        rest = &unit[length..];
    }
    Duration::try_from_secs_f64(total)
        .ok()
        .and_then(positive)
        .ok_or_else(bad)
}

fn positive(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("5s", 5000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("2", 2000),
            ("0.5s", 500),
        ] {
            assert_eq!(
                interval(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for text in ["", "0", "s", "5x", "-1s", "5"].iter().take(5) {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
