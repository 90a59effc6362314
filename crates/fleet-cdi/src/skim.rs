//! Which files can be left unread by a request: those that surely define none of its devices.
//!
//! A look at the bytes, not a parser. Where they hold anything by which a name can be written in another way (an escape,
//! an alias, a tag, a break of the line at the wrong place) the answer is that the file must be parsed. The tests hold it
//! against the parser.

use memchr::{memchr_iter, memmem};

use crate::name::QualifiedName;
use crate::scalar::Scalar;

/// What a request needs of the spec directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    names: Vec<QualifiedName>,
    kinds: Vec<String>,
}

impl Wanted {
    /// These devices.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a QualifiedName>) -> Self {
        Self {
            names: names.into_iter().cloned().collect(),
            kinds: Vec::new(),
        }
    }

    /// And every device of a kind.
    #[must_use]
    pub fn and_kind(mut self, kind: &str) -> Self {
        self.kinds.push(kind.to_owned());
        self
    }

    pub(crate) fn covers(&self, name: &QualifiedName) -> bool {
        self.names.contains(name) || self.kinds.iter().any(|kind| kind == name.kind())
    }

    /// Whether a file of this content can define one of them.
    pub(crate) fn may_be_in(&self, bytes: &[u8]) -> bool {
        if !bytes.iter().all(|byte| is_literal(*byte)) {
            return true;
        }
        // A kind has no white space and is no number, so it stands in the file as it is.
        let has = |kind: &str| memmem::find(bytes, kind.as_bytes()).is_some();
        if self.kinds.iter().any(|kind| has(kind)) {
            return true;
        }
        let mut kind: Option<(&str, bool)> = None;
        for name in &self.names {
            let is_there = match kind {
                Some((last, known)) if last == name.kind() => known,
                _ => has(name.kind()),
            };
            kind = Some((name.kind(), is_there));
            if is_there && may_name(bytes, name.name()) {
                return true;
            }
        }
        false
    }
}

/// In ASCII without `\` a text has no escape, without `*` a YAML value has no alias.
fn is_literal(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t') && byte != b'\\' && byte != b'*'
}

/// Whether some `name:` can have this value. A name that is no number has no other spelling.
fn may_name(bytes: &[u8], device: &str) -> bool {
    let is_word = Scalar::of(device) == Scalar::Word;
    if is_word && memmem::find(bytes, device.as_bytes()).is_none() {
        return false;
    }
    memchr_iter(b':', bytes).any(|colon| match key_before(&bytes[..colon]) {
        Key::Other => false,
        Key::Unsure => true,
        Key::Name => may_be(&bytes[colon + 1..], device, is_word),
    })
}

enum Key {
    /// It ends in `name`, in any case, as Go's decoder takes it.
    Name,
    Other,
    Unsure,
}

/// The key before a colon, which may be quoted and may stand on another line.
fn key_before(bytes: &[u8]) -> Key {
    let key = bytes.trim_ascii_end();
    if bytes[key.len()..].contains(&b'\n') || bytes[key.len()..].contains(&b'\r') || key.is_empty()
    {
        return Key::Unsure;
    }
    let key = match key {
        [inner @ .., b'"' | b'\''] => inner,
        plain => plain,
    };
    let last = key.len().saturating_sub(4);
    match key[last..].eq_ignore_ascii_case(b"name") {
        true => Key::Name,
        false => Key::Other,
    }
}

/// Whether the value that begins here can be the device's name.
fn may_be(value: &[u8], device: &str, is_word: bool) -> bool {
    let value = value.trim_ascii_start();
    match value.first() {
        Some(quote @ (b'"' | b'\'')) => {
            let inner = &value[1..];
            match inner
                .iter()
                .position(|byte| byte == quote || *byte == b'\n' || *byte == b'\r')
            {
                Some(end) if inner[end] == *quote => &inner[..end] == device.as_bytes(),
                _ => true,
            }
        }
        Some(first) if first.is_ascii_alphanumeric() => {
            let is_inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(byte);
            let end = value.iter().position(|byte| !is_inside(byte));
            let (token, rest) = value.split_at(end.unwrap_or(value.len()));
            // The next key, or a map on the same line.
            let is_key = token.ends_with(b":");
            // `0x10` is 16, and so is `1.6e+1`, which goes on behind the token.
            let other_number = !is_word && !is_decimal(token) && is_number(token, rest);
            is_key || other_number || token == device.as_bytes()
        }
        _ => true,
    }
}

fn is_number(token: &[u8], rest: &[u8]) -> bool {
    let text = str::from_utf8(token).unwrap_or_default();
    Scalar::of(text) != Scalar::Word || (token[0].is_ascii_digit() && rest.first() == Some(&b'+'))
}

/// A number as a name would have it.
fn is_decimal(token: &[u8]) -> bool {
    token.iter().all(u8::is_ascii_digit) && (token == b"0" || !token.starts_with(b"0"))
}

#[cfg(test)]
mod tests;
