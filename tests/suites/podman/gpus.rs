//! GPUs under Podman: by name, by environment, by image.

use super::*;

#[test]
fn gpus_by_device_and_by_environment() {
    if !node("gpus_by_device_and_by_environment") {
        return;
    }
    let smi = |options: &[&str]| {
        podman(
            &[
                &["run", "--rm"],
                options,
                &["fleet-glibc", "nvidia-smi", "-L"],
            ]
            .concat(),
        )
        .ok()
    };
    assert_eq!(smi(&["--device", "nvidia.com/gpu=all"]).lines().count(), 2);
    for gpu in ["0", "1"] {
        let by_device = smi(&["--device", &format!("nvidia.com/gpu={gpu}")]);
        assert_eq!(by_device.lines().count(), 1);
        assert_eq!(
            smi(&["-e", &format!("NVIDIA_VISIBLE_DEVICES={gpu}")]),
            by_device
        );
    }
    assert_eq!(
        smi(&["-e", "NVIDIA_VISIBLE_DEVICES=all"]).lines().count(),
        2
    );
    assert_eq!(
        smi(&["--read-only", "--device", "nvidia.com/gpu=0"])
            .lines()
            .count(),
        1
    );
    assert_eq!(
        smi(&["--user", "1000", "--device", "nvidia.com/gpu=0"])
            .lines()
            .count(),
        1
    );
    let bare = podman(&[
        "run",
        "--rm",
        "--device",
        "nvidia.com/gpu=0",
        "fleet-glibc-bare",
        "nvidia-smi",
        "-L",
    ])
    .ok();
    assert_eq!(bare.lines().count(), 1);
    let musl = podman(&[
        "run",
        "--rm",
        "--device",
        "nvidia.com/gpu=0",
        "fleet-musl",
        "open",
        "libcuda.so.1",
    ])
    .ok();
    assert_eq!(musl, "libcuda.so.1: ok\n");
    let wrong = podman(&[
        "run",
        "--rm",
        "-e",
        "NVIDIA_VISIBLE_DEVICES=9",
        "fleet-glibc",
        "true",
    ]);
    assert_eq!(wrong.code, 126, "{wrong:#?}");
    assert!(
        wrong
            .stderr
            .contains("unresolvable CDI devices nvidia.com/gpu=9")
            && wrong.stderr.contains("known devices"),
        "{wrong:#?}"
    );
}

/// What `cdi generate` writes for the node takes the place of the spec that its simulation came with.
#[test]
fn gpus_by_a_generated_spec() {
    if !node("gpus_by_a_generated_spec") {
        return;
    }
    let spec = "/etc/cdi/nvidia.yaml";
    let before = fs::read(spec).expect("read the spec");
    let args = [
        "cdi",
        "generate",
        "--driver-root",
        "/run/sim-node",
        "--output",
        spec,
    ];
    drop(run(Command::new(path("FLEET_CTL")).args(args)).ok());
    let list = |device: &str| {
        let options = [
            "run",
            "--rm",
            "--device",
            device,
            "fleet-glibc",
            "nvidia-smi",
            "-L",
        ];
        podman(&options).ok()
    };
    let all = list("nvidia.com/gpu=all");
    let one = list("nvidia.com/gpu=1");
    fs::write(spec, before).expect("restore the spec");
    assert_eq!(all.lines().count(), 2, "{all}");
    let second = all
        .lines()
        .nth(1)
        .and_then(|line| line.split("GPU-").nth(1));
    assert_eq!(one.lines().count(), 1, "{one}");
    assert!(one.contains(second.expect("a UUID")), "{one} of {all}");
}

#[test]
fn restart_of_a_gpu_container() {
    if !node("restart_of_a_gpu_container") {
        return;
    }
    let name = unique("gpu");
    drop(
        podman(&[
            "run",
            "-d",
            "--name",
            &name,
            "--device",
            "nvidia.com/gpu=1",
            "fleet-glibc",
            "sleep",
            "100",
        ])
        .ok(),
    );
    for _ in 0..2 {
        assert!(
            podman(&["exec", &name, "nvidia-smi", "-L"])
                .ok()
                .starts_with("GPU 0: NVIDIA H100")
        );
        drop(podman(&["restart", "-t", "0", &name]).ok());
    }
    drop(podman(&["rm", "-f", "-t", "0", &name]).ok());
}

