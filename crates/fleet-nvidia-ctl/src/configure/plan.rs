//! The files to write, all known before the first is touched.

use std::path::{Path, PathBuf};

use similar::TextDiff;

use super::{ConfigureError, made};
use crate::files::{FileError, Files};

/// What an engine's configuration is to become.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    files: Vec<Change>,
    pub(crate) remarks: Vec<Remark>,
    removes: bool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    path: PathBuf,
    before: Option<String>,
    after: Option<String>,
    /// Directories above it that were, or are, made for it.
    made: Vec<PathBuf>,
}

/// Something to know that does not stop us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remark {
    /// It works.
    Note(String),
    /// The written entry does not come into force.
    NoEffect(String),
}

impl Remark {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Note(text) | Self::NoEffect(text) => text,
        }
    }
}

impl Change {
    fn is_one(&self) -> bool {
        self.before != self.after
    }

    /// What was done, for the user.
    pub(crate) fn done(&self) -> String {
        let verb = match (&self.before, &self.after) {
            (None, _) => "wrote",
            (_, None) => "removed",
            _ => "changed",
        };
        format!("{verb} {}", self.path.display())
    }

    fn diff(&self) -> String {
        let name = |text: &Option<String>| match text {
            Some(_) => self.path.display().to_string(),
            None => "/dev/null".to_owned(),
        };
        let (before, after) = (
            self.before.as_deref().unwrap_or_default(),
            self.after.as_deref().unwrap_or_default(),
        );
        TextDiff::from_lines(before, after)
            .unified_diff()
            .header(&name(&self.before), &name(&self.after))
            .to_string()
    }
}

impl Plan {
    /// Whether a line that starts with this word comes, goes or becomes another one.
    pub(crate) fn touches(&self, word: &str) -> bool {
        fn line<'a>(text: Option<&'a str>, word: &str) -> Option<&'a str> {
            text?.lines().find(|line| line.starts_with(word))
        }
        self.files.iter().any(|change| {
            line(change.before.as_deref(), word) != line(change.after.as_deref(), word)
        })
    }

    pub(crate) fn new(removes: bool) -> Self {
        Self {
            removes,
            ..Self::default()
        }
    }

    /// Adds a file; `None` removes it. Files are written in this order.
    pub(crate) fn file(
        &mut self,
        files: &Files,
        path: &Path,
        after: Option<String>,
    ) -> Result<(), FileError> {
        let before = files.read(path)?;
        // JSON has no comments to note it in: the directory goes when nothing else is in it.
        let json = path.extension().is_some_and(|kind| kind == "json");
        let made = match &before {
            Some(_) if json => path.parent().map(Path::to_path_buf).into_iter().collect(),
            Some(before) => made::split(before).1,
            None => files.missing_above(path),
        };
        let after = match json {
            true => after,
            false => after.map(|text| made::join(made::split(&text).0, &made)),
        };
        self.files.push(Change {
            path: path.to_path_buf(),
            before,
            after,
            made,
        });
        Ok(())
    }

    /// The files that become different.
    pub(crate) fn changes(&self) -> Vec<&Change> {
        self.files.iter().filter(|change| change.is_one()).collect()
    }

    /// Whether the entry comes into force.
    pub(crate) fn works(&self) -> bool {
        !self
            .remarks
            .iter()
            .any(|remark| matches!(remark, Remark::NoEffect(_)))
    }

    /// The changes as a unified diff.
    pub(crate) fn account(&self) -> String {
        self.changes().iter().map(|change| change.diff()).collect()
    }

    /// Why nothing needs to be done.
    pub(crate) fn state(&self) -> String {
        let paths: Vec<_> = self
            .files
            .iter()
            .map(|change| change.path.display().to_string())
            .collect();
        match self.removes {
            true => "there is no such entry".to_owned(),
            false => format!("{} as wanted", paths.join(", ")),
        }
    }

    /// Writes the files. When one fails, those before it get their old text back.
    pub(crate) fn carry_out(&self, files: &Files) -> Result<(), ConfigureError> {
        let changes = self.changes();
        for (index, change) in changes.iter().enumerate() {
            if let Err(err) = put(files, change, change.after.as_deref()) {
                for earlier in changes[..index].iter().rev() {
                    // The first error is the one to report.
                    drop(put(files, earlier, earlier.before.as_deref()));
                }
                return Err(err.into());
            }
        }
        for change in self.files.iter().filter(|change| !change.is_one()) {
            files.sweep(&change.path)?;
        }
        Ok(())
    }
}

fn put(files: &Files, change: &Change, text: Option<&str>) -> Result<(), FileError> {
    match text {
        Some(text) => files.replace(&change.path, text),
        None => files.remove_with(&change.path, &change.made),
    }
}
