//! `list`.

use fleet_lifecycle::record::{Container, Status};
use fleet_lifecycle::{Error, delegate};
use serde_json::Value;

use super::{Context, Done};
use crate::cli::List;

pub(super) fn list(context: &Context, args: &List) -> Result<Done, Error> {
    let ids = context.root.ids()?;
    if args.quiet {
        return Ok(Done::Text(ids.iter().map(|id| format!("{id}\n")).collect()));
    }
    // One damaged record must not hide the others.
    let read = ids.iter().filter_map(|id| match context.container(id) {
        Ok(container) => Some(container),
        // Gone since the directory was read.
        Err(Error::Unknown(_)) => None,
        Err(err) => {
            context.log.say(&err.to_string());
            None
        }
    });
    let all: Vec<Container> = read.collect();
    if args.format == "json" {
        let states: Vec<Value> = all.iter().map(state).collect::<Result<_, _>>()?;
        return Ok(Done::Text(format!("{}\n", Value::Array(states))));
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for container in &all {
        rows.push(row(container)?);
    }
    Ok(Done::Text(table(&rows)))
}

/// One that another runtime made and tells nothing of is judged by its process.
fn state(container: &Container) -> Result<Value, Error> {
    match delegate::state_of(container) {
        Err(_) if container.record.delegate.is_some() => {
            let status = match container.alive()? {
                true => Status::Running,
                false => Status::Stopped,
            };
            Ok(container.state_as(status))
        }
        other => other,
    }
}

fn row(container: &Container) -> Result<[String; 6], Error> {
    let record = &container.record;
    let state = state(container)?;
    Ok([
        record.id.clone(),
        state["pid"].to_string(),
        state["status"].as_str().unwrap_or_default().to_owned(),
        record.bundle.display().to_string(),
        record.created.clone(),
        record.owner.clone(),
    ])
}

fn table(rows: &[[String; 6]]) -> String {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let cells = |texts: [&str; 6]| texts.map(str::to_owned);
        let text = super::table(&[
            cells(["ID", "PID", "S", "B", "C", "O"]),
            cells(["long-id", "1", "s", "/b", "t", "root"]),
        ]);
        let at: Vec<_> = text
            .lines()
            .map(|line| line.find("PID").or_else(|| line.find('1')).unwrap())
            .collect();
        assert_eq!(at[0], at[1]);
    }
}
