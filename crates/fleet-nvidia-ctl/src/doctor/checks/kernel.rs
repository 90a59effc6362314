//! Kernel, cgroups and user namespaces.

use crate::doctor::check::{Check, Finding, Node, Outcome, absent, outcome};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "kernel",
        run: kernel,
    },
    Check {
        name: "cgroup",
        run: cgroup,
    },
    Check {
        name: "user-namespaces",
        run: user_namespaces,
    },
];

/// Detached read-only mounts of our own binary need it (`mount_setattr`).
const OLDEST: (u32, u32) = (5, 12);

fn kernel(node: &Node<'_>) -> Outcome {
    let Some(release) = node.read("/proc/sys/kernel/osrelease")? else {
        return absent("no kernel runs in this root");
    };
    let release = release.trim();
    let mut findings = Vec::new();
    if version(release).is_some_and(|version| version < OLDEST) {
        findings.push(Finding::error(
            format!("Linux {release} is older than 5.12, which the runtime needs"),
            "install a newer kernel",
        ));
    }
    if !node.is("/proc/sys/kernel/seccomp/actions_avail") {
        findings.push(Finding::error(
            format!("Linux {release} was built without seccomp filters"),
            "engines ask for a filter by default: use a kernel with CONFIG_SECCOMP_FILTER",
        ));
    }
    outcome(findings, format!("Linux {release}"))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn cgroup(node: &Node<'_>) -> Outcome {
    if let Some(controllers) = node.read("/sys/fs/cgroup/cgroup.controllers")? {
        let missing: Vec<_> = ["cpu", "memory", "pids"]
            .into_iter()
            .filter(|name| !controllers.split_whitespace().any(|have| have == *name))
            .collect();
        let mut findings = Vec::new();
        if !missing.is_empty() {
            findings.push(Finding::warning(
                format!("cgroup v2 lacks the controllers {}", missing.join(", ")),
                "limits of that kind are refused; see `cgroup_disable=` on the kernel's command line",
            ));
        }
        return outcome(findings, "v2; devices are controlled by eBPF");
    }
    if node.is("/sys/fs/cgroup/devices") {
        let hybrid = node.is("/sys/fs/cgroup/unified");
        return outcome(
            Vec::new(),
            if hybrid {
                "v1, with an unused v2 hierarchy (hybrid); devices are controlled by the devices controller"
            } else {
                "v1; devices are controlled by the devices controller"
            },
        );
    }
    if !node.is("/sys/fs/cgroup") {
        return absent("no cgroups in this root");
    }
    let finding = Finding::error(
        "neither cgroup v2 nor the v1 devices controller is mounted at /sys/fs/cgroup",
        "a container could reach every device: mount cgroup2 there",
    );
    outcome(vec![finding], "")
}

fn user_namespaces(node: &Node<'_>) -> Outcome {
    let mut findings = Vec::new();
    let switches = [
        (
            "/proc/sys/user/max_user_namespaces",
            "user.max_user_namespaces",
        ),
        (
            "/proc/sys/kernel/unprivileged_userns_clone",
            "kernel.unprivileged_userns_clone",
        ),
    ];
    for (path, name) in switches {
        if node.read(path)?.is_some_and(|text| text.trim() == "0") {
            findings.push(Finding::warning(
                format!("{name} is 0: rootless containers cannot start"),
                format!("sysctl -w {name}=1, or a larger number"),
            ));
        }
    }
    for program in ["newuidmap", "newgidmap"] {
        if !node.has_program(program) {
            findings.push(Finding::warning(
                format!("{program} is missing: rootless containers have a single user id"),
                "install the package uidmap (Debian) or shadow-utils (Fedora)",
            ));
        }
    }
    let user = user(node)?;
    for path in ["/etc/subuid", "/etc/subgid"] {
        findings.extend(sub_ids(node, path, user.as_deref())?);
    }
    let who = user.map_or_else(String::new, |user| format!(" for {user}"));
    outcome(findings, format!("allowed, with subordinate ids{who}"))
}

/// The name of the rootless user that we run as.
fn user(node: &Node<'_>) -> Result<Option<String>, crate::doctor::check::Broken> {
    if !node.env.rootless() || node.env.in_userns {
        return Ok(None);
    }
    let passwd = node.read("/etc/passwd")?.unwrap_or_default();
    let uid = node.env.euid.to_string();
    let line = passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some(&uid));
    Ok(line
        .and_then(|line| line.split(':').next())
        .map(str::to_owned))
}

/// `man 5 subuid`: name or number, first id, count.
fn sub_ids(
    node: &Node<'_>,
    path: &str,
    user: Option<&str>,
) -> Result<Option<Finding>, crate::doctor::check::Broken> {
    let text = node.read(path)?.unwrap_or_default();
    let uid = node.env.euid.to_string();
    let mine = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        user.is_none_or(|user| name == user || name == uid)
    };
    let ids = text
        .lines()
        .filter(mine)
        .filter_map(|line| line.rsplit(':').next()?.trim().parse::<u64>().ok());
    let most = ids.max().unwrap_or(0);
    let whom = user.unwrap_or("any user");
    Ok((most < 65536).then(|| {
        Finding::note(
            match most {
                0 => format!("{path} has no subordinate ids for {whom}, images need 65536"),
                _ => format!("{path} gives {whom} {most} subordinate ids, images need 65536"),
            },
            format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}; needed by rootless containers only", user.unwrap_or("USER")),
        )
    }))
}
