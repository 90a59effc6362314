//! What a file says before its fields are known: scalars, lists and maps with their place.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::shown::shown;

/// Deepest nesting; a spec has six levels.
pub(crate) const MAX_DEPTH: usize = 32;
/// Most values in a file, those that aliases repeat included; an 8-GPU spec has 2500.
pub(crate) const MAX_NODES: usize = 500_000;
/// A place that is not known.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// A value and where it begins, counted from the start of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node<'a> {
    pub(crate) value: Value<'a>,
    pub(crate) at: u32,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// Without quotes: number, boolean, null or text, by its look and by the field it is for.
    Plain(Cow<'a, str>),
    /// Quoted.
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Map(Vec<Entry<'a>>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) at: u32,
    pub(crate) node: Node<'a>,
}

/// What is wrong, and where it is when that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: u32,
    pub(crate) why: String,
}

impl Fault {
    pub(crate) fn new(at: u32, why: impl Into<String>) -> Self {
        Self {
            at,
            why: why.into(),
        }
    }
}

impl Default for Node<'_> {
    fn default() -> Self {
        Self {
            value: Value::Plain(Cow::Borrowed("")),
            at: NOWHERE,
        }
    }
}

impl Node<'_> {
    /// Number of values and depth, both at least one.
    pub(crate) fn size(&self) -> (usize, usize) {
        let children: Vec<(usize, usize)> = match &self.value {
            Value::Plain(_) | Value::Text(_) => return (1, 1),
            Value::List(all) => all.iter().map(Self::size).collect(),
            Value::Map(all) => all.iter().map(|entry| entry.node.size()).collect(),
        };
        let count = children.iter().map(|(count, _)| count).sum::<usize>();
        let depth = children.iter().map(|(_, depth)| *depth).max().unwrap_or(0);
        (count + 1, depth + 1)
    }
}

/// Most keys for which comparing each with each is the cheaper way.
const FEW: usize = 12;

/// A key given twice would mean one thing to one reader and another to the next.
pub(crate) fn check_unique(entries: &[Entry<'_>]) -> Result<(), Fault> {
    let twice = if entries.len() <= FEW {
        entries
            .iter()
            .enumerate()
            .find(|(at, entry)| entries[..*at].iter().any(|other| other.key == entry.key))
            .map(|(_, entry)| entry)
    } else {
        let mut seen = HashSet::with_capacity(entries.len());
        entries.iter().find(|entry| !seen.insert(&entry.key))
    };
    match twice {
        None => Ok(()),
        Some(entry) => Err(Fault::new(
            entry.at,
            format!("key \"{}\" is given twice", shown(&entry.key)),
        )),
    }
}
