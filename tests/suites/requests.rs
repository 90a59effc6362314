//! What a container asks for beside a GPU, in real containers on a simulated node: driver capabilities and demands.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fleet_tests::{Bundle, path, run, skip};
use serde_json::json;

/// A node with two GPUs and its CDI spec; `None` where no device nodes can be borrowed.
fn node(test: &str) -> Option<PathBuf> {
    let root = PathBuf::from("/run/sim-node");
    drop(fs::remove_dir_all(&root));
    drop(fs::remove_dir_all("/run/cdi"));
    let simulate = path("FLEET_PROGRAMS").join("fleet-simulate");
    let args = [
        "create",
        "--machine",
        "h100x2",
        "--cdi",
        "/etc/cdi/nvidia.yaml",
        "--root",
    ];
    let out = run(Command::new(simulate).args(args).arg(&root));
    if out.code != 0 {
        skip(test, out.stderr.trim());
        return None;
    }
    Some(root)
}

fn gpu_container(script: &str, env: &[&str]) -> Bundle {
    let usual = ["PATH=/bin:/sbin:/usr/bin", "NVIDIA_VISIBLE_DEVICES=0"];
    let env: Vec<&str> = usual.iter().chain(env).copied().collect();
    let bundle = Bundle::new(script).set("/process/env", json!(env));
    let image = path("FLEET_STATE").join("images/glibc.tar");
    let rootfs = bundle.dir.join("rootfs");
    drop(
        run(Command::new("tar")
            .arg("-C")
            .arg(rootfs)
            .arg("-xf")
            .arg(image))
        .ok(),
    );
    bundle
}

/// Names of what is there, of a list.
const LOOK: &str = "for f in /dev/nvidia0 /dev/nvidia1 /dev/nvidia-uvm /dev/nvidia-modeset /usr/bin/nvidia-smi; \
                    do test -e $f && echo $f; done; \
                    for l in libcuda libnvidia-ml libGLX_nvidia libnvidia-encode; do ldconfig -p | grep -q $l.so && echo $l; done; true";

#[test]
fn capabilities_choose_what_of_the_driver_is_there() {
    let Some(_root) = node("capabilities_choose_what_of_the_driver_is_there") else {
        return;
    };
    let everything = "/dev/nvidia0\n/dev/nvidia-uvm\n/dev/nvidia-modeset\n/usr/bin/nvidia-smi\nlibcuda\nlibnvidia-ml\nlibGLX_nvidia\nlibnvidia-encode\n";
    let cases = [
        (None, everything),
        (Some("all"), everything),
        (
            Some("compute,utility"),
            "/dev/nvidia0\n/dev/nvidia-uvm\n/usr/bin/nvidia-smi\nlibcuda\nlibnvidia-ml\n",
        ),
        (
            Some("utility"),
            "/dev/nvidia0\n/usr/bin/nvidia-smi\nlibnvidia-ml\n",
        ),
        (Some("video"), "/dev/nvidia0\nlibnvidia-encode\n"),
        (
            Some("graphics"),
            "/dev/nvidia0\n/dev/nvidia-modeset\nlibGLX_nvidia\n",
        ),
    ];
    for (capabilities, want) in cases {
        let variable = capabilities.map(|names| format!("NVIDIA_DRIVER_CAPABILITIES={names}"));
        let env: Vec<&str> = variable.iter().map(String::as_str).collect();
        assert_eq!(
            gpu_container(LOOK, &env).run().ok(),
            want,
            "{capabilities:?}"
        );
    }
    let smi = gpu_container(
        "nvidia-smi -L | wc -l",
        &["NVIDIA_DRIVER_CAPABILITIES=utility"],
    );
    assert_eq!(smi.run().ok(), "1\n");
    let unknown = gpu_container("true", &["NVIDIA_DRIVER_CAPABILITIES=vidoe"]);
    drop(
        unknown
            .make("create", &[])
            .fails("names vidoe, which is no driver capability"),
    );
}

#[test]
fn demands_of_an_image_are_checked() {
    let Some(_root) = node("demands_of_an_image_are_checked") else {
        return;
    };
    let met = gpu_container(
        "echo started",
        &["NVIDIA_REQUIRE_CUDA=cuda>=12.0 brand=tesla,driver>=470,driver<471"],
    );
    assert_eq!(met.run().ok(), "started\n");
    let unmet = ["NVIDIA_REQUIRE_CUDA=cuda>=99.0"];
    let refused = gpu_container("true", &unmet).make("create", &[]);
    drop(
        refused
            .fails("the image demands cuda>=99.0 by NVIDIA_REQUIRE_CUDA, but the host has driver "),
    );
    let all_the_same = gpu_container("echo started", &[unmet[0], "NVIDIA_DISABLE_REQUIRE=1"]);
    assert_eq!(all_the_same.run().ok(), "started\n");
}

#[test]
fn what_the_host_lacks_is_said_and_not_given() {
    let Some(_root) = node("what_the_host_lacks_is_said_and_not_given") else {
        return;
    };
    let gated = gpu_container("echo started", &["NVIDIA_GDRCOPY=enabled"]);
    assert_eq!(gated.run().ok(), "started\n");
    if !std::path::Path::new("/dev/gdrdrv").exists() {
        let explained = run(Command::new(path("FLEET_CTL"))
            .arg("explain")
            .arg(&gated.dir));
        let want = "warning: variable NVIDIA_GDRCOPY has no effect: this host has no /dev/gdrdrv\n";
        assert!(explained.ok().ends_with(want), "{want}");
    }
    let channel = gpu_container("true", &["NVIDIA_IMEX_CHANNELS=1048575"]);
    drop(channel.make("create", &[]).fails("channel1048575"));
    let rights = gpu_container("true", &["NVIDIA_MIG_CONFIG_DEVICES=all"])
        .set("/process/capabilities", json!({}));
    rights.write();
    drop(rights.make("create", &[]).fails("needs CAP_SYS_ADMIN"));
}
