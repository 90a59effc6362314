//! What a container asks for beside GPUs, by variables of their own: GPUDirect Storage, InfiniBand, GDRCopy, NVSwitch,
//! IMEX channels, and the rights to configure and to watch MIG. They count only beside a GPU.

use fleet_cdi::QualifiedName;
use serde_json::Value;

use super::{Asked, RequestError, RequestOutcome, Source, environment, mounts, names, shown};
use crate::image;
use crate::policy::Policy;

/// Devices that the host need not have: value `enabled` (NVIDIA Container Toolkit, "gated" modifiers).
const GATED: [(&str, &str); 4] = [
    ("NVIDIA_GDS", "nvidia.com/gds"),
    ("NVIDIA_MOFED", "nvidia.com/mofed"),
    ("NVIDIA_GDRCOPY", "nvidia.com/gdrcopy"),
    ("NVIDIA_NVSWITCH", "nvidia.com/nvswitch"),
];
const IMEX_CHANNELS: &str = "NVIDIA_IMEX_CHANNELS";
/// Kind of IMEX channels; a device's name is the channel's number.
pub(crate) const IMEX_KIND: &str = "nvidia.com/imex-channel";
/// Most IMEX channels that the driver has.
const MAX_CHANNEL: u32 = 1_048_575;
/// Kind of the rights over MIG, `config` and `monitor`.
pub(crate) const MIG_KIND: &str = "nvidia.com/mig-caps";
const MIG: [(&str, &str); 2] = [
    ("NVIDIA_MIG_CONFIG_DEVICES", "config"),
    ("NVIDIA_MIG_MONITOR_DEVICES", "monitor"),
];
const MEMORY_LIMIT: &str = "NVIDIA_GPU_MEMORY_LIMIT";
const MEMORY_REQUEST: &str = "NVIDIA_GPU_MEMORY_REQUEST";

/// Adds what is asked for to `outcome`.
pub(super) fn read(
    spec: &Value,
    policy: &Policy,
    outcome: &mut RequestOutcome,
) -> Result<(), RequestError> {
    gated(spec, policy, outcome)?;
    imex(spec, policy, outcome)?;
    mig(spec, policy, outcome)?;
    memory(spec, outcome)?;
    check_rights(spec, outcome)
}

fn set<'a>(spec: &'a Value, variable: &str) -> Option<(&'a str, Source)> {
    let value = image::env(spec, variable)?.trim();
    (!value.is_empty()).then(|| (value, Source::Environment(variable.to_owned())))
}

/// The variables are an image's as much as that of the GPUs is. Says no, and why, to the user.
fn is_refused(
    spec: &Value,
    policy: &Policy,
    outcome: &mut RequestOutcome,
    source: &Source,
    asked: &str,
) -> bool {
    let refused = environment::refused_by(spec, policy);
    if let Some(setting) = refused {
        outcome.refuse(source.clone(), asked, setting);
    }
    refused.is_some()
}

fn gated(spec: &Value, policy: &Policy, outcome: &mut RequestOutcome) -> Result<(), RequestError> {
    for (variable, kind) in GATED {
        let Some((_, source)) = set(spec, variable).filter(|(value, _)| *value == "enabled") else {
            continue;
        };
        let name = names::of_kind(kind, "all", &source)?;
        if is_refused(spec, policy, outcome, &source, kind) {
            continue;
        }
        let is_known = outcome
            .request
            .devices
            .iter()
            .any(|asked| asked.name == name);
        if is_known {
            continue;
        }
        let asked = Asked { name, source };
        match policy.allows(&asked.source, &asked.name) {
            true => outcome.request.extras.push(asked),
            false => outcome.refused.push(super::not_allowed(&asked, policy)),
        }
    }
    Ok(())
}

/// Mounts come before the variable, as for GPUs.
fn imex(spec: &Value, policy: &Policy, outcome: &mut RequestOutcome) -> Result<(), RequestError> {
    let mut wanted = mounts::imex(spec, policy);
    if wanted.is_empty()
        && let Some((value, source)) = set(spec, IMEX_CHANNELS)
    {
        super::within_limit(value, &source)?;
        let ids: Vec<_> = environment::items(value).map(str::to_owned).collect();
        // NVIDIA's runtime takes it for no channel, since a container has those that its job was given.
        if ids == ["all"] || ids.is_empty() {
            return Ok(());
        }
        if !policy.ignore_imex && is_refused(spec, policy, outcome, &source, value) {
            return Ok(());
        }
        wanted = ids.into_iter().map(|id| (id, source.clone())).collect();
    }
    if policy.ignore_imex {
        return Ok(());
    }
    let mut asked = Vec::with_capacity(wanted.len());
    for (id, source) in wanted {
        let name = channel(&id, &source)?;
        asked.push(Asked { name, source });
    }
    outcome.grant_devices(asked, policy)
}

