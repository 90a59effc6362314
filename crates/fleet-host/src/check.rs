//! Whether a CDI spec still says what the host has.

use fleet_cdi::{ContainerEdits, Spec};
use fleet_inject::{Fault, HookPolicy, HostProbe, faults};

use crate::driver::mounted_version;
use crate::partition;

/// Something in a spec that is not so on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecFault {
    /// What it is.
    pub fault: Fault,
    /// Devices of the spec that bring it; none if it is in the edits that they share.
    pub devices: Vec<String>,
}

/// Compares a whole spec with the host. The same fault of several devices is one.
#[must_use]
pub fn check_spec(spec: &Spec, host: &dyn HostProbe, hooks: &HookPolicy) -> Vec<SpecFault> {
    let mut found: Vec<SpecFault> = Vec::new();
    let common = faults(&spec.container_edits, host, hooks).into_iter();
    let common = stale(spec, host).into_iter().chain(common);
    found.extend(common.map(|fault| SpecFault {
        fault,
        devices: Vec::new(),
    }));
    for device in &spec.devices {
        let gone = partition::gone(&spec.kind, &device.container_edits, host).into_iter();
        let gone = gone.map(|path| Fault {
            what: "device",
            path: path.to_owned(),
            problem: "is of a partition that the GPU has no more".to_owned(),
        });
        let missing = faults(&device.container_edits, host, hooks);
        for fault in gone.chain(missing) {
            match found.iter_mut().find(|known| known.fault == fault) {
                Some(known) if known.devices.is_empty() => {}
                Some(known) => known.devices.push(device.name.clone()),
                None => found.push(SpecFault {
                    fault,
                    devices: vec![device.name.clone()],
                }),
            }
        }
    }
    found
}

/// The libraries of another driver than the loaded one, though their files may still be there.
fn stale(spec: &Spec, host: &dyn HostProbe) -> Option<Fault> {
    let devices = spec.devices.iter().map(|device| &device.container_edits);
    let edits: Vec<&ContainerEdits> = [&spec.container_edits].into_iter().chain(devices).collect();
    let (path, version) = edits.iter().find_map(|edits| mounted_version(edits))?;
    let loaded = host.driver_version()?;
    let problem = format!("is of driver {version}, but the loaded one is {loaded}");
    (version != loaded).then_some(Fault {
        what: "mount",
        path,
        problem,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fleet_cdi::{Format, parse};

    use super::*;
    use crate::root::HostRoot;

    const SPEC: &str = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  mounts:\n  - {hostPath: /lib/libcuda.so.550.1, containerPath: /lib/libcuda.so.550.1}\n  - {hostPath: /lib/gone, containerPath: /lib/gone}\n  - {hostPath: tmpfs, containerPath: /x, type: tmpfs}\n  hooks:\n  - {hookName: createContainer, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, update-ldcache]}\n  - {hookName: createRuntime, path: /opt/gone}\ndevices:\n- name: \"0\"\n  containerEdits: {deviceNodes: [{path: /dev/gone}, {path: /dev/file}]}\n- name: all\n  containerEdits: {deviceNodes: [{path: /dev/gone}]}\n";

    #[test]
    fn every_fault_is_found_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (path, text) in [
            ("lib/libcuda.so.550.1", ""),
            ("dev/file", ""),
            (
                "proc/driver/nvidia/version",
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.2  x\n",
            ),
        ] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        }
        let spec = parse(SPEC.as_bytes(), Format::Yaml).unwrap();
        let found = check_spec(&spec, &HostRoot::new(root), &HookPolicy::default());
        let shown: Vec<_> = found
            .iter()
            .map(|f| {
                format!(
                    "{} {} {} [{}]",
                    f.fault.what,
                    f.fault.path,
                    f.fault.problem,
                    f.devices.join(" ")
                )
            })
            .collect();
        let want = [
            "mount /lib/libcuda.so.550.1 is of driver 550.1, but the loaded one is 560.2 []",
            "mount /lib/gone is missing []",
            "hook /opt/gone is missing []",
            "device /dev/gone is missing [0 all]",
            "device /dev/file is not a device node [0]",
        ];
        assert_eq!(shown, want);
    }

    #[test]
    fn nodes_of_partitions_that_are_gone_are_faults_although_they_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let minors = "config 1\nmonitor 2\ngpu0/gi7/access 66\ngpu0/gi7/ci0/access 67\n\
                      gpu0/gi8/access 75\ngpu0/gi8/ci0/access 76\n";
        write("proc/driver/nvidia-caps/mig-minors", minors);
        let gone = |kind: &str, numbers: &[u32]| -> Vec<String> {
            let nodes = numbers.iter().map(|number| {
                format!(
                    "{{path: /x/nvidia-cap{number}, hostPath: /dev/nvidia-caps/nvidia-cap{number}}}"
                )
            });
            let nodes: Vec<_> = nodes.collect();
            let spec = format!(
                "cdiVersion: 0.5.0\nkind: {kind}\ndevices:\n- name: \"0:0\"\n  containerEdits: {{deviceNodes: [{}]}}\n",
                nodes.join(", ")
            );
            let spec = parse(spec.as_bytes(), Format::Yaml).unwrap();
            let faults = check_spec(&spec, &HostRoot::new(root), &HookPolicy::default());
            let gone = faults
                .into_iter()
                .filter(|found| found.fault.problem.contains("partition"));
            gone.map(|found| found.fault.path).collect()
        };
        let all = [1, 66, 67, 75, 76, 99];
        assert_eq!(gone("nvidia.com/gpu", &all), [""; 0], "not stated");
        write("proc/driver/nvidia/capabilities/mig/config", "");
        write("proc/driver/nvidia/capabilities/gpu0/mig/gi7/access", "");
        write(
            "proc/driver/nvidia/capabilities/gpu0/mig/gi7/ci0/access",
            "",
        );
        let want = [75, 76, 99].map(|number| format!("/dev/nvidia-caps/nvidia-cap{number}"));
        assert_eq!(gone("nvidia.com/gpu", &all), want);
        assert_eq!(gone("management.nvidia.com/gpu", &all), [""; 0]);
    }
}
