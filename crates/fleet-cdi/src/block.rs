//! The YAML that generators write, read in one pass: a quick way past the full parser, never another meaning.
//!
//! Block maps and lists of one-line scalars in ASCII are all that it knows. On anything else it gives up and
//! [`crate::yaml`] reads the file; the tests hold both against each other.

use std::borrow::Cow;

use crate::node::{Entry, MAX_DEPTH, MAX_NODES, Node, Value, check_unique};
use crate::scalar::Scalar;

/// The nodes, or nothing where the full parser must read.
pub(crate) fn block(text: &str) -> Option<Node<'_>> {
    let ordinary = |byte: u8| matches!(byte, b' '..=b'~' | b'\n');
    if !text.bytes().all(ordinary) || u32::try_from(text.len()).is_err() {
        return None;
    }
    let mut lines = Lines {
        rest: text.strip_prefix("---\n").unwrap_or(text),
        total: text.len(),
        next: None,
        nodes: 0,
    };
    lines.advance();
    let root = lines.map(0, 0)?;
    lines.next.is_none().then_some(root)
}

/// A line without its indentation.
#[derive(Clone, Copy)]
struct Line<'a> {
    indent: usize,
    text: &'a str,
    at: u32,
}

struct Lines<'a> {
    rest: &'a str,
    total: usize,
    next: Option<Line<'a>>,
    nodes: usize,
}

impl<'a> Lines<'a> {
    /// To the next line that is neither empty nor a comment.
    fn advance(&mut self) {
        self.next = None;
        while !self.rest.is_empty() {
            let start = self.total - self.rest.len();
            let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
            self.rest = rest;
            let text = line.trim_start_matches(' ');
            if !text.is_empty() && !text.starts_with('#') {
                let indent = line.len() - text.len();
                // The length of the file was checked to fit.
                let at = u32::try_from(start + indent).unwrap_or(u32::MAX);
                self.next = Some(Line { indent, text, at });
                return;
            }
        }
    }

    fn count(&mut self) -> Option<()> {
        self.nodes += 1;
        (self.nodes <= MAX_NODES).then_some(())
    }

    /// The next line if it belongs to a collection that is indented so far. Any other ends the collection, and
    /// gives the file away to the full parser if no collection around it takes it.
    fn at_indent(&self, indent: usize) -> Option<Line<'a>> {
        self.next.filter(|line| line.indent == indent)
    }

    fn map(&mut self, indent: usize, depth: usize) -> Option<Node<'a>> {
        self.enter(depth)?;
        let at = self.next?.at;
        let mut entries = Vec::new();
        while let Some(line) = self.at_indent(indent) {
            let (key, rest) = key(line.text)?;
            self.count()?;
            let node = if rest.is_empty() {
                self.advance();
                self.under_key(indent, depth, line.at)?
            } else {
                let skipped = line.text.len() - rest.len();
                self.scalar(rest, line.at.checked_add(u32::try_from(skipped).ok()?)?)?
            };
            entries.push(Entry {
                key: Cow::Borrowed(key),
                at: line.at,
                node,
            });
        }
        check_unique(&entries).ok()?;
        let value = Value::Map(entries);
        Some(Node { value, at })
    }

    /// What stands below `key:`; a list may be indented as the key itself.
    fn under_key(&mut self, indent: usize, depth: usize, at: u32) -> Option<Node<'a>> {
        match self.next {
            Some(line) if line.indent >= indent && line.text.starts_with("- ") => {
                self.list(line.indent, depth + 1)
            }
            Some(line) if line.indent > indent => self.map(line.indent, depth + 1),
            _ => Some(Node {
                value: Value::Plain(Cow::Borrowed("")),
                at,
            }),
        }
    }

    fn list(&mut self, indent: usize, depth: usize) -> Option<Node<'a>> {
        self.enter(depth)?;
        let at = self.next?.at;
        let mut all = Vec::new();
        while let Some(line) = self.at_indent(indent) {
            // A list as deep as its key may be followed by the next key.
            let Some(item) = line.text.strip_prefix("- ") else {
                break;
            };
            self.count()?;
            let text = item.trim_start_matches(' ');
            let skipped = line.text.len() - text.len();
            let at = line.at.checked_add(u32::try_from(skipped).ok()?)?;
            all.push(if key(text).is_some() {
                self.next = Some(Line {
                    indent: indent + skipped,
                    text,
                    at,
                });
                self.map(indent + skipped, depth + 1)?
            } else {
                self.scalar(text, at)?
            });
        }
        let value = Value::List(all);
        Some(Node { value, at })
    }

    fn enter(&mut self, depth: usize) -> Option<()> {
        self.count()?;
        (depth < MAX_DEPTH).then_some(())
    }

    fn scalar(&mut self, text: &'a str, at: u32) -> Option<Node<'a>> {
        let value = match text.as_bytes() {
            [b'"', inner @ .., b'"'] if !inner.iter().any(|b| matches!(b, b'"' | b'\\')) => {
                Value::Text(Cow::Borrowed(&text[1..text.len() - 1]))
            }
            [b'\'', inner @ .., b'\''] if !inner.contains(&b'\'') => {
                Value::Text(Cow::Borrowed(&text[1..text.len() - 1]))
            }
            _ if is_plain(text) => Value::Plain(Cow::Borrowed(text)),
            _ => return None,
        };
        self.advance();
        Some(Node { value, at })
    }
}