/// Two containers run at once, each with one GPU: the other's answers EPERM, also after `mknod`.
#[test]
fn two_containers_two_gpus() {
    if !node("two_containers_two_gpus") {
        return;
    }
    let machine = fs::read_to_string("/run/sim-node/usr/share/nvidia/fleet-sim-machine.json");
    let machine: serde_json::Value =
        serde_json::from_str(&machine.expect("machine")).expect("JSON");
    let number = |gpu: usize| {
        let node = &machine["gpus"][gpu]["node"];
        format!("{} {}", node["major"], node["minor"])
    };
    for request in ["--device=nvidia.com/gpu=", "--env=NVIDIA_VISIBLE_DEVICES="] {
        let services: Vec<Service> = (0..2)
            .map(|gpu| {
                Service::new(
                    &[&format!("{request}{gpu}"), "--cap-add=MKNOD"],
                    "fleet-glibc",
                )
            })
            .collect();
        let seen: Vec<String> = services
            .iter()
            .map(|service| service.exec("nvidia-smi -L").ok())
            .collect();
        assert!(
            seen.iter().all(|text| text.lines().count() == 1),
            "{seen:?}"
        );
        assert_ne!(seen[0], seen[1]);
        for (own, other) in [(0, 1), (1, 0)] {
            let script = format!(
                "ls /dev/nvidia[0-9]; true < /dev/nvidia{own} && echo opens; mknod /dev/other c {} && (true < /dev/other) 2>&1 | grep -o 'not permitted'",
                number(other)
            );
            assert_eq!(
                services[own].exec(&script).ok(),
                format!("/dev/nvidia{own}\nopens\nnot permitted\n"),
                "{request}"
            );
        }
    }
}

/// A pod of two services: one with a GPU, one without.
#[test]
fn a_pod_with_a_gpu() {
    if !node("a_pod_with_a_gpu") {
        return;
    }
    let pod = unique("pod");
    drop(create_pod(&pod).ok());
    let _pod = Pod(&pod);
    let with = Service::new(
        &["--pod", &pod, "--device", "nvidia.com/gpu=0"],
        "fleet-glibc",
    );
    let without = Service::new(&["--pod", &pod], "fleet-glibc");
    assert_eq!(with.exec("nvidia-smi -L").ok().lines().count(), 1);
    assert_eq!(without.exec("ls /dev | grep -c nvidia").stdout, "0\n");
    let namespaces = |service: &Service| {
        service
            .exec("readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts")
            .ok()
    };
    assert_eq!(
        namespaces(&with),
        namespaces(&without),
        "a pod shares these"
    );
}

/// What an image says about GPUs counts under Podman, as it does with NVIDIA's runtime.
#[test]
fn an_image_that_asks_for_gpus() {
    if !node("an_image_that_asks_for_gpus") {
        return;
    }
    let image = unique("image");
    let archive = path("FLEET_STATE").join("images/glibc.tar");
    let archive = archive.to_str().expect("text");
    drop(
        podman(&[
            "import",
            "-q",
            "--change",
            "ENV NVIDIA_VISIBLE_DEVICES=all",
            archive,
            &image,
        ])
        .ok(),
    );
    let count = |options: &[&str]| {
        let args = [
            &["run", "--rm"],
            options,
            &[
                image.as_str(),
                "sh",
                "-c",
                "ls /dev | grep -c 'nvidia[0-9]'",
            ],
        ];
        podman(&args.concat()).stdout
    };
    assert_eq!(count(&[]), "2\n");
    assert_eq!(count(&["-e", "NVIDIA_VISIBLE_DEVICES=0"]), "1\n");
    assert_eq!(count(&["-e", "NVIDIA_VISIBLE_DEVICES=void"]), "0\n");
    assert_eq!(count(&["--device", "nvidia.com/gpu=1"]), "1\n");
}

/// The engine shows our sentence, and nothing that looks like a mistake of the user's program.
#[test]
fn messages_about_gpus_arrive_whole() {
    if !node("messages_about_gpus_arrive_whole") {
        return;
    }
    for (value, words) in [
        (
            "7",
            ["unresolvable CDI devices nvidia.com/gpu=7", "known devices"],
        ),
        ("../x", ["../x", "invalid"]),
    ] {
        let out = podman(&[
            "run",
            "--rm",
            "-e",
            &format!("NVIDIA_VISIBLE_DEVICES={value}"),
            "fleet-glibc",
            "true",
        ]);
        assert_eq!(out.code, 126, "{out:#?}");
        for word in words {
            assert!(out.stderr.contains(word), "{word}: {out:#?}");
        }
    }
    let left = podman(&["ps", "-a", "-q"]).ok();
    assert_eq!(left, "", "a container that could not start is left");
}
