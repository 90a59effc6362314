//! The steps against engines that only answer; the real ones are met by the integration suites.

use std::cell::RefCell;
use std::io;

use fleet_host::Env;

use super::*;
use crate::doctor::check::Seen;
use crate::doctor::programs::Programs;
use crate::files::Files;

/// Says what it was told to say, by the start of the command line, and remembers what it was asked.
struct Engines {
    said: Vec<(&'static str, bool, &'static str)>,
    asked: RefCell<Vec<String>>,
}

impl Programs for Engines {
    fn ask(&self, argv: &[&str], _: u64) -> io::Result<Answer> {
        let line = argv.join(" ");
        self.asked.borrow_mut().push(line.clone());
        let said = self.said.iter().find(|(start, ..)| line.starts_with(start));
        let (_, ok, text) = said.ok_or(io::ErrorKind::NotFound)?;
        let (stdout, stderr) = if *ok { (*text, "") } else { ("", *text) };
        Ok(Answer {
            ok: *ok,
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        })
    }
}

/// Lines of the form `step: status text`, and what was asked.
fn tried(
    engine: Engine,
    image: Option<&str>,
    said: &[(&'static str, bool, &'static str)],
) -> (Vec<String>, Vec<String>) {
    let engines = Engines {
        said: said.to_vec(),
        asked: RefCell::default(),
    };
    let files = Files::new(None);
    let node = Node {
        files: &files,
        env: &Env::default(),
        devices: files.host(),
        programs: &engines,
        space: &|_| None,
    };
    let plan = Plan {
        name: None,
        image: image.map(str::to_owned),
        program: "/usr/bin/fleet-nvidia".to_owned(),
        device: None,
    };
    let steps = run(engine, &node, &plan);
    let lines = steps
        .into_iter()
        .map(|(name, outcome)| match outcome.unwrap() {
            Ok(Seen::Fine(text)) => format!("{name}: ok {text}"),
            Ok(Seen::Absent(text)) => format!("{name}: skipped {text}"),
            Err(findings) => format!("{name}: fault {}", findings[0].text),
        });
    (lines.collect(), engines.asked.into_inner())
}

#[test]
fn an_engine_that_is_not_here_is_skipped_with_a_reason() {
    for engine in [Engine::Podman, Engine::Crio, Engine::Containerd] {
        let (lines, _) = tried(engine, Some("x"), &[]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(": skipped "), "{lines:?}");
    }
    let (lines, _) = tried(Engine::Crio, None, &[("crictl version", true, "")]);
    assert!(lines[0].contains("--smoke-image"), "{lines:?}");
}

#[test]
fn podman_stops_at_the_step_that_fails_and_cleans_up() {
    let said = [
        ("podman --version", true, "podman version 4.3.1"),
        (
            "podman --runtime fleet-nvidia info",
            true,
            "/usr/bin/fleet-nvidia",
        ),
        ("podman --runtime fleet-nvidia create", true, "0123"),
        (
            "podman init",
            false,
            "Error: OCI runtime error: fleet-nvidia: failed to inject devices",
        ),
        ("podman rm", true, ""),
    ];
    let (lines, asked) = tried(Engine::Podman, Some("img"), &said);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[2].starts_with("smoke-podman/init: fault ")
            && lines[2].contains("failed to inject devices"),
        "{lines:?}"
    );
    assert!(
        asked.last().unwrap().starts_with("podman rm --force"),
        "{asked:?}"
    );
    assert!(
        asked
            .iter()
            .any(|line| line.contains("--pull never img nvidia-smi -L")),
        "{asked:?}"
    );
}

#[test]
fn crio_runs_a_pod_and_removes_it() {
    let exited = r#"{"status": {"state": "CONTAINER_EXITED", "exitCode": 0}}"#;
    let mut said = vec![
        ("crictl version", true, "Version: 0.1.0"),
        ("crictl inspecti", true, "img"),
        ("crictl runp --runtime nvidia", true, "pod1\n"),
        ("crictl create pod1", true, "c1\n"),
        ("crictl start c1", true, "c1\n"),
        ("crictl inspect c1", true, exited),
        ("crictl logs c1", true, "GPU 0: NVIDIA H100\n"),
        ("crictl", true, ""),
    ];
    let (lines, asked) = tried(Engine::Crio, Some("img"), &said);
    assert_eq!(
        lines.last().unwrap(),
        "smoke-crio/log: ok GPU 0: NVIDIA H100"
    );
    assert_eq!(
        asked[asked.len() - 2..],
        ["crictl stopp pod1", "crictl rmp --force pod1"]
    );
    said[2] = (
        "crictl runp",
        false,
        "no runtime for \"nvidia\" is configured",
    );
    let (lines, _) = tried(Engine::Crio, Some("img"), &said);
    assert!(
        lines
            .last()
            .unwrap()
            .contains("no runtime for \"nvidia\" is configured"),
        "{lines:?}"
    );
}

#[test]
fn containerd_uses_the_shim_with_our_binary() {
    let said = [
        ("ctr version", true, ""),
        ("ctr run", true, "GPU 0"),
        ("ctr", true, ""),
    ];
    let (lines, asked) = tried(Engine::Containerd, Some("img"), &said);
    assert_eq!(lines, ["smoke-containerd/run: ok GPU 0"]);
    assert!(
        asked[1].contains("--runc-binary /usr/bin/fleet-nvidia img "),
        "{asked:?}"
    );
}
