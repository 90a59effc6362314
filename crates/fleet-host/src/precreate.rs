//! The spec of a container that another runtime will run, edited before that runtime sees it.

use fleet_inject::{Change, Edit, HookEdit, Origin, Plan, Source, Stage};
use serde_json::Value;

use crate::env::Env;
use crate::inject::{Host, InjectError, Outcome, inject_with};

/// Seconds. The edits take milliseconds; a machine that swaps takes longer.
const TIMEOUT: u32 = 30;
/// A hook without an environment of its own gets that of the container from some runtimes (CVE-2025-23266).
const ENV: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/// A spec that cannot be made fit for another runtime.
#[derive(Debug, thiserror::Error)]
pub enum PrecreateError {
    /// The devices cannot be given.
    #[error(transparent)]
    Inject(#[from] InjectError),
    /// The node would be bound from its path in the container.
    #[error(
        "device {path} is {host_path} on the host, which no other runtime can bind in a user namespace; hint: run the \
         container with --runtime fleet-nvidia"
    )]
    HostPath {
        /// In the container.
        path: String,
        /// On the host.
        host_path: String,
    },
    /// The hook cannot be added.
    #[error(transparent)]
    Apply(#[from] fleet_inject::ApplyError),
}

/// Gives the container its devices as [`crate::inject`] does. What we would do in its root file system ourselves
/// becomes one hook, which runs `program`.
///
/// # Errors
/// See [`PrecreateError`]; the spec must then be discarded.
pub fn precreate(
    spec: &mut Value,
    env: &Env,
    host: &dyn Host,
    program: &str,
) -> Result<Outcome, PrecreateError> {
    let outcome = inject_with(spec, env, host)?;
    let in_userns = env.rootless() || has_user_namespace(spec);
    if let Some((path, host_path)) = outcome.applied.host_paths.first_key_value()
        && in_userns
    {
        return Err(PrecreateError::HostPath {
            path: path.clone(),
            host_path: host_path.clone(),
        });
    }
    if !outcome.applied.rootfs.is_empty() {
        let hook = HookEdit {
            path: program.to_owned(),
            args: fleet_rootfs::hook_args(&outcome.applied.rootfs),
            env: vec![ENV.to_owned()],
            timeout: TIMEOUT,
        };
        drop(add(hook).apply(spec)?);
    }
    Ok(outcome)
}

fn add(hook: HookEdit) -> Plan {
    let change = Change::Hook {
        stage: Stage::CreateContainer,
        hook,
    };
    let origin = Origin {
        source: Source::Engine,
        spec_file: None,
        device: None,
    };
    Plan {
        edits: vec![Edit { change, origin }],
        ..Plan::default()
    }
}

fn has_user_namespace(spec: &Value) -> bool {
    let namespaces = spec.pointer("/linux/namespaces").and_then(Value::as_array);
    let mut namespaces = namespaces.into_iter().flatten();
    namespaces.any(|namespace| namespace.get("type").and_then(Value::as_str) == Some("user"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fleet_rootfs::{HookProgram, recognise};
    use serde_json::json;

    use super::*;
    use crate::root::HostRoot;

    const SPEC: &str = r#"{
        "cdiVersion": "0.5.0", "kind": "nvidia.com/gpu",
        "devices": [{"name": "0", "containerEdits": {"env": ["GPU=0"]}}],
        "containerEdits": {"hooks": [
            {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "create-symlinks", "--link", "a::/b"]},
            {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", "/lib"]},
            {"hookName": "createContainer", "path": "/opt/other", "args": ["other"]}
        ]}
    }"#;

    fn node() -> (tempfile::TempDir, HostRoot) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [("etc/cdi/x.json", SPEC), ("opt/other", "")] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let host = HostRoot::new(dir.path());
        (dir, host)
    }

    fn edited(mut spec: Value) -> Value {
        let (_dir, host) = node();
        drop(precreate(&mut spec, &Env::default(), &host, "/usr/bin/fleet-nvidia").unwrap());
        spec
    }

    #[test]
    fn our_edits_become_one_hook_and_foreign_ones_stay() {
        let spec = edited(json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=0"]}}));
        let hooks = spec["hooks"]["createContainer"].as_array().unwrap();
        let paths: Vec<_> = hooks
            .iter()
            .map(|hook| hook["path"].as_str().unwrap())
            .collect();
        assert_eq!(paths, ["/opt/other", "/usr/bin/fleet-nvidia"]);
        assert!(hooks[1]["env"][0].is_string() && hooks[1]["timeout"].is_u64());
        let args: Vec<String> = serde_json::from_value(hooks[1]["args"].clone()).unwrap();
        match recognise("/usr/bin/fleet-nvidia", &args).unwrap() {
            HookProgram::Native(edits) => assert_eq!(edits.len(), 2),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn twice_is_once() {
        let once = edited(json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=0"]}}));
        assert_eq!(edited(once.clone()), once);
    }

    #[test]
    fn a_spec_that_asks_for_nothing_is_returned_as_it_is() {
        let spec = json!({"process": {"env": ["A=b"]}, "unknown": 1, "hooks": {"createContainer": [{"path": "/x"}]}});
        assert_eq!(edited(spec.clone()), spec);
    }

    #[test]
    fn a_node_of_another_path_is_not_bound_wrongly() {
        let (dir, host) = node();
        let spec = r#"{"cdiVersion": "0.5.0", "kind": "v.com/c", "devices": [{"name": "n", "containerEdits":
            {"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b", "type": "c", "major": 1, "minor": 3}]}}]}"#;
        fs::write(dir.path().join("etc/cdi/y.json"), spec).unwrap();
        let asked = json!({"annotations": {"cdi.k8s.io/x": "v.com/c=n"}, "linux": {"namespaces": [{"type": "mount"}]}});
        let run = |mut spec: Value| precreate(&mut spec, &Env::default(), &host, "/x");
        drop(run(asked.clone()).unwrap());
        let mut in_userns = asked;
        in_userns["linux"]["namespaces"] = json!([{"type": "user"}]);
        let err = run(in_userns).unwrap_err().to_string();
        assert!(err.contains("device /dev/a is /dev/b on the host"), "{err}");
    }
}
