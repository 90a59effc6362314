//! The container lifecycle beside crun, runc and, where it is installed, NVIDIA's runtime, on the same bundles.
//!
//! `make bench` runs it inside `tests/isolate` and gets `benchmarks.md` and two pictures. Wall times drift on shared
//! machines, so the runtimes take turns, and counts stand beside them. Nothing here passes or fails.
#![allow(clippy::expect_used, clippy::print_stdout)]

mod bundles;
mod counts;
mod crowd;
mod document;
mod figures;
mod machine;
mod plot;
mod runtimes;
mod steps;

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use serde_json::{Value, json};

use bundles::Bundle;
use crowd::Crowd;
use figures::{Figure, Row};
use runtimes::{Cost, Runtime, must, text};

/// Milliseconds between calls. The kernel's cgroup lock stays cheap for a while after it was taken, so that a runtime
/// which waits for it looks better called without a pause than a user ever sees it.
const PAUSES: [u64; 2] = [0, 40];

/// All that was found out.
pub(crate) struct Findings {
    /// How busy the machine was before anything was measured.
    pub(crate) load_before: String,
    pub(crate) rounds: usize,
    /// Wall and processor time of each call, for each pause.
    pub(crate) times: Vec<(u64, Vec<Row>)>,
    /// What is counted, and the counts.
    pub(crate) counts: Vec<(String, Vec<String>)>,
    /// For each runtime, by size of the crowd.
    pub(crate) crowds: Vec<Vec<(usize, Crowd)>>,
}

/// One container to make.
struct Case {
    name: &'static str,
    bundle: Bundle,
    needs_gpu: bool,
}

fn main() {
    if let Ok(command) = env::var(counts::PEAK_OF) {
        return counts::print_peak(&command);
    }
    machine::narrow();
    let load_before = machine::load();
    let work = env::temp_dir().join(format!("fleet-bench-{}", std::process::id()));
    fs::create_dir_all(&work).expect("make the work directory");
    let runtimes = runtimes::all(&work);
    let rootfs = bundles::rootfs(&work);
    let cases = cases(&work, &rootfs);
    let sleeper = bundles::plain(&rootfs, &["/bin/busybox", "sleep", "1000"]);
    let rounds = number("BENCH_ROUNDS", 25);
    let times = PAUSES.map(|pause| {
        (
            pause,
            times(
                &runtimes,
                &cases,
                &work,
                &sleeper,
                Duration::from_millis(pause),
                rounds,
            ),
        )
    });
    let findings = Findings {
        load_before,
        rounds,
        times: times.into(),
        counts: counted(&runtimes, &cases, &work, &sleeper),
        crowds: crowds(&runtimes, &sleeper),
    };
    drop(fs::remove_dir_all(&work));
    let place = env::var_os("FLEET_BENCH_DOC")
        .expect("FLEET_BENCH_DOC names the directory of the document");
    document::write(Path::new(&place), &runtimes, &findings);
}

