//! `tests/inject/<case>/`: a container's spec, CDI specs and a host in; the edited spec and its explanation out.
//!
//! `UPDATE=1 cargo test -p fleet-host --test golden` rewrites what is expected; read the difference before keeping it.

// Helpers of a test fail as the test does.
#![allow(clippy::unwrap_used)]

mod paper;

use std::fs;
use std::path::{Path, PathBuf};

use fleet_host::{Env, inject_with, prepare};
use serde_json::Value;

use paper::PaperHost;

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
