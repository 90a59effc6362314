//! SELinux and AppArmor.

use crate::doctor::check::{Check, Finding, Node, Outcome, absent, outcome};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "selinux",
        run: selinux,
    },
    Check {
        name: "apparmor",
        run: apparmor,
    },
];

const AUDIT_LOG: &str = "/var/log/audit/audit.log";
/// Bytes of a log that are looked at.
const TAIL: u64 = 256 * 1024;

/// The booleans that let container_t use the driver's nodes, xserver_misc_device_t (container-selinux): that type alone, which
/// older ones do not have, or every device node.
const BOOLEANS: [&str; 2] = ["container_use_xserver_devices", "container_use_devices"];
/// What container-selinux gives crun and runc.
const PROGRAM_TYPE: &str = "container_runtime_exec_t";
const MODULE: &str = "/usr/share/fleet-nvidia/selinux/fleet-nvidia.cil";

fn selinux(node: &Node<'_>) -> Outcome {
    match node
        .read("/sys/fs/selinux/enforce")?
        .as_deref()
        .map(str::trim)
    {
        None => return absent("SELinux is off"),
        Some("1") => {}
        Some(_) => return outcome(Vec::new(), "permissive: denials are logged, not enforced"),
    }
    let mut findings = Vec::new();
    let mut on = None;
    let mut off = Vec::new();
    for boolean in BOOLEANS {
        let state = node.read(&format!("/sys/fs/selinux/booleans/{boolean}"))?;
        match state
            .as_deref()
            .map(|state| state.trim_start().starts_with('1'))
        {
            Some(true) => on = on.or(Some(boolean)),
            Some(false) => off.push(boolean),
            None => {}
        }
    }
    if let (None, Some(first)) = (on, off.first()) {
        findings.push(Finding::warning(
            format!(
                "SELinux enforces, and {} is off: containers may not open /dev/nvidia*",
                off.join(" or ")
            ),
            format!("setsebool -P {first} on"),
        ));
    }
    findings.extend(label(node));
    findings.extend(denials(
        node,
        &[AUDIT_LOG],
        "avc:  denied",
        "audit2why -a says which rule is missing; `--security-opt label=disable` tells whether it is the cause",
    ));
    outcome(
        findings,
        format!(
            "enforcing, {} is on",
            on.unwrap_or("no boolean of container-selinux")
        ),
    )
}

/// Without that type it works as far as Podman or CRI-O starts it, which are in the right domain themselves.
fn label(node: &Node<'_>) -> Option<Finding> {
    let program = crate::configure::installed_program(node.files);
    let said = node
        .programs
        .ask(&["stat", "--format=%C", "--dereference", &program], 5)
        .ok()?;
    let kind = said.stdout.trim().split(':').nth(2)?;
    (said.ok && kind != PROGRAM_TYPE).then(|| {
        Finding::note(
            format!("{program} is of type {kind}, not {PROGRAM_TYPE}: what Podman and CRI-O start works, other callers stay in their own domain"),
            format!("semodule -i {MODULE}, then restorecon -v {program}"),
        )
    })
}

/// Denials that name NVIDIA's devices or our binary. The logs are root's; one that cannot be read has none for us.
fn denials(node: &Node<'_>, logs: &[&str], mark: &str, hint: &str) -> Option<Finding> {
    logs.iter().find_map(|log| {
        let text = node.files.tail(log.as_ref(), TAIL).ok()?;
        let ours = |line: &&str| line.contains(mark) && line.contains("nvidia");
        let count = text.lines().filter(ours).count();
        let last = text.lines().rfind(ours)?;
        let at = last.find(mark).unwrap_or(0);
        let shown: String = last[at..].chars().take(160).collect();
        let text = format!("{log} has {count} denials about nvidia, the last: {shown}");
        Some(Finding::warning(text, hint))
    })
}

fn apparmor(node: &Node<'_>) -> Outcome {
    let on = node.read("/sys/module/apparmor/parameters/enabled")?;
    if on.is_none_or(|on| on.trim() != "Y") {
        return absent("AppArmor is off");
    }
    let switch = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    let restricted = node.read(switch)?.is_some_and(|text| text.trim() == "1");
    let profiles = ["/etc/apparmor.d/fleet-nvidia", "/etc/apparmor.d/podman"];
    let mut findings = Vec::new();
    if restricted && !profiles.iter().any(|profile| node.is(profile)) {
        findings.push(Finding::warning(
            "AppArmor restricts user namespaces, and no profile lets this runtime or Podman make one: rootless containers fail",
            "cp /usr/share/fleet-nvidia/apparmor/fleet-nvidia /etc/apparmor.d/ && apparmor_parser -r /etc/apparmor.d/fleet-nvidia, or set kernel.apparmor_restrict_unprivileged_userns=0",
        ));
    }
    findings.extend(denials(
        node,
        &[AUDIT_LOG, "/var/log/kern.log", "/var/log/syslog"],
        "apparmor=\"DENIED\"",
        "aa-status shows the profile; `--security-opt apparmor=unconfined` tells whether it is the cause",
    ));
    outcome(findings, "on")
}
