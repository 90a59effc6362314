//! Specs by which a container gets GPUs and parts of the driver separately: nodes alone, and files by capability.

use fleet_cdi::{ContainerEdits, Device};
use fleet_inject::{Capabilities, limit};

use crate::hooks::Hooks;

type Further = (&'static str, &'static str, Vec<Device>, ContainerEdits);

/// One spec of nodes, one of parts. `control` holds the nodes that every GPU needs, `driver` the files and their hooks.
pub(crate) fn specs(
    devices: &[Device],
    control: &ContainerEdits,
    driver: &ContainerEdits,
    hooks: &Hooks<'_>,
) -> Vec<Further> {
    let mut nodes = control.clone();
    let guards = [
        "disable-device-node-modification",
        "update-application-profile",
    ];
    nodes
        .hooks
        .extend(guards.into_iter().filter_map(|name| hooks.plain(name)));
    let parts = Capabilities::each();
    let parts = parts
        .filter_map(|(name, part)| device(name, part, driver))
        .collect();
    let common = ContainerEdits {
        env: driver.env.clone(),
        ..ContainerEdits::default()
    };
    vec![
        (".node", "-node", devices.to_vec(), nodes),
        (".driver", "-driver", parts, common),
    ]
}

/// A part of the driver, unless the installation has nothing of it.
fn device(name: &str, part: Capabilities, driver: &ContainerEdits) -> Option<Device> {
    // 32-bit libraries are of some part, too: alone they are those of every part.
    let wanted = match part {
        Capabilities::COMPAT32 => Capabilities::ALL,
        part => part,
    };
    let mut edits = driver.clone();
    edits.env.clear();
    limit(&mut edits, wanted);
    if part == Capabilities::COMPAT32 {
        keep_32_bit(&mut edits, driver);
    }
    (!edits.mounts.is_empty()).then(|| Device {
        name: name.to_owned(),
        container_edits: edits,
        ..Device::default()
    })
}

/// Leaves what all the other parts together do not have.
fn keep_32_bit(edits: &mut ContainerEdits, driver: &ContainerEdits) {
    let mut others = driver.clone();
    limit(
        &mut others,
        Capabilities::ALL.without(Capabilities::COMPAT32),
    );
    edits.mounts.retain(|mount| !others.mounts.contains(mount));
    let dirs: Vec<String> = edits
        .mounts
        .iter()
        .filter_map(|mount| Some(mount.container_path.rsplit_once('/')?.0.to_owned()))
        .collect();
    edits.hooks.retain(|hook| {
        hook.args
            .iter()
            .any(|arg| arg == "update-ldcache" || arg == "create-symlinks")
    });
    for hook in &mut edits.hooks {
        retain_values(&mut hook.args, &dirs);
    }
    edits.hooks.retain(|hook| {
        hook.args
            .iter()
            .any(|arg| arg == "--folder" || arg == "--link")
    });
}

/// Keeps folders that are in `dirs` and links into them.
fn retain_values(args: &mut Vec<String>, dirs: &[String]) {
    let is_in = |path: &str| dirs.iter().any(|dir| dir == path);
    let mut kept = Vec::with_capacity(args.len());
    let mut all = args.drain(..).peekable();
    while let Some(arg) = all.next() {
        let value = match arg.as_str() {
            "--folder" | "--link" => all.next(),
            _ => None,
        };
        let wanted = value.as_deref().is_none_or(|value| {
            let link = value.split_once("::").map(|(_, link)| link);
            let dir = link.map(|link| link.rsplit_once('/').map_or("/", |(dir, _)| dir));
            is_in(dir.unwrap_or(value))
        });
        if wanted {
            kept.push(arg);
            kept.extend(value);
        }
    }
    drop(all);
    *args = kept;
}
