//! An engine on the node learns of its new configuration: by the node's own systemctl, run in the node's root.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::args::InRoot;
use super::{At, NodeError};
use crate::configure::Engine;
use crate::doctor::programs::{Machine, Programs};
use crate::files::Files;

/// Engines are given this long to come up again.
const PATIENCE: u64 = 120;
/// The node's own directories of programs; ours mean nothing there.
const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin";

/// Has the unit of an engine read its configuration again, if it runs.
pub(super) fn reload(files: &Files, engine: Engine) -> Result<Option<String>, NodeError> {
    let (verb, unit) = match engine {
        Engine::Podman => return Ok(None),
        // A reload shows a new handler in its status, and no pod can use it (cri-o#10202). Its containers belong to
        // their monitors.
        Engine::Crio => ("try-restart", "crio.service"),
        // It reads runtimes when it starts; its containers belong to their shims.
        Engine::Containerd => ("try-restart", "containerd.service"),
        Engine::Docker => ("try-reload-or-restart", "docker.service"),
    };
    let root = files.root().display().to_string();
    let argv = [
        "/proc/self/exe",
        "node",
        "in-root",
        &root,
        "systemctl",
        verb,
        unit,
    ];
    let said = Machine.ask(&argv, PATIENCE);
    match said {
        Ok(said) if said.ok => Ok(Some(format!("systemctl {verb} {unit}"))),
        Ok(said) => Err(failed(verb, unit, said.complaint())),
        Err(err) => Err(failed(verb, unit, &crate::files::cause(&err))),
    }
}

fn failed(verb: &str, unit: &str, why: &str) -> NodeError {
    NodeError::Asked(format!(
        "systemctl {verb} {unit} in the node's root: {why}; hint: the files are written, restart it by hand, or repeat this"
    ))
}

/// Becomes a program of the node. Returns only if that fails.
pub(super) fn become_program(args: &InRoot) -> NodeError {
    let entered = nix::unistd::chroot(&args.root).and_then(|()| nix::unistd::chdir("/"));
    if let Err(err) = entered.at("enter", &args.root) {
        return err;
    }
    let Some((program, rest)) = args.argv.split_first() else {
        return NodeError::Asked("no program is named".to_owned());
    };
    let err: io::Error = Command::new(program)
        .args(rest)
        .env_clear()
        .env("PATH", PATH)
        .exec();
    NodeError::Io {
        op: "run",
        path: program.into(),
        source: err,
    }
}
