//! Which configuration file counts, and which CDI directories.

use std::io;
use std::path::{Path, PathBuf};

use fleet_inject::{Policy, PolicyError, PolicyFile, io_cause};

use crate::env::Env;
use crate::inject::Host;

/// Where the program of another runtime is looked for, in this order: the environment of a caller or a container has no
/// say in it.
pub const RUNTIME_DIRECTORIES: [&str; 6] = [
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/bin",
    "/sbin",
];

const SYSTEM: &str = "/etc/fleet-nvidia/config.toml";
/// NVIDIA's own file, as its tools write it.
const TOOLKIT: &str = "/etc/nvidia-container-runtime/config.toml";
const USER: &str = "fleet-nvidia/config.toml";
/// CDI SPEC 1.1.0, "CDI JSON specification": static and generated specs; the later directory wins.
const SPEC_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {path} {cause}")]
    Read {
        /// The file.
        path: String,
        /// Why not, in words that no engine takes for a missing command.
        cause: String,
    },
    /// Its text is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Reads the policy: the file named on the command line, else a rootless user's own, else the system's, else the
/// settings of NVIDIA's file that have a counterpart here, else the defaults. The path is that of the file that was read.
///
/// # Errors
/// A file exists but cannot be read or understood, or the one named on the command line is missing.
pub fn load_policy(
    env: &Env,
    host: &dyn Host,
) -> Result<(PolicyFile, Option<PathBuf>), ConfigError> {
    let toolkit = env.config.is_none().then(|| PathBuf::from(TOOLKIT));
    for path in candidates(env).into_iter().chain(toolkit) {
        let parse = match is_toolkit(&path) {
            true => Policy::parse_toolkit,
            false => Policy::parse,
        };
        match host.read(&path) {
            Ok(text) => return Ok((parse(&text, &path.display().to_string())?, Some(path))),
            Err(err) if env.config.is_none() && is_absent(&err, &path) => {}
            Err(err) => {
                return Err(ConfigError::Read {
                    path: path.display().to_string(),
                    cause: io_cause(&err),
                });
            }
        }
    }
    Ok((PolicyFile::default(), None))
}

/// The other runtimes that run the containers: of our own file only, which every container reads for it. NVIDIA's file
/// has a setting of that name with programs in it, but there it is no wish of the operator's.
///
/// # Errors
/// A file names runtimes but cannot be understood, or it cannot be read.
pub fn runtimes(env: &Env, host: &dyn Host) -> Result<Vec<String>, ConfigError> {
    for path in candidates(env) {
        match host.read(&path) {
            // Whatever else may be wrong with it matters to containers with devices only.
            Ok(text) if !mentions(&text, "runtimes") => return Ok(Vec::new()),
            Ok(text) => {
                let file = Policy::parse(&text, &path.display().to_string())?;
                return Ok(file.policy.runtimes);
            }
            Err(err) if env.config.is_none() && is_absent(&err, &path) => {}
            // A container that asks for a device says what is wrong with it.
            Err(err) if env.config.is_some() && err.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            Err(err) => {
                return Err(ConfigError::Read {
                    path: path.display().to_string(),
                    cause: io_cause(&err),
                });
            }
        }
    }
    Ok(Vec::new())
}

/// Whether a setting may be in this text: the file as it is shipped explains them all, and would be parsed at every create.
fn mentions(text: &str, setting: &str) -> bool {
    text.lines()
        .any(|line| !line.trim_start().starts_with('#') && line.contains(setting))
}

/// Whether a file is NVIDIA's own.
#[must_use]
pub fn is_toolkit(path: &Path) -> bool {
    path == Path::new(TOOLKIT)
}

/// The file that counts, whether or not it exists: the first one present, else the place for a new one.
#[must_use]
pub fn config_path(env: &Env, host: &dyn Host) -> PathBuf {
    let candidates = candidates(env);
    let present = candidates
        .iter()
        .find(|path| host.exists(&path.to_string_lossy()));
    present
        .or_else(|| candidates.first())
        .cloned()
        .unwrap_or_else(|| PathBuf::from(SYSTEM))
}

/// The CDI directories, ascending priority: as configured, else the system's and a rootless user's own.
#[must_use]
pub fn spec_dirs(policy: &Policy, env: &Env) -> Vec<PathBuf> {
    if let Some(dirs) = &policy.spec_dirs {
        return dirs.clone();
    }
    let user = [env.config_home(), env.runtime_dir()];
    let user = user
        .into_iter()
        .flatten()
        .map(|dir| dir.join("cdi"))
        .filter(|_| env.rootless());
    SPEC_DIRS.iter().map(PathBuf::from).chain(user).collect()
}

fn candidates(env: &Env) -> Vec<PathBuf> {
    if let Some(path) = &env.config {
        return vec![path.clone()];
    }
    let user = env
        .config_home()
        .filter(|_| env.rootless())
        .map(|dir| dir.join(USER));
    user.into_iter()
        .chain([Path::new(SYSTEM).to_path_buf()])
        .collect()
}

