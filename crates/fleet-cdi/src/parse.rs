//! From bytes to a valid spec.

use crate::model::Spec;
use crate::node::{Fault, NOWHERE, Node, Value};
use crate::{block, decode, json, yaml};

/// Largest spec that is read, in bytes; an 8-GPU one has 45 kB.
pub(crate) const MAX_SIZE: usize = 8 * 1024 * 1024;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.json`
    Json,
    /// `.yaml`
    Yaml,
}

/// Content that is no valid spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", shown_place(*.place))]
pub struct ParseError {
    /// Line and column, both from one, in characters, where the parser knows them.
    pub place: Option<(usize, usize)>,
    /// The cause, with the path of the field.
    pub why: String,
}

fn shown_place(place: Option<(usize, usize)>) -> String {
    place.map_or_else(String::new, |(line, column)| {
        format!("line {line}, column {column}: ")
    })
}

/// Reads and validates a spec. Strict: unknown fields, duplicate keys, several documents and content that a reader
/// of the declared version would not know are refused.
///
/// # Errors
/// [`ParseError`]: the first thing that is wrong.
pub fn parse(bytes: &[u8], format: Format) -> Result<Spec, ParseError> {
    let Tree { root, text, unit } = Tree::read(bytes, format)?;
    let spec = decode::spec(root).map_err(|fault| located(fault, text, unit))?;
    spec.validate().map_err(|err| ParseError {
        place: None,
        why: err.to_string(),
    })?;
    Ok(spec)
}

/// What places are counted in.
#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Characters,
}

struct Tree<'a> {
    root: Node<'a>,
    text: &'a str,
    unit: Unit,
}

impl<'a> Tree<'a> {
    fn read(bytes: &'a [u8], format: Format) -> Result<Self, ParseError> {
        if bytes.len() > MAX_SIZE {
            let why = format!("it is larger than {MAX_SIZE} bytes");
            return Err(ParseError { place: None, why });
        }
        let text = std::str::from_utf8(bytes).map_err(|err| {
            let valid = std::str::from_utf8(&bytes[..err.valid_up_to()]).unwrap_or_default();
            let at = u32::try_from(valid.len()).unwrap_or(NOWHERE);
            located(Fault::new(at, "it is not UTF-8 text"), valid, Unit::Bytes)
        })?;
        match format {
            Format::Yaml => Self::yaml(text),
            Format::Json => Self::json(text),
        }
    }

    fn yaml(text: &'a str) -> Result<Self, ParseError> {
        let root = match block::block(text) {
            Some(root) => root,
            None => yaml::yaml(text).map_err(|fault| located(fault, text, Unit::Characters))?,
        };
        let unit = Unit::Characters;
        Ok(Self { root, text, unit })
    }

    /// The Go library reads every file as YAML, so comments and a last comma are no errors in a `.json` file.
    fn json(text: &'a str) -> Result<Self, ParseError> {
        let err = match json::json(text.as_bytes()) {
            Ok(root) => {
                let unit = Unit::Bytes;
                return Ok(Self { root, text, unit });
            }
            Err(err) => err,
        };
        match err.is_syntax.then(|| Self::yaml(text)) {
            Some(Ok(tree)) if matches!(tree.root.value, Value::Map(_)) => Ok(tree),
            _ => Err(ParseError {
                place: Some((err.line, err.column)),
                why: err.why,
            }),
        }
    }
}

fn located(fault: Fault, text: &str, unit: Unit) -> ParseError {
    let at = usize::try_from(fault.at)
        .ok()
        .filter(|_| fault.at != NOWHERE);
    let before = at.map(|at| match unit {
        Unit::Bytes => text.get(..at).unwrap_or(text),
        Unit::Characters => match text.char_indices().nth(at) {
            Some((end, _)) => &text[..end],
            None => text,
        },
    });
    let place = before.map(|before| {
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        (line, column)
    });
    ParseError {
        place,
        why: fault.why,
    }
}

/// Kind and device names of a file that need not be valid, for messages about it.
pub(crate) fn outline(bytes: &[u8], format: Format) -> Option<(String, Vec<String>)> {
    let Value::Map(entries) = Tree::read(bytes, format).ok()?.root.value else {
        return None;
    };
    let field = |key: &str| entries.iter().find(|entry| entry.key == key);
    let word = |node: &Node<'_>| match &node.value {
        Value::Plain(text) | Value::Text(text) => Some(text.to_string()),
        _ => None,
    };
    let name = |device: &Node<'_>| match &device.value {
        Value::Map(fields) => fields
            .iter()
            .find(|entry| entry.key == "name")
            .and_then(|entry| word(&entry.node)),
        _ => None,
    };
    let names = match field("devices").map(|entry| &entry.node.value) {
        Some(Value::List(devices)) => devices.iter().filter_map(name).collect(),
        _ => Vec::new(),
    };
    Some((word(&field("kind")?.node)?, names))
}

#[cfg(test)]
mod tests;
