//! Containers with GPUs of a simulated node.

use fleet_tests::engine::{ISOLATED, gpus, isolation_script, unpack};

use super::*;

fn with_gpu(which: &str) -> Saved {
    let env = json!([
        "PATH=/bin:/sbin:/usr/bin",
        format!("NVIDIA_VISIBLE_DEVICES={which}")
    ]);
    let bundle = Bundle::new(COUNTER).set("/process/env", env);
    unpack("glibc", &bundle.dir.join("rootfs"));
    Saved::new(bundle)
}

/// All that native edits do in a root file system, with its age.
fn edits(saved: &Saved) -> String {
    let rootfs = saved.bundle.dir.join("rootfs");
    let mut find = Command::new("find");
    find.arg(rootfs.join("etc")).arg(rootfs.join("usr")).args([
        "-xdev",
        "-newermt",
        "@0",
        "-printf",
        "%P %T@ %l\n",
    ]);
    let listed = run(&mut find).ok();
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn the_same_gpu_and_only_that() {
    if !ready("the_same_gpu_and_only_that") || !gpus("the_same_gpu_and_only_that") {
        return;
    }
    let saved = with_gpu("0");
    saved.run();
    let see = "ls -l /dev | sed 's/ [A-Z][a-z][a-z] .*:.. / /' | sort; cut -d' ' -f5- /proc/self/mountinfo | sort; nvidia-smi -L";
    let before = saved.exec(see);
    assert!(
        before.contains("/dev/nvidia0") || before.contains("nvidia0"),
        "{before}"
    );
    let script = isolation_script(0, 1);
    assert_eq!(saved.exec(&script), ISOLATED);
    drop(saved.exec("rm /dev/other"));
    let done = edits(&saved);
    assert!(done.contains("ld.so.cache"), "{done}");
    let rules = devices(&saved.bundle);
    saved.round_trip();
    saved.goes_on();
    assert_eq!(saved.exec(see), before);
    assert_eq!(saved.exec(&script), ISOLATED);
    assert_eq!(devices(&saved.bundle), rules);
    assert_eq!(edits(&saved), done, "native edits are not made again");
}

#[test]
fn a_gpu_that_is_gone() {
    if !ready("a_gpu_that_is_gone") || !gpus("a_gpu_that_is_gone") {
        return;
    }
    let mut saved = with_gpu("1");
    saved.run();
    saved.checkpoint(&[]).silent();
    let spec = "/etc/cdi/nvidia.yaml";
    let whole = fs::read_to_string(spec).expect("read");
    let renamed = whole
        .replace("name: \"1\"", "name: \"7\"")
        .replace("name: '1'", "name: '7'");
    fs::write(spec, &renamed).expect("write");
    let said = saved.restore_fails();
    fs::write(spec, &whole).expect("write");
    saved.is_gone();
    let fresh = with_gpu("1");
    fs::write(spec, &renamed).expect("write");
    let created = fresh.bundle.run();
    fs::write(spec, &whole).expect("write");
    assert_eq!(said, created.stderr, "the same error as of `create`");
    // Another GPU is not the one that the processes know.
    let env = json!(["PATH=/bin:/sbin:/usr/bin", "NVIDIA_VISIBLE_DEVICES=0"]);
    saved.bundle = saved.bundle.set("/process/env", env);
    let said = saved.restore_fails();
    assert!(
        said.contains("`/dev/nvidia1` was there at the checkpoint"),
        "{said}"
    );
    saved.is_gone();
}
