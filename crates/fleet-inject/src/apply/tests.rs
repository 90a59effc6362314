//! Repetition: our edits over our edits, and over those of an engine that uses the Go library.

use std::io;
use std::path::PathBuf;

use fleet_cdi::{ContainerEdits, DeviceNode, Hook, Mount, NetDevice, QualifiedName, SourcedEdits};
use serde_json::{Map, json};

use super::*;
use crate::host::{DeviceKind, DeviceStat, HostProbe};
use crate::plan::{Edit, Origin};
use crate::request::{Asked, Request, Source};

/// Every path exists; a device's numbers follow from its name.
struct Host;

impl HostProbe for Host {
    fn lstat_device(&self, path: &str) -> io::Result<DeviceStat> {
        Ok(DeviceStat {
            kind: DeviceKind::Char,
            major: 195,
            minor: minor(path),
            mode: 0o660,
        })
    }

    fn exists(&self, _path: &str) -> bool {
        true
    }
}

fn minor(path: &str) -> u32 {
    path.bytes()
        .fold(0, |sum, byte| sum * 7 % 509 + u32::from(byte))
}

/// `xorshift64*`: the same cases on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    fn some<T>(&mut self, most: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }
}

const NAMES: [&str; 5] = ["A", "AB", "NVIDIA_VISIBLE_DEVICES", "PATH", "B"];
const PATHS: [&str; 7] = [
    "/",
    "/proc",
    "/dev",
    "/usr/lib/libcuda.so.1",
    "/usr/lib",
    "/usr/bin/nvidia-smi",
    "/run/a/b/c",
];
const DEVICES: [&str; 5] = [
    "/dev/nvidia0",
    "/dev/nvidia1",
    "/dev/nvidiactl",
    "/dev/dri/card0",
    "/dev/fuse",
];

fn random_spec(dice: &mut Dice) -> Value {
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "x-unknown": {"z": 1, "a": [null]},
        "process": {
            "user": {"uid": dice.below(2) * 1000, "gid": 0},
            "env": dice.some(6, |d| format!("{}={}", d.pick(&NAMES), d.below(3))),
        },
        "mounts": dice.some(6, |d| json!({"destination": d.pick(&PATHS), "source": "s", "x": d.below(9)})),
        "linux": {
            "resources": {"devices": dice.some(3, |d| {
                let minor = minor(d.pick(&DEVICES));
                json!({"allow": d.below(2) == 1, "type": "c", "major": 195, "minor": minor, "access": "rwm"})
            })},
            "devices": dice.some(2, |d| json!({"path": d.pick(&DEVICES), "type": "c", "major": 1, "minor": 3})),
        },
    });
    if dice.below(2) == 1 {
        spec["hooks"] = json!({"createContainer": [{"path": "/engine/hook"}], "poststop": []});
    }
    if dice.below(2) == 1 {
        spec["process"]["user"]["additionalGids"] = json!([44]);
    }
    if dice.below(3) == 1 {
        spec["linux"] = Value::Null;
    }
    spec
}

fn random_edits(dice: &mut Dice, part: u64) -> ContainerEdits {
    let hook = |path: &str, args: &[&str]| Hook {
        hook_name: "createContainer".to_owned(),
        path: path.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["NVIDIA_CTK_DEBUG=false".to_owned()],
        timeout: None,
    };
    let mut hooks = dice.some(2, |d| {
        let link = format!("x::/usr/lib/link{}", d.below(3));
        hook(
            "/usr/bin/nvidia-cdi-hook",
            &["nvidia-cdi-hook", "create-symlinks", "--link", &link],
        )
    });
    if dice.below(2) == 1 {
        hooks.insert(
            0,
            hook("/opt/vendor/hook", &["hook", &format!("part{part}")]),
        );
    }
    ContainerEdits {
        env: dice.some(4, |d| {
            format!("{}={}", d.pick(&NAMES), d.pick(&["void", "x=y", ""]))
        }),
        device_nodes: dice.some(4, |d| DeviceNode {
            path: d.pick(&DEVICES).to_owned(),
            host_path: (d.below(2) == 1).then(|| format!("/host{}", d.pick(&DEVICES))),
            permissions: (d.below(2) == 1).then(|| "rw".to_owned()),
            ..DeviceNode::default()
        }),
        mounts: dice.some(4, |d| Mount {
            host_path: format!("/h/{}", d.below(3)),
            container_path: d.pick(&PATHS).to_owned(),
            options: vec!["rbind".to_owned(), "ro".to_owned()],
            ..Mount::default()
        }),
        net_devices: dice.some(1, |d| NetDevice {
            host_interface_name: format!("eth{}", d.below(2)),
            name: "net0".to_owned(),
        }),
        additional_gids: dice.some(3, |d| u32::try_from(d.below(50)).unwrap()),
        hooks,
        ..ContainerEdits::default()
    }
}

