//! Against the parser: a file that defines a device is never left out.

use super::*;
use crate::dice::Dice;
use crate::parse::{Format, parse};
use crate::{QualifiedName, emit};

fn wanted(kind: &str, name: &str) -> Wanted {
    let name: QualifiedName = format!("{kind}={name}").parse().unwrap();
    Wanted::of([&name])
}

/// The devices of a valid file; every one of them must be seen. `None` where it is no valid file.
fn all_seen(text: &str, format: Format) -> Option<usize> {
    let spec = parse(text.as_bytes(), format).ok()?;
    for device in &spec.devices {
        assert!(
            wanted(&spec.kind, &device.name).may_be_in(text.as_bytes()),
            "{} is overlooked:\n{text}",
            device.name
        );
    }
    assert!(
        Wanted::default()
            .and_kind(&spec.kind)
            .may_be_in(text.as_bytes())
    );
    Some(spec.devices.len())
}

fn shipped() -> Vec<(String, Format)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cdi");
    let mut texts = Vec::new();
    for dir in ["nodes", "vendors"] {
        for entry in std::fs::read_dir(root.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let format = match path.extension().and_then(|kind| kind.to_str()) {
                Some("yaml") => Format::Yaml,
                Some("json") => Format::Json,
                _ => continue,
            };
            texts.push((std::fs::read_to_string(path).unwrap(), format));
        }
    }
    texts
}

#[test]
fn files_of_generators_are_told_apart() {
    let texts = shipped();
    let mut told = 0;
    for (text, format) in texts {
        assert!(all_seen(&text, format).is_some());
        let spec = parse(text.as_bytes(), format).unwrap();
        if text.contains('*') {
            assert!(wanted("x.example/y", "0").may_be_in(text.as_bytes()));
            continue;
        }
        told += 1;
        for absent in ["4711", "99:1", "no-such-device"] {
            assert!(
                !wanted(&spec.kind, absent).may_be_in(text.as_bytes()),
                "{absent} in {}",
                spec.kind
            );
        }
        assert!(!wanted("x.example/y", "0").may_be_in(text.as_bytes()));
        assert!(!Wanted::default().may_be_in(text.as_bytes()));
    }
    assert!(told >= 7, "{told}");
}

/// Each device's name is `16`, in every spelling that the parser takes.
#[test]
fn spellings_of_a_name() {
    let around = |line: &str| {
        format!(
            "cdiVersion: 0.6.0\nkind: v.com/c\ndevices:\n- {line}\n  containerEdits: {{env: [A=1]}}\n"
        )
    };
    let flow = |inner: &str| {
        format!(
            "cdiVersion: 0.6.0\nkind: v.com/c\ndevices: [{{{inner}, containerEdits: {{env: [A=1]}}}}]\n"
        )
    };
    let mut read = 0;
    for line in [
        "name: 16",
        "name: '16'",
        "name: \"16\"",
        "name: 0x10",
        "name: 020",
        "name: 0o20",
        "name: 0b10000",
        "name: 1_6",
        "name: +16",
        "name: 16.0",
        "name: 1.6e1",
        "name: 1.6e+1",
        "name: 16e+00",
        "name:   16   # comment",
        "name:\n    16",
        "name:\n    # comment\n    16",
        "name: !!str 16",
        "name: ! 16",
        "name: &x 16",
        "name: |-\n    16",
        "name: >-\n    16",
        "NAME: 16",
        "Name : 16",
        "\"name\": 16",
        "'name' : 16",
        "\"n\\x61me\": 16",
        "name: \"\\x316\"",
        "&k name: 16",
        "!!str name: 16",
        "? name\n  : 16",
        "? \"name\" # comment\n  : 16",
        "? name # comment\n  : 16",
    ] {
        read += usize::from(all_seen(&around(line), Format::Yaml).is_some());
    }
    for inner in [
        "name: 16",
        "\"name\":16",
        "\"name\" :16",
        "\"name\"\n:\n16",
        "\"name\" # comment\n : 16",
        "'name': 16",
        "name: 1_6",
    ] {
        read += usize::from(all_seen(&flow(inner), Format::Yaml).is_some());
        read += usize::from(all_seen(&flow(inner), Format::Json).is_some());
    }
    let elsewhere = "cdiVersion: 0.6.0\nkind: v.com/c\nannotations: {a.com/x: &n \"16\", a.com/k: &k name}\ndevices:\n- *k : *n\n  containerEdits: {env: [A=1]}\n";
    read += usize::from(all_seen(elsewhere, Format::Yaml).is_some());
    assert!(read > 35, "only {read} of these are valid");
}

#[test]
fn no_change_of_a_file_hides_a_device() {
    const PIECES: [&str; 28] = [
        " ", "\n", "\n  ", "-", ":", ": ", "#", " # x\n", "'", "\"", "[", "]", "{", "}", ",",
        "&a ", "*a", "|-\n", "!!str ", "\\", "?", "0", "_", "+", ".0", "0x", "name", "é",
    ];
    let mut texts = Vec::new();
    for seed in 0..24 {
        let spec = serde_json::to_value(Dice::new(seed).spec()).unwrap();
        texts.push((emit::yaml(&spec), Format::Yaml));
        texts.push((spec.to_string(), Format::Json));
        let pretty = serde_json::to_string_pretty(&spec).unwrap();
        texts.push((pretty, Format::Json));
    }
    let small = |name: &str| {
        format!(
            "cdiVersion: 0.6.0\nkind: v.com/c\ndevices:\n- name: {name}\n  containerEdits:\n    env:\n    - A=1\n"
        )
    };
    texts.extend(
        ["0", "1:0", "gpu0", "\"7\"", "'all'", "0x1f", "true"]
            .map(|name| (small(name), Format::Yaml)),
    );
    let mut dice = Dice::new(5);
    let mut valid = 0;
    for (text, format) in texts {
        assert!(all_seen(&text, format).is_some(), "{text}");
        // Where the names are, mostly: the rest of a file says little about them.
        let spots: Vec<usize> = text.match_indices("name").map(|(at, _)| at).collect();
        for _ in 0..80 {
            let mut text = text.clone();
            for _ in 0..=dice.below(2) {
                let near = spots[dice.below(spots.len())] + dice.below(14);
                let Some(at) = (near..text.len()).find(|at| text.is_char_boundary(*at)) else {
                    continue;
                };
                match dice.below(3) {
                    0 => drop(text.remove(at)),
                    1 => text.insert_str(at, PIECES[dice.below(PIECES.len())]),
                    _ => {
                        text.remove(at);
                        text.insert_str(at, PIECES[dice.below(PIECES.len())]);
                    }
                }
            }
            valid += usize::from(all_seen(&text, format).is_some());
        }
    }
    assert!(valid > 400, "{valid} were valid");
}
