//! Qualified device names: `vendor/class=name` (CDI SPEC 1.1.0, "Kind" and "Device Names").

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::shown::shown;

/// A device by its full name, such as `nvidia.com/gpu=0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QualifiedName {
    full: String,
    slash: usize,
    equals: usize,
}

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CDI device name \"{name}\": {why}")]
pub struct NameError {
    name: String,
    why: String,
}

impl QualifiedName {
    /// `nvidia.com`.
    #[must_use]
    pub fn vendor(&self) -> &str {
        &self.full[..self.slash]
    }

    /// `gpu`.
    #[must_use]
    pub fn class(&self) -> &str {
        &self.full[self.slash + 1..self.equals]
    }

    /// `nvidia.com/gpu`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.full[..self.equals]
    }

    /// `0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.full[self.equals + 1..]
    }

    /// Puts a name together from a kind and a device that were checked before.
    pub(crate) fn of(kind: &str, device: &str) -> Option<Self> {
        format!("{kind}={device}").parse().ok()
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

impl Serialize for QualifiedName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.full)
    }
}

impl FromStr for QualifiedName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fail = |why: &str| NameError {
            name: shown(text),
            why: why.to_owned(),
        };
        if text.starts_with('/') {
            return Err(fail("it is a path, not vendor/class=name"));
        }
        let equals = text
            .find('=')
            .ok_or_else(|| fail("it is not of the form vendor/class=name"))?;
        let slash = text[..equals]
            .find('/')
            .ok_or_else(|| fail("it is not of the form vendor/class=name"))?;
        check_part("vendor", &text[..slash]).map_err(|why| fail(&why))?;
        check_part("class", &text[slash + 1..equals]).map_err(|why| fail(&why))?;
        check_device(&text[equals + 1..]).map_err(|why| fail(&why))?;
        Ok(Self {
            full: text.to_owned(),
            slash,
            equals,
        })
    }
}

/// Whether `text` is a qualified device name.
#[must_use]
pub fn is_qualified(text: &str) -> bool {
    text.parse::<QualifiedName>().is_ok()
}

/// Vendor and class: first a letter, last a letter or digit, inside also `_`, `-`, `.`.
pub(crate) fn check_part(what: &str, text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err(format!("the {what} is empty"));
    };
    if !first.is_ascii_alphabetic() {
        return Err(format!(
            "the {what} \"{}\" does not begin with a letter",
            shown(text)
        ));
    }
    check_inside(what, text, *last, b"_-.")
}

/// Device: first and last a letter or digit, inside also `_`, `-`, `.`, `:`.
pub(crate) fn check_device(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err("the device name is empty".to_owned());
    };
    if !first.is_ascii_alphanumeric() {
        return Err(format!(
            "the device name \"{}\" does not begin with a letter or digit",
            shown(text)
        ));
    }
    check_inside("device name", text, *last, b"_-.:")
}

fn check_inside(what: &str, text: &str, last: u8, extra: &[u8]) -> Result<(), String> {
    if !last.is_ascii_alphanumeric() {
        return Err(format!(
            "the {what} \"{}\" does not end with a letter or digit",
            shown(text)
        ));
    }
    match text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !u8::try_from(*c).is_ok_and(|b| extra.contains(&b)))
    {
        Some(bad) => Err(format!(
            "the {what} \"{}\" contains '{}'",
            shown(text),
            bad.escape_default()
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names() {
        for (text, vendor, class, name) in [
            ("nvidia.com/gpu=0", "nvidia.com", "gpu", "0"),
            ("a/b=c", "a", "b", "c"),
            ("nvidia.com/gpu=0:1", "nvidia.com", "gpu", "0:1"),
            ("v-1_x.y/c.d=GPU-11-aa", "v-1_x.y", "c.d", "GPU-11-aa"),
        ] {
            let parsed: QualifiedName = text.parse().unwrap();
            assert_eq!(
                (parsed.vendor(), parsed.class(), parsed.name()),
                (vendor, class, name)
            );
            assert_eq!(parsed.to_string(), text);
            assert_eq!(parsed.kind(), format!("{vendor}/{class}"));
            assert_eq!(serde_json::to_value(&parsed).unwrap(), text);
            assert!(is_qualified(text));
        }
    }

    #[test]
    fn a_path_is_told_as_one() {
        let err = "/dev/x=y".parse::<QualifiedName>().unwrap_err();
        assert!(
            err.to_string()
                .ends_with("it is a path, not vendor/class=name")
        );
    }

    #[test]
    fn bad_names() {
        for text in [
            "",
            "0",
            "gpu=0",
            "vendor/gpu",
            "/dev/x=y",
            "1v/c=d",
            "v/1c=d",
            "v./c=d",
            "v/c-=d",
            "v/c=",
            "v/=d",
            "/c=d",
            "v/c=a=b",
            "v/c=../x",
            "v/c=a/b",
            "v/c=-a",
            "v/c=a-",
            "v/c=a b",
            "v c/d=e",
            "v/c=\u{e9}",
            "v/c=a\0",
            "v/c=a\n",
        ] {
            let err = text.parse::<QualifiedName>().unwrap_err().to_string();
            assert!(
                err.starts_with("invalid CDI device name \"") && !err.contains(char::is_control),
                "{err:?}"
            );
            assert!(!is_qualified(text));
        }
    }
}
