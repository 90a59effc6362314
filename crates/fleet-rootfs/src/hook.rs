//! Recognising the hooks that generated CDI specs name, in every spelling of old and new toolkits.

use crate::RootfsEdit;

/// What a hook of a spec is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookProgram {
    /// One of ours: these edits have its effect.
    Native(Vec<RootfsEdit>),
    /// The hook that limits the GPU memory of containers whose environment asks for it (see [`asks_for_memory_limits`]).
    /// We cannot: the driver is told through NVML.
    MemoryLimits,
    /// A hook of NVIDIA's program that we do not know. Upstream's own rule for a name that an older program lacks is
    /// to warn and go on.
    UnknownNvidiaHook {
        /// Its name, or the flag before it that is not known.
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

type Result<T> = std::result::Result<T, HookArgsError>;

/// Flags without a value that programs of any version take before the hook's name, and newer ones after it, too.
const SWITCHES: [&str; 4] = ["debug", "d", "quiet", "q"];
/// Flags with a value that come before `hook`.
const SETTINGS: [&str; 2] = ["config", "config-file"];

/// Looks at the program's name and arguments (`args[0]` is the name it is called by).
///
/// # Errors
/// A known hook with a bad argument.
pub fn recognise(path: &str, args: &[String]) -> Result<HookProgram> {
    let called = args.first().map(String::as_str).unwrap_or_default();
    let rest = args.get(1..).unwrap_or_default();
    match is_nested(path).or_else(|| is_nested(called)) {
        None => Ok(HookProgram::Foreign),
        Some(false) => hook(rest),
        Some(true) => match skip_globals(rest) {
            Ok([first, rest @ ..]) if first == "hook" => hook(rest),
            _ => Ok(HookProgram::Foreign),
        },
    }
}

/// Whether hooks are below a sub-command `hook` of the program, if it has any.
fn is_nested(program: &str) -> Option<bool> {
    match program.rsplit('/').next().unwrap_or_default() {
        "nvidia-cdi-hook" => Some(false),
        "nvidia-ctk" | "fleet-nvidia" => Some(true),
        _ => None,
    }
}

fn hook(args: &[String]) -> Result<HookProgram> {
    let unknown = |name: &str| {
        Ok(HookProgram::UnknownNvidiaHook {
            name: name.to_owned(),
        })
    };
    match skip_globals(args) {
        Err(flag) => unknown(flag),
        Ok([]) => unknown(""),
        Ok([name, flags @ ..]) if name == MEMORY_LIMITS => {
            Flags::parse(name, flags, &["driver-root", "gpu-id"])?;
            Ok(HookProgram::MemoryLimits)
        }
        Ok([name, flags @ ..]) => match native(name, flags)? {
            Some(edits) => Ok(HookProgram::Native(edits)),
            None => unknown(name),
        },
    }
}

const MEMORY_LIMITS: &str = "apply-cuda-memory-limits";
/// What is said where [`HookProgram::MemoryLimits`] would have something to do.
pub const NO_MEMORY_LIMITS: &str = "limits of GPU memory are not supported; hint: start the container without \
                                    NVIDIA_GPU_MEMORY_REQUEST and NVIDIA_GPU_MEMORY_LIMIT";

/// Whether a container's environment asks for limits of GPU memory, by upstream's rule: a request and a limit.
#[must_use]
pub fn asks_for_memory_limits<'a>(env: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut request, mut limit) = (false, false);
    for name in env.into_iter().filter_map(|entry| entry.split('=').next()) {
        request |= matches!(
            name,
            "NVIDIA_GPU_MEMORY_REQUEST" | "NVIDIA_GPU_MEMORY_REQUESTS"
        );
        limit |= matches!(name, "NVIDIA_GPU_MEMORY_LIMIT" | "NVIDIA_GPU_MEMORY_LIMITS");
    }
    request && limit
}