/// `7` or `channel7`.
fn channel(id: &str, source: &Source) -> Result<QualifiedName, RequestError> {
    let digits = id.strip_prefix("channel").unwrap_or(id);
    let number = Some(digits)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse::<u32>().ok())
        .filter(|number| *number <= MAX_CHANNEL);
    match number {
        Some(number) => names::of_kind(IMEX_KIND, &number.to_string(), source),
        None => Err(RequestError::Channel {
            origin: source.clone(),
            id: shown(id),
        }),
    }
}

fn mig(spec: &Value, policy: &Policy, outcome: &mut RequestOutcome) -> Result<(), RequestError> {
    let mut asked = Vec::new();
    for (variable, right) in MIG {
        let Some((value, source)) = set(spec, variable) else {
            continue;
        };
        if !value.eq_ignore_ascii_case("all") {
            return Err(RequestError::MigDevices {
                origin: source,
                value: shown(value),
            });
        }
        if !is_refused(spec, policy, outcome, &source, right) {
            let name = names::of_kind(MIG_KIND, right, &source)?;
            asked.push(Asked { name, source });
        }
    }
    outcome.grant_devices(asked, policy)
}

/// Who may configure MIG changes the machine for everybody, so by whatever way it is asked for, it needs the
/// capability that the kernel itself asks for.
fn check_rights(spec: &Value, outcome: &RequestOutcome) -> Result<(), RequestError> {
    let mut devices = outcome.request.devices.iter();
    match devices.find(|asked| asked.name.kind() == MIG_KIND) {
        Some(asked) if !image::is_privileged(spec) => Err(RequestError::MigRights {
            origin: asked.source.clone(),
            right: match asked.name.name() {
                "config" => "configure".to_owned(),
                other => shown(other),
            },
        }),
        _ => Ok(()),
    }
}

