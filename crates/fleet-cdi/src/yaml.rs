//! YAML to nodes: one document, every feature that the Go library's reader has and a spec may use.
//!
//! The syntax is read by `saphyr-parser`, a maintained event parser. Anchors, aliases and merge keys are resolved here,
//! within limits: an alias repeats its value, so a few lines could otherwise fill the memory.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::node::{Entry, Fault, MAX_DEPTH, MAX_NODES, NOWHERE, Node, Value, check_unique};
use crate::scalar::{Scalar, float_text};
use crate::shown::shown;

type Result<T> = std::result::Result<T, Fault>;

/// Reads one document; places are counted in characters.
pub(crate) fn yaml(text: &str) -> Result<Node<'_>> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|err| syntax(&err))?;
        builder.take(event, place(&span))?;
    }
    builder
        .root
        .ok_or_else(|| Fault::new(NOWHERE, "the file is empty"))
}

fn syntax(err: &ScanError) -> Fault {
    let at = u32::try_from(err.marker().index()).unwrap_or(NOWHERE);
    Fault::new(at, shown(err.info()))
}

fn place(span: &Span) -> u32 {
    u32::try_from(span.start.index()).unwrap_or(NOWHERE)
}

/// A collection under construction.
struct Open<'a> {
    collection: Collection<'a>,
    anchor: usize,
    at: u32,
}

enum Collection<'a> {
    List(Vec<Node<'a>>),
    Map(Vec<Entry<'a>>, Option<Key<'a>>),
}

enum Key<'a> {
    Word(Cow<'a, str>, u32),
    /// `<<`: the value's own keys take its place.
    Merge,
}

#[derive(Default)]
struct Builder<'a> {
    open: Vec<Open<'a>>,
    anchors: HashMap<usize, Node<'a>>,
    root: Option<Node<'a>>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn take(&mut self, event: Event<'a>, at: u32) -> Result<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, at)?;
                let value = scalar(text, style, tag.as_deref(), at)?;
                self.finish(Node { value, at }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), "seq", at)?;
                self.push(Collection::List(Vec::new()), anchor, at)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), "map", at)?;
                self.push(Collection::Map(Vec::new(), None), anchor, at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.pop(),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Fault::new(at, "a spec is one document, not several"))
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, more: usize, at: u32) -> Result<()> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(Fault::new(at, "the file holds too many values"));
        }
        Ok(())
    }

    fn push(&mut self, collection: Collection<'a>, anchor: usize, at: u32) -> Result<()> {
        self.count(1, at)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(Fault::new(at, "nested too deeply"));
        }
        self.open.push(Open {
            collection,
            anchor,
            at,
        });
        Ok(())
    }

    fn pop(&mut self) -> Result<()> {
        let Some(Open {
            collection,
            anchor,
            at,
        }) = self.open.pop()
        else {
            return Err(Fault::new(NOWHERE, "unbalanced document"));
        };
        let value = match collection {
            Collection::List(all) => Value::List(all),
            Collection::Map(all, _) => {
                check_unique(&all)?;
                Value::Map(all)
            }
        };
        self.finish(Node { value, at }, anchor)
    }

    fn alias(&mut self, anchor: usize, at: u32) -> Result<()> {
        // An alias inside its own anchor has no value yet.
        let node = self
            .anchors
            .get(&anchor)
            .ok_or_else(|| Fault::new(at, "an alias refers to the value that it is in"))?;
        let (count, depth) = node.size();
        if self.open.len() + depth > MAX_DEPTH {
            return Err(Fault::new(at, "nested too deeply"));
        }
        let node = Node { at, ..node.clone() };
        self.count(count, at)?;
        self.finish(node, 0)
    }

    fn finish(&mut self, node: Node<'a>, anchor: usize) -> Result<()> {
        if anchor != 0 {
            // Kept once more, so it counts once more.
            self.count(node.size().0, node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.collection) {
            None => self.root = Some(node),
            Some(Collection::List(all)) => all.push(node),
            Some(Collection::Map(all, key)) => match key.take() {
                Some(Key::Word(word, at)) => all.push(Entry {
                    key: word,
                    at,
                    node,
                }),
                Some(Key::Merge) => merge(all, node)?,
                None => *key = Some(key_of(node)?),
            },
        }
        Ok(())
    }
}

fn key_of(node: Node<'_>) -> Result<Key<'_>> {
    let fault = || Fault::new(node.at, "a key is not a word");
    match node.value {
        Value::Plain(text) if text == "<<" => Ok(Key::Merge),
        Value::Plain(text) => match Scalar::of(&text) {
            Scalar::Null => Err(fault()),
            Scalar::Integer(number) => Ok(Key::Word(number.to_string().into(), node.at)),
            Scalar::Float(number) => Ok(Key::Word(float_text(number).into(), node.at)),
            Scalar::Bool(word) => Ok(Key::Word(word.to_string().into(), node.at)),
            Scalar::Word => Ok(Key::Word(text, node.at)),
        },
        Value::Text(text) => Ok(Key::Word(text, node.at)),
        Value::List(_) | Value::Map(_) => Err(fault()),
    }
}

fn merge<'a>(into: &mut Vec<Entry<'a>>, node: Node<'a>) -> Result<()> {
    match node.value {
        Value::Map(entries) => into.extend(entries),
        Value::List(maps) if maps.iter().all(|map| matches!(map.value, Value::Map(_))) => {
            maps.into_iter().try_for_each(|map| merge(into, map))?;
        }
        _ => return Err(Fault::new(node.at, "only a map can be merged with `<<`")),
    }
    Ok(())
}

