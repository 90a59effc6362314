use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::super::hierarchy::at;
use super::*;

/// A directory that stands for a cgroup: files hold what was last written to them.
struct Fake {
    dir: PathBuf,
    version: Version,
}

impl Fake {
    fn new(version: Version, files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "fleet-limits-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        for (file, value) in files {
            fs::write(dir.join(file), value).unwrap();
        }
        Self { dir, version }
    }

    fn apply(&self, resources: &Value) -> Result<()> {
        let controllers: &[&str] = match self.version {
            Version::V1 => &[
                "memory", "cpu", "cpuset", "pids", "blkio", "net_cls", "net_prio", "hugetlb",
                "rdma",
            ],
            Version::V2 => &[],
        };
        apply(
            self.version,
            &[(at(&self.dir, controllers), self.dir.clone())],
            resources,
        )
    }

    fn holds(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
    }
}

const V2: [(&str, &str); 17] = [
    ("memory.max", ""),
    ("memory.swap.max", ""),
    ("memory.low", ""),
    ("memory.high", ""),
    ("memory.current", "500"),
    ("memory.swap.current", "0"),
    ("cpu.weight", ""),
    ("cpu.max", ""),
    ("cpu.max.burst", ""),
    ("cpu.idle", ""),
    ("cpuset.cpus", ""),
    ("pids.max", ""),
    ("io.max", ""),
    ("io.weight", ""),
    ("hugetlb.2MB.max", ""),
    ("hugetlb.2MB.rsvd.max", ""),
    ("rdma.max", ""),
];

const V1: [(&str, &str); 16] = [
    ("memory.limit_in_bytes", ""),
    ("memory.memsw.limit_in_bytes", ""),
    ("memory.soft_limit_in_bytes", ""),
    ("memory.swappiness", ""),
    ("memory.oom_control", "oom_kill_disable 1"),
    ("memory.kmem.tcp.limit_in_bytes", ""),
    ("cpu.shares", ""),
    ("cpu.cfs_quota_us", ""),
    ("cpu.cfs_period_us", ""),
    ("cpu.cfs_burst_us", ""),
    ("cpu.idle", ""),
    ("pids.max", ""),
    ("blkio.bfq.weight", ""),
    ("blkio.throttle.read_bps_device", ""),
    ("net_cls.classid", ""),
    ("net_prio.ifpriomap", ""),
];

fn check(version: Version, files: &[(&str, &str)], cases: &[(Value, &str, &str)]) {
    for (resources, file, want) in cases {
        let fake = Fake::new(version, files);
        fake.apply(resources)
            .unwrap_or_else(|err| panic!("{resources}: {err}"));
        assert_eq!(fake.holds(file), *want, "{resources} {file}");
    }
}

#[test]
fn files_of_v2() {
    check(
        Version::V2,
        &V2,
        &[
            (
                json!({"memory": {"limit": 1000, "swap": 1500}}),
                "memory.max",
                "1000",
            ),
            (
                json!({"memory": {"limit": 1000, "swap": 1500}}),
                "memory.swap.max",
                "500",
            ),
            (
                json!({"memory": {"limit": 1000, "swap": 1000}}),
                "memory.swap.max",
                "0",
            ),
            (
                json!({"memory": {"limit": 1000, "swap": -1}}),
                "memory.swap.max",
                "max",
            ),
            (json!({"memory": {"limit": -1}}), "memory.max", "max"),
            (json!({"memory": {"limit": -1}}), "memory.swap.max", "max"),
            (
                json!({"memory": {"limit": -1, "swap": 700}}),
                "memory.swap.max",
                "700",
            ),
            (json!({"memory": {"limit": u64::MAX}}), "memory.max", "max"),
            (json!({"memory": {"limit": 1000}}), "memory.swap.max", ""),
            (json!({"memory": {"limit": 0, "swap": 0}}), "memory.max", ""),
            (
                json!({"memory": {"limit": null, "disableOOMKiller": false, "swappiness": -1}}),
                "memory.max",
                "",
            ),
            (
                json!({"memory": {"reservation": 7, "useHierarchy": true}}),
                "memory.low",
                "7",
            ),
            (
                json!({"memory": {"limit": 600, "checkBeforeUpdate": true}}),
                "memory.max",
                "600",
            ),
            (json!({"cpu": {"shares": 1024}}), "cpu.weight", "100"),
            (
                json!({"cpu": {"shares": 1024, "idle": 1}}),
                "cpu.weight",
                "",
            ),
            (json!({"cpu": {"idle": 1}}), "cpu.idle", "1"),
            (json!({"cpu": {"idle": 0, "shares": 2}}), "cpu.idle", "0"),
            (
                json!({"cpu": {"quota": 5000, "period": 10000}}),
                "cpu.max",
                "5000 10000",
            ),
            (json!({"cpu": {"quota": 5000}}), "cpu.max", "5000 100000"),
            (json!({"cpu": {"quota": -1}}), "cpu.max", "max 100000"),
            (json!({"cpu": {"period": 5000}}), "cpu.max", "max 5000"),
            (json!({"cpu": {"quota": 0, "period": 0}}), "cpu.max", ""),
            (json!({"cpu": {"burst": 0}}), "cpu.max.burst", "0"),
            (
                json!({"cpu": {"cpus": "0-1", "mems": ""}}),
                "cpuset.cpus",
                "0-1",
            ),
            (json!({"pids": {"limit": 7}}), "pids.max", "7"),
            (json!({"pids": {"limit": 0}}), "pids.max", "max"),
            (json!({"pids": {"limit": -1}}), "pids.max", "max"),
            (json!({"blockIO": {"weight": 10}}), "io.weight", "1"),
            (json!({"blockIO": {"weight": 1000}}), "io.weight", "10000"),
            (
                json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 500}]}}),
                "io.weight",
                "8:0 4950",
            ),
            (
                json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]}}),
                "io.max",
                "8:0 rbps=9",
            ),
            (
                json!({"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}]}}),
                "io.max",
                "8:0 wiops=max",
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": u64::MAX}]}),
                "hugetlb.2MB.max",
                "18446744073709551615",
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]}),
                "hugetlb.2MB.rsvd.max",
                "4",
            ),
            (
                json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}}}),
                "rdma.max",
                "mlx5_1 hca_handle=3 hca_object=10000",
            ),
            (json!({"rdma": {"mlx5_1": {}}}), "rdma.max", ""),
            (
                json!({"unified": {"memory.high": "90", "memory.low": "1"}, "memory": {"reservation": 7}}),
                "memory.low",
                "1",
            ),
            (
                json!({"network": {"classID": 0, "priorities": []}}),
                "pids.max",
                "",
            ),
        ],
    );
}