fn random_request(dice: &mut Dice) -> (Request, Vec<SourcedEdits>) {
    let name = |id: u64| {
        format!("nvidia.com/gpu={id}")
            .parse::<QualifiedName>()
            .unwrap()
    };
    let spec_path = PathBuf::from("/etc/cdi/n.yaml");
    let sourced = |device, edits| SourcedEdits {
        spec_path: spec_path.clone(),
        device,
        edits,
    };
    let mut resolved = vec![sourced(None, random_edits(dice, 9))];
    let mut request = Request::default();
    for id in 0..=dice.below(3) {
        resolved.push(sourced(Some(name(id)), random_edits(dice, id)));
        request.devices.push(Asked {
            name: name(id),
            source: Source::Environment("V".to_owned()),
        });
    }
    (request, resolved)
}

/// What the Go library's `InjectDevices` does to a spec, written down independently of the code under test.
fn go_inject(spec: &mut Value, resolved: &[SourcedEdits]) {
    for section in ["process", "linux"] {
        if spec[section].is_null() {
            spec[section] = json!({});
        }
    }
    let edits = || resolved.iter().map(|sourced| &sourced.edits);
    for entry in edits().flat_map(|e| &e.env) {
        let name = entry.split('=').next().unwrap().to_owned() + "=";
        let env = array(&mut spec["process"]["env"]);
        match env
            .iter()
            .rposition(|other| other.as_str().unwrap().starts_with(&name))
        {
            Some(at) => env[at] = json!(entry),
            None => env.push(json!(entry)),
        }
    }
    let uid = spec["process"]["user"]["uid"].as_u64().unwrap_or(0);
    for node in edits().flat_map(|e| &e.device_nodes) {
        let minor = minor(node.host_path.as_deref().unwrap_or(&node.path));
        let mut device = json!({"path": node.path, "type": "c", "major": 195, "minor": minor, "fileMode": 0o660});
        if uid > 0 {
            device["uid"] = json!(uid);
        }
        let devices = array(&mut spec["linux"]["devices"]);
        devices.retain(|other| other["path"] != device["path"]);
        devices.push(device);
        let access = node.permissions.as_deref().unwrap_or("rwm");
        let rule =
            json!({"allow": true, "type": "c", "major": 195, "minor": minor, "access": access});
        array(&mut spec["linux"]["resources"]["devices"]).push(rule);
    }
    for net in edits().flat_map(|e| &e.net_devices) {
        spec["linux"]["netDevices"][&net.host_interface_name] = json!({"name": net.name});
    }
    for mount in edits().flat_map(|e| &e.mounts) {
        let mounts = array(&mut spec["mounts"]);
        if let Some(at) = mounts
            .iter()
            .position(|other| other["destination"] == mount.container_path.as_str())
        {
            mounts.remove(at);
        }
        let (destination, source) = (&mount.container_path, &mount.host_path);
        mounts
            .push(json!({"destination": destination, "source": source, "options": mount.options}));
    }
    if edits().any(|e| !e.mounts.is_empty()) {
        array(&mut spec["mounts"])
            .sort_by_key(|m| m["destination"].as_str().unwrap().matches('/').count());
    }
    for hook in edits().flat_map(|e| &e.hooks) {
        let hook_json = json!({"path": hook.path, "args": hook.args, "env": hook.env});
        array(&mut spec["hooks"][&hook.hook_name]).push(hook_json);
    }
    for gid in edits().flat_map(|e| &e.additional_gids) {
        let gids = array(&mut spec["process"]["user"]["additionalGids"]);
        if *gid != 0 && !gids.contains(&json!(gid)) {
            gids.push(json!(gid));
        }
    }
}

