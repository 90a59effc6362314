//! Hooks as NVIDIA's toolkit writes them, for a program that may be its own or ours.

use fleet_cdi::Hook;
use fleet_host::files::Link;

use crate::options::HookOptions;

/// Left out unless asked for: a workaround for engines long mended.
const OFF: [&str; 1] = ["chmod"];
/// Hooks that do nothing without arguments.
const NEEDS_ARGUMENTS: [&str; 2] = ["create-symlinks", "chmod"];

/// Writes hooks.
#[derive(Clone, Debug)]
pub(crate) struct Hooks<'a> {
    options: &'a HookOptions,
    /// Left out in this mode.
    without: &'a [&'a str],
}

impl<'a> Hooks<'a> {
    pub(crate) fn new(options: &'a HookOptions, without: &'a [&'a str]) -> Self {
        Self { options, without }
    }

    fn wants(&self, name: &str) -> bool {
        let lists = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
        let disabled = &self.options.disabled;
        let off = lists(disabled, "all")
            || lists(disabled, name)
            || OFF.contains(&name)
            || self.without.contains(&name);
        lists(&self.options.enabled, name) || !off
    }

    fn hook(&self, name: &str, args: Vec<String>) -> Option<Hook> {
        let without_effect = NEEDS_ARGUMENTS.contains(&name) && args.is_empty();
        if without_effect || !self.wants(name) {
            return None;
        }
        let path = self.options.path.clone();
        let program = path.rsplit('/').next().unwrap_or_default().to_owned();
        // Programs that do other things, too, have hooks below a command of their own.
        let nested = matches!(program.as_str(), "nvidia-ctk" | "fleet-nvidia");
        let mut words = vec![program];
        words.extend(nested.then(|| "hook".to_owned()));
        words.push(name.to_owned());
        words.extend(args);
        Some(Hook {
            hook_name: "createContainer".to_owned(),
            path,
            args: words,
            // A hook without an environment of its own would get the container's (CVE-2025-23266).
            env: vec!["NVIDIA_CTK_DEBUG=false".to_owned()],
            ..Hook::default()
        })
    }

    /// Links, each once.
    pub(crate) fn create_symlinks<'l>(
        &self,
        links: impl Iterator<Item = &'l Link>,
    ) -> Option<Hook> {
        let mut args: Vec<String> = Vec::new();
        for link in links {
            let pair = format!("{}::{}", link.target, link.link);
            if !args.contains(&pair) {
                args.extend(["--link".to_owned(), pair]);
            }
        }
        self.hook("create-symlinks", args)
    }

    /// The loader's cache; nothing without directories.
    pub(crate) fn update_ldcache(&self, folders: &[String]) -> Option<Hook> {
        let mut args = Vec::new();
        if let Some(ldconfig) = &self.options.ldconfig {
            args.extend(["--ldconfig-path".to_owned(), ldconfig.clone()]);
        }
        for folder in folders {
            args.extend(["--folder".to_owned(), folder.clone()]);
        }
        (!folders.is_empty()).then(|| self.hook("update-ldcache", args))?
    }

    /// The image's newer CUDA libraries on a host with this driver.
    pub(crate) fn enable_cuda_compat(&self, args: Vec<String>) -> Option<Hook> {
        self.hook("enable-cuda-compat", args)
    }

    /// A hook without arguments.
    pub(crate) fn plain(&self, name: &str) -> Option<Hook> {
        self.hook(name, Vec::new())
    }

