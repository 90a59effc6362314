//! `process.env` and `process.user.additionalGids`.

use serde_json::Value;

/// Replaces the variable where it stands, or appends it. A program reads the first of duplicates and engines mean the
/// last, so only one stays.
pub(super) fn set_env(env: &mut Vec<Value>, name: &str, value: &str) {
    let is_same = |entry: &Value| {
        let rest = entry.as_str().and_then(|entry| entry.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with('='))
    };
    let entry = Value::String(format!("{name}={value}"));
    match env.iter().rposition(is_same) {
        None => env.push(entry),
        Some(last) => {
            env[last] = entry;
            let mut at = 0;
            env.retain(|entry| {
                at += 1;
                at > last || !is_same(entry)
            });
        }
    }
}

pub(super) fn add_gid(gids: &mut Vec<Value>, gid: u32) {
    if !gids
        .iter()
        .any(|other| other.as_u64() == Some(u64::from(gid)))
    {
        gids.push(gid.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_variable_is_replaced_where_it_stands() {
        let cases = [
            (json!([]), json!(["A=x"])),
            (json!(["B=1"]), json!(["B=1", "A=x"])),
            (json!(["A=1", "B=1"]), json!(["A=x", "B=1"])),
            (
                json!(["A=1", "B=1", "A=2", "C=1"]),
                json!(["B=1", "A=x", "C=1"]),
            ),
            (json!(["AB=1", "A", 7]), json!(["AB=1", "A", 7, "A=x"])),
        ];
        for (env, want) in cases {
            let mut env = env.as_array().unwrap().clone();
            set_env(&mut env, "A", "x");
            assert_eq!(Value::from(env.clone()), want);
            set_env(&mut env, "A", "x");
            assert_eq!(Value::from(env), want);
        }
    }
}
