//! Recognising the hooks that generated CDI specs name, in every spelling of old and new toolkits.

use crate::RootfsEdit;

/// What a hook of a spec is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookProgram {
    /// One of ours: these edits have its effect.
    Native(Vec<RootfsEdit>),
    /// A hook of NVIDIA's program that we do not know. Upstream's own rule for a name that an older program lacks is
    /// to warn and go on.
    UnknownNvidiaHook {
        /// Its name.
        name: String,
    },
    /// Another program.
    Foreign,
}

/// Arguments of a known hook that make no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("hook {hook}: {why}")]
pub struct HookArgsError {
    hook: String,
    why: String,
}

/// Looks at the program's name and arguments (`args[0]` is the name it is called by).
///
/// # Errors
/// A known hook with a bad argument.
pub fn recognise(path: &str, args: &[String]) -> Result<HookProgram, HookArgsError> {
    let base = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    let program = base(path);
    let mut rest = args.get(1..).unwrap_or_default();
    match program.as_str() {
        "nvidia-cdi-hook" => rest = skip_globals(rest),
        "nvidia-ctk" | "fleet-nvidia" => {
            rest = skip_globals(rest);
            if rest.first().map(String::as_str) != Some("hook") {
                return Ok(HookProgram::Foreign);
            }
            rest = skip_globals(&rest[1..]);
        }
        _ => return Ok(HookProgram::Foreign),
    }
    let Some((name, flags)) = rest.split_first() else {
        return Ok(HookProgram::UnknownNvidiaHook {
            name: String::new(),
        });
    };
    native(name, flags)
}

/// `--debug`, `-d`, `--quiet`, `-q` and their `=value` forms come before the name.
fn skip_globals(args: &[String]) -> &[String] {
    let count = args.iter().take_while(|arg| arg.starts_with('-')).count();
    &args[count..]
}

const KNOWN: [&str; 6] = [
    "create-symlinks",
    "update-ldcache",
    "enable-cuda-compat",
    "disable-device-node-modification",
    "update-application-profile",
    "chmod",
];

fn native(name: &str, args: &[String]) -> Result<HookProgram, HookArgsError> {
    if !KNOWN.contains(&name) {
        return Ok(HookProgram::UnknownNvidiaHook {
            name: name.to_owned(),
        });
    }
    let flags = Flags::parse(name, args)?;
    let edits = match name {
        "create-symlinks" => {
            flags.only(&["link", "container-spec"])?;
            flags
                .all("link")
                .map(|value| symlink(name, value))
                .collect::<Result<_, _>>()?
        }
        "update-ldcache" => {
            flags.only(&["folder", "ldconfig-path", "container-spec"])?;
            let folders: Vec<String> = flags
                .all("folder")
                .flat_map(|v| v.split(','))
                .map(str::to_owned)
                .collect();
            vec![RootfsEdit::UpdateLdCache { folders }]
        }
        "enable-cuda-compat" => {
            flags.only(&[
                "host-driver-version",
                "host-cuda-version",
                "cuda-compat-container-root",
                "container-spec",
            ])?;
            let last = |key: &str| {
                flags
                    .all(key)
                    .last()
                    .map(str::to_owned)
                    .filter(|v| !v.is_empty())
            };
            vec![RootfsEdit::CudaCompat {
                host_driver_version: last("host-driver-version"),
                host_cuda_version: last("host-cuda-version"),
                container_root: last("cuda-compat-container-root"),
            }]
        }
        "disable-device-node-modification" => {
            flags.only(&["container-spec"])?;
            vec![RootfsEdit::DisableDeviceNodeModification]
        }
        "update-application-profile" => {
            flags.only(&["container-spec"])?;
            vec![RootfsEdit::UpdateApplicationProfile]
        }
        "chmod" => {
            flags.only(&["mode", "path", "container-spec"])?;
            let mode = flags
                .all("mode")
                .last()
                .and_then(|text| u32::from_str_radix(text, 8).ok())
                .filter(|mode| *mode <= 0o7777);
            let mode = mode.ok_or_else(|| error(name, "it needs `--mode` with an octal number"))?;
            vec![RootfsEdit::Chmod {
                mode,
                paths: flags.all("path").map(str::to_owned).collect(),
            }]
        }
        _ => Vec::new(),
    };
    Ok(HookProgram::Native(edits))
}

fn error(hook: &str, why: &str) -> HookArgsError {
    HookArgsError {
        hook: hook.to_owned(),
        why: why.to_owned(),
    }
}

