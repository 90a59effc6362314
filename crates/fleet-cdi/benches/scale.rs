//! One device out of 10 000 in 1000 spec files, and one MIG part out of 16 GPUs with 7 each: time and memory of finding
//! it, as `create` does.
//!
//! `cargo bench -p fleet-cdi --profile fast`. Each figure is taken by a process of its own, since memory is the peak of
//! a process and the runtime is a new one each time. The page cache is warm. Nothing here passes or fails.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use fleet_cdi::{QualifiedName, Registry, Wanted};

const FILES: usize = 1000;
const DEVICES: usize = 10;
const ROUNDS: usize = 21;

/// A set of spec files.
#[derive(Clone, Copy)]
struct Specs {
    format: &'static str,
    /// How many kinds the files are of.
    kinds: usize,
    /// Before the number of each device's name. A bare number has other spellings, so files cost a closer look.
    prefix: &'static str,
}

fn main() {
    if let Ok(dir) = env::var("FLEET_BENCH_SCALE") {
        return once(Path::new(&dir));
    }
    println!("{FILES} files of {DEVICES} devices, one device asked for; {ROUNDS} processes each");
    println!("| specs | size, kB | median, ms | least, ms | most, ms | peak memory, MiB |");
    println!("|---|---|---|---|---|---|");
    println!("{}", row("no specs", None));
    for format in ["json", "yaml"] {
        for (what, kinds, prefix) in [
            ("each file a kind of its own", FILES, "gpu"),
            ("ten kinds", 10, "gpu"),
            ("all of one kind", 1, "gpu"),
            ("all of one kind, names are numbers", 1, ""),
        ] {
            let specs = Specs {
                format,
                kinds,
                prefix,
            };
            println!("{}", row(&format!("{format}, {what}"), Some(specs)));
        }
    }
    let dir = work();
    fs::write(dir.join("mig.yaml"), mig()).expect("write a spec");
    let asked = "nvidia.com/gpu=15:6";
    println!(
        "{}",
        measured("yaml, 16 GPUs of 7 MIG parts", &dir, Some(asked))
    );
}

/// Finds one device and says how long it took and what it cost.
fn once(dir: &Path) {
    let name = env::var("FLEET_BENCH_DEVICE").expect("a device");
    let name = name.parse::<QualifiedName>().expect("a name");
    let start = Instant::now();
    let registry = Registry::scan_for(&[dir.to_path_buf()], &Wanted::of([&name]));
    let found = registry.resolve(std::slice::from_ref(&name)).is_ok();
    let took = start.elapsed().as_secs_f64() * 1000.0;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak
        .and_then(|text| text.split_whitespace().next())
        .unwrap_or("0");
    println!("{took} {peak} {found}");
}