/// The arguments by which `fleet-nvidia` makes these edits as a hook of another runtime, its name first.
#[must_use]
pub fn hook_args(edits: &[RootfsEdit]) -> Vec<String> {
    let head = ["fleet-nvidia", "hook", APPLY].map(str::to_owned);
    let edits = edits.iter().filter_map(|edit| {
        // A form of plain texts and numbers always has a JSON text.
        serde_json::to_string(edit).ok()
    });
    let edits = edits.flat_map(|edit| ["--edit".to_owned(), edit]);
    head.into_iter().chain(edits).collect()
}

/// A flag's name without its dashes.
fn flag(arg: &str) -> Option<&str> {
    arg.strip_prefix("--")
        .or_else(|| arg.strip_prefix('-'))
        .filter(|name| !name.is_empty())
}

fn is_switch(flag: &str) -> bool {
    SWITCHES.contains(&flag.split('=').next().unwrap_or_default())
}

/// The arguments from the first that is no global flag; the first flag that is not known otherwise.
fn skip_globals(args: &[String]) -> std::result::Result<&[String], &str> {
    let mut rest = args;
    while let [arg, tail @ ..] = rest {
        let Some(name) = flag(arg) else { break };
        rest = match name.split_once('=') {
            _ if is_switch(name) => tail,
            Some((name, _)) if SETTINGS.contains(&name) => tail,
            None if SETTINGS.contains(&name) => tail.get(1..).unwrap_or_default(),
            _ => return Err(arg),
        };
    }
    Ok(rest)
}

/// The edits of a hook that we know.
fn native(name: &str, args: &[String]) -> Result<Option<Vec<RootfsEdit>>> {
    let flags = |known| Flags::parse(name, args, known);
    let edit = match name {
        "create-symlinks" => return symlinks(name, args).map(Some),
        APPLY => return stated(name, &flags(&["edit"])?).map(Some),
        // For tests of the program's arguments, as upstream has it.
        "noop" => return Ok(Some(Vec::new())),
        "update-ldcache" => RootfsEdit::UpdateLdCache {
            folders: flags(&FOLDER_FLAGS)?.folders(),
        },
        // Of release candidates of 1.18.
        "create-soname-symlinks" => RootfsEdit::SonameLinks {
            folders: flags(&FOLDER_FLAGS)?.folders(),
        },
        "enable-cuda-compat" => compat(&flags(&[DRIVER, CUDA, COMPAT_ROOT])?),
        "disable-device-node-modification" => {
            flags(&[])?;
            RootfsEdit::DisableDeviceNodeModification
        }
        "update-application-profile" => {
            flags(&[])?;
            RootfsEdit::UpdateApplicationProfile
        }
        "chmod" => chmod(name, &flags(&["mode", "path"])?)?,
        _ => return Ok(None),
    };
    Ok(Some(vec![edit]))
}

/// Edits in our own form, several in one process.
const APPLY: &str = "apply";
/// `folders` is what the first releases had.
const FOLDER_FLAGS: [&str; 3] = ["folder", "folders", "ldconfig-path"];
/// Lists of links for Tegra, which releases before 1.14 read on the host at each start.
const CSV: [&str; 3] = ["csv-filename", "csv-filenames", "f"];

fn symlinks(name: &str, args: &[String]) -> Result<Vec<RootfsEdit>> {
    let flags = Flags::parse(name, args, &[&["link", "host-root"], &CSV[..]].concat())?;
    if CSV.iter().any(|csv| flags.last(csv).is_some()) {
        let why = "links from CSV files are not supported; hint: make the CDI spec anew with a toolkit of 1.14 or later";
        return Err(error(name, why));
    }
    let links = flags.all("link").flat_map(links);
    links.map(|link| symlink(name, link)).collect()
}

fn stated(name: &str, flags: &Flags) -> Result<Vec<RootfsEdit>> {
    let edits = flags.all("edit").map(|text| {
        serde_json::from_str(text)
            .map_err(|err| error(name, &format!("`{text}` is not an edit: {err}")))
    });
    edits.collect()
}

const DRIVER: &str = "host-driver-version";
const CUDA: &str = "host-cuda-version";
const COMPAT_ROOT: &str = "cuda-compat-container-root";

