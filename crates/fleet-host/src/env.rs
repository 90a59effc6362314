//! Who runs us and where that user keeps files.

use std::fs;
use std::path::PathBuf;

/// The caller's surroundings, taken once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// Effective user id.
    pub euid: u32,
    /// Whether this is not the machine's first user namespace.
    pub in_userns: bool,
    /// `$XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<String>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<String>,
    /// `$HOME`.
    pub home: Option<String>,
    /// Configuration file named on the command line.
    pub config: Option<PathBuf>,
}

impl Env {
    /// Those of this process.
    #[must_use]
    pub fn current() -> Self {
        let variable = |name| std::env::var(name).ok();
        Self {
            euid: nix::unistd::geteuid().as_raw(),
            in_userns: in_user_namespace(),
            xdg_config_home: variable("XDG_CONFIG_HOME"),
            xdg_runtime_dir: variable("XDG_RUNTIME_DIR"),
            home: variable("HOME"),
            config: None,
        }
    }

    /// Whether files of the user count. Root of the machine is never led by its environment.
    #[must_use]
    pub fn rootless(&self) -> bool {
        self.euid != 0 || self.in_userns
    }

    /// `$XDG_CONFIG_HOME`, or `$HOME/.config` as the XDG base directory specification says. Relative paths do not
    /// count, by the same text.
    #[must_use]
    pub fn config_home(&self) -> Option<PathBuf> {
        absolute(self.xdg_config_home.as_deref())
            .or_else(|| absolute(self.home.as_deref()).map(|home| home.join(".config")))
    }

    /// `$XDG_RUNTIME_DIR`, if it is absolute.
    #[must_use]
    pub fn runtime_dir(&self) -> Option<PathBuf> {
        absolute(self.xdg_runtime_dir.as_deref())
    }
}

fn absolute(path: Option<&str>) -> Option<PathBuf> {
    path.filter(|path| path.starts_with('/')).map(PathBuf::from)
}

/// Whether this process is in a user namespace other than the machine's first (`man 7 user_namespaces`).
#[must_use]
pub fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !is_identity(&map))
}

/// The first namespace maps every id to itself.
fn is_identity(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_identity_is_the_first_namespace() {
        assert!(is_identity("         0          0 4294967295\n"));
        for map in ["0 1000 1", "0 0 1", "0 1000 1\n1 100000 65536\n", ""] {
            assert!(!is_identity(map), "{map:?}");
        }
    }

    #[test]
    fn the_config_home_is_absolute() {
        let env = |xdg: Option<&str>, home: Option<&str>| Env {
            xdg_config_home: xdg.map(str::to_owned),
            home: home.map(str::to_owned),
            ..Env::default()
        };
        let cases = [
            (env(Some("/x"), Some("/h")), Some("/x")),
            (env(None, Some("/h")), Some("/h/.config")),
            (env(Some(""), Some("/h")), Some("/h/.config")),
            (env(Some("rel"), None), None),
        ];
        for (env, want) in cases {
            assert_eq!(env.config_home(), want.map(PathBuf::from));
        }
    }
}