fn array(value: &mut Value) -> &mut Vec<Value> {
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().unwrap()
}

/// `null`, `[]` and `{}` say the same as nothing.
fn without_empty(value: &Value) -> Value {
    let is_empty = |value: &Value| value.is_null() || *value == json!([]) || *value == json!({});
    match value {
        Value::Object(map) => {
            let kept = map
                .iter()
                .map(|(key, value)| (key.clone(), without_empty(value)));
            Value::Object(
                kept.filter(|(_, value)| !is_empty(value))
                    .collect::<Map<_, _>>(),
            )
        }
        other => other.clone(),
    }
}

fn run(spec: &mut Value, request: &Request, resolved: &[SourcedEdits]) -> Applied {
    let plan = Plan::build(request, resolved.to_vec(), spec, &Host).unwrap();
    plan.apply(spec).unwrap()
}

#[test]
fn twice_is_once() {
    let mut dice = Dice(0x5EED_0001);
    for round in 0..2000 {
        let mut once = random_spec(&mut dice);
        let (request, resolved) = random_request(&mut dice);
        let plan = Plan::build(&request, resolved.clone(), &once, &Host).unwrap();
        let first = plan.apply(&mut once).unwrap();
        let mut twice = once.clone();
        assert_eq!(plan.apply(&mut twice).unwrap(), first, "round {round}");
        assert_eq!(twice.to_string(), once.to_string(), "round {round}");
        // A new run of the runtime over its own result plans anew.
        assert_eq!(run(&mut twice, &request, &resolved), first, "round {round}");
        assert_eq!(twice.to_string(), once.to_string(), "round {round}");
    }
}

#[test]
fn over_an_engines_injection_is_once() {
    let mut dice = Dice(0x5EED_0002);
    for round in 0..2000 {
        let mut alone = random_spec(&mut dice);
        let (request, resolved) = random_request(&mut dice);
        let mut after_engine = alone.clone();
        go_inject(&mut after_engine, &resolved);
        let engine_only = after_engine.clone();
        let first = run(&mut alone, &request, &resolved);
        let second = run(&mut after_engine, &request, &resolved);
        assert_eq!(second, first, "round {round}: {engine_only}");
        assert_eq!(
            without_empty(&after_engine),
            without_empty(&alone),
            "round {round}: {engine_only}"
        );
    }
}

#[test]
fn an_engines_injection_without_a_request_only_loses_its_hook_programs() {
    let mut dice = Dice(0x5EED_0003);
    let mut adopted = 0;
    for round in 0..500 {
        let mut spec = random_spec(&mut dice);
        let (_, resolved) = random_request(&mut dice);
        go_inject(&mut spec, &resolved);
        let mut ours = spec.clone();
        let applied = run(&mut ours, &Request::default(), &[]);
        if let Some(hooks) = spec
            .pointer_mut("/hooks/createContainer")
            .and_then(Value::as_array_mut)
        {
            hooks.retain(|hook| hook["path"] != "/usr/bin/nvidia-cdi-hook");
        }
        assert_eq!(without_empty(&ours), without_empty(&spec), "round {round}");
        adopted += applied.rootfs.len();
    }
    assert!(adopted > 100, "{adopted}");
}

#[test]
fn wrong_types_stop_the_plan() {
    let plan_of = |change: Change| {
        let origin = Origin {
            source: Source::Engine,
            spec_file: None,
            device: None,
        };
        Plan {
            edits: vec![Edit { change, origin }],
            ..Plan::default()
        }
    };
    let cases = [
        (
            json!({"process": {"env": "A=1"}}),
            Change::Env {
                name: "A".into(),
                value: "1".into(),
            },
            "`process.env`",
        ),
        (
            json!({"linux": 1}),
            Change::IntelRdt { rdt: json!({}) },
            "`linux`",
        ),
        (
            json!([]),
            Change::AdditionalGid { gid: 1 },
            "`process.user`",
        ),
    ];
    for (mut spec, change, place) in cases {
        let err = plan_of(change).apply(&mut spec).unwrap_err().to_string();
        assert!(
            err.starts_with("failed to inject devices: ") && err.contains(place),
            "{err}"
        );
    }
}