fn work() -> PathBuf {
    let dir = env::temp_dir().join(format!("fleet-scale-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("make the directory");
    dir
}

fn row(what: &str, specs: Option<Specs>) -> String {
    let dir = work();
    let asked = specs.map(|specs| {
        write(&dir, specs);
        format!("vendor0.example.com/gpu={}5", specs.prefix)
    });
    measured(what, &dir, asked.as_deref())
}

fn measured(what: &str, dir: &Path, asked: Option<&str>) -> String {
    let files = fs::read_dir(dir).expect("list the directory");
    let size: u64 = files
        .map(|entry| {
            entry
                .and_then(|entry| entry.metadata())
                .map_or(0, |meta| meta.len())
        })
        .sum();
    let (mut times, mut memory) = (Vec::new(), 0.0_f64);
    for _ in 0..ROUNDS {
        let (time, peak) = measure(dir, asked);
        times.push(time);
        memory = memory.max(peak);
    }
    fs::remove_dir_all(dir).expect("remove the directory");
    times.sort_by(f64::total_cmp);
    let (least, most) = (times[0], times[ROUNDS - 1]);
    format!(
        "| {what} | {} | {:.2} | {least:.2} | {most:.2} | {:.1} |",
        size / 1000,
        times[ROUNDS / 2],
        memory / 1024.0
    )
}

fn measure(dir: &Path, asked: Option<&str>) -> (f64, f64) {
    let own = env::current_exe().expect("our own path");
    let out = Command::new(own)
        .env("FLEET_BENCH_SCALE", dir)
        .env(
            "FLEET_BENCH_DEVICE",
            asked.unwrap_or("none.example.com/gpu=0"),
        )
        .output()
        .expect("start a process");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let want = if asked.is_some() { "true" } else { "false" };
    assert_eq!(words.get(2), Some(&want), "{text}");
    let number = |at: usize| words[at].parse().expect("a number");
    (number(0), number(1))
}

/// Writes the files. The one that is asked for is in the first of its kind; a device name is
/// unique within a kind.
fn write(dir: &Path, specs: Specs) {
    let Specs {
        format,
        kinds,
        prefix,
    } = specs;
    for file in 0..FILES {
        let (kind, first) = (file % kinds, file / kinds * DEVICES);
        let text = if format == "json" {
            json(kind, first, prefix)
        } else {
            yaml(kind, first, prefix)
        };
        let path: PathBuf = dir.join(format!("{file:04}.{format}"));
        fs::write(path, text).expect("write a spec");
    }
}

fn json(kind: usize, first: usize, prefix: &str) -> String {
    let devices: Vec<String> = (first..first + DEVICES)
        .map(|n| format!(r#"{{"name":"{prefix}{n}","containerEdits":{{"deviceNodes":[{{"path":"/dev/gpu{n}","major":195,"minor":{n},"permissions":"rwm"}}],"env":["GPU{n}=1"]}}}}"#))
        .collect();
    format!(
        r#"{{"cdiVersion":"0.5.0","kind":"vendor{kind}.example.com/gpu","devices":[{}],"containerEdits":{{"mounts":[{{"hostPath":"/usr/lib/libgpu.so.1","containerPath":"/usr/lib/libgpu.so.1","options":["ro","nosuid","nodev","bind"]}}]}}}}"#,
        devices.join(",")
    )
}

fn yaml(kind: usize, first: usize, prefix: &str) -> String {
    let mut text =
        format!("---\ncdiVersion: 0.5.0\nkind: vendor{kind}.example.com/gpu\ndevices:\n");
    for n in first..first + DEVICES {
        let _ = write!(
            text,
            "- name: \"{prefix}{n}\"\n  containerEdits:\n    deviceNodes:\n    - path: /dev/gpu{n}\n      major: 195\n      minor: {n}\n      permissions: rwm\n    env:\n    - GPU{n}=1\n"
        );
    }
    text.push_str("containerEdits:\n  mounts:\n  - hostPath: /usr/lib/libgpu.so.1\n    containerPath: /usr/lib/libgpu.so.1\n    options:\n    - ro\n    - nosuid\n    - nodev\n    - bind\n");
    text
}

/// As `nvidia-ctk` names them: whole GPUs by index, parts by GPU and part, and all of them.
fn mig() -> String {
    let mut text = String::from("---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n");
    let mut device = |name: &str, nodes: &[String]| {
        let _ = write!(
            text,
            "- name: \"{name}\"\n  containerEdits:\n    deviceNodes:\n"
        );
        for node in nodes {
            let _ = writeln!(text, "    - path: {node}");
        }
    };
    let mut all = Vec::new();
    for gpu in 0..16 {
        let whole = format!("/dev/nvidia{gpu}");
        device(&gpu.to_string(), std::slice::from_ref(&whole));
        all.push(whole.clone());
        for part in 0..7 {
            let caps = |which: usize| {
                format!(
                    "/dev/nvidia-caps/nvidia-cap{}",
                    30 + gpu * 64 + part * 4 + which
                )
            };
            device(&format!("{gpu}:{part}"), &[whole.clone(), caps(0), caps(1)]);
        }
    }
    device("all", &all);
    text
}
