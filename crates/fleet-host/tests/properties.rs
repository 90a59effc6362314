//! Containers made up at random, on the hosts of the golden cases: whatever is asked for, the answer is a plan that can be
//! repeated, or one line.

// Helpers of a test fail as the test does.
#![allow(clippy::unwrap_used)]

mod paper;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fleet_host::{Env, inject_with, prepare};
use fleet_inject::Edit;
use serde_json::{Value, json};

use paper::PaperHost;

/// `xorshift64*`: the same cases on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(value).unwrap() % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// Some of them, joined by commas.
    fn list(&mut self, from: &[&str]) -> String {
        let count = self.below(4);
        let items: Vec<_> = (0..count).map(|_| self.pick(from)).collect();
        items.join(",")
    }
}

const DEVICES: [&str; 18] = [
    "MIG-GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c/7/0",
    "MIG-GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c/2/0",
    "0",
    "1",
    "all",
    "none",
    "void",
    "9",
    "",
    " 0",
    "GPU-x",
    "nvidia.com/gpu=1",
    "runtime.nvidia.com/gpu=0",
    "mode=imex",
    "id=7",
    "mode=gdrcopy",
    "nvidia.com/imex-channel=0",
    "\u{1b}[0m\n",
];
const CAPABILITIES: [&str; 10] = [
    "compute", "utility", "video", "graphics", "display", "ngx", "compat32", "all", "", "vidoe",
];
const OTHERS: [(&str, &[&str]); 11] = [
    (
        "NVIDIA_REQUIRE_CUDA",
        &[
            "cuda>=12.0",
            "cuda>=99",
            "brand=tesla,driver>=470 cuda>=12",
            "nonsense",
            "",
            "cuda>=\u{7}",
        ],
    ),
    ("NVIDIA_REQUIRE_DRIVER", &["driver>=500", "driver<500"]),
    ("NVIDIA_DISABLE_REQUIRE", &["1", "0"]),
    ("NVIDIA_GDS", &["enabled", "no"]),
    ("NVIDIA_MOFED", &["enabled"]),
    ("NVIDIA_GDRCOPY", &["enabled"]),
    ("NVIDIA_NVSWITCH", &["enabled", ""]),
    (
        "NVIDIA_IMEX_CHANNELS",
        &["0", "channel7", "5", "all", "../x"],
    ),
    ("NVIDIA_MIG_CONFIG_DEVICES", &["all", "0"]),
    ("NVIDIA_MIG_MONITOR_DEVICES", &["ALL"]),
    ("CUDA_VERSION", &["8.0", "13.9.1", "cu121"]),
];

fn container(dice: &mut Dice) -> Value {
    let mut env = vec!["PATH=/bin".to_owned(), "malformed".to_owned()];
    if dice.below(8) > 0 {
        env.push(format!("NVIDIA_VISIBLE_DEVICES={}", dice.list(&DEVICES)));
    }
    if dice.below(2) == 0 {
        env.push(format!(
            "NVIDIA_DRIVER_CAPABILITIES={}",
            dice.list(&CAPABILITIES)
        ));
    }
    for (name, values) in OTHERS {
        if dice.below(6) == 0 {
            env.push(format!("{name}={}", dice.pick(values)));
        }
    }
    let mut spec =
        json!({"process": {"env": env, "user": {"uid": 1000 * dice.below(2)}}, "x-kept": [null]});
    if dice.below(3) == 0 {
        spec["process"]["capabilities"] = json!({"bounding": ["CAP_SYS_ADMIN"]});
    }
    if dice.below(4) == 0 {
        let name = dice.pick(&[
            "nvidia.com/gpu=0",
            "nvidia.com/gpu=1",
            "runtime.nvidia.com/gpu=0",
            "x",
            "a.com/b=c",
        ]);
        spec["annotations"] = json!({"cdi.k8s.io/x": name});
    }
    if dice.below(8) == 0 {
        spec["hooks"] = json!({"createContainer": [{"path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", "/lib"]}]});
    }
    spec
}

