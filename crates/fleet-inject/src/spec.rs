//! Borrowed views of the OCI spec's raw JSON. `null` counts as absent everywhere, as for the engines' Go decoders.

use serde_json::{Map, Value};

/// The list at `pointer`, empty if absent or of another type.
pub(crate) fn list<'a>(spec: &'a Value, pointer: &str) -> &'a [Value] {
    spec.pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The text of member `key`, empty if absent or of another type.
pub(crate) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Annotations with a text value, in the order of the file.
pub(crate) fn annotations(spec: &Value) -> impl Iterator<Item = (&str, &str)> {
    let map = spec.get("annotations").and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// Part of the spec whose type is not the one the OCI runtime specification gives it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` of the OCI spec is not {want}")]
pub(crate) struct Shape {
    path: String,
    want: &'static str,
}

/// The object at the dotted `path`, made where absent.
pub(crate) fn object_mut<'a>(
    spec: &'a mut Value,
    path: &str,
) -> Result<&'a mut Map<String, Value>, Shape> {
    let shape = || Shape {
        path: path.to_owned(),
        want: "an object",
    };
    let mut at = spec;
    for key in path.split('.') {
        at = at
            .as_object_mut()
            .ok_or_else(shape)?
            .entry(key)
            .or_insert(Value::Null);
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
    }
    at.as_object_mut().ok_or_else(shape)
}

/// The list at the dotted `path`, made where absent.
pub(crate) fn list_mut<'a>(spec: &'a mut Value, path: &str) -> Result<&'a mut Vec<Value>, Shape> {
    let shape = || Shape {
        path: path.to_owned(),
        want: "a list",
    };
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    let parent = match parent {
        "" => spec.as_object_mut().ok_or_else(shape)?,
        parent => object_mut(spec, parent)?,
    };
    let value = parent.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().ok_or_else(shape)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_and_null_parts_are_made() {
        let mut spec = json!({"linux": null, "mounts": null});
        list_mut(&mut spec, "linux.resources.devices")
            .unwrap()
            .push(json!(1));
        list_mut(&mut spec, "mounts").unwrap().push(json!(2));
        list_mut(&mut spec, "hooks").unwrap().push(json!(3));
        assert_eq!(
            spec,
            json!({"linux": {"resources": {"devices": [1]}}, "mounts": [2], "hooks": [3]})
        );
    }

    #[test]
    fn wrong_types_are_named() {
        let mut spec = json!({"linux": [], "mounts": {}});
        let err = list_mut(&mut spec, "linux.devices").unwrap_err();
        assert_eq!(err.to_string(), "`linux` of the OCI spec is not an object");
        let err = list_mut(&mut spec, "mounts").unwrap_err();
        assert_eq!(err.to_string(), "`mounts` of the OCI spec is not a list");
    }
}
