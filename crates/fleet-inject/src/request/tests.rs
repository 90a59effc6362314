use serde_json::json;

use super::*;
use crate::policy::{Profile, Sources};

fn read(spec: &Value, policy: &Policy) -> RequestOutcome {
    let outcome = Request::from_spec(spec, policy).unwrap();
    let found =
        !outcome.request.is_empty() || !outcome.refused.is_empty() || !outcome.warnings.is_empty();
    assert!(concerns(spec) || !found, "the quick look missed {spec}");
    outcome
}

fn names(spec: &Value, policy: &Policy) -> Vec<String> {
    read(spec, policy)
        .request
        .devices
        .iter()
        .map(|asked| asked.name.to_string())
        .collect()
}

fn with_env(env: &[&str]) -> Value {
    json!({"process": {"env": env}})
}

fn env(value: &str) -> Value {
    with_env(&["PATH=/bin", &format!("NVIDIA_VISIBLE_DEVICES={value}")])
}

fn mounts(ids: &[&str]) -> Value {
    let mount = |id: &&str| json!({"source": "/dev/null", "destination": format!("/var/run/nvidia-container-devices/{id}")});
    json!({"mounts": ids.iter().map(mount).collect::<Vec<_>>()})
}

fn accepting_mounts() -> Policy {
    Policy {
        sources: Sources {
            volume_mounts: true,
            ..Sources::default()
        },
        ..Policy::default()
    }
}

