//! Many containers at once: how long until all run, and what each holds while it waits.

use std::process::{Child, Command, Stdio};
use std::time::Instant;
use std::{env, fs};

use serde_json::Value;

use crate::bundles::Bundle;
use crate::counts::{own_memory, pid_in};
use crate::runtimes::{Runtime, text};

/// How many.
pub(crate) const SIZES: [usize; 4] = [10, 25, 50, 100];

/// One measurement.
#[derive(Clone, Copy)]
pub(crate) struct Crowd {
    /// All created and started, in seconds.
    pub(crate) up: f64,
    /// All deleted, in seconds.
    pub(crate) down: f64,
    /// Private memory of the process that waits for `start`, in MiB for each container.
    pub(crate) memory: f64,
}

/// Makes `size` containers, all at once, then starts them, all at once.
pub(crate) fn crowd(runtime: &Runtime, spec: &Value, size: usize) -> Crowd {
    let work = env::temp_dir().join(format!("fleet-bench-crowd-{}", std::process::id()));
    let ids: Vec<String> = (0..size).map(|number| format!("crowd-{number}")).collect();
    let bundles: Vec<Bundle> = ids
        .iter()
        .map(|id| {
            let bundle = Bundle::new(work.join(id), spec.clone());
            bundle.lend(runtime, id);
            bundle
        })
        .collect();
    let begin = Instant::now();
    let pid_files: Vec<_> = bundles
        .iter()
        .map(|bundle| bundle.dir.join("pid"))
        .collect();
    at_once(
        runtime,
        (0..size).map(|at| {
            vec![
                "create",
                "--bundle",
                text(&bundles[at].dir),
                "--pid-file",
                text(&pid_files[at]),
                &ids[at],
            ]
        }),
    );
    let created = begin.elapsed();
    let memory: f64 = pid_files
        .iter()
        .filter_map(|file| own_memory(pid_in(file)))
        .sum();
    let begin = Instant::now();
    at_once(runtime, ids.iter().map(|id| vec!["start", id]));
    let started = begin.elapsed();
    let begin = Instant::now();
    at_once(runtime, ids.iter().map(|id| vec!["delete", "--force", id]));
    let down = begin.elapsed().as_secs_f64();
    fs::remove_dir_all(&work).expect("remove the bundles");
    #[allow(clippy::cast_precision_loss)]
    Crowd {
        up: (created + started).as_secs_f64(),
        down,
        memory: memory / size as f64,
    }
}

fn at_once<'a>(runtime: &Runtime, calls: impl Iterator<Item = Vec<&'a str>>) {
    let started: Vec<(Vec<String>, Child)> = calls
        .map(|args| {
            let command = runtime.command(&args);
            let mut process = Command::new(&command[0]);
            // Whatever is said would have to go into as many files.
            process
                .args(&command[1..])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let child = process.spawn().expect("start the runtime");
            (command, child)
        })
        .collect();
    for (command, mut child) in started {
        let status = child.wait().expect("wait for the runtime");
        assert!(status.success(), "{}: {status}", command.join(" "));
    }
}
