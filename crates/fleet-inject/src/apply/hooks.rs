//! `hooks`: each program once per stage.

use serde_json::Value;

use crate::plan::{HookEdit, Stage};
use crate::spec::{self, Shape};

/// Appends the hook. One that an engine has put there without a timeout gets ours.
pub(super) fn add(spec: &mut Value, stage: Stage, hook: &HookEdit) -> Result<(), Shape> {
    let list = spec::list_mut(spec, &format!("hooks.{stage}"))?;
    let present = list
        .iter_mut()
        .find(|other| is_same(other, hook))
        .and_then(Value::as_object_mut);
    match present {
        None => list.push(hook.json()),
        Some(other) if timeout(other.get("timeout")).is_none() => {
            other.insert("timeout".to_owned(), hook.timeout.into());
        }
        Some(_) => {}
    }
    Ok(())
}

/// Removes the entry; lists that become empty go too, as if nobody had made them.
pub(super) fn remove(spec: &mut Value, stage: Stage, hook: &Value) {
    let Some(hooks) = spec.get_mut("hooks").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(list) = hooks.get_mut(stage.key()).and_then(Value::as_array_mut) else {
        return;
    };
    list.retain(|other| other != hook);
    if list.is_empty() {
        hooks.shift_remove(stage.key());
    }
    if hooks.is_empty()
        && let Some(spec) = spec.as_object_mut()
    {
        spec.shift_remove("hooks");
    }
}

fn is_same(other: &Value, hook: &HookEdit) -> bool {
    let same_list = |key: &str, want: &[String]| {
        let found = other
            .get(key)
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        found
            .iter()
            .map(Value::as_str)
            .eq(want.iter().map(|text| Some(text.as_str())))
    };
    spec::text(other, "path") == hook.path
        && same_list("args", &hook.args)
        && same_list("env", &hook.env)
        && timeout(other.get("timeout")).is_none_or(|seconds| seconds == i64::from(hook.timeout))
}

/// Seconds; 0 and less mean none.
fn timeout(value: Option<&Value>) -> Option<i64> {
    value.and_then(Value::as_i64).filter(|seconds| *seconds > 0)
}
