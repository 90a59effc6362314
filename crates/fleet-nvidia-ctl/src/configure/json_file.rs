//! A JSON file of an engine: keys keep their order, and a key given twice is a fault, not a loss.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::toml_file::BadFile;

/// Reads an object; an empty file is one without keys.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, BadFile> {
    let bad = |line: usize, problem: String| BadFile {
        path: path.to_path_buf(),
        line: line.max(1),
        problem,
    };
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str::<Strict>(text) {
        Ok(Strict(Value::Object(object))) => Ok(object),
        Ok(_) => Err(bad(1, "is not a JSON object".to_owned())),
        Err(err) => {
            let message = err.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            Err(bad(err.line(), format!("is not JSON: {message}")))
        }
    }
}

/// Writes an object with the indentation that the file had.
pub(super) fn print(object: &Map<String, Value>, model: &str) -> String {
    let indent = model
        .lines()
        .map(|line| &line[..line.len() - line.trim_start().len()])
        .find(|indent| !indent.is_empty())
        .unwrap_or("  ");
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // Writing a map of strings to memory cannot fail.
    let _ = serde::Serialize::serialize(object, &mut serializer);
    let end = if model.is_empty() || model.ends_with('\n') {
        "\n"
    } else {
        ""
    };
    String::from_utf8_lossy(&text).into_owned() + end
}

/// Line of a key below another one, for messages.
pub(super) fn line(text: &str, keys: &[&str]) -> usize {
    let mut at = 0;
    for key in keys {
        let quoted = format!("\"{key}\"");
        at += text[at..].find(&quoted).unwrap_or(0);
    }
    text[..at].matches('\n').count() + 1
}

/// A value whose objects have each key once.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!(
                    "key {key:?} stands there twice"
                )));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_and_indentation_survive() {
        let text = "{\n    \"z\": 1,\n    \"a\": {\n        \"b\": [\n            true,\n            null,\n            -1.5,\n            \"x\"\n        ]\n    }\n}";
        let object = parse(Path::new("/d.json"), text).unwrap();
        assert_eq!(print(&object, text), text);
        assert_eq!(line(text, &["a", "b"]), 4);
    }

    #[test]
    fn faults_have_a_line() {
        let cases = [
            ("{\n \"a\": 1,\n", 3, "is not JSON: EOF"),
            ("{\n\"a\": 1,\n\"a\": 2}", 3, "\"a\" stands there twice"),
            ("[]", 1, "is not a JSON object"),
            ("{\n// c\n}", 2, "is not JSON"),
        ];
        for (text, line, problem) in cases {
            let bad = parse(Path::new("/d.json"), text).unwrap_err();
            assert_eq!(bad.line, line, "{bad}");
            assert!(bad.problem.contains(problem), "{bad}");
        }
        assert!(parse(Path::new("/d.json"), " \n").unwrap().is_empty());
    }
}
