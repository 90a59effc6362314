//! Writing YAML that every reader understands alike: block style, and quotes wherever one might see a type.

use std::fmt::Write;

use serde_json::Value;

use crate::scalar::{Scalar, boolean};

/// One document, opened by `---`.
pub(crate) fn yaml(value: &Value) -> String {
    let mut text = String::from("---\n");
    match value {
        Value::Object(_) | Value::Array(_) => collection(value, 0, &mut text),
        _ => scalar(value, &mut text),
    }
    text
}

fn collection(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                text.extend(std::iter::repeat_n(' ', indent));
                word(key, text);
                text.push(':');
                inside(value, indent, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                text.extend(std::iter::repeat_n(' ', indent));
                text.push('-');
                match item {
                    Value::Object(fields) if !fields.is_empty() => {
                        // The first key stands behind the dash.
                        let start = text.len();
                        collection(item, indent + 2, text);
                        text.replace_range(start..start + indent + 2, " ");
                    }
                    _ => inside(item, indent, text),
                }
            }
        }
        _ => {}
    }
}

/// What follows `key:` or `-`.
fn inside(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            collection(value, indent + 2, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            collection(value, indent + 2, text);
        }
        _ => {
            text.push(' ');
            scalar(value, text);
        }
    }
}

fn scalar(value: &Value, text: &mut String) {
    match value {
        Value::String(string) => word(string, text),
        // `[]`, `{}`, numbers and booleans are the same in JSON.
        other => text.push_str(&other.to_string()),
    }
    text.push('\n');
}

fn word(string: &str, text: &mut String) {
    if is_safe(string) {
        text.push_str(string);
    } else {
        quoted(string, text);
    }
}

/// Begins like a word or a path, holds nothing that YAML knows, and looks like no other type to any YAML version.
fn is_safe(string: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"/._-=+,@".contains(&b);
    string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && string.bytes().all(inside)
        && Scalar::of(string) == Scalar::Word
        && boolean(string).is_none()
}

/// Double quotes with JSON's escapes, and those of characters that YAML does not print (YAML 1.1, `c-printable`).
fn quoted(string: &str, text: &mut String) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\0'..='\u{1f}'
            | '\u{7f}'..='\u{a0}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            _ => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn form() {
        let value = json!({
            "kind": "v.com/c",
            "empty": {"a": [], "b": {}},
            "devices": [{"name": "0", "on": true, "list": ["--x", "y", "/z", "a: b", "it's"], "mode": 438}, {"name": "x"}],
        });
        let want = "---\nkind: v.com/c\nempty:\n  a: []\n  b: {}\ndevices:\n  - name: \"0\"\n    \"on\": true\n    list:\n      - \"--x\"\n      - \"y\"\n      - /z\n      - \"a: b\"\n      - \"it's\"\n    mode: 438\n  - name: x\n";
        assert_eq!(yaml(&value), want);
    }

    #[test]
    fn what_another_reader_would_take_for_a_type_is_quoted() {
        for text in [
            "yes",
            "No",
            "NULL",
            "~",
            "true",
            "0",
            "-1",
            ".5",
            "0:1",
            "=",
            "<<",
            "",
            "é",
            "a\u{85}",
            "2001-01-01",
        ] {
            let written = yaml(&json!([text]));
            assert!(
                written.starts_with("---\n- \"") && written.is_ascii() || text == "é",
                "{written}"
            );
        }
        assert_eq!(
            yaml(&json!("a\u{7f}\u{feff}\n\t\u{1}")),
            "---\n\"a\\u007f\\ufeff\\n\\t\\u0001\"\n"
        );
    }
}