fn scalar<'a>(
    text: Cow<'a, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    at: u32,
) -> Result<Value<'a>> {
    match tag {
        None if style == ScalarStyle::Plain => Ok(Value::Plain(text)),
        None => Ok(Value::Text(text)),
        // `!` alone: no type by its look.
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(Value::Text(text)),
        Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
            "str" => Ok(Value::Text(text)),
            "int" | "float" | "bool" | "null" => Ok(Value::Plain(text)),
            _ => Err(unknown_tag(tag, at)),
        },
        Some(tag) => Err(unknown_tag(tag, at)),
    }
}

fn check_tag(tag: Option<&Tag>, allowed: &str, at: u32) -> Result<()> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == allowed) => {
            Err(unknown_tag(tag, at))
        }
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, at: u32) -> Fault {
    Fault::new(
        at,
        format!(
            "tag \"{}\" has no meaning in a spec",
            shown(&tag.to_string())
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(node: &Node<'_>) -> String {
        match &node.value {
            Value::Plain(text) => text.to_string(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(all) => format!("[{}]", all.iter().map(flat).collect::<Vec<_>>().join(",")),
            Value::Map(all) => {
                let all: Vec<_> = all
                    .iter()
                    .map(|entry| format!("{}:{}", entry.key, flat(&entry.node)))
                    .collect();
                format!("{{{}}}", all.join(","))
            }
        }
    }

    #[test]
    fn documents() {
        for (text, want) in [
            ("a: 1\nb: [x, \"1\", 'y']\n", "{a:1,b:[x,\"1\",\"y\"]}"),
            ("---\na:\n- b: 1\n  c: 2\n...\n", "{a:[{b:1,c:2}]}"),
            ("a: &x {b: 1}\nc: *x\n", "{a:{b:1},c:{b:1}}"),
            (
                "a: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n",
                "{a:{b:1},c:{b:1,d:2}}",
            ),
            (
                "a: &x {b: 1}\ny: &y {e: 3}\nc:\n  <<: [*x, *y]\n",
                "{a:{b:1},y:{e:3},c:{b:1,e:3}}",
            ),
            ("a: |\n  x\n  y\n", "{a:\"x\\ny\\n\"}"),
            (
                "a: !!str 1\nb: !!int \"2\"\nc: ! 3\n",
                "{a:\"1\",b:2,c:\"3\"}",
            ),
            ("1: a\n0x10: b\ntrue: c\n", "{1:a,16:b,true:c}"),
            ("\"<<\": a\n", "{<<:a}"),
            ("# only\na: b # c\n", "{a:b}"),
        ] {
            assert_eq!(flat(&yaml(text).unwrap()), want, "{text}");
        }
    }

    #[test]
    fn refused() {
        let deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
        let many = "- 1\n".repeat(MAX_NODES);
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        let mut tower = String::from("a0: &a0 [x]\n");
        for level in 1..40 {
            let below = level - 1;
            bomb.push_str(&format!(
                "a{level}: &a{level} [{}]\n",
                vec![format!("*a{below}"); 9].join(", ")
            ));
            tower.push_str(&format!("a{level}: &a{level} [*a{below}]\n"));
        }
        let list = vec!["x"; 1000].join(", ");
        let wide = format!("a: &a [{list}]\nb: [{}]\n", vec!["*a"; 1000].join(", "));
        for (text, word) in [
            (&*wide, "too many"),
            ("a: 1\na: 2\n", "key \"a\" is given twice"),
            ("a: 1\n\"a\": 2\n", "twice"),
            (
                "a: &x {b: 1}\nc:\n  <<: *x\n  b: 2\n",
                "key \"b\" is given twice",
            ),
            ("a:\n  <<: 1\n", "merged"),
            ("a:\n  <<: [{b: 1}, 2]\n", "merged"),
            ("---\na: 1\n---\nb: 2\n", "one document"),
            ("a: 1\n---\n", "one document"),
            ("a: &x [*x]\n", "value that it is in"),
            ("a: *x\n", "anchor"),
            ("a: !vendor 1\n", "tag"),
            ("a: !!binary aGk=\n", "tag"),
            ("a: !!set {b}\n", "tag"),
            ("~: 1\n", "not a word"),
            ("? [a]\n: 1\n", "not a word"),
            ("", "empty"),
            ("# nothing\n", "empty"),
            ("a: [1\n", ""),
            ("a: \"\\q\"\n", ""),
            (&deep, "deep"),
            (&many, "too many"),
            (&bomb, "too many"),
            (&tower, "deep"),
        ] {
            let fault = yaml(text).unwrap_err();
            assert!(fault.why.contains(word), "{:.60}: {}", text, fault.why);
        }
    }

    #[test]
    fn places() {
        assert_eq!(yaml("é: 1\na: 2\na: 3\n").unwrap_err().at, 10);
        assert_eq!(yaml("é: 1\nb: [\n").unwrap_err().at, 10);
    }
}