fn symlink(name: &str, value: &str) -> Result<RootfsEdit, HookArgsError> {
    match value.split_once("::") {
        Some((target, link)) if !target.is_empty() && link.starts_with('/') => {
            Ok(RootfsEdit::Symlink {
                target: target.to_owned(),
                link: link.to_owned(),
            })
        }
        _ => Err(error(
            name,
            &format!("`{value}` is not TARGET::LINK with an absolute link"),
        )),
    }
}

struct Flags {
    hook: String,
    pairs: Vec<(String, String)>,
}

impl Flags {
    /// `--name value`, `--name=value`, and each with one dash.
    fn parse(hook: &str, args: &[String]) -> Result<Self, HookArgsError> {
        let mut pairs = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                return Err(error(hook, &format!("unexpected argument `{arg}`")));
            };
            match flag.split_once('=') {
                Some((name, value)) => pairs.push((name.to_owned(), value.to_owned())),
                None => {
                    let value = args
                        .next()
                        .ok_or_else(|| error(hook, &format!("`{arg}` has no value")))?;
                    pairs.push((flag.to_owned(), value.clone()));
                }
            }
        }
        Ok(Self {
            hook: hook.to_owned(),
            pairs,
        })
    }

    fn only(&self, known: &[&str]) -> Result<(), HookArgsError> {
        match self
            .pairs
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            Some((name, _)) => Err(error(&self.hook, &format!("unknown flag `--{name}`"))),
            None => Ok(()),
        }
    }

    fn all<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, line: &str) -> Result<HookProgram, HookArgsError> {
        recognise(
            path,
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    fn native_of(path: &str, line: &str) -> Vec<RootfsEdit> {
        match of(path, line) {
            Ok(HookProgram::Native(edits)) => edits,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_program_and_spelling() {
        let link = RootfsEdit::Symlink {
            target: "a".into(),
            link: "/b".into(),
        };
        for (path, line) in [
            (
                "/usr/bin/nvidia-cdi-hook",
                "nvidia-cdi-hook create-symlinks --link a::/b",
            ),
            (
                "/usr/bin/nvidia-cdi-hook",
                "nvidia-cdi-hook --debug create-symlinks --link=a::/b",
            ),
            (
                "/usr/local/bin/nvidia-ctk",
                "nvidia-ctk hook create-symlinks -link a::/b",
            ),
            (
                "/usr/bin/nvidia-ctk",
                "nvidia-ctk --quiet hook create-symlinks --link a::/b --container-spec /x",
            ),
            (
                "/usr/bin/fleet-nvidia",
                "fleet-nvidia hook create-symlinks --link a::/b",
            ),
        ] {
            assert_eq!(native_of(path, line), std::slice::from_ref(&link), "{line}");
        }
    }

    #[test]
    fn every_hook() {
        let path = "/usr/bin/nvidia-cdi-hook";
        assert_eq!(
            native_of(
                path,
                "x update-ldcache --folder /a --folder=/b --ldconfig-path @/sbin/ldconfig"
            ),
            [RootfsEdit::UpdateLdCache {
                folders: vec!["/a".into(), "/b".into()]
            }]
        );
        assert_eq!(
            native_of(path, "x chmod --mode 755 --path /dev/dri"),
            [RootfsEdit::Chmod {
                mode: 0o755,
                paths: vec!["/dev/dri".into()]
            }]
        );
        assert_eq!(
            native_of(path, "x disable-device-node-modification"),
            [RootfsEdit::DisableDeviceNodeModification]
        );
        assert_eq!(
            native_of(path, "x update-application-profile"),
            [RootfsEdit::UpdateApplicationProfile]
        );
        let compat = native_of(path, "x enable-cuda-compat --host-driver-version=550.54.15");
        assert!(
            matches!(&compat[..], [RootfsEdit::CudaCompat { host_driver_version: Some(v), .. }] if v == "550.54.15")
        );
    }

    #[test]
    fn what_is_not_ours() {
        assert_eq!(
            of("/usr/bin/other", "other create-symlinks"),
            Ok(HookProgram::Foreign)
        );
        assert_eq!(
            of("/usr/bin/nvidia-ctk", "nvidia-ctk cdi list"),
            Ok(HookProgram::Foreign)
        );
        assert_eq!(
            of("/usr/bin/nvidia-cdi-hook", "x new-hook --y"),
            Ok(HookProgram::UnknownNvidiaHook {
                name: "new-hook".into()
            })
        );
        for line in [
            "x create-symlinks --link",
            "x create-symlinks --link a:/b",
            "x create-symlinks --folder /x",
            "x chmod --path /x",
            "x create-symlinks extra",
        ] {
            assert!(of("/usr/bin/nvidia-cdi-hook", line).is_err(), "{line}");
        }
    }
}
