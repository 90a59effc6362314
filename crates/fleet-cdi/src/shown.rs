//! Text of files and users in an error: one line, bounded, without control characters.

use std::path::Path;

/// Longest word shown, in characters.
const WORD: usize = 128;

/// A word, cut short.
pub(crate) fn shown(text: &str) -> String {
    printable(text.chars().take(WORD))
}

/// A path, whole: cut short it would name another file.
pub(crate) fn shown_path(path: &Path) -> String {
    printable(path.to_string_lossy().chars())
}

fn printable(text: impl Iterator<Item = char>) -> String {
    text.map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A message of at most `limit` bytes.
pub(crate) fn bounded(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The first words of a list and how many more there are.
pub(crate) fn listed<T: ToString>(all: &[T], limit: usize) -> String {
    let mut text = all
        .iter()
        .take(limit)
        .map(|word| shown(&word.to_string()))
        .collect::<Vec<_>>()
        .join(", ");
    if all.len() > limit {
        text.push_str(&format!(" and {} more", all.len() - limit));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bounded_line() {
        assert_eq!(shown("a\nb\u{7}c"), "a?b?c");
        assert_eq!(shown(&"é".repeat(500)).chars().count(), WORD);
        assert_eq!(shown_path(Path::new("/a\nb")), "/a?b");
        assert_eq!(bounded("aéé".to_owned(), 4), "aé…");
        assert_eq!(bounded("aé".to_owned(), 4), "aé");
        assert_eq!(listed(&[1, 2, 3], 2), "1, 2 and 1 more");
        assert_eq!(listed(&[1, 2], 2), "1, 2");
    }
}
