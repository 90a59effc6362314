//! Rules one by one, files as vendors write them, broken and hostile ones.

use std::path::PathBuf;

use super::*;
use crate::dice::Dice;
use crate::{emit, read_spec};

const GOOD: &str = r#"{"cdiVersion":"0.7.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":{"env":["A=b"]}}]}"#;

fn json(text: &str) -> Result<Spec, String> {
    parse(text.as_bytes(), Format::Json).map_err(|err| err.to_string())
}

fn yaml(text: &str) -> Result<Spec, String> {
    parse(text.as_bytes(), Format::Yaml).map_err(|err| err.to_string())
}

#[test]
fn whole_spec() {
    let cases = [
        (
            "\"0.7.0\"",
            "\"0.7.1\"",
            "invalid version \"0.7.1\"; known are 0.3.0, ",
        ),
        ("\"0.7.0\"", "\"1.2.0\"", "invalid version"),
        ("\"0.7.0\"", "\"0.2.0\"", "at least v0.3.0"),
        ("\"0.7.0\"", "\"\"", "invalid version"),
        ("\"0.7.0\"", "7", "number 7, so it is an invalid version"),
        (
            "\"0.7.0\"",
            "0.5",
            "number 0.5, so it is an invalid version; hint",
        ),
        ("\"0.7.0\"", "[]", "cdiVersion is not a string"),
        ("\"0.7.0\"", "null", "cdiVersion is missing"),
        ("\"kind\"", "\"sort\"", "kind is missing"),
        (
            "\"kind\"",
            "\"KIND\":\"x\",\"kind\"",
            "field \"KIND\" is given twice",
        ),
        (
            "\"kind\"",
            "\"kind\":\"x\",\"kind\"",
            "key \"kind\" is given twice",
        ),
        ("v.com/c", "v.com", "not vendor/class"),
        ("v.com/c", "/c", "the vendor is empty"),
        ("v.com/c", "v/", "the class is empty"),
        ("v.com/c", "v/c/d", "class \"c/d\" contains '/'"),
        (
            "v.com/c",
            "1v/c",
            "invalid kind \"1v/c\": the vendor \"1v\" does not begin with a letter",
        ),
        ("v.com/c", "v/c.", "class"),
        (
            "\"devices\":",
            "\"color\":1,\"devices\":",
            "line 1, column 40: unknown field \"color\" in the spec",
        ),
        (
            "\"devices\":",
            "\"annotations\":[],\"devices\":",
            "annotations is not an object",
        ),
        (
            "\"devices\":",
            "\"annotations\":{\"a\":[]},\"devices\":",
            "annotations.a is not a string",
        ),
        (
            "\"devices\":",
            "\"containerEdits\":{\"env\":[\"=\"]},\"devices\":",
            "containerEdits: env[0]: invalid environment",
        ),
        (
            "\"devices\":",
            "\"containerEdits\":[],\"devices\":",
            "containerEdits is not an object",
        ),
        (
            "[{\"name\":\"d\",\"containerEdits\":{\"env\":[\"A=b\"]}}]",
            "[]",
            "no devices",
        ),
        (
            "[{\"name\":\"d\",\"containerEdits\":{\"env\":[\"A=b\"]}}]",
            "null",
            "no devices",
        ),
        (
            "[{\"name\":\"d\",\"containerEdits\":{\"env\":[\"A=b\"]}}]",
            "{}",
            "devices is not a list",
        ),
        (
            "[{\"name\":\"d\",\"containerEdits\":{\"env\":[\"A=b\"]}}]",
            "[null]",
            "devices[0] is not an object",
        ),
        (
            "{\"env\":[\"A=b\"]}",
            "{}",
            "device \"d\" has empty containerEdits",
        ),
        (
            "{\"env\":[\"A=b\"]}",
            "null",
            "device \"d\" has empty containerEdits",
        ),
        (
            "\"name\":\"d\"",
            "\"name\":\"-d\"",
            "devices[0]: the device name",
        ),
        ("\"name\":\"d\"", "\"name\":\"../d\"", "device name"),
        (
            "\"name\":\"d\"",
            "\"name\":\"\"",
            "the device name is empty",
        ),
        (
            "\"name\":\"d\"",
            "\"Nam\":\"d\"",
            "devices[0].name is missing",
        ),
        (
            "[{\"name\"",
            "[{\"name\":\"d\",\"containerEdits\":{\"env\":[\"A=b\"]}},{\"name\"",
            "\"d\" is defined twice",
        ),
    ];
    check(&cases);
}