fn number(variable: &str, otherwise: usize) -> usize {
    env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn cases(work: &Path, rootfs: &Path) -> Vec<Case> {
    let plain = || bundles::plain(rootfs, &["/bin/busybox", "true"]);
    let case = |name, dir: &str, spec: Value, needs_gpu| Case {
        name,
        bundle: Bundle::new(work.join(dir), spec),
        needs_gpu,
    };
    let mut cases = vec![case("create + start + delete", "plain", plain(), false)];
    match bundles::seccomp() {
        Some(profile) => {
            let mut spec = plain();
            spec["linux"]["seccomp"] = profile;
            cases.push(case(
                "the same, default seccomp profile",
                "seccomp",
                spec,
                false,
            ));
        }
        None => println!("SKIP seccomp: /usr/share/containers/seccomp.json is missing"),
    }
    for (name, dir, variable) in [
        ("the same, 2 GPUs, all hooks", "two", "FLEET_BENCH_CDI_2"),
        ("the same, 8 GPUs, all hooks", "eight", "FLEET_BENCH_CDI_8"),
    ] {
        match env::var(variable) {
            Ok(devices) => {
                let mut spec = plain();
                spec["annotations"] = json!({"cdi.k8s.io/bench": devices});
                cases.push(case(name, dir, spec, true));
            }
            Err(_) => println!("SKIP {name}: {variable} does not name a CDI device"),
        }
    }
    cases
}

fn times(
    runtimes: &[Runtime],
    cases: &[Case],
    work: &Path,
    sleeper: &Value,
    pause: Duration,
    rounds: usize,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for case in cases {
        // The peers that inject nothing stand here with their plain container.
        rows.push(row(case.name, runtimes, rounds, |runtime| {
            let bundle = match case.needs_gpu && !runtime.injects() {
                true => &cases[0].bundle,
                false => &case.bundle,
            };
            lifecycle(runtime, bundle, pause)
        }));
    }
    let sleeper = Bundle::new(work.join("sleeper"), sleeper.clone());
    let id = "bench-running";
    for runtime in runtimes {
        sleeper.lend(runtime, id);
        must(
            runtime,
            pause,
            &["run", "-d", "--bundle", text(&sleeper.dir), id],
        );
    }
    rows.push(row("state", runtimes, rounds, |runtime| {
        must(runtime, pause, &["state", id])
    }));
    rows.push(row("exec true", runtimes, rounds, |runtime| {
        must(runtime, pause, &["exec", id, "/bin/busybox", "true"])
    }));
    for runtime in runtimes {
        must(runtime, pause, &["delete", "--force", id]);
    }
    rows
}

fn lifecycle(runtime: &Runtime, bundle: &Bundle, pause: Duration) -> Cost {
    let id = "bench";
    bundle.lend(runtime, id);
    must(
        runtime,
        pause,
        &["create", "--bundle", text(&bundle.dir), id],
    ) + must(runtime, pause, &["start", id])
        + must(runtime, pause, &["delete", "--force", id])
}

/// The runtimes take turns; the first round warms caches.
fn row(
    name: &str,
    runtimes: &[Runtime],
    rounds: usize,
    mut run: impl FnMut(&Runtime) -> Cost,
) -> Row {
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); runtimes.len()];
    for round in 0..=rounds {
        for (runtime, costs) in runtimes.iter().zip(&mut costs) {
            let cost = run(runtime);
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    println!("{name}: done");
    let figures = |of: fn(&Cost) -> Duration| {
        let ms = |cost: &Cost| of(cost).as_secs_f64() * 1000.0;
        costs
            .iter()
            .map(|all| Some(Figure::of(all.iter().map(ms).collect())))
            .collect()
    };
    Row {
        name: name.to_owned(),
        wall: figures(|cost| cost.wall),
        cpu: figures(|cost| cost.cpu),
    }
}

/// System calls, instructions and memory.
fn counted(
    runtimes: &[Runtime],
    cases: &[Case],
    work: &Path,
    sleeper: &Value,
) -> Vec<(String, Vec<String>)> {
    let shown =
        |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
    let mib = |value: Option<f64>| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1} MiB"))
    };
    let mut rows = Vec::new();
    let mut add = |name: &str, cell: &dyn Fn(&Runtime) -> String| {
        let cells: Vec<String> = runtimes.iter().map(cell).collect();
        println!("{name}: {}", cells.join(", "));
        rows.push((name.to_owned(), cells));
    };
    let id = "bench-counted";
    let delete = |runtime: &Runtime| must(runtime, Duration::ZERO, &["delete", "--force", id]);
    for case in cases {
        // `run`: a container that waits for `start` would never let go of the tracer.
        let what = case
            .name
            .replace("create + start + delete", "run")
            .replace("the same", "run");
        add(&format!("system calls of {what}"), &|runtime| {
            // NVIDIA's runtime injects at `create` alone.
            if case.needs_gpu && !runtime.is_ours() {
                return "–".to_owned();
            }
            case.bundle.lend(runtime, id);
            let args = ["run", "--bundle", text(&case.bundle.dir), id];
            let calls = counts::system_calls(runtime, &args);
            // A `run` that failed may leave something.
            let forced = runtime.command(&["delete", "--force", id]);
            runtimes::run(&forced, &runtime.root);
            shown(calls)
        });
    }
    let sleeper = Bundle::new(work.join("counted"), sleeper.clone());
    let on_a_running_one = |runtime: &Runtime, measure: &dyn Fn() -> String| {
        sleeper.lend(runtime, id);
        must(
            runtime,
            Duration::ZERO,
            &["run", "-d", "--bundle", text(&sleeper.dir), id],
        );
        let measured = measure();
        delete(runtime);
        measured
    };
    let exec = ["exec", id, "/bin/busybox", "true"];
    let state = ["state", id];
    for (name, args) in [("exec", &exec[..]), ("state", &state[..])] {
        add(&format!("system calls of {name}"), &|runtime| {
            on_a_running_one(runtime, &|| shown(counts::system_calls(runtime, args)))
        });
        add(&format!("instructions of {name}"), &|runtime| {
            on_a_running_one(runtime, &|| shown(counts::instructions(runtime, args)))
        });
        add(&format!("peak memory of {name}"), &|runtime| {
            on_a_running_one(runtime, &|| mib(counts::peak(runtime, args)))
        });
    }
    let plain = &cases[0].bundle;
    add("peak memory of create", &|runtime| {
        plain.lend(runtime, id);
        let peak = counts::peak(runtime, &["create", "--bundle", text(&plain.dir), id]);
        delete(runtime);
        mib(peak)
    });
    add(
        "the process that waits for start: peak memory",
        &|runtime| mib(counts::waiting(runtime, plain).0),
    );
    add("the same: memory of its own", &|runtime| {
        mib(counts::waiting(runtime, plain).1)
    });
    add("size of the program", &|runtime| {
        format!("{:.1} MB", runtime.megabytes())
    });
    rows
}

fn crowds(runtimes: &[Runtime], spec: &Value) -> Vec<Vec<(usize, Crowd)>> {
    let mut all: Vec<Vec<(usize, Crowd)>> = vec![Vec::new(); runtimes.len()];
    for size in crowd::SIZES {
        for (runtime, all) in runtimes.iter().zip(&mut all) {
            all.push((size, crowd::crowd(runtime, spec, size)));
        }
        println!("{size} at once: done");
    }
    all
}
