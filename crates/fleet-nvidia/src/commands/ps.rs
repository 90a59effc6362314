//! `ps`: the processes in the container's cgroup, with children.

use std::process::Command;

use fleet_lifecycle::Error;
use serde_json::json;

use super::{Context, Done, delegated};
use crate::cli::Ps;

pub(super) fn ps(context: &Context, args: &Ps) -> Result<Done, Error> {
    let container = context.container(&args.id)?;
    if delegated::pass(&container, &[])?.is_some() {
        return Ok(Done::Silent);
    }
    let mut pids = container.record.cgroup.processes()?;
    if pids.is_empty() && container.alive()? {
        pids.push(container.record.pid);
    }
    if args.format == "json" {
        return Ok(Done::Text(format!("{}\n", json!(pids))));
    }
    table(&pids, &args.options).map(Done::Text)
}

/// ps(1) knows the columns; its lines are filtered by pid, as runc does.
fn table(pids: &[i32], options: &[String]) -> Result<String, Error> {
    let options = if options.is_empty() {
        vec!["-ef".to_owned()]
    } else {
        options.to_vec()
    };
    let path = ["/usr/bin/ps", "/bin/ps"]
        .into_iter()
        .find(|p| std::path::Path::new(p).exists());
    let path = path.ok_or_else(|| {
        Error::Invalid("ps(1) is not installed; hint: use `--format json`".to_owned())
    })?;
    let output = Command::new(path)
        .args(&options)
        .env_clear()
        .output()
        .map_err(|source| Error::Io {
            op: format!("run `{path}`"),
            source,
        })?;
    if !output.status.success() {
        return Err(Error::Setup(format!(
            "`{path}` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| {
        Error::Invalid("the options of ps(1) leave out the PID column".to_owned())
    })?;
    let ours = |line: &&str| {
        line.split_whitespace()
            .nth(column)
            .and_then(|pid| pid.parse().ok())
            .is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok([header]
        .into_iter()
        .chain(lines.filter(ours))
        .map(|line| format!("{line}\n"))
        .collect())
}
