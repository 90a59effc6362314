//! The fields of one object: taken out by name, checked for type; what is left over is unknown.

use std::fmt;

use crate::node::{Entry, Fault, Node, Value};
use crate::scalar::{Scalar, boolean, float_text};
use crate::shown::shown;

pub(crate) type Result<T> = std::result::Result<T, Fault>;

/// Where a value is; written out only when something is wrong there.
#[derive(Clone, Copy)]
pub(crate) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("the spec"),
            Self::Key(Self::Root, key) => f.write_str(&shown(key)),
            Self::Key(parent, key) => write!(f, "{parent}.{}", shown(key)),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl Path<'_> {
    fn fault(&self, at: u32, why: impl fmt::Display) -> Fault {
        Fault::new(at, format!("{self} {why}"))
    }
}

/// More fields than any object of a spec has; the rest cannot all be known.
const MAX_FIELDS: usize = 64;

/// One object.
pub(crate) struct Fields<'a, 'p> {
    path: &'p Path<'p>,
    at: u32,
    entries: Vec<Entry<'a>>,
    /// One bit for each entry that was taken.
    taken: u64,
}

impl<'a, 'p> Fields<'a, 'p> {
    pub(crate) fn of(node: Node<'a>, path: &'p Path<'p>) -> Result<Self> {
        let Value::Map(entries) = node.value else {
            return Err(path.fault(node.at, "is not an object"));
        };
        if entries.len() > MAX_FIELDS {
            return Err(path.fault(node.at, "has too many fields"));
        }
        Ok(Self {
            path,
            at: node.at,
            entries,
            taken: 0,
        })
    }

    /// Letter case is not significant, as in Go's decoder; null is absence.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node<'a>> {
        let exact = self.entries.iter().position(|entry| entry.key == key);
        let at = exact.or_else(|| {
            self.entries
                .iter()
                .position(|entry| entry.key.eq_ignore_ascii_case(key))
        })?;
        self.taken |= 1 << at;
        let node = std::mem::take(&mut self.entries[at].node);
        let null = matches!(&node.value, Value::Plain(text) if Scalar::of(text) == Scalar::Null);
        (!null).then_some(node)
    }

    /// Text; empty is absence.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>> {
        let found = self
            .take(key)
            .map(|node| text(node, &Path::Key(self.path, key)))
            .transpose()?;
        Ok(found.filter(|text| !text.is_empty()))
    }

    /// Text that must be there.
    pub(crate) fn required(&mut self, key: &str) -> Result<String> {
        match self.take(key) {
            Some(node) => text(node, &Path::Key(self.path, key)),
            None => Err(Path::Key(self.path, key).fault(self.at, "is missing")),
        }
    }

    pub(crate) fn number<T: TryFrom<i128>>(&mut self, key: &str) -> Result<Option<T>> {
        self.take(key)
            .map(|node| number(&node, &Path::Key(self.path, key)))
            .transpose()
    }

    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        let Some(node) = self.take(key) else {
            return Ok(None);
        };
        let found = match &node.value {
            Value::Plain(text) => boolean(text),
            _ => None,
        };
        match found {
            Some(flag) => Ok(Some(flag)),
            None => Err(Path::Key(self.path, key).fault(node.at, "is not a boolean")),
        }
    }

    pub(crate) fn list<T>(
        &mut self,
        key: &str,
        decode: impl Fn(Node<'a>, &Path<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let path = Path::Key(self.path, key);
        let Some(node) = self.take(key) else {
            return Ok(Vec::new());
        };
        let Value::List(all) = node.value else {
            return Err(path.fault(node.at, "is not a list"));
        };
        all.into_iter()
            .enumerate()
            .map(|(index, node)| decode(node, &Path::Index(&path, index)))
            .collect()
    }

    /// Names and texts.
    pub(crate) fn map<C: FromIterator<(String, String)>>(&mut self, key: &str) -> Result<C> {
        let path = Path::Key(self.path, key);
        let Some(node) = self.take(key) else {
            return Ok(C::from_iter([]));
        };
        let Value::Map(all) = node.value else {
            return Err(path.fault(node.at, "is not an object"));
        };
        all.into_iter()
            .map(|entry| {
                let value = text(entry.node, &Path::Key(&path, &entry.key))?;
                Ok((entry.key.into_owned(), value))
            })
            .collect()
    }

    /// Nothing may be left.
    pub(crate) fn done(self) -> Result<()> {
        let left = (0..self.entries.len()).find(|at| self.taken & (1 << at) == 0);
        let Some(left) = left.map(|at| &self.entries[at]) else {
            return Ok(());
        };
        let twice = self
            .entries
            .iter()
            .any(|other| other.key != left.key && other.key.eq_ignore_ascii_case(&left.key));
        let key = shown(&left.key);
        let why = if twice {
            format!("field \"{key}\" is given twice in {}", self.path)
        } else {
            format!("unknown field \"{key}\" in {}", self.path)
        };
        Err(Fault::new(left.at, why))
    }
}

/// A number or boolean without quotes in a field for text is its text, as in the Go library.
pub(crate) fn text(node: Node<'_>, path: &Path<'_>) -> Result<String> {
    let text = match node.value {
        Value::Text(text) => text.into_owned(),
        Value::Plain(text) => match Scalar::of(&text) {
            Scalar::Word => text.into_owned(),
            Scalar::Integer(number) => number.to_string(),
            Scalar::Float(number) => float_text(number),
            Scalar::Bool(word) => word.to_string(),
            Scalar::Null => return Err(path.fault(node.at, "is null, not a string")),
        },
        _ => return Err(path.fault(node.at, "is not a string")),
    };
    if text.contains('\0') {
        return Err(path.fault(node.at, "contains a NUL byte"));
    }
    Ok(text)
}

/// A whole number; one written as `1.0` is one, as in the Go library.
pub(crate) fn number<T: TryFrom<i128>>(node: &Node<'_>, path: &Path<'_>) -> Result<T> {
    let Value::Plain(text) = &node.value else {
        return Err(path.fault(node.at, "is not a number"));
    };
    let number = match Scalar::of(text) {
        Scalar::Integer(number) => Some(number),
        Scalar::Float(number) if number.fract() == 0.0 && number.abs() < 1e18 => {
            format!("{number:.0}").parse().ok()
        }
        _ => {
            return Err(path.fault(
                node.at,
                format_args!("is \"{}\", not a whole number", shown(text)),
            ));
        }
    };
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| path.fault(node.at, format_args!("is {}, out of range", shown(text))))
}