fn compat(flags: &Flags) -> RootfsEdit {
    RootfsEdit::CudaCompat {
        host_driver_version: flags.last(DRIVER),
        host_cuda_version: flags.last(CUDA),
        container_root: flags.last(COMPAT_ROOT),
    }
}

fn chmod(hook: &str, flags: &Flags) -> Result<RootfsEdit> {
    let mode = flags
        .last("mode")
        .and_then(|text| u32::from_str_radix(&text, 8).ok());
    let mode = mode.filter(|mode| *mode <= 0o7777);
    let mode = mode.ok_or_else(|| error(hook, "it needs `--mode` with an octal number"))?;
    let paths = flags.list("path");
    Ok(RootfsEdit::Chmod { mode, paths })
}

fn error(hook: &str, why: &str) -> HookArgsError {
    HookArgsError {
        hook: hook.to_owned(),
        why: why.to_owned(),
    }
}

/// One value may hold several links, as upstream's flag type splits at commas; one that is no separator stays.
fn links(value: &str) -> Vec<&str> {
    let parts: Vec<&str> = value.split(',').collect();
    if parts.iter().all(|part| part.contains("::")) {
        parts
    } else {
        vec![value]
    }
}

fn symlink(hook: &str, value: &str) -> Result<RootfsEdit> {
    match value.split_once("::") {
        Some((target, link)) if !target.is_empty() && !link.is_empty() => Ok(RootfsEdit::Symlink {
            target: target.to_owned(),
            link: link.to_owned(),
        }),
        _ => Err(error(hook, &format!("`{value}` is not TARGET::LINK"))),
    }
}

/// By which every hook is told where the container's state is, if not on stdin; the latter is the older spelling.
pub const STATE_FLAGS: [&str; 2] = ["container-spec", "containerSpec"];

struct Flags(Vec<(String, String)>);