/// A user's directory that this process may not search is as good as none: `$HOME` is often another user's.
fn is_absent(err: &io::Error, path: &Path) -> bool {
    match err.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => true,
        io::ErrorKind::PermissionDenied => path != Path::new(SYSTEM) && !is_toolkit(path),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fleet_inject::Profile;

    use super::*;
    use crate::root::HostRoot;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, HostRoot) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let host = HostRoot::new(dir.path());
        (dir, host)
    }

    fn user() -> Env {
        Env {
            euid: 1000,
            home: Some("/home/u".to_owned()),
            xdg_runtime_dir: Some("/run/user/1000".to_owned()),
            ..Env::default()
        }
    }

    #[test]
    fn the_users_file_takes_the_place_of_the_systems() {
        let (_dir, both) = host(&[
            ("/etc/fleet-nvidia/config.toml", "profile = \"crio\""),
            (
                "/home/u/.config/fleet-nvidia/config.toml",
                "profile = \"podman\"",
            ),
        ]);
        let profile = |env: &Env, host: &HostRoot| load_policy(env, host).unwrap().0.policy.profile;
        let root = Env { euid: 0, ..user() };
        assert_eq!(profile(&user(), &both), Profile::Podman);
        assert_eq!(profile(&root, &both), Profile::Crio);
        assert_eq!(
            profile(
                &Env {
                    in_userns: true,
                    ..root.clone()
                },
                &both
            ),
            Profile::Podman
        );
        assert_eq!(
            config_path(&user(), &both),
            Path::new("/home/u/.config/fleet-nvidia/config.toml")
        );

        let (_dir, system) = host(&[("/etc/fleet-nvidia/config.toml", "profile = \"crio\"")]);
        assert_eq!(profile(&user(), &system), Profile::Crio);
        let (_dir, none) = host(&[]);
        assert_eq!(profile(&user(), &none), Profile::Auto);
        assert_eq!(
            config_path(&root, &none),
            Path::new("/etc/fleet-nvidia/config.toml")
        );
    }

    #[test]
    fn a_named_file_must_be_there() {
        let (_dir, host) = host(&[("/etc/fleet-nvidia/config.toml", "profile = \"crio\"")]);
        let env = Env {
            config: Some(PathBuf::from("/etc/other.toml")),
            ..user()
        };
        let err = load_policy(&env, &host).unwrap_err();
        assert_eq!(err.to_string(), "configuration /etc/other.toml is missing");
    }

    #[test]
    fn nvidias_file_counts_where_there_is_none_of_ours() {
        let toolkit = "disable-require = true\n[nvidia-container-runtime]\nmode = \"cdi\"\n";
        let (_dir, alone) = host(&[(TOOLKIT, toolkit)]);
        let (file, path) = load_policy(&user(), &alone).unwrap();
        assert!(file.policy.disable_require);
        assert_eq!(file.without_effect, ["nvidia-container-runtime.mode"]);
        assert_eq!(path.as_deref(), Some(Path::new(TOOLKIT)));
        let (_dir, both) = host(&[(TOOLKIT, toolkit), (SYSTEM, "")]);
        assert!(
            !load_policy(&user(), &both)
                .unwrap()
                .0
                .policy
                .disable_require
        );
        let (_dir, broken) = host(&[(TOOLKIT, "\ndisable-require = 1\n")]);
        assert_eq!(
            load_policy(&Env::default(), &broken)
                .unwrap_err()
                .to_string(),
            "configuration /etc/nvidia-container-runtime/config.toml:2: `disable-require` is of type integer, not true or false"
        );
    }

    #[test]
    fn a_broken_file_is_an_error_with_its_line() {
        let (_dir, host) = host(&[("/etc/fleet-nvidia/config.toml", "\nprofile = true")]);
        let err = load_policy(&Env::default(), &host).unwrap_err();
        assert_eq!(
            err.to_string(),
            "configuration /etc/fleet-nvidia/config.toml:2: `profile` is of type boolean, not a string"
        );
    }

    #[test]
    fn runtimes_of_our_own_file_alone() {
        let names = |files: &[(&str, &str)]| {
            let (_dir, host) = host(files);
            runtimes(&Env::default(), &host)
        };
        assert!(names(&[]).unwrap().is_empty());
        // A comment names it, and what is wrong elsewhere matters to containers with devices only.
        let shipped = " # runtimes = [\"crun\"]\nprofile = [\n";
        assert!(names(&[(SYSTEM, shipped)]).unwrap().is_empty());
        let toolkit = "[nvidia-container-runtime]\nruntimes = [\"runc\", \"crun\"]\n";
        assert!(names(&[(TOOLKIT, toolkit)]).unwrap().is_empty());
        let ours = "runtimes = [\"crun\", \"/opt/runc\"]\n";
        assert_eq!(names(&[(SYSTEM, ours)]).unwrap(), ["crun", "/opt/runc"]);
        // A container without devices starts all the same.
        assert!(names(&[(SYSTEM, "profile = true")]).unwrap().is_empty());
        for bad in ["\"\"", "\"../runc\"", "\"bin/runc\"", "\"/\"", "1"] {
            let text = format!("\nruntimes = [{bad}]");
            let err = names(&[(SYSTEM, &text)]).unwrap_err().to_string();
            assert!(err.contains("config.toml:2: `runtimes`"), "{err}");
        }
    }

    #[test]
    fn rootless_users_add_their_spec_directories() {
        let dirs = |policy: &Policy, env: &Env| -> Vec<String> {
            spec_dirs(policy, env)
                .iter()
                .map(|dir| dir.display().to_string())
                .collect()
        };
        let policy = Policy::default();
        assert_eq!(
            dirs(&policy, &Env { euid: 0, ..user() }),
            ["/etc/cdi", "/var/run/cdi"]
        );
        let want = [
            "/etc/cdi",
            "/var/run/cdi",
            "/home/u/.config/cdi",
            "/run/user/1000/cdi",
        ];
        assert_eq!(dirs(&policy, &user()), want);
        let set = Policy {
            spec_dirs: Some(vec![PathBuf::from("/x")]),
            ..policy
        };
        assert_eq!(dirs(&set, &user()), ["/x"]);
    }
}
