//! A note in our own file of the directories that were made for it, so that they go with it and no others do: CRI-O's
//! and Podman's packages ship theirs empty.

use std::path::PathBuf;

const NOTE: &str = "# Made for this file: ";

/// The text without the note, and the directories it names.
pub(crate) fn split(text: &str) -> (String, Vec<PathBuf>) {
    let (mut rest, mut made) = (String::new(), Vec::new());
    for line in text.split_inclusive('\n') {
        match line.strip_prefix(NOTE) {
            Some(dir) => made.push(PathBuf::from(dir.trim_end())),
            None => rest.push_str(line),
        }
    }
    (rest, made)
}

/// The text with a note of these directories.
pub(crate) fn join(mut text: String, made: &[PathBuf]) -> String {
    for dir in made {
        text.push_str(&format!("{NOTE}{}\n", dir.display()));
    }
    text
}
