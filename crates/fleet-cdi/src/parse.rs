//! Reading a spec.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::model::Spec;
use crate::{decode, tree};

/// Largest spec file that is read, in bytes; an 8-GPU one has 45 kB.
const MAX_SIZE: u64 = 8 * 1024 * 1024;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.json`
    Json,
    /// `.yaml`
    Yaml,
}

/// Content that is no valid spec: line and column for broken syntax, field path for broken content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// A file that is no valid spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CDI spec {} {why}", .path.display())]
pub struct SpecError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub why: String,
}

/// Reads and validates a spec.
///
/// # Errors
/// [`ParseError`].
pub fn parse(bytes: &[u8], format: Format) -> Result<Spec, ParseError> {
    let value = match format {
        Format::Json => tree::json(bytes),
        Format::Yaml => std::str::from_utf8(bytes)
            .map_err(|_| "it is not UTF-8 text".to_owned())
            .and_then(tree::yaml),
    };
    let spec = value
        .and_then(|value| decode::spec(&value, format == Format::Yaml))
        .map_err(ParseError)?;
    spec.validate().map_err(ParseError)?;
    Ok(spec)
}

/// The format by the file's name; other names are no specs.
pub(crate) fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "json" => Some(Format::Json),
        "yaml" => Some(Format::Yaml),
        _ => None,
    }
}

/// Reads a spec file; a symbolic link to a regular file is followed.
///
/// # Errors
/// [`SpecError`] with path and cause.
pub fn read_spec(path: &Path) -> Result<Spec, SpecError> {
    let fail = |why: String| SpecError {
        path: path.to_path_buf(),
        why,
    };
    let format = format_of(path).ok_or_else(|| fail("is not named .json or .yaml".to_owned()))?;
    let meta = std::fs::metadata(path).map_err(|err| fail(unreadable(&err)))?;
    // A FIFO or device would block us.
    if !meta.is_file() {
        return Err(fail("is not a regular file".to_owned()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len().min(MAX_SIZE)).unwrap_or(0));
    let read = File::open(path).and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut bytes));
    let read = read.map_err(|err| fail(unreadable(&err)))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_SIZE {
        return Err(fail(format!("is larger than {MAX_SIZE} bytes")));
    }
    parse(&bytes, format).map_err(|err| fail(format!("is invalid: {err}")))
}

/// By kind, not in the C library's words: engines would read those as the container's own error.
pub(crate) fn unreadable(err: &std::io::Error) -> String {
    match err.kind() {
        std::io::ErrorKind::NotFound => "is missing".to_owned(),
        std::io::ErrorKind::PermissionDenied => "cannot be read (EACCES)".to_owned(),
        _ => format!(
            "cannot be read ({})",
            err.raw_os_error()
                .map_or_else(|| err.kind().to_string(), |code| format!("errno {code}"))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"cdiVersion":"0.7.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":{"env":["A=b"]}}]}"#;

    #[test]
    fn letter_case_of_keys_does_not_matter() {
        parse(
            GOOD.replace("cdiVersion", "CDIversion").as_bytes(),
            Format::Json,
        )
        .unwrap();
    }

    #[test]
    fn every_rule() {
        let cases = [
            ("\"0.7.0\"", "\"0.7.1\"", "invalid version"),
            ("\"0.7.0\"", "\"0.2.0\"", "at least v0.3.0"),
            ("\"0.7.0\"", "7", "cdiVersion is not a string"),
            ("\"kind\"", "\"sort\"", "kind is missing"),
            ("v.com/c", "v.com", "not vendor/class"),
            ("v.com/c", "1v/c", "vendor"),
            ("v.com/c", "v/c.", "class"),
            (
                "\"devices\":",
                "\"color\":1,\"devices\":",
                "unknown field \"color\"",
            ),
            ("{\"env\":[\"A=b\"]}", "{}", "empty containerEdits"),
            ("A=b", "=b", "environment variable"),
            ("A=b", "A", "environment variable"),
            ("\"name\":\"d\"", "\"name\":\"-d\"", "device name"),
            ("\"name\":\"d\"", "\"name\":\"../d\"", "device name"),
            ("\"env\":[\"A=b\"]", "\"env\":\"A=b\"", "env is not a list"),
            (
                "\"env\":[\"A=b\"]",
                "\"deviceNodes\":[{\"path\":\"/d\",\"type\":\"x\"}]",
                "invalid type",
            ),
            (
                "\"env\":[\"A=b\"]",
                "\"deviceNodes\":[{\"path\":\"/d\",\"permissions\":\"rx\"}]",
                "permissions",
            ),
            (
                "\"env\":[\"A=b\"]",
                "\"deviceNodes\":[{\"path\":\"/d\",\"uid\":-1}]",
                "uid",
            ),
            (
                "\"env\":[\"A=b\"]",
                "\"deviceNodes\":[{\"path\":\"\"}]",
                "empty path",
            ),
            (
                "\"env\":[\"A=b\"]",
                "\"deviceNodes\":[{}]",
                "path is missing",
            ),
            (
                "\"env\":[\"A=b\"]",
                "\"mounts\":[{\"hostPath\":\"/a\"}]",
                "containerPath is missing",
            ),
            (
                "\"env\":[\"A=b\"]",
                "\"mounts\":[{\"hostPath\":\"\",\"containerPath\":\"/a\"}]",
                "empty path",
            ),
            (
                "\"env\":[\"A=b\"]",
                "\"hooks\":[{\"hookName\":\"x\",\"path\":\"/a\"}]",
                "hook name",
            ),
            (
                "\"env\":[\"A=b\"]",
                "\"hooks\":[{\"hookName\":\"prestart\",\"path\":\"\"}]",
                "empty path",
            ),
            (
                "\"env\":[\"A=b\"]",
                "\"hooks\":[{\"hookName\":\"prestart\",\"path\":\"/a\",\"env\":[\"x\"]}]",
                "environment",
            ),
            (
                "\"env\":[\"A=b\"]",
                "\"intelRdt\":{\"closID\":\"a/b\"}",
                "closID",
            ),
            ("\"env\":[\"A=b\"]", "\"additionalGids\":[-1]", "group id"),
            (
                "\"env\":[\"A=b\"]",
                "\"netDevices\":[{\"hostInterfaceName\":\"a\",\"name\":\"b\"}]",
                "at least v1.1.0",
            ),
        ];
        for (from, to, word) in cases {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            let err = parse(text.as_bytes(), Format::Json)
                .unwrap_err()
                .to_string();
            assert!(err.contains(word), "{to}: {err}");
        }
        let twice = GOOD.replace(
            "[{\"name\"",
            "[{\"name\":\"d\",\"containerEdits\":{\"env\":[\"A=b\"]}},{\"name\"",
        );
        assert!(
            parse(twice.as_bytes(), Format::Json)
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
    }

    #[test]
    fn yaml_like_json() {
        let yaml = "---\ncdiVersion: 0.5.0\nkind: v.com/c\ndevices:\n  - name: \"0\"\n    containerEdits:\n      deviceNodes:\n        - path: /dev/x\n          fileMode: 0640\n          major: 195\n";
        let spec = parse(yaml.as_bytes(), Format::Yaml).unwrap();
        assert_eq!(
            spec.devices[0].container_edits.device_nodes[0].file_mode,
            Some(0o640)
        );
        let unquoted = yaml.replace("\"0\"", "0");
        assert_eq!(
            parse(unquoted.as_bytes(), Format::Yaml).unwrap().devices[0].name,
            "0"
        );
        let short = yaml.replace("0.5.0", "0.5");
        assert!(
            parse(short.as_bytes(), Format::Yaml)
                .unwrap_err()
                .to_string()
                .contains("invalid version \"0.5\"")
        );
        assert!(parse(b"\xff\xfe", Format::Yaml).is_err());
    }
}
