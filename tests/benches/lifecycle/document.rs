//! `benchmarks.md` and its pictures.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use crate::crowd::SIZES;
use crate::figures::{Row, table, timed};
use crate::plot::{Lines, bars, lines};
use crate::runtimes::{NVIDIA, Runtime};
use crate::{Findings, machine};

const METHOD: &str = "\
`make bench` writes this file and its pictures. Everything is made in a private mount and pid namespace, in a cgroup of its
own, on a root file system of a glibc image, with the same specs for all runtimes. The GPU rows are a simulated node with
eight GPUs and its CDI spec with all hooks. Runtimes without GPUs stand in these rows with their plain container.

Wall times of a shared machine drift, so the runtimes take turns within each round, medians (and minima) are given, and
counts that do not drift stand below. Processor time is that of the program and of the processes that it waited for.
";

const PAUSES: &str = "\
A process that moves into a cgroup by `cgroup.procs` waits until every processor has passed a quiet point. Calls without a
pause between them share that wait; on a machine that is not busy starting containers each call pays it. So both are shown.
";

const COUNTS: &str = "\
System calls are those of the command and of all that it starts, by `strace -f -c`. Instructions are those in user mode of the
same, by the processor's counter where there is one (`perf stat`); otherwise each is stepped over and counted, which a program
of several threads that wait for each other does not live to see the end of: those have no figure.
Peak memory is `ru_maxrss`, libraries included.
";

/// Writes all of it.
pub(crate) fn write(place: &Path, runtimes: &[Runtime], findings: &Findings) {
    fs::create_dir_all(place).expect("make the directory");
    let names: Vec<&str> = runtimes.iter().map(|runtime| runtime.name).collect();
    let put =
        |name: &str, text: &str| fs::write(place.join(name), text).expect("write the document");
    put("benchmarks.md", &markdown(runtimes, &names, findings));
    let (_, rows) = &findings.times[0];
    put("benchmarks-calls.svg", &calls(&names, rows));
    put("benchmarks-crowd.svg", &crowd(&names, findings));
}

fn markdown(runtimes: &[Runtime], names: &[&str], findings: &Findings) -> String {
    let mut text = format!(
        "# Benchmarks\n\n{METHOD}\n{}; load in the minute before {}, in the last minute {}: above the number of processors, wall times are mostly\nothers' work.\n\n",
        machine::description(),
        findings.load_before,
        machine::load()
    );
    let profile = env::var("FLEET_BENCH_PROFILE").unwrap_or_default();
    for runtime in runtimes {
        let build = match runtime.is_ours() {
            true => format!(", built with cargo's profile `{profile}`"),
            false => String::new(),
        };
        let _ = writeln!(text, "* {}: {}{build}", runtime.name, runtime.version());
    }
    if !names.contains(&NVIDIA) {
        let _ = writeln!(text, "* {NVIDIA}: not on this machine");
    }
    text.push_str("\n## Calls\n\n![Wall time of each call](benchmarks-calls.svg)\n\n");
    text.push_str(PAUSES);
    for (pause, rows) in &findings.times {
        let _ = write!(
            text,
            "\nWall time, {}, {} rounds, milliseconds, median (minimum):\n\n{}",
            spaced(*pause),
            findings.rounds,
            timed(names, rows, |row| &row.wall)
        );
        let _ = write!(
            text,
            "\nProcessor time of the same calls:\n\n{}",
            timed(names, rows, |row| &row.cpu)
        );
    }
    let _ = write!(
        text,
        "\n## Counts\n\n{COUNTS}\n{}",
        table(names, &findings.counts)
    );
    text.push_str(
        "\n## Many at once\n\n![Time and memory by number of containers](benchmarks-crowd.svg)\n\n",
    );
    text.push_str("All are created at once, then all are started, then all are deleted; seconds until all are up, seconds until all are gone, and\nMiB that the process waiting for `start` shares with nobody, for each container.\n\n");
    text.push_str(&table(names, &crowd_rows(findings)));
    for (heading, file) in [
        ("CDI specs by the thousand", "scale.md"),
        ("Generating and rebuilding specs", "discover.md"),
    ] {
        if let Some(part) = part(file) {
            let _ = write!(text, "\n## {heading}\n\n{part}");
        }
    }
    text
}

fn spaced(pause: u64) -> String {
    match pause {
        0 => "one call after the other".to_owned(),
        ms => format!("{ms} ms between calls"),
    }
}

/// What another benchmark has written.
fn part(file: &str) -> Option<String> {
    let dir = env::var_os("FLEET_BENCH_PARTS")?;
    fs::read_to_string(Path::new(&dir).join(file)).ok()
}

fn crowd_rows(findings: &Findings) -> Vec<(String, Vec<String>)> {
    let row = |(at, size): (usize, &usize)| {
        let cell = |of: &Vec<(usize, crate::crowd::Crowd)>| {
            let crowd = of[at].1;
            format!(
                "{:.2} s, {:.2} s, {:.2} MiB",
                crowd.up, crowd.down, crowd.memory
            )
        };
        (
            format!("{size} containers"),
            findings.crowds.iter().map(cell).collect(),
        )
    };
    SIZES.iter().enumerate().map(row).collect()
}

fn calls(names: &[&str], rows: &[Row]) -> String {
    let group = |row: &Row| {
        let medians = row
            .wall
            .iter()
            .map(|figure| figure.map(|figure| figure.median));
        (row.name.clone(), medians.collect())
    };
    let groups: Vec<_> = rows.iter().map(group).collect();
    bars("One call after the other, median", "ms", names, &groups)
}

fn crowd(names: &[&str], findings: &Findings) -> String {
    #[allow(clippy::cast_precision_loss)]
    let series = |of: fn(&crate::crowd::Crowd) -> f64| {
        let points = |all: &Vec<(usize, crate::crowd::Crowd)>| {
            all.iter()
                .map(|(size, crowd)| (*size as f64, of(crowd)))
                .collect()
        };
        findings.crowds.iter().map(points).collect()
    };
    let charts = [
        Lines {
            title: "seconds until all are up",
            series: series(|crowd| crowd.up),
        },
        Lines {
            title: "MiB of its own, for each waiting container",
            series: series(|crowd| crowd.memory),
        },
    ];
    lines(names, &charts)
}
