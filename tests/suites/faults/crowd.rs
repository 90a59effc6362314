//! Many containers, at once and one after the other: nothing adds up.

use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Instant;

use fleet_tests::{Bundle, Runtime, not_for_peers, unique};
use serde_json::json;

use crate::census::Census;
use crate::steps;

/// One that shares another's root file system and state root.
fn beside(first: &Bundle) -> Bundle {
    let id = unique("crowd");
    let dir = PathBuf::from("/run").join(format!("bundle-{id}"));
    std::fs::create_dir(&dir).expect("make a bundle");
    let mut spec = first.spec.clone();
    spec["root"] = json!({"path": first.dir.join("rootfs"), "readonly": true});
    spec["linux"]["cgroupsPath"] = json!(fleet_tests::cgroup_path(&id));
    Bundle {
        dir,
        id,
        spec,
        runtime: Runtime {
            config: None,
            user: None,
            binary: first.runtime.binary.clone(),
            root: first.runtime.root.join("crowd"),
        },
    }
}

/// The whole life of a container.
fn live(bundle: &Bundle) {
    bundle.make("create", &[]).silent();
    bundle.runtime.run(&["start", &bundle.id]).silent();
    bundle.becomes("running");
    assert_eq!(bundle.exec(&[], &["sh", "-c", "exit 3"]).code, 3);
    bundle.remove();
}

#[test]
fn two_hundred_at_once() {
    if not_for_peers("two_hundred_at_once") {
        return;
    }
    let first = Bundle::new("sleep 100");
    live(&first);
    let root = first.runtime.root.join("crowd");
    std::fs::create_dir(&root).expect("make the root");
    let census = Census::take();
    let start = Instant::now();
    let all: Vec<Bundle> = (0..200).map(|_| beside(&first)).collect();
    let barrier = Barrier::new(all.len());
    std::thread::scope(|scope| {
        for bundle in &all {
            scope.spawn(|| {
                barrier.wait();
                live(bundle);
            });
        }
    });
    println!("200 lives at once in {:?}", start.elapsed());
    for bundle in &all {
        std::fs::remove_dir_all(&bundle.dir).expect("remove a bundle");
    }
    census.assert_nothing_new("after 200");
    std::fs::remove_dir(&root).expect("the root is empty");
}

#[test]
fn one_after_the_other() {
    if not_for_peers("one_after_the_other") {
        return;
    }
    let count = if steps::all() { 10_000 } else { 200 };
    let bundle = Bundle::new("sleep 100");
    live(&bundle);
    let census = Census::take();
    let start = Instant::now();
    for _ in 0..count {
        live(&bundle);
    }
    println!("{count} lives in {:?}", start.elapsed());
    census.assert_nothing_new("after all");
}