#[test]
fn the_variable_follows_nvidias_table() {
    let cases: [(&str, &[&str]); 13] = [
        ("all", &["nvidia.com/gpu=all"]),
        ("0", &["nvidia.com/gpu=0"]),
        ("0,1", &["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
        (" 0 , ,1,", &["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
        ("0,0", &["nvidia.com/gpu=0"]),
        ("1:0", &["nvidia.com/gpu=1:0"]),
        ("GPU-8d2a5f7e-9c", &["nvidia.com/gpu=GPU-8d2a5f7e-9c"]),
        ("MIG-8d2a5f7e-9c", &["nvidia.com/gpu=MIG-8d2a5f7e-9c"]),
        (
            "nvidia.com/gpu=0,1",
            &["nvidia.com/gpu=0", "nvidia.com/gpu=1"],
        ),
        ("amd.com/gpu=0", &["amd.com/gpu=0"]),
        ("runtime.nvidia.com/gpu=all", &["nvidia.com/gpu=all"]),
        ("0,all,none", &["nvidia.com/gpu=all"]),
        (
            "nvidia.com/gpu=0,nvidia.com/gds=all",
            &["nvidia.com/gpu=0", "nvidia.com/gds=all"],
        ),
    ];
    for (value, want) in cases {
        assert_eq!(names(&env(value), &Policy::default()), want, "{value}");
    }
}

#[test]
fn empty_and_void_mean_nothing_and_cost_nothing() {
    for value in ["", "void", " ", ",", "0,void", "void,all"] {
        let spec = env(value);
        assert!(!concerns(&spec), "{value:?}");
        assert_eq!(
            read(&spec, &Policy::default()),
            RequestOutcome::default(),
            "{value:?}"
        );
    }
    assert!(!concerns(&json!({})));
    assert!(!concerns(&with_env(&[
        "NVIDIA_VISIBLE_DEVICES",
        "FOO=NVIDIA_VISIBLE_DEVICES=all"
    ])));
}

#[test]
fn an_engine_that_injected_already_leaves_no_request() {
    // The CDI spec's `void` replaces the image's value; a careless tool may have appended it.
    let spec = with_env(&[
        "NVIDIA_VISIBLE_DEVICES=all",
        "CUDA_VERSION=8.0",
        "NVIDIA_VISIBLE_DEVICES=void",
    ]);
    assert!(!concerns(&spec));
    assert_eq!(names(&spec, &Policy::default()), [""; 0]);
}

#[test]
fn none_asks_for_the_driver_alone() {
    let outcome = read(&env("none,all"), &Policy::default());
    let source = Source::Environment("NVIDIA_VISIBLE_DEVICES".to_owned());
    assert_eq!(
        outcome.request.none_kind,
        Some(KindOnly {
            kind: "nvidia.com/gpu".to_owned(),
            source
        })
    );
    assert!(outcome.request.devices.is_empty());
}

#[test]
fn legacy_cuda_images_mean_all() {
    let outcome = read(&with_env(&["CUDA_VERSION=8.0.61"]), &Policy::default());
    assert_eq!(outcome.request.devices.len(), 1);
    assert_eq!(
        outcome.request.devices[0].name.to_string(),
        "nvidia.com/gpu=all"
    );
    assert_eq!(outcome.request.devices[0].source, Source::LegacyImage);
    let modern = with_env(&["CUDA_VERSION=12.4", "NVIDIA_REQUIRE_CUDA=cuda>=12.4"]);
    assert!(!concerns(&modern));
}

#[test]
fn swarm_variables_come_first() {
    let policy = Policy {
        swarm_resource: vec![
            "DOCKER_RESOURCE_B".to_owned(),
            "DOCKER_RESOURCE_A".to_owned(),
        ],
        ..Policy::default()
    };
    let spec = with_env(&[
        "NVIDIA_VISIBLE_DEVICES=void",
        "DOCKER_RESOURCE_A=1",
        "DOCKER_RESOURCE_B=0",
    ]);
    assert_eq!(
        names(&spec, &policy),
        ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    );
    assert_eq!(names(&spec, &Policy::default()), [""; 0]);
    assert_eq!(names(&env("2"), &policy), ["nvidia.com/gpu=2"]);
}

#[test]
fn annotations_are_read_in_key_order() {
    let spec = json!({
        "annotations": {
            "cdi.k8s.io/z": "nvidia.com/gpu=1,nvidia.com/gpu=0",
            "cdi.k8s.io/a": "vendor.com/net=x",
            "other": "nvidia.com/gpu=7",
        },
        "process": {"env": ["NVIDIA_VISIBLE_DEVICES=all"]},
    });
    assert_eq!(
        names(&spec, &Policy::default()),
        ["vendor.com/net=x", "nvidia.com/gpu=1", "nvidia.com/gpu=0"]
    );
    let other = Policy {
        annotation_prefixes: vec!["oth".to_owned()],
        ..Policy::default()
    };
    assert_eq!(names(&spec, &other), ["nvidia.com/gpu=7"]);
}

#[test]
fn an_annotation_under_a_configured_prefix_is_seen_without_the_configuration() {
    assert!(concerns(
        &json!({"annotations": {"gpu.example/want": "nvidia.com/gpu=0"}})
    ));
    assert!(concerns(
        &json!({"annotations": {"gpu.example/want": "nvidia.com/gpu=../0"}})
    ));
    for value in [
        "{\"a/b\":\"c=d\"}",
        "uint64 5",
        "/var/lib/x",
        "a=b/c",
        "text with / and = in it",
    ] {
        assert!(!concerns(&json!({"annotations": {"k": value}})), "{value}");
    }
}

#[test]
fn invalid_names_are_errors_that_say_where() {
    let annotated = |value: &str| json!({"annotations": {"cdi.k8s.io/gpu": value}});
    let cases = [
        annotated("nvidia.com/gpu=../../etc"),
        annotated("0"),
        annotated(""),
        annotated("nvidia.com/gpu=0,"),
        annotated("nvidia.com/gpu=0, nvidia.com/gpu=1"),
        env("nvidia.com/gpu=../x"),
        env("../x"),
        env("a\u{1b}[31m"),
    ];
    for spec in cases {
        assert!(concerns(&spec));
        let err = Request::from_spec(&spec, &Policy::default()).unwrap_err();
        let text = err.to_string();
        assert!(matches!(err, RequestError::Name { .. }), "{text}");
        assert!(
            text.contains("annotation cdi.k8s.io/gpu")
                || text.contains("variable NVIDIA_VISIBLE_DEVICES"),
            "{text}"
        );
        assert!(!text.contains(['\n', '\u{1b}']), "{text}");
        for word in ["not found", "no such file", "permission denied"] {
            assert!(!text.to_lowercase().contains(word), "{text}");
        }
    }
}

#[test]
fn automatic_names_mean_what_the_specs_have() {
    let cases: [(&str, &[&str]); 11] = [
        ("runtime.nvidia.com/gpu=0", &["nvidia.com/gpu=0"]),
        (
            "runtime.nvidia.com/gpu=0,nvidia.com/gpu=1",
            &["nvidia.com/gpu=0", "nvidia.com/gpu=1"],
        ),
        ("runtime.nvidia.com/gds=all", &["nvidia.com/gds=all"]),
        ("runtime.nvidia.com/gpu=mode=gds", &["nvidia.com/gds=all"]),
        (
            "runtime.nvidia.com/gpu=mode=imex,id=3",
            &["nvidia.com/imex-channel=3"],
        ),
        (
            "mode=imex,id=3,0",
            &["nvidia.com/imex-channel=3", "nvidia.com/gpu=0"],
        ),
        (
            "0,mode=gdrcopy",
            &["nvidia.com/gpu=0", "nvidia.com/gdrcopy=all"],
        ),
        ("mode=auto", &["nvidia.com/gpu=all"]),
        (
            "mode=nvml,id=GPU-1,mode=mofed",
            &["nvidia.com/gpu=GPU-1", "nvidia.com/mofed=all"],
        ),
        ("mode=management", &["management.nvidia.com/gpu=all"]),
        (
            "nvidia.com/gds=all,1",
            &["nvidia.com/gds=all", "nvidia.com/gpu=1"],
        ),
    ];
    for (value, want) in cases {
        assert_eq!(names(&env(value), &Policy::default()), want, "{value}");
        let annotated = json!({"annotations": {"cdi.k8s.io/x": value}});
        if want.len() == 1 && value.starts_with("runtime") {
            assert_eq!(names(&annotated, &Policy::default()), want, "{value}");
        }
    }
    let other = Policy {
        default_kind: "amd.com/gpu".to_owned(),
        ..Policy::default()
    };
    assert_eq!(
        names(&env("runtime.nvidia.com/gpu=0"), &other),
        ["nvidia.com/gpu=0"]
    );
    let mounted = mounts(&["mode=imex,id=3"]);
    assert_eq!(
        names(&mounted, &accepting_mounts()),
        ["nvidia.com/imex-channel=3"]
    );
}

#[test]
fn a_rule_takes_the_place_of_the_limits_for_all() {
    let rule = |namespaces: Option<&[&str]>, allow: &[&str]| crate::Rule {
        namespaces: namespaces.map(|list| list.iter().map(|name| (*name).to_owned()).collect()),
        annotations: Vec::new(),
        allow: allow.iter().map(|pattern| (*pattern).to_owned()).collect(),
    };
    let policy = Policy {
        rules: vec![
            rule(Some(&["team-a"]), &["nvidia.com/gpu=0"]),
            rule(Some(&["batch"]), &[]),
        ],
        ..Policy::default()
    };
    let asks = |namespace: &str| {
        json!({"annotations": {
            "io.kubernetes.cri-o.Namespace": namespace,
            "cdi.k8s.io/x": "nvidia.com/gpu=0,nvidia.com/gpu=1",
        }})
    };
    let both = ["nvidia.com/gpu=0", "nvidia.com/gpu=1"];
    assert_eq!(names(&asks("team-a"), &policy), both[..1]);
    assert_eq!(names(&asks("batch"), &policy), both[..0]);
    assert_eq!(names(&asks("other"), &policy), both);
    let refused = read(&asks("team-a"), &policy).refused;
    let told: Vec<_> = refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "nvidia.com/gpu=1, asked for by annotation cdi.k8s.io/x, is refused by `rule.allow`; hint: \"nvidia.com/gpu\" \
          added to `allow` of the [[rule]] with namespaces = [\"team-a\"] in the configuration"
        ]
    );
    // Where none fits, the hint is about [allow].
    let strict = Policy {
        allow: crate::Allow {
            cdi_annotations: Vec::new(),
            ..crate::Allow::default()
        },
        ..policy
    };
    let refused = read(&asks("other"), &strict).refused;
    assert!(
        refused
            .iter()
            .all(|refusal| refusal.setting == "allow.cdi-annotations")
    );
    assert_eq!(names(&asks("team-a"), &strict), both[..1]);
}

#[test]
fn modes_that_are_none_say_so() {
    let error = |value: &str| {
        Request::from_spec(&env(value), &Policy::default())
            .unwrap_err()
            .to_string()
    };
    assert!(
        error("mode=fast").starts_with(
            "device mode fast in variable NVIDIA_VISIBLE_DEVICES is not one of auto, "
        )
    );
    assert_eq!(
        error("mode=imex"),
        "device mode imex in variable NVIDIA_VISIBLE_DEVICES needs an id"
    );
    assert!(error("id=3").starts_with("invalid CDI device name"));
    let old = error("MIG-GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c/1");
    assert!(
        old.contains("is no name of a MIG device") && old.contains("hint: MIG-GPU-<uuid>/"),
        "{old}"
    );
}

#[test]
fn old_names_of_partitions_are_read_whoever_asks() {
    let old = "MIG-GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c/7/0";
    let want = format!("nvidia.com/gpu={}", old.replace('/', ":"));
    for spec in [
        env(old),
        env(&format!("runtime.nvidia.com/gpu={old}")),
        mounts(&[old]),
    ] {
        assert_eq!(names(&spec, &accepting_mounts()), [want.as_str()], "{spec}");
    }
    let mixed = Request::from_spec(&env(&format!("amd.com/gpu=0,{old}")), &Policy::default());
    assert!(matches!(mixed, Err(RequestError::MixedKinds { .. })));
}

#[test]
fn bare_ids_beside_another_kind_have_no_meaning() {
    let err = Request::from_spec(&env("amd.com/gpu=0,1"), &Policy::default()).unwrap_err();
    let want = "device id 1 in variable NVIDIA_VISIBLE_DEVICES stands beside devices of amd.com/gpu, but means \
                nvidia.com/gpu; hint: write it as amd.com/gpu=1";
    assert_eq!(err.to_string(), want);
}

#[test]
fn mounts_are_read_where_the_policy_accepts_them() {
    let spec = mounts(&["GPU-1", "cdi/vendor.com/net/x", "1:0"]);
    let mixed = Request::from_spec(&spec, &accepting_mounts()).unwrap_err();
    assert!(matches!(mixed, RequestError::MixedKinds { .. }));
    assert_eq!(
        names(&mounts(&["0", "1:0"]), &accepting_mounts()),
        ["nvidia.com/gpu=0", "nvidia.com/gpu=1:0"]
    );
    assert_eq!(
        names(&mounts(&["cdi/vendor.com/net/x"]), &accepting_mounts()),
        ["vendor.com/net=x"]
    );

    let outcome = read(&mounts(&["0"]), &Policy::default());
    assert!(outcome.request.is_empty());
    let want = "0, asked for by mount /var/run/nvidia-container-devices/0, is refused by `sources.volume-mounts`; \
                hint: `sources.volume-mounts = true` in the configuration";
    assert_eq!(outcome.refused[0].to_string(), want);
}

#[test]
fn other_mounts_ask_for_nothing() {
    let other = json!({"mounts": [
        {"source": "/dev/zero", "destination": "/var/run/nvidia-container-devices/0"},
        {"source": "/dev/null", "destination": "/var/run/nvidia-container-devices"},
        {"source": "/dev/null", "destination": "/var/run/nvidia-container-devices/"},
        {"source": "/dev/null", "destination": "/x/var/run/nvidia-container-devices/0"},
    ]});
    assert!(!concerns(&other));
    assert_eq!(names(&other, &accepting_mounts()), [""; 0]);
    // A channel is of use to a GPU only.
    assert_eq!(names(&mounts(&["imex/0"]), &accepting_mounts()), [""; 0]);
    assert_eq!(
        names(&mounts(&["imex/0", "1"]), &accepting_mounts()),
        ["nvidia.com/gpu=1", "nvidia.com/imex-channel=0"]
    );
}

#[test]
fn the_first_source_that_asks_decides() {
    let mut spec = mounts(&["1"]);
    spec["process"] = json!({"env": ["NVIDIA_VISIBLE_DEVICES=2"]});
    assert_eq!(names(&spec, &accepting_mounts()), ["nvidia.com/gpu=1"]);
    assert_eq!(names(&spec, &Policy::default()), ["nvidia.com/gpu=2"]);
    spec["annotations"] = json!({"cdi.k8s.io/x": "nvidia.com/gpu=0"});
    assert_eq!(names(&spec, &accepting_mounts()), ["nvidia.com/gpu=0"]);
}

#[test]
fn unprivileged_containers_of_kubernetes_are_refused_by_default() {
    let mut spec = env("all");
    spec["annotations"] = json!({"io.kubernetes.cri-o.SandboxName": "s"});
    let outcome = read(&spec, &Policy::default());
    assert!(outcome.request.is_empty());
    assert_eq!(outcome.refused.len(), 1);
    assert_eq!(
        outcome.refused[0].setting,
        "sources.environment-unprivileged"
    );
    spec["process"]["capabilities"] = json!({"bounding": ["CAP_SYS_ADMIN"]});
    assert_eq!(names(&spec, &Policy::default()), ["nvidia.com/gpu=all"]);
    let crio = Policy {
        profile: Profile::Crio,
        ..Policy::default()
    };
    assert_eq!(names(&env("all"), &crio), [""; 0]);
}

#[test]
fn sandboxes_get_nothing() {
    let mut spec = env("all");
    spec["annotations"] =
        json!({"cdi.k8s.io/x": "nvidia.com/gpu=0", "io.kubernetes.cri-o.ContainerType": "sandbox"});
    assert!(!concerns(&spec));
    assert_eq!(read(&spec, &Policy::default()), RequestOutcome::default());
}

#[test]
fn the_allow_list_refuses_device_by_device() {
    let mut policy = Policy::default();
    policy.allow.environment = vec!["nvidia.com/gpu=0".to_owned()];
    let outcome = read(&env("0,1"), &policy);
    assert_eq!(outcome.request.devices.len(), 1);
    let want = "nvidia.com/gpu=1, asked for by variable NVIDIA_VISIBLE_DEVICES, is refused by `allow.environment`; \
                hint: \"nvidia.com/gpu\" added to `allow.environment` in the configuration";
    assert_eq!(outcome.refused[0].to_string(), want);
    assert!(read(&env("none"), &policy).request.is_empty());
}

#[test]
fn absurd_values_are_refused_at_once() {
    let long = "x".repeat(10 << 20);
    let annotated = |key: &str, value: &str| json!({"annotations": {key: value}});
    let started = std::time::Instant::now();
    assert!(!concerns(&annotated("note", &long)));
    let err =
        Request::from_spec(&annotated("cdi.k8s.io/x", &long), &Policy::default()).unwrap_err();
    assert!(started.elapsed().as_millis() < 1000);
    assert!(
        matches!(err, RequestError::TooLong { bytes, .. } if bytes == 10 << 20),
        "{err}"
    );
    let many = (0..2000)
        .map(|n| n.to_string())
        .collect::<Vec<_>>()
        .join(",");
    let err = Request::from_spec(&env(&many), &Policy::default()).unwrap_err();
    assert!(
        matches!(err, RequestError::TooMany { count: 2000, .. }),
        "{err}"
    );
    let err = Request::from_spec(
        &annotated("cdi.k8s.io/x", &"y".repeat(500)),
        &Policy::default(),
    )
    .unwrap_err();
    assert!(err.to_string().len() < 300, "{err}");
}