#[test]
fn edits() {
    let cases = [
        (
            "A=b",
            "=b",
            "device \"d\": env[0]: invalid environment variable \"=b\"",
        ),
        ("A=b", "A", "invalid environment variable \"A\""),
        (
            "A=b",
            "A=\\u0000",
            "devices[0].containerEdits.env[0] contains a NUL byte",
        ),
        ("[\"A=b\"]", "\"A=b\"", "env is not a list"),
        ("[\"A=b\"]", "[null]", "env[0] is null, not a string"),
        (
            "\"env\":[\"A=b\"]",
            "\"deviceNodes\":[{\"path\":\"/d\",\"type\":\"x\"}]",
            "deviceNodes[0]: device \"/d\": invalid type \"x\"",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"deviceNodes\":[{\"path\":\"/d\",\"permissions\":\"rx\"}]",
            "invalid permissions \"rx\"",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"deviceNodes\":[{\"path\":\"/d\",\"uid\":-1}]",
            "deviceNodes[0].uid is -1, out of range",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"deviceNodes\":[{\"path\":\"/d\",\"gid\":4294967296}]",
            "gid is 4294967296, out of range",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"deviceNodes\":[{\"path\":\"/d\",\"major\":9223372036854775808}]",
            "major",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"deviceNodes\":[{\"path\":\"/d\",\"major\":1.5}]",
            "not a whole number",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"deviceNodes\":[{\"path\":\"/d\",\"fileMode\":\"438\"}]",
            "fileMode is not a number",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"deviceNodes\":[{\"path\":\"\"}]",
            "empty path",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"deviceNodes\":[{}]",
            "deviceNodes[0].path is missing",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"deviceNodes\":[{\"path\":\"/d\",\"mode\":1}]",
            "unknown field \"mode\" in devices[0].containerEdits.deviceNodes[0]",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"mounts\":[{\"hostPath\":\"/a\"}]",
            "containerPath is missing",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"mounts\":[{\"hostPath\":\"\",\"containerPath\":\"/a\"}]",
            "mounts[0]: a mount has an empty path: hostPath",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"mounts\":[{\"hostPath\":\"/a\",\"containerPath\":\"\"}]",
            "empty path: containerPath",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"hooks\":[{\"hookName\":\"x\",\"path\":\"/a\"}]",
            "hooks[0]: invalid hook name \"x\"",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"hooks\":[{\"hookName\":\"prestart\",\"path\":\"\"}]",
            "a prestart hook has an empty path",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"hooks\":[{\"hookName\":\"prestart\",\"path\":\"/a\",\"env\":[\"x\"]}]",
            "environment",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"intelRdt\":{\"closID\":\"a/b\"}",
            "intelRdt: invalid closID \"a/b\"",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"intelRdt\":{\"closID\":\"..\"}",
            "closID",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"intelRdt\":{\"closID\":\".\"}",
            "closID",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"intelRdt\":{\"closID\":\"a\\nb\"}",
            "closID",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"intelRdt\":{\"enableCMT\":\"yes\"}",
            "enableCMT is not a boolean",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"additionalGids\":[-1]",
            "additionalGids[0] is -1, out of range",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"additionalGIDs\":[[]]",
            "additionalGids[0] is not a number",
        ),
        (
            "\"env\":[\"A=b\"]",
            "\"netDevices\":[{\"hostInterfaceName\":\"a\",\"name\":\"b\"}]",
            "at least v1.1.0",
        ),
    ];
    check(&cases);
    let long = format!("\"intelRdt\":{{\"closID\":\"{}\"}}", "x".repeat(4096));
    check(&[("\"env\":[\"A=b\"]", &long, "closID")]);
    json(&GOOD.replace("\"env\":[\"A=b\"]", &long[..].replacen('x', "", 1))).unwrap();
}

