//! What it costs to make the devices of a node in memory, as at `create` with a stale CDI spec, and to generate its spec.
//!
//! `make bench` runs it on the simulated node with eight GPUs that it has made. Nothing here passes or fails.
#![allow(clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fleet_discover::Live;
use fleet_host::{Host, Store};
use fleet_tests::toolkit::{Room, nvidia_ctk};

const ROUNDS: usize = 200;

fn main() {
    let node = PathBuf::from("/run/sim-8");
    if !node.is_dir() {
        println!("SKIP discover: {} is not there", node.display());
        return;
    }
    let live = Live::new(&node);
    let rebuild = || {
        let spec = live.rebuild("nvidia.com/gpu", true);
        let made = spec.expect("the node has GPUs").expect("a driver");
        assert!(made.spec.devices.len() > 8);
    };
    println!("| a node with 8 GPUs | median, ms | least, ms |\n|---|---|---|");
    row(
        "devices made in memory without NVML, as at `create` with a stale spec: first time",
        &[timed(rebuild)],
    );
    let times: Vec<_> = (0..ROUNDS).map(|_| timed(rebuild)).collect();
    row("the same, again", &times);
    kept(&node);
    let Some(ctl) = std::env::var_os("FLEET_CTL") else {
        return;
    };
    for source in ["proc", "nvml"] {
        let generate = || {
            let mut command = Command::new(&ctl);
            command.arg("--root-dir").arg(&node);
            command.args(["cdi", "generate", "--source", source]);
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            assert!(status.expect("run the tool").success());
        };
        let times: Vec<_> = (0..30).map(|_| timed(generate)).collect();
        row(
            &format!("`fleet-nvidia-ctl cdi generate --source {source}`"),
            &times,
        );
    }
    beside_nvidia_ctk(Path::new(&ctl));
}

/// Beside NVIDIA's own tool, where this machine has it.
fn beside_nvidia_ctk(ctl: &Path) {
    let Some(ctk) = nvidia_ctk() else {
        eprintln!("SKIP nvidia-ctk: it is not there; FLEET_NVIDIA_CTK names one");
        return;
    };
    let node = Path::new("/run/race-8");
    let simulate = ctl.with_file_name("fleet-simulate");
    let mut command = Command::new(simulate);
    command.args(["create", "--quiet", "--machine", "h100x8", "--root"]);
    assert!(command.arg(node).status().expect("make a node").success());
    let room = Room::new(node, &ctk, ctl).expect("furnish the node");
    let hook = ["--nvidia-cdi-hook-path", "/usr/bin/nvidia-cdi-hook"];
    let args = [&["cdi", "generate", "--output", "/race.yaml"], &hook[..]].concat();
    let (theirs, ours) = room.race(&args, 20);
    row("`cdi generate` by NVML, nvidia-ctk", &[theirs]);
    row("`cdi generate` by NVML beside it, ours", &[ours]);
}

/// As the runtime does it: what was made is kept, and taken again while the machine is the same.
fn kept(node: &Path) {
    let dir = PathBuf::from("/run/bench-cache");
    drop(fs::remove_dir_all(&dir));
    fs::create_dir_all(&dir).expect("make a directory for the cache");
    let owner = fs::metadata(&dir).expect("look at it").uid();
    let live = Live::new(node).keeping(Some(Store::below(&dir, owner)));
    let rebuild = || {
        drop(
            live.rebuild("nvidia.com/gpu", true)
                .expect("the node has GPUs"),
        )
    };
    // What has just changed is not kept.
    std::thread::sleep(Duration::from_secs(2));
    row(
        "the same, and kept for the next container",
        &[timed(rebuild)],
    );
    let kept = dir.join("fleet-nvidia-cache/nvidia.com-gpu.json");
    assert!(kept.is_file(), "nothing was kept");
    let times: Vec<_> = (0..ROUNDS).map(|_| timed(rebuild)).collect();
    row("taken from what was kept", &times);
    let forgotten = || {
        fs::remove_file(&kept).expect("remove what was kept");
        timed(rebuild)
    };
    let times: Vec<_> = (0..ROUNDS).map(|_| forgotten()).collect();
    row("kept anew, what was there being gone", &times);
}

fn timed(what: impl Fn()) -> Duration {
    let start = Instant::now();
    what();
    start.elapsed()
}

fn row(name: &str, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let (median, least) = (sorted[sorted.len() / 2], sorted[0]);
    println!("| {name} | {:.2} | {:.2} |", ms(median), ms(least));
}
