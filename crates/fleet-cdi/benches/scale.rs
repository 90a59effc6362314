//! One device out of 10 000 in 1000 spec files: time and memory of finding it, as `create` does.
//!
//! `cargo bench -p fleet-cdi --profile fast`. Each figure is taken by a process of its own, since memory is the peak of
//! a process and the runtime is a new one each time. The page cache is warm. Nothing here passes or fails.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use fleet_cdi::{QualifiedName, Registry};

const FILES: usize = 1000;
const DEVICES: usize = 10;
const ROUNDS: usize = 21;

fn main() {
    if let Ok(dir) = env::var("FLEET_BENCH_SCALE") {
        return once(Path::new(&dir));
    }
    println!("{FILES} files of {DEVICES} devices, one device asked for; {ROUNDS} processes each");
    println!("| specs | size, kB | median, ms | least, ms | most, ms | peak memory, MiB |");
    println!("|---|---|---|---|---|---|");
    println!("{}", row("no specs", None));
    for format in ["json", "yaml"] {
        for (what, kinds) in [
            ("each file a kind of its own", FILES),
            ("ten kinds", 10),
            ("all of one kind", 1),
        ] {
            println!(
                "{}",
                row(&format!("{format}, {what}"), Some((format, kinds)))
            );
        }
    }
}

/// Finds one device and says how long it took and what it cost.
fn once(dir: &Path) {
    let name = "vendor0.example.com/gpu=gpu5"
        .parse::<QualifiedName>()
        .expect("a name");
    let start = Instant::now();
    let registry = Registry::scan_for(&[dir.to_path_buf()], &["vendor0.example.com/gpu"]);
    let found = registry.resolve(std::slice::from_ref(&name)).is_ok();
    let took = start.elapsed().as_secs_f64() * 1000.0;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak
        .and_then(|text| text.split_whitespace().next())
        .unwrap_or("0");
    println!("{took} {peak} {found}");
}

fn row(what: &str, specs: Option<(&str, usize)>) -> String {
    let dir = env::temp_dir().join(format!("fleet-scale-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("make the directory");
    let size = specs.map_or(0, |(format, kinds)| write(&dir, format, kinds));
    let (mut times, mut memory) = (Vec::new(), 0.0_f64);
    for _ in 0..ROUNDS {
        let (time, peak) = measure(&dir, specs.is_some());
        times.push(time);
        memory = memory.max(peak);
    }
    fs::remove_dir_all(&dir).expect("remove the directory");
    times.sort_by(f64::total_cmp);
    let (least, most) = (times[0], times[ROUNDS - 1]);
    format!(
        "| {what} | {} | {:.2} | {least:.2} | {most:.2} | {:.1} |",
        size / 1000,
        times[ROUNDS / 2],
        memory / 1024.0
    )
}

fn measure(dir: &Path, there: bool) -> (f64, f64) {
    let own = env::current_exe().expect("our own path");
    let out = Command::new(own)
        .env("FLEET_BENCH_SCALE", dir)
        .output()
        .expect("start a process");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(
        words.get(2),
        Some(&if there { "true" } else { "false" }),
        "{text}"
    );
    let number = |at: usize| words[at].parse().expect("a number");
    (number(0), number(1))
}

/// Writes the files and returns their size. The one that is asked for is in the first of its kind; a device name is
/// unique within a kind.
fn write(dir: &Path, format: &str, kinds: usize) -> usize {
    let mut size = 0;
    for file in 0..FILES {
        let (kind, first) = (file % kinds, file / kinds * DEVICES);
        let text = if format == "json" {
            json(kind, first)
        } else {
            yaml(kind, first)
        };
        size += text.len();
        let path: PathBuf = dir.join(format!("{file:04}.{format}"));
        fs::write(path, text).expect("write a spec");
    }
    size
}

fn json(kind: usize, first: usize) -> String {
    let devices: Vec<String> = (first..first + DEVICES)
        .map(|n| format!(r#"{{"name":"gpu{n}","containerEdits":{{"deviceNodes":[{{"path":"/dev/gpu{n}","major":195,"minor":{n},"permissions":"rwm"}}],"env":["GPU{n}=1"]}}}}"#))
        .collect();
    format!(
        r#"{{"cdiVersion":"0.5.0","kind":"vendor{kind}.example.com/gpu","devices":[{}],"containerEdits":{{"mounts":[{{"hostPath":"/usr/lib/libgpu.so.1","containerPath":"/usr/lib/libgpu.so.1","options":["ro","nosuid","nodev","bind"]}}]}}}}"#,
        devices.join(",")
    )
}

fn yaml(kind: usize, first: usize) -> String {
    let mut text =
        format!("---\ncdiVersion: 0.5.0\nkind: vendor{kind}.example.com/gpu\ndevices:\n");
    for n in first..first + DEVICES {
        let _ = write!(
            text,
            "- name: gpu{n}\n  containerEdits:\n    deviceNodes:\n    - path: /dev/gpu{n}\n      major: 195\n      minor: {n}\n      permissions: rwm\n    env:\n    - GPU{n}=1\n"
        );
    }
    text.push_str("containerEdits:\n  mounts:\n  - hostPath: /usr/lib/libgpu.so.1\n    containerPath: /usr/lib/libgpu.so.1\n    options:\n    - ro\n    - nosuid\n    - nodev\n    - bind\n");
    text
}
