//! How two specs differ in what they give a container. The order of entries means nothing, but for hooks, which run in
//! theirs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{ContainerEdits, Spec};

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// `spec`, `common edits` or `device "0"`.
    pub of: String,
    /// What differs: `env`, `deviceNode`, `mount`, ….
    pub what: &'static str,
    /// Which one, by what tells it from others; empty where there is but one.
    pub which: String,
    /// In the first spec; `null` if only the second has it.
    pub first: Value,
    /// In the second spec; `null` if only the first has it.
    pub second: Value,
}

impl Spec {
    /// What differs in `other`; nothing if both mean the same.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        compare("spec", &outline(self), &outline(other), &mut found);
        let common = "common edits";
        let (first, second) = (parts(&self.container_edits), parts(&other.container_edits));
        compare(common, &first, &second, &mut found);
        let devices = |spec: &Self| -> BTreeMap<String, Parts> {
            let of = |device: &crate::Device| (device.name.clone(), of_device(device));
            spec.devices.iter().map(of).collect()
        };
        let (first, second) = (devices(self), devices(other));
        let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
        for name in names {
            let of = format!("device \"{name}\"");
            match (first.get(name), second.get(name)) {
                (Some(first), Some(second)) => compare(&of, first, second, &mut found),
                (first, _) => found.push(Difference {
                    of: "spec".to_owned(),
                    what: "device",
                    which: name.clone(),
                    first: first.map_or(Value::Null, |_| Value::Bool(true)),
                    second: first.map_or(Value::Bool(true), |_| Value::Null),
                }),
            }
        }
        found
    }
}

/// Entries by what they are and by what tells them apart.
type Parts = BTreeMap<(&'static str, String), Value>;

fn compare(of: &str, first: &Parts, second: &Parts, found: &mut Vec<Difference>) {
    let keys: BTreeSet<_> = first.keys().chain(second.keys()).collect();
    for key in keys {
        let value = |parts: &Parts| parts.get(key).cloned().unwrap_or(Value::Null);
        let (first, second) = (value(first), value(second));
        if first != second {
            found.push(Difference {
                of: of.to_owned(),
                what: key.0,
                which: key.1.clone(),
                first,
                second,
            });
        }
    }
}

fn outline(spec: &Spec) -> Parts {
    let mut parts = Parts::new();
    parts.insert(
        ("cdiVersion", String::new()),
        spec.cdi_version.trim_start_matches('v').into(),
    );
    parts.insert(("kind", String::new()), spec.kind.clone().into());
    annotations(&spec.annotations, &mut parts);
    parts
}

fn annotations(map: &BTreeMap<String, String>, parts: &mut Parts) {
    for (key, value) in map {
        parts.insert(("annotation", key.clone()), value.clone().into());
    }
}

fn of_device(device: &crate::Device) -> Parts {
    let mut parts = parts(&device.container_edits);
    annotations(&device.annotations, &mut parts);
    parts
}

fn parts(edits: &ContainerEdits) -> Parts {
    let mut parts = Parts::new();
    for entry in &edits.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        parts.insert(("env", name.to_owned()), value.into());
    }
    for node in &edits.device_nodes {
        // A path on the host that is the one in the container says nothing.
        let mut node = node.clone();
        if node.host_path.as_ref() == Some(&node.path) {
            node.host_path = None;
        }
        let value = without(&node, "path");
        parts.insert(("deviceNode", node.path), value);
    }
    for mount in &edits.mounts {
        let mut mount = mount.clone();
        mount.options.sort();
        let value = without(&mount, "containerPath");
        parts.insert(("mount", mount.container_path), value);
    }
    for device in &edits.net_devices {
        let value = device.name.clone().into();
        parts.insert(("netDevice", device.host_interface_name.clone()), value);
    }
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        parts.insert(("additionalGid", gid.to_string()), (*gid).into());
    }
    if let Some(rdt) = &edits.intel_rdt {
        parts.insert(("intelRdt", String::new()), json(rdt));
    }
    hooks(edits, &mut parts);
    parts
}

