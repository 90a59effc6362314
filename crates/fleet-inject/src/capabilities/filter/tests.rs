use fleet_cdi::{Format, Mount, Spec, parse};

use super::*;

/// What a driver of the data centre brings, as NVIDIA's generator writes it.
fn node() -> Spec {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../cdi/nodes/h100x2.yaml");
    let bytes = std::fs::read(path).unwrap();
    parse(&bytes, Format::Yaml).unwrap()
}

fn filtered(wanted: &str) -> (ContainerEdits, Vec<Omitted>) {
    let wanted = Capabilities::of_names(wanted.split(',')).unwrap();
    let mut edits = node().container_edits;
    let omitted = apply(&mut edits, wanted);
    (edits, omitted)
}

fn libraries(edits: &ContainerEdits) -> Vec<&str> {
    let names = edits.mounts.iter().map(|mount| {
        let name = mount.container_path.rsplit('/').next().unwrap();
        name.split(".so").next().unwrap()
    });
    names.collect()
}

fn links(edits: &ContainerEdits) -> Vec<&str> {
    let args = edits.hooks.iter().flat_map(|hook| &hook.args);
    args.filter_map(|arg| Some(arg.split_once("::")?.1))
        .collect()
}

fn hooks(edits: &ContainerEdits) -> Vec<&str> {
    edits
        .hooks
        .iter()
        .map(|hook| hook.args[1].as_str())
        .collect()
}

#[test]
fn a_server_image_gets_no_graphics() {
    let (edits, omitted) = filtered("compute,utility");
    let kept = libraries(&edits);
    for name in [
        "libcuda",
        "libnvidia-ml",
        "libnvidia-ptxjitcompiler",
        "nvidia-smi",
    ] {
        assert!(kept.contains(&name), "{name} of {kept:?}");
    }
    for name in [
        "libGLX_nvidia",
        "libnvidia-encode",
        "libnvcuvid",
        "libvdpau_nvidia",
        "nvidia_icd.json",
    ] {
        assert!(!kept.contains(&name), "{name} of {kept:?}");
        let path = |omitted: &&Omitted| omitted.which.contains(name) && omitted.what == "mount";
        assert!(omitted.iter().any(|o| path(&o)), "{name} of {omitted:?}");
    }
    let nodes: Vec<_> = edits
        .device_nodes
        .iter()
        .map(|node| node.path.as_str())
        .collect();
    assert_eq!(
        nodes,
        ["/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidiactl"]
    );
    assert!(
        links(&edits)
            .iter()
            .any(|link| link.ends_with("/libcuda.so"))
    );
    assert!(
        !links(&edits)
            .iter()
            .any(|link| link.contains("GLX") || link.contains("gbm"))
    );
    assert!(!hooks(&edits).contains(&"update-application-profile"));
    let folders: Vec<_> = edits.hooks.iter().flat_map(|hook| &hook.args).collect();
    assert!(
        !folders.iter().any(|arg| arg.ends_with("/vdpau")),
        "{folders:?}"
    );
}

#[test]
fn utility_alone_brings_no_cuda() {
    let (edits, omitted) = filtered("utility");
    assert!(libraries(&edits).contains(&"libnvidia-ml"));
    assert!(!libraries(&edits).contains(&"libcuda"));
    assert!(!links(&edits).iter().any(|link| link.contains("libcuda")));
    assert!(!hooks(&edits).contains(&"enable-cuda-compat"));
    let nodes: Vec<_> = edits
        .device_nodes
        .iter()
        .map(|node| node.path.as_str())
        .collect();
    assert_eq!(nodes, ["/dev/nvidiactl"]);
    let cuda = omitted
        .iter()
        .find(|o| o.which.contains("/libcuda.so."))
        .unwrap();
    assert_eq!(cuda.needs, Capabilities::COMPUTE);
}

#[test]
fn everything_wanted_is_everything_given() {
    let (edits, omitted) = filtered("all");
    assert_eq!(edits, node().container_edits);
    assert_eq!(omitted, []);
    let (both, _) = filtered("graphics");
    let (same, _) = filtered("display");
    assert_eq!(both, same);
}

#[test]
fn firmware_and_control_node_belong_to_every_part() {
    for (name, _) in super::super::NAMES {
        let (edits, _) = filtered(name);
        assert!(
            edits
                .device_nodes
                .iter()
                .any(|node| node.path == "/dev/nvidiactl"),
            "{name}"
        );
        assert_eq!(edits.env, node().container_edits.env, "{name}");
        let firmware = |edits: &ContainerEdits| {
            edits
                .mounts
                .iter()
                .filter(|mount| mount.container_path.contains("firmware"))
                .count()
        };
        assert_eq!(
            firmware(&edits),
            firmware(&node().container_edits),
            "{name}"
        );
        assert!(
            hooks(&edits).contains(&"disable-device-node-modification"),
            "{name}"
        );
    }
}

