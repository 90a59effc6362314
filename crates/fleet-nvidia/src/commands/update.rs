//! `update`.

use std::io::Read;

use fleet_lifecycle::{Error, spec};
use serde_json::{Value, json};

use super::{Context, Done, delegated};
use crate::cli::Update;

pub(super) fn update(context: &Context, args: &Update) -> Result<Done, Error> {
    let container = context.container(&args.id)?;
    if delegated::pass(&container, &[])?.is_some() {
        return Ok(Done::Silent);
    }
    let resources = match args.resources.as_deref() {
        Some("-") => from_stdin()?,
        Some(file) => spec::load(std::path::Path::new(file))?,
        None => from_flags(args)?,
    };
    if !resources.is_object() {
        return Err(Error::Invalid("resources are not a JSON object".to_owned()));
    }
    container.record.cgroup.update(&resources)?;
    let shares = [&args.l3_cache_schema, &args.mem_bw_schema];
    let shares: Vec<String> = shares.into_iter().flatten().cloned().collect();
    match (&container.record.rdt, shares.is_empty()) {
        (_, true) => {}
        (Some(class), false) => class.share(&shares)?,
        (None, false) => {
            return Err(Error::Invalid(
                "container has no `linux.intelRdt`, so its cache and memory bandwidth cannot be changed".to_owned(),
            ));
        }
    }
    Ok(Done::Silent)
}

fn from_stdin() -> Result<Value, Error> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|source| Error::Io {
            op: "read stdin".to_owned(),
            source,
        })?;
    serde_json::from_str(&text).map_err(|err| Error::Invalid(format!("parse resources: {err}")))
}

fn from_flags(args: &Update) -> Result<Value, Error> {
    let mut all = json!({});
    let mut set = |group: &str, key: &str, value: Option<Value>| {
        if let Some(value) = value {
            all[group][key] = value;
        }
    };
    set("blockIO", "weight", args.blkio_weight.map(Value::from));
    set("cpu", "period", args.cpu_period.map(Value::from));
    set("cpu", "quota", args.cpu_quota.map(Value::from));
    set("cpu", "burst", args.cpu_burst.map(Value::from));
    set("cpu", "realtimePeriod", args.cpu_rt_period.map(Value::from));
    set(
        "cpu",
        "realtimeRuntime",
        args.cpu_rt_runtime.map(Value::from),
    );
    set("cpu", "shares", args.cpu_shares.map(Value::from));
    set("cpu", "idle", args.cpu_idle.map(Value::from));
    set("cpu", "cpus", args.cpuset_cpus.clone().map(Value::from));
    set("cpu", "mems", args.cpuset_mems.clone().map(Value::from));
    set("memory", "limit", bytes("memory", args.memory.as_deref())?);
    set(
        "memory",
        "reservation",
        bytes("memory-reservation", args.memory_reservation.as_deref())?,
    );
    set(
        "memory",
        "swap",
        bytes("memory-swap", args.memory_swap.as_deref())?,
    );
    set("pids", "limit", args.pids_limit.map(Value::from));
    Ok(all)
}

/// Bytes with an optional binary suffix, as runc's `--memory 32M`.
fn bytes(flag: &str, text: Option<&str>) -> Result<Option<Value>, Error> {
    let Some(text) = text else { return Ok(None) };
    let bad = || {
        Error::Invalid(format!(
            "`--{flag} {text}` is not a number of bytes; hint: 1048576, 1024k, 1M, 1G or -1"
        ))
    };
    let lower = text.to_ascii_lowercase();
    let plain = lower
        .strip_suffix("ib")
        .or_else(|| lower.strip_suffix('b'))
        .unwrap_or(&lower);
    let (digits, shift) = match plain.char_indices().last() {
        Some((at, 'k')) => (&plain[..at], 10),
        Some((at, 'm')) => (&plain[..at], 20),
        Some((at, 'g')) => (&plain[..at], 30),
        Some((at, 't')) => (&plain[..at], 40),
        _ => (plain, 0),
    };
    let number: i64 = digits.parse().map_err(|_| bad())?;
    let value = number.checked_mul(1 << shift).ok_or_else(bad)?;
    Ok(Some(value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_sizes() {
        for (text, want) in [
            ("1048576", 1_048_576_i64),
            ("1M", 1 << 20),
            ("2kb", 2048),
            ("1GiB", 1 << 30),
            ("-1", -1),
        ] {
            assert_eq!(
                bytes("memory", Some(text)).unwrap(),
                Some(want.into()),
                "{text}"
            );
        }
        for text in ["", "x", "1x", "9999999999G"] {
            assert!(bytes("memory", Some(text)).is_err(), "{text}");
        }
        assert_eq!(bytes("memory", None).unwrap(), None);
    }
}