impl Flags {
    /// `--name value`, `--name=value`, and each with one dash.
    fn parse(hook: &str, args: &[String], known: &[&str]) -> Result<Self> {
        let mut pairs = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(flag) = flag(arg) else {
                return Err(error(hook, &format!("unexpected argument `{arg}`")));
            };
            if is_switch(flag) {
                continue;
            }
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            if !known.contains(&name) && !STATE_FLAGS.contains(&name) {
                return Err(error(hook, &format!("unknown flag `{arg}`")));
            }
            let value = value.or_else(|| args.next().map(String::as_str));
            let value = value.ok_or_else(|| error(hook, &format!("`{arg}` has no value")))?;
            pairs.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self(pairs))
    }

    fn all<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
    }

    fn list(&self, wanted: &str) -> Vec<String> {
        let values = self.all(wanted).flat_map(|value| value.split(','));
        values
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn folders(&self) -> Vec<String> {
        [self.list("folder"), self.list("folders")].concat()
    }

    fn last(&self, wanted: &str) -> Option<String> {
        self.all(wanted)
            .last()
            .map(str::to_owned)
            .filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CDI_HOOK: &str = "/usr/bin/nvidia-cdi-hook";

    fn of(path: &str, line: &str) -> Result<HookProgram> {
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

    fn link(target: &str, link: &str) -> RootfsEdit {
        RootfsEdit::Symlink {
            target: target.into(),
            link: link.into(),
        }
    }

    #[test]
    fn every_program_and_spelling() {
        for (path, line) in [
            (CDI_HOOK, "nvidia-cdi-hook create-symlinks --link a::/b"),
            (
                CDI_HOOK,
                "nvidia-cdi-hook --debug create-symlinks --link=a::/b",
            ),
            (
                CDI_HOOK,
                "x -d --quiet=true create-symlinks --debug --link a::/b -q",
            ),
            (
                "/usr/local/nvidia/toolkit/nvidia-cdi-hook",
                "nvidia-cdi-hook create-symlinks -link=a::/b",
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
                "/usr/bin/nvidia-ctk",
                "nvidia-ctk --config /x hook --debug create-symlinks --link a::/b",
            ),
            (
                "/usr/bin/nvidia-ctk",
                "nvidia-ctk --config=/x hook create-symlinks --link a::/b",
            ),
            (
                "/usr/bin/fleet-nvidia",
                "fleet-nvidia hook create-symlinks --link a::/b",
            ),
            (
                "/opt/wrapper",
                "/usr/bin/nvidia-cdi-hook create-symlinks --link a::/b",
            ),
            (
                "/opt/wrapper",
                "nvidia-ctk hook create-symlinks --link a::/b",
            ),
        ] {
            assert_eq!(native_of(path, line), [link("a", "/b")], "{line}");
        }
    }

    #[test]
    fn links_and_lists() {
        let several = [link("a", "/b"), link("../c", "d")];
        for line in [
            "x create-symlinks --link a::/b --link=../c::d",
            "x create-symlinks --link a::/b,../c::d",
        ] {
            assert_eq!(native_of(CDI_HOOK, line), several, "{line}");
        }
        assert_eq!(
            native_of(CDI_HOOK, "x create-symlinks --link a,b::/c::d"),
            [link("a,b", "/c::d")]
        );
        assert_eq!(native_of(CDI_HOOK, "x create-symlinks"), []);
        let folders = RootfsEdit::UpdateLdCache {
            folders: vec!["/a".into(), "/b".into(), "/c".into()],
        };
        let line = "x update-ldcache --folder /a,/b --ldconfig-path @/sbin/ldconfig --folder=/c --ldconfig-path=/x";
        assert_eq!(native_of(CDI_HOOK, line), [folders]);
    }

    #[test]
    fn every_other_hook() {
        let compat =
            |driver: Option<&str>, cuda: Option<&str>, root: Option<&str>| RootfsEdit::CudaCompat {
                host_driver_version: driver.map(str::to_owned),
                host_cuda_version: cuda.map(str::to_owned),
                container_root: root.map(str::to_owned),
            };
        for (line, want) in [
            (
                "x chmod --mode 755 --path /dev/dri",
                RootfsEdit::Chmod {
                    mode: 0o755,
                    paths: vec!["/dev/dri".into()],
                },
            ),
            (
                "x disable-device-node-modification",
                RootfsEdit::DisableDeviceNodeModification,
            ),
            (
                "x update-application-profile",
                RootfsEdit::UpdateApplicationProfile,
            ),
            (
                "x enable-cuda-compat --host-driver-version=550.54.15",
                compat(Some("550.54.15"), None, None),
            ),
            (
                "x enable-cuda-compat --host-driver-version= --host-cuda-version 12.4",
                compat(None, Some("12.4"), None),
            ),
            (
                "x enable-cuda-compat --cuda-compat-container-root /c",
                compat(None, None, Some("/c")),
            ),
        ] {
            assert_eq!(native_of(CDI_HOOK, line), [want], "{line}");
        }
    }

    #[test]
    fn older_and_newer_toolkits() {
        let folders = |line| match &native_of(CDI_HOOK, line)[..] {
            [RootfsEdit::UpdateLdCache { folders } | RootfsEdit::SonameLinks { folders }] => {
                folders.clone()
            }
            other => panic!("{line}: {other:?}"),
        };
        for line in [
            "x update-ldcache --folders /a --folder /b --containerSpec -",
            "x update-ldcache --folders=/a,/b",
            "x create-soname-symlinks --folder /a --folder=/b --ldconfig-path /sbin/ldconfig",
        ] {
            assert_eq!(folders(line).len(), 2, "{line}");
        }
        let line = "x create-symlinks --host-root / --link a::/b";
        assert_eq!(native_of(CDI_HOOK, line), [link("a", "/b")]);
        for flag in ["--csv-filename", "--csv-filenames", "-f"] {
            let err = of(CDI_HOOK, &format!("x create-symlinks {flag} /etc/l4t.csv")).unwrap_err();
            assert!(err.to_string().contains("CSV"), "{err}");
        }
        assert_eq!(native_of(CDI_HOOK, "x noop"), []);
        assert_eq!(
            of(
                CDI_HOOK,
                "x apply-cuda-memory-limits --gpu-id GPU-1 --driver-root=/"
            ),
            Ok(HookProgram::MemoryLimits)
        );
        assert!(of(CDI_HOOK, "x apply-cuda-memory-limits --new 1").is_err());
    }

    #[test]
    fn memory_limits_are_asked_for_by_two_variables() {
        for (env, want) in [
            (
                &["NVIDIA_GPU_MEMORY_REQUEST=1", "NVIDIA_GPU_MEMORY_LIMIT=2"][..],
                true,
            ),
            (
                &[
                    "NVIDIA_GPU_MEMORY_REQUESTS=1",
                    "A=b",
                    "NVIDIA_GPU_MEMORY_LIMITS=2",
                ],
                true,
            ),
            (
                &["NVIDIA_GPU_MEMORY_LIMIT=2", "NVIDIA_GPU_MEMORY_LIMITS=2"],
                false,
            ),
            (
                &["XNVIDIA_GPU_MEMORY_LIMIT=2", "NVIDIA_GPU_MEMORY_REQUEST=1"],
                false,
            ),
            (&[], false),
        ] {
            assert_eq!(asks_for_memory_limits(env.iter().copied()), want, "{env:?}");
        }
    }

    #[test]
    fn our_own_form_is_read_back() {
        let edits = vec![
            link("../libx.so.1", "/usr/lib/a \"b\"::c,d"),
            RootfsEdit::UpdateLdCache {
                folders: vec!["/a,b".into()],
            },
            RootfsEdit::CudaCompat {
                host_driver_version: Some("550.1".into()),
                host_cuda_version: None,
                container_root: None,
            },
            RootfsEdit::SonameLinks { folders: vec![] },
            RootfsEdit::DisableDeviceNodeModification,
            RootfsEdit::UpdateApplicationProfile,
            RootfsEdit::Chmod {
                mode: 0o755,
                paths: vec!["/dev/dri".into()],
            },
        ];
        let read = recognise("/usr/bin/fleet-nvidia", &hook_args(&edits));
        assert_eq!(read, Ok(HookProgram::Native(edits)));
        let err = of("/usr/bin/fleet-nvidia", "fleet-nvidia hook apply --edit {}").unwrap_err();
        assert!(err.to_string().contains("`{}` is not an edit"), "{err}");
    }

    #[test]
    fn what_is_not_ours() {
        for (path, line) in [
            ("/usr/bin/other", "other create-symlinks"),
            ("/usr/bin/nvidia-ctk", "nvidia-ctk cdi list"),
            ("/usr/bin/nvidia-ctk", "nvidia-ctk"),
            ("/usr/bin/fleet-nvidia", "fleet-nvidia create x"),
            ("", ""),
        ] {
            assert_eq!(of(path, line), Ok(HookProgram::Foreign), "{line}");
        }
        for (line, name) in [
            ("x new-hook --y", "new-hook"),
            ("x --new-global create-symlinks", "--new-global"),
            ("x", ""),
        ] {
            assert_eq!(
                of(CDI_HOOK, line),
                Ok(HookProgram::UnknownNvidiaHook { name: name.into() }),
                "{line}"
            );
        }
    }

    #[test]
    fn bad_arguments_of_a_known_hook() {
        for (line, word) in [
            ("x create-symlinks --link", "no value"),
            ("x create-symlinks --link a:/b", "a:/b"),
            ("x create-symlinks --link ::/b", "::/b"),
            ("x create-symlinks --folder /x", "--folder"),
            ("x create-symlinks extra", "extra"),
            ("x chmod --path /x", "--mode"),
            ("x chmod --mode 999 --path /x", "--mode"),
            ("x chmod --mode 77777 --path /x", "--mode"),
            ("x update-application-profile --link a::b", "--link"),
        ] {
            let err = of(CDI_HOOK, line).unwrap_err().to_string();
            assert!(
                err.starts_with("hook ") && err.contains(word),
                "{line}: {err}"
            );
        }
    }
}
