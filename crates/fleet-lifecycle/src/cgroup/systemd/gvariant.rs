//! Values in GVariant text form, as in `org.systemd.property.*` annotations (GLib reference manual, "GVariant Text
//! Format"): the part that systemd's properties need.
//!
//! A number without a type is an `int32`, one with a point a `double`; `uint64 5`, `@t 5` and arrays of one type.

use super::wire::Value;

/// Nested arrays, variants and tuples at most; properties have two.
const DEEPEST: usize = 8;

/// Reads one value.
///
/// # Errors
/// What is wrong, without the text itself.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text.trim() };
    let value = parser.value(None, 0)?;
    if parser.rest.is_empty() {
        Ok(value)
    } else {
        Err("something follows the value".to_owned())
    }
}

/// Keywords for types, with their signature.
const KEYWORDS: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// One value; `wanted` is the type that is known for it.
    fn value(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err("it is nested too deep".to_owned());
        }
        match self.rest.chars().next() {
            None => Err("a value is missing".to_owned()),
            Some('@') => {
                self.rest = &self.rest[1..];
                let kind = self.word();
                self.value(Some(kind), depth)
            }
            Some('[') => self.array(wanted, depth),
            Some('(') => self.tuple(wanted, depth),
            Some('<') => {
                self.skip('<')?;
                let inner = self.value(None, depth + 1)?;
                self.skip('>')?;
                Ok(Value::Variant(Box::new(inner)))
            }
            Some('\'' | '"') => text_value(wanted, self.quoted()?),
            Some(_) => self.plain(wanted, depth),
        }
    }

    /// A keyword before a value, `true`, `false` or a number.
    fn plain(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let word = self.word();
        if let Some((_, kind)) = KEYWORDS.iter().find(|(name, _)| *name == word) {
            return self.value(Some(kind), depth + 1);
        }
        match (word, wanted) {
            ("true", None | Some("b")) => Ok(Value::Bool(true)),
            ("false", None | Some("b")) => Ok(Value::Bool(false)),
            ("", _) => Err("a value is missing".to_owned()),
            (word, wanted) => number(word, wanted),
        }
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let mut element = match wanted {
            None => None,
            Some(kind) => Some(
                kind.strip_prefix('a')
                    .ok_or("an array is not what the type says")?
                    .to_owned(),
            ),
        };
        let mut items = Vec::new();
        self.skip('[')?;
        while !self.rest.starts_with(']') {
            let item = self.value(element.as_deref(), depth + 1)?;
            // The first one decides for all.
            let kind = item.signature();
            if *element.get_or_insert_with(|| kind.clone()) != kind {
                return Err("an array has values of different types".to_owned());
            }
            items.push(item);
            if !self.rest.starts_with(']') {
                self.skip(',')?;
            }
        }
        self.skip(']')?;
        let element = element.ok_or("an empty array has no type; hint: `@as []`")?;
        Ok(Value::Array(element, items))
    }

    fn tuple(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let kinds = wanted.map(fields).transpose()?;
        let mut values = Vec::new();
        self.skip('(')?;
        while !self.rest.starts_with(')') {
            let kind = kinds.as_ref().map(|all| {
                all.get(values.len())
                    .map(String::as_str)
                    .ok_or("a tuple has too many values")
            });
            values.push(self.value(kind.transpose()?, depth + 1)?);
            if !self.rest.starts_with(')') {
                self.skip(',')?;
            }
        }
        self.skip(')')?;
        if values.is_empty() || kinds.is_some_and(|all| all.len() != values.len()) {
            return Err("a tuple has too few values".to_owned());
        }
        Ok(Value::Struct(values))
    }

    /// Goes past one sign and the space after it.
    fn skip(&mut self, sign: char) -> Result<(), String> {
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest
            .ok_or_else(|| format!("`{sign}` is missing"))?
            .trim_start();
        Ok(())
    }

    /// Up to a space, a comma or a closing sign; a type in parentheses is one word.
    fn word(&mut self) -> &'a str {
        let mut open = 0_usize;
        let end = self.rest.find(|c: char| {
            match c {
                '(' => open += 1,
                ')' if open > 0 => {
                    open -= 1;
                    return false;
                }
                _ => {}
            }
            c.is_whitespace() || matches!(c, ',' | ']' | ')' | '>')
        });
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest.trim_start();
        word
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map(|(_, c)| c);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            if Some(c) == quote {
                self.rest = self.rest[at + c.len_utf8()..].trim_start();
                return Ok(text);
            }
            let plain = match c {
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some(c @ ('\\' | '\'' | '"')) => c,
                    _ => return Err("a string has an escape that is not known".to_owned()),
                },
                c => c,
            };
            text.push(plain);
        }
        Err("a string has no end".to_owned())
    }
}