fn check(cases: &[(&str, &str, &str)]) {
    json(GOOD).unwrap();
    for (from, to, word) in cases {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from}");
        let err = json(&text).unwrap_err();
        assert!(err.contains(word), "{to}: {err}");
        assert!(!err.contains('\n'), "{err}");
    }
}

#[test]
fn unknown_fields_are_named_where_they_are() {
    let edits = |edits: &str| {
        format!(
            r#"{{"cdiVersion":"1.1.0","kind":"v/c","devices":[{{"name":"d","containerEdits":{{{edits}}}}}]}}"#
        )
    };
    for (text, place) in [
        (edits(r#""x":1"#), ""),
        (
            edits(r#""deviceNodes":[{"path":"/d","x":1}]"#),
            ".deviceNodes[0]",
        ),
        (
            edits(r#""mounts":[{"hostPath":"/d","containerPath":"/d","x":1}]"#),
            ".mounts[0]",
        ),
        (
            edits(r#""hooks":[{"hookName":"prestart","path":"/d","x":1}]"#),
            ".hooks[0]",
        ),
        (
            edits(r#""netDevices":[{"hostInterfaceName":"a","name":"b","x":1}]"#),
            ".netDevices[0]",
        ),
        (edits(r#""intelRdt":{"closID":"a","x":1}"#), ".intelRdt"),
    ] {
        let want = format!("unknown field \"x\" in devices[0].containerEdits{place}");
        let err = json(&text).unwrap_err();
        assert!(err.ends_with(&want), "{err}");
    }
    let err = json(&GOOD.replace("\"name\"", "\"x\":1,\"name\"")).unwrap_err();
    assert!(err.ends_with("unknown field \"x\" in devices[0]"), "{err}");
    let err = json("not JSON").unwrap_err();
    assert!(err.starts_with("line 1, column 2: expected ident"), "{err}");
}

#[test]
fn net_devices_and_rdt_of_the_newest_version() {
    let new = GOOD.replace("0.7.0", "1.1.0");
    for (edits, word) in [
        (
            r#""netDevices":[{"hostInterfaceName":"a","name":"b"},{"hostInterfaceName":"c","name":"d"}]"#,
            None,
        ),
        (
            r#""netDevices":[{"hostInterfaceName":"a","name":"a"}]"#,
            None,
        ),
        (
            r#""netDevices":[{"hostInterfaceName":"a","name":"b"},{"hostInterfaceName":"a","name":"c"}]"#,
            Some("netDevices[1]: network device \"a\" as \"c\" is given twice"),
        ),
        (
            r#""netDevices":[{"hostInterfaceName":"a","name":"b"},{"hostInterfaceName":"c","name":"b"}]"#,
            Some("twice"),
        ),
        (
            r#""netDevices":[{"hostInterfaceName":"","name":"b"}]"#,
            Some("empty name"),
        ),
        (
            r#""netDevices":[{"hostInterfaceName":"a","name":""}]"#,
            Some("empty name"),
        ),
        (
            r#""netDevices":[{"name":"a"}]"#,
            Some("hostInterfaceName is missing"),
        ),
        (
            r#""intelRdt":{"schemata":["L3:0=f"],"enableMonitoring":true}"#,
            None,
        ),
        (r#""intelRdt":{}"#, None),
        (r#""intelRdt":{"closID":"/"}"#, None),
        (
            r#""intelRdt":{"enableCMT":false}"#,
            Some("do not exist since v1.1.0"),
        ),
    ] {
        let result = json(&new.replace("\"env\":[\"A=b\"]", edits)).map(drop);
        match word {
            None => assert_eq!(result, Ok(()), "{edits}"),
            Some(word) => assert!(result.unwrap_err().contains(word), "{edits}"),
        }
    }
    let legacy = GOOD.replace(
        "\"env\":[\"A=b\"]",
        r#""intelRdt":{"enableCMT":true,"enableMBM":false}"#,
    );
    let rdt = json(&legacy)
        .unwrap()
        .devices
        .remove(0)
        .container_edits
        .intel_rdt
        .unwrap();
    assert_eq!((rdt.enable_cmt, rdt.enable_mbm), (Some(true), Some(false)));
}

#[test]
fn what_the_go_library_forgives() {
    json(
        &GOOD
            .replace("cdiVersion", "CDIversion")
            .replace("\"env\"", "\"ENV\""),
    )
    .unwrap();
    let spec = json(
        &GOOD
            .replace("\"d\"", "7")
            .replace("\"0.7.0\"", "\"v0.7.0\""),
    )
    .unwrap();
    assert_eq!(spec.devices[0].name, "7");
    for trailing in [
        GOOD.replace("]}}]}", "],}},],}"),
        format!("# comment\n{GOOD}"),
        format!("\u{feff}{GOOD}"),
        "cdiVersion: 0.5.0\nkind: v/c\ndevices: [{name: d, containerEdits: {env: [A=b]}}]\n"
            .to_owned(),
    ] {
        json(&trailing).unwrap();
        yaml(&trailing).unwrap();
    }
    let empty = GOOD.replace("\"env\"", "\"mounts\":null,\"deviceNodes\":[{\"path\":\"/d\",\"hostPath\":\"\",\"type\":null,\"permissions\":\"none\"}],\"env\"");
    let node = &json(&empty).unwrap().devices[0]
        .container_edits
        .device_nodes[0];
    assert_eq!(
        (node.host_path.as_deref(), node.device_type.as_deref()),
        (None, None)
    );
}

#[test]
fn scalars_of_yaml() {
    let text = "---\ncdiVersion: 0.5.0\nkind: v.com/c\ndevices:\n  - name: \"0\"\n    containerEdits:\n      deviceNodes:\n        - path: /dev/x\n          fileMode: MODE\n";
    for (mode, want) in [
        ("0640", 0o640),
        ("0o640", 0o640),
        ("0x1a0", 0o640),
        ("416", 0o640),
        ("+416", 416),
        ("416.0", 416),
        ("!!int \"0640\"", 416),
    ] {
        let spec = yaml(&text.replace("MODE", mode)).unwrap();
        assert_eq!(
            spec.devices[0].container_edits.device_nodes[0].file_mode,
            Some(want),
            "{mode}"
        );
    }
    for (mode, word) in [
        ("\"0640\"", "is not a number"),
        ("0999", "out of range"),
        ("rw", "not a whole number"),
        ("-1", "out of range"),
        ("1e99", "not a whole number"),
        ("[]", "not a number"),
    ] {
        let mode = mode.replace("0999", "0777777777777");
        let err = yaml(&text.replace("MODE", &mode)).unwrap_err();
        assert!(
            err.contains(word) && err.contains("devices[0].containerEdits.deviceNodes[0].fileMode"),
            "{mode}: {err}"
        );
        assert!(err.starts_with("line 9, column 21: "), "{err}");
    }
    let named = |name: &str| {
        yaml(&text.replace("MODE", "1").replace("\"0\"", name))
            .map(|spec| spec.devices[0].name.clone())
    };
    for (name, want) in [
        ("0", "0"),
        ("007", "7"),
        ("0x10", "16"),
        ("1.5", "1.5"),
        ("yes", "yes"),
        ("true", "true"),
        ("0:1", "0:1"),
        ("!!str 007", "007"),
        ("GPU-1e3", "GPU-1e3"),
    ] {
        assert_eq!(named(name).unwrap(), want);
    }
    assert!(
        named("~")
            .unwrap_err()
            .contains("devices[0].name is missing")
    );
}

#[test]
fn booleans_of_yaml() {
    let text = "cdiVersion: 1.1.0\nkind: v/c\ndevices:\n- name: d\n  containerEdits:\n    intelRdt:\n      enableMonitoring: WORD\n";
    for (word, want) in [
        ("yes", true),
        ("On", true),
        ("true", true),
        ("no", false),
        ("n", false),
        ("FALSE", false),
    ] {
        let spec = yaml(&text.replace("WORD", word)).unwrap();
        assert_eq!(
            spec.devices[0]
                .container_edits
                .intel_rdt
                .as_ref()
                .unwrap()
                .enable_monitoring,
            Some(want)
        );
    }
    for word in ["1", "\"yes\"", "maybe"] {
        assert!(
            yaml(&text.replace("WORD", word))
                .unwrap_err()
                .contains("is not a boolean"),
            "{word}"
        );
    }
}

#[test]
fn errors_name_the_line() {
    let text = "cdiVersion: 0.5.0\nkind: v/c\n# größer\ndevices:\n- name: d\n  containerEdits:\n    env: [A=b]\n    Color: 1\n";
    assert_eq!(
        yaml(text).unwrap_err(),
        "line 8, column 5: unknown field \"Color\" in devices[0].containerEdits"
    );
    let quick = text.replace("größer", "x").replace("[A=b]", "\n    - A=b");
    assert_eq!(
        yaml(&quick).unwrap_err(),
        "line 9, column 5: unknown field \"Color\" in devices[0].containerEdits"
    );
    assert_eq!(
        json("{\n \"kind\": 1,\n \"kind\": 2}").unwrap_err(),
        "line 3, column 11: key \"kind\" is given twice"
    );
    assert_eq!(
        json("{\n  \"é\": 1, \"cdiVersion\": \"1.0.0\", \"kind\": []}").unwrap_err(),
        "line 2, column 34: kind is not a string"
    );
    assert!(
        json("{\"kind\": \n]")
            .unwrap_err()
            .starts_with("line 2, column 1: expected value")
    );
    assert_eq!(
        yaml("a: b\nc: \u{fffd}\n").unwrap_err(),
        "line 1, column 1: cdiVersion is missing"
    );
    assert_eq!(
        parse(b"a: b\nc: \xff\n", Format::Yaml)
            .unwrap_err()
            .to_string(),
        "line 2, column 4: it is not UTF-8 text"
    );
}

#[test]
fn hostile_files() {
    let deep = |open: &str, close: &str| {
        format!(
            "{{\"cdiVersion\":{}{}}}",
            open.repeat(50_000),
            close.repeat(50_000)
        )
    };
    let long = "x".repeat(100_000);
    let cases = [
        (deep("[", "]"), ""),
        (deep("{\"a\":", "}"), ""),
        (format!("{{\"kind\":\"{long}\""), ""),
        (
            format!("{{\"{long}\":1,\"cdiVersion\":\"1.0.0\",\"kind\":\"v/c\"}}"),
            "unknown field \"xxx",
        ),
        (
            format!("{{\"cdiVersion\":\"{long}\",\"kind\":\"v/c\"}}"),
            "invalid version",
        ),
        (
            format!(
                "{{{}\"cdiVersion\":\"1.0.0\"}}",
                (0..100).map(|n| format!("\"k{n}\":0,")).collect::<String>()
            ),
            "too many fields",
        ),
        ("\0".to_owned(), ""),
        (
            "{\"cdiVersion\":\"1.0.0\\u0000\",\"kind\":\"v/c\"}".to_owned(),
            "NUL",
        ),
        (" ".repeat(MAX_SIZE + 1), "larger than"),
        ("\u{7}\u{1b}[2J".to_owned(), ""),
    ];
    for (text, word) in cases {
        for format in [Format::Json, Format::Yaml] {
            let err = parse(text.as_bytes(), format).unwrap_err().to_string();
            assert!(
                err.len() < 500 && !err.contains(char::is_control),
                "{err:?}"
            );
            assert!(err.contains(word), "{format:?}: {err}");
        }
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut dice = Dice::new(2);
    for seed in 0..60 {
        let value = serde_json::to_value(Dice::new(seed).spec()).unwrap();
        for (text, format) in [
            (value.to_string(), Format::Json),
            (emit::yaml(&value), Format::Yaml),
        ] {
            for _ in 0..20 {
                let mut bytes = text.clone().into_bytes();
                for _ in 0..=dice.below(4) {
                    let at = dice.below(bytes.len());
                    bytes[at] = u8::try_from(dice.below(256)).unwrap();
                }
                bytes.truncate(dice.below(bytes.len() * 2).max(1));
                if let Err(err) = parse(&bytes, format) {
                    assert!(!err.to_string().contains('\n'), "{err}");
                }
            }
        }
    }
}

#[test]
fn what_is_serialised_is_parsed_to_the_same() {
    for seed in 0..300 {
        let spec = Dice::new(seed).spec();
        spec.validate().unwrap();
        let value = serde_json::to_value(&spec).unwrap();
        assert_eq!(json(&value.to_string()).as_ref(), Ok(&spec), "seed {seed}");
        let text = emit::yaml(&value);
        assert_eq!(yaml(&text).as_ref(), Ok(&spec), "seed {seed}:\n{text}");
        assert_eq!(
            serde_json::from_value::<Spec>(value).unwrap(),
            spec,
            "seed {seed}"
        );
    }
}

fn data(dir: &str) -> Vec<PathBuf> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../cdi")
        .join(dir);
    let mut files: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn specs_of_vendors() {
    let want = [
        ("amd.json", "amd.com/gpu", 3, "0.6.0"),
        ("anchors.yaml", "fpga.example.com/card", 2, "0.5.0"),
        ("intel.yaml", "intel.com/gpu", 2, "0.5.0"),
        ("network.yaml", "network.example.com/sriov.vf", 2, "1.1.0"),
        ("nvidia-mig.json", "nvidia.com/gpu", 3, "0.5.0"),
        ("nvidia-x86_64-2gpu.yaml", "nvidia.com/gpu", 5, "0.7.0"),
        ("rdt-legacy.json", "rdt.example.com/monitor", 1, "0.7.0"),
        ("rdt.yaml", "rdt.example.com/class", 2, "1.1.0"),
    ];
    let got: Vec<_> = data("vendors")
        .iter()
        .map(|path| {
            let spec = read_spec(path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (
                name,
                spec.kind.clone(),
                spec.devices.len(),
                spec.minimum_version().to_string(),
            )
        })
        .collect();
    let want = want.map(|(file, kind, devices, least)| {
        (file.to_owned(), kind.to_owned(), devices, least.to_owned())
    });
    assert_eq!(got, want);
}

#[test]
fn nvidia_in_full() {
    let spec = read_spec(&data("vendors")[5]).unwrap();
    let names: Vec<_> = spec.devices.iter().map(|device| &*device.name).collect();
    assert_eq!((names[0], names[1], names[4]), ("0", "1", "all"));
    let all = &spec.devices[4].container_edits;
    assert_eq!(
        (all.device_nodes.len(), &*all.additional_gids),
        (6, &[44, 993][..])
    );
    let (node, hook) = (&all.device_nodes[0], &all.hooks[0]);
    assert_eq!(
        (node.major, node.minor, node.file_mode),
        (Some(195), Some(0), Some(0o666))
    );
    assert_eq!((&*hook.hook_name, hook.args.len()), ("createContainer", 10));
    let common = &spec.container_edits;
    assert_eq!(
        (
            common.env.len(),
            common.device_nodes.len(),
            common.hooks.len()
        ),
        (2, 4, 6)
    );
    assert_eq!(common.env[1], "NVIDIA_VISIBLE_DEVICES=void");
    assert_eq!(common.mounts.len(), 56);
    let last: Vec<_> = common.hooks.iter().map(|hook| &*hook.args[1]).collect();
    assert_eq!(
        last,
        [
            "create-symlinks",
            "create-symlinks",
            "enable-cuda-compat",
            "update-ldcache",
            "disable-device-node-modification",
            "update-application-profile"
        ]
    );
}

#[test]
fn anchors_and_octal_modes() {
    let files = data("vendors");
    let anchors = read_spec(&files[1]).unwrap();
    let [one, both] = &anchors.devices[..] else {
        panic!()
    };
    assert_eq!(
        one.container_edits.device_nodes[0],
        both.container_edits.device_nodes[0]
    );
    assert_eq!(one.container_edits.hooks, both.container_edits.hooks);
    let intel = read_spec(&files[2]).unwrap();
    let modes: Vec<_> = intel
        .devices
        .iter()
        .flat_map(|device| &device.container_edits.device_nodes)
        .map(|node| node.file_mode)
        .collect();
    assert_eq!(modes, [Some(0o660), Some(0o666), Some(0o644)]);
}

#[test]
fn broken_files() {
    let want = [
        ("alias-bomb.yaml", "the file holds too many values"),
        (
            "duplicate-case.yaml",
            "line 3, column 1: field \"Kind\" is given twice in the spec",
        ),
        (
            "duplicate-key.yaml",
            "line 7, column 5: key \"env\" is given twice",
        ),
        ("empty-edits.json", "device \"a\" has empty containerEdits"),
        ("empty.yaml", "the file is empty"),
        (
            "hook-name.yaml",
            "device \"0\": hooks[0]: invalid hook name \"postcreate\"",
        ),
        (
            "kind-without-class.yaml",
            "invalid kind \"vendor.example\": it is not vendor/class",
        ),
        ("list-instead-of-object.json", "the spec is not an object"),
        ("merged-twice.yaml", "key \"path\" is given twice"),
        (
            "mode-as-text.yaml",
            "line 8, column 17: devices[0].containerEdits.deviceNodes[0].fileMode is not a number",
        ),
        (
            "name-with-dots.json",
            "the device name \"../../etc\" does not begin with a letter or digit",
        ),
        (
            "netdevice-twice.yaml",
            "netDevices[1]: network device \"eth2\" as \"a\" is given twice",
        ),
        ("no-devices.json", "the spec has no devices"),
        ("not-utf8.yaml", "line 6, column 13: it is not UTF-8 text"),
        ("nul-byte.json", "deviceNodes[0].path contains a NUL byte"),
        (
            "permissions.yaml",
            "deviceNodes[0]: device \"/dev/null\": invalid permissions \"rwx\"",
        ),
        (
            "rdt-removed.yaml",
            "intelRdt: enableCMT and enableMBM do not exist since v1.1.0",
        ),
        ("same-device-twice.json", "device \"a\" is defined twice"),
        (
            "several-documents.yaml",
            "line 7, column 1: a spec is one document, not several",
        ),
        ("tab-indent.yaml", "line 4, column "),
        (
            "truncated.json",
            "line 1, column 101: EOF while parsing a string",
        ),
        ("truncated.yaml", "line 7, column 1: "),
        (
            "uid-negative.yaml",
            "line 8, column 12: devices[0].containerEdits.deviceNodes[0].uid is -1, out of range",
        ),
        (
            "unknown-field.yaml",
            "line 7, column 5: unknown field \"deviceNode\" in devices[0].containerEdits",
        ),
        ("version-missing.json", "cdiVersion is missing"),
        (
            "version-number.yaml",
            "line 1, column 13: cdiVersion is the number 0.5",
        ),
        (
            "version-too-low.yaml",
            "the spec version must be at least v0.5.0",
        ),
        (
            "version-unknown.yaml",
            "invalid version \"1.2.0\"; known are",
        ),
    ];
    let files = data("broken");
    let names: Vec<_> = files
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, want.map(|(name, _)| name));
    for (path, (name, word)) in files.iter().zip(want) {
        let err = read_spec(path).unwrap_err().to_string();
        assert!(err.contains(word) && err.contains(name), "{name}: {err}");
        assert!(err.starts_with("CDI spec ") && !err.contains('\n'), "{err}");
    }
}
