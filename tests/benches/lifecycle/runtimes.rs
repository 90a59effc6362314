//! The competitors, and how one call of theirs is timed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// One competitor.
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) root: PathBuf,
}

impl Runtime {
    /// Whether it makes GPU containers; the others stand beside it with a plain one.
    pub(crate) fn injects(&self) -> bool {
        self.is_ours() || self.name == NVIDIA
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.name == OURS
    }

    /// The first line of `--version`.
    pub(crate) fn version(&self) -> String {
        let out = Command::new(&self.path).arg("--version").output();
        let text = out.map_or_else(
            |_| String::new(),
            |out| String::from_utf8_lossy(&out.stdout).into_owned(),
        );
        text.lines().next().unwrap_or("?").to_owned()
    }

    /// Size of its file, in MB. The peers load libraries besides.
    pub(crate) fn megabytes(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        fs::metadata(&self.path).map_or(0.0, |meta| meta.len() as f64 / 1e6)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Vec<String> {
        let all = [text(&self.path), "--root", text(&self.root)].into_iter();
        all.chain(args.iter().copied()).map(str::to_owned).collect()
    }
}

pub(crate) const OURS: &str = "fleet-nvidia";
pub(crate) const NVIDIA: &str = "nvidia-container-runtime";

/// Ours, and what of its peers this machine has.
pub(crate) fn all(work: &Path) -> Vec<Runtime> {
    let ours =
        env::var("RUNTIME_UNDER_TEST").expect("RUNTIME_UNDER_TEST names the fleet-nvidia binary");
    let mut all = vec![Runtime {
        name: OURS,
        path: ours.into(),
        root: work.join("root-fleet"),
    }];
    for name in ["crun", "runc", NVIDIA] {
        match on_path(name) {
            Some(path) => all.push(Runtime {
                name,
                path,
                root: work.join(format!("root-{name}")),
            }),
            None => println!("SKIP {name}: it is not on PATH"),
        }
    }
    all
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/sbin"].map(PathBuf::from);
    let mut dirs = env::split_paths(&path).chain(usual);
    dirs.find_map(|dir| Some(dir.join(name)).filter(|file| file.is_file()))
}

/// What a call, or several, took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// Of the program and of those it waited for.
    pub(crate) cpu: Duration,
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            wall: self.wall + other.wall,
            cpu: self.cpu + other.cpu,
        }
    }
}

/// Runs a command that must succeed, after a pause.
pub(crate) fn must(runtime: &Runtime, pause: Duration, args: &[&str]) -> Cost {
    std::thread::sleep(pause);
    let command = runtime.command(args);
    let (before, begin) = (children(), Instant::now());
    let (fine, said) = run(&command, &runtime.root);
    let wall = begin.elapsed();
    assert!(fine, "{}: {said}", command.join(" "));
    Cost {
        wall,
        cpu: children().saturating_sub(before),
    }
}

/// Runs a command with files as its streams, not pipes: a container keeps them open. Returns what it said, too.
pub(crate) fn run(command: &[String], near: &Path) -> (bool, String) {
    let log = near.with_extension("log");
    let sink = || fs::File::create(&log).map_or_else(|_| Stdio::null(), Stdio::from);
    let mut process = Command::new(&command[0]);
    process
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(sink())
        .stderr(sink());
    let fine = process.status().is_ok_and(|status| status.success());
    (fine, fs::read_to_string(&log).unwrap_or_default())
}

fn children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}
