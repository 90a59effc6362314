//! The meaning of a scalar without quotes, as the Go library's reader has it (YAML 1.1): `0640` is octal.

/// By its look alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Word,
}

impl Scalar {
    /// Types are told by the first character first: most scalars are paths and options.
    pub(crate) fn of(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "true" | "True" | "TRUE" => Self::Bool(true),
            "false" | "False" | "FALSE" => Self::Bool(false),
            _ if !text
                .starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) =>
            {
                Self::Word
            }
            _ => integer(text)
                .map(Self::Integer)
                .or_else(|| float(text).map(Self::Float))
                .unwrap_or(Self::Word),
        }
    }
}

/// The words that YAML 1.1 has for booleans besides `true` and `false`.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let plain = digits.replace('_', "");
    let (radix, plain) = match plain.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &plain[2..]),
        [b'0', b'b' | b'B', ..] => (2, &plain[2..]),
        [b'0', b'o' | b'O', ..] => (8, &plain[2..]),
        [b'0', _, ..] => (8, &plain[1..]),
        _ => (10, plain.as_str()),
    };
    // A second sign is none of ours, though the standard library reads it.
    if !plain.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(plain, radix).ok()?);
    Some(if negative { -value } else { value })
}

fn float(text: &str) -> Option<f64> {
    let plain = text.replace('_', "");
    let numeric = plain.contains(|c: char| c.is_ascii_digit())
        && plain
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E'));
    if !numeric {
        return None;
    }
    plain.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// A float in a field for text, as the Go library prints it: with 32 bits, `1e3` as `1000` and `1e6` as `1e+06`.
pub(crate) fn float_text(value: f64) -> String {
    let short: f32 = format!("{value:e}").parse().unwrap_or(f32::INFINITY);
    if short.is_infinite() {
        return if value < 0.0 { "-Inf" } else { "+Inf" }.to_owned();
    }
    let scientific = format!("{short:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return short.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks() {
        use Scalar::{Bool, Float, Integer, Null, Word};
        let cases = [
            ("0640", Integer(416)),
            ("0o640", Integer(416)),
            ("438", Integer(438)),
            ("0x1b6", Integer(438)),
            ("0b11", Integer(3)),
            ("1_000", Integer(1000)),
            ("-1", Integer(-1)),
            ("+7", Integer(7)),
            ("0", Integer(0)),
            ("18446744073709551615", Integer(u64::MAX.into())),
            ("0.5", Float(0.5)),
            (".5", Float(0.5)),
            ("1e3", Float(1000.0)),
            ("0808", Float(808.0)),
            ("0.5.0", Word),
            ("++1", Word),
            ("-+1", Word),
            ("0x", Word),
            ("0x-1", Word),
            ("0x+1", Word),
            ("-", Word),
            (".", Word),
            ("1e999", Word),
            ("--link", Word),
            ("0:1", Word),
            ("2001-01-01", Word),
            ("GPU-1", Word),
            ("/dev/x", Word),
            ("yes", Word),
            ("true", Bool(true)),
            ("FALSE", Bool(false)),
            ("tRUE", Word),
            ("~", Null),
            ("Null", Null),
            ("", Null),
        ];
        for (text, want) in cases {
            assert_eq!(Scalar::of(text), want, "{text}");
        }
    }

    #[test]
    fn floats_as_go_prints_them() {
        for (value, want) in [
            (1.5, "1.5"),
            (808.0, "808"),
            (1e3, "1000"),
            (0.0, "0"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (1e21, "1e+21"),
            (1e60, "+Inf"),
            (-1e60, "-Inf"),
            (16_777_217.0, "1.6777216e+07"),
            (1.25e-7, "1.25e-07"),
            (0.0001, "0.0001"),
        ] {
            assert_eq!(float_text(value), want);
        }
    }

    #[test]
    fn words_for_booleans() {
        for (text, want) in [
            ("yes", Some(true)),
            ("Off", Some(false)),
            ("n", Some(false)),
            ("TRUE", Some(true)),
            ("1", None),
            ("ye", None),
        ] {
            assert_eq!(boolean(text), want, "{text}");
        }
    }
}