/// Wanting more never brings less, wanting twice what is wanted changes nothing, and each file is either there or
/// named among those left out.
#[test]
fn every_set_of_capabilities_is_consistent() {
    let whole = node().container_edits;
    let of_set: Vec<(ContainerEdits, Vec<Omitted>)> = (0..=Capabilities::ALL.0)
        .map(|bits| {
            let mut edits = whole.clone();
            let omitted = apply(&mut edits, Capabilities(bits));
            (edits, omitted)
        })
        .collect();
    for (bits, (edits, omitted)) in of_set.iter().enumerate() {
        let wanted = Capabilities(u8::try_from(bits).unwrap());
        let gone: Vec<_> = omitted.iter().filter(|o| o.what == "mount").collect();
        assert_eq!(
            edits.mounts.len() + gone.len(),
            whole.mounts.len(),
            "{wanted}"
        );
        assert!(
            omitted.iter().all(|o| o.needs.common(wanted).is_none()),
            "{wanted}"
        );
        let mut again = edits.clone();
        assert_eq!(apply(&mut again, wanted), [], "{wanted}");
        assert_eq!(again, *edits, "{wanted}");
        for more in (0..7).filter(|more| bits & 1 << more == 0) {
            let larger = &of_set[bits | 1 << more].0;
            let (few, many) = (links(edits), links(larger));
            assert!(few.iter().all(|link| many.contains(link)), "{wanted}");
            let (few, many) = (libraries(edits), libraries(larger));
            assert!(few.iter().all(|name| many.contains(name)), "{wanted}");
        }
        // No link that is made leads to a library that was left out.
        let args = edits.hooks.iter().flat_map(|hook| &hook.args);
        for target in args.filter_map(|arg| Some(arg.split_once("::")?.0)) {
            let name = format!("/{}", target.rsplit('/').next().unwrap());
            assert!(
                !gone.iter().any(|o| o.which.ends_with(&name)),
                "{wanted}: {target}"
            );
        }
    }
}

#[test]
fn drm_nodes_take_their_groups_with_them() {
    let node = |path: &str, gid: Option<u32>| DeviceNode {
        path: path.to_owned(),
        gid,
        ..DeviceNode::default()
    };
    let device = ContainerEdits {
        device_nodes: vec![
            node("/dev/nvidia0", Some(27)),
            node("/dev/dri/card1", Some(44)),
            node("/dev/dri/renderD128", Some(27)),
        ],
        additional_gids: vec![44, 27, 5],
        ..ContainerEdits::default()
    };
    let mut compute = device.clone();
    apply(&mut compute, Capabilities::COMPUTE);
    assert_eq!(compute.additional_gids, [27, 5]);
    let mut graphics = device.clone();
    apply(&mut graphics, Capabilities::GRAPHICS);
    assert_eq!(graphics, device);
}

#[test]
fn libraries_of_32_bits_need_a_capability_of_their_own() {
    let mount = |path: &str| Mount {
        host_path: path.to_owned(),
        container_path: path.to_owned(),
        ..Mount::default()
    };
    let whole = ContainerEdits {
        mounts: [
            "/usr/lib64/libcuda.so.1",
            "/usr/lib/libcuda.so.1",
            "/usr/lib/libGLX_nvidia.so.1",
        ]
        .map(mount)
        .to_vec(),
        ..ContainerEdits::default()
    };
    let with = |wanted: &str| {
        let mut edits = whole.clone();
        let omitted = apply(
            &mut edits,
            Capabilities::of_names(wanted.split(',')).unwrap(),
        );
        (
            edits.mounts.len(),
            omitted
                .iter()
                .map(|o| o.needs.to_string())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        with("compute"),
        (
            1,
            vec![
                "compat32".to_owned(),
                "compat32,display,graphics".to_owned()
            ]
        )
    );
    assert_eq!(with("compute,compat32").0, 2);
    assert_eq!(with("all").0, 3);
}

#[test]
fn hooks_of_others_and_odd_arguments_stay() {
    let hook = |path: &str, args: &[&str]| Hook {
        hook_name: "createContainer".to_owned(),
        path: path.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..Hook::default()
    };
    let kept = [
        hook(
            "/opt/vendor-hook",
            &[
                "vendor-hook",
                "--link",
                "libGLX_nvidia.so.1::/x/libGLX_nvidia.so",
            ],
        ),
        hook(
            "/usr/bin/nvidia-cdi-hook",
            &["nvidia-cdi-hook", "update-ldcache"],
        ),
        hook(
            "/usr/bin/nvidia-cdi-hook",
            &["nvidia-cdi-hook", "future-hook", "--link", "a::b"],
        ),
        hook("/usr/bin/nvidia-cdi-hook", &["nvidia-cdi-hook"]),
    ];
    let mut edits = ContainerEdits {
        hooks: kept.to_vec(),
        ..ContainerEdits::default()
    };
    edits.hooks.push(hook(
        "/usr/bin/nvidia-ctk",
        &[
            "nvidia-ctk",
            "hook",
            "create-symlinks",
            "--link=libGL.so.1::/usr/lib64/libGL.so",
            "--link=libcuda.so.1::/usr/lib64/libcuda.so",
        ],
    ));
    edits.hooks.push(hook(
        "/usr/bin/nvidia-cdi-hook",
        &[
            "nvidia-cdi-hook",
            "chmod",
            "--mode",
            "755",
            "--path",
            "/dev/dri",
        ],
    ));
    apply(&mut edits, Capabilities::COMPUTE);
    assert_eq!(edits.hooks[..4], kept);
    assert_eq!(
        edits.hooks[4].args,
        [
            "nvidia-ctk",
            "hook",
            "create-symlinks",
            "--link=libcuda.so.1::/usr/lib64/libcuda.so"
        ]
    );
    assert_eq!(edits.hooks.len(), 5);
}

#[test]
fn vendors_of_nvidias_own_are_told_by_their_end() {
    for kind in [
        "nvidia.com/gpu",
        "runtime.nvidia.com/gpu",
        "k8s.device-plugin.nvidia.com/gpu",
    ] {
        assert!(is_nvidia(kind), "{kind}");
    }
    for kind in [
        "amd.com/gpu",
        "notnvidia.com/gpu",
        "nvidia.com.example/gpu",
        "",
    ] {
        assert!(!is_nvidia(kind), "{kind}");
    }
}