    /// Directories of device nodes that old runtimes made unsearchable.
    pub(crate) fn chmod<'p>(&self, paths: impl Iterator<Item = &'p str>) -> Option<Hook> {
        let mut dirs: Vec<&str> = Vec::new();
        for path in paths {
            let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
            if matches!(dir, "/dev/dri" | "/dev/nvidia-caps") && !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        if dirs.is_empty() {
            return None;
        }
        let mut args = vec!["--mode".to_owned(), "755".to_owned()];
        for dir in dirs {
            args.extend(["--path".to_owned(), dir.to_owned()]);
        }
        self.hook("chmod", args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(path: &str, disabled: &[&str], enabled: &[&str]) -> HookOptions {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        HookOptions {
            path: path.to_owned(),
            ldconfig: None,
            disabled: list(disabled),
            enabled: list(enabled),
        }
    }

    #[test]
    fn the_programs_own_form_of_arguments() {
        for (path, want) in [
            ("/usr/bin/nvidia-cdi-hook", "nvidia-cdi-hook x"),
            ("/usr/bin/nvidia-ctk", "nvidia-ctk hook x"),
            ("/opt/fleet-nvidia", "fleet-nvidia hook x"),
            ("relative", "relative x"),
        ] {
            let options = options(path, &[], &[]);
            let hook = Hooks::new(&options, &[]).plain("x").unwrap();
            assert_eq!(
                (hook.path.as_str(), hook.args.join(" ").as_str()),
                (path, want)
            );
            assert_eq!(hook.hook_name, "createContainer");
            assert_eq!(
                hook.env,
                ["NVIDIA_CTK_DEBUG=false"],
                "never the container's environment"
            );
        }
    }

    #[test]
    fn which_hooks_are_written() {
        let written = |disabled: &[&str], enabled: &[&str], without: &[&str]| {
            let options = options("/h", disabled, enabled);
            let hooks = Hooks::new(&options, without);
            let chmod = hooks.chmod(["/dev/dri/card0", "/dev/nvidia0"].into_iter());
            let plain = hooks.plain("update-application-profile");
            (chmod.is_some(), plain.is_some())
        };
        assert_eq!(
            written(&[], &[], &[]),
            (false, true),
            "chmod is off by default"
        );
        assert_eq!(written(&[], &["chmod"], &[]), (true, true));
        assert_eq!(written(&["all"], &[], &[]), (false, false));
        assert_eq!(
            written(&["all"], &["chmod"], &[]),
            (true, false),
            "enabling wins"
        );
        assert_eq!(
            written(&["update-application-profile"], &[], &[]),
            (false, false)
        );
        assert_eq!(
            written(&[], &[], &["update-application-profile"]),
            (false, false)
        );
    }

    #[test]
    fn hooks_without_work_are_not_written() {
        let options = options("/h", &[], &["chmod", "create-symlinks"]);
        let hooks = Hooks::new(&options, &[]);
        assert!(hooks.create_symlinks([].iter()).is_none());
        assert!(hooks.update_ldcache(&[]).is_none());
        assert!(hooks.chmod(["/dev/nvidia0"].into_iter()).is_none());
    }

    #[test]
    fn arguments() {
        let mut options = options("/h", &[], &["chmod"]);
        options.ldconfig = Some("/sbin/ldconfig.real".to_owned());
        let hooks = Hooks::new(&options, &[]);
        let link = Link {
            target: "a".to_owned(),
            link: "/b".to_owned(),
        };
        let twice = [link.clone(), link];
        let args = hooks.create_symlinks(twice.iter()).unwrap().args.join(" ");
        assert_eq!(args, "h create-symlinks --link a::/b");
        let args = hooks
            .update_ldcache(&["/x".to_owned()])
            .unwrap()
            .args
            .join(" ");
        assert_eq!(
            args,
            "h update-ldcache --ldconfig-path /sbin/ldconfig.real --folder /x"
        );
        let paths = [
            "/dev/dri/card0",
            "/dev/dri/renderD128",
            "/dev/nvidia-caps/nvidia-cap1",
        ];
        let args = hooks.chmod(paths.into_iter()).unwrap().args.join(" ");
        assert_eq!(
            args,
            "h chmod --mode 755 --path /dev/dri --path /dev/nvidia-caps"
        );
    }
}
