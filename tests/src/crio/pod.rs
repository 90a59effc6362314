//! A pod: its namespaces are files that outlive every process, its first process holds the process namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{Container, Crio};
use crate::{run, unique};

/// A pod sandbox.
#[derive(Debug)]
pub struct Pod<'c> {
    crio: &'c Crio,
    /// Directory of its namespace files.
    namespaces: PathBuf,
    kinds: Vec<&'static str>,
    /// The pause container.
    pub pause: Container<'c>,
}

impl<'c> Pod<'c> {
    /// With namespaces of its own.
    #[must_use]
    pub fn new(crio: &'c Crio) -> Self {
        Self::with(crio, false)
    }

    /// `hostUsers: false`: its namespaces belong to a user namespace that maps root to nobody in particular.
    #[must_use]
    pub fn with_user_namespace(crio: &'c Crio) -> Self {
        Self::with(crio, true)
    }

    fn with(crio: &'c Crio, user: bool) -> Self {
        let namespaces = pin(&crio.dir, user);
        let mut kinds = vec!["net", "ipc", "uts"];
        if user {
            kinds.push("user");
        }
        let mut pause = Container::new(crio, "busybox", "sandbox", "exec sleep 1000000");
        // CRI-O also sets oomScoreAdj -998, which takes a capability that a test machine may lack.
        pause.spec["linux"]["resources"] =
            json!({"devices": [{"allow": false, "access": "rwm"}], "cpu": {"shares": 2}});
        pause.join(pinned(&namespaces, &kinds));
        pause.join(vec![json!({"type": "pid"})]);
        pause.map_users(user);
        Self {
            crio,
            namespaces,
            kinds,
            pause,
        }
    }

    /// Runs the pause container.
    #[track_caller]
    pub fn start(&mut self) {
        self.pause.create().expect("the pause container is made");
        self.pause.start();
    }

    /// A container in it, with a process namespace of its own or, as `shareProcessNamespace` asks, the pod's.
    #[must_use]
    pub fn container(&self, image: &str, script: &str, shared: bool) -> Container<'c> {
        let mut container = Container::new(self.crio, image, "container", script);
        container.join(pinned(&self.namespaces, &self.kinds));
        container.join(vec![if shared {
            json!({"type": "pid", "path": format!("/proc/{}/ns/pid", self.pause.pid())})
        } else {
            json!({"type": "pid"})
        }]);
        container.map_users(self.kinds.contains(&"user"));
        container
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        for kind in &self.kinds {
            let _ = nix::mount::umount(&self.namespaces.join(kind));
        }
        let _ = nix::mount::umount(&self.namespaces);
    }
}

/// CRI-O has `pinns` do this: new namespaces, each bound to a file.
fn pin(dir: &Path, user: bool) -> PathBuf {
    let place = dir.join(unique("ns"));
    // A user namespace has its map before the process in it goes on.
    let script = "set -e; mkdir \"$0\"; mount --bind \"$0\" \"$0\"; mount --make-private \"$0\"; cd \"$0\"; touch net ipc uts user; mkfifo go
        kinds='net ipc uts'; [ \"$1\" = false ] || kinds=\"$kinds user\"
        unshare $(printf -- '--%s ' $kinds) sh -c 'read x < go; exec sleep 1000' & holder=$!
        until [ \"$(readlink /proc/$holder/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done
        if [ \"$1\" = true ]; then echo '0 200000 65536' > /proc/$holder/uid_map; echo '0 200000 65536' > /proc/$holder/gid_map; fi
        echo > go
        for kind in $kinds; do mount --bind /proc/$holder/ns/$kind $kind; done
        kill $holder";
    let args = [
        "-c",
        script,
        place.to_str().expect("text"),
        &user.to_string(),
    ];
    drop(run(Command::new("sh").args(args)).ok());
    place
}

fn pinned(dir: &Path, kinds: &[&str]) -> Vec<Value> {
    let word = |kind: &str| if kind == "net" { "network" } else { kind }.to_owned();
    let named = kinds
        .iter()
        .map(|kind| json!({"type": word(kind), "path": dir.join(kind)}));
    assert!(fs::exists(dir).expect("stat"));
    named.collect()
}