/// Each hook by its stage and arguments, with its place among those of its stage.
fn hooks(edits: &ContainerEdits, parts: &mut Parts) {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for hook in &edits.hooks {
        let place = places.entry(hook.hook_name.as_str()).or_default();
        *place += 1;
        let words = hook.args.get(1..).unwrap_or_default();
        let name = [hook.hook_name.as_str(), hook.path.as_str()]
            .into_iter()
            .chain(words.iter().map(String::as_str));
        let key = ("hook", name.collect::<Vec<_>>().join(" "));
        let mut value = without(hook, "args");
        if let Some(fields) = value.as_object_mut() {
            fields.shift_remove("hookName");
            fields.shift_remove("path");
            fields.insert("place".to_owned(), (*place).into());
        }
        parts.insert(key, value);
    }
}

fn json(part: &impl Serialize) -> Value {
    serde_json::to_value(part).unwrap_or(Value::Null)
}

/// The fields of an entry but the one that tells it apart.
fn without(part: &impl Serialize, field: &str) -> Value {
    match json(part) {
        Value::Object(mut fields) => {
            fields.shift_remove(field);
            Value::Object(fields)
        }
        _ => Value::Object(Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use crate::{Format, parse};

    fn spec(text: &str) -> Spec {
        parse(text.as_bytes(), Format::Yaml).unwrap()
    }

    const A: &str = "cdiVersion: 0.7.0\nkind: a.com/b\ncontainerEdits:\n  env: [A=1, B=2]\n  hooks:\n  - {hookName: createContainer, path: /h, args: [h, one]}\n  - {hookName: createContainer, path: /h, args: [h, two]}\ndevices:\n- name: x\n  containerEdits:\n    deviceNodes: [{path: /dev/x, major: 1, minor: 2}, {path: /dev/y, hostPath: /dev/y}]\n    mounts: [{hostPath: /h, containerPath: /c, options: [ro, bind]}]\n    additionalGids: [0, 44]\n";

    #[test]
    fn order_and_spelling_mean_nothing() {
        let same = "cdiVersion: v0.7.0\nkind: a.com/b\ndevices:\n- name: x\n  containerEdits:\n    additionalGids: [44]\n    mounts: [{hostPath: /h, containerPath: /c, options: [bind, ro]}]\n    deviceNodes: [{path: /dev/y}, {path: /dev/x, major: 1, minor: 2}]\ncontainerEdits:\n  hooks:\n  - {hookName: createContainer, path: /h, args: [other-name, one]}\n  - {hookName: createContainer, path: /h, args: [h, two]}\n  env: [B=2, A=1]\n";
        assert_eq!(spec(A).differences(&spec(same)), []);
    }

    #[test]
    fn each_difference_is_named() {
        let other = "cdiVersion: 0.7.0\nkind: a.com/c\ncontainerEdits:\n  env: [A=2]\n  hooks:\n  - {hookName: createContainer, path: /h, args: [h, two]}\n  - {hookName: createContainer, path: /h, args: [h, one]}\ndevices:\n- name: x\n  containerEdits:\n    deviceNodes: [{path: /dev/x, major: 1, minor: 3}, {path: /dev/y}]\n    mounts: [{hostPath: /h, containerPath: /c, options: [ro, bind]}]\n    additionalGids: [44]\n- name: z\n  containerEdits:\n    env: [Z=1]\n";
        let found = spec(A).differences(&spec(other));
        let shown: Vec<String> = found
            .iter()
            .map(|d| format!("{} {} {} {} {}", d.of, d.what, d.which, d.first, d.second))
            .collect();
        let want = [
            "spec kind  \"a.com/b\" \"a.com/c\"",
            "common edits env A \"1\" \"2\"",
            "common edits env B \"2\" null",
            "common edits hook createContainer /h one {\"place\":1} {\"place\":2}",
            "common edits hook createContainer /h two {\"place\":2} {\"place\":1}",
            "device \"x\" deviceNode /dev/x {\"major\":1,\"minor\":2} {\"major\":1,\"minor\":3}",
            "spec device z null true",
        ];
        assert_eq!(shown, want);
    }

    #[test]
    fn a_spec_does_not_differ_from_itself_and_the_other_way_is_the_mirror() {
        for seed in 0..200 {
            let (one, two) = (Dice::new(seed).spec(), Dice::new(seed + 1000).spec());
            assert_eq!(one.differences(&one), [], "seed {seed}");
            let mirrored: Vec<_> = two
                .differences(&one)
                .into_iter()
                .map(|d| Difference {
                    first: d.second,
                    second: d.first,
                    ..d
                })
                .collect();
            assert_eq!(one.differences(&two), mirrored, "seed {seed}");
        }
    }
}