/// A limit that is not kept would be another container's loss; a request that is not is nobody's.
fn memory(spec: &Value, outcome: &mut RequestOutcome) -> Result<(), RequestError> {
    if let Some((value, origin)) = set(spec, MEMORY_LIMIT) {
        let value = shown(value);
        return Err(RequestError::MemoryLimit { origin, value });
    }
    if let Some((value, _)) = set(spec, MEMORY_REQUEST) {
        let value = shown(value);
        outcome
            .warnings
            .push(format!("{MEMORY_REQUEST}={value} has no effect here"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::Request;

    fn spec(env: &[&str], privileged: bool) -> Value {
        let env: Vec<_> = ["NVIDIA_VISIBLE_DEVICES=0"].iter().chain(env).collect();
        let mut spec = json!({"process": {"env": env}});
        if privileged {
            spec["process"]["capabilities"] = json!({"bounding": ["CAP_SYS_ADMIN"]});
        }
        spec
    }

    fn read(spec: &Value, policy: &Policy) -> Result<RequestOutcome, String> {
        Request::from_spec(spec, policy).map_err(|err| err.to_string())
    }

    /// Devices, and after a bar what the host need not have.
    fn asked(spec: &Value, policy: &Policy) -> String {
        let request = read(spec, policy).unwrap().request;
        let names = |list: &[Asked]| {
            let names: Vec<_> = list.iter().map(|asked| asked.name.to_string()).collect();
            names.join(" ")
        };
        format!("{}|{}", names(&request.devices), names(&request.extras))
    }

    #[test]
    fn the_gates_open_for_one_word() {
        let all = [
            "NVIDIA_GDS=enabled",
            "NVIDIA_MOFED=enabled",
            "NVIDIA_GDRCOPY=enabled",
            "NVIDIA_NVSWITCH=enabled",
        ];
        assert_eq!(
            asked(&spec(&all, false), &Policy::default()),
            "nvidia.com/gpu=0|nvidia.com/gds=all nvidia.com/mofed=all nvidia.com/gdrcopy=all nvidia.com/nvswitch=all"
        );
        for other in [
            "NVIDIA_GDS=true",
            "NVIDIA_GDS=Enabled",
            "NVIDIA_GDS=",
            "NVIDIA_GDS",
        ] {
            assert_eq!(
                asked(&spec(&[other], false), &Policy::default()),
                "nvidia.com/gpu=0|"
            );
        }
        let alone = json!({"process": {"env": ["NVIDIA_GDS=enabled"]}});
        assert!(!crate::concerns(&alone));
        assert_eq!(asked(&alone, &Policy::default()), "|");
        let other_vendor = json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=amd.com/gpu=0", "NVIDIA_GDS=enabled"]}});
        assert_eq!(asked(&other_vendor, &Policy::default()), "amd.com/gpu=0|");
    }

    #[test]
    fn policy_holds_for_them_too() {
        let mut policy = Policy::default();
        policy.allow.environment = vec!["nvidia.com/gpu".to_owned()];
        let outcome = read(
            &spec(&["NVIDIA_GDS=enabled", "NVIDIA_IMEX_CHANNELS=0"], false),
            &policy,
        )
        .unwrap();
        assert!(outcome.request.extras.is_empty());
        assert_eq!(outcome.request.devices.len(), 1);
        let refused: Vec<_> = outcome
            .refused
            .iter()
            .map(|refusal| refusal.asked.as_str())
            .collect();
        assert_eq!(refused, ["nvidia.com/gds=all", "nvidia.com/imex-channel=0"]);

        let mut pod = spec(&["NVIDIA_MOFED=enabled"], false);
        pod["annotations"] =
            json!({"io.kubernetes.cri-o.SandboxName": "s", "cdi.k8s.io/x": "nvidia.com/gpu=1"});
        let outcome = read(&pod, &Policy::default()).unwrap();
        assert!(
            outcome.request.extras.is_empty(),
            "an image's variable grants nothing there"
        );
        assert_eq!(
            outcome.refused[0].setting,
            "sources.environment-unprivileged"
        );
    }

    #[test]
    fn imex_channels_are_numbers() {
        let channels = |value: &str| spec(&[&format!("NVIDIA_IMEX_CHANNELS={value}")], false);
        let cases = [
            ("0", "nvidia.com/gpu=0 nvidia.com/imex-channel=0|"),
            (
                "channel7, 8",
                "nvidia.com/gpu=0 nvidia.com/imex-channel=7 nvidia.com/imex-channel=8|",
            ),
            (
                "1048575",
                "nvidia.com/gpu=0 nvidia.com/imex-channel=1048575|",
            ),
            (
                "3,03,channel3",
                "nvidia.com/gpu=0 nvidia.com/imex-channel=3|",
            ),
            ("all", "nvidia.com/gpu=0|"),
            ("", "nvidia.com/gpu=0|"),
        ];
        for (value, want) in cases {
            assert_eq!(asked(&channels(value), &Policy::default()), want, "{value}");
        }
        for value in ["1048576", "-1", "channel", "x", "0,all", "+3", "4294967296"] {
            let err = read(&channels(value), &Policy::default()).unwrap_err();
            assert!(err.contains("is no IMEX channel"), "{value}: {err}");
        }
        let ignoring = Policy {
            ignore_imex: true,
            ..Policy::default()
        };
        assert_eq!(asked(&channels("0"), &ignoring), "nvidia.com/gpu=0|");
    }

    #[test]
    fn imex_mounts_come_before_the_variable() {
        let mut policy = Policy::default();
        policy.sources.volume_mounts = true;
        let mut both = spec(&["NVIDIA_IMEX_CHANNELS=1"], false);
        both["mounts"] = json!([{"source": "/dev/null", "destination": "/var/run/nvidia-container-devices/imex/2"}]);
        assert_eq!(
            asked(&both, &policy),
            "nvidia.com/gpu=0 nvidia.com/imex-channel=2|"
        );
        assert_eq!(
            asked(&both, &Policy::default()),
            "nvidia.com/gpu=0 nvidia.com/imex-channel=1|"
        );
    }

    #[test]
    fn rights_over_mig_need_privileges() {
        let both = [
            "NVIDIA_MIG_CONFIG_DEVICES=all",
            "NVIDIA_MIG_MONITOR_DEVICES=ALL",
        ];
        assert_eq!(
            asked(&spec(&both, true), &Policy::default()),
            "nvidia.com/gpu=0 nvidia.com/mig-caps=config nvidia.com/mig-caps=monitor|"
        );
        let err = read(&spec(&both[1..], false), &Policy::default()).unwrap_err();
        assert_eq!(
            err,
            "the right to monitor MIG, asked for by variable NVIDIA_MIG_MONITOR_DEVICES, needs CAP_SYS_ADMIN; \
             hint: run the container privileged or with that capability"
        );
        let named =
            json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=nvidia.com/mig-caps=config"]}});
        assert!(
            read(&named, &Policy::default())
                .unwrap_err()
                .contains("needs CAP_SYS_ADMIN")
        );
        let some = read(
            &spec(&["NVIDIA_MIG_CONFIG_DEVICES=0,1"], true),
            &Policy::default(),
        )
        .unwrap_err();
        assert!(
            some.contains("NVIDIA_MIG_CONFIG_DEVICES") && some.contains("only all"),
            "{some}"
        );
    }

    #[test]
    fn a_memory_limit_that_cannot_be_kept_is_refused() {
        let err = read(
            &spec(&["NVIDIA_GPU_MEMORY_LIMIT=4Gi"], false),
            &Policy::default(),
        )
        .unwrap_err();
        assert!(
            err.contains("NVIDIA_GPU_MEMORY_LIMIT") && err.contains("4Gi"),
            "{err}"
        );
        let outcome = read(
            &spec(&["NVIDIA_GPU_MEMORY_REQUEST=4Gi"], false),
            &Policy::default(),
        )
        .unwrap();
        assert_eq!(
            outcome.warnings,
            ["NVIDIA_GPU_MEMORY_REQUEST=4Gi has no effect here"]
        );
    }
}
