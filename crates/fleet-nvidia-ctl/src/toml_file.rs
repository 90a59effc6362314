//! A TOML file of an engine: looked at by key, with lines for messages, and edited with its comments.

use std::path::{Path, PathBuf};

use toml_edit::{Array, Document, DocumentMut, Item, Table, TableLike, Value};

use crate::files::{FileError, Files};

/// A configuration file that is not what its engine reads; it is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {problem}", .path.display())]
pub(crate) struct BadFile {
    /// The file.
    pub(crate) path: PathBuf,
    /// Line, from 1.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) problem: String,
}

/// A file as read.
#[derive(Clone, Debug)]
pub(crate) struct TomlFile {
    pub(crate) path: PathBuf,
    document: Document<String>,
}

/// Why a file could not be read as TOML.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TomlError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Bad(#[from] BadFile),
}

impl TomlFile {
    /// A file, if it is there.
    pub(crate) fn read(files: &Files, path: &Path) -> Result<Option<Self>, TomlError> {
        let text = files.read(path)?;
        Ok(text.map(|text| Self::parse(path, text)).transpose()?)
    }

    /// The text of a file; the error has its line.
    pub(crate) fn parse(path: &Path, text: String) -> Result<Self, BadFile> {
        let document = Document::parse(text.clone()).map_err(|err| BadFile {
            path: path.to_path_buf(),
            line: line(&text, err.span().map_or(0, |span| span.start)),
            problem: format!("is not TOML: {}", err.message().replace('\n', ", ")),
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            document,
        })
    }

    /// What stands at a path of keys.
    pub(crate) fn item(&self, keys: &[&str]) -> Option<&Item> {
        let mut item = self.document.as_item();
        for key in keys {
            item = item.as_table_like()?.get(key)?;
        }
        Some(item)
    }

    pub(crate) fn text(&self, keys: &[&str]) -> Option<&str> {
        self.item(keys)?.as_str()
    }

    pub(crate) fn array(&self, keys: &[&str]) -> Option<&Array> {
        self.item(keys)?.as_array()
    }

    pub(crate) fn table(&self, keys: &[&str]) -> Option<&dyn TableLike> {
        self.item(keys)?.as_table_like()
    }

    /// Line of the last key of a path that exists; 1 where none does.
    pub(crate) fn line(&self, keys: &[&str]) -> usize {
        let (mut item, mut at) = (self.document.as_item(), 0);
        for key in keys {
            let Some((found, next)) = item
                .as_table_like()
                .and_then(|table| table.get_key_value(key))
            else {
                break;
            };
            let span = found.span().or_else(|| next.span());
            at = span.map_or(at, |span| span.start);
            item = next;
        }
        line(self.document.raw(), at)
    }

    /// A fault at a path of keys.
    pub(crate) fn bad(&self, keys: &[&str], problem: impl Into<String>) -> BadFile {
        BadFile {
            path: self.path.clone(),
            line: self.line(keys),
            problem: problem.into(),
        }
    }

    /// `path:line` of a key.
    pub(crate) fn at(&self, keys: &[&str]) -> String {
        format!("{}:{}", self.path.display(), self.line(keys))
    }

    pub(crate) fn raw(&self) -> &str {
        self.document.raw()
    }

    /// A copy to edit.
    pub(crate) fn edit(&self) -> DocumentMut {
        self.document.clone().into_mut()
    }

    /// Makes sure that a path of keys is a table or does not exist.
    pub(crate) fn check_table(&self, keys: &[&str]) -> Result<(), BadFile> {
        for depth in 1..=keys.len() {
            let keys = &keys[..depth];
            if let Some(item) = self.item(keys)
                && item.as_table_like().is_none()
            {
                let problem = format!(
                    "`{}` is of type {}, not a table",
                    keys.join("."),
                    item.type_name()
                );
                return Err(self.bad(keys, problem));
            }
        }
        Ok(())
    }
}

/// The table at a path of keys, made where it is missing. `None` where something else stands there.
pub(crate) fn table_mut<'d>(
    document: &'d mut DocumentMut,
    keys: &[&str],
) -> Option<&'d mut dyn TableLike> {
    let mut item = document.as_item_mut();
    for (depth, key) in keys.iter().enumerate() {
        let table = item.as_table_like_mut()?;
        item = table.entry(key).or_insert_with(|| {
            let mut new = Table::new();
            // A header for the innermost table alone: `[a.b.c]`.
            new.set_implicit(depth + 1 < keys.len());
            Item::Table(new)
        });
    }
    item.as_table_like_mut()
}

