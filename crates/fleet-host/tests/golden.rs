//! `tests/inject/<case>/`: a container's spec, CDI specs and a host in; the edited spec and its explanation out.
//!
//! `UPDATE=1 cargo test -p fleet-host --test golden` rewrites what is expected; read the difference before keeping it.

// Helpers of a test fail as the test does.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fleet_cdi::{Format, Registry, Spec, parse};
use fleet_host::{Env, Host, HostRoot, inject_with, prepare};
use fleet_inject::{DeviceKind, DeviceStat, HostProbe};
use serde_json::Value;

/// A machine made of plain files; `devices` holds one node per line: path, type, major, minor, mode in octal.
struct PaperHost {
    root: HostRoot,
    devices: String,
    cdi: PathBuf,
    rebuilt: PathBuf,
}

impl PaperHost {
    fn new(host: &Path, cdi: PathBuf, rebuilt: PathBuf) -> Self {
        let devices = fs::read_to_string(host.join("devices")).unwrap_or_default();
        Self {
            root: HostRoot::new(host),
            devices,
            cdi,
            rebuilt,
        }
    }
}

impl HostProbe for PaperHost {
    fn lstat_device(&self, path: &str) -> io::Result<DeviceStat> {
        let mut lines = self
            .devices
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let Some(node) = lines.find(|node| node.first() == Some(&path)) else {
            return self.root.lstat_device(path);
        };
        let kind = match node[1] {
            "b" => DeviceKind::Block,
            "p" => DeviceKind::Fifo,
            _ => DeviceKind::Char,
        };
        let mode = u32::from_str_radix(node[4], 8).unwrap();
        Ok(DeviceStat {
            kind,
            major: node[2].parse().unwrap(),
            minor: node[3].parse().unwrap(),
            mode,
        })
    }

    fn exists(&self, path: &str) -> bool {
        self.root.exists(path) || self.lstat_device(path).is_ok()
    }

    fn driver_version(&self) -> Option<String> {
        self.root.driver_version()
    }
}

impl Host for PaperHost {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.root.read(path)
    }

    fn registry(&self, _dirs: &[PathBuf]) -> Registry {
        Registry::scan(std::slice::from_ref(&self.cdi))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let prefix = format!("{}/", dir.display());
        let nodes = self.devices.lines().filter_map(|line| {
            let name = line.split_whitespace().next()?.strip_prefix(&prefix)?;
            Some(name.split('/').next()?.to_owned())
        });
        let mut names: Vec<_> = nodes
            .chain(self.root.list(dir).unwrap_or_default())
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// What would be made from the host stands in a file of the case.
    fn rebuild(&self, kind: &str) -> Result<Option<Spec>, String> {
        let Ok(text) = fs::read(&self.rebuilt) else {
            return Ok(None);
        };
        if text.is_empty() {
            return Err("no GPU is found".to_owned());
        }
        let spec = parse(&text, Format::Yaml).unwrap();
        Ok((spec.kind == kind).then_some(spec))
    }
}

/// A case brings its own `cdi` and `host` or shares those of `common`.
fn part(case: &Path, name: &str) -> PathBuf {
    let own = case.join(name);
    if own.is_dir() {
        own
    } else {
        case.parent().unwrap().join("common").join(name)
    }
}

/// The edited spec, or nothing, and the plan's or the error's text.
fn run(case: &Path) -> (Option<Value>, String) {
    let cdi = part(case, "cdi");
    let host = PaperHost::new(&part(case, "host"), cdi.clone(), case.join("rebuilt.yaml"));
    let mut spec: Value =
        serde_json::from_slice(&fs::read(case.join("config.json")).unwrap()).unwrap();
    let before = spec.clone();
    let env = Env::default();
    let prepared = prepare(&spec, &env, &host);
    let injected = inject_with(&mut spec, &env, &host);
    let text = match (&prepared, &injected) {
        (Ok(prepared), Ok(_)) => prepared.explanation().text(),
        (_, Err(err)) => format!("error: {err}\n"),
        (Err(err), Ok(_)) => panic!("{}: explained as {err}, but injected", case.display()),
    };
    let text = unaligned(&text.replace(&cdi.display().to_string(), "/etc/cdi"));
    if injected.is_err() {
        assert_no_engine_words(&text);
        return (None, text);
    }
    assert_eq!(
        spec != before,
        text.lines().any(|line| line.contains("  ")),
        "{}: plan and spec disagree",
        case.display()
    );
    let once = spec.to_string();
    inject_with(&mut spec, &env, &host).unwrap();
    assert_eq!(
        spec.to_string(),
        once,
        "{}: the second time changes the spec again",
        case.display()
    );
    (Some(spec), text)
}

/// Columns are as wide as the checkout's path makes them: two spaces stand for any number.
fn unaligned(text: &str) -> String {
    let cells = |line: &str| {
        let cells = line
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty());
        cells.collect::<Vec<_>>().join("  ")
    };
    text.lines()
        .map(|line| format!("{}\n", cells(line)))
        .collect()
}

/// By these words engines tell a missing command from a failed runtime.
fn assert_no_engine_words(text: &str) {
    for word in [
        "not found",
        "no such file",
        "permission denied",
        "does not exist",
    ] {
        assert!(!text.to_lowercase().contains(word), "{text}");
    }
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn every_case_comes_out_as_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/inject")
        .canonicalize()
        .unwrap();
    let mut cases: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.retain(|case| case.join("config.json").is_file());
    cases.sort();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    let mut wrong = Vec::new();
    for case in cases {
        let (spec, text) = run(&case);
        let spec = spec.map(|spec| format!("{spec:#}\n")).unwrap_or_default();
        for (name, got) in [("want.json", spec), ("want.plan", text)] {
            let path = case.join(name);
            let want = fs::read_to_string(&path).unwrap_or_default();
            match (want == got, update) {
                (true, _) => {}
                (false, true) if got.is_empty() => fs::remove_file(&path).unwrap(),
                (false, true) => fs::write(&path, &got).unwrap(),
                (false, false) => wrong.push(format!(
                    "{}:\n--- want\n{want}--- got\n{got}",
                    path.display()
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