/// The longest key that YAML takes without a mark is 1024 characters; ours are short.
const MAX_KEY: usize = 128;

/// `key: rest` or `key:`, when the key is a simple word of no other type.
fn key(text: &str) -> Option<(&str, &str)> {
    let end = text
        .bytes()
        .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/')))?;
    let (key, rest) = (&text[..end], text[end..].strip_prefix(':')?);
    let simple = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.len() <= MAX_KEY
        && Scalar::of(key) == Scalar::Word;
    let value = rest.trim_start_matches(' ');
    (simple && (rest.is_empty() || (rest.starts_with(' ') && !value.is_empty())))
        .then_some((key, value))
}

/// A scalar that begins with no mark of YAML and has none inside.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let starts = match bytes {
        [b'-', next, ..] => *next != b' ',
        [first, ..] => {
            first.is_ascii_alphanumeric()
                || matches!(first, b'/' | b'.' | b'_' | b'+' | b'(' | b'$')
        }
        [] => false,
    };
    // A document's marks stand at the line's start, where only a key can stand here.
    starts
        && !bytes.ends_with(b" ")
        && !bytes.ends_with(b":")
        && !bytes.windows(2).any(|pair| pair == b": " || pair == b" #")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use crate::{emit, yaml};

    /// Without the places, which the two count differently for collections.
    fn values<'a>(node: &Node<'a>) -> Node<'a> {
        let value = match &node.value {
            Value::List(all) => Value::List(all.iter().map(values).collect()),
            Value::Map(all) => Value::Map(
                all.iter()
                    .map(|entry| Entry {
                        node: values(&entry.node),
                        at: 0,
                        ..entry.clone()
                    })
                    .collect(),
            ),
            scalar => scalar.clone(),
        };
        Node { value, at: 0 }
    }

    /// Whether it was read; then the full parser must agree.
    fn agrees(text: &str) -> bool {
        let Some(quick) = block(text) else {
            return false;
        };
        match yaml::yaml(text) {
            Ok(full) => assert_eq!(values(&quick), values(&full), "{text}"),
            Err(fault) => panic!("{}: read by one only:\n{text}", fault.why),
        }
        true
    }

    fn files() -> Vec<String> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cdi");
        let mut texts = Vec::new();
        for dir in ["nodes", "vendors"] {
            for entry in std::fs::read_dir(root.join(dir)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|kind| kind == "yaml") {
                    texts.push(std::fs::read_to_string(path).unwrap());
                }
            }
        }
        texts
    }

    #[test]
    fn generated_files_take_the_quick_way() {
        let texts = files();
        let quick = texts.iter().filter(|text| agrees(text)).count();
        assert!(quick >= 3, "{quick} of {}", texts.len());
    }

    #[test]
    fn what_it_reads_it_reads_as_the_full_parser() {
        let nested = |depth: usize| -> String {
            let level = |indent: usize| format!("{}a:\n", " ".repeat(indent));
            (0..depth).map(level).collect()
        };
        let (deep, less_deep) = (nested(MAX_DEPTH + 1), nested(MAX_DEPTH));
        let cases = [
            ("a: 1\n", true),
            ("a: 1", true),
            ("a:\n- b: 1\n  c: \"2\"\n- d\nf:\n", true),
            ("a:\n  - b:\n      c: d\n    e:\n    - f\n", true),
            ("a:\n-   b: 1\n    c: 2\n", true),
            ("# c\n\na: x:y#z,[]{}\n  # d\nb: --e\n", true),
            ("a: ''\nb: \"\"\n", true),
            ("a:\nb: 1\n", true),
            ("a: b\n  c\n", false),
            ("a: b c: d\n", false),
            ("a: b #c\n", false),
            ("a: 'it''s'\n", false),
            ("a: \"\\n\"\n", false),
            ("a: [1]\n", false),
            ("a: {}\n", false),
            ("a: |\n  b\n", false),
            ("a: &x b\n", false),
            ("a: *x\n", false),
            ("<<: b\n", false),
            ("a: !t b\n", false),
            ("a: b:\n", false),
            ("a: b \n", false),
            ("a: 1\na: 2\n", false),
            ("a:\n  b: 1\n c: 2\n", false),
            ("a:\n  - b\n  c: 1\n", false),
            ("a:\n  b: c\n    d\ne: f\n", false),
            (&deep, false),
            (&less_deep, true),
            ("a:\n- b\n c: 1\n", false),
            ("a:\n- - b\n", false),
            ("a:\n-\n", false),
            ("- a\n", false),
            ("a\n", false),
            ("a: 1\n---\nb: 2\n", false),
            ("a: 1\n...\n", false),
            ("--- a\n", false),
            ("true: 1\n", false),
            ("a: é\n", false),
            ("a: 1\r\n", false),
            ("\ta: 1\n", false),
            ("", false),
        ];
        for (text, quick) in cases {
            assert_eq!(agrees(text), quick, "{text:?}");
        }
    }

    #[test]
    fn no_change_of_a_file_makes_them_disagree() {
        const PIECES: [&str; 22] = [
            " ", "  ", "\n", "-", "- ", ":", ": ", "#", " #", "'", "\"", "[", "]", "{", "&a ",
            "*a", "|", ">", "---\n", "...\n", "?", "a: ",
        ];
        let mut texts: Vec<_> = files().into_iter().map(|text| (text, 1000)).collect();
        for seed in 0..20 {
            let spec = serde_json::to_value(Dice::new(seed).spec()).unwrap();
            texts.push((emit::yaml(&spec), 100));
        }
        let mut dice = Dice::new(1);
        let mut quick = 0;
        for (text, rounds) in texts {
            // The first lines hold every construct; whole files would take minutes.
            let text: String = text
                .lines()
                .take(40)
                .flat_map(|line| [line, "\n"])
                .collect();
            for _ in 0..rounds {
                let mut text = text.clone();
                for _ in 0..=dice.below(3) {
                    let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
                    let at = boundaries[dice.below(boundaries.len())];
                    match dice.below(3) {
                        0 => drop(text.remove(at)),
                        1 => text.insert_str(at, PIECES[dice.below(PIECES.len())]),
                        _ => {
                            text.remove(at);
                            text.insert_str(at, PIECES[dice.below(PIECES.len())]);
                        }
                    }
                }
                quick += usize::from(agrees(&text));
            }
        }
        assert!(quick > 800, "{quick} took the quick way");
    }
}
