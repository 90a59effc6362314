//! Reading Tegra's lists: lines of `type, path`.

use glob::Pattern;

use crate::machine::Machine;
use crate::options::CsvOptions;

/// Paths and patterns by their type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lists {
    /// Device nodes.
    pub(super) dev: Vec<String>,
    /// Directories.
    pub(super) dir: Vec<String>,
    /// Libraries and other files.
    pub(super) lib: Vec<String>,
    /// Links, whose targets come with them.
    pub(super) sym: Vec<String>,
}

impl Lists {
    /// Reads every list. A list that is not there, or a line that makes no sense, costs only itself.
    pub(super) fn read(
        machine: &Machine,
        options: &CsvOptions,
        warnings: &mut Vec<String>,
    ) -> Self {
        let mut lists = Self::default();
        for path in &options.files {
            match machine.host.text(path) {
                Ok(text) => lists.add(path, &text, warnings),
                Err(err) => warnings.push(format!("Tegra's list {path} is left out: {err}")),
            }
        }
        lists
            .sym
            .retain(|path| !options.ignore.iter().any(|pattern| ignores(pattern, path)));
        lists
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, path: &str, text: &str, warnings: &mut Vec<String>) {
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            if let Err(why) = self.add_line(line) {
                warnings.push(format!(
                    "line {number} of Tegra's list {path} is left out: {why}"
                ));
            }
        }
    }

    fn add_line(&mut self, line: &str) -> Result<(), String> {
        let (kind, path) = line.split_once(',').ok_or("it is not `type, path`")?;
        let path = path.trim();
        if !path.starts_with('/') {
            return Err("the path is not absolute".to_owned());
        }
        let list = match kind.trim() {
            "dev" => &mut self.dev,
            "dir" => &mut self.dir,
            "lib" => &mut self.lib,
            "sym" => &mut self.sym,
            other => return Err(format!("type `{other}` is none of dev, dir, lib, sym")),
        };
        list.push(path.to_owned());
        Ok(())
    }
}

/// `**/name` is compared with the last part of the path.
fn ignores(pattern: &str, path: &str) -> bool {
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::default()
    };
    let (pattern, path) = match pattern.strip_prefix("**/") {
        Some(name) => (name, path.rsplit('/').next().unwrap_or_default()),
        None => (pattern, path),
    };
    Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_with(path, options))
}