#[test]
fn files_of_v1() {
    check(
        Version::V1,
        &V1,
        &[
            (
                json!({"memory": {"limit": 1000, "swap": 1500}}),
                "memory.limit_in_bytes",
                "1000",
            ),
            (
                json!({"memory": {"limit": 1000, "swap": 1500}}),
                "memory.memsw.limit_in_bytes",
                "1500",
            ),
            (
                json!({"memory": {"limit": -1}}),
                "memory.memsw.limit_in_bytes",
                "-1",
            ),
            (
                json!({"memory": {"reservation": 5}}),
                "memory.soft_limit_in_bytes",
                "5",
            ),
            (
                json!({"memory": {"swappiness": 0}}),
                "memory.swappiness",
                "0",
            ),
            (
                json!({"memory": {"kernelTCP": 5}}),
                "memory.kmem.tcp.limit_in_bytes",
                "5",
            ),
            (json!({"cpu": {"shares": 1024}}), "cpu.shares", "1024"),
            (json!({"cpu": {"quota": -7}}), "cpu.cfs_quota_us", "-1"),
            (
                json!({"cpu": {"period": 5000}}),
                "cpu.cfs_period_us",
                "5000",
            ),
            (json!({"cpu": {"burst": 10}}), "cpu.cfs_burst_us", "10"),
            (
                json!({"blockIO": {"weight": 500}}),
                "blkio.bfq.weight",
                "500",
            ),
            (
                json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 0}]}}),
                "blkio.throttle.read_bps_device",
                "8:0 0",
            ),
            (
                json!({"network": {"classID": 1048577}}),
                "net_cls.classid",
                "1048577",
            ),
            (
                json!({"network": {"priorities": [{"name": "eth0", "priority": 3}]}}),
                "net_prio.ifpriomap",
                "eth0 3",
            ),
            (json!({"unified": {}}), "pids.max", ""),
        ],
    );
}

#[test]
fn without_swap_accounting_swap_is_no_error() {
    let fake = Fake::new(Version::V1, &[("memory.limit_in_bytes", "")]);
    fake.apply(&json!({"memory": {"limit": 10, "swap": 20}}))
        .unwrap();
    let fake = Fake::new(Version::V2, &[("memory.max", "")]);
    fake.apply(&json!({"memory": {"limit": 10, "swap": 10}}))
        .unwrap();
    let err = fake
        .apply(&json!({"memory": {"limit": 10, "swap": 20}}))
        .unwrap_err();
    assert!(err.to_string().contains("memory.swap.max"), "{err}");
}

#[test]
fn the_oom_killer_comes_back() {
    // Plain files are not cut off by a write, as the kernel's need not be.
    for (disable, now, want) in [
        (true, "oom_kill_disable 0", '1'),
        (false, "oom_kill_disable 1", '0'),
        (false, "oom_kill_disable 0", 'o'),
    ] {
        let fake = Fake::new(Version::V1, &[("memory.oom_control", now)]);
        fake.apply(&json!({"memory": {"disableOOMKiller": disable}}))
            .unwrap();
        assert!(
            fake.holds("memory.oom_control").starts_with(want),
            "{disable} {now}"
        );
    }
}