/// The table at a path of keys.
pub(crate) fn table<'d>(document: &'d DocumentMut, keys: &[&str]) -> Option<&'d dyn TableLike> {
    let mut item = document.as_item();
    for key in keys {
        item = item.as_table_like()?.get(key)?;
    }
    item.as_table_like()
}

/// Sets a value; one that is equal already keeps its form and comment.
pub(crate) fn set(table: &mut dyn TableLike, key: &str, value: impl Into<Value>) {
    let mut value = value.into();
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) if plain(old) == plain(&value) => {}
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

/// The value without its spaces and comments.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Array(array) => array.iter().map(plain).collect::<Vec<_>>().join("\n"),
        Value::String(text) => text.value().clone(),
        other => other.to_string().trim().to_owned(),
    }
}

/// Whether a document has no key at all.
pub(crate) fn is_empty(document: &DocumentMut) -> bool {
    fn holds_nothing(table: &dyn TableLike) -> bool {
        table
            .iter()
            .all(|(_, item)| item.as_table_like().is_some_and(holds_nothing))
    }
    holds_nothing(document.as_table())
}

/// Removes a table or key, and the tables above it that are left without any.
pub(crate) fn remove(document: &mut DocumentMut, keys: &[&str]) {
    fn inner(table: &mut dyn TableLike, keys: &[&str]) {
        let Some((key, rest)) = keys.split_first() else {
            return;
        };
        if rest.is_empty() {
            table.remove(key);
            return;
        }
        let Some(below) = table.get_mut(key).and_then(Item::as_table_like_mut) else {
            return;
        };
        inner(below, rest);
        if below.is_empty() {
            table.remove(key);
        }
    }
    inner(document.as_table_mut(), keys);
}

fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> TomlFile {
        TomlFile::parse(Path::new("/f"), text.to_owned()).unwrap()
    }

    #[test]
    fn lines_are_those_of_the_keys() {
        let file = file("# c\n[a]\n\nx = 1\n[a.b]\ny = \"z\"\n");
        let cases: [(&[&str], usize); 5] = [
            (&["a"], 2),
            (&["a", "x"], 4),
            (&["a", "b", "y"], 6),
            (&["a", "missing"], 2),
            (&[], 1),
        ];
        for (keys, want) in cases {
            assert_eq!(file.line(keys), want, "{keys:?}");
        }
        assert_eq!(file.text(&["a", "b", "y"]), Some("z"));
        let bad = file.check_table(&["a", "x", "deeper"]).unwrap_err();
        assert_eq!(
            bad.to_string(),
            "/f:4: `a.x` is of type integer, not a table"
        );
        let bad = TomlFile::parse(Path::new("/f"), "a = 1\n[b\n".to_owned()).unwrap_err();
        assert_eq!((bad.line, bad.to_string().lines().count()), (2, 1));
    }

    #[test]
    fn edits_keep_comments_and_take_back_what_they_made() {
        let text = "# first\n[a]\nx = 1 # one\n";
        let mut document = file(text).edit();
        let table = table_mut(&mut document, &["a", "b", "c"]).unwrap();
        set(table, "k", "v");
        let edited = document.to_string();
        assert_eq!(edited, format!("{text}\n[a.b.c]\nk = \"v\"\n"));
        set(table_mut(&mut document, &["a"]).unwrap(), "x", 1);
        assert_eq!(
            document.to_string(),
            edited,
            "an equal value stays as it is"
        );
        set(table_mut(&mut document, &["a"]).unwrap(), "x", 2);
        assert!(document.to_string().contains("x = 2 # one"));
        set(table_mut(&mut document, &["a"]).unwrap(), "x", 1);
        remove(&mut document, &["a", "b", "c"]);
        assert_eq!(document.to_string(), text);
        assert!(!is_empty(&document));
        remove(&mut document, &["a", "x"]);
        assert!(is_empty(&document));
        assert!(table_mut(&mut file("a = 1").edit(), &["a"]).is_none());
    }
}
