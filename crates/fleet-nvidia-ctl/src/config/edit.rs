//! One setting of a configuration file changed, with every comment kept.
//!
//! A new setting goes below the line that explains it (`#= profile = "auto"`), where the file has one; a setting that
//! is taken back leaves with its line alone. Both are done on the text, since a TOML editor moves comments along
//! with the key below them, and are checked against what the editor makes of it.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Document, DocumentMut, Item, TableLike, Value};

use crate::toml_file;

/// The text with `keys` set to `value`; `None` where the text is not TOML or something else stands in the way.
pub(super) fn set(text: &str, keys: &[&str], value: &Value) -> Option<String> {
    let (key, tables) = keys.split_last()?;
    let mut document: DocumentMut = text.parse().ok()?;
    let there = toml_file::table(&document, tables).is_some_and(|table| table.contains_key(key));
    toml_file::set(
        toml_file::table_mut(&mut document, tables)?,
        key,
        value.clone(),
    );
    if !there
        && let Some(placed) = below_its_explanation(text, keys, value)
        && values(&placed) == values(&document.to_string())
    {
        return Some(placed);
    }
    Some(document.to_string())
}

/// The text without `keys`; `None` where the setting does not have a line of its own.
pub(super) fn unset(text: &str, keys: &[&str]) -> Option<String> {
    let document = Document::parse(text).ok()?;
    let lines = lines_of(text, span(document.as_item(), keys)?)?;
    let mut left = text.to_owned();
    left.replace_range(lines, "");
    let mut wanted = values(text)?;
    wanted.remove(&keys.join("."))?;
    (values(&left)? == wanted).then_some(left)
}

/// Whether a setting stands in the text.
pub(super) fn has(text: &str, keys: &[&str]) -> bool {
    values(text).is_some_and(|values| values.contains_key(&keys.join(".")))
}

fn below_its_explanation(text: &str, keys: &[&str], value: &Value) -> Option<String> {
    let (key, tables) = keys.split_last()?;
    let table = tables.join(".");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let (mut section, mut header) = (String::new(), None);
    let mut place = None;
    for (number, line) in lines.iter().enumerate() {
        let stated = line.strip_prefix("#=").unwrap_or(line).trim();
        if let Some(name) = stated
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
        {
            section = name.to_owned();
            header = (section == table && line.starts_with('#')).then_some(number);
        }
        let explained = line.strip_prefix("#=").or_else(|| line.strip_prefix("# "));
        let name = explained
            .and_then(|line| line.split_once('='))
            .map(|(name, _)| name.trim());
        if section == table && name == Some(key) {
            place = Some((number, header));
            break;
        }
    }
    let (number, header) = place?;
    lines.insert(number + 1, format!("{key} = {}", value.to_string().trim()));
    if let Some(header) = header {
        lines[header] = format!("[{table}]");
    }
    Some(lines.join("\n") + "\n")
}

/// Where a key and its value stand.
fn span(item: &Item, keys: &[&str]) -> Option<Range<usize>> {
    let (key, rest) = keys.split_first()?;
    let (name, below) = item.as_table_like()?.get_key_value(key)?;
    match rest {
        [] => Some(name.span()?.start..below.span()?.end),
        _ => span(below, rest),
    }
}

/// The whole lines of a range, where nothing but a comment stands beside it.
fn lines_of(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let start = text[..range.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[range.end..]
        .find('\n')
        .map_or(text.len(), |at| range.end + at + 1);
    let after = text[range.end..end].trim();
    let alone =
        text[start..range.start].trim().is_empty() && (after.is_empty() || after.starts_with('#'));
    alone.then_some(start..end)
}

/// All values by their dotted keys.
fn values(text: &str) -> Option<BTreeMap<String, String>> {
    fn collect(table: &dyn TableLike, prefix: &str, all: &mut BTreeMap<String, String>) {
        for (key, item) in table.iter() {
            let path = format!("{prefix}{key}");
            match item.as_table_like() {
                Some(below) => collect(below, &format!("{path}."), all),
                None => {
                    let value = item
                        .as_value()
                        .map_or_else(|| item.to_string(), toml_file::plain);
                    all.insert(path, value);
                }
            }
        }
    }
    let document: DocumentMut = text.parse().ok()?;
    let mut all = BTreeMap::new();
    collect(document.as_table(), "", &mut all);
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_to(text: &str, keys: &[&str], value: impl Into<Value>) -> String {
        set(text, keys, &value.into()).unwrap()
    }

    #[test]
    fn a_setting_goes_below_its_explanation_and_leaves_without_a_trace() {
        let shipped = fleet_inject::DEFAULT_CONFIG;
        let text = set_to(shipped, &["profile"], "crio");
        assert!(
            text.contains("#= profile = \"auto\"\nprofile = \"crio\"\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), shipped.lines().count() + 1);
        assert_eq!(unset(&text, &["profile"]).unwrap(), shipped);
        let text = set_to(&text, &["profile"], "podman");
        assert!(text.contains("\nprofile = \"podman\"\n") && !text.contains("\"crio\"\n"));
    }

    #[test]
    fn a_section_that_was_only_explained_becomes_one() {
        let text = set_to(
            fleet_inject::DEFAULT_CONFIG,
            &["sources", "environment-unprivileged"],
            true,
        );
        let (head, tail) = text.split_once("\n[sources]\n").unwrap();
        assert!(!head.contains("\n[") && tail.contains("\nenvironment-unprivileged = true\n"));
        let text = set_to(&text, &["sources", "volume-mounts"], true);
        assert_eq!(text.matches("\n[sources]\n").count(), 1);
        let text = set_to(&text, &["profile"], "crio");
        let policy = fleet_inject::Policy::parse(&text, "f").unwrap();
        assert!(policy.warnings.is_empty(), "{:?}", policy.warnings);
        assert!(policy.policy.sources.volume_mounts);
        assert_eq!(policy.policy.profile, fleet_inject::Profile::Crio);
    }

    #[test]
    fn a_file_of_another_shape_keeps_its_meaning() {
        // A key after the header that is only explained belongs to no section: it must not get into one.
        let text = "#= [hooks]\n#= native = true\nprofile = \"crio\"\n";
        let text = set_to(text, &["hooks", "native"], false);
        let policy = fleet_inject::Policy::parse(&text, "f").unwrap();
        assert!(policy.warnings.is_empty() && !policy.policy.hooks.native);
        assert_eq!(policy.policy.profile, fleet_inject::Profile::Crio);
        let text = set_to(
            "hooks = { native = true } # mine\n",
            &["hooks", "native"],
            false,
        );
        assert_eq!(text, "hooks = { native = false } # mine\n");
        assert_eq!(
            unset(&text, &["hooks", "native"]),
            None,
            "no line of its own"
        );
        assert_eq!(
            set("profile = 1\n", &["profile", "x"], &Value::from(1)),
            None
        );
        let several = "# why\nspec-dirs = [\n  \"/a\", # one\n] # all\nprofile = \"crio\"\n";
        assert_eq!(
            unset(several, &["spec-dirs"]).unwrap(),
            "# why\nprofile = \"crio\"\n"
        );
    }
}
