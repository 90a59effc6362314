//! From bytes to a JSON tree, strictly: duplicate keys, several documents, aliases and absurd nesting are refused.
//!
//! YAML is read by `saphyr-parser`, a maintained event parser, and given the meaning that the Go library's reader gives
//! it (YAML 1.1 scalars: `0640` is octal), since hand-written specs rely on it.

use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest nesting; a spec has six levels.
const MAX_DEPTH: usize = 32;

/// What is wrong, with its place where the parser knows it.
pub(crate) type TreeError = String;

/// Reads JSON.
pub(crate) fn json(bytes: &[u8]) -> Result<Value, TreeError> {
    serde_json::from_slice::<Strict>(bytes)
        .map(|tree| tree.0)
        .map_err(|err| err.to_string())
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder).map(Self)
    }
}

struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
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
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            all.push(value);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((key, Strict(value))) = map.next_entry::<String, Strict>()? {
            if all.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!(
                    "key \"{}\" is given twice",
                    crate::name::shown(&key)
                )));
            }
        }
        Ok(Value::Object(all))
    }
}

/// A collection under construction.
enum Open {
    Sequence(Vec<Value>),
    Mapping(Map<String, Value>, Option<String>),
}

/// Reads one YAML document.
pub(crate) fn yaml(text: &str) -> Result<Value, TreeError> {
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|err| format!("line {}: {}", err.marker().line(), err.info()))?;
        let value = match event {
            Event::Scalar(text, style, _, _) => scalar(&text, style),
            Event::SequenceStart(..) => {
                push(&mut open, Open::Sequence(Vec::new()), &span)?;
                continue;
            }
            Event::MappingStart(..) => {
                push(&mut open, Open::Mapping(Map::new(), None), &span)?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::Sequence(all)) => Value::Array(all),
                Some(Open::Mapping(all, _)) => Value::Object(all),
                None => return Err("unbalanced document".to_owned()),
            },
            Event::Alias(_) => return Err(at(&span, "aliases are not allowed in a spec")),
            Event::DocumentStart(_) if root.is_some() => {
                return Err(at(&span, "a spec is one document, not several"));
            }
            _ => continue,
        };
        place(&mut open, &mut root, value, &span)?;
    }
    root.ok_or_else(|| "the file is empty".to_owned())
}

fn at(span: &Span, why: &str) -> TreeError {
    format!("line {}: {why}", span.start.line())
}

fn push(open: &mut Vec<Open>, new: Open, span: &Span) -> Result<(), TreeError> {
    if open.len() >= MAX_DEPTH {
        return Err(at(span, "nested too deeply"));
    }
    open.push(new);
    Ok(())
}

fn place(
    open: &mut [Open],
    root: &mut Option<Value>,
    value: Value,
    span: &Span,
) -> Result<(), TreeError> {
    match open.last_mut() {
        None => *root = Some(value),
        Some(Open::Sequence(all)) => all.push(value),
        Some(Open::Mapping(all, key)) => match key.take() {
            Some(name) => {
                if all.contains_key(&name) {
                    return Err(at(
                        span,
                        &format!("key \"{}\" is given twice", crate::name::shown(&name)),
                    ));
                }
                all.insert(name, value);
            }
            None => {
                *key = Some(match value {
                    Value::String(name) => name,
                    Value::Number(number) => number.to_string(),
                    Value::Bool(word) => word.to_string(),
                    _ => return Err(at(span, "a key is not a word")),
                });
            }
        },
    }
    Ok(())
}

/// A plain scalar has a type by its look; a quoted one is a string.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return text.into();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        _ => integer(text)
            .map(Value::from)
            .or_else(|| float(text))
            .unwrap_or_else(|| text.into()),
    }
}

fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || digits.ends_with('_') {
        return None;
    }
    let plain = digits.replace('_', "");
    let (radix, plain) = match plain.as_bytes() {
        [b'0', b'x', ..] => (16, &plain[2..]),
        [b'0', b'b', ..] => (2, &plain[2..]),
        [b'0', b'o', ..] => (8, &plain[2..]),
        // YAML 1.1: a leading zero means octal.
        [b'0', _, ..] => (8, &plain[1..]),
        _ => (10, plain.as_str()),
    };
    let value = i64::from_str_radix(plain, radix).ok()?;
    Some(if negative { -value } else { value })
}

fn float(text: &str) -> Option<Value> {
    let numeric = text.contains(|c: char| c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E'));
    let value: f64 = if numeric {
        text.parse().ok()?
    } else {
        return None;
    };
    Number::from_f64(value).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_of_yaml() {
        let cases = [
            ("0640", json!(416)),
            ("0o640", json!(416)),
            ("438", json!(438)),
            ("0x1b6", json!(438)),
            ("1_000", json!(1000)),
            ("-1", json!(-1)),
            ("0", json!(0)),
            ("0.5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("0.5.0", json!("0.5.0")),
            ("true", json!(true)),
            ("~", Value::Null),
            ("yes", json!("yes")),
            ("0808", json!(808.0)),
            ("GPU-1", json!("GPU-1")),
            ("\"0\"", json!("0")),
            ("'1'", json!("1")),
            ("a:b", json!("a:b")),
        ];
        for (text, want) in cases {
            assert_eq!(yaml(&format!("k: {text}\n")).unwrap()["k"], want, "{text}");
        }
    }

    #[test]
    fn refused() {
        for (text, word) in [
            ("a: 1\na: 2\n", "twice"),
            ("---\na: 1\n---\nb: 2\n", "one document"),
            ("a: &x 1\nb: *x\n", "aliases"),
            ("", "empty"),
            ("a: [1\n", "line"),
            ("a: \t- b\n  c", ""),
        ] {
            let err = yaml(text).unwrap_err();
            assert!(err.contains(word), "{text:?}: {err}");
        }
        assert!(
            yaml(&format!("{}1{}", "[".repeat(100), "]".repeat(100)))
                .unwrap_err()
                .contains("deep")
        );
        assert!(json(br#"{"a":1,"a":2}"#).unwrap_err().contains("twice"));
        assert!(json("[".repeat(100_000).as_bytes()).is_err());
        assert!(json(b"{} {}").is_err());
    }
}
