//! What does not depend on the machine's mood: system calls, instructions, memory.

use std::path::Path;
use std::{env, fs};

use nix::sys::resource::{UsageWho, getrusage};

use crate::bundles::Bundle;
use crate::runtimes::{Runtime, must, run, text};
use crate::steps;

/// Tells a process of this program to run one command and to print its peak memory.
pub(crate) const PEAK_OF: &str = "FLEET_BENCH_PEAK_OF";

/// System calls of a command and of all that it starts, by `strace -f -c`.
pub(crate) fn system_calls(runtime: &Runtime, args: &[&str]) -> Option<u64> {
    let out = runtime.root.with_extension("strace");
    let mut command = ["strace", "-f", "-c", "-o", text(&out)]
        .map(str::to_owned)
        .to_vec();
    command.extend(runtime.command(args));
    let (fine, said) = run(&command, &runtime.root);
    if !fine {
        println!("SKIP {}: {said}", command.join(" "));
        return None;
    }
    let text = fs::read_to_string(&out).ok()?;
    let total = text.lines().rev().find(|line| line.ends_with("total"))?;
    // Percent, seconds, microseconds for each call, calls, and errors where there were any.
    total.split_whitespace().nth(3)?.parse().ok()
}

/// Instructions in user mode, children included: by the processor's counter, else counted one by one.
pub(crate) fn instructions(runtime: &Runtime, args: &[&str]) -> Option<u64> {
    by_counter(runtime, args).or_else(|| steps::instructions(&runtime.command(args)))
}

fn by_counter(runtime: &Runtime, args: &[&str]) -> Option<u64> {
    let out = runtime.root.with_extension("perf");
    let mut command = [
        "perf",
        "stat",
        "-x,",
        "-e",
        "instructions:u",
        "-o",
        text(&out),
    ]
    .map(str::to_owned)
    .to_vec();
    command.extend(runtime.command(args));
    run(&command, &runtime.root).0.then_some(())?;
    let text = fs::read_to_string(&out).ok()?;
    let line = text.lines().find(|line| line.contains("instructions"))?;
    line.split(',').next()?.parse().ok()
}

/// Peak memory of a command, in MiB, and of those it waited for (`ru_maxrss`). By a process of its own, since the figure
/// only ever grows.
pub(crate) fn peak(runtime: &Runtime, args: &[&str]) -> Option<f64> {
    let own = env::current_exe().ok()?;
    let out = std::process::Command::new(own)
        .env(PEAK_OF, runtime.command(args).join("\n"))
        .output()
        .ok()?;
    String::from_utf8_lossy(&out.stdout).trim().parse().ok()
}

/// The process that [`peak`] starts.
pub(crate) fn print_peak(command: &str) {
    let command: Vec<String> = command.lines().map(str::to_owned).collect();
    let near = env::temp_dir().join(format!("fleet-bench-peak-{}", std::process::id()));
    let (fine, said) = run(&command, &near);
    drop(fs::remove_file(near.with_extension("log")));
    assert!(fine, "{said}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage");
    #[allow(clippy::cast_precision_loss)]
    let mib = usage.max_rss() as f64 / 1024.0;
    println!("{mib:.2}");
}

/// Memory of the process that waits for `start`: its peak, and what it shares with nobody, in MiB.
pub(crate) fn waiting(runtime: &Runtime, bundle: &Bundle) -> (Option<f64>, Option<f64>) {
    let id = "bench-waiting";
    let pid = create(runtime, bundle, id);
    let figures = (of_status(pid, "VmHWM:"), own_memory(pid));
    must(
        runtime,
        std::time::Duration::ZERO,
        &["delete", "--force", id],
    );
    figures
}

/// Creates a container and returns the pid of its process.
pub(crate) fn create(runtime: &Runtime, bundle: &Bundle, id: &str) -> u32 {
    bundle.lend(runtime, id);
    let file = runtime
        .root
        .with_file_name(format!("{id}-{}.pid", runtime.name));
    let args = [
        "create",
        "--bundle",
        text(&bundle.dir),
        "--pid-file",
        text(&file),
        id,
    ];
    must(runtime, std::time::Duration::ZERO, &args);
    pid_in(&file)
}

pub(crate) fn pid_in(file: &Path) -> u32 {
    let pid = fs::read_to_string(file).unwrap_or_default();
    pid.trim().parse().expect("a pid file")
}

/// Private pages of a process, in MiB.
pub(crate) fn own_memory(pid: u32) -> Option<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let of = |name: &str| kib(&rollup, name);
    Some((of("Private_Clean:")? + of("Private_Dirty:")?) / 1024.0)
}

fn of_status(pid: u32, name: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kib(&status, name).map(|kib| kib / 1024.0)
}

fn kib(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