/// Types in `(…)`, of which each is basic or an array of a basic one.
fn fields(kind: &str) -> Result<Vec<String>, String> {
    let inner = kind
        .strip_prefix('(')
        .and_then(|kind| kind.strip_suffix(')'))
        .ok_or("a tuple is not what the type says")?;
    let mut all = Vec::new();
    let mut array = String::new();
    for c in inner.chars() {
        array.push(c);
        if c != 'a' {
            all.push(std::mem::take(&mut array));
        }
    }
    Ok(all)
}

fn text_value(wanted: Option<&str>, text: String) -> Result<Value, String> {
    match wanted {
        None | Some("s") => Ok(Value::Text(text)),
        Some("o") if text.starts_with('/') => Ok(Value::Path(text)),
        Some("g") if text.len() < 256 => Ok(Value::Signature(text)),
        Some(_) => Err("a string is not what the type says".to_owned()),
    }
}

fn number(word: &str, wanted: Option<&str>) -> Result<Value, String> {
    let kind = match wanted {
        Some(kind) => kind,
        None if word.contains(['.', 'e', 'E']) && !word.starts_with("0x") => "d",
        None => "i",
    };
    let bad = || {
        let name = KEYWORDS.iter().find(|(_, known)| *known == kind);
        let name = name.map_or(kind, |(name, _)| name);
        format!("\"{}\" is not a value of type {name}", word.escape_debug())
    };
    if kind == "d" {
        return word.parse().map(Value::Double).map_err(|_| bad());
    }
    let whole = whole(word).ok_or_else(bad)?;
    let value = match kind {
        "y" => u8::try_from(whole).map(Value::Byte),
        "n" => i16::try_from(whole).map(Value::I16),
        "q" => u16::try_from(whole).map(Value::U16),
        "i" => i32::try_from(whole).map(Value::I32),
        "u" => u32::try_from(whole).map(Value::U32),
        "x" => i64::try_from(whole).map(Value::I64),
        "t" => u64::try_from(whole).map(Value::U64),
        _ => return Err(bad()),
    };
    value.map_err(|_| bad())
}

/// Decimal, `0x` or octal with a leading 0.
fn whole(word: &str) -> Option<i128> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let magnitude = match digits.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16).ok()?,
        None if digits.len() > 1 && digits.starts_with('0') => {
            i128::from_str_radix(digits, 8).ok()?
        }
        None => digits.parse().ok()?,
    };
    Some(sign * magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let texts = |all: &[&str]| {
            Value::Array("s".to_owned(), all.iter().map(|t| Value::text(t)).collect())
        };
        for (text, want) in [
            ("true", Value::Bool(true)),
            ("-7", Value::I32(-7)),
            (" 0x1f ", Value::I32(31)),
            ("017", Value::I32(15)),
            ("1.5", Value::Double(1.5)),
            ("uint64 10000000", Value::U64(10_000_000)),
            ("@t 18446744073709551615", Value::U64(u64::MAX)),
            ("byte 0xff", Value::Byte(255)),
            ("double 2", Value::Double(2.0)),
            ("'a b'", Value::text("a b")),
            (r#""it's \"x\"""#, Value::text("it's \"x\"")),
            ("objectpath '/a'", Value::Path("/a".to_owned())),
            ("['a.service', 'b']", texts(&["a.service", "b"])),
            ("@as []", texts(&[])),
            (
                "[uint32 1, 2]",
                Value::Array("u".to_owned(), vec![Value::U32(1), Value::U32(2)]),
            ),
            (
                "('x', true)",
                Value::Struct(vec![Value::text("x"), Value::Bool(true)]),
            ),
            (
                "@a(ss) [('/dev/null', 'rw')]",
                Value::Array(
                    "(ss)".to_owned(),
                    vec![Value::Struct(vec![
                        Value::text("/dev/null"),
                        Value::text("rw"),
                    ])],
                ),
            ),
            ("<uint16 3>", Value::Variant(Box::new(Value::U16(3)))),
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&want), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for bad in [
            "",
            "x",
            "true false",
            "[1, 'a']",
            "[]",
            "'open",
            "uint64 -1",
            "byte 256",
            "uint32 'x'",
            "1x",
            "(",
            "()",
            "[1",
            "@as 1",
            "<1",
            "2147483648",
            "'\\q'",
            "uint64",
            "@",
            "@zz 1",
            "boolean 1",
            "é",
            "-",
            "@(s) ('a','b')",
            &"[".repeat(100),
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