fn hosts() -> Vec<PaperHost> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/inject");
    let host = |host: &str, cdi: &str| {
        PaperHost::new(
            &cases.join(host).join("host"),
            cases.join(cdi).join("cdi"),
            PathBuf::from("/none"),
        )
    };
    vec![
        host("driver", "driver"),
        host("fabric", "common"),
        host("common", "common"),
    ]
}

fn edits(plan: &[Edit]) -> BTreeSet<String> {
    plan.iter()
        .map(|edit| serde_json::to_string(&edit.change).unwrap())
        .collect()
}

#[test]
fn whatever_is_asked_for_the_answer_is_a_plan_or_one_line() {
    let hosts = hosts();
    let env = Env::default();
    let (mut planned, mut refused) = (0, 0);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..800 {
        let before = container(&mut dice);
        let host = &hosts[dice.below(hosts.len())];
        let mut spec = before.clone();
        let prepared = prepare(&spec, &env, host);
        match inject_with(&mut spec, &env, host) {
            Ok(outcome) => {
                let prepared = prepared.unwrap();
                planned += usize::from(!prepared.plan.is_empty());
                assert_eq!(spec["x-kept"], before["x-kept"]);
                let once = spec.clone();
                inject_with(&mut spec, &env, host).unwrap();
                assert_eq!(
                    spec, once,
                    "the second time changes the spec again: {before}"
                );
                let said = outcome.warnings.iter().chain(&prepared.warnings);
                assert!(
                    said.clone().all(|text| !text.contains(char::is_control)),
                    "{:?}",
                    said.collect::<Vec<_>>()
                );
                assert!(!prepared.explanation().text().contains('\u{1b}'));
            }
            Err(err) => {
                let text = err.to_string();
                assert!(prepared.is_err(), "explained, but {text}: {before}");
                assert!(!text.contains(char::is_control), "{text:?}");
                assert!(text.len() < 5000, "{text}");
                refused += 1;
            }
        }
    }
    assert!(planned > 100 && refused > 100, "{planned} {refused}");
}

/// Capabilities take away and never add, and what they take away is what is said to be left out.
#[test]
fn capabilities_take_away_what_they_say() {
    let hosts = hosts();
    let env = Env::default();
    let mut dice = Dice(42);
    let mut compared = 0;
    for _ in 0..300 {
        let mut narrow = container(&mut dice);
        let host = &hosts[dice.below(hosts.len())];
        let mut wide = narrow.clone();
        let list = wide["process"]["env"].as_array_mut().unwrap();
        list.push("NVIDIA_DRIVER_CAPABILITIES=all".into());
        let list = narrow["process"]["env"].as_array_mut().unwrap();
        list.push(
            format!(
                "NVIDIA_DRIVER_CAPABILITIES={}",
                dice.list(&CAPABILITIES[..8])
            )
            .into(),
        );
        let (Ok(narrow), Ok(wide)) = (prepare(&narrow, &env, host), prepare(&wide, &env, host))
        else {
            continue;
        };
        let (few, all) = (edits(&narrow.plan.edits), edits(&wide.plan.edits));
        assert!(wide.plan.left_out.is_empty());
        // The one edit that may change is the loader's list of directories.
        let changed = |edit: &&String| !edit.contains("update-ld-cache");
        assert!(few.iter().filter(changed).all(|edit| all.contains(edit)));
        let gone = all.difference(&few).filter(changed).count();
        let groups = all
            .difference(&few)
            .filter(|edit| edit.contains("additional-gid"))
            .count();
        let said: BTreeSet<_> = narrow
            .plan
            .left_out
            .iter()
            .map(|left| (left.what, &left.which))
            .collect();
        assert_eq!(gone - groups, said.len(), "{:?}", narrow.plan.left_out);
        compared += usize::from(gone > 0);
    }
    assert!(compared > 10, "{compared}");
}
