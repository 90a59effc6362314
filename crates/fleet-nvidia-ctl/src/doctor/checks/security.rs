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

/// The boolean that lets container_t use device nodes (container-selinux).
const BOOLEAN: &str = "container_use_devices";

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
    let state = node.read(&format!("/sys/fs/selinux/booleans/{BOOLEAN}"))?;
    if state.is_some_and(|state| state.trim_start().starts_with('0')) {
        findings.push(Finding::warning(
            format!("SELinux enforces, and {BOOLEAN} is off: containers may not open /dev/nvidia*"),
            format!("setsebool -P {BOOLEAN} on"),
        ));
    }
    findings.extend(denials(
        node,
        &[AUDIT_LOG],
        "avc:  denied",
        "audit2why -a says which rule is missing; `--security-opt label=disable` tells whether it is the cause",
    ));
    outcome(findings, format!("enforcing, {BOOLEAN} is on"))
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
            "install a profile with `userns,` for /usr/bin/fleet-nvidia, or set kernel.apparmor_restrict_unprivileged_userns=0",
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
