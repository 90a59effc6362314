//! `config set` and `config unset`: settings changed in the file that counts, checked before anything is written.

use std::io::Write;
use std::path::Path;

use fleet_inject::Policy;
use toml_edit::{Array, Value};

use super::edit;
use crate::cli::{ChangeArgs, Cli};
use crate::{CtlError, Verdict};

/// A change that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("`{0}` is not of the form KEY=VALUE; hint: fleet-nvidia-ctl config set profile=crio")]
    Form(String),
    #[error("`{0}` is no setting; hint: `fleet-nvidia-ctl config default` explains them all")]
    Unknown(String),
    #[error("`{key}` cannot be {value:?}: {why}")]
    Value {
        key: String,
        value: String,
        why: String,
    },
    #[error("`{key}` has no line of its own in {file}; hint: change it by hand")]
    Place { key: String, file: String },
}

/// One change: a key and its new value, or none.
type Change<'a> = (Vec<&'a str>, Option<&'a str>);

pub(super) fn run(
    cli: &Cli,
    args: ChangeArgs,
    changes: &[Change<'_>],
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    let (files, path) = (
        cli.files(),
        fleet_host::config_path(&cli.env(), &cli.host()),
    );
    let old = files.read(&path)?;
    if old.is_none()
        && cli.config.is_none()
        && let Some(toolkit) = replaced(cli)?
    {
        let ours = path.display();
        writeln!(
            remarks,
            "fleet-nvidia-ctl: from now on {ours} counts, and {toolkit} does not any more"
        )?;
    }
    let mut text = old
        .clone()
        .unwrap_or_else(|| fleet_inject::DEFAULT_CONFIG.to_owned());
    Policy::parse(&text, &path.display().to_string()).map_err(fleet_host::ConfigError::from)?;
    for (keys, value) in changes {
        text = match value {
            Some(value) => with(&text, keys, value)?,
            None => without(&text, keys, &path)?,
        };
    }
    if args.dry_run {
        write!(out, "{text}")?;
    } else if old.as_ref() != Some(&text) {
        files.replace(&path, &text)?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(Verdict::Fine)
}

/// NVIDIA's own file, where it counts until there is one of ours.
fn replaced(cli: &Cli) -> Result<Option<String>, CtlError> {
    let (_, counts) = fleet_host::load_policy(&cli.env(), &cli.host())?;
    let toolkit = counts.filter(|path| fleet_host::is_toolkit(path));
    Ok(toolkit.map(|path| path.display().to_string()))
}

/// Splits `KEY=VALUE`; keys of a section are `section.key`.
pub(super) fn setting(text: &str) -> Result<Change<'_>, ChangeError> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| ChangeError::Form(text.to_owned()))?;
    Ok((keys(key), Some(value.trim())))
}

pub(super) fn keys(key: &str) -> Vec<&str> {
    key.trim().split('.').collect()
}

/// The value in the first reading that the setting takes: as TOML, as a list joined by commas, as text.
fn with(text: &str, keys: &[&str], value: &str) -> Result<String, ChangeError> {
    let key = keys.join(".");
    let known = Policy::parse(text, "").map(|file| file.warnings.len());
    let list: Array = value
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect();
    let readings = [
        value.parse::<Value>().ok(),
        Some(Value::Array(list)),
        Some(Value::from(value)),
    ];
    let mut why = None;
    for reading in readings.into_iter().flatten() {
        let Some(changed) = edit::set(text, keys, &reading) else {
            return Err(ChangeError::Unknown(key));
        };
        match Policy::parse(&changed, "") {
            Ok(file) if Ok(file.warnings.len()) == known => return Ok(changed),
            Ok(_) => return Err(ChangeError::Unknown(key)),
            // What the last reading says is about text, which most settings are.
            Err(err) => why = Some(err.problem),
        }
    }
    Err(ChangeError::Value {
        key,
        value: value.to_owned(),
        why: why.unwrap_or_default(),
    })
}

fn without(text: &str, keys: &[&str], path: &Path) -> Result<String, ChangeError> {
    let key = keys.join(".");
    if !edit::has(text, keys) {
        let probe = edit::set("", keys, &Value::from(true)).unwrap_or_default();
        let unknown = Policy::parse(&probe, "").is_ok_and(|file| !file.warnings.is_empty());
        return match unknown {
            true => Err(ChangeError::Unknown(key)),
            false => Ok(text.to_owned()),
        };
    }
    edit::unset(text, keys).ok_or_else(|| ChangeError::Place {
        key,
        file: path.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, change: &str) -> Result<String, String> {
        let (keys, value) = setting(change).map_err(|err| err.to_string())?;
        with(text, &keys, value.unwrap()).map_err(|err| err.to_string())
    }

    #[test]
    fn values_are_read_as_the_setting_wants_them() {
        for (change, want) in [
            ("profile=crio", "profile = \"crio\"\n"),
            ("profile=\"crio\"", "profile = \"crio\"\n"),
            ("disable-require=true", "disable-require = true\n"),
            ("spec-dirs=/a, /b", "spec-dirs = [\"/a\", \"/b\"]\n"),
            (
                "driver-capabilities=[\"compute\"]",
                "driver-capabilities = [\"compute\"]\n",
            ),
            ("hooks.foreign-timeout=5", "[hooks]\nforeign-timeout = 5\n"),
            (
                "allow.environment=nvidia.com/gpu=0",
                "[allow]\nenvironment = [\"nvidia.com/gpu=0\"]\n",
            ),
        ] {
            assert_eq!(set("", change).as_deref(), Ok(want), "{change}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (change, want) in [
            ("profile", "KEY=VALUE"),
            ("=x", "KEY=VALUE"),
            ("proffile=crio", "`proffile` is no setting"),
            ("hooks.x=1", "`hooks.x` is no setting"),
            ("profile.x=1", "no setting"),
            ("profile=docker", "`profile` cannot be \"docker\""),
            ("hooks.foreign-timeout=0", "cannot be \"0\""),
            ("disable-require=maybe", "true or false"),
        ] {
            let err = set("profile = \"crio\"\n", change).unwrap_err();
            assert!(err.contains(want), "{change}: {err}");
        }
        let path = Path::new("/f");
        assert!(without("", &["x"], path).is_err());
        assert_eq!(without("", &["profile"], path).unwrap(), "");
        assert_eq!(
            without("profile = \"crio\"\n", &["profile"], path).unwrap(),
            ""
        );
    }
}