#[test]
fn a_part_of_cpu_max_keeps_the_other() {
    let fake = Fake::new(Version::V2, &[("cpu.max", "5000 20000")]);
    fake.apply(&json!({"cpu": {"period": 50000}})).unwrap();
    assert_eq!(fake.holds("cpu.max").trim(), "5000 50000");
}

#[test]
fn swap_alone_counts_from_the_memory_limit_in_force() {
    let fake = Fake::new(
        Version::V2,
        &[("memory.max", "100\n"), ("memory.swap.max", "")],
    );
    fake.apply(&json!({"memory": {"swap": 150}})).unwrap();
    assert_eq!(fake.holds("memory.swap.max"), "50");
}

#[test]
fn what_cannot_be_set_is_named() {
    for (version, resources, word) in [
        (
            Version::V2,
            json!({"memory": {"limit": "9"}}),
            "memory.limit",
        ),
        (
            Version::V2,
            json!({"memory": {"limit": 1.5}}),
            "memory.limit",
        ),
        (Version::V2, json!({"memory": {"limit": -2}}), "limit"),
        (Version::V2, json!({"memory": []}), "memory"),
        (
            Version::V2,
            json!({"memory": {"limit": 9, "swap": 5}}),
            "swap",
        ),
        (Version::V2, json!({"memory": {"swap": 5}}), "memory limit"),
        (Version::V2, json!({"memory": {"kernel": 5}}), "kernel"),
        (
            Version::V2,
            json!({"memory": {"swappiness": 5}}),
            "swappiness",
        ),
        (
            Version::V2,
            json!({"memory": {"disableOOMKiller": true}}),
            "disableOOMKiller",
        ),
        (
            Version::V2,
            json!({"memory": {"useHierarchy": false}}),
            "useHierarchy",
        ),
        (
            Version::V2,
            json!({"memory": {"limit": 400, "checkBeforeUpdate": true}}),
            "in use",
        ),
        (
            Version::V2,
            json!({"cpu": {"realtimeRuntime": 5}}),
            "realtimeRuntime",
        ),
        (Version::V2, json!({"cpu": {"shares": -1}}), "shares"),
        (Version::V2, json!({"cpu": {"mems": "0"}}), "cpuset.mems"),
        (Version::V2, json!({"blockIO": {"weight": 9}}), "between"),
        (
            Version::V2,
            json!({"blockIO": {"leafWeight": 10}}),
            "leafWeight",
        ),
        (
            Version::V2,
            json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "rate": 1}]}}),
            "numbers",
        ),
        (
            Version::V2,
            json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1}]}}),
            "rate",
        ),
        (Version::V2, json!({"network": {"classID": 1}}), "network"),
        (
            Version::V2,
            json!({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}),
            "pageSize",
        ),
        (
            Version::V2,
            json!({"hugepageLimits": [{"pageSize": "2MB"}]}),
            "limit",
        ),
        (
            Version::V2,
            json!({"hugepageLimits": {"pageSize": "2MB"}}),
            "hugepageLimits",
        ),
        (Version::V2, json!({"unified": {"../x.y": "1"}}), "unified"),
        (
            Version::V2,
            json!({"unified": {"cgroup.procs": "1"}}),
            "cgroup.procs",
        ),
        (Version::V2, json!({"unified": {"memory": "1"}}), "memory"),
        (
            Version::V2,
            json!({"unified": {"memory.max": 1}}),
            "memory.max",
        ),
        (
            Version::V2,
            json!({"unified": {"misc.max": "1"}}),
            "misc.max",
        ),
        (Version::V1, json!({"unified": {"memory.max": "1"}}), "v2"),
        (Version::V1, json!({"memory": {"kernel": 5}}), "memory.kmem"),
        (
            Version::V1,
            json!({"blockIO": {"leafWeight": 10}}),
            "leaf_weight",
        ),
        (
            Version::V1,
            json!({"rdma": {"x": {"hcaHandles": 1}}}),
            "rdma.max",
        ),
    ] {
        let fake = Fake::new(version, if version == Version::V1 { &V1 } else { &V2 });
        let text = fake
            .apply(&resources)
            .expect_err(&resources.to_string())
            .to_string();
        assert!(text.contains(word), "{resources}: {text}");
    }
}

#[test]
fn a_missing_controller_is_named() {
    let leaves = [];
    let err = apply(Version::V1, &leaves, &json!({"pids": {"limit": 5}}))
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("pids.max") && err.contains("no pids cgroup controller"),
        "{err}"
    );
}

#[test]
fn demands() {
    for (resources, want) in [
        (json!({}), None),
        (json!(null), None),
        (
            json!({"devices": [{"allow": false}], "memory": {}, "hugepageLimits": [], "cpu": {"shares": null}}),
            None,
        ),
        (json!({"pids": {"limit": 5}}), Some("pids")),
        (json!({"hugepageLimits": [{}]}), Some("hugepageLimits")),
    ] {
        assert_eq!(demanded(&resources).as_deref(), want, "{resources}");
    }
}
