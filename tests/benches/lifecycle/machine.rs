//! Where it was measured.

use std::fs;

/// Processors that the benchmark and all that it starts may use: the figures are of a small machine on any machine.
pub(crate) const CORES: usize = 2;

/// Keeps this process and its children on the first of the processors that it may use.
pub(crate) fn narrow() {
    let own = nix::unistd::Pid::from_raw(0);
    let allowed = nix::sched::sched_getaffinity(own).expect("read the affinity");
    let mut few = nix::sched::CpuSet::new();
    let all = (0..nix::sched::CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    for cpu in all.take(CORES) {
        few.set(cpu).expect("a processor");
    }
    nix::sched::sched_setaffinity(own, &few).expect("set the affinity");
}

/// How busy it is: processes that would run, in the last minute (`man 5 proc_loadavg`).
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

/// Processor, memory, kernel and cgroups in one sentence.
pub(crate) fn description() -> String {
    let cpu = field("/proc/cpuinfo", "model name");
    let memory = field("/proc/meminfo", "MemTotal");
    let kib: u64 = memory
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let unified = nix::sys::statfs::statfs("/sys/fs/cgroup")
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC);
    format!(
        "{CORES} processors ({cpu}), {} GiB of memory, Linux {}, cgroup v{}",
        kib / 1024 / 1024,
        kernel.trim().split('-').next().unwrap_or_default(),
        if unified { 2 } else { 1 }
    )
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_default();
    line.split_once(':')
        .map_or("?", |(_, value)| value.trim())
        .to_owned()
}
