//! JSON to nodes, borrowing from the file.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::node::{Entry, MAX_DEPTH, MAX_NODES, NOWHERE, Node, Value, check_unique};
use crate::shown::shown;

/// A file that is no JSON.
#[derive(Debug)]
pub(crate) struct JsonError {
    pub(crate) why: String,
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// Not JSON at all, as against JSON that no spec may hold: it may be YAML in a file of the wrong name.
    pub(crate) is_syntax: bool,
}

pub(crate) fn json(bytes: &[u8]) -> Result<Node<'_>, JsonError> {
    let nodes = Cell::new(0);
    let seed = Seed {
        bytes,
        depth: 0,
        nodes: &nodes,
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    seed.deserialize(&mut reader)
        .and_then(|node| reader.end().map(|()| node))
        .map_err(|err| error(&err))
}

fn error(err: &serde_json::Error) -> JsonError {
    let text = err.to_string();
    JsonError {
        why: shown(text.rsplit_once(" at line ").map_or(&*text, |(why, _)| why)),
        line: err.line(),
        column: err.column(),
        is_syntax: err.is_syntax() || err.is_eof(),
    }
}

#[derive(Clone, Copy)]
struct Seed<'a, 'n> {
    bytes: &'a [u8],
    depth: usize,
    nodes: &'n Cell<usize>,
}

impl<'a> Seed<'a, '_> {
    /// A word borrowed from the file tells its own place: that of the quote before it.
    fn at(&self, word: &str) -> u32 {
        word.as_ptr()
            .addr()
            .checked_sub(self.bytes.as_ptr().addr() + 1)
            .filter(|at| *at < self.bytes.len())
            .and_then(|at| u32::try_from(at).ok())
            .unwrap_or(NOWHERE)
    }

    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        self.nodes.set(self.nodes.get() + 1);
        if self.nodes.get() > MAX_NODES {
            return Err(E::custom("the file holds too many values"));
        }
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for Seed<'a, '_> {
    type Value = Node<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Node<'a>, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

fn plain<'a>(value: impl ToString) -> Node<'a> {
    Node {
        value: Value::Plain(Cow::Owned(value.to_string())),
        at: NOWHERE,
    }
}

impl<'a> Visitor<'a> for Seed<'a, '_> {
    type Value = Node<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'a>, E> {
        Ok(plain(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'a>, E> {
        Ok(plain(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'a>, E> {
        Ok(plain(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node<'a>, E> {
        Ok(plain(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node<'a>, E> {
        let value = Value::Text(Cow::Owned(value.to_owned()));
        Ok(Node { value, at: NOWHERE })
    }

    fn visit_borrowed_str<E>(self, value: &'a str) -> Result<Node<'a>, E> {
        let at = self.at(value);
        let value = Value::Text(Cow::Borrowed(value));
        Ok(Node { value, at })
    }

    fn visit_unit<E>(self) -> Result<Node<'a>, E> {
        Ok(Node::default())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Node<'a>, A::Error> {
        let inner = self.inner()?;
        let mut all = Vec::new();
        while let Some(node) = seq.next_element_seed(inner)? {
            all.push(node);
        }
        let value = Value::List(all);
        Ok(Node { value, at: NOWHERE })
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Node<'a>, A::Error> {
        let inner = self.inner()?;
        let mut all: Vec<Entry<'a>> = Vec::new();
        while let Some(Key(key)) = map.next_key_seed(KeySeed)? {
            let at = self.at(&key);
            let mut node = map.next_value_seed(inner)?;
            if node.at == NOWHERE {
                node.at = at;
            }
            all.push(Entry { key, at, node });
        }
        check_unique(&all).map_err(|fault| A::Error::custom(fault.why))?;
        let value = Value::Map(all);
        Ok(Node { value, at: NOWHERE })
    }
}

struct KeySeed;
struct Key<'a>(Cow<'a, str>);

impl<'a> DeserializeSeed<'a> for KeySeed {
    type Value = Key<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Key<'a>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for KeySeed {
    type Value = Key<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, value: &str) -> Result<Key<'a>, E> {
        Ok(Key(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E>(self, value: &'a str) -> Result<Key<'a>, E> {
        Ok(Key(Cow::Borrowed(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused() {
        let many = format!("[{}1]", "1,".repeat(MAX_NODES));
        let cases: [(&[u8], &str, bool); 8] = [
            (br#"{"a":1,"a":2}"#, "twice", false),
            (
                br#"{"a":{"b":1,"\u0062":2}}"#,
                "\"b\" is given twice",
                false,
            ),
            (br#"{"a":1,}"#, "trailing comma", true),
            (b"{} {}", "trailing", true),
            (b"", "EOF", true),
            (b"\"\xff\"", "unicode", true),
            (b"nul", "", true),
            (many.as_bytes(), "too many values", false),
        ];
        for (text, want, is_syntax) in cases {
            let err = json(text).unwrap_err();
            assert!(err.why.contains(want), "{}", err.why);
            assert_eq!(err.is_syntax, is_syntax, "{}", err.why);
        }
        for depth in [MAX_DEPTH + 1, 100_000] {
            let text = "[".repeat(depth) + &"]".repeat(depth);
            assert!(json(text.as_bytes()).unwrap_err().why.contains("deep"));
        }
        let text = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        json(text.as_bytes()).unwrap();
    }

    #[test]
    fn places_are_those_of_the_words() {
        let node = json(br#"{ "kind": ["x", 1, "\n"]}"#).unwrap();
        let Value::Map(map) = node.value else {
            panic!()
        };
        assert_eq!((map[0].at, map[0].node.at), (2, 2));
        let Value::List(list) = &map[0].node.value else {
            panic!()
        };
        assert_eq!(
            list.iter().map(|n| n.at).collect::<Vec<_>>(),
            [11, NOWHERE, NOWHERE]
        );
    }
}
